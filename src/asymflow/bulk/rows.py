"""Rows of a job: what a line of a manifest asks for, under which id, and what travels through.

Nothing of a row depends on the lines around it, nor on the time or the place where it is made. A
row without an id is called by the hash of its contents; one without a seed gets it from its id.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from asymflow.bulk.manifest import Line
from asymflow.core.errors import InputError
from asymflow.generation.resolve import GenerateOptions

Kind = Literal["text", "whole number", "number", "true or false"]

ASKED: Mapping[str, Kind | Literal["class", "size", "path"]] = {
    "prompt": "text",
    "negative": "text",
    "style": "text",
    "class": "class",
    "size": "size",
    "seed": "whole number",
    "guidance": "number",
    "guidance_interval": "text",
    "plan": "text",
    "steps": "whole number",
    "solver": "text",
    "image": "path",
    "mask": "path",
    "strength": "number",
    "reference": "path",
    "background": "text",
    "transparent": "true or false",
}
"""The columns that ask for something, with the names of the options of `asymflow generate`."""

FACTS: Mapping[str, str] = {
    "id": "string",
    "seed": "int64",
    "size": "string",
    "model": "string",
    "weights": "string",
    "plan_name": "string",
    "plan_hash": "string",
    "determinism": "string",
    "nfe": "int64",
    "seconds": "float64",
    "sha256": "string",
    "row": "string",
}
"""The columns that every row of the output has, with their types in Parquet."""
_SHARED = ("id", "seed", "size")
"""Columns that say in outputs what was used, and in manifests what is asked for."""
WRITTEN = ("file_name", "image", "error", *(name for name in FACTS if name not in _SHARED))
"""The columns that outputs add. One of a manifest that is called so gets a prefix there."""
PREFIX = "manifest_"

_ID = 1000
"""Characters of an id."""
_TEXT = 10_000
"""Characters of a column that asks for something; a prompt has an earlier limit, told by itself."""
_GRID = ("steps", "solver", "guidance_interval")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class Row:
    """A picture to make.

    Attributes:
        line: its number in the manifest.
        id: names it in the job.
        asked: the columns that ask for something, of the types of `ASKED`.
        travels: further columns, as outputs have them.
    """

    line: int
    id: str
    asked: Mapping[str, Any]
    travels: Mapping[str, Any]

    @property
    def key(self) -> bytes:
        """16 bytes that stand for the id."""
        return key_of(self.id)

    @property
    def contents(self) -> str:
        """16 hexadecimal digits that stand for all columns but the id."""
        return _hashed({"asked": self.asked, "travels": self.travels}, 8)

    @property
    def alike(self) -> tuple[str, ...]:
        """What rows have in common that share network calls best."""
        names = ("size", "plan", *_GRID, "guidance", "strength", "image")
        return tuple(repr(self.asked.get(name)) for name in names)


def key_of(id: str) -> bytes:
    """16 bytes that stand for an id."""
    return blake2b(id.encode(), digest_size=16).digest()


def shard_of(key: bytes, count: int) -> int:
    """The shard of an id among so many: even, and the same in every process."""
    return int.from_bytes(key[:8], "big") % count


def row_of(line: Line, *, texts: bool) -> Row:
    """The row of a line.

    Args:
        line: of a manifest, without a fault.
        texts: whether numbers may come as texts, as in CSV.

    Raises:
        InputError: a column has a value of another type.
    """
    assert line.data is not None, "faulty lines are no rows"
    data = dict(line.data)
    given = data.pop("id", None)
    asked: dict[str, Any] = {}
    travels: dict[str, Any] = {}
    for name, value in data.items():
        kind = ASKED.get(name)
        if kind is not None:
            asked[name] = _typed(name, value, kind, texts)
        else:
            travels[name] = _plain(name, value)
    for name in WRITTEN:
        if name not in data:
            continue
        if PREFIX + name in travels:
            raise InputError(
                f"The column {name!r} would be called {PREFIX + name!r} in the output, and there "
                "is one. Rename one of them."
            )
        if name in travels:
            travels[PREFIX + name] = travels.pop(name)
    asked, travels = dict(sorted(asked.items())), dict(sorted(travels.items()))
    id = _hashed({"asked": asked, "travels": travels}, 16) if given is None else _id(given)
    return Row(line.number, id, asked, travels)


def options(row: Row, defaults: GenerateOptions, folder: Path) -> GenerateOptions:
    """What a row asks for; what it leaves open is as in `defaults`.

    Args:
        row: its columns.
        defaults: options of the job. Its seed is mixed into those that rows get from their ids.
        folder: paths are relative to it.
    """
    own: dict[str, Any] = {}
    for name, value in row.asked.items():
        if ASKED[name] == "path" and not (name == "reference" and value == "none"):
            value = folder / value
            value = str(value) if name == "reference" else value
        own["label" if name == "class" else name] = value
    if "plan" in own:
        own |= {name: own.get(name) for name in _GRID}
    elif any(name in own for name in _GRID):
        own["plan"] = None
    if "background" in own:
        own.setdefault("transparent", False)
    elif own.get("transparent"):
        own["background"] = None
    if "seed" not in own:
        own["seed"] = seed_of(row.id, defaults.seed or 0)
    merged = {each.name: getattr(defaults, each.name) for each in fields(GenerateOptions)} | own
    if not merged["image"]:
        merged["strength"] = own.get("strength")
    return GenerateOptions(**merged)


def seed_of(id: str, mixed: int = 0) -> int:
    """A seed of 32 bits that only the id and a number decide."""
    found = blake2b(f"{mixed} {id}".encode(), digest_size=4, person=b"asymflow seed")
    return int.from_bytes(found.digest(), "big")


class Columns:
    """The types of the columns that travel: the first row decides, so that outputs can be read.

    Readers of JSONL and Parquet expect one type per column.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}

    def learn(self, travels: Mapping[str, Any]) -> None:
        """Note the columns of a row that was written."""
        for name, value in travels.items():
            if value is not None:
                self.kinds.setdefault(name, kind_of(value))

    def fitted(self, row: Row) -> Row:
        """The row, its whole numbers as numbers with a fraction where the column has them.

        Raises:
            InputError: a column has another type than in earlier rows.
        """
        changed: dict[str, Any] = {}
        for name, value in row.travels.items():
            kind, usual = kind_of(value), self.kinds.get(name)
            if usual is None or kind == usual:
                continue
            if (kind, usual) != ("whole number", "number"):
                raise InputError(
                    f"The column {name!r} is a {kind} here, {value!r:.40}, and was a {usual} in "
                    "rows before. Give it one type."
                )
            changed[name] = float(value)
        self.learn(row.travels)
        if not changed:
            return row
        return Row(row.line, row.id, row.asked, {**row.travels, **changed})


