"""Models by reference: files, folders, and names under which installed packages offer them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import asymflow
from asymflow.core import engine
from asymflow.core.adapter import unwrapped
from asymflow.core.card import Tiles
from asymflow.core.errors import AsymflowError, FileFormatError, InputError
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Request
from asymflow.generation import pipeline
from asymflow.models import edm, files, jit, minit2i
from asymflow.models.diffusers.families import FAMILIES
from asymflow.models.diffusers.served import ServedPipeline, check_index, serve
from asymflow.models.edm import adm_checkpoint, checkpoint
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.models.jit.network import JitConfig
from asymflow.planning.shelf import DEFAULT
from tests import miniatures

EXAMPLE = Path(__file__).parents[2] / "examples" / "adapter"


def offer(folder: Path, package: str, *lines: str) -> None:
    """What an installed package leaves behind."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[asymflow.adapters]", *lines]) + "\n")


def test_without_a_name_it_is_the_model_that_comes_along() -> None:
    assert isinstance(asymflow.load(), EmbeddedAdapter)


def test_a_name_is_looked_up_among_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(EXAMPLE / "asymflow_example.py", tmp_path)
    offer(tmp_path, "asymflow_example", "example = asymflow_example:load")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = asymflow.load("example", channels=1)
    [result] = engine.run(model, plan_of(shifted(12, 1.0)), [Request({}, (64, 64), 1)])
    assert result.picture.shape == (64, 64, 1)
    assert (2 * result.picture - 1).std() == pytest.approx(0.3, rel=0.1)


def test_names_that_lead_nowhere_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(EXAMPLE / "asymflow_example.py", tmp_path)
    offer(
        tmp_path,
        "broken",
        "missing = not_there:load",
        "nameless = asymflow_example:nothing",
        "number = builtins:int",
        "example = asymflow_example:load",
        "twice = asymflow_example:load",
    )
    offer(tmp_path, "other", "twice = asymflow_example:network")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, message in (
        ("example2", r"offered: example, missing, nameless, number, twice"),
        ("missing", "not_there:load cannot be loaded: No module named 'not_there'"),
        ("nameless", "asymflow_example:nothing cannot be loaded"),
        ("number", "builtins:int returned a int, which is no"),
        ("twice", "Several packages offer"),
    ):
        with pytest.raises(InputError, match=message):
            asymflow.load(name)
    with pytest.raises(InputError, match=r"cannot be loaded.*'colour'"):
        asymflow.load("example", colour="red")


CARDLESS = """
from asymflow.models.gaussian import GaussianAdapter
import torch


def load():
    return GaussianAdapter(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))
"""


def test_a_package_need_not_know_of_cards_and_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asymflow_cardless.py").write_text(CARDLESS)
    offer(tmp_path, "cardless", "cardless = asymflow_cardless:load")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert asymflow.load("cardless", device="cpu", dtype=torch.bfloat16).name == "gaussian"
    with pytest.raises(InputError, match="colour"):
        asymflow.load("cardless", colour="red")
    with pytest.raises(InputError, match=r"gaussian has no card.*Add the property `card`"):
        pipeline.load("cardless")


# --- files and folders -------------------------------------------------------------------------

RECOGNISED = {
    "jit_file": jit.recognises,
    "minit2i_file": minit2i.recognises,
    "edm_file": checkpoint.recognises,
    "adm_file": adm_checkpoint.recognises,
}


@pytest.mark.parametrize("make", miniatures.FILES, ids=lambda make: make.__name__)
def test_no_family_claims_the_file_of_another(make: Any, tmp_path: Path) -> None:
    path = make(tmp_path)
    safe = path.suffix == ".safetensors"
    shapes = files.shapes(path) if safe else files.nested(files.tensors(path))
    found = {name for name, recognises in RECOGNISED.items() if recognises(shapes)}
    assert found == {make.__name__} & RECOGNISED.keys()


@pytest.mark.parametrize(
    "make",
    [
        miniatures.jit_file,
        miniatures.edm_file,
        miniatures.minit2i_folder,
        miniatures.ddim_folder,
        miniatures.prx_folder,
    ],
)
def test_the_default_plan_has_its_name(make: Any, tmp_path: Path) -> None:
    found: Any = asymflow.load(str(make(tmp_path)))
    assert found.default_plan(found.card.sizes.native).name == DEFAULT


def test_files_lead_to_their_families(tmp_path: Path) -> None:
    for make, kind in (
        (miniatures.embedded_file, EmbeddedAdapter),
        (miniatures.jit_file, jit.JitAdapter),
        (miniatures.edm_file, edm.CallableAdapter),
        (miniatures.adm_file, edm.CallableAdapter),
    ):
        path = make(tmp_path / make.__name__) if (tmp_path / make.__name__).mkdir() is None else ""
        assert isinstance(asymflow.load(path), kind)
        assert asymflow.load(Path(path).parent).name == asymflow.load(path).name  # its folder
    state = {f"odd.{name}": torch.zeros(1) for name in "abc"}
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(FileFormatError, match=r"3 tensors of no known kind, such as odd\.a"):
        asymflow.load(tmp_path / "odd.pt")


def test_what_is_said_beside_a_model_is_on_its_card(tmp_path: Path) -> None:
    path = miniatures.adm_file(tmp_path)
    said = tmp_path / "adm.asymflow.json"
    said.write_text('{"title": "Shapes", "classes": ["disc", "star", "ring"], "null": 3}')
    card: Any = getattr(asymflow.load(path), "card")  # noqa: B009
    assert (card.title, card.classes, card.guided) == ("Shapes", ("disc", "star", "ring"), True)
    path = miniatures.jit_file(tmp_path)
    (tmp_path / "jit.asymflow.json").write_text('{"null": 3}')
    with pytest.raises(FileFormatError, match="names a null class, and models of the kind JiT"):
        asymflow.load(path)


def test_tiles_are_declared_beside_a_model(tmp_path: Path) -> None:
    path = miniatures.jit_file(tmp_path)
    side: int = getattr(asymflow.load(path), "card").sizes.native[0]  # noqa: B009
    said = tmp_path / "jit.asymflow.json"
    said.write_text(f'{{"tiles": {{"side": {side}, "until": 0.25}}}}')
    card: Any = getattr(asymflow.load(path), "card")  # noqa: B009
    assert card.tiles == Tiles(side, 0.25)
    for tiles, refusal in (
        (f'{{"side": {side}, "until": 0}}', "until = 0, which is not a t"),
        (f'{{"side": {side}}}', "until"),
        (f'{{"side": {side + 1}, "until": 0.25}}', f"tiles of {side + 1}x{side + 1} pixels"),
    ):
        said.write_text(f'{{"tiles": {tiles}}}')
        with pytest.raises(FileFormatError, match=refusal):
            asymflow.load(path)


def test_options_of_the_family_are_read_beside_a_model(tmp_path: Path) -> None:
    path = miniatures.jit_file(tmp_path)
    said = tmp_path / "jit.asymflow.json"
    said.write_text('{"options": {"class_start": 1, "noise_scale": 0.5}}')

    def loaded(**given: float) -> JitConfig:
        adapter = unwrapped(asymflow.load(path, **given))
        assert isinstance(adapter, jit.JitAdapter)
        return adapter.model.config

    assert (loaded().class_start, loaded().noise_scale) == (1, 0.5)
    assert loaded(noise_scale=2.0).noise_scale == 2.0
    assert asymflow.load(tmp_path).name == asymflow.load(path).name
    for options, refusal in (
        ('{"colour": 1}', "colour is no option of the model"),
        ('{"class_start": 0.5}', "cannot be added at block 0.5"),
        ('{"noise_scale": "big"}', "noise_scale = 'big', which must be a number"),
        ("[2]", "which must be an object"),
    ):
        said.write_text(f'{{"options": {options}}}')
        with pytest.raises(AsymflowError, match=refusal):
            asymflow.load(path)


def test_options_that_a_family_does_not_take_are_refused(tmp_path: Path) -> None:
    path = miniatures.jit_file(tmp_path)
    with pytest.raises(InputError, match=r"colour is no option of the model .* weights, guidance"):
        asymflow.load(path, colour="red")
    with pytest.raises(InputError, match=r"dtype=torch\.int8 is not supported"):
        asymflow.load(path, dtype=torch.int8)
    with pytest.raises(InputError, match="'cuda:7' cannot be used"):
        asymflow.load(path, device="cuda:7")


def test_pipelines_are_loaded_whole(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    found = asymflow.load(miniatures.minit2i_folder(tmp_path))
    assert isinstance(found, minit2i.MiniT2IAdapter)
    miniatures.if_pipeline().save_pretrained(tmp_path / "if")
    found = asymflow.load(tmp_path / "if")
    assert isinstance(found, ServedPipeline)
    sizes = found.card.sizes
    assert (found.card.asks, found.card.negative, found.card.guided) == ("prompt", True, True)
    assert (sizes.native, sizes.multiple, sizes.fixed) == ((16, 16), 2, False)
    plan = plan_of(shifted(2, 1.0))
    for size in ((16, 16), (24, 16), (sizes.smallest, sizes.smallest)):
        request = Request({"prompt": "a fox", "negative": "cats"}, size, 1, 3.0)
        [result] = engine.run(found, plan, [request])
        assert result.picture.shape == (*size, 3)
        assert np.isfinite(result.picture).all()


def test_a_pipeline_of_few_steps_says_that_plans_gain_little() -> None:
    library: Any = pytest.importorskip("diffusers")

    class Turbo(library.DDIMPipeline):
        def __call__(self, *args: Any, num_inference_steps: int = 4, **named: Any) -> Any:
            return super().__call__(*args, num_inference_steps=num_inference_steps, **named)

    usual = miniatures.ddim_pipeline()
    assert serve(usual).card.notes == ()
    [note] = serve(Turbo(usual.unet, usual.scheduler)).card.notes
    assert "4 steps by itself: such models are distilled, and a plan gains little" in note


@pytest.mark.slow
def test_the_example_can_be_installed(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    where = tmp_path / "site"
    subprocess.run([*pip, "--target", str(where), str(source)], check=True)
    script = "import asymflow; print(asymflow.load('example').name)"
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(where)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout == "example-1\n"


@pytest.mark.parametrize("kind", [*FAMILIES, "DanceDiffusionPipeline"])
def test_what_only_accelerate_takes_is_sent_there(kind: str) -> None:
    """A pipeline is served, or its message names the call that takes it instead."""
    served = {"DDPMPipeline", "DDIMPipeline", "PRXPixelPipeline", "IFPipeline"}
    if kind in served:
        assert check_index({"_class_name": kind}, "here").__name__ == kind
    else:
        with pytest.raises(InputError, match=r"with diffusers in Python.*asymflow\.accelerate\("):
            check_index({"_class_name": kind}, "here")


def test_a_network_of_prompts_is_sent_to_its_pipeline(tmp_path: Path) -> None:
    pipe = miniatures.if_pipeline()
    pipe.unet.save_pretrained(tmp_path / "unet")
    pipe.scheduler.save_pretrained(tmp_path / "scheduler")
    with pytest.raises(FileFormatError, match=r"UNet2DConditionModel.*asymflow\.accelerate\(pipe"):
        asymflow.load(tmp_path)
