"""Drawings to look at: which may serve a picture, and how they are changed in training.

A reference is another style's drawing of the same concept, never the target. People will give
pictures of their own, though: photographs, scribbles, things that lie askew on a table. So a part
of the references is moved, turned, blurred, laid on a background or reduced to its outlines; the
target stays as it is, and the model learns what to take from a reference and what not. Colours are
meant: of a recoloured target either the reference has the same new colours, or the caption says
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from asymflow.models.embedded.bitmaps import Pixels, resize
from asymflow.training.data import backgrounds
from asymflow.training.data.captions import pick
from asymflow.training.data.manifest import Entry

_Floats = npt.NDArray[np.float64]


def others(entries: Sequence[Entry]) -> tuple[tuple[int, ...], ...]:
    """For each entry, the training pictures of its concept in other styles, by index.

    Held-out pictures are never references: they would be seen in training after all.
    """
    by_key: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.split == "train":
            by_key.setdefault(entry.key, []).append(entry)
    return tuple(
        tuple(other.index for other in by_key.get(entry.key, ()) if other.style != entry.style)
        for entry in entries
    )


def choose(
    rng: np.random.Generator, candidates: Sequence[int], weights: _Floats, count: int
) -> list[int]:
    """Up to `count` different candidates; `weights` [entries] are by index."""
    if not candidates or not count:
        return []
    share = weights[list(candidates)]
    found = rng.choice(
        len(candidates), min(count, len(candidates)), replace=False, p=share / share.sum()
    )
    return [candidates[i] for i in found.tolist()]


def turn_hues(pixels: Pixels, degrees: float) -> Pixels:
    """Premultiplied RGBA [..., 4] with all hues turned about the grey axis; alpha stays."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    third, root = (1 - cos) / 3, sin / math.sqrt(3)
    a, b, c = cos + third, third - root, third + root
    turned = pixels[..., :3].astype(np.float32) @ np.array(
        [[a, c, b], [b, a, c], [c, b, a]], np.float32
    )
    out = pixels.copy()
    out[..., :3] = np.clip(np.rint(turned), 0, pixels[..., 3:])
    return out


def disturb(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """A reference [h, w, 4] as somebody might give one: changed in one to three ways."""
    chances = rng.random(5)
    if chances[0] < 0.7:
        pixels = moved(rng, pixels)
    if chances[1] < 0.15:
        pixels = blurred(rng, pixels)
    if chances[2] < 0.15:
        pixels = outlined(pixels)
    elif chances[3] < 0.55:
        pixels = pick((papered, laid_on_colour, cluttered), rng.random())(rng, pixels)
    if chances[4] < 0.2:
        pixels = grainy(rng, pixels)
    return pixels


def moved(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Turned by up to 15 degrees, scaled to 65% to 110%, shifted by up to 12% of the side."""
    turn = math.radians(rng.uniform(-15, 15))
    zoom = 1 / rng.uniform(0.65, 1.1)
    right, down = rng.uniform(-0.24, 0.24, 2)
    height, width = pixels.shape[:2]
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    # Coordinates run from -1 to 1 along each side, whatever its length.
    affine = [
        [cos, -sin * height / width, right * zoom],
        [sin * width / height, cos, down * zoom],
    ]
    picture = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    grid = F.affine_grid(
        torch.tensor([affine], dtype=torch.float32), list(picture.shape), align_corners=False
    )
    out = F.grid_sample(picture, grid, align_corners=False)[0].permute(1, 2, 0).round()
    return out.numpy().astype(np.uint8)


def blurred(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Reduced to a quarter or half of the side, and enlarged again."""
    height, width = pixels.shape[:2]
    factor = int(rng.choice((2, 4)))
    return resize(resize(pixels, height // factor, width // factor), height, width)


def outlined(pixels: Pixels) -> Pixels:
    """Its edges as dark lines on white paper: what a hasty pencil leaves of it."""
    white = pixels[..., :3].astype(np.float32) + 255 - pixels[..., 3:]
    grey = white.mean(axis=-1)
    down = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    right = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    line = np.clip((np.maximum(down, right) - 16) * 4, 0, 255)
    out = np.full_like(pixels, 255)
    out[..., :3] = (255 - line)[..., None].astype(np.uint8)
    return out


def papered(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Laid on paper: white, or nearly."""
    shade = 255 - rng.integers(0, 24, 3) * (rng.random() < 0.5)
    return backgrounds.lay(pixels, shade.astype(np.uint8))


def laid_on_colour(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Put on a flat colour or a gradient that the caption does not mention."""
    ground = backgrounds.choose(rng, rng.uniform(0, 255, (1, 1, 3)))
    column = backgrounds.gradient(ground.upper, ground.lower, pixels.shape[0])
    return backgrounds.lay(pixels[None], column)[0]


def cluttered(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Laid on soft blots of colours: what is out of focus behind a thing in a photograph."""
    height, width = pixels.shape[:2]
    few = int(rng.integers(2, 7))
    blots = rng.normal(rng.uniform(40, 215, 3), rng.uniform(10, 60), (few, few, 3))
    blots = np.concatenate((np.clip(blots, 0, 255), np.full((few, few, 1), 255)), axis=2)
    return backgrounds.lay(pixels, resize(blots.astype(np.uint8), height, width)[..., :3])


def grainy(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """With the noise of a cheap camera, where there is ink."""
    noise = rng.normal(0, rng.uniform(4, 16), (*pixels.shape[:2], 3))
    out = pixels.copy()
    out[..., :3] = np.clip(pixels[..., :3] + noise, 0, pixels[..., 3:])
    return out
