"""Atomic writing of files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def _umask() -> int:
    """What new files do not permit; it can only be read by setting it."""
    found = os.umask(0o077)
    os.umask(found)
    return found


_UMASK = _umask()
"""Read once: another thread could make a file in between."""


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """Open a temporary file beside `path` that takes its name when the block succeeds.

    Raises:
        OSError: the folder is not writable or the disk is full; `path` is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_UMASK)  # mkstemp makes it private to the user
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with replacing(path) as file:
        file.write(text.encode())


def check_writable(path: Path) -> None:
    """Check whether `replacing` could write `path`, without leaving a file.

    Raises:
        OSError: it could not: no file can be created in the folder, or the nearest one that
            exists.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}."):
        pass


def key_name(facts: Mapping[str, str]) -> str:
    """A name for what is kept, by all that it depends on: 16 hexadecimal digits."""
    text = json.dumps(dict(facts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def slug(prompt: str) -> str:
    """A short file name for a prompt: "A fox, sleeping!" to "a-fox-sleeping"."""
    text = unicodedata.normalize("NFKC", prompt).lower()
    words = re.sub(r"[\W_]+", "-", text).strip("-")
    return words[:48].rstrip("-") or "picture"
