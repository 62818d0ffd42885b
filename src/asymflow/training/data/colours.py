"""Named colours: background colours, and the dominant colour of a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

OPAQUE = 200  # minimum alpha of pixels that are counted
MOSTLY = 0.6  # minimum share of the dominant colour


@dataclass(frozen=True, slots=True)
class Colour:
    """A named colour: its sRGB value (0-255) and its sampling weight."""

    name: str
    rgb: tuple[int, int, int]
    share: float


COLOURS: tuple[Colour, ...] = (
    Colour("white", (255, 255, 255), 8),
    Colour("black", (0, 0, 0), 6),
    Colour("red", (222, 42, 42), 6),
    Colour("orange", (246, 142, 32), 5),
    Colour("yellow", (252, 215, 48), 6),
    Colour("green", (52, 160, 70), 6),
    Colour("blue", (40, 104, 220), 8),
    Colour("purple", (132, 64, 184), 5),
    Colour("pink", (248, 140, 186), 5),
    Colour("brown", (128, 82, 48), 4),
    Colour("grey", (136, 136, 136), 3),
    Colour("gray", (136, 136, 136), 2),
    Colour("light blue", (158, 208, 246), 4),
    Colour("dark blue", (22, 40, 112), 4),
    Colour("light green", (164, 224, 156), 3),
    Colour("dark green", (20, 82, 44), 3),
    Colour("light grey", (208, 208, 208), 2),
    Colour("dark grey", (66, 66, 66), 2),
    Colour("teal", (20, 138, 138), 2),
    Colour("turquoise", (64, 208, 200), 2),
    Colour("beige", (236, 222, 190), 2),
    Colour("lavender", (206, 190, 242), 2),
    Colour("dark red", (128, 18, 24), 2),
    Colour("navy", (16, 26, 78), 1),
    Colour("magenta", (214, 40, 160), 1),
    Colour("cream", (252, 244, 218), 1),
)

BASIC = (
    "black", "white", "grey", "red", "orange", "brown", "yellow", "green", "blue", "purple", "pink",
)  # fmt: skip
_BLACK, _WHITE, _GREY, _RED, _ORANGE, _BROWN, _YELLOW, _GREEN, _BLUE, _PURPLE, _PINK = range(11)
_TAN = -1  # between orange and brown: ambiguous


def main_colours(images: npt.NDArray[np.uint8]) -> list[str | None]:
    """The dominant basic colour of each picture, or None.

    Args:
        images: premultiplied RGBA [n, h, w, 4].
    """
    alpha = images[..., 3].astype(np.float32)
    straight = images[..., :3].astype(np.float32) / np.maximum(alpha, 1)[..., None]
    names = _basic(np.minimum(straight, 1))
    ink = alpha >= OPAQUE
    total = np.maximum(ink.sum(axis=(1, 2)), 1)
    counts = np.stack([((names == i) & ink).sum(axis=(1, 2)) for i in range(len(BASIC))], axis=1)
    best = counts.argmax(axis=1)
    clear = counts.max(axis=1) >= MOSTLY * total
    return [BASIC[i] if ok else None for i, ok in zip(best.tolist(), clear.tolist(), strict=True)]


def _basic(rgb: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """The index in BASIC of each colour; RGB in [0, 1], last axis 3."""
    value = rgb.max(axis=-1)
    low = rgb.min(axis=-1)
    chroma = value - low
    saturation = chroma / np.maximum(value, 1e-6)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    safe = np.maximum(chroma, 1e-6)
    sextant: npt.NDArray[np.float32] = np.where(value == green, (blue - red) / safe + 2, 0)
    sextant[value == blue] = ((red - green) / safe + 4)[value == blue]
    sextant[value == red] = ((green - blue) / safe % 6)[value == red]
    hue = 60 * sextant  # degrees
    edges = np.array([12, 40, 66, 168, 252, 288, 342], np.float32)
    wheel = np.array([_RED, _ORANGE, _YELLOW, _GREEN, _BLUE, _PURPLE, _PINK, _RED], np.int8)
    names = wheel[np.searchsorted(edges, hue)]
    warm = (names == _RED) | (names == _ORANGE)
    names[(names == _RED) & (saturation < 0.55) & (value > 0.75)] = _PINK
    names[(names == _ORANGE) & (saturation < 0.68)] = _TAN
    names[warm & (value < 0.72) & (hue > 8) & (hue < 40)] = _BROWN
    names[saturation < 0.18] = _GREY
    names[(saturation < 0.12) & (value > 0.86)] = _WHITE
    names[value < 0.27] = _BLACK
    return names
