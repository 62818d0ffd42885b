"""`asymflow gallery`: check, import and back up the folder of a studio."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from asymflow.cli.report import print_json, print_note, print_result
from asymflow.io import folders
from asymflow.io.progress import bars
from asymflow.server import upkeep


def check(data: Path | None, *, json: bool) -> bool:
    """Compare the database of a folder with its files; False if they disagree.

    Raises:
        InputError: the folder does not exist.
    """
    folder = _folder(data)
    found = upkeep.check(folder)
    well = found.problem is None and not (found.missing or found.strangers or found.unreadable)
    if json:
        print_json({"folder": str(folder), "well": well, **asdict(found)})
        return well
    print_result(f"{folder}: {found.pictures} pictures, {found.bytes / 1e6:.1f} MB")
    if found.problem is not None:
        print_result(found.problem)
    if found.missing:
        print_result(f"{len(found.missing)} pictures have lost their file: {_some(found.missing)}")
        print_note(
            "Put the files of a backup into the folder pictures, or delete them in the studio."
        )
    if found.strangers:
        print_result(
            f"{len(found.strangers)} files are not in the database: {_some(found.strangers)}"
        )
        print_note(f"Take them in with: asymflow gallery import --data {folder}")
    if found.unreadable:
        print_result(
            f"{found.unreadable} rows could not be read and were set aside (table unreadable)"
        )
    if well:
        print_result("all is well")
    return well


def take_in(data: Path | None, *, json: bool) -> bool:
    """Import pictures that the database does not list; False if some could not be imported.

    Raises:
        InputError: the folder does not exist.
        FileFormatError: the database cannot be used.
    """
    folder = _folder(data)
    found = upkeep.take_in(folder)
    if json:
        print_json({"folder": str(folder), **asdict(found)})
        return not found.left
    print_result(f"{len(found.taken)} pictures were taken in")
    for name, reason in found.left.items():
        print_result(f"left where it is: {name}: {reason}")
    return not found.left


def back_up(data: Path | None, target: Path, *, json: bool) -> None:
    """Copy a folder, and print how to use the copy.

    Raises:
        InputError: the folder does not exist, or the target is not a backup.
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
        print_json({"folder": str(folder), "copy": str(target), "files": copied, "gone": gone})
        return
    print_result(f"{target} is a copy of {folder}, of {copied - gone} files")
    if gone:
        print_note(
            f"{gone} files were gone: deleted meanwhile, or lost (see asymflow gallery check)."
        )
    print_note(f"To use it: asymflow studio --data {target}")


def _folder(data: Path | None) -> Path:
    return (data or folders.studio()).expanduser().resolve()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
