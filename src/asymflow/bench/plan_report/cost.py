"""Runs of plans on one request: all estimates, the picture, and the cost."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core import engine
from asymflow.core.adapter import Adapter
from asymflow.core.types import FULL, Picture, Plan, Request, Step, Tier
from asymflow.generation.pixels import to_rgba
from asymflow.planning import verifier

_COLOURS = ("#2f6f9f", "#d98c2b", "#5f9f4f", "#a04f7f", "#8f8f8f", "#4fa0a0", "#c0504d", "#70659f")


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run of a plan.

    Attributes:
        estimates: the estimate of x_0 at the start of every step, or the one it reuses.
        picture: the final picture.
        x_0: the final picture as a state [1, c, h, w], not clipped.
        seconds: duration of every step.
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
    """Runs of a plan, an optional second one and the reference, from the same noise.

    Attributes:
        full: a run of one full estimate, the unit of costs.
        subject: what is drawn, in words; empty for a model that is asked with nothing.
    """

    plan: Run
    against: Run | None
    reference: Run
    full: Run
    subject: str = ""

    @property
    def runs(self) -> list[tuple[str, Run]]:
        """All runs with their names, the reference last."""
        plans = [run for run in (self.plan, self.against) if run is not None]
        return [*((run.plan.name, run) for run in plans), ("reference", self.reference)]

    @property
    def title(self) -> str:
        """Title of the report."""
        subject = f"“{self.subject}”" if self.subject else "a picture"
        return f"How the plan “{self.plan.plan.name}” draws {subject}"

    @property
    def lead(self) -> str:
        """Summary of the cost in one sentence."""
        count = len(self.plan.plan.steps)
        cost, most = (sum(self.costs(run)) for run in (self.plan, self.reference))
        steps = "1 step that costs" if count == 1 else f"{count} steps that cost"
        return (
            f"{steps} as much as {cost:.1f} full estimates of the network: {most / cost:.1f} times "
            f"less than the reference, which costs {most:.0f}."
        )

    def rmse(self, run: Run) -> float:
        """RMSE of the final state of a run to that of the reference, for states in [-1, 1]."""
        [error] = verifier.rms(run.x_0, self.reference.x_0)
        return float(error)

    def costs(self, run: Run) -> tuple[float, ...]:
        """Cost of every step in full estimates, from the plan's evidence or from these runs."""
        evidence = run.plan.evidence
        if evidence is not None:
            return tuple(ms / evidence.full_ms for ms in evidence.cost_ms)
        seconds: dict[Tier, list[float]] = defaultdict(list)
        for each in (self.full, *(other for _, other in self.runs)):
            for step, spent in zip(each.plan.steps, each.seconds, strict=True):
                if not step.reuse:
                    seconds[step.tier].append(spent / step.evaluations)
        full = statistics.median(seconds[FULL])
        return tuple(
            0.0 if step.reuse else step.evaluations * statistics.median(seconds[step.tier]) / full
            for step in run.plan.steps
        )


def record(adapter: Adapter, plan: Plan, request: Request) -> Run:
    """Run a plan and record every estimate.

    Raises:
        InputError: the model does not support the request or the plan.
    """
    frames = list(engine.walk(adapter, plan, [request]))
    states = [frame.x_0 for frame in frames] + [frames[-1].x_t]
    *asked, picture = (engine.pictures(adapter, [request], state)[0] for state in states)
    spent = [move.seconds for frame in frames for move in frame.moves]
    estimates: list[Picture] = []
    seconds: list[float] = []
    for step in plan.steps:
        estimates.append(estimates[-1] if step.reuse else asked.pop(0))
        seconds.append(0.0 if step.reuse else spent.pop(0))
    return Run(plan, request, tuple(estimates), picture, frames[-1].x_t, tuple(seconds))


def account(
    adapter: Adapter,
    plan: Plan,
    request: Request,
    reference: Plan,
    against: Plan | None = None,
    *,
    subject: str = "",
) -> Account:
    """Run a plan, the reference, and optionally a plan to compare with.

    Args:
        adapter: the model.
        plan: to report on.
        request: the picture.
        reference: the fine plan.
        against: to compare with.
        subject: what is drawn, in words.

    Raises:
        InputError: the model does not support the request or a plan.
    """
    return Account(
        record(adapter, plan, request),
        None if against is None else record(adapter, against, request),
        record(adapter, reference, request),
        record(adapter, Plan("full", (Step(1.0, 0.0),)), request),
        subject,
    )


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for every tier, by order of first use."""
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(dict.fromkeys(names))}


def on_white(picture: Picture) -> NDArray[np.float32]:
    """A picture [h, w, c] of 1 to 4 channels as RGB, premultiplied ones on white."""
    rgba = to_rgba(picture)
    return np.clip(rgba[..., :3] + (1 - rgba[..., 3:]), 0, 1)
