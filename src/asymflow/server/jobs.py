"""Jobs: a request, its pictures, and the log of its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from asymflow.core.types import Picture
from asymflow.server.lineup import Served
from asymflow.server.notify import Broadcast
from asymflow.server.problems import ProblemDetail
from asymflow.server.schemas import JobRequest, Slot
from asymflow.server.store import JobRow, PictureRow

Kind = Literal["studio", "api"]
State = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a job; `number` rises."""

    number: int
    name: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unit:
    """One queued picture of a job."""

    job: Job
    slot: int

    @property
    def wanted(self) -> Slot:
        return self.job.slots[self.slot]


@dataclass(slots=True, eq=False)
class Job:
    """The state of a job in memory.

    Attributes:
        served: the model that draws it; None for a job that is over and whose model is not known.
        cost: of one picture, in passes of the network over 64 x 64 pixels; a guess until the model
            is loaded, as `steps`.
        steps: of one picture.
        done: number of finished steps, by slot.
        previews: (step, picture) of the newest preview of a slot.
        kept: previews of steps in `keep`, which a caller waits for, by (slot, step).
        position: in the queue, as last reported.
        callers: number of connected calls that wait for it.
    """

    id: str
    client: str
    kind: Kind
    request: JobRequest
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
    previews: dict[int, tuple[int, Picture]] = field(
        default_factory=lambda: dict[int, tuple[int, Picture]]()
    )
    kept: dict[tuple[int, int], Picture] = field(
        default_factory=lambda: dict[tuple[int, int], Picture]()
    )
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
        return sum(row.facts["seconds"] for row in self.pictures.values())

    @property
    def forwards(self) -> int:
        """Total network passes of its finished pictures."""
        return sum(row.facts["forwards"] for row in self.pictures.values())


def picture_json(row: PictureRow) -> dict[str, Any]:
    """A picture as JSON of the API."""
    url = f"/api/pictures/{row.id}/file"
    return {
        "id": row.id,
        "job": row.job,
        "slot": row.slot,
        "created": row.created,
        "class_label": None,
        "model": None,
        **row.facts,
        "url": f"{url}?format=png",
        "thumbnail": f"{url}?format=webp",
        "deleted": row.deleted is not None,
    }


def job_row(job: Job) -> JobRow:
    """The database row of a job."""
    return JobRow(
        id=job.id,
        client=job.client,
        kind=job.kind,
        state=job.state,
        created=job.created,
        started=job.started,
        finished=job.finished,
        request=job.request.model_dump(),
        slots=[slot.model_dump() for slot in job.slots],
        error=None,
    )


def state_named(text: str) -> State:
    """Parse the state in a row of the database.

    Raises:
        ValueError: there is none of that name.
    """
    for state in ("queued", "running", "done", "failed", "cancelled"):
        if text == state:
            return state
    raise ValueError(f"The database has a job in the state {text!r}.")
