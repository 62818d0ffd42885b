"""Flat drawings as SVG: traced from pixels, and rendered at any size.

A drawing of a few plain colours is a few shapes. It is enlarged, smoothed and reduced to its main
colours first, since otherwise every soft edge and every speck becomes a shape; then VTracer draws
splines around what has one colour, from the largest areas to the smallest on top of them.
"""

from __future__ import annotations

import io
import re
from html import escape
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from asymflow.core.errors import MissingExtra
from asymflow.core.types import Picture
from asymflow.io.images import Colour, Notes, fit, to_bytes

SMALLEST = 2
"""Side of the smallest shapes that are kept, in pixels of the picture."""
COLOURS = 12
_SIDE = 384
"""About the side that pictures are enlarged to: splines follow pixels to a sixth of one of 64."""
_MOST = 6
"""Enlargement, at most."""
_LENGTH = 10.0
"""Segments of splines are no shorter, in enlarged pixels."""
_PATH = re.compile(r'<path d="([^"]*)" fill="(#[0-9A-Fa-f]+)" transform="translate\(([^)]*)\)"/>')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_DPI = 96


def require() -> None:
    """Check whether pictures can be traced and rendered.

    Raises:
        MissingExtra: a package is not installed.
    """
    _vtracer()
    _resvg()


def svg(picture: Picture, *, title: str, notes: Notes, background: Colour | None = None) -> bytes:
    """A drawing as an SVG file.

    What is less than half opaque becomes transparent, and the rest opaque: edges are as sharp as
    the screen allows.

    Args:
        picture: premultiplied RGBA [h, w, 4].
        title: for people and screen readers: the prompt.
        notes: the metadata; its XMP has to include the record, if any.
        background: an opaque colour, or None for a transparent one.

    Raises:
        MissingExtra: VTracer is not installed.
    """
    height, width = picture.shape[:2]
    scale = int(np.clip(round(_SIDE / max(height, width)), 1, _MOST))
    fill = (
        ""
        if background is None
        else f'<rect width="100%" height="100%" fill="{_hex(background)}"/>'
    )
    shapes = "\n".join(_shapes(picture, scale))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {scale * width} {scale * height}">\n'
        f"<title>{escape(title)}</title>\n<metadata>{_packet(notes.xmp)}</metadata>\n"
        f"{fill}{shapes}\n</svg>\n"
    ).encode()


def rendered(data: bytes, size: tuple[int, int]) -> Picture:
    """An SVG file as premultiplied RGBA [h, w, 4] at (height, width).

    Raises:
        MissingExtra: resvg is not installed.
    """
    height, width = size
    made = _resvg().svg_to_bytes(svg_string=data.decode(), width=width, height=height, dpi=_DPI)
    with Image.open(io.BytesIO(bytes(made))) as image:
        straight = np.asarray(image.convert("RGBA"), np.float32) / np.float32(255)
    return np.concatenate([straight[..., :3] * straight[..., 3:], straight[..., 3:]], axis=-1)


def _shapes(picture: Picture, scale: int) -> list[str]:
    """The shapes of a picture that is enlarged by a factor, as SVG elements from the back on."""
    pixels = _flattened(picture, scale)
    if not pixels[..., 3].any():
        return []
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    traced: str = _vtracer().convert_raw_image_to_svg(
        file.getvalue(),
        img_format="png",
        colormode="color",
        hierarchical="stacked",  # without seams between neighbours
        mode="spline",
        filter_speckle=SMALLEST * scale,
        color_precision=8,  # colours are few already
        layer_difference=1,
        length_threshold=_LENGTH,
        path_precision=0,
    )
    return [
        match.group()
        for match in _PATH.finditer(traced)
        if max(_extent(match.group(1))) >= SMALLEST * scale
    ]


def _flattened(picture: Picture, scale: int) -> NDArray[np.uint8]:
    """A picture enlarged, in few colours: straight RGBA, each pixel opaque or transparent."""
    height, width = picture.shape[:2]
    large = fit(picture, (height * scale, width * scale))
    inside = large[..., 3] >= 0.5
    image = Image.fromarray(np.ascontiguousarray(to_bytes(large)[..., :3]))
    image = image.filter(ImageFilter.MedianFilter(scale | 1))
    if not inside.any():
        return np.zeros((*inside.shape, 4), np.uint8)
    # The main colours are those of the middles of the picture's own pixels: k-means over all that
    # they were enlarged to finds the same, and would take most of the time.
    middles = np.s_[scale // 2 :: scale, scale // 2 :: scale]
    seen = np.asarray(image)[middles][inside[middles]]
    if not len(seen):
        seen = np.asarray(image)[inside]
    palette = Image.fromarray(seen[None]).quantize(
        COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=2
    )
    few = image.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB")
    alpha = np.where(inside, np.uint8(255), np.uint8(0))
    return np.dstack([np.asarray(few), alpha])


def _extent(path: str) -> tuple[float, float]:
    """Width and height of the box around a path's points, handles of curves included."""
    numbers = np.array(_NUMBER.findall(path), np.float64)
    if not len(numbers):  # VTracer writes empty paths for some specks
        return 0.0, 0.0
    x, y = numbers[::2], numbers[1::2]
    return float(np.ptp(x)), float(np.ptp(y))


def _packet(xmp: str) -> str:
    """An XMP packet without the processing instructions around it, which are for other files."""
    return re.sub(r"<\?xpacket[^>]*\?>", "", xmp).strip()


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in colour)


def _vtracer() -> Any:
    return _package("vtracer", "vtracer")


def _resvg() -> Any:
    return _package("resvg_py", "resvg-py")


def _package(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(name, "svg") from error
