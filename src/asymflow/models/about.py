"""What a file beside a model says of it, that its weights do not: names of classes, a licence.

It is `asymflow.json` in the folder of a model, or `NAME.asymflow.json` beside its file NAME.pth:

    {"title": "Shapes", "classes": ["disc", "star"], "null": 2, "guidance": 2.0, "licence": "MIT"}

Its `tiles` say that the model may be shown tiles of large pictures, and up to which t:
{"tiles": {"side": 64, "until": 0.3}}.

Its `options` are numbers that the loader of the family is given, where a file of weights has no
place for them: {"options": {"class_start": 2, "noise_scale": 0.5}}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asymflow.core.adapter import Adapter, Wrapped
from asymflow.core.card import Card, Carded, Tiles
from asymflow.core.errors import FileFormatError
from asymflow.io.json_reader import Fields, parse

NAME = "asymflow.json"

_SIDES = range(1, 2**16)


@dataclass(frozen=True, slots=True)
class About:
    """What the file says; None where it says nothing.

    Attributes:
        classes: names by number, without the null class.
        null: the class that stands for none.
        guidance: scale by default.
        guidance_interval: (low, high) in t in which guidance is worth its pass.
        steps: of the model's own sampler.
        size: (height, width) of the pictures of training; `height` and `width` in the file.
        tiles: see `core.card.Tiles`.
        calibration: prompts to measure the model with.
        options: arguments of the family's loader.
    """

    title: str | None = None
    classes: tuple[str, ...] | None = None
    null: int | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, float] | None = None
    steps: int | None = None
    size: tuple[int, int] | None = None
    tiles: Tiles | None = None
    calibration: tuple[str, ...] | None = None
    licence: str | None = None
    source: str | None = None
    options: Mapping[str, float] = field(default_factory=dict[str, float])

    def of(self, card: Card) -> Card:
        """The card with what the file says.

        Raises:
            FileFormatError: it names another number of classes than the model has, or a size that
                the model cannot make.
        """
        if self.classes is not None and len(self.classes) != len(card.classes):
            raise FileFormatError(
                f"The file {NAME} beside the model names {len(self.classes)} classes, and the "
                f"model has {len(card.classes)}. Name each once, without the null class."
            )
        changes: dict[str, Any] = {
            name: value
            for name in (
                "title",
                "classes",
                "guidance_interval",
                "steps",
                "tiles",
                "licence",
                "source",
            )
            if (value := getattr(self, name)) is not None
        }
        if self.guidance is not None and card.guided:
            changes["guidance"] = self.guidance
        if self.size is not None:
            if not card.sizes.possible(self.size):
                raise FileFormatError(
                    f"The file {NAME} beside the model has the size {self.size[1]}x{self.size[0]}, "
                    f"which {card.title} cannot make. Correct it, or leave height and width out."
                )
            changes["sizes"] = replace(card.sizes, native=self.size)
        if self.tiles is not None and not card.sizes.possible((self.tiles.side, self.tiles.side)):
            side = self.tiles.side
            raise FileFormatError(
                f"The file {NAME} beside the model has tiles of {side}x{side} pixels, which "
                f"{card.title} cannot make. Give the side of the pictures of training."
            )
        if self.calibration and card.asks == "prompt":
            changes["calibration"] = tuple({"prompt": prompt} for prompt in self.calibration)
        return replace(card, **changes)


def beside(path: Path) -> Path:
    """Where the file of a model's file or folder is."""
    return path / NAME if path.is_dir() else path.with_name(f"{path.stem}.{NAME}")


def about(path: Path) -> About:
    """Read what is said of the model in a file or a folder; nothing where there is no such file.

    Raises:
        FileFormatError: the file is damaged, or has an entry that is unknown or of another kind.
    """
    file = beside(path)
    if not file.is_file():
        return About()
    fields = Fields(parse(file.read_bytes(), str(file)), str(file))
    size = None
    if "height" in fields or "width" in fields:
        size = fields.integer("height", _SIDES), fields.integer("width", _SIDES)
    interval = fields.numbers("guidance_interval") if "guidance_interval" in fields else None
    if interval is not None and len(interval) != 2:
        fields.refuse(f"has guidance_interval = {json.dumps(interval)}, which are not two numbers")
    if interval is not None and not 0 <= interval[0] <= interval[1] <= 1:
        fields.refuse(f"has guidance_interval = {json.dumps(interval)}, which is no part of [0, 1]")
    found = About(
        title=fields.text("title") if "title" in fields else None,
        classes=tuple(fields.strings("classes")) if "classes" in fields else None,
        null=fields.integer("null", range(1_000_000)) if "null" in fields else None,
        guidance=fields.number("guidance") if "guidance" in fields else None,
        guidance_interval=None if interval is None else (interval[0], interval[1]),
        steps=fields.integer("steps", range(1, 10_000)) if "steps" in fields else None,
        size=size,
        tiles=_tiles(fields.fields("tiles")) if "tiles" in fields else None,
        calibration=tuple(fields.strings("calibration")) if "calibration" in fields else None,
        licence=fields.text("licence") if "licence" in fields else None,
        source=fields.text("source") if "source" in fields else None,
        options=_options(fields.fields("options")) if "options" in fields else {},
    )
    fields.finish()
    return found


def _tiles(fields: Fields) -> Tiles:
    side, until = fields.integer("side", _SIDES), fields.number("until")
    fields.finish()
    if not 0 < until <= 1:
        fields.refuse(f"has until = {until:g}, which is not a t above 0 and up to 1")
    return Tiles(side, until)


def _options(fields: Fields) -> dict[str, float]:
    """Numbers by name; those without a fraction are integers."""
    numbers = {name: fields.number(name) for name in fields.names()}
    return {name: int(each) if each.is_integer() else each for name, each in numbers.items()}


class WithCard(Wrapped):
    """A model with another card than its family gives it."""

    def __init__(self, inner: Adapter, card: Card) -> None:
        super().__init__(inner)
        self._card = card

    @property
    def card(self) -> Card:
        return self._card


def told(adapter: Adapter, about: About) -> Adapter:
    """The model, with what is said of it in its card."""
    if about == About() or not isinstance(adapter, Carded):
        return adapter
    return WithCard(adapter, about.of(adapter.card))
