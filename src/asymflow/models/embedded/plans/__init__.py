"""Plans shipped with asymflow, verified on the embedded model: `draft, fast, balanced, best`.

Each was made for pictures of a side in `SIDES`. Other sizes use that of the next smaller side,
or of the smallest, with its times moved to the same visible amount of noise.
"""

from __future__ import annotations

import math
from functools import cache
from importlib import resources

from asymflow.core.errors import InputError
from asymflow.core.transforms import rescaled
from asymflow.core.types import Plan
from asymflow.io.json_reader import parse
from asymflow.planning.plan_files import plan_from_json

NAMES = ("draft", "fast", "balanced", "best")
"""From the fastest to the closest to the reference."""
DEFAULT = "balanced"
SIDES = (64, 128)
"""Sides of the pictures that plans were made for."""


def load(name: str, size: tuple[int, int]) -> Plan:
    """A plan by its name, for pictures of (height, width).

    Raises:
        InputError: there is no plan of that name.
    """
    if name not in NAMES:
        raise InputError(f"There is no plan called {name!r}. Choose one of {', '.join(NAMES)}.")
    side = math.sqrt(size[0] * size[1])
    made = max((each for each in SIDES if each <= side), default=SIDES[0])
    return rescaled(_file(name, made), side / made)


def made_for(name: str) -> str:
    """The name of the adapter that a plan was verified on."""
    evidence = measured(name).evidence
    assert evidence is not None, "shipped plans have evidence"
    return evidence.made["adapter"]


def measured(name: str) -> Plan:
    """A plan at the smallest size that it was measured at, with its evidence and binding."""
    return _file(name, SIDES[0])


@cache
def _file(name: str, side: int) -> Plan:
    path = resources.files("asymflow.models.embedded.plans").joinpath(f"{name}-{side}.json")
    return plan_from_json(parse(path.read_text("utf-8"), str(path)), str(path))
