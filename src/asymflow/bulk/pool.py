"""Processes that make pictures: started, fed, and replaced when they are lost.

Each is joined to this process by a pipe of its own, so that one that is killed at any moment takes
no lock with it. It ends when the pipe does.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from asymflow.bulk.pictures import Failed, Identity, Made, Pictures, Settings
from asymflow.bulk.rows import Row
from asymflow.core.errors import AsymflowError, InputError

AHEAD = 2
"""Chunks of rows that a process has: one is made, and the next one waits."""
DEATHS = 2
"""Processes that a row may take with it."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A process has loaded its model, in so many seconds."""

    identity: Identity
    seconds: float


@dataclass(frozen=True, slots=True)
class Note:
    """A line that is worth knowing."""

    line: str


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a process has done so far.

    Attributes:
        load_seconds: of loading the model.
        busy_seconds: of making pictures.
        peak_bytes: most memory that it held.
    """

    rows: int = 0
    failed: int = 0
    nfe: int = 0
    load_seconds: float = 0.0
    busy_seconds: float = 0.0
    peak_bytes: int = 0

    def after(self, result: Made | Failed) -> Metrics:
        """The same with one more row."""
        if isinstance(result, Failed):
            return replace(self, failed=self.failed + 1)
        return replace(self, rows=self.rows + 1, nfe=self.nfe + result.facts["nfe"])


@dataclass(frozen=True, slots=True)
class Finished:
    """A process has made a chunk."""

    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Refused:
    """A process cannot load the model."""

    error: AsymflowError


Event = Ready | Note | Made | Failed


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, as this one sees it."""

    process: Any
    pipe: Connection
    settings: Settings
    ready: bool = False
    chunks: deque[list[Row]] = field(default_factory=deque[list[Row]])
    metrics: Metrics = field(default_factory=Metrics)


class Pool:
    """Processes with one model each.

    Args:
        settings: of each process; there are as many as settings.

    Attributes:
        lost: processes that ended by themselves.
    """

    def __init__(self, settings: Sequence[Settings]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._deaths: dict[str, int] = {}
        self._again: deque[list[Row]] = deque()
        self._gone: list[Metrics] = []
        self._unready = 0
        self.lost = 0
        self._workers = [self._start(each) for each in settings]

    @property
    def metrics(self) -> list[Metrics]:
        """Of all processes, of those that were lost too."""
        return [*self._gone, *(worker.metrics for worker in self._workers)]

    @property
    def ready(self) -> int:
        """Number of processes that have loaded their model."""
        return sum(worker.ready for worker in self._workers)

    @property
    def busy(self) -> bool:
        """Whether rows are being made, or have to be made again."""
        return bool(self._again) or any(worker.chunks for worker in self._workers)

    def wants(self) -> bool:
        """Whether a process has time for a chunk that is not to be made again; those are given."""
        while self._again and (worker := self._idlest()) is not None:
            self._send(worker, self._again.popleft())
        return not self._again and self._idlest() is not None

    def give(self, rows: list[Row]) -> None:
        """Give a chunk to the process with the least to do."""
        worker = self._idlest()
        assert worker is not None, "asked by `wants` before"
        self._send(worker, rows)

    def events(self, seconds: float) -> Iterator[Event]:
        """What has happened, after waiting for it for at most so many seconds.

        Raises:
            AsymflowError: a model cannot be loaded.
        """
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes), seconds):
            worker = pipes[pipe]  # pyright: ignore[reportArgumentType]
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._bury(worker)
                continue
            match message:
                case Refused(error):
                    raise error
                case Finished(metrics):
                    worker.chunks.popleft()
                    worker.metrics = metrics
                case _:
                    if isinstance(message, Ready):
                        worker.ready, self._unready = True, 0
                    elif isinstance(message, Made | Failed):
                        # What a chunk has left, should its process be lost.
                        worker.chunks[0].remove(message.row)
                    yield message

    def close(self) -> None:
        """End all processes, whatever they do."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.process.close()
        self._workers = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, settings: Settings) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(settings, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, settings)

    def _idlest(self) -> _Worker | None:
        found = [each for each in self._workers if each.ready and len(each.chunks) < AHEAD]
        return min(found, key=lambda each: len(each.chunks), default=None)

    def _send(self, worker: _Worker, rows: list[Row]) -> None:
        worker.chunks.append(list(rows))
        with suppress(OSError):  # it is lost: `events` finds out, and gives the rows to others
            worker.pipe.send(rows)

    def _bury(self, worker: _Worker) -> Iterator[Failed]:
        """Replace a process that is gone, and see to its rows.

        Those that it was making are made again one by one: one of them may be the reason.
        """
        worker.process.join()
        code = worker.process.exitcode
        worker.process.close()
        self.lost += 1
        if not worker.ready:
            self._unready += 1
            if self._unready == DEATHS:
                raise InputError(
                    f"A process ended while it loaded the model ({_ended(code)}), twice in a row. "
                    "Is there enough memory? Try fewer --workers."
                )
        self._gone.append(worker.metrics)
        making = worker.chunks.popleft() if worker.chunks else []
        self._again.extend(worker.chunks)
        for row in making:
            deaths = self._deaths[row.id] = self._deaths.get(row.id, 0) + 1
            if deaths == DEATHS:
                yield Failed(
                    row, f"The process that made it ended, {DEATHS} times ({_ended(code)})."
                )
            else:
                self._again.append([row])
        self._workers[self._workers.index(worker)] = self._start(worker.settings)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _serve(settings: Settings, pipe: Connection) -> None:
    """A process: rows come in, pictures go out, until the pipe ends."""
    # Ctrl-C goes to all processes of a terminal, and the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    began = time.perf_counter()
    chunks = _received(pipe)
    try:
        try:
            pictures = Pictures.load(settings)
        except (AsymflowError, OSError) as error:
            known = error if isinstance(error, AsymflowError) else InputError(str(error))
            pipe.send(Refused(known))
            return
        metrics = Metrics(load_seconds=time.perf_counter() - began)
        pipe.send(Ready(pictures.identity, metrics.load_seconds))
        _noted(pictures, pipe)
        while True:
            asked = chunks.get()
            started = time.perf_counter()
            for result in pictures.make(asked):
                metrics = metrics.after(result)
                _noted(pictures, pipe)
                pipe.send(result)
            metrics = replace(
                metrics,
                busy_seconds=metrics.busy_seconds + time.perf_counter() - started,
                peak_bytes=peak_bytes(),
            )
            pipe.send(Finished(metrics))
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _received(pipe: Connection) -> queue.SimpleQueue[list[Row]]:
    """What comes in, read by a thread: the parent never waits for this process to read."""
    chunks: queue.SimpleQueue[list[Row]] = queue.SimpleQueue()

    def read() -> None:
        while True:
            try:
                chunks.put(pipe.recv())
            except (EOFError, OSError):
                os._exit(0)  # the parent is gone, and so is everybody who could be told

    threading.Thread(target=read, daemon=True).start()
    return chunks


def _noted(pictures: Pictures, pipe: Connection) -> None:
    for line in pictures.notes:
        pipe.send(Note(line))
    pictures.notes.clear()


def peak_bytes() -> int:
    """The most memory that this process has held, of a GPU if it used one; 0 if unknown."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return 0  # Python has no function for it there
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
