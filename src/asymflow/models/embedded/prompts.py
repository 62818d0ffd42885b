"""Everyday prompts for measurements, in a fixed order."""

from __future__ import annotations

import hashlib
from functools import cache

from asymflow.models.embedded.words import everyday_names, nouns


def everyday(count: int, seed: int = 0) -> list[str]:
    """`count` distinct prompts such as "a fox", in an order that depends on `seed`.

    Sets of different seeds may overlap.
    """
    names = sorted(everyday_names(), key=lambda name: _rank(name, seed))
    return [nouns(name)[0].single for name in names[:count]]


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{name}".encode()).digest()


TOGETHER, PURPOSES = 32, 6
"""Prompts of one purpose, such as profiling, and purposes, see `planning.calibration`."""


@cache
def calibration() -> tuple[str, ...]:
    """Distinct prompts to measure with: first those of the purposes in turn, then the others."""
    found: list[str] = []
    for purpose in range(PURPOSES + 1):
        ranked = everyday(len(everyday_names()), purpose)
        new = [prompt for prompt in ranked if prompt not in found]
        found += new[:TOGETHER] if purpose < PURPOSES else new
    return tuple(found)
