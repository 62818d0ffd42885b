"""Pictures of eight shapes, as training data that everybody can draw: one shape, one class.

Colour, place, size and rotation vary, on a plain background or a gradient, antialiased. A seed
decides everything.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE = 32
FINER = 8
"""Pixels along a side of a pixel before the reduction that antialiases."""
CONTRAST = 0.6
"""Least distance of the colours of a shape and its background in RGB; the cube has sides of 1."""

Points: TypeAlias = NDArray[np.float64]
"""[n, 2], x to the right and y downwards; a shape fits into the circle of radius 1."""
Colour: TypeAlias = NDArray[np.float64]
"""RGB in [0, 1]."""


def _circle(radius: float = 1.0, x: float = 0.0) -> Points:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([x + radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _corners(radii: Sequence[float]) -> Points:
    """Corners at these distances from the middle, evenly around it, the first at the top."""
    angle = 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([np.sin(angle), -np.cos(angle)], axis=1) * np.asarray(radii)[:, None]


def _cross(arm: float = 0.34) -> Points:
    long = float(np.sqrt(1 - arm**2))
    quarter = np.array([(arm, -long), (arm, -arm), (long, -arm)])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([quarter @ turn.T for turn in turns])


def _heart() -> Points:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x = 16 * np.sin(angle) ** 3
    y = -13 * np.cos(angle) + 5 * np.cos(2 * angle) + 2 * np.cos(3 * angle) + np.cos(4 * angle)
    return np.stack([x, y - 2], axis=1) / 17


OUTLINES: dict[str, tuple[Points, ...]] = {
    "disc": (_circle(0.9),),
    "square": (_corners([1.0] * 4),),
    "triangle": (_corners([1.0] * 3),),
    "star": (_corners([1.0, 0.42] * 5),),
    "cross": (_cross(),),
    "ring": (_circle(0.95), _circle(0.52)),
    "heart": (_heart(),),
    "moon": (_circle(1.0), _circle(0.85, 0.5)),
}
"""By class; a second outline is cut out of the first."""
CLASSES = tuple(OUTLINES)
_UPRIGHT = ("heart",)
_TILT = 25.0
"""Most degrees that a shape is turned by that would not be known upside down."""


def mask(name: str, centre: Sequence[float], radius: float, degrees: float) -> NDArray[np.float64]:
    """How much of every pixel [h, w] a shape covers, 0 to 1.

    Args:
        name: of the class.
        centre: (x, y) in pixels from the upper left corner.
        radius: of the circle around it, in pixels.
        degrees: clockwise.
    """
    canvas = Image.new("L", (SIDE * FINER, SIDE * FINER))
    draw = ImageDraw.Draw(canvas)
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for fill, outline in zip((255, 0), OUTLINES[name], strict=False):
        points = (outline @ turn.T * radius + np.asarray(centre)) * FINER - 0.5
        draw.polygon([(float(x), float(y)) for x, y in points], fill=fill)
    pixels = np.asarray(canvas, np.float64) / 255
    return pixels.reshape(SIDE, FINER, SIDE, FINER).mean((1, 3))


def picture(name: str, random: np.random.Generator) -> NDArray[np.uint8]:
    """A picture [h, w, 3] of a class."""
    radius = random.uniform(9.0, 13.0)
    centre = random.uniform(radius + 1, SIDE - radius - 1, 2)
    tilt = _TILT if name in _UPRIGHT else 180.0
    covered = mask(name, [float(each) for each in centre], radius, random.uniform(-tilt, tilt))
    ends = _ground(random)
    colour = _hsv(random, (0.65, 1.0), (0.55, 0.95))
    while min(np.linalg.norm(colour - end) for end in ends) < CONTRAST:
        colour = _hsv(random, (0.65, 1.0), (0.55, 0.95))
    pixels = covered[..., None] * colour + (1 - covered[..., None]) * _gradient(*ends, random)
    return np.rint(pixels * 255).astype(np.uint8)


def pictures(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures [n, h, w, 3] of all classes by turns, and their numbers [n]."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    return np.stack([picture(CLASSES[label], random) for label in labels]), labels


def _hsv(
    random: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> Colour:
    hsv = (random.uniform(), random.uniform(*saturation), random.uniform(*value))
    return np.array(colorsys.hsv_to_rgb(*hsv))


def _ground(random: np.random.Generator) -> tuple[Colour, Colour]:
    """Colours of both ends of a background, light or dark, the same where it is plain."""
    value = (0.8, 1.0) if random.uniform() < 0.6 else (0.1, 0.35)
    first = _hsv(random, (0.0, 0.4), value)
    return first, (first if random.uniform() < 0.5 else _hsv(random, (0.0, 0.4), value))


def _gradient(start: Colour, end: Colour, random: np.random.Generator) -> NDArray[np.float64]:
    """Colours [h, w, 3] from one to the other, in any direction."""
    angle = random.uniform(0, 2 * np.pi)
    line = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    along = np.cos(angle) * line[None, :] + np.sin(angle) * line[:, None]
    share = (0.5 + along / (abs(np.cos(angle)) + abs(np.sin(angle))))[..., None]
    return (1 - share) * start + share * end
