"""Put what was painted into the original picture, at the original's resolution.

A model repaints a part of a picture that was cropped and reduced to its own size. Enlarged and laid
over the original through the mask, only that part is new: pixels outside of the mask are those of
the file, bit for bit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from asymflow.core.errors import InputError
from asymflow.core.types import Picture
from asymflow.io.images import Colour, Mask

Pixels = NDArray[np.uint8]
FEATHER = 0.5
"""Width of the soft edge inside the mask, in pixels of the small picture."""


def restored(original: Pixels, mask: Mask, small: Picture) -> Pixels:
    """The original with the painted part of a small picture.

    Args:
        original: straight RGBA or RGB [h, w, 4 or 3], as its file has it, upright.
        mask: [m, n] of the same shape at any scale, 1 where to repaint; greys blend.
        small: premultiplied RGBA [a, b, 4]: the whole original, or the middle of it, as
            `asymflow.io.images.fit` crops it.

    Returns:
        Of the shape of `original`. Where the mask is 0, and where `small` does not reach, its
        pixels are those of `original`.

    Raises:
        InputError: the mask has another shape.
    """
    height, width = original.shape[:2]
    if abs(height * mask.shape[1] - width * mask.shape[0]) > max(*original.shape, *mask.shape):
        raise InputError(
            f"The mask has {mask.shape[1]}x{mask.shape[0]} pixels and the picture has "
            f"{width}x{height}: they do not lie on each other. Draw the mask on a copy of it."
        )
    top, left, covered_height, covered_width = _covered((height, width), small.shape[:2])
    inside = slice(top, top + covered_height), slice(left, left + covered_width)
    scale = covered_height / small.shape[0]
    weight = _feathered(_enlarged_mask(mask, (height, width)), FEATHER * scale)[inside]
    rows, columns = (np.flatnonzero(weight.any(axis=axis)) for axis in (1, 0))
    result = original.copy()
    if not len(rows):
        return result
    # A photograph has many pixels, and the painted part few: only the box around it is computed.
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    part = result[inside][box]
    new = _enlarged(small, (covered_height, covered_width), box)
    w = weight[box][..., None]
    part[...] = _blended(part, new, w)
    return result


def laid_on(pixels: Pixels, colour: Colour) -> Pixels:
    """Straight RGBA [h, w, 4] on an opaque colour: RGB [h, w, 3]; opaque pixels stay exact."""
    alpha = pixels[..., 3:].astype(np.float32) / np.float32(255)
    mixed = pixels[..., :3] * alpha + np.array(colour, np.float32) * 255 * (1 - alpha)
    return mixed.round().astype(np.uint8)


def _covered(size: tuple[int, int], small: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The middle of a picture that a small one of another shape shows: top, left, height, width."""
    height, width = size
    scale = max(small[0] / height, small[1] / width)
    covered = min(height, round(small[0] / scale)), min(width, round(small[1] / scale))
    return (height - covered[0]) // 2, (width - covered[1]) // 2, *covered


def _enlarged_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at (height, width); where it was 0 it stays exactly 0."""
    if mask.shape == size:
        return mask
    image = Image.fromarray(np.ascontiguousarray(mask, np.float32))
    # Each pixel of the mask becomes a block: smoothing would reach beyond what was painted.
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST), np.float32)


def _feathered(mask: Mask, radius: float) -> Mask:
    """A mask whose edge is soft on its inside, and that is 0 wherever it was 0 before."""
    steps = math.floor(radius)
    if steps < 1:
        return mask
    painted = Image.fromarray(np.where(mask > 0, np.uint8(255), np.uint8(0)))
    # The share of painted neighbours is 1 far inside, and a half at a straight edge.
    share = np.asarray(painted.filter(ImageFilter.BoxBlur(steps)), np.float32) / np.float32(255)
    return mask * np.clip(2 * share - 1, 0, 1).astype(np.float32)


def _enlarged(small: Picture, size: tuple[int, int], box: tuple[slice, slice]) -> Picture:
    """The part of a small picture, enlarged to (height, width), that lies in a box."""
    across, down = small.shape[1] / size[1], small.shape[0] / size[0]
    rows, columns = box
    cut = (columns.start * across, rows.start * down, columns.stop * across, rows.stop * down)
    shape = columns.stop - columns.start, rows.stop - rows.start
    channels = [
        Image.fromarray(np.ascontiguousarray(small[..., i])).resize(
            shape, Image.Resampling.BICUBIC, box=cut
        )
        for i in range(4)
    ]
    made = np.stack([np.asarray(each, np.float32) for each in channels], axis=-1).clip(0, 1)
    return np.minimum(made, made[..., 3:])


def _blended(old: Pixels, new: Picture, weight: NDArray[np.float32]) -> Pixels:
    """New pixels over old ones by a weight [h, w, 1]; where it is 0, the old ones exactly.

    On an opaque picture, what is transparent in the new one lets the old one through.
    """
    straight = old.astype(np.float32) / np.float32(255)
    opaque = old.shape[-1] == 3 or bool(old[..., 3].min() == 255)
    if opaque:
        colour = straight[..., :3] * (1 - weight * new[..., 3:]) + new[..., :3] * weight
        made = np.concatenate([colour, straight[..., 3:]], axis=-1)
    else:
        before = np.concatenate([straight[..., :3] * straight[..., 3:], straight[..., 3:]], axis=-1)
        mixed = before * (1 - weight) + new * weight
        alpha = mixed[..., 3:]
        colour = np.divide(
            mixed[..., :3], alpha, out=np.zeros_like(mixed[..., :3]), where=alpha > 0
        )
        made = np.concatenate([colour, alpha], axis=-1)
    levels = (made.clip(0, 1) * 255).round().astype(np.uint8)
    return np.where(weight > 0, levels, old)
