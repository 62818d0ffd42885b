"""Premultiplied RGBA pixels: decoded, resized and pooled."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def render_bitmap(data: bytes, size: int) -> Pixels:
    """Decode an image file, centre it on a square and reduce it to [size, size, 4].

    The reduction averages premultiplied colours, so that transparent pixels contribute no colour.
    """
    pixels = premultiply(decode(data))
    height, width = pixels.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 4), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return resize(square, size, size)


def premultiply(straight: Pixels) -> Pixels:
    """Multiply colour by alpha, rounding to nearest; [..., 4] in and out."""
    wide = straight.astype(np.uint16)
    alpha = wide[..., 3:]
    colour = (wide[..., :3] * alpha + 127) // 255
    return np.concatenate([colour, alpha], axis=-1).astype(np.uint8)


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resample premultiplied RGBA [h, w, 4]: area average down, bilinear up."""
    if pixels.shape[:2] == (height, width):
        return pixels
    smaller = height < pixels.shape[0]
    # "RGBa" is Pillow's premultiplied mode: channels are resampled as they are.
    image = Image.frombytes("RGBa", (pixels.shape[1], pixels.shape[0]), pixels.tobytes())
    method = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return np.asarray(image.resize((width, height), method))


def pool(pixels: Pixels, factor: int) -> Pixels:
    """Average `factor` x `factor` blocks of [n, h, w, 4] exactly, rounding half up once."""
    n, height, width, channels = pixels.shape
    blocks = pixels.reshape(n, height // factor, factor, width // factor, factor, channels)
    area = factor * factor
    total: npt.NDArray[Any] = blocks.sum(axis=(2, 4), dtype=np.uint32)
    return ((total + area // 2) // area).astype(np.uint8)


def decode(data: bytes) -> Pixels:
    """The pixels of an image file, straight RGBA [h, w, 4]."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA"))
