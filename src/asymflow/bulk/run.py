"""Runs a job: rows go to processes, pictures come back and are written, until none is left.

This process reads and writes, and computes nothing; an end of it or of any other at any moment
leaves a folder that the same job continues.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asymflow.bulk import job as jobs
from asymflow.bulk.feed import Bad, Feed, Shard
from asymflow.bulk.job import Output
from asymflow.bulk.manifest import Manifest
from asymflow.bulk.pictures import Failed, Identity, Made, Settings
from asymflow.bulk.pool import Metrics, Note, Pool, Ready
from asymflow.bulk.processes import Processes
from asymflow.bulk.rows import Columns
from asymflow.bulk.store import Store, locked
from asymflow.core import devices
from asymflow.core.errors import InputError

_TICK = 0.2
"""Seconds between looks at what is due."""
_POLL = 0.02
"""The same while processes wait for a slow stream."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        settings: of every picture.
        out: the folder of the job.
        output: its form.
        workers: processes, if they are of this machine.
        shard: the part of the rows that is made here; None for all.
        limit: read so many lines of the manifest only.
        max_errors: stop when more rows than that have failed; None never stops.
        allow_mixed: continue a job of another kind of machine, or version.
    """

    manifest: Manifest
    settings: Settings
    out: Path
    output: Output
    workers: int
    shard: Shard | None = None
    limit: int | None = None
    max_errors: int | None = None
    allow_mixed: bool = False

    @property
    def place(self) -> Path:
        """The folder of the pictures that are made here."""
        data = self.out / "data"
        return data if self.shard is None else data / self.shard.name

    @property
    def errors(self) -> Path:
        """The file of the rows that failed here."""
        end = "" if self.shard is None else f"-{self.shard.name}"
        return self.out / f"errors{end}.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        read: lines of the manifest so far; `total` about how many there are, None for a stream.
        made, skipped, failed: rows that became pictures now or before, and that became none.
        nfe: network passes of the pictures that were made now.
        seconds: since the first process was ready.
        workers: processes that are ready.
    """

    read: int
    total: int | None
    made: int
    skipped: int
    failed: int
    nfe: int
    seconds: float
    workers: int


@dataclass(frozen=True, slots=True)
class Report:
    """How a job ended.

    Attributes:
        ended: "finished", "too many errors", or the name of a signal.
        job: what decides its pictures, see `asymflow.bulk.job.facts`.
        processes: that made pictures; `lost` of them ended by themselves.
        place: the folder of the pictures.
        errors: the file of the rows that failed, if there are any.
    """

    ended: str
    progress: Progress
    job: Mapping[str, str]
    processes: Sequence[Metrics]
    lost: int
    place: Path
    errors: Path

    @property
    def complete(self) -> bool:
        """Whether every row became a picture."""
        return self.ended == "finished" and not self.progress.failed

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        done = self.progress
        rate = max(done.seconds, 1e-9)
        return {
            "ended": self.ended,
            "rows": {"made": done.made, "skipped": done.skipped, "failed": done.failed},
            "seconds": round(done.seconds, 3),
            "rows_per_second": round(done.made / rate, 3),
            "nfe_per_second": round(done.nfe / rate, 3),
            "output": str(self.place),
            "errors": str(self.errors) if done.failed else None,
            "job": {"fingerprint": jobs.fingerprint(self.job), **self.job},
            "processes": [
                {
                    "rows": each.rows,
                    "failed": each.failed,
                    "nfe_per_second": round(each.nfe / max(each.busy_seconds, 1e-9), 3),
                    "load_seconds": round(each.load_seconds, 3),
                    "busy_seconds": round(each.busy_seconds, 3),
                    "peak_bytes": each.peak_bytes,
                }
                for each in self.processes
            ],
            "lost_processes": self.lost,
        }


def processes(order: Order) -> Pool:
    """Workers of this machine."""
    return Processes(_per_device(order.settings, order.workers))


def run(
    order: Order,
    *,
    note: Callable[[str], None],
    advance: Callable[[Progress], None],
    pool: Callable[[Order], Pool] = processes,
) -> Report:
    """Make the pictures of a manifest that are not made yet.

    Args:
        order: what is to be done.
        note: called with lines that are worth knowing.
        advance: called several times a second.
        pool: starts the workers.

    Raises:
        InputError: the job cannot be begun, or the output not be written.
        FileFormatError: the manifest or the output is damaged.
    """
    jobs.check_place(order.out)
    with ExitStack() as stack:
        name = "batch" if order.shard is None else order.shard.name
        stack.enter_context(locked(order.out, name))
        stopped = stack.enter_context(_signals())
        workers = stack.enter_context(closing(pool(order)))
        return _Run(order, workers, note, advance, stopped).run()


def job_of(order: Order, identity: Identity) -> dict[str, str]:
    """What decides the pictures of an order."""
    count = None if order.shard is None else order.shard.count
    return jobs.facts(order.settings, identity, order.output, count)


