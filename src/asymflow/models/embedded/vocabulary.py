"""The words that the embedded model was trained on, and what is nearest to others.

Captions were made of the names of concepts, colours, names of styles, and words around them
(`asymflow.training.data.captions`). The library has all of these names, and keywords, which are
associations and no names.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from asymflow.core.words import Word
from asymflow.models.embedded.library import (
    COLOURS,
    COMMON,
    COUNTS,
    STOP_WORDS,
    STYLE_WORDS,
    Concept,
    Library,
    Meaning,
    Vectors,
    unit,
)

NEAR = 3
"""Names to offer for an unknown word."""
_LEAST = 0.38
"""Minimal likeness of a name that is offered: a cosine, raised by keywords and spelling."""
_KEYWORD, _SPELLING = 0.3, 0.9
_SPELLED = 0.45
"""Minimal share of common trigrams for a word to count as misspelt."""
_LONGEST = 7
_TOKEN = re.compile(r"[\w'’-]+")


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a prompt, lower case, and its characters."""

    text: str
    start: int
    end: int


def tokens(prompt: str) -> list[Token]:
    """The words of a prompt."""
    return [
        Token(found.group().lower().replace("’", "'"), found.start(), found.end())
        for found in _TOKEN.finditer(prompt)
    ]


class Vocabulary:
    """The vocabulary of a model that was trained on the concepts of a library.

    Args:
        library: has the names.
        meaning: compares words with names.
    """

    def __init__(self, library: Library, meaning: Meaning) -> None:
        self.library = library
        self._meaning = meaning

    def read(self, prompt: str, words: Sequence[Token]) -> tuple[Word, ...]:
        """Words of a prompt in English: known names as long as possible, and single others."""
        found: list[Word] = []
        at = 0
        while at < len(words):
            count, concept = self.named([word.text for word in words[at : at + _LONGEST]])
            part = words[at : at + count]
            start, end = part[0].start, part[-1].end
            text = prompt[start:end]
            if concept is not None:
                found.append(Word(text, start, end, "thing", phrase(part)))
            elif part[0].text in COLOURS:
                found.append(Word(text, start, end, "colour", part[0].text))
            elif is_other(part[0].text):
                found.append(Word(text, start, end, "other", part[0].text))
            else:
                found.append(Word(text, start, end, "unknown", part[0].text))
            at += count
        return tuple(found)

    def with_near(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """Words with the names that are near to those that are unknown."""
        return tuple(
            replace(word, near=self.near(word.drawn)) if word.kind == "unknown" else word
            for word in words
        )

    def named(self, words: Sequence[str]) -> tuple[int, Concept | None]:
        """How many of the first words are the name of a concept, and of which; (1, None) if none.

        A word like "up" or "style" is no name by itself, though there are such emoji.
        """
        for count in range(len(words), 0, -1):
            concept = self.library.named(" ".join(words[:count]))
            if concept is not None and (count > 1 or not _around(words[0])):
                return count, concept
        return 1, None

    def associated(self, word: str) -> bool:
        """Whether a word is a keyword of something in the library."""
        return word in self._by_keyword

    def near(self, word: str) -> tuple[str, ...]:
        """The names of common things that are most similar to a word, best first."""
        names = self._names
        score = self._vectors @ unit(self._meaning([word]))[0]
        score[self._by_keyword.get(word, [])] += _KEYWORD
        for row, share in self._spelling(word).items():
            score[row] = max(score[row], _SPELLING * share)
        best: dict[str, str] = {}  # one name of each concept
        for row in np.argsort(-score, kind="stable").tolist():
            if score[row] < _LEAST or len(best) == NEAR:
                break
            concept, name = names[row]
            if name not in best.values():  # several concepts can have the same
                best.setdefault(concept.key, name)
        return tuple(best.values())

    @cached_property
    def _names(self) -> list[tuple[Concept, str]]:
        """The names of common concepts: a row for each."""
        common = (concept for concept in self.library.concepts if concept.weight == COMMON)
        return [(concept, name) for concept in common for name in concept.names]

    @cached_property
    def _vectors(self) -> Vectors:
        """The vectors of the rows of names [n, d]."""
        return unit(self._meaning([name for _, name in self._names]))

    @cached_property
    def _by_keyword(self) -> dict[str, list[int]]:
        """Rows of names by the keywords of their concepts."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for row, (concept, _) in enumerate(self._names):
            for keyword in {word.lower() for word in concept.keywords}:
                found[keyword].append(row)
        return dict(found)

    def _spelling(self, word: str) -> dict[int, float]:
        """Rows of names by the share of trigrams (Dice) that they have in common with a word."""
        grams, sizes = self._grams
        own = _trigrams(word)
        common = Counter(row for gram in own for row in grams.get(gram, ()))
        shares = {row: 2 * n / (len(own) + sizes[row]) for row, n in common.items()}
        return {row: share for row, share in shares.items() if share >= _SPELLED}

    @cached_property
    def _grams(self) -> tuple[dict[str, list[int]], list[int]]:
        """Rows of names by their trigrams, and the number of trigrams of every row."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        sizes: list[int] = []
        for row, (_, name) in enumerate(self._names):
            own = _trigrams(name)
            sizes.append(len(own))
            for gram in own:
                found[gram].append(row)
        return dict(found), sizes


def phrase(words: Sequence[Token]) -> str:
    """Words as a phrase."""
    return " ".join(word.text for word in words)


def is_other(word: str) -> bool:
    """Whether a word was in captions around names: an article, a count, a style."""
    return word in COUNTS or _around(word)


def _around(word: str) -> bool:
    return word in STOP_WORDS or word in STYLE_WORDS or word in COLOURS


def _trigrams(word: str) -> frozenset[str]:
    padded = f"  {word} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))
