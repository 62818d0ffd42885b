"""Real model files: a tiny one made here, good and bad, and the one that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from asymflow.generation import metadata
from asymflow.io import images
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded import installed
from asymflow.models.embedded.network import PictureConfig, PictureModel
from asymflow.models.embedded.styles import style_ids
from asymflow.models.embedded.transformer import TransformerConfig

from .conftest import Type


def write_model(path: Path, seed: int) -> None:
    """A model of the real kind, too small to draw anything."""
    shape = TransformerConfig(width=64, depth=1, head_dim=32, hidden=64)
    torch.manual_seed(seed)
    model = PictureModel(PictureConfig(style_ids(), shape, rank=8))
    torch.nn.init.normal_(model.transformer.head.weight, std=0.05)
    embedded.save(model, path, training={})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    write_model(path, seed=0)
    return path


def test_a_picture_repeats_with_its_own_weights_only(
    tiny: Path, tmp_path: Path, type_: Type
) -> None:
    words = ("generate", "a fox", "--steps", "3", "-o", "fox.png", "--weights", tiny, "--json")
    said = json.loads(type_(*words).out)
    assert said["model"].startswith("embedded:")
    assert type_("generate", "--like", "fox.png", "-o", "again.png", "--weights", tiny).code == 0
    with Image.open("fox.png") as first, Image.open("again.png") as again:
        assert np.array_equal(np.asarray(first), np.asarray(again))
    other = tmp_path / "other.safetensors"
    write_model(other, seed=1)
    refused = type_("generate", "--like", "fox.png", "-o", "third.png", "--weights", other)
    assert refused.code == 2
    assert said["settings"]["weights"][:12] in refused.err
    assert not Path("third.png").exists()


def test_an_unknown_style_suggests_the_nearest_and_lists_all(tiny: Path, type_: Type) -> None:
    typed = type_("generate", "a fox", "--style", "twemojy", "--weights", tiny)
    assert typed.code == 2
    assert "Did you mean 'twemoji'?" in typed.err
    for style in style_ids():
        assert style in typed.err


@pytest.mark.parametrize("size", ["65", "12", "4096", "64x4000"])
def test_an_impossible_size_is_refused(size: str, tiny: Path, type_: Type, here: Path) -> None:
    typed = type_("generate", "a fox", "--size", size, "--weights", tiny)
    assert typed.code == 2
    assert "is not possible" in typed.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "pool_factors"),
    [
        ("96", [1, 1, 1]),
        ("128x64", [1, 1, 1]),
        ("128", [2, 2, 2]),
        ("160", [4, 4, 4]),
        ("256x128", [2, 2, 2]),
        ("512", [8, 8, 8]),
        ("136", [1, 1, 1]),  # cannot be pooled
    ],
)
def test_large_pictures_are_asked_for_in_the_size_of_training(
    size: str, pool_factors: list[int], tiny: Path, type_: Type
) -> None:
    words = ("generate", "a fox", "--steps", "3", "--size", size, "--weights", tiny)
    assert type_(*words, "-o", "fox.png").code == 0
    text = images.read_record(Path("fox.png"))
    assert text is not None
    record = metadata.from_json(text, "fox.png")
    assert [step.tier.pool_factor for step in record.plan.steps] == pool_factors
    with Image.open("fox.png") as image:
        assert image.size == record.size[::-1]


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "words", "foreign"])
def test_a_file_that_is_no_model_is_refused(
    damage: str, tiny: Path, type_: Type, here: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bad.safetensors"
    if damage == "foreign":
        save_file({"x": torch.zeros(2)}, path)
    elif damage != "missing":
        whole = tiny.read_bytes()
        path.write_bytes({"empty": b"", "cut": whole[:-100], "words": b"not a model"}[damage])
    typed = type_("generate", "a fox", "--weights", path)
    assert typed.code == 2
    assert "bad.safetensors" in typed.err
    assert typed.err.startswith("error: ")
    assert "Traceback" not in typed.err
    assert list(here.iterdir()) == []


def test_bench_speed_measures_the_engine(tiny: Path, type_: Type) -> None:
    said = json.loads(type_("bench", "speed", "--quick", "--weights", tiny, "--json").out)
    assert said["engine"]["median"]["value"] > 0.5
    assert {each["dtype"] for each in said["forward"]} == {"float32", "bfloat16"}
    assert all(each["share"]["value"] > 0 for each in said["forward"])


def test_doctor_is_content_with_a_good_model(tiny: Path, type_: Type) -> None:
    typed = type_("doctor", "--weights", tiny)
    assert typed.code == 0
    assert "ready to draw" in typed.out


@pytest.mark.slow
@pytest.mark.skipif(installed.find(installed.WEIGHTS) is None, reason="no model file is built in")
def test_the_built_in_model_draws_an_apple(type_: Type) -> None:
    words = ("generate", "a red apple", "--style", "noto", "--seed", "1", "-o", "apple.png")
    assert type_(*words).code == 0
    with Image.open("apple.png") as image:
        apple = np.asarray(image).astype(float) / 255
    alpha = apple[..., 3]
    assert alpha[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 0.1, "the corners are not transparent"
    assert 0.2 < alpha.mean() < 0.9
    red, green, blue = (apple[..., :3] * alpha[..., None]).sum((0, 1)) / alpha.sum()
    assert red > max(green, blue) + 0.2
