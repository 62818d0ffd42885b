"""Which pictures the quality suite asks for: fixed pairs, prompts and seeds."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest

from asymflow.models.embedded.words import nouns
from asymflow.training.data.manifest import Entry

Job = tuple[str, str, int]
"""(prompt, style, seed) of one picture."""


def pick(entries: Iterable[Entry], count: int, seed: int) -> list[Entry]:
    """At most `count` entries, one per (concept, style), spread evenly over the styles.

    The choice ranks pairs by a hash of their names and `seed`. So it does not depend on the
    order of `entries`, and a smaller `count` gives a part of what a larger one gives.
    """
    first: dict[tuple[str, str], Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.index):
        first.setdefault((entry.key, entry.style), entry)
    by_style: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(first.values(), key=lambda entry: _hash("pick", entry, seed)):
        by_style[entry.style].append(entry)
    rounds = zip_longest(*(by_style[style] for style in sorted(by_style)))
    spread = [entry for turn in rounds for entry in turn if entry is not None]
    return spread[:count]


def job(entry: Entry, seed: int) -> Job:
    """What to ask of a generator for `entry`: ("a fox", "noto", 1234567).

    The picture's own seed is a hash too: it stays the same whichever pairs are asked for.
    """
    return nouns(entry.name)[0].single, entry.style, _hash("noise", entry, seed)


def _hash(purpose: str, entry: Entry, seed: int) -> int:
    """31 bits, which every framework takes for a seed."""
    text = f"{purpose}|{seed}|{entry.key}|{entry.style}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
