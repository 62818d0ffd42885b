"""Building the library of drawings from a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asymflow.models.embedded.library import Library
from asymflow.models.embedded.styles import LIBRARY
from asymflow.training.data import library as builder
from asymflow.training.data.dataset import Dataset


def test_a_library_is_built_from_a_dataset_and_the_same_twice(
    dataset: Dataset, tmp_path: Path
) -> None:
    first, second = tmp_path / "one.zip", tmp_path / "two.zip"
    count = builder.build(dataset, first)
    builder.build(dataset, second)
    assert first.read_bytes() == second.read_bytes()
    library = Library(first)
    drawn = {e.key for e in dataset.entries if e.style in LIBRARY}
    assert {concept.key for concept in library.concepts} == drawn
    assert count == sum(len(concept.styles) for concept in library.concepts)
    match = library.find("a house")
    assert match is not None
    [house], [style] = library.drawings(match, "noto", (64, 64), 1)
    entry = next(e for e in dataset.entries if e.name == "house" and e.style == style)
    # Straight alpha is kept in the file: half a level may be lost at soft edges.
    difference = house.astype(int) - dataset.image(entry.index, 64)
    assert np.abs(difference).max() <= 1
