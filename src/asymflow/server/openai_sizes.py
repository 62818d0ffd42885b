"""Sizes and usage, as OpenAI's API states them."""

from __future__ import annotations

import re
from typing import Any

from asymflow.core.adapter import CountsTokens
from asymflow.generation.pipeline import Model
from asymflow.generation.spec import batchable
from asymflow.server.openai_schema import ImageRequest
from asymflow.server.problems import ApiError
from asymflow.server.settings import LARGEST, SIDES

_NATIVE = 64
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


def sizes(text: str, given: tuple[int, int] | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the file and of the picture that the model generates for it.

    Files larger than the sizes of the model are enlarged from its largest.
    """
    if text == "auto":
        drawn = (_NATIVE, _NATIVE) if given is None else _near(given, _NATIVE)
        return drawn, drawn
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise ApiError(
            400,
            f"{text[:40]!r} is not a size. Give WxH, such as 64x64, or auto.",
            param="size",
            code="invalid_value",
        )
    width, height = int(found[1]), int(found[2])
    if height in SIDES and width in SIDES:
        return (height, width), (height, width)
    if not (SIDES[0] <= min(height, width) and max(height, width) <= LARGEST) or (
        max(height, width) > 4 * min(height, width)
    ):
        raise ApiError(
            400,
            f"Size {text} is not possible. Give sides from {SIDES[0]} to {LARGEST}, one at most "
            f"four times the other: multiples of {SIDES.step} up to {SIDES[-1]} are drawn as they "
            "are, and others enlarged.",
            param="size",
            code="invalid_value",
        )
    return (height, width), _near((height, width), min(SIDES[-1], max(height, width)))


def _near(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """The size of the model with a longer side of about `longest`, at the aspect of `size`."""
    scale = longest / max(size)
    height, width = (
        min(max(round(side * scale / SIDES.step) * SIDES.step, SIDES[0]), SIDES[-1])
        for side in size
    )
    return height, width


def usage(
    model: Model, request: ImageRequest, drawn: tuple[int, int], edits: bool
) -> dict[str, Any]:
    """Token usage: pieces of the prompt, and patches of the pictures."""
    text = len(request.prompt.split())
    if isinstance(model.adapter, CountsTokens):
        text = model.adapter.count_tokens(request.prompt)
    patch = max(_PATCH, model.card.sizes.multiple)
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
