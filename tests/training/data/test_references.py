"""Which drawings are looked at, and how they are changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from asymflow.models.embedded.bitmaps import Pixels
from asymflow.models.embedded.styles import LIBRARY
from asymflow.training.data import references
from asymflow.training.data.dataset import Dataset


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawing() -> Pixels:
    """A red disc with a soft edge, premultiplied."""
    y, x = np.mgrid[:32, :32] - 15.5
    alpha = np.clip(12 - np.hypot(x, y), 0, 1)[..., None]
    return np.round(alpha * np.array([220, 40, 30, 255])).astype(np.uint8)


def test_references_are_other_styles_of_the_concept_and_never_held_out(dataset: Dataset) -> None:
    serving = references.others(dataset.entries)
    assert any(serving)
    for entry, others in zip(dataset.entries, serving, strict=True):
        for index in others:
            other = dataset.entries[index]
            assert other.key == entry.key
            assert other.style != entry.style
            assert other.split == "train"


def test_samples_show_references_of_what_they_are(dataset: Dataset) -> None:
    batch = dataset.sample(rng(), 80, 64, p_scene=0, p_background=0, p_flip=0, count=2)
    assert batch.references.shape == (80, 2, 64, 64, 4)
    assert set(batch.present.sum(axis=1)) == {1, 2}
    whose = {dataset.image(e.index, 64).tobytes(): e for e in dataset.entries}
    for image, style, shown, present in zip(
        batch.images, batch.styles, batch.references, batch.present, strict=True
    ):
        target = whose[image.tobytes()]
        for picture in shown[present]:
            found = whose[picture.tobytes()]
            assert found.key == target.key
            assert found.style != dataset.styles[style]
        assert not shown[~present].any()


def test_the_same_pictures_come_with_and_without_references(dataset: Dataset) -> None:
    with_them = dataset.sample(rng(2), 40, 32, p_scene=0.4, count=2, p_disturb=0.5)
    without = dataset.sample(rng(2), 40, 32, p_scene=0.4)
    assert np.array_equal(with_them.images, without.images)
    assert with_them.captions == without.captions
    assert without.references.shape == (40, 0, 32, 32, 4)


def test_references_of_scenes_are_laid_out_like_them(dataset: Dataset) -> None:
    batch = dataset.sample(rng(1), 60, 64, p_scene=1, p_background=0, p_flip=0, count=1)
    overlaps: list[float] = []
    for image, shown, present in zip(batch.images, batch.references, batch.present, strict=True):
        if present[0]:
            a, b = image[..., 3] > 128, shown[0, ..., 3] > 128
            overlaps.append((a & b).sum() / max((a | b).sum(), 1))
    assert len(overlaps) > 20
    assert np.mean(overlaps) > 0.6


def test_shipped_references_come_from_the_library_first(dataset: Dataset) -> None:
    entries = [e for e in dataset.entries if e.name == "fox"]
    shown, present = dataset.references(entries, 32, 2)
    assert present.all()
    for entry, pictures in zip(entries, shown, strict=True):
        wanted = [style for style in LIBRARY if style != entry.style][:2]
        styles = [
            next(e.style for e in entries if np.array_equal(dataset.image(e.index, 32), picture))
            for picture in pictures
        ]
        assert styles == wanted


def test_recoloured_things_say_so_or_their_references_change_too(dataset: Dataset) -> None:
    plain, changed = (
        dataset.sample(rng(3), 300, 32, p_scene=0, p_background=0, p_flip=0, count=1, p_recolour=p)
        for p in (0, 1)
    )
    pairs = zip(plain.images, changed.images, strict=True)
    kept = np.array([np.array_equal(one, other) for one, other in pairs])
    assert 20 < (~kept).sum() < 300
    colours = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
    for row in np.flatnonzero(~kept):
        assert np.array_equal(plain.images[row, ..., 3], changed.images[row, ..., 3])
        same = np.array_equal(plain.references[row], changed.references[row])
        said = any(colour in changed.captions[row].lower() for colour in colours)
        assert said or not same


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "moved": lambda pixels: references.moved(rng(), pixels),
    "blurred": lambda pixels: references.blurred(rng(), pixels),
    "outlined": references.outlined,
    "on paper": lambda pixels: references.on_paper(rng(), pixels),
    "on a colour": lambda pixels: references.on_colour(rng(), pixels),
    "on clutter": lambda pixels: references.on_clutter(rng(), pixels),
    "grainy": lambda pixels: references.grainy(rng(), pixels),
    "hues": lambda pixels: references.rotate_hues(pixels, 120),
    "augmented": lambda pixels: references.augment(rng(5), pixels),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_changes_keep_pictures_premultiplied_and_change_them(
    change: Callable[[Pixels], Pixels],
) -> None:
    before = drawing()
    after = change(before.copy())
    assert after.shape == before.shape
    assert after.dtype == np.uint8
    assert (after[..., :3] <= after[..., 3:]).all()
    assert not np.array_equal(before, after)


def test_hues_turn_all_the_way_round() -> None:
    pixels = rng().integers(60, 190, (8, 8, 4)).astype(np.uint8)
    pixels[..., 3] = 255
    third = references.rotate_hues(pixels, 120)
    # A third of the circle swaps the three channels.
    assert np.abs(np.roll(pixels[..., :3], 1, -1).astype(int) - third[..., :3]).max() <= 1
    back = references.rotate_hues(references.rotate_hues(third, 120), 120)
    assert np.abs(back.astype(int) - pixels).max() <= 2
    grey = np.full((2, 2, 4), 77, np.uint8)
    assert np.array_equal(references.rotate_hues(grey, 200), grey)


def test_moving_by_nothing_would_change_nothing() -> None:
    class Still:
        def uniform(self, low: float, high: float, count: int | None = None) -> object:
            middle = 1.0 if low > 0 else 0.0
            return middle if count is None else np.full(count, middle)

    assert np.array_equal(references.moved(Still(), drawing()), drawing())  # pyright: ignore
