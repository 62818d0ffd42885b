"""Server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi.responses import StreamingResponse

from asymflow.studio.jobs import Engine, Event, Job

_QUIET = 15.0
"""Seconds after which something is sent so that no proxy takes the line for dead."""
_KEEP_ALIVE = b": still here\n\n"
FINAL = frozenset({"done", "failed", "cancelled"})


def message(name: str, data: Mapping[str, Any], number: int | None = None) -> bytes:
    """One event on the wire."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n".encode()


def response(events: AsyncGenerator[bytes]) -> StreamingResponse:
    """A response that nobody may keep or hold back."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def follow(engine: Engine, job: Job, after: int) -> AsyncGenerator[Event | None]:
    """What happens to a job, to its end; None where nothing happened for a while.

    Ends early when the server stops.
    """
    with job.bell.listen() as listener:
        while True:
            events = engine.events(job, after)
            for event in events:
                after = event.number
                yield event
                if event.name in FINAL:
                    return
            if engine.closing or (job.over and not events):
                return
            if not await listener.wait(_QUIET):
                yield None


async def job_events(engine: Engine, job: Job, after: int) -> AsyncGenerator[bytes]:
    """`follow` on the wire."""
    async for event in follow(engine, job, after):
        yield _KEEP_ALIVE if event is None else message(event.name, event.data, event.number)


async def changes(engine: Engine, after: int | None) -> AsyncGenerator[bytes]:
    """Every change of state of any job; without a number to go on from, first what is going on."""
    with engine.changed.listen() as listener:
        if after is None:
            after = engine.last_change()
            for job in engine.active():
                yield message("job", {"job": engine.json(job)}, after)
        yield _KEEP_ALIVE
        while not engine.closing:
            for event in engine.changes_after(after):
                after = event.number
                yield message(event.name, event.data, event.number)
            if not await listener.wait(_QUIET):
                yield _KEEP_ALIVE
