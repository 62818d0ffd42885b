"""Sampling from a small built dataset."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from asymflow.core.errors import FileFormatError, InputError
from asymflow.models.embedded.words import nouns
from asymflow.training.data.builder import BuildReport
from asymflow.training.data.dataset import Dataset


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("size", [32, 64, 128, 48, (64, 128), (88, 48), (128, 40)])
def test_batches_have_the_asked_shape(dataset: Dataset, size: int | tuple[int, int]) -> None:
    batch = dataset.sample(rng(), 40, size, p_scene=0.5, p_background=0.5)
    height, width = (size, size) if isinstance(size, int) else size
    assert batch.images.shape == (40, height, width, 4)
    assert batch.images.dtype == np.uint8
    assert len(batch.captions) == len(batch.styles) == 40
    assert (batch.images[..., :3] <= batch.images[..., 3:]).all()  # premultiplied
    assert (batch.images[..., 3].max(axis=(1, 2)) > 200).all()  # something is shown


def test_same_seed_same_batch(dataset: Dataset) -> None:
    one = dataset.sample(rng(3), 50, 32, p_scene=0.4)
    two = dataset.sample(rng(3), 50, 32, p_scene=0.4)
    assert np.array_equal(one.images, two.images)
    assert one.captions == two.captions
    assert np.array_equal(one.styles, two.styles)
    other = dataset.sample(rng(4), 50, 32, p_scene=0.4)
    assert one.captions != other.captions


def test_plain_samples_are_the_stored_pictures(dataset: Dataset) -> None:
    batch = dataset.sample(rng(), 60, 64, p_scene=0, p_background=0, p_flip=0)
    for image, text, style in zip(batch.images, batch.captions, batch.styles, strict=True):
        same_style = [e for e in dataset.entries if e.style == dataset.styles[style]]
        matches = [e for e in same_style if np.array_equal(dataset.image(e.index, 64), image)]
        assert len(matches) == 1
        names = [choice.bare for choice in nouns(matches[0].name)]
        assert any(name in text.lower() for name in names), (text, names)


def test_training_never_shows_held_out_pairs(dataset: Dataset, built: BuildReport) -> None:
    held = Dataset(built.out, split="heldout")
    pairs = set(dataset.heldout_pairs())
    assert {("1f33b", "fluent-3d"), ("1f405", "fluent-flat"), ("1f438", "noto")} <= pairs
    assert held.heldout_pairs() == dataset.heldout_pairs()
    assert len(dataset) + len(held) == len(dataset.entries)
    hidden = {dataset.image(e.index, 32).tobytes() for e in held.entries if e.split == "heldout"}
    train = dataset.sample(rng(), 600, 32, p_scene=0, p_background=0, p_flip=0)
    seen = held.sample(rng(), 60, 32, p_scene=0, p_background=0, p_flip=0)
    assert hidden.isdisjoint(image.tobytes() for image in train.images)
    assert hidden.issuperset(image.tobytes() for image in seen.images)


def test_backgrounds_make_pictures_opaque(dataset: Dataset) -> None:
    batch = dataset.sample(rng(), 80, 32, p_background=1, p_scene=0.5)
    assert (batch.images[..., 3] == 255).all()
    bare = dataset.sample(rng(), 80, 32, p_background=0, p_scene=0.5)
    assert (bare.images[:, 0, 0, 3] == 0).all()


def test_weights_govern_how_often(dataset: Dataset) -> None:
    texts = dataset.sample(rng(), 4000, 32, p_scene=0, p_style=0).captions
    flags = sum("france" in text.lower() for text in texts)
    foxes = sum("fox" in text.lower() for text in texts)
    assert foxes > 8 * flags > 0


def test_simple_things_can_be_drawn_more_often(dataset: Dataset) -> None:
    def share(simple: float) -> float:
        texts = dataset.sample(rng(), 4000, 32, p_scene=0, p_style=0, simple=simple).captions
        return sum("fox" in text.lower() for text in texts) / len(texts)

    # A fox has an everyday name of one word, and not all of these things have.
    assert share(4.0) > 1.2 * share(1.0) > 0


def test_styles_are_numbered_in_a_fixed_order(dataset: Dataset) -> None:
    assert dataset.styles[:3] == ("fluent-3d", "fluent-flat", "noto")
    batch = dataset.sample(rng(), 300, 32, p_style=1, p_scene=0.3)
    for text, style in zip(batch.captions, batch.styles, strict=True):
        if dataset.styles[style] == "twemoji":
            assert "twemoji" in text.lower() or "twitter" in text.lower()
    assert set(batch.styles.tolist()) == {0, 1, 2, 3, 4, 5}


def test_mirroring_respects_flip_ok(dataset: Dataset) -> None:
    batch = dataset.sample(rng(), 50, 64, p_flip=1, p_scene=0, p_background=0)
    pictures = {dataset.image(e.index, 64).tobytes() for e in dataset.entries}
    mirrored = {dataset.image(e.index, 64)[:, ::-1].tobytes() for e in dataset.entries if e.flip_ok}
    for image in batch.images:
        assert image.tobytes() in mirrored | pictures
    assert any(image.tobytes() in mirrored - pictures for image in batch.images)


def test_wide_canvases_centre_single_pictures(dataset: Dataset) -> None:
    batch = dataset.sample(rng(), 20, (32, 96), p_scene=0, p_background=0)
    assert (batch.images[:, :, :32] == 0).all()
    assert (batch.images[:, :, 64:] == 0).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": 60}, "multiples of 8"), ({"size": (64, 0)}, "multiples of 8"),
        ({"size": 136}, "at most 128"), ({"size": 64, "n": 0}, "n is 0"),
        ({"size": 64, "p_scene": 1.5}, "p_scene is 1.5"),
        ({"size": 64, "p_flip": -0.1}, "p_flip is -0.1"),
    ],
)  # fmt: skip
def test_bad_requests_say_why(dataset: Dataset, kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataset.sample(rng(), **{"n": 4, **kwargs})


def test_images_by_index(dataset: Dataset) -> None:
    assert dataset.image(0, 128).shape == (128, 128, 4)
    with pytest.raises(InputError, match="size is 100"):
        dataset.image(0, 100)
    with pytest.raises(InputError, match="index is 60"):
        dataset.image(60, 64)


def test_missing_or_foreign_arrays_are_reported(built: BuildReport, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="asymflow data build"):
        Dataset(tmp_path)
    shutil.copytree(built.out, tmp_path / "copy")
    np.save(tmp_path / "copy" / "images-64.npy", np.zeros((3, 64, 64, 4), np.uint8))
    with pytest.raises(FileFormatError, match="manifest lists 60"):
        Dataset(tmp_path / "copy")
    (tmp_path / "copy" / "images-64.npy").write_bytes(b"junk")
    with pytest.raises(FileFormatError, match="cannot be read"):
        Dataset(tmp_path / "copy")
