"""Retrieval of reference drawings for the embedded model, from the words of a prompt.

A prompt names one thing ("a sleepy fox in the snow"), several with a place for each ("a cat left of
a dog", "two apples"), or nothing in the library. Names are matched first, then keywords, then
names of similar meaning. The drawings are laid out like the scenes in training.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asymflow.core.errors import FileFormatError
from asymflow.models.embedded import installed
from asymflow.models.embedded.bitmaps import Pixels, render_bitmap, resize
from asymflow.models.embedded.emoji import emoji_to_words
from asymflow.models.embedded.layout import (
    ALONE,
    MOST_KINDS,
    PLACES,
    SMALL,
    Box,
    cells_of,
    column,
    paste,
    row,
)
from asymflow.models.embedded.styles import LIBRARY, STYLES
from asymflow.models.embedded.words import noun

Layout = Literal["single", "row", "column", "several", "placed"]
Vectors = NDArray[np.float32]
Meaning = Callable[[Sequence[str]], Vectors]
"""Maps texts to vectors [n, d]; similar meanings have similar vectors."""

THRESHOLD = 0.75
"""Minimal cosine for a name to match the prompt: `python -m benchmarks lookup`."""
KEYWORD_THRESHOLD = 0.4
"""The same for concepts that have the word as a keyword; keywords are associated loosely."""

_LONGEST = 7  # words of a name
_MARGIN = 0.12  # free margin around an object of a scene, as a share of the cell's shorter side
_EDGE = 0.04  # the same around a single object, as in emoji
_WORD = re.compile(r"[\w'’-]+|,")
_ARTICLES = frozenset(("a", "an", "the"))
COUNTS = {"two": 2, "2": 2, "three": 3, "3": 3, "four": 4, "4": 4}
_COLUMN = re.compile(r"\b(above|over|on top of|at the top and)\b")
_COLUMN_BACK = re.compile(r"\b(below|under|underneath|beneath)\b")
_ROW = re.compile(r"\b(left of|next to|beside|and)\b|^,$")
_ROW_BACK = re.compile(r"\bright of\b")
# Words for style or place, and stop words.
STOP_WORDS = frozenset(
    "a an the of in on at to with and or is are my your his her our this that some one from by for "
    "as into near very style styled emoji emojis icon icons sticker stickers picture image photo "
    "drawing illustration clip art render vector glossy cute nice background backdrop transparent "
    "gradient left right top bottom middle center centre corner side above below under over next "
    "between beside big small large tiny little no like up down back new free end".split()
)
COLOURS = frozenset(
    "red orange yellow green blue purple pink brown black white grey gray teal turquoise beige "
    "lavender navy magenta cream light dark".split()
)
STYLE_WORDS = frozenset(word for style in STYLES for name in style.names for word in name.split())


@dataclass(frozen=True, slots=True)
class Match:
    """The concepts of a prompt that the library contains, and their layout.

    Attributes:
        concepts: in reading order; equal objects are repeated.
        layout: arrangement of the objects.
        place: row and column in a 3 x 3 grid, for layout "placed".
        small: whether a placed object is small.
    """

    concepts: tuple[Concept, ...]
    layout: Layout
    place: tuple[int, int] = (1, 1)
    small: bool = False


class Library:
    """The drawings of a library file, decoded when they are needed.

    Args:
        path: a file written by `asymflow.training.data.library.build`; by default the shipped one.

    Raises:
        FileFormatError: the file is missing, damaged or of another kind.
    """

    def __init__(self, path: Path | None = None) -> None:
        path = path or default_path()
        try:
            # Kept in memory, 8 MB: reading its directory takes longer than reading a drawing.
            self._data = path.read_bytes()
            self._archive = zipfile.ZipFile(io.BytesIO(self._data))
            index = json.loads(self._archive.read("concepts.json"))
            if index["format"] != FORMAT:
                raise ValueError(f"its format is {index['format']!r}, not {FORMAT!r}")
            self.concepts = tuple(
                Concept(
                    key=row["key"],
                    names=tuple(row["names"]),
                    keywords=tuple(row["keywords"]),
                    weight=row["weight"],
                    styles=tuple(row["styles"]),
                )
                for row in index["concepts"]
            )
        except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"Cannot read the library of drawings {path}: {error}. If it is damaged, "
                "install asymflow again."
            ) from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self._data).hexdigest()

    def find(self, prompt: str, likeness: Likeness | None = None) -> Match | None:
        """Find what the prompt shows; None if the library has nothing similar.

        Args:
            prompt: the text to look up.
            likeness: compares other words with names; without it, only names are matched.
        """
        words = _WORD.findall(emoji_to_words(prompt).lower().replace("’", "'"))
        groups = self._groups(words)
        if groups:
            return _laid_out(words, groups)
        content = [word for word in words if _is_content(word)]
        if likeness is None or not content:
            return None
        queries = list(dict.fromkeys((" ".join(content), *content)))
        similarity = likeness.to_names(queries)
        has_keyword = np.array([not words.isdisjoint(queries) for words in self._keywords])
        for usable, threshold in (
            (has_keyword, KEYWORD_THRESHOLD),
            (np.ones_like(has_keyword), THRESHOLD),
        ):
            at = int(np.where(usable, similarity, -1).argmax())
            if usable[at] and similarity[at] >= threshold:
                return Match((self._named[at][1],), "single")
        return None

    def named(self, phrase: str) -> Concept | None:
        """The concept that a lower-case name or its plural names, if there is one."""
        return self._by_name.get(phrase)

    def drawings(
        self, match: Match, style: str | None, size: tuple[int, int], count: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Drawings of a match in other styles than the requested one.

        Args:
            match: the concepts to draw.
            style: the requested style; its own drawings are never used.
            size: (height, width) of the references, in pixels.
            count: maximal number of references.

        Returns:
            Premultiplied RGBA uint8 [k, h, w, 4], k at most `count`, and the style of each.
        """
        styles = tuple(
            known
            for known in LIBRARY
            if known != style and any(known in concept.styles for concept in match.concepts)
        )[:count]
        canvases = [self._canvas(match, known, style, size) for known in styles]
        return np.array(canvases, np.uint8).reshape(-1, *size, 4), styles

    def examples(self, concept: Concept, size: tuple[int, int]) -> Pixels:
        """All drawings of a concept at (height, width): premultiplied RGBA uint8 [k, h, w, 4]."""
        match = Match((concept,), "single")
        return np.stack([self._canvas(match, style, None, size) for style in concept.styles])

    def _canvas(self, match: Match, style: str, avoid: str | None, size: tuple[int, int]) -> Pixels:
        """All objects of a match in a style, or in another one where the style lacks an object."""
        canvas = np.zeros((*size, 4), np.uint8)
        for concept, cell in zip(match.concepts, _boxes(match, size), strict=True):
            usable = [known for known in concept.styles if known != avoid]
            if not usable:
                continue
            drawing = self._drawing(concept.key, style if style in usable else usable[0])
            if match.layout == "single":
                fitted = resize(drawing, cell.height, cell.width)
                paste(canvas, fitted, cell.top, cell.left)
            else:
                _fit(canvas, drawing, cell, _MARGIN)
        return canvas

    def _drawing(self, key: str, style: str) -> Pixels:
        return render_bitmap(self._archive.read(member(style, key)), SIDE)

    def _groups(self, words: Sequence[str]) -> list[tuple[int, int, Concept]]:
        """The named concepts as (begin, end, concept); of adjacent names, the last.

        In English the head noun comes last: a "fire truck" is a truck.
        """
        found: list[tuple[int, int, Concept]] = []
        at = 0
        while at < len(words):
            for length in range(min(_LONGEST, len(words) - at), 0, -1):
                phrase = " ".join(words[at : at + length])
                if phrase in self._by_name and (length > 1 or _is_content(phrase)):
                    begin = found.pop()[0] if found and found[-1][1] == at else at
                    at += length
                    found.append((begin, at, self._by_name[phrase]))
                    break
            else:
                at += 1
        return found

    @cached_property
    def _named(self) -> list[tuple[str, Concept]]:
        """Every name with its most probable concept: common ones first, then exact names."""
        rows = [
            (concept.weight, -place, name, concept)
            for concept in self.concepts
            for place, name in enumerate(concept.names)
        ]
        rows.sort(key=lambda row: row[:2], reverse=True)
        table: dict[str, Concept] = {}
        for _, _, name, concept in rows:
            table.setdefault(name, concept)
        return list(table.items())

    @cached_property
    def _keywords(self) -> list[frozenset[str]]:
        """The keywords of every name; none for rare concepts."""
        return [
            frozenset(word.lower() for word in concept.keywords if concept.weight == COMMON)
            for _, concept in self._named
        ]

    @cached_property
    def _by_name(self) -> dict[str, Concept]:
        table = dict(self._named)
        for name, concept in self._named:
            plural = noun(name).plural
            if plural is not None:
                table.setdefault(plural, concept)
        return table

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The n names that words are compared with, see `Likeness`."""
        return tuple(name for name, _ in self._named)


class Likeness:
    """How like texts are to the names of a library, by the word vectors of one model.

    Models share a library, and each has vectors of its own.

    Args:
        library: has the names.
        meaning: vectors [n, d] of n texts.
    """

    def __init__(self, library: Library, meaning: Meaning) -> None:
        self._library = library
        self._meaning = meaning

    def to_names(self, texts: Sequence[str]) -> Vectors:
        """The cosine of each of the library's names and the text that is nearest to it [n]."""
        return (unit(self._meaning(texts)) @ self._names.T).max(axis=0)

    @cached_property
    def _names(self) -> Vectors:
        # Only when words are compared: most prompts are found by name.
        return unit(self._meaning(self._library.names))


