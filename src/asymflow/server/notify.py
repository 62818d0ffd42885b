"""A bell that threads ring and coroutines wait for."""

from __future__ import annotations

import asyncio
import threading


class Broadcast:
    """Wakes every coroutine that waits, in whatever event loop it runs."""

    def __init__(self) -> None:
        # Signal handlers ring, too, and may come while their own thread holds the lock.
        self._lock = threading.RLock()
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def ring(self) -> None:
        """Wake those that wait now. Any thread may do so."""
        with self._lock:
            for event, loop in self._waiting.items():
                loop.call_soon_threadsafe(event.set)

    def listen(self) -> Listener:
        """Hear every ring from now on until the context is left."""
        return Listener(self)

    def add(self, event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._waiting[event] = loop

    def drop(self, event: asyncio.Event) -> None:
        with self._lock:
            self._waiting.pop(event, None)


class Listener:
    """Somebody who waits for a bell; no ring between two waits is missed."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._bell = broadcast
        self._event = asyncio.Event()

    def __enter__(self) -> Listener:
        self._bell.add(self._event, asyncio.get_running_loop())
        return self

    def __exit__(self, *details: object) -> None:
        self._bell.drop(self._event)

    async def wait(self, seconds: float) -> bool:
        """Wait for a ring; False when there was none for so long."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        self._event.clear()
        return True
