"""What plans make of one request: every estimate on the way, the picture, and what it took."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core import engine
from asymflow.core.adapter import Adapter
from asymflow.core.types import FULL, Picture, Plan, Request, Step, Tier
from asymflow.planning import verifier

_COLOURS = ("#2f6f9f", "#d98c2b", "#5f9f4f", "#a04f7f", "#8f8f8f", "#4fa0a0", "#c0504d", "#70659f")


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """One run of a plan.

    Attributes:
        estimates: of x_0, one per step: what the step begins with.
        picture: where the last step ends.
        x_0: the same as a state [1, c, h, w], not clipped.
        seconds: that every step took.
    """

    plan: Plan
    request: Request
    estimates: tuple[Picture, ...]
    picture: Picture
    x_0: Tensor
    seconds: tuple[float, ...]

    @property
    def forwards(self) -> int:
        """Network passes."""
        return engine.forwards(self.plan, self.request)


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """A plan, perhaps another one, and the fine reference, on one request and the same noise.

    Attributes:
        full: one full estimate, which costs are counted in.
    """

    plan: Watched
    against: Watched | None
    reference: Watched
    full: Watched

    @property
    def runs(self) -> list[tuple[str, Watched]]:
        """All of them with their names, the reference last."""
        plans = [run for run in (self.plan, self.against) if run is not None]
        return [*((run.plan.name, run) for run in plans), ("reference", self.reference)]

    @property
    def title(self) -> str:
        """What a page is called."""
        prompt = self.plan.request.inputs.get("prompt", "a picture")
        return f"How the plan “{self.plan.plan.name}” draws “{prompt}”"

    @property
    def lead(self) -> str:
        """The one sentence to remember."""
        count = len(self.plan.plan.steps)
        cost, most = (sum(self.costs(run)) for run in (self.plan, self.reference))
        steps = "1 step that costs" if count == 1 else f"{count} steps that cost"
        return (
            f"{steps} as much as {cost:.1f} full estimates of the network: {most / cost:.1f} times "
            f"less than the reference, which costs {most:.0f} of them."
        )

    def difference(self, watched: Watched) -> float:
        """Root mean square of a run's end minus that of the reference, for states in [-1, 1]."""
        [error] = verifier.rms(watched.x_0, self.reference.x_0)
        return float(error)

    def costs(self, watched: Watched) -> tuple[float, ...]:
        """Of every step, in full estimates: as in the plan's evidence, or else in these runs."""
        evidence = watched.plan.evidence
        if evidence is not None:
            return tuple(ms / evidence.full_ms for ms in evidence.cost_ms)
        seconds: dict[Tier, list[float]] = defaultdict(list)
        for run in (self.full, *(run for _, run in self.runs)):
            for step, spent in zip(run.plan.steps, run.seconds, strict=True):
                seconds[step.tier].append(spent / step.evaluations)
        full = statistics.median(seconds[FULL])
        return tuple(
            step.evaluations * statistics.median(seconds[step.tier]) / full
            for step in watched.plan.steps
        )


def watch(adapter: Adapter, plan: Plan, request: Request) -> Watched:
    """Run a plan and keep what it knew before every step.

    It is followed exactly: rules by which a picture may leave it are not.

    Raises:
        InputError: the request or the plan does not fit the model.
    """
    plan = replace(plan, adaptive=())
    frames = list(engine.walk(adapter, plan, [request]))
    states = [frame.x_0 for frame in frames] + [frames[-1].x_t]
    *estimates, picture = (engine.pictures(adapter, [request], state)[0] for state in states)
    seconds = tuple(move.seconds for frame in frames for move in frame.moves)
    return Watched(plan, request, tuple(estimates), picture, frames[-1].x_t, seconds)


def account(
    adapter: Adapter,
    plan: Plan,
    request: Request,
    reference: Plan,
    against: Plan | None = None,
) -> Account:
    """Run a plan, the fine reference, and another plan if it is to be compared with.

    Raises:
        InputError: the request or a plan does not fit the model.
    """
    return Account(
        watch(adapter, plan, request),
        None if against is None else watch(adapter, against, request),
        watch(adapter, reference, request),
        watch(adapter, Plan("full", (Step(1.0, 0.0),)), request),
    )


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for every tier in the order of first use."""
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(dict.fromkeys(names))}


def on_white(picture: Picture) -> NDArray[np.float32]:
    """Premultiplied RGBA over white; other pictures as they are."""
    if picture.shape[-1] != 4:
        return picture
    return np.clip(picture[..., :3] + 1 - picture[..., 3:], 0, 1)
