"""The rows of a manifest that are to be made now, in chunks of rows that share network calls.

A thread reads ahead, so that a stream that is slow keeps nobody waiting.
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from asymflow.bulk.manifest import Line, Manifest
from asymflow.bulk.rows import Columns, Row, row_of, shard_of
from asymflow.bulk.store import contents_of
from asymflow.core.errors import AsymflowError, InputError

_LINES, _BLOCKS = 200, 8
"""Lines that are handed over together, and how often they are before the reader waits."""
_BYTES = 32_000_000
"""About how much a block of lines may hold."""
_WINDOW = 32
"""Chunks of rows that are looked at to fill one."""
_SEEN = 1 << 64
"""Marks an id of the done ones that was in the manifest."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the rows of a job: number `index`, from 0, of `count`."""

    index: int
    count: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"shard-{self.index:05}-of-{self.count:05}"


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that asks for nothing that can be made."""

    line: int
    id: str | None
    error: str


class Feed:
    """Rows that are to be made, as they are asked for.

    Args:
        manifest: where they come from.
        done: ids that were made before, with their contents; all ids of the manifest are added.
        columns: knows the types of columns that travel.
        shard: None for all rows.
        limit: read so many lines only.
        bad: called with lines that are no rows, rows that were there before, and those that were
            changed since they were made.

    Attributes:
        read: lines so far, with and without faults, of this shard.
        skipped: rows that are done.
        ended: whether the manifest is read to its end.
    """

    def __init__(
        self,
        manifest: Manifest,
        done: dict[bytes, int],
        columns: Columns,
        *,
        shard: Shard | None,
        limit: int | None,
        bad: Callable[[Bad], None],
    ) -> None:
        self._manifest = manifest
        self._done = done
        self._columns = columns
        self._shard = shard
        self._limit = limit
        self._bad = bad
        self.read = self.skipped = 0
        self.ended = False
        self._error: Exception | None = None
        self._groups: OrderedDict[tuple[str, ...], list[Row]] = OrderedDict()
        self._waiting = 0
        self._blocks: queue.Queue[list[Line] | None] = queue.Queue(_BLOCKS)
        threading.Thread(target=self._read_ahead, daemon=True).start()

    @property
    def exhausted(self) -> bool:
        """Whether no row is left."""
        return self.ended and not self._groups

    def chunk(self, size: int) -> list[Row] | None:
        """Rows to make together, at most `size`.

        Returns:
            None while a stream brings nothing; an empty list if lines were read, and none of them
            is to be made, so that the caller can look at other things.

        Raises:
            FileFormatError: the manifest is damaged, and no line can be read any more.
        """
        while not self.ended and self._waiting < size * _WINDOW:
            full = next((key for key, rows in self._groups.items() if len(rows) >= size), None)
            if full is not None:
                return self._taken(full, size)
            try:
                block = self._blocks.get(block=not self._manifest.streams)
            except queue.Empty:
                break
            if block is None:
                if self._error is not None:
                    raise self._error
                self.ended = True
                break
            for line in block:
                self._take(line)
            if not self._groups:
                return []
        if self._groups:
            return self._taken(next(iter(self._groups)), size)
        return [] if self.ended else None

    def _taken(self, key: tuple[str, ...], size: int) -> list[Row]:
        rows = self._groups[key]
        taken, rest = rows[:size], rows[size:]
        if rest:
            self._groups[key] = rest
        else:
            del self._groups[key]
        self._waiting -= len(taken)
        return taken

    def _take(self, line: Line) -> None:
        """Sort a line: into a group, or out."""
        shard = self._shard
        # Lines without an id are of one shard too, so that each is reported once.
        mine = shard is None or line.number % shard.count == shard.index
        if line.data is None:
            if mine:
                self.read += 1
                self._bad(Bad(line.number, None, line.fault))
            return
        try:
            row = row_of(line, texts=self._manifest.texts)
        except InputError as error:
            if mine:
                self.read += 1
                id = line.data.get("id")
                self._bad(Bad(line.number, None if id is None else str(id)[:100], str(error)))
            return
        key = row.key
        if shard is not None and shard_of(key, shard.count) != shard.index:
            # Its columns count all the same: their types do not depend on the shard.
            with suppress(InputError):  # which another shard reports
                self._columns.fitted(row)
            return
        self.read += 1
        try:
            row = self._columns.fitted(row)
            self._check_new(row, key)
        except InputError as error:
            self._bad(Bad(row.line, row.id, str(error)))

    def _check_new(self, row: Row, key: bytes) -> None:
        """Take a row unless it is done.

        Raises:
            InputError: its id was there before, or it was made of other contents.
        """
        before = self._done.get(key)
        contents = contents_of(row)
        if before is not None and before & _SEEN:
            raise InputError(
                f"The id {row.id!r} is on an earlier line. Give every row an id of its own; rows "
                "without one need different columns, such as seeds."
            )
        self._done[key] = contents | _SEEN
        if before is None:
            self._groups.setdefault(row.alike, []).append(row)
            self._waiting += 1
        elif before == contents:
            self.skipped += 1
        else:
            raise InputError(
                f"The row {row.id!r} is not as it was when its picture was made. Give it a new id, "
                "or make it in another folder."
            )

    def _read_ahead(self) -> None:
        block: list[Line] = []
        size = 0
        try:
            for count, line in enumerate(self._manifest.lines(), 1):
                if self._limit is not None and count > self._limit:
                    break
                block.append(line)
                size += sum(len(v) for v in (line.data or {}).values() if isinstance(v, str))
                # What a stream brings is used at once.
                if len(block) == _LINES or size > _BYTES or self._manifest.streams:
                    self._blocks.put(block)
                    block, size = [], 0
        except (AsymflowError, OSError) as error:
            self._error = error
        self._blocks.put(block)
        self._blocks.put(None)
