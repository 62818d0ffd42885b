"""Request schemas of the studio's own API."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from asymflow.core import presets
from asymflow.generation.spec import MAX_PROMPT
from asymflow.io import json_reader
from asymflow.server.settings import COMBINATIONS, PICTURES

T = TypeVar("T")
Quality = Annotated[str, Field(pattern=r"^[a-z]{1,32}$")]
"""Name of a plan of the model."""
Fit = Literal["crop", "pad"]
Side = Annotated[int, Field(ge=1, le=8192)]
"""In pixels. The card of the model says which are possible."""
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
NO_REFERENCE = "none"
"""Instead of the id of a reference. Ids of uploads are longer."""


class Sent(BaseModel):
    """Base of request schemas; checks that every string is valid text."""

    @model_validator(mode="before")
    @classmethod
    def _all_text(cls, data: object) -> object:
        broken = next(
            (text for text in json_reader.strings(data) if json_reader.half_of_pair(text)), None
        )
        if broken is not None:
            shown = broken.encode("ascii", "backslashreplace").decode()[:60]
            raise ValueError(
                f"'{shown}' has half of a surrogate pair, which is no text. Remove it, or send the "
                "whole sign."
            )
        return data


class Asked(Sent):
    """What requests say of pictures, before and after the card has filled in its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(max_length=64)] | None = None
    negative_prompt: Annotated[str, Field(max_length=4 * MAX_PROMPT)] = ""
    style: str | None = None
    styles: Annotated[tuple[str, ...], Field(max_length=COMBINATIONS)] = ()
    language: Annotated[str, Field(max_length=35, pattern=r"^[A-Za-z0-9-]+$")] | None = None
    n: Annotated[int, Field(ge=1, le=PICTURES)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    guidance_scale: Annotated[float, Field(gt=0, le=100)] | None = None
    image: Id | None = None
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    fit: Fit = "crop"
    mask: Id | None = None
    parent: Id | None = None
    reference: Id | None = None
    live: bool = False
    exact: Annotated[
        bool,
        Field(
            deprecated=True,
            description="Has no effect: every step of a quality is always run. Accepted because "
            "earlier versions sent and stored it.",
        ),
    ] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image is not None and self.parent is not None:
            raise ValueError("`image` and `parent` both say where to start. Give one of them.")
        if self.mask is not None and not self.starts:
            raise ValueError("`mask` says which part of a picture to paint. Give `image` too.")
        if self.style is not None and self.styles:
            raise ValueError("`style` and `styles` both say how to draw. Give one of them.")
        twice = [each for each in dict.fromkeys(self.styles) if self.styles.count(each) > 1]
        if twice:
            raise ValueError(
                f"`styles` has {twice[0][:64]!r} more than once. Name every style once."
            )
        return self

    @property
    def starts(self) -> bool:
        """Whether there is a picture to start from."""
        return self.image is not None or self.parent is not None

    @property
    def path(self) -> float:
        """The part of the trajectory that is run."""
        if not self.starts:
            return 1.0
        usual = presets.IMAGE_STRENGTH if self.mask is None else presets.MASK_STRENGTH
        return usual if self.strength is None else self.strength


class JobRequest(Asked):
    """A request for pictures.

    `prompt` may have choices, `{red|blue}`; every combination is generated `n` times. `strength` is
    the distance from the picture given as `image` (an upload) or `parent` (a picture of the
    studio). Where a `mask` is white the picture is repainted. With `styles` every combination is
    generated in each of them.

    A model with references looks at drawings of its library for the words of the prompt, or at the
    `reference` instead: an upload, or "none" for nothing. It is drawn again, in the style.

    Models of classes are asked with a `label`, by number or name, instead of a prompt, and some
    models with nothing. What is left out is chosen by the card of the model: `width` and `height`,
    `quality` (the name of one of its plans) and `guidance_scale`. `model` is the id of a model of
    the server; the first one if it is left out. `language` is the probable one of the prompt,
    such as that of the page.
    """

    prompt: Annotated[str, Field(max_length=4 * MAX_PROMPT)] = ""
    label: Annotated[int, Field(ge=0, lt=10**6)] | Annotated[str, Field(max_length=400)] | None = (
        None
    )
    width: Side | None = None
    height: Side | None = None
    quality: Quality | None = None


class CompletedRequest(Asked):
    """A request with all defaults filled in; its class, if it has one, is a number."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    prompt: Annotated[str, Field(max_length=4 * MAX_PROMPT)]
    label: Annotated[int, Field(ge=0, lt=10**6)] | None = None
    width: Side
    height: Side
    quality: Quality

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


class PictureIds(Sent):
    """Some pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: Annotated[list[Id], Field(min_length=1, max_length=5000)]


class Favoured(PictureIds):
    """Pictures that are to be favourites, or not."""

    favourite: bool = True


class Slot(BaseModel):
    """One picture of a job; `label` lists its choices, `style` is its own if there are several."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_serialization_defaults_required=True
    )

    label: str | None
    prompt: str
    seed: int
    style: str | None = None


def remembered(shape: type[T], data: Mapping[str, Any]) -> T:
    """Parse data of a schema written by any version; fields unknown to this one are dropped.

    Raises:
        ValueError: the data do not match the schema.
    """
    adapter, fields = _known(shape)
    if not isinstance(data, dict):
        raise ValueError(f"{data!r} is no object")  # rows may hold anything
    return adapter.validate_python({key: data[key] for key in data if key in fields})


def unknown(shape: type[object], data: Mapping[str, Any]) -> list[str]:
    """Fields of another version that are unknown and not empty."""
    _, fields = _known(shape)
    return sorted(name for name, value in data.items() if value and name not in fields)


@cache
def _known(shape: type[T]) -> tuple[TypeAdapter[T], frozenset[str]]:
    """The validator of a schema, and its fields."""
    adapter = TypeAdapter(shape)
    return adapter, frozenset(adapter.json_schema()["properties"])
