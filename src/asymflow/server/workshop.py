"""A queue for work that takes seconds or much memory, with limited concurrency.

Pictures are read, enlarged or packed a few at a time, in separate threads, so that other calls
find a free thread. Waiting calls use no thread. Clients are served fairly by the cost of their
work, and beyond a number of waiting calls further ones are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect

from asymflow.server import memory
from asymflow.server.problems import ApiError
from asymflow.server.queue import FairQueue
from asymflow.server.settings import Settings

T = TypeVar("T")
Args = TypeVarTuple("Args")


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of some work.

    Attributes:
        name: for fair queueing.
        gone: whether the caller has disconnected.
    """

    name: str
    gone: Callable[[], Awaitable[bool]]


class Workshop:
    """Runs such work, for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._busy = 0
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._threads = CapacityLimiter(settings.slow_together)

    async def do(
        self,
        caller: Caller,
        cost: float,
        function: Callable[[*Args], T],
        *args: *Args,
        patient: bool = False,
    ) -> T:
        """Run a function when it is the caller's turn, and return its result.

        Args:
            caller: for fair queueing.
            cost: in millions of pixels.
            function: to run.
            args: of the function.
            patient: never refuse; for calls that have already cost more than this work.

        Raises:
            ApiError: too many wait.
            ClientDisconnect: the caller has disconnected meanwhile.
        """
        await self._turn(caller.name, cost, patient=patient)
        try:
            if await caller.gone():
                raise ClientDisconnect
            return await to_thread.run_sync(self._work, function, *args, limiter=self._threads)
        finally:
            self._pass_on()

    def _work(self, function: Callable[[*Args], T], *args: *Args) -> T:
        try:
            return function(*args)
        finally:
            if not self._queue:
                memory.give_back()

    async def _turn(self, client: str, cost: float, *, patient: bool) -> None:
        settings = self._settings
        if self._busy < settings.slow_together:
            self._busy += 1
            return
        full = len(self._queue) >= settings.slow_waiting
        full = full or self._queue.of(client) >= settings.slow_waiting_of_one
        if full and not patient:
            raise ApiError(
                503,
                f"{len(self._queue)} pictures wait to be read or enlarged. Try again in a moment.",
                code="too_busy",
                retry_after=5,
            )
        turn = asyncio.get_running_loop().create_future()
        self._queue.push(turn, client, cost)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            else:
                self._queue.remove(lambda each: each is turn)
            raise

    def _pass_on(self) -> None:
        """Start the next work in the queue."""
        while turns := self._queue.pop(1):
            if not turns[0].cancelled():
                turns[0].set_result(None)
                return
        self._busy -= 1
