"""Limits for connections that are slow, idle or too many.

Uvicorn limits only the idle time of a connection between two calls. Here are further limits: the
time for the head of a request, the time for which a client may not read a response, the speed of
the rest of a body that is being discarded, and the number of open connections. Beyond that number,
the least active connections are closed: idle ones first, and never one with a call in progress.
(The speed of a body that is read is limited by `asymflow.server.bodies`.)
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
"""Connections that may wait to be accepted, and that are accepted at a time."""
_BATCH = 16
"""One in this many connections is closed when there are too many, to amortise the search."""
_FILES = 100
"""Files that the server itself has open: its database, pictures, pipes, libraries."""
_SPOOLED = 2**20
"""Size in bytes from which an uploaded file in a form is stored in a file on the disk."""


class Config(uvicorn.Config):
    """How uvicorn serves an application within our limits."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            app,
            host=settings.host,
            port=settings.port,
            http=Connection,
            ws="none",  # otherwise a connection could escape these limits by an upgrade
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=settings.keep_alive_seconds,
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=list(settings.proxies),
        )
        self.settings = settings


class Connection(H11Protocol):
    """One connection, with the times at which it last made progress."""

    def __init__(self, config: Config, *args: Any, **more: Any) -> None:
        super().__init__(config, *args, **more)
        self._limits = config.settings
        self._heard = False  # whether the next request has begun
        self._began = self.loop.time()  # since when the server waits for it
        self._fed = 0  # bytes received since then
        self._unsent = 0  # unsent bytes of responses at the last check
        self._moved = self._began  # when they last decreased

    @property
    def unsent(self) -> int:
        """Bytes of responses that the client has not received."""
        return self._unsent

    @property
    def moved(self) -> float:
        """When the client last received some of them."""
        return self._moved

    @property
    def busy(self) -> bool:
        """Whether a call is in progress."""
        return bool(self.cycle) and not self.cycle.response_complete

    @property
    def rank(self) -> tuple[int, float]:
        """The priority of this connection: the lowest is closed first, and of equals the oldest."""
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

    def check(self, now: float) -> None:
        """Close the connection if it exceeds a time limit."""
        unsent = self.transport.get_write_buffer_size()
        # While the application is writing, the server does not wait for the client.
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
        if self.conn.their_state is h11.SEND_BODY:  # the rest of a body after the response
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
        """Send an error for an incomplete request, and close the connection."""
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
    """The number of connections permitted by the limit of open files.

    The limit is raised as far as needed, if the system permits it.
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
    """Close connections that exceed time limits, or the limit of unsent bytes."""
    found = [each for each in connections if isinstance(each, Connection)]
    for each in found:
        each.check(now)
    held = sum(each.unsent for each in found)
    for each in sorted(found, key=lambda each: (each.moved, -each.unsent)):
        if held <= settings.answer_space:
            return
        held -= each.unsent
        if each.unsent:
            each.transport.abort()


def make_room(connections: Iterable[Any]) -> bool:
    """Close some of the least active connections; return whether there were any."""
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
