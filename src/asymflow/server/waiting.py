"""Calls that wait for their pictures, and leave them when the client disconnects."""

from __future__ import annotations

import asyncio

from fastapi import Request

from asymflow.server import streams
from asymflow.server.jobs import Job
from asymflow.server.manager import JobManager
from asymflow.server.problems import ApiError, ProblemDetail, refused


async def over(call: Request, manager: JobManager, job: Job) -> None:
    """Wait until a job has ended, the caller disconnects, or the server stops; leave the job."""
    ended = asyncio.create_task(_ended(manager, job))
    gone = asyncio.create_task(_gone(call))
    try:
        await asyncio.wait((ended, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
        gone.cancel()
        manager.leave(job)


def failure(job: Job) -> ApiError:
    """The error response to a call whose job is not done."""
    return refused(
        job.error
        or ProblemDetail(
            "The pictures were cancelled. Send the request again.", "server_error", code="cancelled"
        )
    )


async def _ended(manager: JobManager, job: Job) -> None:
    async for _ in streams.follow(manager, job, -1):
        pass


async def _gone(call: Request) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass
