"""What a pipeline is measured with: requests, limits, and who makes the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from asymflow.core.adapter import Adapter
from asymflow.core.schedules import plan_of
from asymflow.core.types import Plan, Request
from asymflow.integrations.diffusers.measuring import Pictures, rolled
from asymflow.integrations.diffusers.original import Baseline
from asymflow.models.diffusers.conventions import Convention
from asymflow.models.diffusers.own import refined
from asymflow.models.diffusers.pipelines import Call
from asymflow.planning import profiler
from asymflow.planning.journal import Journal
from asymflow.planning.proof import Limit, rms
from asymflow.planning.selection import evenly
from asymflow.planning.verifier import Evaluator, Roll, halved

CANDIDATES = 32
"""Moves between candidate times."""
FINE = 64
"""Moves of the limit where it counts most."""
COARSER = (24, 28, 32, 40)
"""Moves of limits that may do as well, which is measured."""
AGREE = 0.004
"""Root mean square up to which the network alone makes the pictures of the pipeline."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a pipeline is measured with.

    Attributes:
        adapter: of the network; it encodes requests once.
        roll: makes pictures by plans.
        times: candidates for nodes.
        limits: plans of the limit, from the cheapest. The last one is as good as it gets.
        calls: examples, as the pipeline is called with them on its own.
        request: what all requests have in common.
    """

    baseline: Baseline
    pictures: Pictures
    adapter: Adapter
    roll: Roll
    times: tuple[float, ...]
    limits: Sequence[Plan]
    calls: Sequence[Call]
    request: Request
    journal: Journal

    @classmethod
    def of(
        cls,
        baseline: Baseline,
        pictures: Pictures,
        adapter: Adapter,
        convention: Convention,
        examples: Sequence[Call],
        request: Request,
        journal: Journal,
    ) -> Task:
        """Find out whether the network alone makes the pipeline's pictures.

        It does not know of pictures to begin with, of masks, or of other noise.
        """
        # A pipeline that begins with a picture begins at the same noise with plans and on its own.
        calls = [{**each, "num_inference_steps": baseline.steps} for each in examples]
        grids = [refined(convention, count) for count in (*COARSER, FINE) if count <= FINE]
        # Where a model has few timesteps, many moves are the same as fewer.
        limits = [plan_of(grid, solver="corrected2", name="limit") for grid in dict.fromkeys(grids)]
        if len(limits) == 1:  # of which half as many moves tell how far it is off
            limits.insert(0, halved(limits[0]))
        probe = plan_of(convention.times(min(2, convention.most or 2)))
        first = [replace(request, inputs=calls[0])]
        made = pictures.planned(probe, first)
        same = float(rms(rolled(adapter, probe, first), made)[0]) <= AGREE
        return cls(
            baseline,
            pictures,
            adapter,
            rolled if same else pictures.rolled,
            refined(convention, CANDIDATES),
            limits,
            calls,
            request,
            journal,
        )

    @property
    def alone(self) -> bool:
        """Whether the network makes the pictures without its pipeline."""
        return self.roll is rolled

    @property
    def reference_moves(self) -> int:
        """Moves of the limit that plans are compared with."""
        if self.alone:
            return profiler.FINER * (len(self.times) - 1)
        return len(self.limits[-1].steps)

    def requests(self, count: int, seed: int) -> tuple[Request, ...]:
        """At least so many, with every example equally often."""
        return tuple(
            replace(self.request, inputs=self.calls[i % len(self.calls)], seed=seed + i)
            for i in range(evenly(count, len(self.calls)))
        )

    def states(self, name: str, plan: Plan, requests: Sequence[Request]) -> Tensor:
        """Where a plan leads, kept under a name."""
        return self.journal.states(name, lambda: self.roll(self.adapter, plan, requests))

    def judge(self, name: str, requests: tuple[Request, ...], limit: Limit) -> Evaluator:
        """Compares plans with a limit; what it measures is kept under a name."""
        known = self.journal.errors(name)
        return Evaluator(self.adapter, requests, limit.states, roll=self.roll, known=known)

    def by_pipeline(self, name: str, judge: Evaluator) -> Evaluator:
        """The same with pictures that the pipeline makes itself."""
        return replace(judge, roll=self.pictures.rolled, known=self.journal.errors(name))

    def by_baseline(self, name: str, judge: Evaluator) -> Evaluator:
        """The same with pictures of the baseline, whatever the plan."""

        def roll(_: Adapter, plan: Plan, requests: Sequence[Request]) -> Tensor:
            return self.pictures.original(self.baseline, requests)

        return replace(judge, roll=roll, known=self.journal.errors(name))
