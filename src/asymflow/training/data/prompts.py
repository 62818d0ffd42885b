"""Everyday prompts for measurements, in a fixed order."""

from __future__ import annotations

import hashlib

from asymflow.models.embedded.words import everyday_names, nouns


def everyday(count: int, seed: int = 0) -> list[str]:
    """`count` distinct prompts such as "a fox", in an order that depends on `seed`.

    Sets of different seeds may overlap.
    """
    names = sorted(everyday_names(), key=lambda name: _rank(name, seed))
    return [nouns(name)[0].single for name in names[:count]]


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{name}".encode()).digest()
