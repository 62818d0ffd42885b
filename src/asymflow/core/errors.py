"""The exceptions of asymflow.

    AsymflowError
    |-- InputError         a value the caller gave cannot be used (also a ValueError)
    |-- FileFormatError    a file is damaged, of another kind, or made for another model
    |-- MissingExtra       an optional dependency is not installed (also an ImportError)

A message states the value, the cause and the next move.
"""

from __future__ import annotations

from typing import Any


class AsymflowError(Exception):
    """Root of the tree: catch this to catch every deliberate error."""


class InputError(AsymflowError, ValueError):
    """A value given by the caller cannot be used."""


class FileFormatError(AsymflowError):
    """A file is damaged, of another kind, or belongs to another model."""


class MissingExtra(AsymflowError, ImportError):
    """An optional dependency is missing; the message names the extra to install.

    Attributes:
        package: that is missing.
        extra: of asymflow, that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package {package!r}, which is not installed. "
            f"Install it with: pip install '.[{extra}]', in the folder of your clone of asymflow."
        )
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is made again from the arguments of Exception, which is the message.
        return type(self), (self.package, self.extra), vars(self)
