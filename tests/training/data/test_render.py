"""Pixels: premultiplied, centred, averaged exactly."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from asymflow.core.errors import FileFormatError
from asymflow.models.embedded.bitmaps import pool, premultiply, render_bitmap, resize
from asymflow.training.data.render import render_svg

DISC = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8" width="8" height="8">{}</svg>'


def test_premultiply_rounds_to_nearest() -> None:
    alpha, colour = np.meshgrid(np.arange(256), np.arange(256))
    straight = np.stack([colour, colour, colour, alpha], axis=-1).astype(np.uint8)
    exact = np.floor(colour * alpha / 255 + 0.5)
    result = premultiply(straight)
    assert np.abs(result[..., 0] - exact).max() == 0
    assert np.array_equal(result[..., 3], alpha)


def test_svg_is_drawn_at_its_size() -> None:
    pixels = render_svg(DISC.format('<circle cx="4" cy="4" r="3" fill="#f80"/>'), 32)
    assert pixels.shape == (32, 32, 4)
    assert pixels[16, 16].tolist() == [255, 136, 0, 255]
    assert pixels[0, 0].tolist() == [0, 0, 0, 0]
    area = pixels[..., 3].sum() / 255
    assert area == pytest.approx(np.pi * 12**2, rel=0.01)


def test_points_are_understood() -> None:
    pixels = render_svg(DISC.format('<rect width="3pt" height="6pt" fill="#fff"/>'), 8)
    assert (pixels[:, :4] == 255).all()  # 3 pt are 4 px
    assert (pixels[:, 4:] == 0).all()


def test_half_transparent_svg_is_premultiplied() -> None:
    pixels = render_svg(DISC.format('<rect width="8" height="8" fill="red" opacity=".5"/>'), 8)
    assert pixels[4, 4].tolist() == [128, 0, 0, 128]


def test_bad_svg_is_quoted() -> None:
    with pytest.raises(FileFormatError, match="<svg oops"):
        render_svg("<svg oops", 8)


def test_bitmap_is_padded_to_a_square() -> None:
    pixels = render_bitmap(_png(np.full((16, 8, 4), 255, np.uint8)), 16)
    assert pixels.shape == (16, 16, 4)
    assert (pixels[:, 4:12] == 255).all()
    assert (pixels[:, :4] == 0).all()
    assert (pixels[:, 12:] == 0).all()


def test_transparent_colour_does_not_bleed() -> None:
    straight = np.zeros((8, 8, 4), np.uint8)
    straight[:, :4] = (0, 0, 255, 255)
    straight[:, 4:] = (255, 0, 0, 0)  # invisible red
    pixels = render_bitmap(_png(straight), 2)
    assert (pixels[..., 0] == 0).all()
    assert pixels[0].tolist() == [[0, 0, 255, 255], [0, 0, 0, 0]]
    halved = render_bitmap(_png(straight[:, 2:6]), 1)  # half blue, half nothing, padded
    assert halved[0, 0, 0] == 0
    assert abs(int(halved[0, 0, 2]) - int(halved[0, 0, 3])) <= 1


def test_pool_is_the_mean_rounded_once() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 8, 8, 4), np.uint8)
    assert np.array_equal(pool(pixels, 1), pixels)
    quarter = pool(pixels, 4)
    for i in range(2):
        for j in range(2):
            block = pixels[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].astype(int)
            assert np.array_equal(quarter[:, i, j], (block.sum(axis=(1, 2)) + 8) // 16)


def test_pool_stays_premultiplied() -> None:
    rng = np.random.default_rng(1)
    pixels = premultiply(rng.integers(0, 256, (2, 16, 16, 4), np.uint8))
    for factor in (2, 4):
        result = pool(pixels, factor)
        assert (result[..., :3] <= result[..., 3:]).all()


def test_resize_averages_areas() -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (12, 12, 4), np.uint8)
    means = pixels.reshape(4, 3, 4, 3, 4).mean(axis=(1, 3))
    # Rows and columns are averaged one after the other, each rounded.
    assert np.abs(resize(pixels, 4, 4) - means).max() <= 1
    assert resize(pixels, 12, 12) is pixels
    assert resize(pixels, 20, 20).shape == (20, 20, 4)


def _png(straight: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(straight).save(file, "PNG")
    return file.getvalue()
