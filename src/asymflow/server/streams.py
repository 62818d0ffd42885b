"""Server-sent events."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import Any

from fastapi.responses import StreamingResponse

from asymflow.server import media, views
from asymflow.server.clients import Client
from asymflow.server.jobs import Event, Job, Look
from asymflow.server.manager import JobManager
from asymflow.server.views import FINAL

_QUIET = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""
KEEP_ALIVE = b": still here\n\n"
TYPE = "text/event-stream"
HEADERS = MappingProxyType({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
"""Headers that disable caching and buffering of streams."""
_PREVIEW_SHARE = 0.02
"""Maximal share of processor time for the previews of one subscriber."""


def message(name: str, data: Mapping[str, Any], number: int | None = None) -> bytes:
    """One event on the wire."""
    return _line(name, json.dumps(data, allow_nan=False), number)


def _said(data: views.Said, number: int | None = None) -> bytes:
    return _line(data.event, data.model_dump_json(), number)


def _line(name: str, data: str, number: int | None) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {data}\n\n".encode()


def response(events: AsyncGenerator[bytes]) -> StreamingResponse:
    """A response of events."""
    return StreamingResponse(events, media_type=TYPE, headers=HEADERS)


async def follow(manager: JobManager, job: Job, after: int) -> AsyncGenerator[Event | None]:
    """The events of a job until its end; None after a while without events.

    Ends early when the server stops.
    """
    with job.broadcast.listen() as listener:
        while True:
            events = manager.events(job, after)
            for event in events:
                after = event.number
                yield event
                if event.name in FINAL:
                    return
            if manager.closing or (job.over and not events):
                return
            if not await listener.wait(_QUIET):
                yield None


async def job_events(
    manager: JobManager, client: Client, job: Job, after: int, *, previews: bool = False
) -> AsyncGenerator[bytes]:
    """`follow` as server-sent events.

    Args:
        manager: has the job.
        client: that hears it, as long as its token is valid.
        job: to follow.
        after: number of the last event received.
        previews: send previews as data URLs in steps, instead of their addresses.
    """
    shown = _Previews(manager, job)
    async for event in follow(manager, job, after):
        if not client.valid():
            return
        if event is None:
            yield KEEP_ALIVE
            continue
        data = event.data
        if previews and isinstance(data, views.Stepped):
            data = await shown.put_into(data)
        yield _said(data, event.number)


class _Previews:
    """Previews of a job's pictures, limited by their cost; the first of each is sent at once.

    A separate call for every preview would cost several times as much as the preview.
    """

    def __init__(self, manager: JobManager, job: Job) -> None:
        self._manager = manager
        self._job = job
        self._next: dict[int, float] = {}

    async def put_into(self, data: views.Stepped) -> views.Stepped:
        """The event of a step with its preview, or without one."""
        return data.model_copy(update={"preview": await self._of(data.slot, data.step)})

    async def _of(self, slot: int, step: int) -> str | None:
        """The preview of a step as a data URL; None if it is outdated."""
        now = time.monotonic()
        found = self._manager.newest(self._job, slot)
        last = step == self._job.steps - 1  # the picture itself follows immediately
        if found is None or found[0] != step or last or now < self._next.get(slot, 0.0):
            return None
        url, seconds = await asyncio.to_thread(self._encoded, found[1])
        together = max(len(self._job.slots), self._manager.drawing())
        self._next[slot] = now + seconds * together / _PREVIEW_SHARE
        return url

    def _encoded(self, look: Look) -> tuple[str, float]:
        """A data URL, and its processor time in seconds."""
        before = time.thread_time()
        data = media.preview(look(), composite=self._job.request.mask is not None)
        url = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
        return url, time.thread_time() - before


async def everything(
    manager: JobManager, client: Client, *, previews: bool = False
) -> AsyncGenerator[bytes]:
    """Every event of every job of a client's owner, for a page that opens a single stream.

    Begins with the active jobs and their past events. The data of an event is that of the job's own
    stream and the job's id; "job" is sent whenever the state of one changes, and "beat" while
    nothing happens, so that a client can distinguish an idle server from a dead one.

    Args:
        manager: has the jobs.
        client: that hears it, as long as its token is valid.
        previews: as in `job_events`.
    """
    shown: dict[str, _Previews] = {}

    async def encoded(job: Job, event: Event) -> bytes:
        data = event.data
        if previews and isinstance(data, views.Stepped):
            data = await shown.setdefault(job.id, _Previews(manager, job)).put_into(data)
        if event.name in FINAL:
            shown.pop(job.id, None)
        if isinstance(data, views.Changed):
            return _said(data)
        return message(event.name, {"job": job.id, **data.model_dump(mode="json")})

    with manager.job_event_added.listen() as listener:
        after = manager.last_event()
        yield message("beat", {})
        for job in manager.active(client.owner):
            yield _said(views.Changed(job=manager.view(job)))
            for event in manager.events(job, -1):
                if event.number <= after:
                    yield await encoded(job, event)
        while not manager.closing and client.valid():
            for job, event in manager.job_events_after(after, client.owner):
                after = event.number
                yield await encoded(job, event)
            if not await listener.wait(_QUIET):
                yield message("beat", {})


async def changes(manager: JobManager, client: Client, after: int | None) -> AsyncGenerator[bytes]:
    """Every change of state of any job of a client's owner.

    Without a number to resume from, first the active jobs.
    """
    with manager.changed.listen() as listener:
        if after is None:
            after = manager.last_change()
            for job in manager.active(client.owner):
                yield _said(views.Changed(job=manager.view(job)), after)
        yield KEEP_ALIVE
        while not manager.closing and client.valid():
            for event in manager.changes_after(after, client.owner):
                after = event.number
                yield _said(event.data, event.number)
            if not await listener.wait(_QUIET):
                yield KEEP_ALIVE
