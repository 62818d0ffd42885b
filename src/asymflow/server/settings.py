"""How a server is set up. Every limit lives here."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from asymflow.core.errors import InputError
from asymflow.io import images

SIDES = range(32, 129, 8)
"""Sides that pictures can be asked for: those that the model was trained on."""
PICTURES = 4
"""Of one combination of a prompt."""
COMBINATIONS = 16
LARGEST = 2048
"""Side to which a finished picture is enlarged at most."""

_LEAVING = 3.5
"""Seconds in which answers are sent, a step is left, and everything is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A server's address, its folder and its limits.

    Attributes:
        data: folder of the database, pictures and uploads.
        host: address to listen on. Off loopback, a token is needed.
        hosts: names that a request may call the server by; on loopback always its own ones only,
            and elsewhere any when this is empty.
        together: pictures that walk together; without it, as many as the model takes in one call.
        queue: pictures that may wait; `queue_of_one` of a single client.
        picture_seconds: that a picture may take, and `wait_seconds` that a job may wait.
        network_seconds: that the process of the network may take for one pass before it counts as
            hung.
        drain_seconds: that pictures and the calls that wait for them may go on when the server is
            stopped. It ends within `stop_seconds` whatever happens.
        notice_seconds: that it says so for before it stops listening, while others may still send
            it calls; without it none on loopback, and else two.
        upload_bytes, upload_pixels: of a picture that is sent.
        upload_space: bytes of all pictures that are sent, of which the oldest make room for new
            ones; `body_space` of all bodies that are held in memory at a time.
        slow_together: pictures that are read, enlarged or packed at a time; `slow_waiting` wait for
            that, and `slow_waiting_of_one` of a single address.
        connections: that are open at a time; beyond that, those that wait for nothing make room.
        head_seconds: that the head of a request may take, and `keep_alive_seconds` that a
            connection stays open between two calls.
        body_seconds: in each of which `body_pace` bytes per second of a body have to come.
        answer_seconds: after which an answer is given up of which the client takes nothing;
            `answer_space` bytes of all answers wait to be taken at a time.
        spare: bytes of the disk that stay free.
        rate: calls per second of one client in the long run, and `burst` at once.
        undo_seconds: after which a deleted picture is gone for good.
        passing_seconds: after which pictures that are in no gallery are gone.
        browser: serve the front end.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    hosts: tuple[str, ...] = ()
    weights: Path | None = None
    dtype: str | None = None
    device: str | None = None
    together: int | None = None
    queue: int = 256
    queue_of_one: int = 96
    picture_seconds: float = 600.0
    wait_seconds: float = 3600.0
    network_seconds: float = 60.0
    drain_seconds: float = 6.0
    notice_seconds: float | None = None
    upload_bytes: int = 20_000_000
    upload_pixels: int = images.MAX_PIXELS
    upload_space: int = 1_000_000_000
    body_space: int = 200_000_000
    slow_together: int = 2
    slow_waiting: int = 64
    slow_waiting_of_one: int = 32
    connections: int = 2048
    head_seconds: float = 10.0
    keep_alive_seconds: int = 75
    body_seconds: float = 30.0
    body_pace: int = 1000
    answer_seconds: float = 60.0
    answer_space: int = 200_000_000
    spare: int = 200_000_000
    rate: float = 10.0
    burst: int = 120
    undo_seconds: float = 86_400.0
    passing_seconds: float = 3600.0
    browser: bool = True

    def __post_init__(self) -> None:
        if not self.loopback and self.token is None:
            raise InputError(
                f"On {self.host} everybody in the network could use this server. Give a secret "
                "with --token-file or ASYMFLOW_TOKEN, or stay on --host 127.0.0.1."
            )
        if self.token is not None and len(self.token) < 16:
            raise InputError(
                f"The token has {len(self.token)} characters, which can be guessed. Give 16 or "
                "more, such as from: openssl rand -hex 24."
            )

    @property
    def calls(self) -> int:
        """That are answered at a time, so that connections are left to make room."""
        return self.connections // 2

    @property
    def notice(self) -> float:
        """Seconds between the signal to stop and the end of listening, at least."""
        if self.notice_seconds is not None:
            return self.notice_seconds
        return 0.0 if self.loopback else 2.0

    @property
    def stop_seconds(self) -> float:
        """Seconds from the signal to stop to the end of the process, at most.

        By default less than the 10 seconds after which containers are killed.
        """
        return max(self.drain_seconds, self.notice) + _LEAVING

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Names that a request may call the server by; empty for any."""
        own = ("localhost", "127.0.0.1", "::1", self.host) if self.loopback else ()
        return frozenset((*own, *self.hosts))
