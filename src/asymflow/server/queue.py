"""A fair order between clients: start-time fair queueing.

Every picture gets a start tag, the later of the queue's virtual time and the end of its client's
last one, and the smallest tag goes first. So a client that requests many pictures delays itself,
not others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    start: float
    number: int
    finish: float
    client: str
    item: T


class FairQueue(Generic[T]):
    """Items of clients, each with a cost in any unit. Not safe to share between threads."""

    def __init__(self) -> None:
        self._entries: list[_Entry[T]] = []
        self._finish: dict[str, float] = {}
        self._now = 0.0
        self._count = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[T]:
        """Iterate in the order of service."""
        return (entry.item for entry in self._entries)

    def of(self, client: str) -> int:
        """Number of waiting items of a client."""
        return sum(entry.client == client for entry in self._entries)

    def push(self, item: T, client: str, cost: float) -> None:
        """Put an item at its place."""
        start = max(self._now, self._finish.get(client, 0.0))
        self._count += 1
        self._finish[client] = start + cost
        self._entries.append(_Entry(start, self._count, start + cost, client, item))
        self._entries.sort(key=lambda entry: (entry.start, entry.number))

    def pop(self, limit: int, where: Callable[[T], bool] | None = None) -> list[T]:
        """Remove the first items, at most `limit`; only those that fit, if `where` is given."""
        fitting = [entry for entry in self._entries if where is None or where(entry.item)]
        taken = fitting[:limit]
        if not taken:
            return []
        self._now = max(self._now, taken[0].start)
        self._drop({entry.number for entry in taken})
        return [entry.item for entry in taken]

    def remove(self, where: Callable[[T], bool]) -> list[T]:
        """Take out items wherever they are."""
        taken = [entry for entry in self._entries if where(entry.item)]
        self._drop({entry.number for entry in taken})
        for client in {entry.client for entry in taken}:
            # Cancelled items do not count against their client.
            left = [entry.finish for entry in self._entries if entry.client == client]
            self._finish[client] = max(left, default=self._now)
        return [entry.item for entry in taken]

    def _drop(self, numbers: set[int]) -> None:
        self._entries = [entry for entry in self._entries if entry.number not in numbers]
        if not self._entries:
            self._finish.clear()
            self._now = 0.0
        # What ended in the past says no more than a name that is not there.
        self._finish = {name: end for name, end in self._finish.items() if end > self._now}
