"""Notifications from threads to coroutines."""

from __future__ import annotations

import asyncio
import threading


class Broadcast:
    """Wakes every coroutine that waits, in whatever event loop it runs."""

    def __init__(self) -> None:
        # Signal handlers call `ring`, too, possibly while their own thread holds the lock.
        self._lock = threading.RLock()
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def ring(self) -> None:
        """Wake all waiting listeners. Thread-safe."""
        with self._lock:
            for event, loop in self._waiting.items():
                loop.call_soon_threadsafe(event.set)

    def listen(self) -> Listener:
        """Receive every notification from now on until the context exits."""
        return Listener(self)

    def add(self, event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._waiting[event] = loop

    def drop(self, event: asyncio.Event) -> None:
        with self._lock:
            self._waiting.pop(event, None)


class Listener:
    """A subscriber; no notification between two waits is missed."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._bell = broadcast
        self._event = asyncio.Event()

    def __enter__(self) -> Listener:
        self._bell.add(self._event, asyncio.get_running_loop())
        return self

    def __exit__(self, *details: object) -> None:
        self._bell.drop(self._event)

    async def wait(self, seconds: float) -> bool:
        """Wait for a notification; False after the timeout."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        self._event.clear()
        return True
