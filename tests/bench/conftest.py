"""A small dataset on disk, in the format the data builder writes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench.features import DIM
from asymflow.training.data.manifest import Entry, write_manifest
from tests.helpers import draw

STYLES = ("noto", "twemoji", "fxemoji")
NAMES = ("fox", "owl", "eyes", "anchor", "pizza", "rocket", "umbrella", "banana", "scissors")


class Projection:
    """Stands in for the feature network: a fixed random projection of small pictures."""

    digest = "projection"

    def __init__(self) -> None:
        self.weights = draw(0, 8 * 8 * 4, DIM) / 16

    def __call__(self, x: Tensor) -> Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)
        return (small @ self.weights).clamp(min=0)


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine concepts in three styles, four pairs of each style held out, and one rare concept.

    A concept is a pattern of random blocks, a style a tint.
    """
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    tints = {style: rng.uniform(0.4, 1, 3) for style in STYLES}
    entries: list[Entry] = []
    small: list[NDArray[np.float64]] = []
    for number, name in enumerate((*NAMES, "flag: nowhere")):
        pattern = rng.random((8, 8, 4))
        for column, style in enumerate(STYLES):
            alpha = pattern[..., 3:].round()
            small.append(np.concatenate([pattern[..., :3] * tints[style] * alpha, alpha], -1))
            held_out = number < len(NAMES) and (number + column) % 9 < 4
            entries.append(
                Entry(
                    index=len(entries),
                    key=f"{number:x}",
                    slug=name,
                    style=style,
                    name=name,
                    keywords=(),
                    group="objects",
                    subgroup="tool",
                    weight=1.0 if number < len(NAMES) else 0.05,
                    split="heldout" if held_out else "train",
                    flip_ok=True,
                    licence="MIT",
                    package="planted",
                    version="1",
                )
            )
    pictures = (np.array(small) * 255).round().astype(np.uint8)
    for side in (32, 64, 128):
        np.save(
            root / f"images-{side}.npy",
            pictures.repeat(side // 8, axis=1).repeat(side // 8, axis=2),
        )
    write_manifest(root / "manifest.jsonl", entries)
    return root
