from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asymflow.bench import anchors, metrics
from asymflow.training.data.dataset import Dataset
from asymflow.training.data.manifest import Entry

Entries = tuple[Entry, ...]
Pictures = NDArray[np.uint8]


@pytest.fixture(scope="module")
def entries(dataset_root: Path) -> Entries:
    return Dataset(dataset_root).entries


@pytest.fixture(scope="module")
def pictures(dataset_root: Path, entries: Entries) -> Pictures:
    dataset = Dataset(dataset_root)
    return np.stack([dataset.image(entry.index, 32) for entry in entries])


def test_nudged_is_near_but_not_equal_and_repeatable(pictures: Pictures) -> None:
    nudged = anchors.nudged(pictures, seed=0)
    assert nudged.shape == pictures.shape
    assert nudged.min() >= 0
    assert nudged.max() <= 1
    moved = metrics.rms(nudged, pictures / 255)
    unlike = metrics.rms(nudged, np.roll(pictures, 3, axis=0) / 255)
    assert np.all(moved > 0.01)
    assert moved.mean() < 0.7 * unlike.mean()
    np.testing.assert_array_equal(anchors.nudged(pictures, seed=0), nudged)


def test_nudge_is_an_affine_map_about_the_middle() -> None:
    # A disc in the middle stays a disc near the middle, of nearly the same area.
    y, x = np.mgrid[:64, :64] - 31.5
    disc = np.repeat((x**2 + y**2 < 15**2).astype(np.float32)[..., None], 4, -1)
    nudged = anchors.nudged(np.repeat(disc[None], 50, 0), seed=3)[..., 3]
    mass = nudged.sum((1, 2))
    assert np.all(np.abs(mass / disc[..., 3].sum() - 1) < 2.5 * 0.08)
    for coordinate in (x, y):
        middle = (nudged * coordinate).sum((1, 2)) / mass
        assert np.all(np.abs(middle) < 0.05 * 64)
        assert np.abs(middle).max() > 0.02 * 64


def test_half_size_halves_the_detail() -> None:
    board = np.zeros((1, 8, 8, 4), np.float32)
    board[:, ::2, ::2] = 1
    np.testing.assert_allclose(anchors.half_size(board), np.full((1, 8, 8, 4), 0.25))
    flat = np.full((1, 8, 8, 4), 0.5, np.float32)
    np.testing.assert_allclose(anchors.half_size(flat), flat)


def test_other_style_keeps_the_concept(entries: Entries) -> None:
    served, others = anchors.other_style(entries, entries, seed=0)
    assert served == list(entries)
    assert all(a.key == b.key and a.style != b.style for a, b in zip(served, others, strict=True))


def test_other_style_skips_concepts_drawn_once(entries: Entries) -> None:
    alone = [entry for entry in entries if entry.style == "noto"]
    assert anchors.other_style(alone, alone, seed=0) == ([], [])


def test_other_concept_keeps_the_style_and_shares_nothing(entries: Entries) -> None:
    asked = [entry for entry in entries if entry.index % 7 == 0]
    served, others = anchors.other_concept(asked, entries, seed=0)
    assert served == asked
    assert all(a.style == b.style for a, b in zip(served, others, strict=True))
    assert not {(e.key, e.style) for e in others} & {(e.key, e.style) for e in asked}
    assert len({e.index for e in others}) == len(others)


def test_other_concept_serves_what_it_can(entries: Entries) -> None:
    assert anchors.other_concept(entries, entries, seed=0) == ([], [])
