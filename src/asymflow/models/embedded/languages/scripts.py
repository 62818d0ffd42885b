"""Letters: which script they are of, and forms of words that are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

_SAME = {"CJK": "HAN", "HIRAGANA": "HAN", "KATAKANA": "HAN", "BOPOMOFO": "HAN"}
UNSPACED = frozenset(("HAN", "THAI", "LAO", "KHMER", "MYANMAR"))
"""Scripts that are written without spaces between words."""
_MARKS = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u0640\u064b-\u065f\u0670]"
)
"""Accents of Latin, Greek and Cyrillic letters; points of Hebrew and Arabic ones."""

_HIRAGANA = {katakana: katakana - 0x60 for katakana in range(0x30A1, 0x30F7)}


@cache
def script_of(letter: str) -> str | None:
    """The script of a letter by its name in Unicode: "LATIN", "HAN"; None for other signs."""
    if not letter.isalpha():
        return None
    first = unicodedata.name(letter, "").partition(" ")[0]
    return _SAME.get(first, first) or None


def script_in(text: str) -> str | None:
    """The script of the first letter of a text."""
    return next((found for letter in text if (found := script_of(letter)) is not None), None)


def accented(text: str) -> bool:
    """Whether folding takes accents from a text."""
    return _MARKS.search(unicodedata.normalize("NFKD", text)) is not None


def folded(text: str) -> str:
    """A text for comparison: lower case, no accents and points, hiragana, single spaces."""
    plain = _MARKS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return " ".join(unicodedata.normalize("NFC", plain).translate(_HIRAGANA).split())


def runs(text: str) -> Iterator[tuple[int, int]]:
    """Where the words of a text begin and end: letters, their marks, numbers and joiners."""
    start: int | None = None
    for at, letter in enumerate(f"{text} "):
        inside = unicodedata.category(letter)[0] in "LMN" or letter in _JOINERS
        if inside and start is None and letter not in _JOINERS:
            start = at
        elif not inside and start is not None:
            yield start, at
            start = None


_JOINERS = "'’-\u200c\u200d"
