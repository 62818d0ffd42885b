"""References: their selection and augmentation in training.

A reference is a drawing of the same concept in another style, never the target. To prepare the
model for user pictures, such as photographs and scribbles, a share of the references is moved,
rotated, blurred, composited on a background or reduced to outlines; the target is unchanged.
Colours are meaningful: the new colours of a recoloured target are either those of its references
or named in the caption.
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
    """Indices of the candidate references of each entry: other styles of its concept.

    Held-out pictures are excluded, because they must not enter training.
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
    """Draw up to `count` distinct candidates; `weights` [entries] are indexed by entry."""
    if not candidates or not count:
        return []
    share = weights[list(candidates)]
    found = rng.choice(
        len(candidates), min(count, len(candidates)), replace=False, p=share / share.sum()
    )
    return [candidates[i] for i in found.tolist()]


def rotate_hues(pixels: Pixels, degrees: float) -> Pixels:
    """Rotate the hues of premultiplied RGBA [..., 4] about the grey axis; alpha is unchanged."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    third, root = (1 - cos) / 3, sin / math.sqrt(3)
    a, b, c = cos + third, third - root, third + root
    turned = pixels[..., :3].astype(np.float32) @ np.array(
        [[a, c, b], [b, a, c], [c, b, a]], np.float32
    )
    out = pixels.copy()
    out[..., :3] = np.clip(np.rint(turned), 0, pixels[..., 3:])
    return out


def augment(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Augment a reference [h, w, 4] by a random combination of changes."""
    chances = rng.random(5)
    if chances[0] < 0.7:
        pixels = moved(rng, pixels)
    if chances[1] < 0.15:
        pixels = blurred(rng, pixels)
    if chances[2] < 0.15:
        pixels = outlined(pixels)
    elif chances[3] < 0.55:
        pixels = pick((on_paper, on_colour, on_clutter), rng.random())(rng, pixels)
    if chances[4] < 0.2:
        pixels = grainy(rng, pixels)
    return pixels


def moved(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Rotate by up to 15 degrees, scale to 65% to 110%, shift by up to 12% of the side."""
    turn = math.radians(rng.uniform(-15, 15))
    zoom = 1 / rng.uniform(0.65, 1.1)
    right, down = rng.uniform(-0.24, 0.24, 2)
    height, width = pixels.shape[:2]
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    # Coordinates range from -1 to 1 along each side.
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
    """Blur by resizing to a quarter or half of the side and back."""
    height, width = pixels.shape[:2]
    factor = int(rng.choice((2, 4)))
    return resize(resize(pixels, height // factor, width // factor), height, width)


def outlined(pixels: Pixels) -> Pixels:
    """Reduce to edges: dark lines on white, like a pencil sketch."""
    white = pixels[..., :3].astype(np.float32) + 255 - pixels[..., 3:]
    grey = white.mean(axis=-1)
    down = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    right = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    line = np.clip((np.maximum(down, right) - 16) * 4, 0, 255)
    out = np.full_like(pixels, 255)
    out[..., :3] = (255 - line)[..., None].astype(np.uint8)
    return out


def on_paper(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Composite on white or nearly white."""
    shade = 255 - rng.integers(0, 24, 3) * (rng.random() < 0.5)
    return backgrounds.composite(pixels, shade.astype(np.uint8))


def on_colour(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Composite on a flat colour or a gradient, which the caption does not mention."""
    ground = backgrounds.choose(rng, rng.uniform(0, 255, (1, 1, 3)))
    column = backgrounds.gradient(ground.upper, ground.lower, pixels.shape[0])
    return backgrounds.composite(pixels[None], column)[0]


def on_clutter(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Composite on blurred blobs of colour, like an out-of-focus photograph."""
    height, width = pixels.shape[:2]
    cells = int(rng.integers(2, 7))
    blobs = rng.normal(rng.uniform(40, 215, 3), rng.uniform(10, 60), (cells, cells, 3))
    blobs = np.concatenate((np.clip(blobs, 0, 255), np.full((cells, cells, 1), 255)), axis=2)
    return backgrounds.composite(pixels, resize(blobs.astype(np.uint8), height, width)[..., :3])


def grainy(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Add sensor noise to visible pixels."""
    noise = rng.normal(0, rng.uniform(4, 16), (*pixels.shape[:2], 3))
    out = pixels.copy()
    out[..., :3] = np.clip(pixels[..., :3] + noise, 0, pixels[..., 3:])
    return out
