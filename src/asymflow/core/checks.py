"""Argument checks. Errors name the value and say how to fix it."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex, cast

from asymflow.core.errors import InputError


def whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """Convert a Python, numpy or torch integer, and check its range.

    Raises:
        InputError: it is not an integer, or out of range.
    """
    found = None
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        with suppress(TypeError):  # an array of several
            found = operator.index(cast("SupportsIndex", value))
    if found is None or found < least or (most is not None and found > most):
        wanted = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise InputError(f"{name}={value!r} is not possible. Choose an integer {wanted}.")
    return found


def number(name: str, value: object) -> float:
    """Convert a Python, numpy or torch number to a float, which need not be finite.

    Raises:
        InputError: it is not a number.
    """
    if not isinstance(value, (bool, str, bytes)) and hasattr(value, "__float__"):
        with suppress(TypeError, ValueError, RuntimeError):  # an array of several
            return float(cast("SupportsFloat", value))
    raise InputError(f"{name}={value!r} is no number. Give one, such as 1.0.")


def as_path(name: str, value: object) -> Path:
    """Convert a path or a string to a path.

    Raises:
        InputError: it is neither.
    """
    if not isinstance(value, (str, PathLike)) or not str(value):
        raise InputError(f"{name}={value!r} is no path. Give a pathlib.Path or a string.")
    return Path(cast("str", value))


def instance(name: str, value: object, kind: type[Any], hint: str) -> None:
    """Check the type of an argument.

    Raises:
        InputError: it is of another type; `hint` says what to pass.
    """
    if not isinstance(value, kind):
        raise InputError(
            f"{name} is a {type(value).__name__}, and a {kind.__name__} is wanted. {hint}"
        )


def each_instance(name: str, values: object, kind: type[Any], hint: str) -> None:
    """Check that an argument is a list or tuple of values of one type.

    Raises:
        InputError: it is not; `hint` says what to pass.
    """
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Sequence):
        raise InputError(
            f"{name} is a {type(values).__name__}, and a list of {kind.__name__} is wanted. {hint}"
        )
    for index, value in enumerate(cast("Sequence[object]", values)):
        instance(f"{name}[{index}]", value, kind, hint)


def positive(name: str, value: float) -> None:
    """Raise `InputError` unless 0 < value < inf."""
    if not 0 < number(name, value) < math.inf:
        raise InputError(f"{name}={value} must be a positive number.")


def finite(name: str, value: float) -> None:
    """Raise `InputError` for NaN and infinities."""
    if not math.isfinite(number(name, value)):
        raise InputError(f"{name}={value} must be a finite number.")
