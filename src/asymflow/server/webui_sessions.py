"""What each client of the web UI's API has chosen, and what is drawn for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from asymflow.server.jobs import Job, Look
from asymflow.server.manager import JobManager

_CLIENTS = 10_000
"""Clients whose choice of model is remembered; the least recent ones are dropped."""


@dataclass(slots=True, eq=False)
class Drawing:
    """A call that waits for its pictures.

    Attributes:
        previews: of pictures that were unfinished when it was interrupted, by slot.
        interrupted: whether it was.
    """

    job: Job
    previews: dict[int, Look] = field(default_factory=lambda: dict[int, Look]())
    interrupted: bool = False


class Sessions:
    """The clients of a server. Only its event loop uses this."""

    def __init__(self) -> None:
        self._chosen: OrderedDict[str, str] = OrderedDict()
        self._drawings: dict[str, list[Drawing]] = {}

    def chosen(self, client: str) -> str | None:
        """The id of the model that a client has chosen."""
        return self._chosen.get(client)

    def choose(self, client: str, id: str) -> None:
        """Remember the model of a client."""
        self._chosen.pop(client, None)
        self._chosen[client] = id
        if len(self._chosen) > _CLIENTS:
            self._chosen.popitem(last=False)

    @contextmanager
    def drawing(self, client: str, job: Job) -> Generator[Drawing]:
        """A call in progress."""
        found = Drawing(job)
        mine = self._drawings.setdefault(client, [])
        mine.append(found)
        try:
            yield found
        finally:
            mine.remove(found)
            if not mine:
                self._drawings.pop(client, None)

    def current(self, client: str) -> Drawing | None:
        """The oldest call of a client that is not over."""
        return next((each for each in self._drawings.get(client, ()) if not each.job.over), None)

    def interrupt(self, manager: JobManager, client: str) -> None:
        """End the current call of a client, which answers with what there is."""
        found = self.current(client)
        if found is None:
            return
        for slot in range(len(found.job.slots)):
            newest = manager.newest(found.job, slot)
            if newest is not None and slot not in found.job.pictures:
                found.previews[slot] = newest[1]
        found.interrupted = True
        manager.cancel(found.job)
