"""Inpainting from the command line: the original comes back at its own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from asymflow.generation import metadata
from asymflow.io import images
from tests.fakes import FakeModel

from .conftest import Type

FOX = ("generate", "a fox", "--steps", "4", "--seed", "7")
ROTATED = 6
"""EXIF orientation of a picture that lies on its right side."""


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def photo(here: Path) -> Path:
    """A photograph of 12 megapixels, on its side, as telephones save them."""
    y, x = np.mgrid[:3000, :4000]
    levels = np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8)
    image = Image.fromarray(levels)
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    image.save(here / "photo.jpg", quality=90, exif=exif)
    mask = np.zeros((400, 300), np.uint8)  # upright, and smaller
    mask[100:200, 100:200] = 255
    Image.fromarray(mask).save(here / "mask.png")
    return here / "photo.jpg"


def test_a_photograph_comes_back_at_its_size_with_the_spot_painted(
    model: FakeModel, type_: Type, here: Path, photo: Path
) -> None:
    painting = (*FOX, "--image", "photo.jpg", "--mask", "mask.png")
    assert type_(*painting, "-o", "out.png").code == 0
    with Image.open(photo) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    with Image.open(here / "out.png") as image:
        assert image.getexif().get(0x0112, 1) == 1
        found = np.asarray(image)
    assert found.shape == upright.shape == (4000, 3000, 3)
    outside = np.ones((4000, 3000), bool)
    outside[1000:2000, 1000:2000] = False
    assert (found[outside] == upright[outside]).all()
    inside = found[1100:1900, 1100:1900].astype(int)
    assert np.abs(inside - upright[1100:1900, 1100:1900]).mean() > 20

    text = images.read_record(here / "out.png")
    assert text is not None
    record = metadata.from_json(text, "out.png")
    assert record.mask is not None
    assert max(record.size) <= 128
    assert b"compositeWithTrainedAlgorithmicMedia" in (here / "out.png").read_bytes()

    # Replayed, the same; and the model's own picture where that is asked for.
    assert type_("generate", "--like", "out.png", "-o", "again.png").code == 0
    assert (pixels(here / "again.png") == found).all()
    assert type_(*painting, "--small", "-o", "small.png").code == 0
    assert max(pixels(here / "small.png").shape) <= 128


def test_without_a_mask_pictures_have_the_size_of_the_model(
    model: FakeModel, type_: Type, here: Path, photo: Path
) -> None:
    assert type_(*FOX, "--image", "photo.jpg", "-o", "out.png").code == 0
    assert max(pixels(here / "out.png").shape) <= 128


def test_a_painted_original_has_no_svg(
    model: FakeModel, type_: Type, here: Path, photo: Path
) -> None:
    painting = (*FOX, "--image", "photo.jpg", "--mask", "mask.png")
    typed = type_(*painting, "-o", "out.svg")
    assert typed.code == 2
    assert "--small" in typed.err
    assert type_(*painting, "--small", "-o", "out.svg").code == 0
