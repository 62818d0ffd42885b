"""Backgrounds: flat colours and vertical gradients, with their names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asymflow.models.embedded.bitmaps import Pixels
from asymflow.training.data.colours import COLOURS

P_GRADIENT = 0.15
CONTRAST = 90.0  # minimum RGB distance between a thing's mean colour and its background
JITTER = 10  # random variation of a named colour per channel

_RGB = np.array([colour.rgb for colour in COLOURS], np.int64)
_SHARE = np.array([colour.share for colour in COLOURS], np.float64)


@dataclass(frozen=True, slots=True)
class Backgrounds:
    """Backgrounds of n pictures.

    Attributes:
        names: without article.
        upper, lower: colours at the edges, uint8 [n, 3].
    """

    names: list[str]
    upper: Pixels
    lower: Pixels


def choose(rng: np.random.Generator, things: npt.NDArray[np.float64]) -> Backgrounds:
    """Choose a background for each picture, in contrast with the things on it.

    Args:
        rng: source of randomness.
        things: mean colours [n, k, 3] of the k things in each picture, 0 to 255.
    """
    n = len(things)
    apart = np.linalg.norm(_RGB[None, :, None] - things[:, None], axis=-1).min(axis=-1)
    share = _SHARE * (apart > CONTRAST)
    share[share.sum(axis=1) == 0] = _SHARE  # no colour contrasts with all things: use any
    cumulative = share.cumsum(axis=1)
    u = rng.random((2, n, 1)) * cumulative[:, -1:]
    first = (u[0] >= cumulative).sum(axis=1)
    second = (u[1] >= cumulative).sum(axis=1)
    faded = (rng.random(n) < P_GRADIENT) & (_RGB[first] != _RGB[second]).any(axis=1)
    last = first.copy()
    last[faded] = second[faded]
    noise = rng.integers(-JITTER, JITTER + 1, (n, 3))
    return Backgrounds(
        names=[_name(a, b) for a, b in zip(first.tolist(), last.tolist(), strict=True)],
        upper=np.clip(_RGB[first] + noise, 0, 255).astype(np.uint8),
        lower=np.clip(_RGB[last] + noise, 0, 255).astype(np.uint8),
    )


def gradient(upper: Pixels, lower: Pixels, height: int) -> Pixels:
    """Columns [n, height, 1, 3] that fade from colours `upper` [n, 3] to `lower` [n, 3]."""
    share = np.linspace(0.0, 1.0, height)[None, :, None, None]
    top = upper[:, None, None, :].astype(np.float64)
    bottom = lower[:, None, None, :].astype(np.float64)
    return np.rint(top * (1 - share) + bottom * share).astype(np.uint8)


def composite(pictures: Pixels, ground: Pixels) -> Pixels:
    """Composite premultiplied pictures [..., 4] on opaque colours [..., 3]; alpha becomes 255."""
    wide = pictures.astype(np.uint16)
    under = (ground.astype(np.uint16) * (255 - wide[..., 3:]) + 127) // 255
    out = np.full(pictures.shape, 255, np.uint8)
    out[..., :3] = wide[..., :3] + under
    return out


def _name(upper: int, lower: int) -> str:
    if upper == lower:
        return COLOURS[upper].name
    return f"{COLOURS[upper].name} to {COLOURS[lower].name} gradient"