class _Run:
    """A job that is running."""

    def __init__(
        self,
        order: Order,
        pool: Pool,
        note: Callable[[str], None],
        advance: Callable[[Progress], None],
        stopped: list[str],
    ) -> None:
        self.order = order
        self.pool = pool
        self.note = note
        self.advance = advance
        self.stopped = stopped
        self.columns = Columns()
        self.store = Store(order.place, order.errors, order.output, self.columns)
        self.total: int | None = None
        self.job: dict[str, str] = {}
        self.failed = self.nfe = 0
        self.together = 1
        self.began: float | None = None
        self.feed: Feed | None = None
        self.noted: set[str] = set()

    def run(self) -> Report:
        try:
            try:
                self._begin()
                ended = self._loop()
            finally:
                # What was made is kept, whatever ended the loop.
                self.store.commit()
            if ended == "finished":
                self.store.finish()
        finally:
            self.store.close()
        return Report(
            ended,
            self._progress(),
            self.job,
            self.pool.duties.metrics,
            self.pool.duties.lost,
            self.order.place,
            self.order.errors,
        )

    def _begin(self) -> None:
        """Wait for a process that knows what model it has, and see whether the job is the same."""
        while not self.job and not self.stopped:
            self._hear(_TICK)
        if self.stopped:
            return
        jobs.join(self.order.out, self.job, allow_mixed=self.order.allow_mixed)
        self.store.open()
        self.total = self.order.manifest.count()
        if self.total is not None and self.order.limit is not None:
            self.total = min(self.total, self.order.limit)
        if self.total is not None and self.order.shard is not None:
            self.total = -(-self.total // self.order.shard.count)
        self.feed = Feed(
            self.order.manifest,
            self.store.done,
            self.columns,
            shard=self.order.shard,
            limit=self.order.limit,
            bad=self._bad,
        )

    def _loop(self) -> str:
        feed = self.feed
        while not self.stopped and feed is not None:
            starved = False
            while not self.stopped and self.pool.duties.wants():
                rows = feed.chunk(self.together)
                if rows is None:
                    starved = True
                    break
                if rows:
                    self.pool.duties.give(rows)
                elif feed.exhausted or self._too_many():
                    break
                else:
                    self.advance(self._progress())
            if self._too_many():
                return "too many errors"
            if feed.exhausted and not self.pool.duties.busy:
                return "finished"
            self._hear(_POLL if starved else _TICK)
            self.store.tick()
            self.advance(self._progress())
        return self.stopped[0]

    def _hear(self, seconds: float) -> None:
        for event in self.pool.events(seconds):
            match event:
                case Ready(identity, _, where):
                    self._agree(job_of(self.order, identity), where)
                    self.together = identity.together
                    self.began = self.began or time.perf_counter()
                case Note(line):
                    if line not in self.noted:
                        self.noted.add(line)
                        self.note(line)
                case Made(row, png, facts):
                    self.store.add(row, png, facts)
                    self.nfe += facts["nfe"]
                case Failed(row, error):
                    self._bad(Bad(row.line, row.id, error))

    def _agree(self, job: dict[str, str], where: str) -> None:
        """Take the job of the first worker that is ready, and make sure that the others have it."""
        if not self.job:
            self.job = job
            return
        different = jobs.differences(self.job, job, allow_mixed=self.order.allow_mixed)
        if different:
            raise InputError(
                f"The workers of this job would make different pictures: elsewhere and on {where}, "
                f"{different}. Give all nodes the same files, or choose nodes of one kind."
            )

    def _bad(self, bad: Bad) -> None:
        self.failed += 1
        self.store.failed({"line": bad.line, "id": bad.id, "error": bad.error})

    def _too_many(self) -> bool:
        most = self.order.max_errors
        return most is not None and self.failed > most

    def _progress(self) -> Progress:
        seconds = 0.0 if self.began is None else time.perf_counter() - self.began
        feed = self.feed
        return Progress(
            read=0 if feed is None else feed.read,
            total=self.total,
            made=self.store.made,
            skipped=0 if feed is None else feed.skipped,
            failed=self.failed,
            nfe=self.nfe,
            seconds=seconds,
            workers=self.pool.duties.ready,
        )


def _per_device(settings: Settings, workers: int) -> list[Settings]:
    """The settings of every process: where there are several GPUs, in turns."""
    count = devices.count(settings.device)
    if count < 2:
        return [settings] * workers
    return [replace(settings, device=f"cuda:{i % count}") for i in range(workers)]


@contextmanager
def _signals() -> Generator[list[str]]:
    """A list that gets the name of a signal that asks this process to end.

    A second Ctrl-C ends it at once.
    """
    stopped: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # others cannot wait for signals
        return

    def stop(number: int, _: object) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
