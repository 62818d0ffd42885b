"""The card of a model: what it is asked with, what it can make, and the plans that it brings.

Commands, server and studio behave by the card, and know no family of models. Plain data, without
torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from asymflow.core.errors import InputError
from asymflow.core.types import Plan

Asks = Literal["prompt", "class", "nothing"]
"""What a picture is asked for with; the inputs of a request are then "prompt", "label" or none."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of pictures, in pixels.

    Attributes:
        native: (height, width) that the model was trained for, mostly.
        smallest, largest: sides that are possible.
        multiple: number that sides are multiples of.
        trained: smallest and largest side of training; beyond them quality is not known.
        fixed: only the native size is possible.
    """

    native: tuple[int, int]
    smallest: int
    largest: int
    multiple: int = 1
    trained: tuple[int, int] | None = None
    fixed: bool = False

    @classmethod
    def only(cls, height: int, width: int) -> Sizes:
        """One size and no other."""
        return cls((height, width), min(height, width), max(height, width), fixed=True)

    def possible(self, size: tuple[int, int]) -> bool:
        """Whether (height, width) is possible."""
        if self.fixed:
            return size == self.native
        return all(
            self.smallest <= side <= self.largest and side % self.multiple == 0 for side in size
        )

    def as_trained(self, size: tuple[int, int]) -> bool:
        """Whether pictures of (height, width) are like those of training."""
        low, high = self.trained or (min(self.native), max(self.native))
        return all(low <= side <= high for side in size)

    def nearest(self, size: tuple[int, int]) -> tuple[int, int]:
        """The possible size nearest to the shape of (height, width), within the trained sides."""
        if self.fixed:
            return self.native
        low, high = self.trained or (min(self.native), max(self.native))
        grain = self.multiple
        sides = range(math.ceil(low / grain) * grain, high + 1, grain)
        if len(sides) > _MANY:
            sides = range(sides[0], sides[-1] + 1, grain * math.ceil(len(sides) / _MANY))
        height, width = size

        def distance(other: tuple[int, int]) -> float:
            aspect = math.log(other[0] * width / (other[1] * height))
            return 4 * abs(aspect) + abs(math.log(other[0] * other[1] / (height * width)))

        pairs = ((h, w) for h in sides for w in sides)
        return min(pairs, key=distance, default=self.native)

    def offered(self) -> tuple[tuple[int, int], ...]:
        """Some possible sizes (height, width) to choose from: the native one first."""
        if self.fixed:
            return (self.native,)
        height, width = self.native
        low, high = self.trained or (min(self.native), max(self.native))
        shapes = [(1, 1), (1, 1.5), (1.5, 1), (1, 2), (2, 1), (2, 2)]
        grown = [(self._rounded(height * a), self._rounded(width * b)) for a, b in shapes]
        if high <= max(self.native):  # of as many pixels instead, where nothing larger was trained
            grown = [self.native] + [
                (self._rounded(height * math.sqrt(a / b)), self._rounded(width * math.sqrt(b / a)))
                for a, b in shapes[1:5]
            ]
            low, high = self.smallest, self.largest
        found = (s for s in grown if self.possible(s) and all(low <= side <= high for side in s))
        return tuple(dict.fromkeys((self.native, *found)))

    def _rounded(self, side: float) -> int:
        return max(self.multiple, round(side / self.multiple) * self.multiple)


_MANY = 64


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a model may be shown tiles of pictures, each as a picture of its own.

    Attributes:
        side: of a tile in pixels: a size that the model was trained for.
        until: largest t at which it is shown tiles; above it, they would disagree.
    """

    side: int
    until: float