def style_in(prompt: str) -> str | None:
    """The id of the style that the words of a prompt name ("a fox, noto style"), if any."""
    words = f" {' '.join(_WORD.findall(prompt.lower()))} "
    named = [
        (len(name), style.id) for style in STYLES for name in style.names if f" {name} " in words
    ]
    return max(named)[1] if named else None


@cache
def shipped() -> Library:
    """The library that comes with the model."""
    return Library()


def default_path() -> Path:
    """The library file that comes with the model.

    Raises:
        InputError: it is not installed.
    """
    return installed.path_of(installed.LIBRARY)


def _laid_out(words: Sequence[str], groups: Sequence[tuple[int, int, Concept]]) -> Match:
    """The layout of the objects, from the words between and around them."""
    begin, end, first = groups[0]
    number = COUNTS.get(words[begin - 1]) if begin else None
    if number is not None:
        return Match((first,) * number, "several")
    things = [first]
    layout: Layout = "single"
    for (_, stop, _), (start, _, concept) in pairwise(groups):
        between = " ".join(word for word in words[stop:start] if word not in _ARTICLES)
        if "between" in between and len(groups) >= 3:
            things = [groups[1][2], first, groups[2][2]]
            layout = "row"
            break
        back = bool(_ROW_BACK.search(between) or _COLUMN_BACK.search(between))
        vertical = bool(_COLUMN.search(between) or _COLUMN_BACK.search(between))
        if not (vertical or back or _ROW.search(between)):
            break
        if layout == "single":
            layout = "column" if vertical else "row"
        things.insert(0, concept) if back else things.append(concept)
        if len(things) == MOST_KINDS:
            break
    if layout != "single":
        return Match(tuple(things), layout)
    rest = " ".join(words[end:])
    for down, line in enumerate(PLACES):
        for across, phrases in enumerate(line):
            if rest in phrases:
                small = bool({"small", "tiny", "little"} & set(words[:begin]))
                return Match((first,), "placed", (down, across), small)
    return Match((first,), "single")


