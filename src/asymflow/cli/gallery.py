"""`asymflow gallery`: the folder of a studio, looked after."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from asymflow.cli.report import say, say_json, tell
from asymflow.io import folders
from asymflow.io.progress import bars
from asymflow.server import upkeep


def check(data: Path | None, *, json: bool) -> bool:
    """Show what is in a folder; whether all is well.

    Raises:
        InputError: there is no such folder.
    """
    folder = _folder(data)
    found = upkeep.check(folder)
    well = found.problem is None and not (found.missing or found.strangers or found.unreadable)
    if json:
        say_json({"folder": str(folder), "well": well, **asdict(found)})
        return well
    say(f"{folder}: {found.pictures} pictures, {found.bytes / 1e6:.1f} MB")
    if found.problem is not None:
        say(found.problem)
    if found.missing:
        say(f"{len(found.missing)} pictures have lost their file: {_some(found.missing)}")
        tell("Put the files of a backup into the folder pictures, or delete them in the studio.")
    if found.strangers:
        say(f"{len(found.strangers)} files are not in the database: {_some(found.strangers)}")
        tell(f"Take them in with: asymflow gallery import --data {folder}")
    if found.unreadable:
        say(f"{found.unreadable} rows could not be read and were set aside (table unreadable)")
    if well:
        say("all is well")
    return well


def take_in(data: Path | None, *, json: bool) -> bool:
    """Take lost pictures in; whether that worked for all.

    Raises:
        InputError: there is no such folder.
        FileFormatError: the database cannot be used.
    """
    folder = _folder(data)
    found = upkeep.take_in(folder)
    if json:
        say_json({"folder": str(folder), **asdict(found)})
        return not found.left
    say(f"{len(found.taken)} pictures were taken in")
    for name, reason in found.left.items():
        say(f"left where it is: {name}: {reason}")
    return not found.left


def back_up(data: Path | None, target: Path, *, json: bool) -> None:
    """Copy a folder, and say how to use the copy.

    Raises:
        InputError: there is no such folder, or the target is something else.
        FileFormatError: the database cannot be used.
    """
    folder = _folder(data)
    copied = 0
    with bars("files", transient=True) as progress:
        task = progress.add_task("copying", total=None)

        def advance(done: int, total: int) -> None:
            nonlocal copied
            copied = total
            progress.update(task, completed=done, total=total)

        gone = upkeep.back_up(folder, target, advance)
    if json:
        say_json({"folder": str(folder), "copy": str(target), "files": copied, "gone": gone})
        return
    say(f"{target} is a copy of {folder}, of {copied - gone} files")
    if gone:
        tell(f"{gone} files were gone: deleted meanwhile, or lost (see asymflow gallery check).")
    tell(f"To use it: asymflow studio --data {target}")


def _folder(data: Path | None) -> Path:
    return (data or folders.studio()).expanduser().resolve()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
