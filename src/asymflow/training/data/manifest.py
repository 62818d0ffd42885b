"""The manifest of a dataset: one line of JSON per picture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from asymflow.core.errors import FileFormatError
from asymflow.io.files import write_text

Split = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture: its concept, style and licence.

    Attributes:
        index: row in the image arrays.
        key: code points in lower-case hex, joined by `-`, without FE0F; the slug if there is no
            code point.
        weight: relative sampling rate, 1 for common concepts.
    """

    index: int
    key: str
    slug: str
    style: str
    name: str
    keywords: tuple[str, ...]
    group: str
    subgroup: str
    weight: float
    split: Split
    flip_ok: bool
    licence: str
    package: str
    version: str


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Write entries as JSON lines, atomically."""
    lines = (json.dumps(asdict(entry), ensure_ascii=False) for entry in entries)
    write_text(path, "".join(line + "\n" for line in lines))


def read_manifest(path: Path) -> tuple[Entry, ...]:
    """Read entries in index order.

    Raises:
        FileFormatError: the file is missing, is not JSON lines, or indices are not consecutive.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileFormatError(
            f"{path} does not exist: no dataset was built here. "
            "Run `asymflow data build --out DIR` first."
        ) from None
    entries = tuple(
        _entry(path, number, line) for number, line in enumerate(text.splitlines(), start=1)
    )
    for index, entry in enumerate(entries):
        if entry.index != index:
            raise FileFormatError(
                f"{path} line {index + 1} has index {entry.index}, expected {index}: "
                "lines were lost or reordered. Build the dataset again."
            )
    return entries


def _entry(path: Path, number: int, line: str) -> Entry:
    try:
        record: dict[str, Any] = json.loads(line)
        record["keywords"] = tuple(record["keywords"])
        return Entry(**record)
    except (ValueError, TypeError, KeyError) as error:
        raise FileFormatError(
            f"{path} line {number} is not a manifest entry: {error}. Build the dataset again."
        ) from error
