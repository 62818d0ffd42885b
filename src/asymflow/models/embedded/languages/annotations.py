"""The table of words of other languages, from the annotations of Unicode CLDR.

It is a zip file, compressed by LZMA, which `scripts/annotations.py` writes::

    locales       codes of the locales, a line each: "de", "zh-Hant"
    rows          keys of concepts of the library, a line each; the colours follow
    LATIN ...     the words of a script, in the order of their UTF-8 bytes

A line of a script is a folded word, a tab, and groups of what it names: a sign for the rank and
whether the word has accents there, two letters for the row (base 64), and a sign for each locale,
whose place is its code point less 0xA1. A script is kept as these bytes, and searched by halving: a
dictionary would take ten times the memory, and a second to make.
"""

from __future__ import annotations

import enum
import io
import string
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from asymflow.core.errors import FileFormatError
from asymflow.io.files import replacing
from asymflow.models.embedded import installed

COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "pink", "grey",
)  # fmt: skip
_DIGITS = string.ascii_letters + string.digits + "-_"
_FIRST = 0xA1
"""Code point of the first locale: above those of ranks and rows."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # fixed, for reproducible files
_FEW = 40
"""Words with one beginning that are looked at."""


class Rank(enum.IntEnum):
    """How a word names a concept: as its name, as a part of a short one, or as a keyword."""

    NAME = 0
    PART = 1
    KEYWORD = 2


_RANKS = "!+~:;?"
"""Signs of the ranks, of words without and of words with accents."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a word means in one locale.

    Attributes:
        locale: number of the locale.
        row: of the concept, or of a colour after them.
        rank: how it names that.
        accented: whether the word has accents, which were folded away.
    """

    locale: int
    row: int
    rank: Rank
    accented: bool


class Words:
    """The words of one script."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def find(self, word: str) -> tuple[Meaning, ...]:
        """What a folded word means."""
        key = word.encode()
        start = self._place(key + b"\t")
        line = self._line(start)
        return _meanings(line) if line.startswith(key + b"\t") else ()

    def beginning(self, prefix: str) -> Iterator[str]:
        """The first words that begin with a prefix."""
        key = prefix.encode()
        start = self._place(key)
        for _ in range(_FEW):
            line = self._line(start)
            if not line.startswith(key):
                return
            yield line.partition(b"\t")[0].decode()
            start += len(line) + 1

    def _place(self, key: bytes) -> int:
        """Where the first line begins that is not less than a key."""
        data, low, high = self._data, 0, len(self._data)
        while low < high:
            start = data.rfind(b"\n", 0, (low + high) // 2) + 1
            if start < low:
                start = low
            line = self._line(start)
            if line < key:
                low = start + len(line) + 1
            else:
                high = start
        return min(low, len(data))

    def _line(self, start: int) -> bytes:
        end = self._data.find(b"\n", start)
        return self._data[start : len(self._data) if end < 0 else end]


class Annotations:
    """The table, whose scripts are read when they are needed.

    Raises:
        FileFormatError: the file is missing or damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.locales = tuple(self._member("locales").decode().split("\n"))
        self.rows = tuple(self._member("rows").decode().split("\n"))
        self._scripts: dict[str, Words] = {}

    def script(self, name: str) -> Words:
        """The words of a script; none for one that the table lacks."""
        found = self._scripts.get(name)
        if found is None:
            found = self._scripts[name] = Words(self._member(name))
        return found

    def _member(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(self._file) as archive:
                return archive.read(name) if name in archive.namelist() else b""
        except (OSError, zipfile.BadZipFile) as error:
            raise FileFormatError(
                f"Cannot read the words of other languages, {self._file}: {error}. Install "
                "asymflow again."
            ) from error


def path() -> Path:
    """The table that comes with the model.

    Raises:
        InputError: it is not installed.
    """
    return installed.path_of(installed.ANNOTATIONS)


@cache
def shipped() -> Annotations:
    """The table that comes with the model."""
    return Annotations(path())


def write(
    file: Path,
    locales: Sequence[str],
    rows: Sequence[str],
    scripts: Mapping[str, Mapping[str, Mapping[tuple[int, int], tuple[Rank, bool]]]],
) -> None:
    """Write a table.

    Args:
        file: to write.
        locales: codes of the locales.
        rows: keys of concepts.
        scripts: the folded words by script, with the (row, locale) that they name: by which rank,
            and whether with accents.
    """
    members = {"locales": "\n".join(locales), "rows": "\n".join(rows)}
    for script, words in sorted(scripts.items()):
        lines = [f"{word}\t{_packed(meanings)}" for word, meanings in words.items()]
        members[script] = "\n".join(sorted(lines, key=str.encode))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text, zipfile.ZIP_LZMA)
    with replacing(file) as target:
        target.write(data.getvalue())


def _packed(meanings: Mapping[tuple[int, int], tuple[Rank, bool]]) -> str:
    groups: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for (row, locale), (rank, accented) in meanings.items():
        groups[rank + len(Rank) * accented, row].append(locale)
    return "".join(
        f"{_RANKS[sign]}{_DIGITS[row // 64]}{_DIGITS[row % 64]}"
        + "".join(chr(_FIRST + locale) for locale in sorted(named))
        for (sign, row), named in sorted(groups.items())
    )


def _meanings(line: bytes) -> tuple[Meaning, ...]:
    text = line.partition(b"\t")[2].decode()
    found: list[Meaning] = []
    at = 0
    while at < len(text):
        accented, rank = divmod(_RANKS.index(text[at]), len(Rank))
        row = 64 * _DIGITS.index(text[at + 1]) + _DIGITS.index(text[at + 2])
        at += 3
        while at < len(text) and ord(text[at]) >= _FIRST:
            found.append(Meaning(ord(text[at]) - _FIRST, row, Rank(rank), bool(accented)))
            at += 1
    return tuple(found)
