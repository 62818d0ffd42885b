"""Strict reading of JSON from untrusted files.

A value of another type, a missing key or an unknown one is a `FileFormatError` that names the
place. So a file is either understood completely or refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TypeVar, cast

from asymflow.core.errors import FileFormatError

Chosen = TypeVar("Chosen", bound=str)

_NAMED = 5
"""Maximal number of entries named in a message; a file may have a million."""


def parse(text: str | bytes, where: str) -> object:
    """Parse a JSON text; `where` names the file in messages."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{where} is not a JSON file, or a damaged one: {error}.") from error
    broken = next((each for each in strings(value) if half_of_pair(each)), None)
    if broken is not None:
        raise FileFormatError(
            f"{where} is damaged: {_short(broken)} has half of a surrogate pair, which is no text."
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def strings(value: object) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    left = [value]  # no recursion: the JSON parser accepts nesting beyond Python's recursion limit
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            entries = cast("dict[str, object]", each)
            left += (*entries, *entries.values())
        elif isinstance(each, list):
            left += cast("list[object]", each)


def half_of_pair(text: str) -> bool:
    """Whether there is a lone surrogate, which JSON can express and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


class Fields:
    """A JSON object whose keys are read one by one; `finish` refuses unread keys."""

    def __init__(self, value: object, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            self.refuse("is not a JSON object")
        self._left = dict(cast("dict[str, Any]", value))

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def names(self) -> tuple[str, ...]:
        """The keys that were not read yet."""
        return tuple(self._left)

    def refuse(self, complaint: str) -> NoReturn:
        """Raise `FileFormatError` about this object."""
        raise FileFormatError(f"{self.where} {complaint}.")

    def expect(self, kind: str, schemas: int | Sequence[int], advice: str) -> int:
        """Check the keys "format" and "schema", which every file of asymflow has.

        Returns:
            The schema of the file, one of `schemas`.
        """
        known = (schemas,) if isinstance(schemas, int) else schemas
        found, version = self._left.pop("format", None), self._left.pop("schema", None)
        if found != kind:
            self.refuse(f"is not an {kind}: its format is {_short(found)}. {advice}")
        if version not in known or not isinstance(version, int) or isinstance(version, bool):
            self.refuse(
                f"has schema {_short(version)}, and this asymflow reads schema "
                f"{' and '.join(map(str, known))}. Use the version of asymflow that wrote it, or "
                "make it again"
            )
        return version

    def text(self, key: str) -> str:
        """A string."""
        return cast("str", self._take(key, str, "a text"))

    def optional_text(self, key: str) -> str | None:
        """A string or null."""
        return None if self.absent(key) else self.text(key)

    def choice(self, key: str, choices: Sequence[Chosen]) -> Chosen:
        """One of some strings."""
        value = self.text(key)
        found = next((each for each in choices if each == value), None)
        if found is None:
            known = ", ".join(choices)
            self.refuse(f"has the unknown {key} {_short(value)}; this asymflow knows {known}")
        return found

    def boolean(self, key: str) -> bool:
        """A boolean."""
        return cast("bool", self._take(key, bool, "true or false"))

    def integer(self, key: str, possible: range | None = None) -> int:
        """An integer, within a range if one is given."""
        value = cast("int", self._take(key, int, "a whole number"))
        if possible is not None and value not in possible:
            self.refuse(
                f"has {key} = {_short(value)}, which must be from {possible[0]} to {possible[-1]}"
            )
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = cast("float", self._take(key, (int, float), "a number"))
        if not abs(value) <= sys.float_info.max:
            self.refuse(f"has {key} = {_short(value)}, which must be a finite number")
        return float(value)

    def numbers(self, key: str) -> list[float]:
        """An array of finite numbers."""
        values = self.items(key)
        fields = Fields({str(i): value for i, value in enumerate(values)}, f"{self.where}: {key}")
        return [fields.number(str(i)) for i in range(len(values))]

    def items(self, key: str) -> Sequence[object]:
        """An array."""
        return cast("list[object]", self._take(key, list, "an array"))

    def value(self, key: str) -> object:
        """A value of any type."""
        return self._take(key, object, "given")

    def strings(self, key: str) -> list[str]:
        """A list of strings."""
        found = self.items(key)
        if not all(isinstance(item, str) for item in found):
            self.refuse(f"has something else than texts in {key}")
        return cast("list[str]", found)

    def texts(self, key: str) -> dict[str, str]:
        """An object whose values are all strings."""
        fields = self.fields(key)
        return {name: fields.text(name) for name in fields.names()}

    def fields(self, key: str) -> Fields:
        """An object."""
        return Fields(self._take(key, dict, "an object"), f"{self.where}: {key}")

    def optional_fields(self, key: str) -> Fields | None:
        """An object or null."""
        return None if self.absent(key) else self.fields(key)

    def absent(self, key: str) -> bool:
        """Whether a key is null; if so it counts as read."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return True
        return False

    def rest(self) -> dict[str, Any]:
        """The keys that were not read, which count as read now."""
        rest, self._left = self._left, {}
        return rest

    def finish(self) -> None:
        """Refuse keys that were not read, which would be lost silently."""
        if self._left:
            names = (_short(name)[1:-1] for name in sorted(self._left)[:_NAMED])
            self.refuse(f"has unknown entries: {', '.join(names)}")

    def _take(self, key: str, kind: type | tuple[type, ...], name: str) -> object:
        if key not in self._left:
            self.refuse(f"has no {key}")
        value: object = self._left.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.refuse(f"has {key} = {_short(value)}, which must be {name}")
        return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
