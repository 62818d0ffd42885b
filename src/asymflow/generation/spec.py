"""What is to be generated, complete and checked, before any model is loaded.

The command line and the server fill in a `GenerationSpec`; `generation.pipeline` runs it.
"""

from __future__ import annotations

import math
import secrets
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asymflow.core import presets
from asymflow.core.errors import InputError
from asymflow.core.presets import Grid
from asymflow.core.types import Plan
from asymflow.generation import metadata
from asymflow.generation.metadata import Source

MAX_PROMPT = 1000
"""Characters. The model reads the first 32 word pieces, about 150 characters."""
_LONG_WORD = 100
"""Characters. Not every language puts spaces between its words."""


@dataclass(frozen=True, slots=True, eq=False)
class InputImage:
    """An input picture [h, w, 4] or mask [h, w], as large as its file."""

    source: Source
    pixels: NDArray[np.float32]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]


Reference = InputImage | Literal["library", "none"]
"""What a model looks at that looks at references: a picture, what it finds, or nothing."""


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """What decides the steps: a plan as it is, or what makes one for a model and a size.

    Attributes:
        plan: asked for as it is, or that of a picture which is repeated.
        preset: name of a plan that comes with the model.
        grid: makes a plan for any model. Beside a preset, it takes its place for other weights;
            beside a plan, it is what that plan was made from.
    """

    plan: Plan | None = None
    preset: str | None = None
    grid: Grid | None = None


@dataclass(frozen=True, slots=True, eq=False)
class GenerationSpec:
    """What is to be generated, complete but for what only the model knows.

    Attributes:
        size: (height, width), or None for the model's own, or the nearest to `image`.
        exact: no rules that let a picture leave its plan.
        background: a colour, or None for transparent pictures.
        needs: SHA-256 that the weights must have, to repeat a picture.
        looked_at: what must be found in the library, to repeat a picture.
    """

    prompt: str
    negative: str
    style: str | None
    size: tuple[int, int] | None
    seed: int
    count: int
    guidance: float
    plan: PlanChoice
    exact: bool
    image: InputImage | None
    mask: InputImage | None
    strength: float
    background: str | None
    weights: Path | None
    needs: str | None
    dtype: str | None
    device: str | None
    reference: Reference = "library"
    looked_at: metadata.Reference | None = None


def random_seed() -> int:
    """A seed that is short enough to be typed again."""
    return secrets.randbelow(2**32)


def clean_text(name: str, text: str) -> str:
    """On one line, and writable into any file; `name` says in messages what it is.

    Raises:
        InputError: it is too long, or has characters that are no text.
    """
    text = " ".join(text.split())
    if len(text) > MAX_PROMPT:
        raise InputError(
            f"The {name} has {len(text)} characters, more than the {MAX_PROMPT} that are taken. "
            "Shorten it; the first few words count most."
        )
    for letter in text:
        # Controls, halves of surrogate pairs and non-characters: XML cannot hold them.
        if unicodedata.category(letter) in ("Cc", "Cs") or letter in "\ufffe\uffff":
            raise InputError(
                f"The {name} has the character U+{ord(letter):04X}, which is no text. Remove it."
            )
    return text


def cut_text(text: str) -> str:
    """As much of a text as is taken, to the end of a word where one ends near enough."""
    text = " ".join(text.split())
    if len(text) <= MAX_PROMPT:
        return text
    head = text[: MAX_PROMPT + 1].rpartition(" ")[0]
    return head if len(head) > MAX_PROMPT - _LONG_WORD else text[:MAX_PROMPT]


def seed_of(seed: int, count: int) -> int:
    """A seed that `count` pictures can count on from."""
    if not 0 <= seed <= 2**63 - count:
        raise InputError(f"Seed {seed} is out of range. Choose one from 0 to 2**63 - {count}.")
    return seed


def guidance_of(scale: float) -> float:
    """A guidance scale that makes sense."""
    if not 0 < scale < math.inf:
        raise InputError(
            f"Guidance {scale} is not possible. Give a positive number: 1 is none, "
            f"{presets.GUIDANCE:g} is usual, more follows the prompt harder."
        )
    return scale


def check_shapes(image: InputImage, mask: InputImage) -> None:
    """Raise `InputError` unless both have the same size, or the same aspect to within a pixel."""
    (a, b), (c, d) = image.size, mask.size
    if not batchable(image.size, mask.size):
        raise InputError(
            f"The mask {mask.source.path} has {d}x{c} pixels and the picture {image.source.path} "
            f"has {b}x{a}: they do not lie on each other. Draw the mask on a copy of the picture."
        )


def batchable(image: tuple[int, int], mask: tuple[int, int]) -> bool:
    """Whether a mask of (height, width) lies on an image, at any scale."""
    (a, b), (c, d) = image, mask
    return abs(a * d - b * c) <= max(a, b, c, d)
