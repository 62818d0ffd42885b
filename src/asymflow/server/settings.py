"""The settings of a server, with all limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from asymflow.core.errors import InputError
from asymflow.io import images

STATIC = Path(__file__).parent / "static"
"""The page of the studio."""
PICTURES = 4
"""Maximal number of pictures per combination of a prompt."""
COMBINATIONS = 16
LARGEST = 2048
"""Maximal side of an enlarged picture."""
KEEP_MODELS = 2
"""Models that are loaded at a time."""

_LEAVING = 3.5
"""Seconds for sending responses, ending the current step, and closing everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A server's address, its folder and its limits.

    Attributes:
        data: folder of the database, pictures and uploads.
        host: address to listen on. Off loopback, a token is needed.
        hosts: allowed host names of requests; on loopback its own ones are always required, and
            elsewhere all are allowed if this is empty.
        models: references of the models that are served, of which the first is the default; the
            embedded one if there are none.
        keep_models: maximal number of models that are loaded; beyond it, the one that was used
            least recently makes room.
        together: pictures per network call; by default the number from which more gain nothing, as
            measured, and as memory permits (`asymflow.server.call_sizes`).
        queue: maximal number of queued pictures; `queue_of_one` is that of a single client.
        picture_seconds: time limit of a picture; `wait_seconds` is that of a queued job.
        network_seconds: time limit of one network pass, after which its process counts as hung.
        drain_seconds: time for running pictures and calls that wait for them after a signal to
            stop. The server ends within `stop_seconds` in any case.
        notice_seconds: time between reporting the stop and the end of listening, so that load
            balancers notice; by default none on loopback, and else two seconds.
        upload_bytes, upload_pixels: limits of an uploaded picture.
        upload_space: bytes of all uploads, beyond which the oldest are deleted; `body_space` is
            the limit of all request bodies in memory.
        slow_together: pictures that are read, enlarged or packed at a time; `slow_waiting` may
            wait for that, and `slow_waiting_of_one` of a single address.
        connections: maximal number of open ones; beyond that, idle ones are closed.
        head_seconds: time limit for the head of a request; `keep_alive_seconds` is that of an
            idle connection between two calls.
        body_seconds: interval in which a body must have at least `body_pace` bytes per second.
        answer_seconds: time after which a response is dropped if the client reads nothing;
            `answer_space` is the limit of unsent bytes of all responses.
        spare: bytes of the disk that stay free.
        rate: calls per second of one client on average; `burst` at once.
        undo_seconds: time after which a deleted picture is removed permanently.
        passing_seconds: time after which pictures outside of the gallery are removed.
        upload_seconds: time after which uploads are removed.
        gallery_seconds: time after which pictures of the gallery are removed that are no
            favourites; None to keep them.
        proxies: addresses or networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are
            believed.
        public_url: what clients call this server; by default what they have called it.
        browser: serve the front end.
        replicated: this is one of several servers that share no disk, and a client may reach
            another one with every call. So there are only calls that need one answer: those of
            OpenAI's clients, with pictures in the response.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    hosts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    keep_models: int = KEEP_MODELS
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
    upload_seconds: float = 7 * 86_400.0
    gallery_seconds: float | None = None
    proxies: tuple[str, ...] = ()
    public_url: str | None = None
    browser: bool = True
    replicated: bool = False

    def __post_init__(self) -> None:
        if not self.loopback and self.token is None:
            raise InputError(
                f"On {self.host} everybody in the network could use this server. Give a secret "
                "with --token-file or ASYMFLOW_TOKEN, or stay on --host 127.0.0.1."
            )
        if self.public_url is not None and not self.public_url.startswith(("http://", "https://")):
            raise InputError(
                f"{self.public_url!r} is not the address of a server. Give one such as "
                "https://pictures.example.org."
            )
        if self.token is not None and len(self.token) < 16:
            raise InputError(
                f"The token has {len(self.token)} characters, which can be guessed. Give 16 or "
                "more, such as from: openssl rand -hex 24."
            )

    @property
    def calls(self) -> int:
        """Maximal number of concurrent calls, which leaves connections that can be closed."""
        return self.connections // 2

    @property
    def notice(self) -> float:
        """Minimal number of seconds between the signal to stop and the end of listening."""
        if self.notice_seconds is not None:
            return self.notice_seconds
        return 0.0 if self.loopback else 2.0

    @property
    def stop_seconds(self) -> float:
        """Maximal number of seconds from the signal to stop to the end of the process.

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
        """Allowed host names of requests; empty for any."""
        own = ("localhost", "127.0.0.1", "::1", self.host) if self.loopback else ()
        return frozenset((*own, *self.hosts))
