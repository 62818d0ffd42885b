"""Output of commands: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text


def say(text: str) -> None:
    """A line of the result."""
    # File names may hold bytes that are no text, and a terminal may know ASCII only.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def say_json(data: Mapping[str, object]) -> None:
    """The result as one JSON object."""
    say(json.dumps(data, indent=1, allow_nan=False))


def tell(text: str) -> None:
    """Print a line for the user, on standard error."""
    _print(Text(text, style="dim"))


def complain(text: str) -> None:
    """Print an error, on standard error."""
    # The text may quote a file from anywhere, which must not steer the terminal.
    plain = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    _print(Text.assemble(("error: ", "bold red"), plain))


def _print(text: Text) -> None:
    # Soft wrap: a terminal breaks lines itself, and a log should not have them broken.
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)
