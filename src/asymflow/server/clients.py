"""Who calls: the owner of what is made, and the client that waits its turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

OPERATOR = ""
"""The owner of what the operator makes, and the one person of a server without tokens."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Client:
    """The caller of an API.

    Attributes:
        owner: the name of its token, or `OPERATOR`. What is made belongs to it.
        address: of its machine.
        tab: what it calls itself; it tells the live pictures of one page from those of another.
        valid: whether its token still is, for calls that never end.
    """

    owner: str = OPERATOR
    address: str = "?"
    tab: str = ""
    valid: Callable[[], bool] = field(default=_always, compare=False)

    @property
    def name(self) -> str:
        """For limits and fair queueing: what a client calls itself is not believed."""
        return self.address if self.owner == OPERATOR else f"@{self.owner}"

    @property
    def session(self) -> str:
        """For what a client has chosen."""
        return f"{self.name} {self.tab}"
