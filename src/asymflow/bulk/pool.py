"""Those that make the pictures of a job: what they report, and who has which rows.

A pool has workers with one model each: processes of this machine (`asymflow.bulk.processes`), or
actors of a Ray cluster (`asymflow.integrations.ray.actors`). Any of them may be lost at any moment.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from asymflow.bulk.pictures import Failed, Identity, Made, Pictures, Settings
from asymflow.bulk.rows import Row
from asymflow.core.errors import AsymflowError, InputError

AHEAD = 2
"""Chunks of rows that a worker has: one is made, and the next one waits."""
DEATHS = 2
"""Workers that a row may take with it."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded its model, in so many seconds.

    Attributes:
        where: what it runs on, where that is not this machine.
    """

    identity: Identity
    seconds: float
    where: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A line that is worth knowing."""

    line: str


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a worker has done so far.

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
    """A worker has made a chunk."""

    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Refused:
    """A worker cannot load the model."""

    error: AsymflowError


Event = Ready | Note | Made | Failed
"""What a job hears of its workers."""
Message = Event | Finished | Refused
"""What a worker says."""


class Maker:
    """What a worker runs: a model, and what was done with it."""

    def __init__(self, settings: Settings, where: str = "") -> None:
        began = time.perf_counter()
        self._pictures = Pictures.load(settings)
        self._metrics = Metrics(load_seconds=time.perf_counter() - began)
        self._where = where

    def begin(self) -> Iterator[Message]:
        """What there is to say of the model."""
        yield Ready(self._pictures.identity, self._metrics.load_seconds, self._where)
        yield from self._notes()

    def make(self, rows: Sequence[Row]) -> Iterator[Message]:
        """Make a chunk."""
        started = time.perf_counter()
        metrics = self._metrics
        for result in self._pictures.make(rows):
            metrics = metrics.after(result)
            yield from self._notes()
            yield result
        busy = metrics.busy_seconds + time.perf_counter() - started
        self._metrics = replace(metrics, busy_seconds=busy, peak_bytes=peak_bytes())
        yield Finished(self._metrics)

    def _notes(self) -> Iterator[Note]:
        yield from map(Note, self._pictures.notes)
        self._pictures.notes.clear()


@dataclass(slots=True, eq=False)
class Worker:
    """A worker, as the job sees it.

    Attributes:
        alone: what it has is made again, and nothing else is given to it meanwhile.
    """

    ready: bool = False
    alone: bool = False
    chunks: deque[list[Row]] = field(default_factory=deque[list[Row]])
    metrics: Metrics = field(default_factory=Metrics)


W = TypeVar("W", bound=Worker)


class Duties(Generic[W]):
    """Who has which rows, and which have to be made again.

    Args:
        send: gives a worker a chunk.
        patience: workers that may be lost one after the other before they have loaded the model.

    Attributes:
        workers: those that are not lost.
        lost: number of those that are.
    """

    def __init__(self, send: Callable[[W, list[Row]], None], patience: int = DEATHS) -> None:
        self._send = send
        self._patience = patience
        self._deaths: dict[str, float] = {}
        self._again: deque[list[Row]] = deque()
        self._gone: list[Metrics] = []
        self._unready = 0.0
        self.workers: list[W] = []
        self.lost = 0

    @property
    def metrics(self) -> list[Metrics]:
        """Of all workers, of those that were lost too."""
        return [*self._gone, *(worker.metrics for worker in self.workers)]

    @property
    def ready(self) -> int:
        """Number of workers that have loaded their model."""
        return sum(worker.ready for worker in self.workers)

    @property
    def busy(self) -> bool:
        """Whether rows are being made, or have to be made again."""
        return bool(self._again) or any(worker.chunks for worker in self.workers)

    def wants(self) -> bool:
        """Whether a worker has time for a chunk that is not to be made again; those are given."""
        while self._again and (worker := self._idlest(1)) is not None:
            worker.alone = True
            self._assign(worker, self._again.popleft())
        return not self._again and self._idlest(AHEAD) is not None

    def give(self, rows: list[Row]) -> None:
        """Give a chunk to the worker with the least to do."""
        worker = self._idlest(AHEAD)
        assert worker is not None, "asked by `wants` before"
        worker.alone = False
        self._assign(worker, rows)

    def heard(self, worker: W, message: Message) -> Generator[Event]:
        """Take note of what a worker says; give on what the job has to know.

        Raises:
            AsymflowError: its model cannot be loaded.
        """
        match message:
            case Refused(error):
                raise error
            case Finished(metrics):
                worker.chunks.popleft()
                worker.metrics = metrics
                return
            case Ready():
                worker.ready, self._unready = True, 0.0
            case Made() | Failed():
                # What a chunk has left, should its worker be lost.
                worker.chunks[0].remove(message.row)
            case Note():
                pass
        yield message

    def bury(self, worker: W, why: str, *, suspicion: float = 1.0) -> Generator[Failed]:
        """A worker is lost: see to its rows.

        They are made again one by one, with nothing beside them: one of them may be the reason,
        and it may be another one than seems so, since the last answer may be lost as well.

        Args:
            worker: one of `workers`, which it leaves.
            why: how it ended.
            suspicion: that a row is the reason; a machine that is lost has many others.

        Raises:
            InputError: workers cannot load the model.
        """
        self.workers.remove(worker)
        self.lost += 1
        self._gone.append(worker.metrics)
        if not worker.ready:
            self._unready += suspicion
            if self._unready >= self._patience:
                raise InputError(
                    f"A process ended while it loaded the model ({why}), {self._patience} times in "
                    "a row. Is there enough memory? Try fewer --workers."
                )
        making = worker.chunks.popleft() if worker.chunks else []
        self._again.extend([row] for chunk in worker.chunks for row in chunk)
        for row in making:
            deaths = self._deaths[row.id] = self._deaths.get(row.id, 0.0) + suspicion
            if deaths >= DEATHS:
                yield Failed(row, f"The processes that made it ended, {DEATHS} at least ({why}).")
            else:
                self._again.append([row])

    def _idlest(self, ahead: int) -> W | None:
        """The worker with the least to do, if it has less than so many chunks."""
        found = [
            each
            for each in self.workers
            if each.ready and len(each.chunks) < ahead and not (each.alone and each.chunks)
        ]
        return min(found, key=lambda each: len(each.chunks), default=None)

    def _assign(self, worker: W, rows: list[Row]) -> None:
        worker.chunks.append(list(rows))
        self._send(worker, rows)


class Pool(Protocol):
    """Workers with one model each.

    Attributes:
        duties: who has which rows, and what became of the workers.
    """

    @property
    def duties(self) -> Duties[Any]: ...

    def events(self, seconds: float) -> Iterator[Event]:
        """What has happened, after waiting for it for at most so many seconds.

        Raises:
            AsymflowError: a model cannot be loaded.
        """
        ...

    def close(self) -> None:
        """End all workers, whatever they do."""
        ...


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
