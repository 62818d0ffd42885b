"""Limits for request bodies: minimal speed, and memory.

Received bytes count, not announced ones. When all bodies together exceed the limit, one is
refused: the largest incomplete body of the client that holds the most. So clients with small
bodies are served whatever others send.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from starlette.types import Message, Receive

from asymflow.server.problems import ApiError
from asymflow.server.settings import Settings

_SMALL = 65_536
"""Bytes that are always accepted: uvicorn buffers as many of a body anyway."""


class Bodies:
    """All request bodies in memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: set[Body] = set()

    @contextmanager
    def one(self, receive: Receive, client: str, limit: int, *, empty: bool) -> Generator[Body]:
        """The body of a call, whose memory is counted until the context exits.

        Args:
            receive: ASGI's function that returns it in pieces.
            client: that sends it.
            limit: maximal number of bytes.
            empty: whether there is none.
        """
        body = Body(self, self._settings, receive, client, limit)
        body.complete = empty
        self._open.add(body)
        try:
            yield body
        finally:
            self._open.discard(body)

    def complete(self) -> int:
        """Number of calls whose body is complete."""
        return sum(body.complete for body in self._open)

    def check(self, newest: Body) -> None:
        """Refuse bodies until the rest fits the limit, after one has grown.

        Raises:
            ApiError: the refused one is the newest itself.
        """
        while sum(body.size for body in self._open) > self._settings.body_space:
            held = Counter[str]()
            for body in self._open:
                held[body.client] += body.size
            large = [
                body
                for body in self._open
                if body.size > _SMALL and (body is newest or not body.complete)
            ]
            holding = sum(body.size > 0 for body in self._open)
            if not large or holding == 1:  # a single body larger than the limit is accepted
                return
            most = max(large, key=lambda body: (held[body.client], body.size, body is newest))
            most.give_way()
            if most is newest:
                raise crowded()


class Body:
    """The body of one call, as the application receives it."""

    def __init__(
        self, bodies: Bodies, settings: Settings, receive: Receive, client: str, limit: int
    ) -> None:
        self.client = client
        self.size = 0
        self.complete = False
        self._bodies = bodies
        self._limit = limit
        self._receive = receive
        self._got = 0
        self._seconds = settings.body_seconds
        self._least = settings.body_seconds * settings.body_pace
        self._left = self._seconds  # seconds of waiting until the minimal amount must have arrived
        self._came = 0  # bytes received in this time
        self._gives_way = False
        self._timeout: asyncio.Timeout | None = None

    def give_way(self) -> None:
        """Refuse this body, and stop waiting for it."""
        self._gives_way = True
        self.size = 0
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def receive(self) -> Message:
        """The next message of the call.

        Raises:
            ApiError: the body is too long, too slow, or refused for lack of memory.
        """
        if self.complete:  # further calls wait for the client to disconnect
            return await self._receive()
        message = await self._next()
        if message["type"] != "http.request":
            return message
        size = len(message.get("body", b""))
        self._got += size
        if self._got > self._limit:
            raise too_long(self._limit)
        self._came += size
        self.size += size
        self.complete = not message.get("more_body", False)
        self._bodies.check(self)
        return message

    async def _next(self) -> Message:
        # Count only the time in which the server waits for the client, not the reverse.
        while True:
            if self._gives_way:
                raise crowded()
            loop = asyncio.get_running_loop()
            since = loop.time()
            try:
                async with asyncio.timeout(self._left) as self._timeout:
                    message = await self._receive()
                if not self._gives_way:
                    return message
            except TimeoutError:
                if self._gives_way:
                    continue
                if self._came < self._least:
                    raise ApiError(
                        408,
                        f"In {self._seconds:g} seconds only {self._came} bytes of the body came, "
                        f"and {self._least:g} is the least. Send it faster, or make it smaller.",
                        code="too_slow",
                    ) from None
                self._left, self._came = self._seconds, 0
                since = loop.time()
            finally:
                self._timeout = None
                self._left -= loop.time() - since


def crowded() -> ApiError:
    """The error for bodies that exceed the memory limit."""
    return ApiError(
        503,
        "Too many large bodies are sent at a time. Try again in a moment.",
        code="too_busy",
        retry_after=1,
    )


def too_long(limit: int) -> ApiError:
    """The error for a body that is too long."""
    return ApiError(
        413,
        f"The body has more than the {limit} bytes that are taken. Send less.",
        code="too_long",
        values={"limit": limit},
    )
