"""Contact sheets: many small pictures on one, with labels."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from asymflow.core.errors import InputError

Picture = NDArray[Any]
Background = Literal["white", "checker"]

_GAP = 6
_INK = (40, 40, 40)
_CHECKER = 8
_PLAIN = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2013: "-", 0x2014: "-", 0xD7: "x"}


def sheet(
    images: NDArray[Any] | Sequence[Sequence[Picture]],
    *,
    row_labels: Sequence[str] = (),
    col_labels: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    scale: int = 1,
    background: Background = "white",
) -> Image.Image:
    """Lay pictures out in a grid.

    Args:
        images: [rows, cols, h, w, 4], or rows of pictures [h, w, 4] where a row may be shorter
            than the others: premultiplied RGBA, uint8 or floating point in [0, 1] (clipped).
        row_labels: to the left of the rows. Text that does not fit is cut with an ellipsis.
        col_labels: above the columns.
        captions: under each picture.
        scale: whole number by which pictures are enlarged, without smoothing.
        background: behind the pictures.

    Raises:
        InputError: the sheet is empty, a picture has another shape, or labels do not match the
            rows and columns.
    """
    rows = [[_enlarge(picture, scale, background) for picture in row] for row in images]
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise InputError("A sheet of 0 pictures has no size; give at least one.")
    for labels, count, what in ((row_labels, len(rows), "row"), (col_labels, columns, "column")):
        if labels and len(labels) != count:
            raise InputError(
                f"{len(labels)} {what} labels for {count} {what}s; give one each or none."
            )
    if captions and [len(texts) for texts in captions] != [len(row) for row in rows]:
        raise InputError("Captions and pictures differ in number; give one caption per picture.")

    row_labels = [_plain(label) for label in row_labels]
    height = max(picture.height for row in rows for picture in row)
    width = max(picture.width for row in rows for picture in row)
    font = _font(min(max(11, width // 9), 20))
    line = sum(font.getmetrics()) + 2
    left = _GAP + (int(max(map(font.getlength, row_labels))) + _GAP if row_labels else 0)
    top = _GAP + (line if col_labels else 0)
    step_x = width + _GAP
    heights = [height + _GAP] * len(rows)
    for i, texts in enumerate(captions):
        heights[i] += line if any(texts) else 0

    out = Image.new("RGB", (left + columns * step_x, top + sum(heights)), "white")
    draw = ImageDraw.Draw(out)
    for column, label in enumerate(col_labels):
        middle = left + column * step_x + width // 2
        draw.text((middle, top - 2), _fit(label, font, width), _INK, font, anchor="md")
    for i, row in enumerate(rows):
        y = top + sum(heights[:i])
        if row_labels:
            draw.text((left - _GAP, y + height // 2), row_labels[i], _INK, font, anchor="rm")
        for j, picture in enumerate(row):
            x = left + j * step_x
            out.paste(picture, (x + (width - picture.width) // 2, y + height - picture.height))
            if captions:
                text = _fit(captions[i][j], font, width)
                draw.text((x + width // 2, y + height + 1), text, _INK, font, anchor="ma")
    return out


def _enlarge(picture: Picture, scale: int, background: Background) -> Image.Image:
    if picture.ndim != 3 or picture.shape[-1] != 4:
        raise InputError(
            f"A picture has shape {picture.shape}; a sheet needs [h, w, 4], premultiplied RGBA."
        )
    unit = picture / 255 if picture.dtype == np.uint8 else picture.clip(0, 1)
    unit = unit.repeat(scale, axis=0).repeat(scale, axis=1)
    rgb = unit[..., :3] + (1 - unit[..., 3:]) * _backdrop(unit.shape[0], unit.shape[1], background)
    return Image.fromarray((rgb * 255).round().clip(0, 255).astype(np.uint8))


def _backdrop(height: int, width: int, background: Background) -> NDArray[np.float64]:
    if background == "white":
        return np.ones((1, 1, 1))
    y, x = np.indices((height, width)) // _CHECKER
    return np.where((x + y) % 2, 0.8, 0.95)[..., None]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    # Without FreeType, Pillow falls back to a bitmap font, which has no size.
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def _plain(text: str) -> str:
    """The text without accents, curly quotes and dashes, which the built-in font lacks."""
    letters = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    text = _plain(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
