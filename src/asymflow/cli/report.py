"""Output of commands: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text


def print_result(text: str) -> None:
    """Print a line of the result."""
    # File names may contain undecodable bytes, and a terminal may support ASCII only.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def print_json(data: Mapping[str, object]) -> None:
    """Print the result as one JSON object."""
    print_result(json.dumps(data, indent=1, allow_nan=False))


def print_note(text: str) -> None:
    """Print a note on standard error."""
    _print(Text(text, style="dim"))


def print_error(text: str) -> None:
    """Print an error on standard error."""
    # The text may quote untrusted files: escape control sequences.
    plain = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    _print(Text.assemble(("error: ", "bold red"), plain))


def _print(text: Text) -> None:
    # Soft wrap: terminals wrap lines themselves, and logs need them whole.
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)
