"""Which class a picture shows: that of the drawn picture whose silhouette is nearest.

No network is asked. The background is a plane of colour through the pixels at the edges, which no
drawn shape touches, and the silhouette is what differs from it, brought to one place and one size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.suites.shapes import drawing

Array = NDArray[np.float64]
SEED = 1_000_000
"""Of the drawn pictures, which is none of training."""
EACH = 100
"""Of them per class: enough for any rotation."""
_GRID = 16
_REACH = 2.4
"""How far silhouettes are looked at from their middle, in standard deviations."""


def classes_of(pictures: Array, seed: int = SEED) -> NDArray[np.int64]:
    """Classes [n] that pictures [n, h, w, 3] in [0, 1] show."""
    drawn, labels = drawing.pictures(EACH * len(drawing.CLASSES), seed)
    known = np.stack([silhouette(each / 255) for each in drawn])
    seen = np.stack([silhouette(each) for each in pictures])
    apart = ((seen[:, None] - known) ** 2).sum((2, 3))
    return labels[apart.argmin(1)]


def silhouette(picture: Array) -> Array:
    """What a picture [h, w, 3] shows before its background, 0 to 1, on a grid of its own [g, g]."""
    side = len(picture)
    line = (np.arange(side) + 0.5) / side - 0.5
    y, x = np.meshgrid(line, line, indexing="ij")
    plane = np.stack([np.ones_like(x), x, y], axis=-1)
    edge = np.ones((side, side), dtype=bool)
    edge[1:-1, 1:-1] = False
    fitted = np.linalg.lstsq(plane[edge], picture[edge], rcond=None)[0]
    apart = np.linalg.norm(picture - plane @ fitted, axis=-1)
    covered = np.clip(apart / max(float(np.quantile(apart, 0.95)), 1e-6), 0, 1)
    covered[covered < 0.25] = 0  # noise, which counts most far from the middle
    share = covered / max(float(covered.sum()), 1e-6)
    middle = [float((share * axis).sum()) for axis in (y, x)]
    spread = np.sqrt((share * ((y - middle[0]) ** 2 + (x - middle[1]) ** 2)).sum())
    offsets = np.linspace(-_REACH, _REACH, _GRID) * spread
    return _at(covered, *np.meshgrid(middle[0] + offsets, middle[1] + offsets, indexing="ij"))


def _at(values: Array, y: Array, x: Array) -> Array:
    """Values [h, w] between their pixels, at places from -0.5 to 0.5; 0 outside."""
    side = len(values)
    padded = np.pad(values, 2)
    rows, columns = (np.clip((axis + 0.5) * side + 1.5, 0, side + 2.999) for axis in (y, x))
    top, left = rows.astype(int), columns.astype(int)
    down, right = rows - top, columns - left
    upper = (1 - right) * padded[top, left] + right * padded[top, left + 1]
    lower = (1 - right) * padded[top + 1, left] + right * padded[top + 1, left + 1]
    return (1 - down) * upper + down * lower
