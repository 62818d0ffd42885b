"""Held-out (concept, style) pairs, which are excluded from training.

The rule is a deterministic function of names: a pair is a candidate if the SHA-256 of
`"<key>|<style>"` is in the lowest 5% of its range; within a concept, candidates are held out in
order of their hash while at least three other styles of the concept stay in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

Pair = tuple[str, str]

FRACTION = 0.05
MIN_STYLES_LEFT = 3
RULE = (
    f"sha256('<key>|<style>') in the lowest {FRACTION:.0%}, lowest first, "
    f"while {MIN_STYLES_LEFT} styles of the concept stay in training; "
    "only concepts of weight 1"
)


def position(key: str, style: str) -> float:
    """The hash of a pair, as a number in [0, 1)."""
    digest = hashlib.sha256(f"{key}|{style}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def held_out(pairs: Iterable[Pair]) -> frozenset[Pair]:
    """The held-out subset of `(key, style)` pairs, independent of order and repetitions."""
    styles: dict[str, set[str]] = {}
    for key, style in pairs:
        styles.setdefault(key, set()).add(style)
    chosen: set[Pair] = set()
    for key, present in styles.items():
        ranked = sorted((position(key, style), style) for style in present)
        spare = len(present) - MIN_STYLES_LEFT
        candidates = [style for place, style in ranked if place < FRACTION]
        chosen.update((key, style) for style in candidates[: max(spare, 0)])
    return frozenset(chosen)
