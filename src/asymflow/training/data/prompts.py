"""Everyday prompts to measure with, in an order that never changes."""

from __future__ import annotations

import hashlib

from asymflow.models.embedded.words import everyday_names, nouns


def everyday(count: int, seed: int = 0) -> list[str]:
    """`count` different prompts such as "a fox"; the same seed gives the same ones, in order.

    Sets of different seeds may share prompts, and share few where they are small.
    """
    names = sorted(everyday_names(), key=lambda name: _rank(name, seed))
    return [nouns(name)[0].single for name in names[:count]]


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{name}".encode()).digest()
