"""Maintenance of a studio's folder: checks, import of lost pictures, and backups.

All of it can be done while a server runs on the folder: files are complete as soon as they have
their name, and reads of the database are snapshots.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from asymflow.core.errors import FileFormatError, InputError
from asymflow.generation import metadata
from asymflow.generation.metadata import Record
from asymflow.io import images
from asymflow.io.files import replacing
from asymflow.planning.shelf import NAMES, USUAL
from asymflow.server import tokens
from asymflow.server.database import NAME, SCHEMA, copy_to, lock
from asymflow.server.store import whole_files
from asymflow.server.views import Facts

Advance = Callable[[int, int], None]
"""Progress callback, with the number of files done and their total."""
_KINDS = ("pictures", "uploads")
_BEGUN = "begun.sqlite"
"""Name of the database in an unfinished backup."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a folder.

    Attributes:
        problem: why the database cannot be used, or None.
        pictures: number in the database, and their `bytes`.
        missing: pictures in the database whose files are gone.
        strangers: picture files that are not in the database.
        unreadable: rows that could not be read and were set aside.
    """

    problem: str | None
    pictures: int
    bytes: int
    missing: list[str]
    strangers: list[str]
    unreadable: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Imported pictures, and the reasons why others were not, by their names."""

    taken: list[str]
    left: dict[str, str]


def check(folder: Path) -> Report:
    """Compare the database of a folder with the files there. Nothing is changed.

    Raises:
        InputError: there is no such folder.
    """
    _check_folder(folder)
    place = folder / "pictures"
    files = {path.stem: path for path in whole_files(place)} if place.is_dir() else {}
    try:
        with _read(folder) as database:
            known = [row["id"] for row in database.execute("SELECT id FROM pictures")]
            unreadable = 0
            if database.execute("PRAGMA user_version").fetchone()[0] >= 2:
                [unreadable] = database.execute("SELECT count(*) FROM unreadable").fetchone()
            problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except FileFormatError as error:
        return Report(str(error), 0, 0, [], sorted(files), 0)
    return Report(
        problem=None if problem == "ok" else problem,
        pictures=len(known),
        bytes=sum(files[id].stat().st_size for id in known if id in files),
        missing=sorted(set(known) - files.keys()),
        strangers=sorted(files.keys() - set(known)),
        unreadable=unreadable,
    )


def take_in(folder: Path) -> Taken:
    """Import picture files that are not in the database, by their records.

    Raises:
        InputError: there is no such folder, or no suitable database.
        FileFormatError: the database cannot be used.
    """
    taken: list[str] = []
    left: dict[str, str] = {}
    with _read(folder) as database:
        if database.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
            raise InputError(
                f"The database of {folder} is of an earlier version. Start a studio with --data "
                f"{folder} once, which brings it up to date."
            )
        for id in check(folder).strangers:
            path = folder / "pictures" / f"{id}.png"
            try:
                text = images.read_record(path)
                if text is None:
                    raise FileFormatError("It does not say how it was made.")
                record = metadata.from_json(text, path.name)
            except FileFormatError as error:
                left[path.name] = str(error)
                continue
            with database:
                database.execute(
                    "INSERT INTO pictures (id, job, slot, created, listed, facts) "
                    "VALUES (?, ?, 0, ?, 1, ?)",
                    (id, f"taken-in-{id}", path.stat().st_mtime, _facts(record).model_dump_json()),
                )
            taken.append(path.name)
    return Taken(taken, left)


def back_up(folder: Path, target: Path, advance: Advance) -> int:
    """Back up a snapshot of a folder to another one, which is again the folder of a studio.

    Backups are incremental. Files that were deleted from the folder stay in the backup.

    Returns:
        Number of files in the database that are gone.

    Raises:
        InputError: there is no such folder, or the target is something else.
        FileFormatError: the database cannot be used, or a server runs on the target.
        OSError: it cannot be written.
    """
    if target.resolve() == folder.resolve():
        raise InputError(f"{target} is the folder itself. Choose another one for the copy.")
    begun = target / _BEGUN
    earlier = (target / NAME).is_file() or begun.is_file()
    if target.exists() and any(target.iterdir()) and not earlier:
        raise InputError(
            f"{target} is neither empty nor an earlier copy. Choose another folder for the copy."
        )
    with _read(folder) as database:
        for name in _KINDS:
            (target / name).mkdir(parents=True, exist_ok=True)
        held = lock(target)
        try:
            copy_to(database, begun)
            gone = _copy_files(folder, target, begun, advance)
            # Last, so that an interrupted backup is still the earlier one.
            with closing(sqlite3.connect(begun)) as copy:
                copy_to(copy, target / NAME)
            begun.unlink()
            if (folder / tokens.NAME).exists():  # without them the copy would be open to all
                shutil.copyfile(folder / tokens.NAME, target / tokens.NAME)
        finally:
            held.release()
    return gone


def _copy_files(folder: Path, target: Path, database: Path, advance: Advance) -> int:
    """Copy the files in a database, and return how many are gone."""
    with closing(sqlite3.connect(database)) as copy:
        wanted = [
            f"{name}/{id}.png" for name in _KINDS for [id] in copy.execute(f"SELECT id FROM {name}")
        ]
    gone = 0
    for count, name in enumerate(wanted, 1):
        source, place = folder / name, target / name
        try:
            if not place.exists() or place.stat().st_size != source.stat().st_size:
                with source.open("rb") as file, replacing(place) as copied:
                    shutil.copyfileobj(file, copied)
        except FileNotFoundError:
            gone += 1
        advance(count, len(wanted))
    return gone


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Give that of a studio with --data.")


@contextmanager
def _read(folder: Path) -> Generator[sqlite3.Connection]:
    """The database of a folder, beside a server that may run on it.

    Raises:
        InputError: there is no such folder.
        FileFormatError: there is no database, or it is damaged.
    """
    _check_folder(folder)
    path = folder / NAME
    if not path.is_file():
        raise FileFormatError(
            f"There is no database in {folder}. Put that of a backup there, or start a studio with "
            f"--data {folder} once, which makes an empty one; no picture is lost by that."
        )
    try:
        with closing(sqlite3.connect(path, timeout=10)) as database:
            database.row_factory = sqlite3.Row
            yield database
    except sqlite3.Error as error:
        raise FileFormatError(
            f"{path} cannot be read: {error}. Put the database of a backup in its place, or move "
            "it away and start a studio once; no picture is lost by that."
        ) from error


def _facts(record: Record) -> Facts:
    """The facts of a picture for the database, as far as its record has them."""
    plan = record.plan
    guided = record.guidance != 1
    return Facts(
        prompt=record.prompt,
        negative_prompt=record.negative,
        style=record.style,
        width=record.size[1],
        height=record.size[0],
        seed=record.seed,
        quality=plan.name if plan.name in NAMES else USUAL,
        guidance_scale=record.guidance,
        plan=plan.name,
        class_label=record.label,
        reference=None if record.reference is None else record.reference.named,
        seconds=0.0,
        forwards=sum(step.passes(guided=guided) for step in plan.steps),
    )
