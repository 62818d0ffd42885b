"""How well are things found in the library by names that it does not have?

    python -m benchmarks lookup [lookup.json]

Every everyday name of a common concept is left out in turn and looked up by the static word vectors
of the embedded model. Of those whose nearest other name has at least some cosine, the share is
given that leads to the same concept; and what some sentences lead to.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded.library import COMMON, Library, Likeness
from benchmarks import results

COSINES = (0.9, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4)
SENTENCES = (
    "a sleepy red panda in the snow", "a cat left of a dog", "two apples", "a fire truck",
    "a house on fire", "my grandmother baking a cake", "a kitty", "a physician", "a lighthouse",
    "a puppy playing with a ball", "a sun under a cloud", "a birthday cake with candles", "love",
    "justice", "an algorithm", "the eiffel tower", "a wizard", "a soldier", "a rainy day",
    "a knight", "a sailing boat on the sea", "spaceship", "a violin and a trumpet", "an old car",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, nargs="?", metavar="FILE")


def run(given: argparse.Namespace) -> dict[str, Any]:
    adapter, library = embedded.load(), Library()
    meaning = adapter.meaning
    owners: dict[str, str] = {}
    for concept in sorted(library.concepts, key=lambda concept: -concept.weight):
        for name in concept.names:
            owners.setdefault(name, concept.key)
    names = list(owners)
    vectors = meaning(names)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    place = {name: row for row, name in enumerate(names)}
    rows = [
        place[name]
        for concept in library.concepts
        for name in concept.names[1:]
        if concept.weight == COMMON and owners[name] == concept.key
    ]
    nearest = cosines[rows].argmax(axis=1)
    cosine = cosines[rows, nearest]
    keys = np.array(list(owners.values()))
    right = keys[nearest] == keys[rows]
    likeness = Likeness(library, meaning)
    found = {sentence: library.find(sentence, likeness) for sentence in SENTENCES}
    report = {
        "vectors": adapter.name,
        "names left out": len(rows),
        "at least": {
            f"{least:g}": {
                "names": int((cosine >= least).sum()),
                "right": round(float(right[cosine >= least].mean()), 3),
            }
            for least in COSINES
        },
        "sentences": {
            sentence: match and [match.layout, *(concept.names[0] for concept in match.concepts)]
            for sentence, match in found.items()
        },
    }
    print(json.dumps(report, indent=1))
    path = given.out or results.folder_of(adapter.name) / "lookup.json"
    return results.save(path, report, **results.on_adapters([adapter]))
