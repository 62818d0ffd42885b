"""The models of a server: what each is called, what is known of it, and whether it is loaded."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asymflow.core.card import Card
from asymflow.core.types import Plan
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.models.loading import EMBEDDED, WEIGHTS
from asymflow.planning.shelf import DEFAULT
from asymflow.server.measuring import Measuring
from asymflow.server.supervisor import Supervised
from asymflow.server.views import Loading

Load = Callable[[], Model]

FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0
"""Seconds between two attempts to load a model."""

OURS = "asymflow"
"""What the embedded model is called."""


@dataclass(frozen=True, slots=True, eq=False)
class About:
    """What is known of a model, also while it is not loaded.

    Attributes:
        name: of the adapter.
        plans: at the native size, by name, from the fastest on.
        usual: name of the plan for those who do not choose.
    """

    name: str
    card: Card
    weights: str
    embedded: bool
    plans: Mapping[str, Plan]
    usual: str

    @property
    def measured(self) -> bool:
        """Whether there are plans besides the default of the family."""
        return any(name != DEFAULT for name in self.plans)


def about(model: Model) -> About:
    """What is known of a model that is loaded."""
    size = model.card.sizes.native
    return About(
        name=model.adapter.name,
        card=model.card,
        weights=model.weights,
        embedded=model.embedded,
        plans=pipeline.plans_of(model, size),
        usual=pipeline.usual_plan(model, size),
    )


@dataclass(slots=True, eq=False)
class Served:
    """A model of a server. Its manager changes it under its lock.

    Attributes:
        id: in requests.
        load: returns it.
        model: while it is loaded.
        about: since it was loaded first.
        failure: why it is not there, for people.
        failures: attempts to load it that have failed since it was there last.
        again: when a request may have it loaded again, by the monotonic clock; None for a model
            that has not failed, or that its worker loads again by itself.
        network: the process that holds its network, if one does.
        seconds_per_work: speed of this machine, in seconds per unit of `requests.work`.
        restarts: of the processes of its network that are gone.
        down_since: when its network was lost; None while it is there.
        asked: whether a call waits to know of it.
        used: when it last took pictures, or was loaded.
        measuring: its plans are being measured, or were.
    """

    id: str
    load: Load
    state: Loading = "away"
    model: Model | None = None
    about: About | None = None
    failure: str | None = None
    failures: int = 0
    again: float | None = None
    network: Supervised[Any] | None = None
    seconds_per_work: float = 0.05
    restarts: int = 0
    down_since: float | None = None
    asked: bool = False
    used: float = field(default_factory=time.monotonic)
    measuring: Measuring | None = None

    @property
    def alive(self) -> bool:
        """Whether its network responds."""
        return self.network is None or self.network.live

    @property
    def active(self) -> bool:
        """Whether it takes pictures."""
        return self.state == "ready" and self.alive

    @property
    def pause(self) -> float:
        """Seconds until the next attempt to load it, from the last one that failed."""
        return min(FIRST_PAUSE * 2 ** (self.failures - 1), LAST_PAUSE)

    @property
    def due(self) -> bool:
        """Whether it has failed, and a request may have it loaded again by now."""
        return self.again is not None and time.monotonic() >= self.again

    @property
    def measures(self) -> bool:
        """Whether its plans are being measured."""
        return self.measuring is not None and self.measuring.state == "running"


def names(refs: Sequence[str | None]) -> list[str]:
    """A name for each reference of a model, that can be part of an address.

    The embedded model is "asymflow", and others are called as their file, folder or repository.
    """
    found: list[str] = []
    for ref in refs:
        name = OURS
        if ref is not None and ref != EMBEDDED:
            path = Path(ref)
            last = path.stem if path.suffix in WEIGHTS else path.name
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.")[:60] or "model"
        count = 2
        while name in found:
            name = f"{name.removesuffix(f'-{count - 1}')}-{count}"
            count += 1
        found.append(name)
    return found
