"""The language of the system, which decides what ambiguous words of a prompt mean."""

from __future__ import annotations

import os

_NONE = ("C", "POSIX")


def languages() -> tuple[str, ...]:
    """Tags of the languages of messages, such as "de-DE"; none where the system names none."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(variable):
            tag = value.partition(".")[0].partition("@")[0]
            return () if tag in _NONE else (tag.replace("_", "-"),)
    return ()
