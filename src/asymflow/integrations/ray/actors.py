"""Actors of a Ray cluster that make the pictures of a bulk job.

Ray places them, starts nodes for those that find no room, and says which are lost. Which rows are
made, and by whom, the job knows itself: a row that ends its actor is made once more and then given
up, where a task of Ray would be tried without end or end the job.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from asymflow.bulk.pictures import Settings
from asymflow.bulk.pool import (
    DEATHS,
    Duties,
    Event,
    Maker,
    Message,
    Note,
    Refused,
    Worker,
)
from asymflow.bulk.rows import Row
from asymflow.core.errors import AsymflowError, InputError, MissingExtra

LOCAL = "local"
"""The address of a cluster that is started for the job, and ends with it."""
_ANSWER = 10.0
"""Seconds that a cluster has to answer."""
_NODE = 0.25
"""How much less a row is suspected of ending a node than of ending its actor."""
_WAITING = 30.0
"""Seconds without room for any actor after which that is said."""


def library() -> Any:
    """The package ray.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error


@dataclass(frozen=True, slots=True)
class Share:
    """What each actor has of its node.

    Attributes:
        cpus, gpus: may be fractions.
    """

    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")

    def within(self, resources: dict[str, float]) -> int:
        """How many actors those resources are for."""
        least = [resources.get("CPU", 0) / self.cpus] if self.cpus else []
        if self.gpus:
            # Several may share a GPU, and none has parts of two.
            alone = int(1 / self.gpus) if self.gpus < 1 else 1 / self.gpus
            least.append(resources.get("GPU", 0) * alone)
        return int(min(least) + 1e-6)


@dataclass(slots=True, eq=False, kw_only=True)
class _Actor(Worker):
    """An actor, as the job sees it."""

    handle: Any
    node: str | None = None
    calls: list[Any] = field(default_factory=list[Any])


class Actors:
    """A pool of actors. Those that find no room wait for it.

    Args:
        settings: of each actor. Files that it names, and those of rows, have to be there on every
            node.
        address: of the cluster: "auto" for the one that this machine is part of, `LOCAL`, or
            "host:port".
        count: actors; None for as many as there is room for now.
        cpus, gpus: that each of them takes; None for a GPU if the cluster has any, unless the
            settings name another device.

    Raises:
        MissingExtra: Ray is not installed.
        InputError: there is no such cluster, or no room and no number.
    """

    def __init__(
        self,
        settings: Settings,
        address: str,
        count: int | None,
        *,
        cpus: float = 1.0,
        gpus: float | None = None,
    ) -> None:
        self._ray = library()
        self._settings = replace(settings, folder=settings.folder.absolute())
        self._joined = _connect(self._ray, address)
        resources = self._ray.cluster_resources()
        if gpus is None:
            wanted = settings.device or ("cuda" if resources.get("GPU") else "cpu")
            gpus = 1.0 if wanted.startswith("cuda") else 0.0
        self._share = share = Share(cpus, gpus)
        room = share.within(resources)
        if count is None and not room:
            self._leave()
            raise InputError(
                f"No node of the cluster at {address} has {share}. Say how many actors shall wait "
                "for one with --workers, or change what each of them takes."
            )
        count = count or room
        remote = self._ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0)
        self._made = remote(Painter)
        self.duties: Duties[_Actor] = Duties(self._send, max(DEATHS, 2 * count))
        self._began: float | None = time.monotonic()  # to wait for room; None once it was told
        for _ in range(count):
            self._start()

    def events(self, seconds: float) -> Iterator[Event]:
        ray = self._ray
        yield from self._patient()
        waiting = {actor.calls[0]: actor for actor in self.duties.workers if actor.calls}
        if not waiting:  # an actor that is lost with nothing to do is found out by its next chunk
            time.sleep(seconds)
            return
        found, rest = ray.wait(list(waiting), timeout=seconds)
        if found and rest:  # whatever else is there
            found += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for call in found:
            actor = waiting[call]
            try:
                said: str | list[Message] = ray.get(call)
            except ray.exceptions.RayError as error:
                yield from self._bury(actor, error)
                continue
            del actor.calls[0]
            if isinstance(said, str):
                actor.node = said
                continue
            for message in said:
                yield from self.duties.heard(actor, message)

    def close(self) -> None:
        for actor in self.duties.workers:
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor.handle)
        self.duties.workers.clear()
        self._leave()

    def _leave(self) -> None:
        if self._joined:
            self._ray.shutdown()

    def _start(self) -> None:
        handle = self._made.remote()
        calls = [handle.node.remote(), handle.load.remote(self._settings)]
        self.duties.workers.append(_Actor(handle=handle, calls=calls))

    def _send(self, actor: _Actor, rows: list[Row]) -> None:
        actor.calls.append(actor.handle.make.remote(rows))

    def _patient(self) -> Iterator[Note]:
        """Say once that no actor has found room, and what it would take."""
        if self._began is None or time.monotonic() - self._began < _WAITING:
            return
        self._began = None
        if all(actor.node is None for actor in self.duties.workers):
            free = self._ray.available_resources()
            yield Note(
                f"No node has had room for an actor for {_WAITING:.0f} s. Each takes {self._share},"
                f" and {free.get('CPU', 0):g} CPU and {free.get('GPU', 0):g} GPU are free."
            )

    def _bury(self, actor: _Actor, error: Exception) -> Iterator[Event]:
        """Replace an actor that is lost."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(actor.handle)  # it may only be out of reach
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        gone = actor.node is not None and actor.node not in alive
        # That a node is gone is known a little later than that its actors do not answer.
        gone |= isinstance(error, self._ray.exceptions.ActorUnavailableError)
        why = "its node is gone or out of reach" if gone else type(error).__name__
        yield Note(f"An actor was lost: {why}. Another one takes its rows.")
        yield from self.duties.bury(actor, why, suspicion=_NODE if gone else 1.0)
        self._start()


class Painter:
    """What an actor runs."""

    def __init__(self) -> None:
        self._maker: Maker | None = None

    def node(self) -> str:
        """The node that it is on."""
        return str(library().get_runtime_context().get_node_id())

    def load(self, settings: Settings) -> list[Message]:
        """Load the model."""
        try:
            self._maker = Maker(settings, where=f"node {self.node()[:12]}")
        except (AsymflowError, OSError) as error:
            known = error if isinstance(error, AsymflowError) else InputError(str(error))
            return [Refused(known)]
        return list(self._maker.begin())

    def make(self, rows: list[Row]) -> list[Message]:
        """Make a chunk."""
        assert self._maker is not None, "it is loaded first"
        return list(self._maker.make(rows))


def _connect(ray: Any, address: str) -> bool:
    """Join a cluster, unless the program that this is part of has.

    Raises:
        InputError: there is none.
    """
    if ray.is_initialized():
        return False
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # ours, and nobody's business
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=_ANSWER).close()
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({"include_dashboard": False} if address == LOCAL else {}),
        )
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        raise InputError(
            f"There is no Ray cluster at {address!r} ({error}). Start one with `ray start --head`, "
            f"or use --ray {LOCAL}."
        ) from error
    return True
