"""`asymflow bench` for models of classes, of nothing and of prompts, in 1, 3 and 4 channels."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from asymflow.bench.baselines import protocol
from asymflow.bench.baselines.protocol import Budget
from asymflow.core import schedules
from asymflow.models.jit.checkpoint import published_name
from asymflow.models.jit.network import JitConfig, JitModel
from tests.fakes import FakeModel

from .conftest import Type

# As deep as the smallest published one, so that the rest is known.
SHAPE = JitConfig(
    size=16, patch=4, width=16, depth=12, heads=2, hidden=24, bottleneck=6, classes=5,
    class_tokens=2, class_start=4, noise_scale=16 / 256,
)  # fmt: skip


@pytest.fixture(scope="module")
def jit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of five classes, of random weights."""
    torch.manual_seed(0)
    model = JitModel(SHAPE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("jit") / "model.safetensors"
    save_file({published_name(n): v.contiguous() for n, v in model.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of grey pictures that is asked with nothing, of random weights."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = diffusers.UNet2DModel.from_config(
        {
            "sample_size": 16,
            "in_channels": 1,
            "out_channels": 1,
            "layers_per_block": 1,
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "norm_num_groups": 4,
        }
    )
    folder = tmp_path_factory.mktemp("unet")
    network.save_pretrained(folder / "unet")
    diffusers.DDIMScheduler(num_train_timesteps=100).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "QUICK", Budget(quick=True, steps=(3,), rounds=(1,)))
    monkeypatch.setattr(schedules, "fine_plan", partial(schedules.fine_plan, count=8))


@pytest.mark.parametrize("kind", ["jit", "unet"])
def test_baselines_compare_any_model_by_its_limit(
    kind: str, request: pytest.FixtureRequest, type_: Type
) -> None:
    path: Path = request.getfixturevalue(kind)
    words = ("bench", "baselines", "--model", path, "--quick", "--pictures", "2")
    table = type_(*words, "--out", "out").out
    assert {path.name for path in Path("out").iterdir()} == {
        "cache",
        "baselines.json",
        "baselines.png",
        "sheet.png",
    }
    said = json.loads(Path("out/baselines.json").read_text("utf-8"))
    assert said["provenance"]["weights"] == [said["name"]]
    assert "default" in said["provenance"]["plans"]
    assert said["settings"]["size"] == "16x16"
    names = [each["name"] for each in said["results"]]
    assert names[0] == "limit"
    assert all(name in table for name in names)
    assert {each["family"] for each in said["results"]} >= {"own sampler", "UniPC", "asymflow"}


@pytest.mark.parametrize("kind", ["jit", "unet"])
def test_a_dataset_is_refused_for_other_models_than_the_embedded_one(
    kind: str, request: pytest.FixtureRequest, type_: Type
) -> None:
    typed = type_("bench", "baselines", "--model", request.getfixturevalue(kind), "--data", ".")
    assert typed.code == 2
    assert "makes other pictures than the drawings" in typed.err


def test_sizes_and_places_that_are_impossible_are_refused(jit: Path, type_: Type) -> None:
    words = ("bench", "baselines", "--model", jit)
    typed = type_(*words, "--size", "24")
    assert (typed.code, "Size 24x24 is not possible" in typed.err) == (2, True)
    typed = type_(*words, "--size", "many")
    assert (typed.code, "is not a size" in typed.err) == (2, True)
    typed = type_(*words, "--out", "/proc/x")
    assert (typed.code, "Cannot write /proc/x" in typed.err) == (2, True)
    assert not list(Path.cwd().iterdir())


def test_an_interruption_says_where_pictures_are_kept(model: FakeModel, type_: Type) -> None:
    words = ("bench", "baselines", "--quick", "--pictures", "2", "--size", "16", "--out", "out")
    model.interrupt_at = 300
    typed = type_(*words)
    assert typed.code == 130
    assert f"Pictures are kept in {Path('out/cache')}" in typed.err
    assert [path.name for path in Path("out").iterdir()] == ["cache"]
    model.interrupt_at = None
    said = type_(*words, "--json").out
    assert Path("out/baselines.json").read_text("utf-8") == said
    assert json.loads(said)["provenance"]["weights"] == [model.name]


@pytest.mark.parametrize("kind", ["jit", "unet"])
def test_a_strip_and_a_page_show_any_model(
    kind: str, request: pytest.FixtureRequest, type_: Type
) -> None:
    path: Path = request.getfixturevalue(kind)
    assert type_("bench", "strip", "--model", path, "-o", "strip.png").out == "strip.png\n"
    with Image.open("strip.png") as image:
        assert image.width > 1000
    words = ("bench", "plan", "--model", path, "--against", "default")
    assert type_(*words, "-o", "page.html").out == "page.html\n"
    page = Path("page.html").read_text("utf-8")
    drawn = "“0”" if kind == "jit" else "a picture"
    assert f"How the plan “default” draws {drawn}" in page
    assert type_(*words, "-o", "page.png").out == "page.png\n"
    assert Path("page.png").stat().st_size > 10_000


def test_a_class_can_be_drawn(jit: Path, unet: Path, type_: Type) -> None:
    words = ("bench", "plan", "--model", jit, "--class", "3", "-o", "page.html")
    assert type_(*words).code == 0
    assert "draws “3”" in Path("page.html").read_text("utf-8")
    typed = type_("bench", "strip", "a fox", "--model", jit)
    assert (typed.code, "knows classes and no prompts" in typed.err) == (2, True)
    typed = type_("bench", "strip", "a fox", "--model", unet)
    assert (typed.code, "cannot be asked with a prompt" in typed.err) == (2, True)
    typed = type_("bench", "plan", "best", "--model", unet, "-o", "none.html")
    assert (typed.code, "has no plan 'best'" in typed.err) == (2, True)
    assert not Path("strip.png").exists()
    assert not Path("none.html").exists()


@pytest.mark.parametrize("kind", ["jit", "unet"])
def test_speed_is_measured_of_any_model(
    kind: str, request: pytest.FixtureRequest, type_: Type
) -> None:
    words = ("bench", "speed", "--quick", "--model", request.getfixturevalue(kind), "--json")
    said = json.loads(type_(*words).out)
    assert said["engine"]["median"]["value"] > 0.5
    assert all(each["flops"] > 0 and each["share"]["value"] > 0 for each in said["forward"])
