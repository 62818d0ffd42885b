"""Persistent storage: jobs, pictures, uploads and keys in SQLite, pixels in files.

A file is written before the row that names it, and a row is gone before its file: every file in the
database exists. Until its row is written a file has a pending name, so that a complete picture is
never mistaken for a left-over. File names are random ids, never user input.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from PIL import Image

from asymflow.io.files import replacing
from asymflow.server.clients import OPERATOR
from asymflow.server.database import Database, explained
from asymflow.server.problems import disk_is_full
from asymflow.server.views import Facts

_log = logging.getLogger("asymflow.server")

_RESULT = re.compile(r"[\w-]{22}\.(png|webp|jpg)", re.ASCII)
"""Names of results. Other files may be in the same folder."""
_FILE = re.compile(r"[\w-]{22}\.png", re.ASCII)
_PENDING = re.compile(r"[\w-]{22}\.png\.pending", re.ASCII)
"""Names of whole files whose row is being written."""
_BEGUN = re.compile(r"\.[\w-]{22}\.(png|webp|jpg)(\.pending)?\.\w+", re.ASCII)
"""Names of files that are being written, see `asymflow.io.files.replacing`."""

_PROMPT = "CASE WHEN json_valid(facts) THEN json_extract(facts, '$.prompt') ELSE '' END"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in the database; `kind` is "studio" or "api"."""

    id: str
    client: str
    kind: str
    state: str
    created: float
    started: float | None
    finished: float | None
    request: Mapping[str, Any]
    slots: Sequence[Mapping[str, Any]]
    error: Mapping[str, Any] | None
    owner: str = OPERATOR


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A picture in the database.

    Attributes:
        number: rises with every picture; what the gallery is ordered by.
        listed: is in the gallery.
        deleted: when it was hidden, or None.
        facts: its content and settings.
        owner: who has made it.
    """

    number: int
    id: str
    job: str
    slot: int
    created: float
    listed: bool
    deleted: float | None
    facts: Facts
    owner: str = OPERATOR
    favourite: bool = False


@dataclass(frozen=True, slots=True)
class UploadRow:
    """An uploaded picture."""

    id: str
    width: int
    height: int
    owner: str = OPERATOR


@dataclass(frozen=True, slots=True)
class Query:
    """Which pictures of a gallery are wanted.

    Attributes:
        text: words that the prompt contains, all of them.
        favourites: only these.
        trash: deleted pictures instead of the others.
    """

    text: str = ""
    favourites: bool = False
    trash: bool = False


_ALL = Query()


def new_id() -> str:
    """An id that cannot be guessed."""
    return secrets.token_urlsafe(16)


class Store:
    """The database and the files in one folder. Any thread may call it.

    Args:
        upload_space: bytes that all uploads may take; the oldest make room for new ones.

    Raises:
        FileFormatError: the database was made by another version.
        OSError: the folder is not writable.
    """

    def __init__(self, folder: Path, *, upload_space: int = 1_000_000_000) -> None:
        self._folder = folder
        self._upload_space = upload_space
        for name in ("pictures", "uploads", "results"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._database = Database(folder)
        self._db = self._database.connection
        try:
            self._settle()
            self._adopt_uploads()
            self.start = self._although_full(self._started)
        except sqlite3.Error as error:
            self._database.close()
            raise explained(self._database.path, error) from error
        except BaseException:
            self._database.close()
            raise
        self.keep_reserve()
        self._uploaded = sum(map(_room, (folder / "uploads").iterdir()))

    def _started(self) -> int:
        """The number of this start."""
        with self._transaction():
            cursor = self._db.execute("INSERT INTO starts (at) VALUES (?)", (time.time(),))
        return cursor.lastrowid or 0

    def _settle(self) -> None:
        """Complete or undo unfinished work of a killed process.

        Complete pictures stay even if the database lacks them: it may be an older one, or new.
        """
        for name in ("pictures", "uploads"):
            noted = {f"{id}.png" for id in self._ids(f"SELECT id FROM {name}", ())}
            for path in (self._folder / name).iterdir():
                if _PENDING.fullmatch(path.name):
                    final = path.with_suffix("")
                    if final.name in noted and not final.exists():
                        path.replace(final)
                    else:  # it was never reported, and its job makes it again
                        path.unlink()
        for name in ("pictures", "uploads", "results"):
            for path in (self._folder / name).iterdir():
                if _BEGUN.fullmatch(path.name):
                    path.unlink()

    def _adopt_uploads(self) -> None:
        """Register uploads that the database lacks, so that they expire."""
        noted = set(self._ids("SELECT id FROM uploads", ()))
        for path in self._strangers("uploads", noted):
            try:
                with Image.open(path) as image:
                    width, height = image.size
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                _log.warning("a file in uploads is no picture", extra={"file": path.name})
                continue
            with self._transaction():
                self._db.execute(
                    "INSERT INTO uploads (id, created, width, height) VALUES (?, ?, ?, ?)",
                    (path.stem, path.stat().st_mtime, width, height),
                )

    def _strangers(self, name: str, noted: Container[str]) -> list[Path]:
        return [path for path in whole_files(self._folder / name) if path.stem not in noted]

    def strangers(self) -> list[Path]:
        """Picture files that the database lacks, because it was lost or restored from a backup."""
        return self._strangers("pictures", set(self._ids("SELECT id FROM pictures", ())))

    def keep_reserve(self) -> None:
        """Keep room for deleting when the disk is full, unless it is full already."""
        try:
            self._database.take_reserve()
        except OSError as error:
            _log.warning("no room can be kept free", extra={"reason": str(error)})

    def free(self) -> int:
        """Bytes that are left on the disk."""
        return shutil.disk_usage(self._folder).free

    @contextmanager
    def _transaction(self) -> Generator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it already
                    self._db.execute("ROLLBACK")
                raise

    def _although_full(self, work: Callable[[], T]) -> T:
        """Run work that frees space; if the disk is full, release the reserve for it."""
        try:
            return work()
        except (OSError, sqlite3.Error) as error:
            if not (disk_is_full(error) and self._database.give_reserve()):
                raise
            return work()

    @contextmanager
    def _noting(self, path: Path) -> Generator[None]:
        """A transaction that adds a row and completes its pending file: both or neither."""
        pending = _pending(path)
        try:
            with self._transaction():
                yield
        except BaseException:
            pending.unlink(missing_ok=True)
            raise
        pending.replace(path)  # done by the next start if this process is killed here

    def close(self) -> None:
        """Write everything back."""
        with self._lock:
            self._database.close()

    # Jobs.

    def add_job(self, job: JobRow, key: str | None = None, body: str = "") -> None:
        """Store a new job, and its idempotency key."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO jobs (id, client, kind, state, created, request, slots, owner) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id,
                    job.client,
                    job.kind,
                    job.state,
                    job.created,
                    json.dumps(job.request),
                    json.dumps(job.slots),
                    job.owner,
                ),
            )
            if key is not None:
                self._db.execute(
                    "INSERT OR REPLACE INTO keys (key, created, body, job) VALUES (?, ?, ?, ?)",
                    (key, job.created, body, job.id),
                )

    def change_job(
        self,
        id: str,
        state: str,
        *,
        started: float | None = None,
        finished: float | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """Store the new state of a job."""
        with self._transaction():
            self._db.execute(
                "UPDATE jobs SET state = ?, started = ?, finished = ?, error = ? WHERE id = ?",
                (state, started, finished, None if error is None else json.dumps(error), id),
            )

    def job(self, id: str) -> JobRow | None:
        """A job, or None where there is none."""
        found = self._read("jobs", _job, "SELECT * FROM jobs WHERE id = ?", (id,))
        return found[0] if found else None

    def recent_jobs(self, limit: int, owner: str) -> list[JobRow]:
        """The newest jobs of the studio of an owner first, without live ones."""
        return self._read(
            "jobs",
            _job,
            "SELECT * FROM jobs WHERE owner = ? AND kind = 'studio' AND NOT CASE "
            "WHEN json_valid(request) THEN json_extract(request, '$.live') ELSE 0 END "
            "ORDER BY number DESC LIMIT ?",
            (owner, limit),
        )

    def unfinished_jobs(self) -> list[JobRow]:
        """Those that were waiting or running, oldest first."""
        return self._read(
            "jobs",
            _job,
            "SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY number",
            (),
        )

    def set_aside(self, table: Literal["jobs", "pictures"], id: str, reason: str) -> None:
        """Move an unreadable row to another table, with its content."""
        _log.error("a row cannot be read", extra={"table": table, "id": id, "reason": reason})
        with self._transaction():
            for row in self._rows(f"SELECT * FROM {table} WHERE id = ?", (id,)):
                self._db.execute(
                    "INSERT INTO unreadable (at, tab, id, reason, content) VALUES (?, ?, ?, ?, ?)",
                    (time.time(), table, id, reason, json.dumps(dict(row), default=repr)),
                )
            self._db.execute(f"DELETE FROM {table} WHERE id = ?", (id,))

    def keyed_job(self, key: str) -> tuple[str, str] | None:
        """(hash of the body, id of the job) that came with an idempotency key."""
        found = self._rows("SELECT body, job FROM keys WHERE key = ?", (key,))
        return (found[0]["body"], found[0]["job"]) if found else None

    # Pictures.

    def write_picture(self, id: str, data: bytes) -> None:
        """Write the PNG file of a finished picture; call `add_picture` or `drop_picture` next."""
        with replacing(_pending(self.picture_path(id))) as file:
            file.write(data)

    def drop_picture(self, id: str) -> None:
        """Remove a written file that is not needed."""
        _pending(self.picture_path(id)).unlink(missing_ok=True)

    def add_picture(
        self,
        id: str,
        job: str,
        slot: int,
        facts: Facts,
        *,
        listed: bool,
        owner: str = OPERATOR,
    ) -> PictureRow:
        """Add the row of a picture whose file is written; if that fails, the file is removed."""
        created = time.time()
        with self._noting(self.picture_path(id)):
            # A job that was killed after its picture may make it again.
            before = self._ids(
                "DELETE FROM pictures WHERE job = ? AND slot = ? RETURNING id", (job, slot)
            )
            cursor = self._db.execute(
                "INSERT INTO pictures (id, job, slot, created, listed, facts, owner) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (id, job, slot, created, listed, facts.model_dump_json(), owner),
            )
        self._drop_pictures(before)
        number = cursor.lastrowid or 0
        return PictureRow(number, id, job, slot, created, listed, None, facts, owner)

    def picture(self, id: str) -> PictureRow | None:
        """A picture, hidden or not, or None where there is none."""
        found = self._read("pictures", _picture, "SELECT * FROM pictures WHERE id = ?", (id,))
        return found[0] if found else None

    def pictures_of(self, job: str) -> list[PictureRow]:
        """The pictures of a job in the order of its slots."""
        query = "SELECT * FROM pictures WHERE job = ? ORDER BY slot"
        return self._read("pictures", _picture, query, (job,))

    def gallery(
        self, before: int | None, limit: int, query: Query = _ALL, owner: str = OPERATOR
    ) -> list[PictureRow]:
        """The newest pictures of an owner first, from before a number."""
        words = query.text.casefold().split()
        return self._read(
            "pictures",
            _picture,
            "SELECT * FROM pictures WHERE owner = ? AND listed AND (deleted IS NOT NULL) = ? "
            "AND favourite >= ? AND number < ? "
            + f"AND instr(folded({_PROMPT}), ?) " * len(words)
            + "ORDER BY number DESC LIMIT ?",
            (
                owner,
                query.trash,
                query.favourites,
                2**62 if before is None else before,
                *words,
                limit,
            ),
        )

    def found(self, query: Query, owner: str) -> Generator[PictureRow]:
        """All pictures of an owner that are wanted, newest first, read a few at a time."""
        before: int | None = None
        while rows := self.gallery(before, 200, query, owner):
            yield from rows
            before = rows[-1].number

    def hide(self, ids: Sequence[str], *, hidden: bool, owner: str = OPERATOR) -> list[PictureRow]:
        """Hide pictures of an owner, or show them again: all or none. Return those there are."""
        now = time.time() if hidden else None
        return self._although_full(partial(self._changed, "deleted", now, ids, owner))

    def favour(
        self, ids: Sequence[str], *, favourite: bool, owner: str = OPERATOR
    ) -> list[PictureRow]:
        """Make pictures of an owner favourites, or not: all or none. Return those there are."""
        return self._changed("favourite", favourite, ids, owner)

    def _changed(
        self, column: str, value: object, ids: Sequence[str], owner: str
    ) -> list[PictureRow]:
        with self._transaction():
            self._db.executemany(
                f"UPDATE pictures SET {column} = ? WHERE id = ? AND owner = ?",
                [(value, id, owner) for id in ids],
            )
        found = (self.picture(id) for id in ids)
        return [row for row in found if row is not None and row.owner == owner]

    def empty_trash(self, owner: str) -> list[str]:
        """Delete the hidden pictures of an owner for good, and return their ids."""
        gone: list[str] = []
        while ids := self._ids(
            "SELECT id FROM pictures WHERE owner = ? AND deleted IS NOT NULL LIMIT 500", (owner,)
        ):
            self.remove(ids)
            gone += ids
        return gone

    def remove(self, ids: Sequence[str]) -> None:
        """Delete pictures for good."""

        def change() -> None:
            with self._transaction():
                self._db.executemany("DELETE FROM pictures WHERE id = ?", [(id,) for id in ids])

        try:
            self._although_full(change)
        except (OSError, sqlite3.Error) as error:
            if not disk_is_full(error):
                raise
            # Then only their own space can be freed. A row without its file does no harm.
            self._drop_pictures(ids)
            change()
        self._drop_pictures(ids)
        self.keep_reserve()

    def _drop_pictures(self, ids: Iterable[str]) -> None:
        for id in ids:
            self.picture_path(id).unlink(missing_ok=True)

    def make_room(self, size: int) -> None:
        """Remove hidden pictures, oldest first, until so many bytes are free or none is left."""
        while self.free() < size:
            hidden = self._ids(
                "SELECT id FROM pictures WHERE deleted IS NOT NULL ORDER BY deleted LIMIT 20", ()
            )
            if not hidden:
                return
            self.remove(hidden)

    def picture_path(self, id: str) -> Path:
        """The file of a picture."""
        return self._folder / "pictures" / f"{id}.png"

    # Uploads, and results that are fetched by their URL.

    def add_upload(self, data: bytes, width: int, height: int, owner: str = OPERATOR) -> UploadRow:
        """Store an uploaded picture, converted to PNG."""
        id = new_id()
        with replacing(_pending(self.upload_path(id))) as file:
            file.write(data)
        with self._noting(self.upload_path(id)):
            self._db.execute(
                "INSERT INTO uploads (id, created, width, height, owner) VALUES (?, ?, ?, ?, ?)",
                (id, time.time(), width, height, owner),
            )
        with self._lock:
            self._uploaded += _room(self.upload_path(id))
            if self._uploaded > self._upload_space:
                self._make_room(id)
        return UploadRow(id, width, height, owner)

    def _make_room(self, newest: str) -> None:
        """Remove the oldest uploads that no job waits for, with some room to spare."""
        rows = self._rows(
            "SELECT id FROM uploads WHERE id != ? AND id NOT IN (SELECT json_extract(request, each)"
            " FROM jobs, (SELECT '$.image' AS each UNION SELECT '$.mask'"
            " UNION SELECT '$.reference') WHERE state IN ('queued', 'running')"
            " AND CASE WHEN json_valid(request) THEN json_extract(request, each) IS NOT NULL"
            " ELSE 0 END) ORDER BY created",
            (newest,),
        )
        for row in rows:
            if self._uploaded <= 0.9 * self._upload_space:
                return
            with self._transaction():
                self._db.execute("DELETE FROM uploads WHERE id = ?", (row["id"],))
            self._drop_upload(row["id"])

    def _drop_upload(self, id: str) -> None:
        path = self.upload_path(id)
        with self._lock:
            if path.exists():
                self._uploaded -= _room(path)
            path.unlink(missing_ok=True)

    def upload(self, id: str) -> UploadRow | None:
        """An upload, or None."""
        found = self._rows("SELECT id, width, height, owner FROM uploads WHERE id = ?", (id,))
        return UploadRow(*found[0]) if found else None

    def upload_path(self, id: str) -> Path:
        """The file of an upload."""
        return self._folder / "uploads" / f"{id}.png"

    def add_result(self, data: bytes, suffix: str) -> str:
        """Store a file temporarily and return its name."""
        name = f"{new_id()}.{suffix}"
        with replacing(self._folder / "results" / name) as file:
            file.write(data)
        return name

    def result(self, name: str) -> Path | None:
        """The file of a result, or None. Invalid names are never used as paths."""
        path = self._folder / "results" / name
        return path if _RESULT.fullmatch(name) and path.is_file() else None

    # Cleaning.

    def purge(
        self,
        *,
        undo: float,
        passing: float,
        uploads: float,
        gallery: float | None = None,
        records: float | None = None,
    ) -> int:
        """Remove for good what has been hidden, unlisted or sent for longer than these seconds.

        With `gallery` also what has been in a gallery for longer, except favourites. `records` is
        for idempotency keys and jobs without pictures, by default as `undo`.
        """
        now = time.time()
        noted = now - (undo if records is None else records)
        gone: list[str] = []
        old: list[str] = []

        def change() -> None:
            nonlocal gone, old
            with self._transaction():
                gone = self._ids(
                    "DELETE FROM pictures WHERE deleted < ? OR (NOT listed AND created < ?) "
                    "OR (NOT favourite AND created < ?) RETURNING id",
                    (now - undo, now - passing, None if gallery is None else now - gallery),
                )
                old = self._ids(
                    "DELETE FROM uploads WHERE created < ? RETURNING id", (now - uploads,)
                )
                self._db.execute("DELETE FROM keys WHERE created < ?", (noted,))
                self._db.execute(
                    "DELETE FROM jobs WHERE state IN ('done', 'failed', 'cancelled') AND "
                    "created < ? AND id NOT IN (SELECT job FROM pictures)",
                    (noted,),
                )

        self._although_full(change)
        results = [
            path
            for path in (self._folder / "results").iterdir()
            if _RESULT.fullmatch(path.name) and path.stat().st_mtime < now - passing
        ]
        for path in (*map(self.picture_path, gone), *results):
            path.unlink(missing_ok=True)
        for id in old:
            self._drop_upload(id)
        self.keep_reserve()
        return len(gone) + len(results) + len(old)

    def _read(
        self,
        table: Literal["jobs", "pictures"],
        read: Callable[[sqlite3.Row], T],
        query: str,
        values: Iterable[object],
    ) -> list[T]:
        """The rows of a query; those that cannot be read are set aside."""
        found: list[T] = []
        for row in self._rows(query, values):
            try:
                found.append(read(row))
            except (ValueError, TypeError, KeyError) as error:
                self.set_aside(table, row["id"], repr(error))
        return found

    def _rows(self, query: str, values: Iterable[object]) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, tuple(values)).fetchall()

    def _ids(self, query: str, values: Iterable[object]) -> list[str]:
        return [row["id"] for row in self._rows(query, values)]


