"""Tiles of a picture: where they lie, how much each counts, and the whole that they share.

A row of tiles covers a length evenly, each overlapping the next by at least a quarter of its side.
In the middle of every overlap the weight goes smoothly from one to the other, and a tile's outer
pixels count nothing unless they are the picture's. Weights are multiples of 1/256 along each axis,
so that those of a pixel add up to exactly 1 in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from asymflow.core.flow import average_pool, smooth

Size = tuple[int, int]
_OVERLAP = 4
"""Part of the side that overlaps with the next tile: a quarter."""
_LEVELS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A part of a picture, and the weight [h, w] of an estimate of it at each of its pixels."""

    rows: slice
    columns: slice
    weight: Tensor

    def of(self, x: Tensor) -> Tensor:
        """The part of x [b, c, h, w]; a view."""
        return x[..., self.rows, self.columns]


def fits(size: Size, side: int) -> bool:
    """Whether pictures of (height, width) are not larger than one tile."""
    return max(size) <= side


def whole_factor(size: Size, side: int) -> int | None:
    """Factor by which a picture of (height, width) is pooled to be no larger than a tile.

    None if it cannot be pooled evenly to that.
    """
    least = -(-max(size) // side)
    return next((f for f in range(least, min(size) + 1) if not any(s % f for s in size)), None)


def block(size: Size, side: int, factor: int) -> int:
    """Side in pixels of the blocks whose means the whole picture, pooled by a factor, decides.

    Half of a tile, or nearly: what is larger than a tile, no tile can know.
    """
    pooled = (size[0] // factor, size[1] // factor)
    most = max(side // 2 // factor, 1)
    return factor * next(k for k in range(most, 0, -1) if not any(s % k for s in pooled))


def begins(length: int, side: int) -> tuple[int, ...]:
    """Where the tiles along a length begin, evenly."""
    if length <= side:
        return (0,)
    overlap = side // _OVERLAP
    count = -(-(length - overlap) // (side - overlap))
    return tuple(k * (length - side) // (count - 1) for k in range(count))


def count(size: Size, side: int) -> int:
    """Number of tiles of a picture of (height, width)."""
    return len(begins(size[0], side)) * len(begins(size[1], side))


def shape(size: Size, side: int) -> Size:
    """(height, width) of each tile of a picture of (height, width)."""
    return min(size[0], side), min(size[1], side)


def pixels(size: Size, side: int) -> int:
    """Pixels that the network is shown for one estimate of a picture of (height, width)."""
    height, width = size
    factor = whole_factor(size, side)
    if factor == 1 or factor is None:
        return height * width
    tile = shape(size, side)
    return count(size, side) * tile[0] * tile[1] + height * width // factor**2


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # those of inference could not be used where gradients are wanted
def weights(length: int, side: int) -> tuple[Tensor, ...]:
    """The weight of each tile along a length, at each of its pixels."""
    width = side // _OVERLAP
    places = begins(length, side)
    part = (torch.arange(width) + 0.5) / width
    ramp = (part.square() * (3 - 2 * part) * _LEVELS).round() / _LEVELS
    found = [torch.ones(min(side, length)) for _ in places]
    for k, (before, after) in enumerate(pairwise(places)):
        begin = (after + before + side - width) // 2
        found[k + 1][: begin - after] = 0
        found[k + 1][begin - after : begin - after + width] = ramp
        found[k][begin - before : begin - before + width] = 1 - ramp
        found[k][begin - before + width :] = 0
    return tuple(found)


def of(x: Tensor, side: int) -> list[Tile]:
    """The tiles of pictures x [b, c, h, w], row by row, with weights like x."""
    height, width = x.shape[-2:]
    down, across = (
        [
            (slice(begin, begin + len(weight)), weight.to(x))
            for begin, weight in zip(begins(length, side), weights(length, side), strict=True)
        ]
        for length in (height, width)
    )
    return [
        Tile(rows, columns, one[:, None] * other) for rows, one in down for columns, other in across
    ]


def replace_low(x: Tensor, low: Tensor, block: int) -> None:
    """Give x [b, c, h, w] the low frequencies of `low` [b, c, h/f, w/f], in place.

        x + smooth(average_pool(low, block / f) - average_pool(x, block), block)

    so that the means of blocks are those of `low`. It is done in strips of a few blocks, which take
    little memory beside x.
    """
    # Not `average_pool` of x, which keeps x for its gradient, and x is changed below.
    means = x.unflatten(-1, (-1, block)).unflatten(-3, (-1, block)).mean((-3, -1))
    change = average_pool(low, low.shape[-1] * block // x.shape[-1]) - means
    rows, step = change.shape[-2], 2
    for begin in range(0, rows, step):
        end = min(begin + step, rows)
        # With a row more on both sides, since `smooth` looks at the next one.
        first, last = max(begin - 1, 0), min(end + 1, rows)
        strip = smooth(change[..., first:last, :], block)
        part = strip[..., (begin - first) * block : (end - first) * block, :]
        x[..., begin * block : end * block, :] += part
