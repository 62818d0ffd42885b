"""Selection of pairs, prompts and seeds of the quality suite."""

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

    Pairs are ranked by a hash of their names and `seed`: the selection is independent of the order
    of `entries`, and that of a smaller `count` is a subset of that of a larger one.
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
    """The job of an entry, such as ("a fox", "noto", 1234567).

    The seed of the picture is a hash, and independent of the other pairs.
    """
    return nouns(entry.name)[0].single, entry.style, _hash("noise", entry, seed)


def _hash(purpose: str, entry: Entry, seed: int) -> int:
    """A 31-bit hash, valid as a seed in every framework."""
    text = f"{purpose}|{seed}|{entry.key}|{entry.style}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
