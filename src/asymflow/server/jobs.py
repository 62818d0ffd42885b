"""Jobs: a request, its pictures, and the log of its events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from asymflow.core.types import Picture
from asymflow.generation.spec import InputImage, Reference
from asymflow.server import views
from asymflow.server.clients import Client
from asymflow.server.lineup import Served
from asymflow.server.notify import Broadcast
from asymflow.server.problems import ProblemDetail
from asymflow.server.schemas import CompletedRequest, Slot
from asymflow.server.store import JobRow, PictureRow
from asymflow.server.views import State

Kind = Literal["studio", "api"]


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The pictures that a job starts from.

    Attributes:
        image: to start from.
        mask: white where it is repainted.
        reference: to draw again.
    """

    image: InputImage | None
    mask: InputImage | None
    reference: Reference


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a job; `number` rises."""

    number: int
    data: views.Said

    @property
    def name(self) -> str:
        """Of its kind."""
        return self.data.event


@dataclass(frozen=True, slots=True)
class Unit:
    """One queued picture of a job."""

    job: Job
    slot: int

    @property
    def wanted(self) -> Slot:
        return self.job.slots[self.slot]


class Look:
    """A preview, computed when somebody looks at it first.

    Args:
        make: computes it.
    """

    def __init__(self, make: Callable[[], Picture]) -> None:
        self._make: Callable[[], Picture] | None = make
        self._made: Picture | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Picture:
        """The picture [h, w, 4]; slow at first."""
        with self._lock:
            if self._made is None:
                assert self._make is not None
                self._made, self._make = self._make(), None
            return self._made


@dataclass(slots=True, eq=False)
class Job:
    """The state of a job in memory.

    Attributes:
        served: the model that draws it; None for a job that is over and whose model is not known.
        cost: of one picture, in passes of the network over 64 x 64 pixels; a guess until the model
            is loaded, as `steps`.
        steps: of one picture.
        done: number of finished steps, by slot.
        previews: (step, look) of the newest preview of a slot.
        kept: previews of steps in `keep`, which a caller waits for, by (slot, step).
        since: when it came to this server, by a clock that nobody sets.
        inputs: the pictures to start from, since its first picture was prepared.
        position: in the queue, as last reported.
        callers: number of connected calls that wait for it.
    """

    id: str
    client: Client
    kind: Kind
    request: CompletedRequest
    slots: tuple[Slot, ...]
    created: float
    served: Served | None
    cost: float
    steps: int
    keep: frozenset[int] = frozenset()
    state: State = "queued"
    started: float | None = None
    finished: float | None = None
    error: ProblemDetail | None = None
    pictures: dict[int, PictureRow] = field(default_factory=lambda: dict[int, PictureRow]())
    done: dict[int, int] = field(default_factory=lambda: dict[int, int]())
    previews: dict[int, tuple[int, Look]] = field(
        default_factory=lambda: dict[int, tuple[int, Look]]()
    )
    kept: dict[tuple[int, int], Look] = field(default_factory=lambda: dict[tuple[int, int], Look]())
    since: float = field(default_factory=time.monotonic)
    inputs: Inputs | None = None
    position: int | None = None
    callers: int = 0
    log: list[Event] = field(default_factory=lambda: list[Event]())
    broadcast: Broadcast = field(default_factory=Broadcast)

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def progress(self) -> float:
        """Share of all steps that are finished."""
        if self.state == "done":
            return 1.0
        made = sum(self.steps if i in self.pictures else n for i, n in self.done.items())
        made += self.steps * sum(i not in self.done for i in self.pictures)
        return min(1.0, made / (self.steps * len(self.slots)))

    @property
    def seconds(self) -> float:
        """Total seconds of its finished pictures."""
        return sum(row.facts.seconds for row in self.pictures.values())

    @property
    def forwards(self) -> int:
        """Total network passes of its finished pictures."""
        return sum(row.facts.forwards for row in self.pictures.values())


def picture_view(row: PictureRow) -> views.Picture:
    """A picture as in the API."""
    url = f"/api/pictures/{row.id}/file"
    return views.Picture(
        **dict(row.facts),
        id=row.id,
        job=row.job,
        slot=row.slot,
        created=row.created,
        url=f"{url}?format=png",
        thumbnail=f"{url}?format=webp",
        favourite=row.favourite,
        deleted=row.deleted is not None,
    )


def job_row(job: Job) -> JobRow:
    """The database row of a job."""
    return JobRow(
        id=job.id,
        client=job.client.name,
        kind=job.kind,
        state=job.state,
        created=job.created,
        started=job.started,
        finished=job.finished,
        request=job.request.model_dump(),
        slots=[slot.model_dump() for slot in job.slots],
        error=None,
        owner=job.client.owner,
    )
