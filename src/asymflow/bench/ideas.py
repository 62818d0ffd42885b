"""Choose the prompts that a model draws well, to offer them as ideas.

Everyday names of things are drawn by the plan that people use, from several seeds. A prompt is an
idea if the judge (EfficientNet-Lite0 features) finds a library drawing of the thing nearest to
every one of its pictures, among drawings of all candidates. The drawings serve as examples of
what things look like; a model that looks at them as references is judged by them too, which is
what people see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asymflow.bench.features import Network, extract
from asymflow.models.embedded.ideas import path, save
from asymflow.models.embedded.library import COMMON, Concept, Library
from asymflow.models.embedded.library import shipped as library
from asymflow.models.embedded.prompts import everyday
from asymflow.models.embedded.words import noun

__all__ = ["Candidate", "Idea", "candidates", "choose", "library", "path", "save"]

Draw = Callable[[str, int], NDArray[np.float32]]
"""A prompt and a seed to premultiplied RGBA [h, w, 4] in [0, 1]."""
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt that may become an idea, and what it is to show."""

    prompt: str
    concept: Concept


@dataclass(frozen=True, slots=True)
class Idea:
    """A candidate and how well it comes out.

    Attributes:
        margin: by how much the nearest drawing of the thing is nearer than that of any other: the
            difference of cosines, the least of all seeds. Positive for an idea.
    """

    candidate: Candidate
    margin: float


def candidates(known: Library, count: int) -> list[Candidate]:
    """At most `count` everyday names of common things in one word, each of another, as prompts."""
    found: dict[str, Candidate] = {}
    for prompt in everyday(_ALL):
        name = prompt.removeprefix("an ").removeprefix("a ")
        concept = known.named(name)
        if name.isalpha() and concept is not None and concept.weight == COMMON and noun(name).thing:
            found.setdefault(concept.key, Candidate(prompt, concept))
    return list(found.values())[:count]


def choose(
    wanted: Sequence[Candidate],
    draw: Draw,
    known: Library,
    network: Network,
    *,
    seeds: Sequence[int],
    size: tuple[int, int],
    step: Callable[[int], None],
) -> list[Idea]:
    """Draw and judge candidates.

    Args:
        wanted: the candidates; each is also what the others are told apart from.
        draw: makes the pictures.
        known: has drawings of the things.
        network: of the judge.
        seeds: that every prompt is drawn from.
        size: (height, width) of the pictures.
        step: called with the number of further pictures and drawings that are done.

    Returns:
        All candidates, the best one first.
    """
    drawings: list[Vectors] = []
    owners: list[int] = []
    for number, each in enumerate(wanted):
        pictures = known.examples(each.concept, size)
        drawings.append(_unit(extract(pictures, network=network)))
        owners += [number] * len(pictures)
        step(1)
    shown, owner = np.concatenate(drawings), np.array(owners)
    ideas: list[Idea] = []
    for number, each in enumerate(wanted):
        made = np.stack([draw(each.prompt, seed) for seed in seeds])
        likeness = _unit(extract(made, network=network)) @ shown.T
        own = likeness[:, owner == number].max(axis=1)
        other = likeness[:, owner != number].max(axis=1)
        ideas.append(Idea(each, float((own - other).min())))
        step(len(seeds))
    return sorted(ideas, key=lambda idea: -idea.margin)


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


_ALL = 10_000
"""More than there are everyday names."""
