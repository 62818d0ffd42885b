"""The output of a job on disk: folders of pictures with `metadata.jsonl`, or files of Parquet.

A picture counts once its line is in `metadata.jsonl`, and lines are appended after the files that
they name are safe on the disk. So an end at any moment leaves at most hidden files, pictures
without a line and a part of the last line, all in the newest folder; opening removes them.

Parquet files cannot be appended to. Their rows gather in a hidden folder of pictures, which becomes
a file when it is full, or at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from asymflow.bulk.job import Output
from asymflow.bulk.manifest import arrow
from asymflow.bulk.rows import FACTS, PREFIX, Columns, Kind, Row, key_of
from asymflow.core.errors import FileFormatError, InputError
from asymflow.io.files import replacing

METADATA = "metadata.jsonl"
FULL = 1000
"""Pictures of a folder, and of a file of Parquet."""
_OPEN = ".open"
_ROWS, _SECONDS = 64, 1.0
"""Pictures, and time, until files are made safe together."""
_THREADS = 8
"""That wait for the disk at once: a file system writes their files together. 64 small files took
236 ms one after the other and 7 ms so."""
_TABLE = 50
"""Pictures in memory while a file of Parquet is written."""
_KINDS: Mapping[Kind, str] = {
    "text": "string",
    "whole number": "int64",
    "number": "float64",
    "true or false": "bool_",
}
_READ: Mapping[str, Kind] = {
    "string": "text",
    "int64": "whole number",
    "double": "number",
    "bool": "true or false",
}
"""The types of columns by those of Parquet."""


@contextmanager
def locked(place: Path, name: str) -> Generator[None]:
    """Keep other processes from writing the same place.

    Raises:
        InputError: one does.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / f".{name}.lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"Another process writes to {place / name if name != 'batch' else place}. Wait for it, "
            "or stop it."
        ) from None
    except OSError as error:
        raise _refused(place, error) from error
    try:
        yield
    finally:
        lock.release()


