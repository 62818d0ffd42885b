"""Connections that are slow, silent or too many.

Uvicorn limits only how long a connection stays open between two calls. Here, too: how long the head
of a request may take, how long an answer may lie untaken, how fast the rest of a body has to come
that nobody reads any more, and how many connections are open. Where there is one too many, those go
that the server does least for: the silent ones first, and never one whose call is being answered.
(How fast a body has to come that is read is the matter of `asymflow.server.bodies`.)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

if sys.platform != "win32":
    import resource

from asymflow.server.problems import ProblemDetail, envelope
from asymflow.server.settings import Settings

BACKLOG = 128
"""Connections that wait to be taken, and that are taken at a time."""
_BATCH = 16
"""A connection too many makes one in so many go, so that the next ones need not look again."""
_FILES = 100
"""That the server itself has open: its database, pictures, pipes, libraries."""
_SPOOLED = 2**20
"""Bytes of a file in a form from which on it is a file on the disk, too."""


class Config(uvicorn.Config):
    """How uvicorn serves an application within our limits."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            app,
            host=settings.host,
            port=settings.port,
            http=Connection,
            ws="none",  # else a connection could leave these limits by an upgrade
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=settings.keep_alive_seconds,
        )
        self.settings = settings


class Connection(H11Protocol):
    """One connection, and what it keeps the server waiting for."""

    def __init__(self, config: Config, *args: Any, **more: Any) -> None:
        super().__init__(config, *args, **more)
        self._limits = config.settings
        self._heard = False  # of the next request
        self._began = self.loop.time()  # what it is waited for
        self._fed = 0  # bytes since then
        self._unsent = 0  # bytes of answers, when that was last looked at
        self._moved = self._began  # when they last became fewer

    @property
    def unsent(self) -> int:
        """Bytes of answers that the client has not taken."""
        return self._unsent

    @property
    def moved(self) -> float:
        """When the client last took some of them."""
        return self._moved

    @property
    def busy(self) -> bool:
        """Whether a call is being answered, or its body read."""
        return bool(self.cycle) and not self.cycle.response_complete

    @property
    def rank(self) -> tuple[int, float]:
        """How dear this connection is: the lowest goes first, and of equals the oldest."""
        if not self.busy:
            return (1 if self._heard else 0), self._began
        if self.cycle.more_body:
            return 2, self._began
        return (3, self._moved) if self.flow.write_paused else (4, self._began)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        most = self._limits.connections
        if len(self.connections) <= most:
            return
        others = self.connections - {self}
        if sum(not each.transport.is_closing() for each in others) < most:
            return
        if not make_room(others):
            self._refuse(503, "Too many calls are being answered. Try again in a moment.")

    def data_received(self, data: bytes) -> None:
        if not self._heard:
            self._heard = True
            if self.conn.their_state is not h11.SEND_BODY:
                self._began, self._fed = self.loop.time(), 0
        self._fed += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._heard = False
        self._began, self._fed = self.loop.time(), 0
        super().on_response_complete()

    def look(self, now: float) -> None:
        """End the connection if it has kept the server waiting for too long."""
        unsent = self.transport.get_write_buffer_size()
        # While the application goes on writing, it is not the client that is waited for.
        writing = self.busy and not self.flow.write_paused
        if unsent == 0 or unsent < self._unsent or writing:
            self._moved = now
        self._unsent = unsent
        if now - self._moved > self._limits.answer_seconds:
            self.transport.abort()
        elif not self.transport.is_closing() and not self.busy and self._late(now):
            if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
                self._refuse(
                    408,
                    "The head of the request took more than "
                    f"{self._limits.head_seconds:g} seconds. Send it at once.",
                )
            else:
                self.transport.close()

    def _late(self, now: float) -> bool:
        if self.conn.their_state is h11.SEND_BODY:  # the rest of a body whose call is answered
            if now - self._began <= self._limits.body_seconds:
                return False
            if self._fed < self._limits.body_seconds * self._limits.body_pace:
                return True
            self._began, self._fed = now, 0
            return False
        # Between two calls uvicorn's own timer runs.
        waiting = self._heard or not self.cycle
        return waiting and now - self._began > self._limits.head_seconds

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is no call yet, and hang up."""
        code = "too_busy" if status == 503 else "too_slow"
        kind = "server_error" if status == 503 else "invalid_request_error"
        body = json.dumps(envelope(ProblemDetail(message, kind, code=code))).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        if status == 503:
            headers["Retry-After"] = "1"
        for event in (
            h11.Response(
                status_code=status, headers=list(headers.items()), reason=STATUS_PHRASES[status]
            ),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()


def fitting(settings: Settings) -> int:
    """The connections that the files suffice for which this process may open.

    As many more are allowed it as are lacking, where the system lets it have them.
    """
    if sys.platform == "win32":
        return settings.connections
    own = _FILES + BACKLOG + settings.body_space // _SPOOLED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.connections + own
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return settings.connections
    return min(settings.connections, max(soft - own, soft // 4))


def look_after(connections: Iterable[Any], settings: Settings, now: float) -> None:
    """End the connections that keep the server waiting, or that have it hold too much for them."""
    found = [each for each in connections if isinstance(each, Connection)]
    for each in found:
        each.look(now)
    held = sum(each.unsent for each in found)
    for each in sorted(found, key=lambda each: (each.moved, -each.unsent)):
        if held <= settings.answer_space:
            return
        held -= each.unsent
        if each.unsent:
            each.transport.abort()


def make_room(connections: Iterable[Any]) -> bool:
    """End some of the connections that the server does least for; whether there were any."""
    found = [
        each
        for each in connections
        if isinstance(each, Connection) and not each.transport.is_closing() and each.rank[0] < 4
    ]
    found.sort(key=lambda each: each.rank)
    gone = found[: 1 + len(found) // _BATCH]
    for each in gone:
        each.transport.abort()
    return bool(gone)