@dataclass(frozen=True, slots=True)
class Style:
    """A style to choose.

    Attributes:
        id: in requests.
        name: for people.
        suffix: of the prompt, for a model that knows styles by words only.
        notice: attribution of what the style was learnt from.
        names: further names that people call it by.
    """

    id: str
    name: str
    suffix: str = ""
    notice: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """What a model is asked with, and what it can make.

    Attributes:
        title: name for people.
        asks: what a picture is asked for with.
        sizes: of pictures.
        subject: what it draws, for people: "small drawings like emoji".
        flat: whether pictures are drawings of few flat colours, which can be traced to SVG.
        ideas: prompts, or names of classes, that come out well.
        idea_names: what ideas are called in other languages, as prompts: by language ("de"), then
            by idea. An idea without a name is asked for as it is.
        channels: of pictures; 2 and 4 have transparency as the last one.
        classes: names by number, for a model that asks for a class; numbers where unnamed.
        styles: that the model knows by itself.
        negative: whether it takes a negative prompt.
        image, inpaint: whether pictures can begin with another one, and be repainted in part.
        references: whether it looks at reference drawings.
        guidance: scale (CFG) by default; 1 for no guidance.
        guided: whether there is guidance.
        guidance_interval: (low, high) in t in which guidance is worth its pass, by default.
        calibration: inputs of requests that the model is measured with.
        tiers: names of cheaper estimates that are possible: "conditional", "half", ..., as
            in `core.types`
        tiles: by which large pictures may be estimated in bounded memory, if at all.
        steps: of the model's own sampler by default.
        licence, source: of the weights.
        notes: lines that a user has to know, such as why a plan gains little.
    """

    title: str
    asks: Asks
    sizes: Sizes
    subject: str = ""
    flat: bool = False
    ideas: tuple[str, ...] = ()
    idea_names: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict[str, Mapping[str, str]]
    )
    channels: int = 3
    classes: tuple[str, ...] = ()
    styles: tuple[Style, ...] = ()
    negative: bool = False
    image: bool = True
    inpaint: bool = True
    references: bool = False
    guidance: float = 1.0
    guided: bool = False
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    calibration: tuple[Mapping[str, Any], ...] = field(default=({},))
    tiers: tuple[str, ...] = ()
    tiles: Tiles | None = None
    steps: int = 50
    licence: str | None = None
    source: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def alpha(self) -> bool:
        """Whether pictures have transparency."""
        return self.channels in (2, 4)

    @property
    def draws(self) -> str:
        """What the model draws, in one sentence."""
        if self.asks == "class":
            usual = f"pictures of {len(self.classes)} classes, one at a time"
        else:
            usual = "what a prompt says" if self.asks == "prompt" else "pictures of one kind"
        return f"It draws {self.subject or usual}."

    def label_of(self, name: str) -> int:
        """The number of a class given by its name or its number.

        Raises:
            InputError: the model has no such class, or none at all.
        """
        if self.asks != "class":
            instead = 'a prompt: asymflow generate "a fox"' if self.asks == "prompt" else "nothing"
            raise InputError(f"{self.title} knows no classes. It is asked with {instead}.")
        plain = name.strip().lower()
        if plain.isdecimal() and int(plain) < len(self.classes):
            return int(plain)
        names = [each.lower() for each in self.classes]
        if plain in names:
            return names.index(plain)
        # ImageNet's classes have several names, separated by commas.
        for number, several in enumerate(names):
            if plain in [each.strip() for each in several.split(",")]:
                return number
        raise InputError(f"{name!r} is not a class of {self.title}. {_near(plain, names)}")

    def words(self, inputs: Mapping[str, Any]) -> str:
        """What a request with these inputs asks for, for people; empty for a model of no inputs."""
        if self.asks == "prompt":
            return str(inputs.get("prompt", ""))
        label = inputs.get("label")
        if not isinstance(label, int) or not 0 <= label < len(self.classes):
            return ""
        return self.classes[label].split(",")[0]

    def style(self, name: str) -> Style | None:
        """A style by any of its names."""
        plain = name.strip().lower()
        return next(
            (each for each in self.styles if plain in (each.id, each.name, *each.names)), None
        )


def _near(name: str, names: list[str]) -> str:
    from difflib import get_close_matches

    if all(each.isdecimal() for each in names):
        return f"Choose a number from 0 to {len(names) - 1}."
    close = get_close_matches(name, names, 3, 0.6)
    few = ", ".join(names) if len(names) <= 20 else f"{', '.join(names[:5])}, ..."
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}Choose one of the {len(names)} classes: {few}; a number from 0 will do as well."


@runtime_checkable
class Carded(Protocol):
    """An adapter with a card and plans that need no measuring; all of `asymflow.load` are."""

    @property
    def card(self) -> Card:
        """What the model is asked with, and what it can make."""
        ...

    def default_plan(self, size: tuple[int, int]) -> Plan:
        """A plan of the family for pictures of (height, width); its error is not known."""
        ...

    def own_plan(self, size: tuple[int, int]) -> Plan:
        """The model's own sampler as a plan, or the nearest to it, for (height, width)."""
        ...


@runtime_checkable
class ShipsPlans(Protocol):
    """An adapter that brings measured plans."""

    def shipped_plan(self, name: str, size: tuple[int, int]) -> Plan | None:
        """The plan of that name for (height, width), if the model brings one."""
        ...
