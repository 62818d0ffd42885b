"""Image-to-image and inpainting from the command line, and repeating them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asymflow.core.transforms import truncated
from asymflow.generation import metadata
from asymflow.io import images
from tests.fakes import FakeModel

from .conftest import Type

FOX = ("generate", "a fox", "--steps", "4", "--seed", "1")


@pytest.fixture(autouse=True)
def files(here: Path) -> Path:
    """A photo, and a mask of its right half."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (96, 48, 3), np.uint8)).save("photo.png")
    mask = np.zeros((96, 48), np.uint8)
    mask[:, 24:] = 255
    Image.fromarray(mask).save("right.png")
    return here


def pixels(path: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"))


def record(path: str) -> metadata.Record:
    text = images.read_record(Path(path))
    assert text is not None
    return metadata.from_json(text, path)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((48, 96), (48, 96)),
        ((64, 64), (64, 64)),
        ((1000, 500), (128, 64)),
        ((1024, 768), (128, 96)),
        ((5, 5), (32, 32)),
        ((4000, 10), (128, 32)),
        ((70, 70), (72, 72)),
    ],
)
def test_without_a_size_the_picture_decides(
    size: tuple[int, int], expected: tuple[int, int], model: FakeModel, type_: Type
) -> None:
    Image.new("RGB", size, "red").save("in.png")
    type_(*FOX, "--image", "in.png", "-o", "out.png")
    with Image.open("out.png") as image:
        assert image.size == expected


def test_a_size_that_is_given_wins(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--image", "photo.png", "--size", "64", "-o", "out.png")
    assert pixels("out.png").shape == (64, 64, 4)


def test_strength_is_how_far_the_result_goes(model: FakeModel, type_: Type) -> None:
    photo = pixels("photo.png").astype(float)
    distances: list[float] = []
    for strength in ("0.05", "0.4", "0.9"):
        # Euler: this model has no finite velocity at t = 0 for a multistep solver to follow.
        type_(
            *FOX, "--image", "photo.png", "--strength", strength, "--solver", "euler",
            "--background", "black", "-o", "out.png",
        )  # fmt: skip
        distances.append(np.abs(pixels("out.png").astype(float) - photo).mean())
        assert record("out.png").strength == float(strength)
    assert distances == sorted(distances)


def test_a_shorter_way_takes_fewer_forwards(model: FakeModel, type_: Type) -> None:
    def forwards(strength: str) -> int:
        model.calls = 0
        words = ("--image", "photo.png", "--strength", strength, "--json", "-o", "out.png")
        said = json.loads(type_(*FOX, *words).out)["forwards"]
        steps = truncated(record("out.png").plan, float(strength)).steps
        assert model.calls == len(steps)  # both passes of a step share a call
        assert said == sum(step.forwards for step in steps)
        return said

    assert forwards("0.5") < forwards("0.9") <= forwards("1") < 8


def test_strength_has_a_default_for_each_kind(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--image", "photo.png", "-o", "image.png")
    type_(*FOX, "--image", "photo.png", "--mask", "right.png", "-o", "masked.png")
    assert (record("image.png").strength, record("masked.png").strength) == (0.6, 1.0)


def test_a_mask_keeps_every_byte_that_is_black(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--image", "photo.png", "--mask", "right.png", "-o", "out.png")
    photo, out = pixels("photo.png"), pixels("out.png")
    assert np.array_equal(out[:, :24], photo[:, :24])
    assert not np.array_equal(out[:, 24:], photo[:, 24:])


def test_a_mask_of_the_same_aspect_lies_on_the_picture(model: FakeModel, type_: Type) -> None:
    with Image.open("right.png") as mask:
        mask.resize((24, 48), Image.Resampling.NEAREST).save("small.png")
    type_(*FOX, "--image", "photo.png", "--mask", "right.png", "-o", "full.png")
    type_(*FOX, "--image", "photo.png", "--mask", "small.png", "-o", "small-mask.png")
    assert np.array_equal(pixels("full.png"), pixels("small-mask.png"))


def test_inpainting_is_marked_as_a_composite(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--image", "photo.png", "--mask", "right.png", "-o", "out.png")
    with Image.open("out.png") as image:
        assert "compositeWithTrainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]


def test_like_finds_the_inputs_again(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--image", "photo.png", "--mask", "right.png", "-o", "first.png")
    assert type_("generate", "--like", "first.png", "-o", "again.png").code == 0
    assert np.array_equal(pixels("first.png"), pixels("again.png"))


def test_like_finds_inputs_beside_the_picture(model: FakeModel, type_: Type, here: Path) -> None:
    type_(*FOX, "--image", here / "photo.png", "-o", "first.png")
    (here / "moved").mkdir()
    for name in ("photo.png", "first.png"):
        shutil.move(name, here / "moved" / name)
    assert type_("generate", "--like", "moved/first.png", "-o", "again.png").code == 0
    assert np.array_equal(pixels("moved/first.png"), pixels("again.png"))


def test_like_refuses_an_input_that_is_gone_or_changed(
    model: FakeModel, type_: Type, here: Path
) -> None:
    type_(*FOX, "--image", "photo.png", "-o", "first.png")
    Image.new("RGB", (48, 96), "blue").save("photo.png")
    changed = type_("generate", "--like", "first.png", "-o", "again.png")
    (here / "photo.png").unlink()
    gone = type_("generate", "--like", "first.png", "-o", "again.png")
    assert (changed.code, gone.code) == (2, 2)
    assert "photo.png has changed" in changed.err
    assert "not there any more" in gone.err
    assert "--image" in gone.err
    assert not (here / "again.png").exists()


def test_like_with_another_image_drops_the_old_mask(model: FakeModel, type_: Type) -> None:
    type_(*FOX, "--image", "photo.png", "--mask", "right.png", "-o", "first.png")
    Image.new("RGB", (64, 64), "blue").save("blue.png")
    type_("generate", "--like", "first.png", "--image", "blue.png", "-o", "again.png")
    again = record("again.png")
    assert again.image is not None
    assert again.image.path == "blue.png"
    assert again.mask is None
