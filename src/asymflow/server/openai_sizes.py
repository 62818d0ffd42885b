"""Sizes and usage, as OpenAI's API states them."""

from __future__ import annotations

import math
import re
from typing import Any

from asymflow.core.adapter import CountsTokens, unwrapped
from asymflow.core.card import Card, Sizes
from asymflow.generation.spec import batchable
from asymflow.server.lineup import Served
from asymflow.server.openai_schema import ImageRequest
from asymflow.server.problems import ApiError
from asymflow.server.settings import LARGEST

_PATCH = 8
"""Side of the patches that pictures are counted in, at least."""


def check_sizes(image: tuple[int, int], mask: tuple[int, int]) -> None:
    """Refuse a mask that does not fit its picture; both are (width, height)."""
    if not batchable(image, mask):
        (a, b), (c, d) = image, mask
        raise ApiError(
            400,
            f"The mask has {c}x{d} pixels and the picture has {a}x{b}: they do not lie on each "
            "other. Draw the mask on a copy of the picture.",
            param="mask",
            code="invalid_mask",
        )


def size_of(text: str) -> tuple[int, int]:
    """(height, width) of a size as text, "WxH"."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise ApiError(
            400,
            f"{text[:40]!r} is not a size. Give WxH, such as 64x64, or auto.",
            param="size",
            code="invalid_value",
        )
    return int(found[2]), int(found[1])


def sizes(
    card: Card, text: str, given: tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the file and of the picture that the model generates for it.

    Files of other sizes than those of the model are made from its nearest.
    """
    known = card.sizes
    if text == "auto":
        drawn = known.native if given is None else _near(known, given, max(known.native))
        return drawn, drawn
    size = size_of(text)
    if known.possible(size) and (known.trained is None or known.as_trained(size)):
        return size, size
    low, high = _sides(known)
    drawn = _near(known, size, min(high, max(size)))
    alike = size[0] * drawn[1] / max(1, size[1] * drawn[0])
    most = max(LARGEST, high)
    if not (low <= min(size) and max(size) <= most and 1 / 1.4 < alike < 1.4):
        how = (
            f"the shape of {known.native[1]}x{known.native[0]}, the only size that is drawn, up to "
            f"{most} a side"
            if known.fixed
            else f"sides from {low} to {most}, one at most four times the other: multiples of "
            f"{known.multiple} up to {high} are drawn as they are, and others enlarged"
        )
        raise ApiError(
            400,
            f"Size {text} is not possible. Give {how}.",
            param="size",
            code="invalid_value",
        )
    return size, drawn


def _sides(known: Sizes) -> tuple[int, int]:
    """The smallest and the largest side that are drawn."""
    if known.fixed:
        return min(known.native), max(known.native)
    return known.trained or (known.smallest, max(known.native))


def _near(known: Sizes, size: tuple[int, int], longest: int) -> tuple[int, int]:
    """The size of the model with a longer side of about `longest`, at the aspect of `size`."""
    if known.fixed:
        return known.native
    low, high = _sides(known)
    grain = known.multiple
    low, high = math.ceil(low / grain) * grain, high // grain * grain
    scale = longest / max(size)
    height, width = (min(max(round(side * scale / grain) * grain, low), high) for side in size)
    return height, width


def usage(
    served: Served, card: Card, request: ImageRequest, drawn: tuple[int, int], edits: bool
) -> dict[str, Any]:
    """Token usage: pieces of the prompt, and patches of the pictures."""
    text = len(request.prompt.split())
    adapter = None if served.model is None else unwrapped(served.model.adapter)
    if isinstance(adapter, CountsTokens):
        text = adapter.count_tokens(request.prompt)
    patch = max(_PATCH, card.sizes.multiple)
    patches = drawn[0] * drawn[1] // patch**2
    given = patches if edits else 0
    made = patches * request.n
    return {
        "input_tokens": text + given,
        "input_tokens_details": {"text_tokens": text, "image_tokens": given},
        "output_tokens": made,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": made},
        "total_tokens": text + given + made,
    }
