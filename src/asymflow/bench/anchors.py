"""Anchors: altered real pictures, scored like generated ones to give the metrics a scale."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench.features import as_unit_float
from asymflow.models.embedded.styles import LIBRARY
from asymflow.training.data.manifest import Entry

_TURN = np.deg2rad(6)
_SCALE = 0.08
_SHIFT = 0.08  # in units of half the side


def nudged(pictures: NDArray[Any], seed: int) -> NDArray[np.float32]:
    """Pictures [n, s, s, 4] under small random affine maps.

    Rotated by up to 6 degrees, scaled by up to 8%, shifted by up to 4% of the side.
    """
    rng = np.random.default_rng(seed)
    n = len(pictures)
    turn = rng.uniform(-_TURN, _TURN, n)
    scale = rng.uniform(1 - _SCALE, 1 + _SCALE, n)
    x_shift, y_shift = rng.uniform(-_SHIFT, _SHIFT, (2, n))
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    affine = np.stack((cos, -sin, x_shift, sin, cos, y_shift), axis=1).reshape(n, 2, 3)
    x = _channels_first(pictures)
    grid = F.affine_grid(torch.as_tensor(affine, dtype=x.dtype), list(x.shape), align_corners=False)
    return _channels_last(F.grid_sample(x, grid, align_corners=False))


def half_size(pictures: NDArray[Any]) -> NDArray[np.float32]:
    """Pictures [n, s, s, 4] averaged over 2 x 2 pixels and upsampled bilinearly."""
    small = F.avg_pool2d(_channels_first(pictures), 2)
    return _channels_last(F.interpolate(small, scale_factor=2, mode="bilinear"))


def reference(entries: Sequence[Entry], among: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Entries whose concept is in the library, and the first reference of each."""
    pairs = [(entry, library_of(entry, among)) for entry in entries]
    served = [(entry, found[0]) for entry, found in pairs if found]
    return [entry for entry, _ in served], [drawing for _, drawing in served]


def library_of(entry: Entry, among: Sequence[Entry]) -> list[Entry]:
    """The references of an entry: at most two drawings of its concept in other library styles."""
    found: dict[str, Entry] = {}
    for other in among:
        if other.key == entry.key and other.style in LIBRARY and other.style != entry.style:
            found.setdefault(other.style, other)
    return [found[style] for style in LIBRARY if style in found][:2]


def other_style(
    entries: Sequence[Entry], among: Sequence[Entry], seed: int
) -> tuple[list[Entry], list[Entry]]:
    """Entries whose concept `among` has in another style, and a random one of these for each."""
    rng = np.random.default_rng(seed)
    by_concept: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in among:
        by_concept[entry.key].append(entry)
    served: list[Entry] = []
    substitutes: list[Entry] = []
    for entry in entries:
        others = [other for other in by_concept[entry.key] if other.style != entry.style]
        if others:
            served.append(entry)
            substitutes.append(others[int(rng.integers(len(others)))])
    return served, substitutes


def other_concept(
    entries: Sequence[Entry], among: Sequence[Entry], seed: int
) -> tuple[list[Entry], list[Entry]]:
    """Entries, and for each one of its style with a concept that `entries` lacks in that style.

    Each substitute is used once; entries without one are dropped.
    """
    rng = np.random.default_rng(seed)
    taken = {(entry.key, entry.style) for entry in entries}
    by_style: defaultdict[str, list[Entry]] = defaultdict(list)
    order: list[int] = rng.permutation(len(among)).tolist()
    for i in order:
        if (among[i].key, among[i].style) not in taken:
            by_style[among[i].style].append(among[i])
    served: list[Entry] = []
    substitutes: list[Entry] = []
    for entry in entries:
        if by_style[entry.style]:
            served.append(entry)
            substitutes.append(by_style[entry.style].pop())
    return served, substitutes


def _channels_first(pictures: NDArray[Any]) -> Tensor:
    return torch.as_tensor(as_unit_float(pictures)).permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> NDArray[np.float32]:
    return x.permute(0, 2, 3, 1).contiguous().numpy()