class Store:
    """The output of one process.

    Args:
        place: its folder.
        errors: the file of rows that failed.
        output: its form.
        columns: learns the types of columns that travel.

    Attributes:
        done: `Row.contents`, as a number, of ids that were made before, by `key_of`.
        made: pictures added by this process, and of these `safe` on the disk.
    """

    def __init__(self, place: Path, errors: Path, output: Output, columns: Columns) -> None:
        self.place = place
        self.errors = errors
        self.output: Output = output
        self.columns = columns
        self.made = self.safe = 0
        self.done: dict[bytes, int] = {}
        self._folder = place
        self._count = 0
        self._lines: list[str] = []
        self._names: list[str] = []
        self._since = 0.0
        self._threads = ThreadPoolExecutor(_THREADS)
        self._removed: list[Future[None]] = []

    def open(self, *, repair: bool = True) -> None:
        """Find what is done.

        Args:
            repair: remove what an end at any moment has left, and what failed, which is tried
                again; otherwise nothing is changed.

        Raises:
            FileFormatError: the output is damaged elsewhere.
            InputError: it cannot be written.
        """
        try:
            if repair:
                self.place.mkdir(parents=True, exist_ok=True)
                self.errors.unlink(missing_ok=True)
            if self.output == "parquet":
                last = self._read_files(repair=repair)
            else:
                last = self._read_folders(repair=repair)
        except OSError as error:
            raise _refused(self.place, error) from error
        self._folder, self._count = last

    def add(self, row: Row, png: bytes, facts: Mapping[str, Any]) -> None:
        """Write a picture, which `commit` makes safe.

        Raises:
            InputError: the disk is full, or the folder not writable.
        """
        if self._count == FULL:
            self.commit()
            self._roll()
        name = f"{row.key.hex()}.png"
        others = {**row.asked, **row.travels}
        if "image" in others:  # readers put the picture itself under this name
            others[PREFIX + "image"] = others.pop("image")
        line = {"file_name": name, "id": row.id, **others, **facts, "row": row.contents}
        self.columns.learn({k: v for k, v in others.items() if k not in _OWN})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _hidden(self._folder, name).write_bytes(png)
        except OSError as error:
            raise _refused(self._folder, error) from error
        self._lines.append(json.dumps(line, allow_nan=False) + "\n")
        self._names.append(name)
        self._since = self._since or time.monotonic()
        self._count += 1
        self.made += 1

    def tick(self) -> None:
        """Commit, if that is due."""
        due = len(self._names) >= _ROWS or time.monotonic() - self._since > _SECONDS
        if self._names and due:
            self.commit()

    def commit(self) -> None:
        """Make all pictures safe: their files first, then their lines.

        Raises:
            InputError: the disk is full, or the folder not writable.
        """
        names, lines = self._names, self._lines
        # Also where that fails: what is half done is made again by the next process.
        self._names, self._lines, self._since = [], [], 0.0
        if not names:
            return
        try:
            list(self._threads.map(_sync, [_hidden(self._folder, name) for name in names]))
            for name in names:
                _hidden(self._folder, name).replace(self._folder / name)
            _sync_folder(self._folder)
            with (self._folder / METADATA).open("ab") as file:
                before = file.tell()
                try:
                    file.write("".join(lines).encode())
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), before)
                    raise
            if not before:
                _sync_folder(self._folder)
                _sync_folder(self._folder.parent)
        except OSError as error:
            raise _refused(self._folder, error) from error
        self.safe += len(names)

    def finish(self) -> None:
        """Commit, and close a file of Parquet that is not full."""
        self.commit()
        if self.output == "parquet" and self._count:
            self._roll()

    def close(self) -> None:
        """End the threads that wait for the disk.

        Raises:
            InputError: what files of Parquet were made of cannot be removed.
        """
        self._threads.shutdown()
        for each in self._removed:
            if isinstance(error := each.exception(), OSError):
                raise _refused(self.place, error) from error

    def failed(self, entry: Mapping[str, object]) -> None:
        """Append to the file of errors.

        Raises:
            InputError: the disk is full, or the folder not writable.
        """
        line = json.dumps(entry, allow_nan=False) + "\n"
        try:
            with self.errors.open("ab") as file:
                file.write(line.encode())
        except OSError as error:
            raise _refused(self.errors.parent, error) from error

    def _roll(self) -> None:
        """Begin the next folder."""
        number = int(self._folder.name)
        if self.output == "parquet":
            try:
                _to_parquet(self._folder, self._file(number), self.columns)
            except OSError as error:
                raise _refused(self.place, error) from error
            # Meanwhile others work: where file systems discard blocks at once, that takes seconds.
            self._removed.append(self._threads.submit(shutil.rmtree, self._folder))
        self._folder, self._count = self._folder.with_name(f"{number + 1:05}"), 0

    def _file(self, number: int) -> Path:
        return self.place / f"{number:05}.parquet"

    def _read_folders(self, *, repair: bool) -> tuple[Path, int]:
        """Read all folders; the newest one, and how many pictures it has."""
        folders = _numbered(self.place)
        for folder in folders[:-1]:
            self._read_folder(folder, newest=False, repair=repair)
        if not folders:
            return self.place / "00000", 0
        return folders[-1], self._read_folder(folders[-1], newest=True, repair=repair)

    def _read_files(self, *, repair: bool) -> tuple[Path, int]:
        """As `_read_folders`, of files of Parquet."""
        pyarrow = arrow()
        for path in self.place.glob(".*.parquet.*") if repair else ():
            path.unlink()  # an end came while it was written
        files = sorted(self.place.glob("[0-9]*.parquet"))
        for path in files:
            try:
                with pyarrow.parquet.ParquetFile(path) as file:
                    for column in file.schema_arrow:
                        if column.name not in {"image", *FACTS}:
                            self.columns.kinds[column.name] = _READ[str(column.type)]
                    for batch in file.iter_batches(columns=["id", "row"]):
                        for row in batch.to_pylist():
                            self.done[key_of(row["id"])] = _number(row["row"])
            except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
                raise FileFormatError(
                    f"{path} is damaged: {error}. Remove it: its rows are made again."
                ) from error
        next_ = 1 + (int(files[-1].stem) if files else -1)
        for folder in _numbered(self.place / _OPEN):
            if repair and int(folder.name) < next_:  # its file was written, and then came the end
                shutil.rmtree(folder)
        folder = self.place / _OPEN / f"{next_:05}"
        if not folder.exists():
            return folder, 0
        return folder, self._read_folder(folder, newest=True, repair=repair)

    def _read_folder(self, folder: Path, *, newest: bool, repair: bool) -> int:
        """Note the rows of a folder; repair the newest one.

        Returns:
            The number of its pictures.
        """
        path = folder / METADATA
        names: set[str] = set()
        whole = 0
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines(keepends=True):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("it ends in the middle")
                entry = json.loads(line)
                name, id, contents = entry["file_name"], entry["id"], _number(entry["row"])
            except (ValueError, KeyError, TypeError) as error:
                if newest:
                    break
                raise FileFormatError(
                    f"{path} is damaged at byte {whole}: {error}. Remove the folder: its rows are "
                    "made again."
                ) from error
            whole += len(line)
            names.add(name)
            self.done[key_of(id)] = contents
            self.columns.learn({k: v for k, v in entry.items() if k not in _OWN})
        if newest and repair and whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
        here = {each.name for each in os.scandir(folder)} - {METADATA}
        if missing := names - here:
            raise FileFormatError(
                f"{folder} has no {min(missing)}, which its {METADATA} names. Remove the folder: "
                "its rows are made again."
            )
        for name in here - names if newest and repair else ():
            (folder / name).unlink()
        return len(names)


_OWN = frozenset({"file_name", *FACTS})


def _number(contents: str) -> int:
    return int(contents, 16)


def contents_of(row: Row) -> int:
    """`Row.contents` as it is kept in `Store.done`."""
    return _number(row.contents)


def _hidden(folder: Path, name: str) -> Path:
    return folder / f".{name}"


def _numbered(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        return ()
    return sorted(each for each in folder.iterdir() if each.name.isdigit() and each.is_dir())


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere folders cannot be opened
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _to_parquet(folder: Path, path: Path, columns: Columns) -> None:
    """Make a file of Parquet of a folder of pictures."""
    pyarrow = arrow()
    lines = [json.loads(line) for line in (folder / METADATA).read_bytes().splitlines()]
    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    types = {"image": picture} | {
        name: getattr(pyarrow, kind)()
        for name, kind in {**FACTS, **{k: _KINDS[v] for k, v in columns.kinds.items()}}.items()
    }
    # What `datasets` reads to show pictures as such.
    feature = {"info": {"features": {"image": {"_type": "Image"}}}}
    schema = pyarrow.schema(list(types.items()), {"huggingface": json.dumps(feature)})
    with replacing(path) as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for begin in range(0, len(lines), _TABLE):
            part = lines[begin : begin + _TABLE]
            for line in part:
                name = line.pop("file_name")
                line["image"] = {"bytes": (folder / name).read_bytes(), "path": name}
            writer.write_table(pyarrow.Table.from_pylist(part, schema))


def _refused(place: Path, error: OSError) -> InputError:
    return InputError(
        f"Cannot write to {place}: {error.strerror or error}. Nothing that was finished is lost: "
        "the same command continues, once there is room and permission to write."
    )
