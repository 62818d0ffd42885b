"""Positions of objects on a canvas."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from asymflow.models.embedded.bitmaps import Pixels

MOST_KINDS = 3  # most different things in one scene
ALONE, SMALL = 0.45, 0.28  # share of the shorter side: an object off centre, and a small one


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of whole pixels; `top` and `left` are 0 at the canvas corner."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width


def paste(canvas: Pixels, picture: Pixels, top: int, left: int) -> None:
    """Lay a premultiplied picture [h, w, 4] over `canvas` in place; it must fit."""
    height, width = picture.shape[:2]
    window = canvas[top : top + height, left : left + width]
    wide = picture.astype(np.uint16)
    under = (window.astype(np.uint16) * (255 - wide[..., 3:]) + 127) // 255
    window[...] = wide + under


PLACES = (
    (("in the top left corner", "at the top left"), ("at the top",),
     ("in the top right corner", "at the top right")),
    (("on the left", "on the left side"), ("in the middle", "in the center"),
     ("on the right", "on the right side")),
    (("in the bottom left corner", "at the bottom left"), ("at the bottom",),
     ("in the bottom right corner", "at the bottom right")),
)  # fmt: skip


def row(count: int, height: int, width: int) -> list[Box]:
    """Equal parts of a canvas, from left to right."""
    cuts = [round(width * i / count) for i in range(count + 1)]
    return [Box(0, a, height, b - a) for a, b in pairwise(cuts)]


def column(count: int, height: int, width: int) -> list[Box]:
    """Equal parts of a canvas, from top to bottom."""
    cuts = [round(height * i / count) for i in range(count + 1)]
    return [Box(a, 0, b - a, width) for a, b in pairwise(cuts)]


def cells_of(count: int, height: int, width: int) -> list[Box]:
    """Cells for `count` equal objects: a line on long canvases, else nearly a square."""
    if width > height and (count < 4 or width >= 2 * height):
        return row(count, height, width)
    if height > width and (count < 4 or height >= 2 * width):
        return column(count, height, width)
    if count == 2:
        return row(2, height, width)
    half = height // 2
    upper = row(count // 2, half, width)
    lower = [
        Box(half, b.left, height - half, b.width) for b in row(count - count // 2, half, width)
    ]
    return upper + lower