def whole_files(folder: Path) -> list[Path]:
    """The pictures in a folder, by name. Other files are ignored."""
    return sorted(path for path in folder.iterdir() if _FILE.fullmatch(path.name))


def _pending(path: Path) -> Path:
    """The name of a file until its row is written."""
    return path.with_name(f"{path.name}.pending")


def _room(path: Path) -> int:
    """Bytes of a file on the disk, in blocks of 4096."""
    return -(-path.stat().st_size // 4096) * 4096


def _job(row: sqlite3.Row) -> JobRow:
    """Parse a job; raises ValueError for an invalid row."""
    return JobRow(
        id=row["id"],
        client=row["client"],
        kind=row["kind"],
        state=row["state"],
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
        request=json.loads(row["request"]),
        slots=json.loads(row["slots"]),
        error=None if row["error"] is None else json.loads(row["error"]),
        owner=row["owner"],
    )


def _picture(row: sqlite3.Row) -> PictureRow:
    """Parse a picture; raises ValueError, TypeError or KeyError for an invalid row."""
    return PictureRow(
        number=row["number"],
        id=row["id"],
        job=row["job"],
        slot=row["slot"],
        created=row["created"],
        listed=bool(row["listed"]),
        deleted=row["deleted"],
        facts=Facts.model_validate_json(row["facts"], strict=True),
        owner=row["owner"],
        favourite=bool(row["favourite"]),
    )
