"""The database of a data folder: locked by one process, checked, and migrated to this version.

Migrations are numbered. Before the first one a copy is made beside the database, which the earlier
version can still use.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from filelock import FileLock, Timeout

from asymflow.core.errors import FileFormatError
from asymflow.server.problems import disk_is_full

NAME = "studio.sqlite"
_LOCK = "studio.lock"
_RESERVE = "reserve"
_RESERVE_BYTES = 4_000_000
"""Bytes reserved for the database on a full disk, so that pictures can still be deleted."""

_STEPS: Sequence[str] = (
    """
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
    """,
    """
    CREATE TABLE unreadable (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        tab TEXT NOT NULL,
        id TEXT NOT NULL,
        reason TEXT NOT NULL,
        content TEXT NOT NULL
    );
    """,
    """
    ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE pictures ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE pictures ADD COLUMN favourite INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE uploads ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    CREATE INDEX pictures_by_owner ON pictures (owner, number);
    CREATE INDEX jobs_by_owner ON jobs (owner, number);
    """,
)
SCHEMA = len(_STEPS)


class Database:
    """The database of a folder, locked against other processes of asymflow.

    Raises:
        FileFormatError: it is in use, damaged, or of a newer version.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._reserve = folder / _RESERVE
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock(folder)
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            try:
                self.connection = self._opened()
            except sqlite3.Error as error:
                if not (disk_is_full(error) and self.give_reserve()):
                    raise explained(self.path, error) from error
                try:
                    self.connection = self._opened()
                except sqlite3.Error as again:
                    raise explained(self.path, again) from again
            undo.pop_all()

    def close(self) -> None:
        """Write everything to the disk, and release the lock."""
        self.connection.close()
        self._lock.release()

    def give_reserve(self) -> bool:
        """Release the reserved space; False if it is released already."""
        try:
            self._reserve.unlink()
        except FileNotFoundError:
            return False
        return True

    def take_reserve(self) -> None:
        """Reserve a little space for when the disk is full.

        Raises:
            OSError: the disk is full.
        """
        if self._reserve.exists():
            return
        try:
            with self._reserve.open("wb") as file:
                file.write(bytes(_RESERVE_BYTES))  # not sparse, which would reserve nothing
        except OSError:
            self._reserve.unlink(missing_ok=True)
            raise

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=1, check_same_thread=False, isolation_level=None
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.create_function("folded", 1, _folded, deterministic=True)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)
            self._bring_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _bring_up(self, connection: sqlite3.Connection) -> None:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise FileFormatError(
                f"{self.path} has schema {version}, and this version of asymflow knows those up to "
                f"{SCHEMA}. Use the version that made it, or choose another folder with --data. "
                "Copies from before it was changed may lie beside it."
            )
        if 0 < version < SCHEMA:
            copy_to(connection, self.path.with_suffix(f".schema{version}"))
        for number in range(version, SCHEMA):
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in filter(str.strip, _STEPS[number].split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number + 1}")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _folded(text: object) -> str:
    """A text for comparison, in any script."""
    return str(text).casefold()


def lock(folder: Path) -> FileLock:
    """Lock a folder against other servers; any thread may release the lock.

    Raises:
        FileFormatError: another server uses the folder.
    """
    found = FileLock(folder / _LOCK, thread_local=False)
    try:
        found.acquire(timeout=0)
    except Timeout as error:
        raise FileFormatError(
            f"Another server runs on {folder}. Stop it, or choose another folder with --data."
        ) from error
    return found


def copy_to(connection: sqlite3.Connection, path: Path) -> None:
    """Write a whole copy of a database that may be in use."""
    begun = path.with_name(f".{path.name}.begun")
    begun.unlink(missing_ok=True)
    with closing(sqlite3.connect(begun)) as copy:
        connection.backup(copy)
    # Journals that a killed server left belong to the earlier database; SQLite would apply them to
    # this one.
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    begun.replace(path)


def explained(path: Path, error: sqlite3.Error) -> FileFormatError:
    """The error for a database that cannot be opened, with advice."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    said = " ".join(str(error).split())
    if code == sqlite3.SQLITE_FULL or disk_is_full(error):
        return FileFormatError(
            f"The disk of {path} is full. Make room there: the database cannot be opened before."
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return FileFormatError(
            f"{path} cannot be written: {said}. Make it and its folder writable for this user, or "
            "choose another folder with --data."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return FileFormatError(
            f"{path} is in use by another program: {said}. Stop it, or choose another folder with "
            "--data."
        )
    return FileFormatError(
        f"{path} is damaged: {said}. No picture is lost by that. Move it away, with the files "
        "-wal and -shm beside it, and put the database of a backup in its place if there is one; "
        "then start again, and take in the pictures that it does not know with: asymflow gallery "
        "import."
    )
