"""What outlives the process: jobs, pictures, uploads and keys in SQLite, pixels in files.

A file is written before the row that names it, and a row is gone before its file: what the database
knows is there. Files are named by random ids, never by what somebody typed.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asymflow.errors import FileFormatError
from asymflow.files import replacing

_SCHEMA = 1
_RESULT = re.compile(r"[\w-]{22}\.(png|webp|jpg)", re.ASCII)
"""Names of results. Somebody else's files may lie beside them."""
_FILE = re.compile(r"[\w-]{22}\.png", re.ASCII)
_BEGUN = re.compile(r"\.[\w-]{22}\.(png|webp|jpg)\.\w+", re.ASCII)
"""Names of files that are being written, see `asymflow.files.replacing`."""
_TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    client TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    request TEXT NOT NULL,
    slots TEXT NOT NULL,
    error TEXT
);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE TABLE pictures (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    job TEXT NOT NULL,
    slot INTEGER NOT NULL,
    created REAL NOT NULL,
    listed INTEGER NOT NULL,
    deleted REAL,
    facts TEXT NOT NULL,
    UNIQUE (job, slot)
);
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    created REAL NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL
);
CREATE TABLE keys (
    key TEXT PRIMARY KEY,
    created REAL NOT NULL,
    body TEXT NOT NULL,
    job TEXT NOT NULL
);
CREATE TABLE starts (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it is remembered; `kind` is "studio" or "api"."""

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


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A picture as it is remembered.

    Attributes:
        number: rises with every picture; what the gallery is ordered by.
        listed: is in the gallery.
        deleted: when it was hidden, or None.
        facts: what it shows and how it was made, as the API says it.
    """

    number: int
    id: str
    job: str
    slot: int
    created: float
    listed: bool
    deleted: float | None
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class UploadRow:
    """A picture that somebody sent."""

    id: str
    width: int
    height: int


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
        path = folder / "studio.sqlite"
        self._db = sqlite3.connect(path, timeout=1, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        # One process per folder: two would run the same jobs.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._prepare(path)
        except sqlite3.OperationalError as error:
            self._db.close()
            raise FileFormatError(
                f"Cannot use {path}: {error}. Another server may run on this folder: stop it, or "
                "choose another one with --data."
            ) from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise FileFormatError(
                f"{path} is no database of the studio: {error}. Move it away, or choose another "
                "folder with --data."
            ) from error

        self._tidy()
        self._uploaded = sum(map(_room, (folder / "uploads").iterdir()))

    def _tidy(self) -> None:
        """Remove what a process that was killed had begun to write, or had not yet noted."""
        known = {
            "pictures": self._ids("SELECT id FROM pictures", ()),
            "uploads": self._ids("SELECT id FROM uploads", ()),
        }
        for name in ("pictures", "uploads", "results"):
            noted = {f"{id}.png" for id in known.get(name, ())}
            for path in (self._folder / name).iterdir():
                lost = name in known and _FILE.fullmatch(path.name) and path.name not in noted
                if lost or _BEGUN.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def free(self) -> int:
        """Bytes that are left on the disk."""
        return shutil.disk_usage(self._folder).free

    def _prepare(self, path: Path) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            with self._transaction():
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {_SCHEMA}")
        elif version != _SCHEMA:
            self._db.close()
            raise FileFormatError(
                f"{path} has schema {version}, and this version of asymflow knows {_SCHEMA}. "
                "Choose another folder with --data."
            )
        with self._transaction():
            cursor = self._db.execute("INSERT INTO starts (at) VALUES (?)", (time.time(),))
            self.start = cursor.lastrowid or 0

    @contextmanager
    def _transaction(self) -> Generator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _noting(self, path: Path) -> Generator[None]:
        """A transaction that names a file which is written: both or neither."""
        try:
            with self._transaction():
                yield
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Write everything back."""
        with self._lock:
            self._db.close()

    # Jobs.

    def add_job(self, job: JobRow, key: str | None = None, body: str = "") -> None:
        """Remember a new job, and the idempotency key it was sent with."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO jobs (id, client, kind, state, created, request, slots) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id,
                    job.client,
                    job.kind,
                    job.state,
                    job.created,
                    json.dumps(job.request),
                    json.dumps(job.slots),
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
        """Remember the new state of a job."""
        with self._transaction():
            self._db.execute(
                "UPDATE jobs SET state = ?, started = ?, finished = ?, error = ? WHERE id = ?",
                (state, started, finished, None if error is None else json.dumps(error), id),
            )

    def job(self, id: str) -> JobRow | None:
        """A job, or None where there is none."""
        found = self._rows("SELECT * FROM jobs WHERE id = ?", (id,))
        return _job(found[0]) if found else None

    def recent_jobs(self, limit: int) -> list[JobRow]:
        """The newest jobs of the studio first; live ones are passing and not among them."""
        rows = self._rows(
            "SELECT * FROM jobs WHERE kind = 'studio' AND NOT json_extract(request, '$.live') "
            "ORDER BY number DESC LIMIT ?",
            (limit,),
        )
        return [_job(row) for row in rows]

    def unfinished_jobs(self) -> list[JobRow]:
        """Those that were waiting or running, oldest first."""
        rows = self._rows(
            "SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY number", ()
        )
        return [_job(row) for row in rows]

    def keyed_job(self, key: str) -> tuple[str, str] | None:
        """(hash of the body, id of the job) that came with an idempotency key."""
        found = self._rows("SELECT body, job FROM keys WHERE key = ?", (key,))
        return (found[0]["body"], found[0]["job"]) if found else None

    # Pictures.

    def write_picture(self, id: str, data: bytes) -> None:
        """The PNG file of a finished picture, which `add_picture` or `drop_picture` follows."""
        with replacing(self.picture_path(id)) as file:
            file.write(data)

    def drop_picture(self, id: str) -> None:
        """Remove a file that was written for nobody."""
        self.picture_path(id).unlink(missing_ok=True)

    def add_picture(
        self, id: str, job: str, slot: int, facts: Mapping[str, Any], *, listed: bool
    ) -> PictureRow:
        """Note a finished picture, whose file is written; it is removed where that fails."""
        created = time.time()
        with self._noting(self.picture_path(id)):
            # A job that was killed after its picture may make it again.
            self._db.execute("DELETE FROM pictures WHERE job = ? AND slot = ?", (job, slot))
            cursor = self._db.execute(
                "INSERT INTO pictures (id, job, slot, created, listed, facts) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (id, job, slot, created, listed, json.dumps(facts)),
            )
        return PictureRow(cursor.lastrowid or 0, id, job, slot, created, listed, None, facts)

    def picture(self, id: str) -> PictureRow | None:
        """A picture, hidden or not, or None where there is none."""
        found = self._rows("SELECT * FROM pictures WHERE id = ?", (id,))
        return _picture(found[0]) if found else None

    def pictures_of(self, job: str) -> list[PictureRow]:
        """The pictures of a job in the order of its slots."""
        rows = self._rows("SELECT * FROM pictures WHERE job = ? ORDER BY slot", (job,))
        return [_picture(row) for row in rows]

    def gallery(self, before: int | None, limit: int) -> list[PictureRow]:
        """The newest pictures first, from before a number."""
        rows = self._rows(
            "SELECT * FROM pictures WHERE listed AND deleted IS NULL AND number < ? "
            "ORDER BY number DESC LIMIT ?",
            (2**62 if before is None else before, limit),
        )
        return [_picture(row) for row in rows]

    def hide(self, id: str, *, hidden: bool) -> PictureRow | None:
        """Hide a picture, or show it again; None where there is none."""
        with self._transaction():
            self._db.execute(
                "UPDATE pictures SET deleted = ? WHERE id = ?",
                (time.time() if hidden else None, id),
            )
        return self.picture(id)

    def picture_path(self, id: str) -> Path:
        """Where the pixels are."""
        return self._folder / "pictures" / f"{id}.png"

    # Uploads, and results that are fetched by their URL.

    def add_upload(self, data: bytes, width: int, height: int) -> UploadRow:
        """Keep a picture that was sent, as the PNG it was made into."""
        id = new_id()
        with replacing(self.upload_path(id)) as file:
            file.write(data)
        with self._noting(self.upload_path(id)):
            self._db.execute(
                "INSERT INTO uploads VALUES (?, ?, ?, ?)", (id, time.time(), width, height)
            )
        with self._lock:
            self._uploaded += _room(self.upload_path(id))
            if self._uploaded > self._upload_space:
                self._make_room(id)
        return UploadRow(id, width, height)

    def _make_room(self, newest: str) -> None:
        """Remove the oldest uploads that no job waits for, with some room to spare."""
        rows = self._rows(
            "SELECT id FROM uploads WHERE id != ? AND id NOT IN (SELECT json_extract(request, each)"
            " FROM jobs, (SELECT '$.image' AS each UNION SELECT '$.mask')"
            " WHERE state IN ('queued', 'running') AND json_extract(request, each) IS NOT NULL)"
            " ORDER BY created",
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
        """A picture that was sent, or None where there is none."""
        found = self._rows("SELECT id, width, height FROM uploads WHERE id = ?", (id,))
        return UploadRow(*found[0]) if found else None

    def upload_path(self, id: str) -> Path:
        """Where its pixels are."""
        return self._folder / "uploads" / f"{id}.png"

    def add_result(self, data: bytes, suffix: str) -> str:
        """Keep a file for a while; its name."""
        name = f"{new_id()}.{suffix}"
        with replacing(self._folder / "results" / name) as file:
            file.write(data)
        return name

    def result(self, name: str) -> Path | None:
        """The file of a result, or None where there is none. Other names lead nowhere."""
        path = self._folder / "results" / name
        return path if _RESULT.fullmatch(name) and path.is_file() else None

    # Cleaning.

    def purge(self, *, undo: float, passing: float, uploads: float) -> int:
        """Remove for good what has been hidden, unlisted or sent for longer than these seconds."""
        now = time.time()
        with self._transaction():
            gone = self._ids(
                "DELETE FROM pictures WHERE deleted < ? OR (NOT listed AND created < ?) "
                "RETURNING id",
                (now - undo, now - passing),
            )
            old = self._ids("DELETE FROM uploads WHERE created < ? RETURNING id", (now - uploads,))
            self._db.execute("DELETE FROM keys WHERE created < ?", (now - undo,))
            self._db.execute(
                "DELETE FROM jobs WHERE state IN ('done', 'failed', 'cancelled') AND created < ? "
                "AND id NOT IN (SELECT job FROM pictures)",
                (now - undo,),
            )
        results = [
            path
            for path in (self._folder / "results").iterdir()
            if _RESULT.fullmatch(path.name) and path.stat().st_mtime < now - passing
        ]
        for path in (*map(self.picture_path, gone), *results):
            path.unlink(missing_ok=True)
        for id in old:
            self._drop_upload(id)
        return len(gone) + len(results) + len(old)

    def _rows(self, query: str, values: Iterable[object]) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, tuple(values)).fetchall()

    def _ids(self, query: str, values: Iterable[object]) -> list[str]:
        return [row["id"] for row in self._rows(query, values)]


def _room(path: Path) -> int:
    """Bytes that a file takes on a disk, whose blocks have 4096."""
    return -(-path.stat().st_size // 4096) * 4096


def _job(row: sqlite3.Row) -> JobRow:
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
    )


def _picture(row: sqlite3.Row) -> PictureRow:
    return PictureRow(
        number=row["number"],
        id=row["id"],
        job=row["job"],
        slot=row["slot"],
        created=row["created"],
        listed=bool(row["listed"]),
        deleted=row["deleted"],
        facts=json.loads(row["facts"]),
    )
