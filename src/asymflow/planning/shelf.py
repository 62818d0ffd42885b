"""The plans of a model, by name: those it brings, those beside it, those in the user's cache.

A file is FAMILY-HASH/NAME-WIDTHxHEIGHT.json in the cache, and the same without the first folder in
the folder `asymflow` of the model. Names are promises, see `planning.promises`.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asymflow.core.binding import ModelDescription
from asymflow.core.errors import FileFormatError
from asymflow.core.transforms import rescaled
from asymflow.core.types import Plan
from asymflow.io import folders
from asymflow.planning import binding
from asymflow.planning.plan_files import load_plan, save_plan

NAMES = ("draft", "fast", "balanced", "best")
"""From the fastest to the nearest to the limit."""
USUAL = "balanced"
"""Of them, the one for those who do not choose."""
DEFAULT = "default"
"""The plan of a family, which needs no measuring."""
FOLDER = "asymflow"
"""Beside the model, on disk as in repositories."""

_FILE = re.compile(r"(?P<name>[a-z]+)-(?P<width>\d+)x(?P<height>\d+)")
_log = logging.getLogger("asymflow")


@dataclass(frozen=True, slots=True)
class Kept:
    """A plan file of the model, for pictures of (height, width)."""

    name: str
    size: tuple[int, int]
    path: Path


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where the plans of a model are.

    Attributes:
        model: that they have to be bound to.
        beside: folder of the model, if it has one.
    """

    model: ModelDescription
    beside: Path | None = None

    @property
    def own(self) -> Path:
        """The folder in the user's cache."""
        return folders.cache() / "plans" / f"{self.model.family}-{self.model.weights[:12]}"

    def sizes(self, name: str) -> tuple[tuple[int, int], ...]:
        """The sizes (height, width) that there is a plan of that name for."""
        return tuple(dict.fromkeys(each.size for each in self._files() if each.name == name))

    def find(self, name: str, size: tuple[int, int]) -> Plan | None:
        """The plan of that name for (height, width), or the one for the nearest size.

        A plan for another size has no evidence here. Where the model's times depend on the size
        they are moved to the same visible amount of noise.
        """
        fitting = [each for each in self._files() if each.name == name]

        def far(kept: Kept) -> float:
            return abs(math.log(kept.size[0] * kept.size[1] / (size[0] * size[1])))

        for kept in sorted(fitting, key=far):
            plan = self._read(kept.path)
            if plan is None:
                continue
            return plan if kept.size == size else self._resized(plan, kept.size, size)
        return None

    def keep(self, plan: Plan, size: tuple[int, int]) -> Path:
        """Write a plan for pictures of (height, width) in the cache.

        Raises:
            OSError: the folder cannot be written to.
        """
        path = self.own / f"{plan.name}-{size[1]}x{size[0]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_plan(plan, path)
        return path

    def forget(self, name: str, size: tuple[int, int]) -> None:
        """Remove a plan of the cache that is no longer kept."""
        (self.own / f"{name}-{size[1]}x{size[0]}.json").unlink(missing_ok=True)

    def _files(self) -> Iterator[Kept]:
        """All plan files; those of the cache first, which were measured here."""
        places = [self.own] if self.beside is None else [self.own, self.beside / FOLDER]
        for place in places:
            for path in sorted(place.glob("*.json")):
                found = _FILE.fullmatch(path.stem)
                if found is not None and found["name"] in NAMES:
                    size = int(found["height"]), int(found["width"])
                    yield Kept(found["name"], size, path)

    def _read(self, path: Path) -> Plan | None:
        """The plan of a file that is for this model; None for another one's."""
        try:
            plan = load_plan(path)
        except FileFormatError as error:
            _log.warning("A plan is left out: %s", error)
            return None
        return plan if binding.match(plan, self.model).level != "other" else None

    def _resized(self, plan: Plan, made: tuple[int, int], size: tuple[int, int]) -> Plan:
        bare = Plan(plan.name, plan.steps, binding=plan.binding)
        if self.model.shift_rule is None:
            return bare
        return rescaled(bare, math.sqrt(size[0] * size[1] / (made[0] * made[1])))
