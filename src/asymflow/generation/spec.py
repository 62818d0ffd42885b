"""The specification of pictures to generate, validated before a model is loaded.

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
"""In characters. The model uses the first 32 word pieces, about 150 characters."""
_LONG_WORD = 100
"""In characters. Some languages have no spaces between words."""


@dataclass(frozen=True, slots=True, eq=False)
class InputImage:
    """An input picture [h, w, 4] or mask [h, w], as large as its file.

    Attributes:
        file: where it was read, which differs from the path of its source where that has moved.
    """

    source: Source
    pixels: NDArray[np.float32]
    file: Path | None = None

    @property
    def found(self) -> Path:
        """The file that it was read from."""
        return self.file or Path(self.source.path)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]


Reference = InputImage | Literal["library", "none"]
"""Reference of a model that uses them: a picture, a look-up in the library, or none."""


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """The source of the plan: a plan, or settings to make one for a model and a size.

    Attributes:
        plan: requested, or that of a repeated picture.
        preset: name of a plan of the model; without any of the three, the usual one.
        grid: makes a plan for any model. With a plan, it is what that plan was made from.
        lenient: the default plan of the family serves where there is no plan of that name.
    """

    plan: Plan | None = None
    preset: str | None = None
    grid: Grid | None = None
    lenient: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class GenerationSpec:
    """The pictures to generate; defaults that depend on the model are still open.

    Attributes:
        prompt: empty for a model that is not asked with one.
        size: (height, width), or None for the model's own, or the nearest to `image`.
        guidance: scale, or None for the model's own.
        background: a colour, or None for transparent pictures.
        model: what to load, as `asymflow.load` takes it; None for the embedded model.
        needs: hash that a replay requires of the weights.
        label: name or number of a class.
        suffix: that the style added to the prompt of a picture that is replayed.
        drawn: what the model was asked with by a picture that is replayed; the prompt is not read
            again then.
        languages: that the prompt is probably in, the most probable first.
        recorded_reference: the reference that a replay must find in the library.
    """

    prompt: str
    negative: str
    style: str | None
    size: tuple[int, int] | None
    seed: int
    count: int
    guidance: float | None
    plan: PlanChoice
    image: InputImage | None
    mask: InputImage | None
    strength: float
    background: str | None
    model: str | None
    needs: str | None
    dtype: str | None
    device: str | None
    label: str | None = None
    suffix: str | None = None
    drawn: str | None = None
    languages: tuple[str, ...] = ()
    reference: Reference = "library"
    recorded_reference: metadata.Reference | None = None


def random_seed() -> int:
    """A random seed that is short enough to type."""
    return secrets.randbelow(2**32)


def clean_text(name: str, text: str) -> str:
    """The text on one line, valid in any file format; `name` is for messages.

    Raises:
        InputError: it is too long, or has control or invalid characters.
    """
    text = " ".join(text.split())
    if len(text) > MAX_PROMPT:
        raise InputError(
            f"The {name} has {len(text)} characters, more than the limit of {MAX_PROMPT}. "
            "Shorten it; the first few words count most."
        )
    for letter in text:
        # Control characters, lone surrogates and non-characters are invalid in XML.
        if unicodedata.category(letter) in ("Cc", "Cs") or letter in "\ufffe\uffff":
            raise InputError(
                f"The {name} has the character U+{ord(letter):04X}, which is no text. Remove it."
            )
    return text


def cut_text(text: str) -> str:
    """The text cut to the maximal length, at the end of a word if possible."""
    text = " ".join(text.split())
    if len(text) <= MAX_PROMPT:
        return text
    head = text[: MAX_PROMPT + 1].rpartition(" ")[0]
    return head if len(head) > MAX_PROMPT - _LONG_WORD else text[:MAX_PROMPT]


def seed_of(seed: int, count: int) -> int:
    """Check a seed from which `count` pictures are numbered."""
    if not 0 <= seed <= 2**63 - count:
        raise InputError(f"Seed {seed} is out of range. Choose one from 0 to 2**63 - {count}.")
    return seed


def guidance_of(scale: float) -> float:
    """Check a guidance scale."""
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
    """Whether a mask of (height, width) fits an image, at any scale."""
    (a, b), (c, d) = image, mask
    return abs(a * d - b * c) <= max(a, b, c, d)
