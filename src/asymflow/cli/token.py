"""`asymflow token`: who may use a server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from asymflow.cli.report import print_json, print_note, print_result
from asymflow.io import folders
from asymflow.server import tokens


def add(name: str, data: Path | None, *, json: bool) -> None:
    """Make a token and print it.

    Raises:
        InputError: the name is not possible, or has a token.
        FileFormatError, OSError: the file of the tokens cannot be used.
    """
    folder = _folder(data)
    first = not (folder / tokens.NAME).exists()
    token = tokens.add(folder, name)
    if json:
        print_json({"folder": str(folder), "name": name, "token": token})
        return
    print_result(token)
    print_note(f"This is the token of {name}, and is not shown again: open /?token=TOKEN once.")
    if first:
        print_note(
            f"From now on every call of a server on {folder} needs a token. To end that, remove "
            f"{tokens.NAME} there."
        )


def names(data: Path | None, *, json: bool) -> None:
    """Print whose tokens are valid.

    Raises:
        FileFormatError: the file of the tokens is damaged.
    """
    folder = _folder(data)
    found = tokens.names(folder)
    if json:
        shown = [{"name": each.name, "created": each.created} for each in found]
        print_json({"folder": str(folder), "tokens": shown})
        return
    for each in found:
        print_result(f"{each.name}  since {datetime.fromtimestamp(each.created, UTC):%Y-%m-%d}")
    if not found:
        print_note(f"There are no tokens in {folder}.")


def revoke(name: str, data: Path | None, *, json: bool) -> None:
    """Make a token invalid.

    Raises:
        InputError: there is none of that name.
        FileFormatError, OSError: the file of the tokens cannot be used.
    """
    folder = _folder(data)
    tokens.revoke(folder, name)
    if json:
        print_json({"folder": str(folder), "revoked": name})
        return
    print_result(f"the token of {name} is not valid any more")


def _folder(data: Path | None) -> Path:
    return (data or folders.studio()).expanduser().resolve()