def kind_of(value: object) -> Kind:
    """The type of a value that travels."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int):
        return "whole number"
    return "number" if isinstance(value, float) else "text"


def _id(given: object) -> str:
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    if not isinstance(given, str):
        raise InputError(f"The id is {given!r:.40}, which must be a text or a whole number.")
    if not given or len(given) > _ID:
        raise InputError(f"The id has {len(given)} characters, which must be from 1 to {_ID}.")
    return given


def _typed(name: str, value: object, kind: str, texts: bool) -> Any:
    """A value of a column that asks for something, of its type."""
    if kind == "class" or kind == "size":
        kind, value = "text", str(value) if _whole(value) else value
    elif kind == "path":
        kind = "text"
    found = _parsed(value, kind) if texts and isinstance(value, str) else value
    if kind == "text" and isinstance(found, str):
        if len(found) > _TEXT:
            raise InputError(
                f"The column {name!r} has {len(found)} characters, more than {_TEXT}. Shorten it."
            )
        return found
    if kind == "whole number":
        if isinstance(found, float) and found.is_integer():
            found = int(found)  # a column of Parquet with gaps
        if _whole(found):
            return found
    if kind == "number" and isinstance(found, int | float) and not isinstance(found, bool):
        try:
            found = float(found)
        except OverflowError:
            found = math.inf
        if math.isfinite(found):
            return found
    if kind == "true or false" and isinstance(found, bool):
        return found
    raise InputError(f"The column {name!r} is {value!r:.40}, which must be a {kind}.")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _parsed(text: str, kind: str) -> object:
    """A cell of a CSV file as the type of its column; unchanged where it is another."""
    try:
        if kind == "whole number":
            return int(text)
        if kind == "number":
            return float(text)
    except ValueError:
        return text
    return _TRUTH.get(text.lower(), text) if kind == "true or false" else text


def _plain(name: str, value: object) -> str | int | float | bool:
    """A value that travels: of one of four types, all others as JSON or text."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"The column {name!r} is {value}, which is not in JSON. Leave it out.")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"The column {name!r} is {value!r:.40}, more than 64 bits.")
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        raise InputError(f"The column {name!r} holds bytes, which do not travel. Leave it out.")
    if isinstance(value, dict | list):
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise InputError(f"The column {name!r} cannot be written as JSON: {error}.") from error
    return str(value)  # dates and decimals of Parquet


def _hashed(value: object, size: int) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return blake2b(text.encode(), digest_size=size).hexdigest()
