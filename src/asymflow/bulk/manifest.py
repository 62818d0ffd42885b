"""Reads the lines of a manifest one by one: JSONL, CSV or Parquet, or a stream of JSONL.

A line that cannot be read is a `Line` with its fault, and the next one is read. Memory is bounded
by the longest line that is read, whatever the length of the manifest.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal, cast

from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.io.json_reader import half_of_pair, parse

STREAM = "-"
LONGEST = 16_000_000
"""Bytes of a line; longer ones are passed over."""
_CELL = 1_000_000
"""Characters of a cell of a CSV file."""
_TOGETHER = 1000
"""Rows of a Parquet file in memory."""
Kind = Literal["jsonl", "csv", "parquet"]
_SUFFIXES: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a manifest.

    Attributes:
        number: from 1 on; that of a row for Parquet.
        data: its columns, without empty ones; None where the line is faulty.
        fault: why it cannot be read.
    """

    number: int
    data: dict[str, object] | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was found.

    Attributes:
        path: None for the standard input.
        kind: how its lines are written.
    """

    path: Path | None
    kind: Kind

    @property
    def texts(self) -> bool:
        """Whether numbers come as texts."""
        return self.kind == "csv"

    @property
    def streams(self) -> bool:
        """Whether lines come when it pleases another program."""
        return self.path is None or not self.path.is_file()

    @property
    def folder(self) -> Path:
        """The folder that paths in rows are relative to."""
        return Path.cwd() if self.path is None else self.path.absolute().parent

    def lines(self) -> Iterator[Line]:
        """Its lines.

        Raises:
            FileFormatError: it is damaged, so that no further line can be read.
        """
        if self.kind == "parquet":
            assert self.path is not None, "a stream is JSONL"
            return _parquet(self.path)
        return _jsonl(self.path) if self.kind == "jsonl" else _csv(self.path)

    def count(self) -> int | None:
        """About how many lines there are; None for a stream."""
        if self.path is None or self.streams:
            return None
        if self.kind == "parquet":
            with _opened(self.path) as file:
                return int(file.metadata.num_rows)
        count, last = 0, b"\n"
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                count += block.count(b"\n")
                last = block[-1:]
        return count + (last != b"\n") - (self.kind == "csv")


def manifest(name: str) -> Manifest:
    """The manifest of a path, or of the standard input: "-".

    Raises:
        InputError: there is none, or it is of an unknown kind.
        FileFormatError: its beginning cannot be read.
        MissingExtra: it is a Parquet file, and pyarrow is not installed.
    """
    if name == STREAM:
        return Manifest(None, "jsonl")
    path = Path(name)
    kind = _SUFFIXES.get(path.suffix.lower())
    if path.is_dir():
        raise InputError(f"The manifest {name} is a folder. Give the file in it.")
    if not path.exists():
        raise InputError(f"There is no manifest {name}. Check the path.")
    if kind is None:
        raise InputError(
            f"The manifest {name} ends in {path.suffix or 'nothing'}. Give a file that ends in "
            f"{', '.join(_SUFFIXES)}; or - for JSONL from the standard input."
        )
    found = Manifest(path, kind)
    if found.streams:
        return found
    if kind == "parquet":
        with _opened(path):
            pass
    elif kind == "csv":
        with path.open("rb") as file:
            _header(file, name)
    else:
        with path.open("rb"):
            pass
    return found


def _jsonl(path: Path | None) -> Iterator[Line]:
    # Not sys.stdin: a thread that waits for it would hold its lock when Python ends.
    with open(0, "rb", closefd=False) if path is None else path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST)
                yield Line(number, None, f"The line has more than {LONGEST // 10**6} MB.")
                continue
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield _object(number, line)


def _object(number: int, line: bytes) -> Line:
    try:
        data = parse(line.decode(), "The line")
    except UnicodeDecodeError as error:
        return Line(number, None, f"The line is not UTF-8: byte {error.start} is wrong.")
    except FileFormatError as error:
        return Line(number, None, str(error))
    if not isinstance(data, dict):
        return Line(number, None, f"The line is {type(data).__name__}, and not a JSON object.")
    entries = cast("dict[str, object]", data)
    return Line(number, {key: value for key, value in entries.items() if value is not None})


def _csv(path: Path | None) -> Iterator[Line]:
    assert path is not None, "a stream is JSONL"
    before = csv.field_size_limit(_CELL)
    try:
        with path.open("rb") as file:
            names = _header(file, str(path))
            reader = csv.reader(_decoded(file))
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield Line(reader.line_num + 1, None, f"The line is no CSV: {error}.")
                    continue
                if cells:
                    yield _cells(reader.line_num + 1, names, cells)
    finally:
        csv.field_size_limit(before)


def _decoded(file: IO[bytes]) -> Iterator[str]:
    while line := file.readline(LONGEST):
        yield line.decode("utf-8", "surrogateescape")


def _header(file: IO[bytes], name: str) -> Sequence[str]:
    first = file.readline(LONGEST).removeprefix(b"\xef\xbb\xbf")
    try:
        names = next(csv.reader([first.decode()]), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(
            f"The first line of {name} is no header of a CSV file in UTF-8: {error}."
        ) from error
    twice = sorted({each for each in names if names.count(each) > 1})
    if not any(names) or not all(names) or twice:
        what = f"names {twice[0]!r} twice" if twice else "has columns without a name"
        raise FileFormatError(
            f"The first line of {name} {what}. It has to name every column, once each."
        )
    return names


def _cells(number: int, names: Sequence[str], cells: Sequence[str]) -> Line:
    if len(cells) != len(names):
        return Line(
            number, None, f"The line has {len(cells)} cells, and the header {len(names)} columns."
        )
    if any(half_of_pair(cell) for cell in cells):
        return Line(number, None, "The line is not UTF-8.")
    return Line(number, {key: cell for key, cell in zip(names, cells, strict=True) if cell})


def _parquet(path: Path) -> Iterator[Line]:
    pyarrow = arrow()
    number = 0
    with _opened(path) as file:
        try:
            for batch in file.iter_batches(_TOGETHER):
                for row in batch.to_pylist():
                    number += 1
                    yield Line(number, {k: v for k, v in row.items() if v is not None})
        except (pyarrow.ArrowException, OSError) as error:
            raise FileFormatError(
                f"{path} is damaged after row {number}: {_short(error)}. Write it again."
            ) from error


def arrow() -> Any:
    """The package pyarrow.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet") from error


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    pyarrow = arrow()
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise FileFormatError(
            f"{path} is not a Parquet file, or a damaged one: {_short(error)}. Write it again."
        ) from error
    with file:
        yield file


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