def _boxes(match: Match, size: tuple[int, int]) -> list[Box]:
    height, width = size
    count = len(match.concepts)
    if match.layout == "row":
        return row(count, height, width)
    if match.layout == "column":
        return column(count, height, width)
    if match.layout == "several":
        return cells_of(count, height, width)
    side = min(size)
    if match.layout == "single":
        return [Box((height - side) // 2, (width - side) // 2, side, side)]
    side = round(side * (SMALL if match.small else ALONE))
    down, across = match.place
    top, left = round((height - side) * down / 2), round((width - side) * across / 2)
    return [Box(top, left, side, side)]


def alone(drawing: Pixels, size: tuple[int, int]) -> Pixels:
    """The visible part of a drawing, centred on a canvas of (height, width) at the size of emoji.

    Premultiplied RGBA uint8, [h, w, 4] in and [height, width, 4] out.
    """
    canvas = np.zeros((*size, 4), np.uint8)
    _fit(canvas, drawing, Box(0, 0, *size), _EDGE)
    return canvas


def _fit(canvas: Pixels, drawing: Pixels, cell: Box, margin: float) -> None:
    """Centre the ink of a drawing in a cell, as large as the margin permits."""
    ink = np.argwhere(drawing[..., 3] > 8)
    if not len(ink):
        return
    (top, left), (bottom, right) = ink.min(axis=0), ink.max(axis=0) + 1
    cut = drawing[top:bottom, left:right]
    scale = (1 - margin) * min(cell.height, cell.width) / max(cut.shape[:2])
    height, width = (max(1, round(scale * side)) for side in cut.shape[:2])
    fitted = resize(np.ascontiguousarray(cut), height, width)
    paste(
        canvas,
        fitted,
        cell.top + (cell.height - height) // 2,
        cell.left + (cell.width - width) // 2,
    )


def _is_content(word: str) -> bool:
    return (
        word not in STOP_WORDS and word not in STYLE_WORDS and word not in COLOURS and word != ","
    )


def unit(vectors: Vectors) -> Vectors:
    """Vectors [n, d] of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)


SIDE = 64
FORMAT = "asymflow library 1"


@dataclass(frozen=True, slots=True)
class Concept:
    """An entry of the library.

    Attributes:
        key: its code points, as in `asymflow.training.data.manifest.Entry`.
        names: the CLDR short name first.
        keywords: associated words.
        weight: how common it is, see `asymflow.training.data.weights`.
        styles: in which there is a drawing of it.
    """

    key: str
    names: tuple[str, ...]
    keywords: tuple[str, ...]
    weight: float
    styles: tuple[str, ...]


def member(style: str, key: str) -> str:
    """The name of a drawing in the file."""
    return f"{style}/{key}.webp"


COMMON = 1.0  # animals, food, objects, faces, nature, vehicles
