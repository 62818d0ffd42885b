"""Verification of plans by real rollouts, and local search from the best of them.

A profile predicts from single moves. Here whole trajectories are run on calibration requests and
their results compared with a reference. Standard sampler grids are candidates like any other. So
on these requests the result is at least as good as every plan that was compared on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise, product
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from asymflow.core import engine, schedules, transforms
from asymflow.core.adapter import Adapter
from asymflow.core.errors import InputError
from asymflow.core.presets import MAX_STEPS
from asymflow.core.requests import check_plan
from asymflow.core.schedules import fine_plan
from asymflow.core.statistics import mean_interval
from asymflow.core.types import (
    CONDITIONAL,
    FULL,
    Evidence,
    Plan,
    Profile,
    Request,
    Solver,
    Step,
    Tier,
)
from asymflow.planning import planner
from asymflow.planning.encoded import Encoded
from asymflow.planning.prediction import Cost, predict, price, step_prices
from asymflow.planning.profiler import Progress, no_progress
from asymflow.planning.proof import Errors, Limit, Proof, rms

Distance = Callable[[Tensor, Tensor], Errors]
"""Distances [b] of pictures from references, both [b, c, h, w] in state space."""
Roll = Callable[[Adapter, Plan, Sequence[Request]], Tensor]
"""Runs a plan for requests of one size, to x_0 [b, c, h, w]."""


class Known(Protocol):
    """Errors [b] by the steps of plans: a dict, or what outlives the process."""

    def get(self, steps: tuple[Step, ...], /) -> Errors | None: ...

    def __setitem__(self, steps: tuple[Step, ...], errors: Errors, /) -> None: ...


LIMITS = 4
"""Pictures that the error of a reference is measured on."""
FINALISTS = 10
"""Candidates that are compared on all pictures."""


@torch.inference_mode()
def rollout(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> Tensor:
    """Run a plan for requests of one size and return x_0 [b, c, h, w]."""
    return torch.stack([end.x_0 for end in engine.rollout(adapter, plan, requests)])


@dataclass(frozen=True, slots=True, eq=False)
class Evaluator:
    """Rolls plans out on fixed requests and compares the results with a reference.

    Attributes:
        reference: x_0 [b, c, h, w] reached by `fine_plan` or a better plan; or real pictures
            of the requested things.
        guidance_interval: (low, high) in t, of the reference.
        roll: runs a plan, as `rollout` does.
        known: errors [b] of the first pictures of plans that have been rolled out.
    """

    adapter: Adapter
    requests: tuple[Request, ...]
    reference: Tensor
    distance: Distance = rms
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    roll: Roll = rollout
    known: Known = field(default_factory=dict[tuple[Step, ...], Errors])

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        requests: Sequence[Request],
        distance: Distance,
        *,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
    ) -> Evaluator:
        """Create an evaluator, and roll out its reference."""
        fine = fine_plan(requests[0].size, guidance_interval=guidance_interval)
        encoded = Encoded(adapter)
        reference = rollout(encoded, fine, requests)
        return cls(encoded, tuple(requests), reference, distance, guidance_interval)

    def errors(self, plan: Plan, count: int | None = None) -> Errors:
        """The distance of the first `count` pictures, or of all, from the reference [b].

        No picture of a plan is made twice.
        """
        count = len(self.requests) if count is None else min(count, len(self.requests))
        found = self.known.get(plan.steps)
        found = np.zeros(0) if found is None else found
        if len(found) < count:
            part = slice(len(found), count)
            ends = self.roll(self.adapter, plan, self.requests[part])
            found = np.concatenate([found, self.distance(ends, self.reference[part])])
            self.known[plan.steps] = found
        return found[:count]

    def possible(self, plan: Plan) -> bool:
        """Whether the model has all tiers of the plan, at its times."""
        with suppress(InputError):
            check_plan(self.adapter, plan, self.requests[0].size)
            return True
        return False

    def error(self, plan: Plan, count: int | None = None) -> float:
        """The mean of `errors`; infinite where a picture is not finite."""
        mean = float(self.errors(plan, count).mean())
        return math.inf if math.isnan(mean) else mean


def baselines(
    profile: Profile,
    budget: float,
    size: tuple[int, int],
    *,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    pool_factor: int = 1,
    cost: Cost = "ms",
) -> Iterator[Plan]:
    """Baseline plans within a budget: one solver on one standard grid.

    Guided everywhere, in [0.1, 1], and in the interval of the reference. Above a `pool_factor` of 1
    they are at lower resolution, see `transforms.at_lower_resolution`.

    Only tiers of the profile are used. Without a full tier there are no such plans; if the full
    tier has sequential guidance only, so do they.
    """
    light = FULL not in profile.tiers
    shift = math.sqrt(size[0] * size[1]) / 64
    intervals = dict.fromkeys(((0.0, 1.0), (0.1, 1.0), guidance_interval))
    solvers: tuple[Solver, ...] = ("multistep2", "damped2", "corrected2")
    for interval, (name, grid), solver in product(intervals, _grids(shift).items(), solvers):
        longest = None
        for n in range(2, MAX_STEPS + 1):
            plan = schedules.plan_of(
                grid(n), solver=solver, guidance_interval=interval, name=f"{name}, {solver}"
            )
            plan = transforms.at_lower_resolution(
                transforms.with_sequential_guidance(plan) if light else plan, pool_factor
            )
            known = all(step.tier in profile.tiers for step in plan.steps)
            if not known or price(profile, plan, cost=cost) > budget:
                break
            longest = plan
        if longest is not None:
            yield longest


def _grids(shift: float) -> dict[str, Callable[[int], tuple[float, ...]]]:
    grids: dict[str, Callable[[int], tuple[float, ...]]] = {
        "uniform": schedules.uniform,
        "karras": schedules.karras,
        "log-snr": schedules.log_snr,
        "logit-normal": lambda n: schedules.logit_normal(n, math.log(2 * shift), 1.6),
    }
    for factor in (1.5, 2.5, 4.0, 6.0):
        grids[f"shifted {factor * shift:g}"] = lambda n, by=factor * shift: schedules.shifted(n, by)
    return grids


def best_of(
    judge: Evaluator,
    plans: Sequence[Plan],
    progress: Progress = no_progress,
    *,
    few: int = 2,
    finalists: int = FINALISTS,
) -> Plan:
    """The plan with the least real error; all are screened on `few` pictures, finalists on all."""
    for number, plan in enumerate(plans):
        judge.error(plan, few)
        progress("trying candidates", number + 1, len(plans))
    best = sorted(plans, key=lambda plan: judge.error(plan, few))[:finalists]
    for number, plan in enumerate(best):
        judge.error(plan)
        progress("comparing the best", number + 1, len(best))
    return min(best, key=judge.error)


def climb(
    judge: Evaluator,
    plan: Plan,
    profile: Profile,
    budget: float,
    *,
    rollouts: int,
    cost: Cost = "ms",
    progress: Progress = no_progress,
) -> Plan:
    """Change a plan bit by bit while its real error falls and its price stays within a budget.

    A change moves a node, gives a step another tier or order, adds a step or drops one. Changes
    are tried in random order, and the first that helps is taken.
    """
    rng = np.random.default_rng(0)
    tried: set[tuple[Step, ...]] = {plan.steps}
    reach, spent = 0.35, 0
    while spent < rollouts and reach > 0.05:
        better = None
        neighbours = list(_neighbours(plan, profile, reach))
        for index in rng.permutation(len(neighbours)):
            near = neighbours[int(index)]
            if near.steps in tried or price(profile, near, cost=cost) > budget:
                continue
            if not judge.possible(near):
                continue
            tried.add(near.steps)
            spent += 1
            progress("improving", spent, rollouts)
            if judge.error(near) < judge.error(plan):
                better = near
                break
            if spent >= rollouts:
                break
        if better is None:
            reach /= 2
        else:
            plan = better
    return plan


def _neighbours(plan: Plan, profile: Profile, reach: float) -> Iterator[Plan]:
    nodes = plan.times
    for i in range(1, len(nodes) - 1):
        for sign in (-1, 1):
            # Along the gap on that side, so that nodes never meet.
            moved = nodes[i] + sign * reach * abs(nodes[i + (1 if sign < 0 else -1)] - nodes[i])
            yield from _with(plan, [*nodes[:i], moved, *nodes[i + 1 :]], plan.steps)
    for i, step in enumerate(plan.steps):
        for changed in _changes(step, profile.tiers):
            yield from _with(plan, nodes, (*plan.steps[:i], changed, *plan.steps[i + 1 :]))
    for i in range(len(plan.steps)):
        middle = (nodes[i] + nodes[i + 1]) / 2
        added = (*plan.steps[: i + 1], *plan.steps[i:])
        yield from _with(plan, [*nodes[: i + 1], middle, *nodes[i + 1 :]], added)
        if i:
            yield from _with(
                plan, [*nodes[:i], *nodes[i + 1 :]], (*plan.steps[:i], *plan.steps[i + 1 :])
            )


def _changes(step: Step, tiers: Sequence[Tier]) -> Iterator[Step]:
    for tier in tiers:
        # Sequential guidance gives the same estimates: nothing to try.
        if replace(tier, name="", sequential_cfg=False) != replace(
            step.tier, name="", sequential_cfg=False
        ):
            yield replace(
                step, tier=tier, guidance_scale=step.guidance_scale if tier.guided else None
            )
    for solver in ("multistep1", "multistep2", "multistep3", "damped2", "corrected2"):
        if solver != step.solver or step.weights is not None:
            yield replace(step, solver=solver, weights=None)


def _with(plan: Plan, nodes: Sequence[float], kinds: Sequence[Step]) -> Iterator[Plan]:
    """The plan with other nodes and steps; nothing if these are no plan.

    For instance, a step may carry from a full estimate that is no longer made before it.
    """
    steps = tuple(kind.moved(t, s) for kind, (t, s) in zip(kinds, pairwise(nodes), strict=True))
    with suppress(InputError):
        yield Plan(plan.name, steps)


def best_within(
    judge: Evaluator,
    profile: Profile,
    budget: float,
    *,
    cost: Cost = "ms",
    name: str = "verified",
    known: Sequence[Plan] = (),
    rollouts: int = 60,
    few: int = 2,
    progress: Progress = no_progress,
) -> Plan:
    """Find the best plan within a budget by real rollouts on the judge's requests.

    Starts from the plans that the profile predicts to be best, of all tiers and of subsets, and
    from `baselines` at full and lower resolution, and climbs from the best of them.

    Args:
        judge: has the calibration requests and their reference.
        profile: cost and error of moves.
        budget: maximal cost per picture.
        cost: the unit of the budget.
        name: of the plan.
        known: plans within the budget that the result must not be worse than, such as those of
            smaller budgets.
        rollouts: limit for the climb.
        few: number of pictures that candidates are screened on.
        progress: called before every rollout.

    Raises:
        InputError: nothing fits into the budget.
    """
    starts = [planner.plan(profile, budget=budget, cost=cost)]
    full = [tier for tier in profile.tiers if tier.full]
    one = Plan("one", (Step(1.0, 0.0, full[0]),)) if full else None
    if one and price(profile, one, cost=cost) <= budget:
        unreduced = [tier for tier in profile.tiers if tier.unreduced]
        plain = [tier for tier in profile.tiers if tier.full or tier == CONDITIONAL]
        for tiers in (full, unreduced, plain):
            starts.append(planner.plan(only(profile, tiers), budget=budget, cost=cost))
    starts += [corrected(plan) for plan in starts]
    size, interval = judge.requests[0].size, judge.guidance_interval
    for pool_factor in sorted({tier.pool_factor for tier in profile.tiers}):
        starts += baselines(
            profile, budget, size, guidance_interval=interval, pool_factor=pool_factor, cost=cost
        )
    begin = min((best_of(judge, starts, progress, few=few), *known), key=judge.error)
    plan = climb(judge, begin, profile, budget, rollouts=rollouts, cost=cost, progress=progress)
    return Plan(name, plan.steps)


def corrected(plan: Plan) -> Plan:
    """With the corrector, which costs nothing, wherever estimates have no bias."""
    steps = (
        replace(step, solver="corrected2") if step.tier.unreduced else step for step in plan.steps
    )
    return Plan(plan.name, tuple(steps))


def only(profile: Profile, tiers: Sequence[Tier]) -> Profile:
    """The profile restricted to some of its tiers."""
    kept = [profile.tiers.index(tier) for tier in tiers]
    return replace(
        profile,
        tiers=tuple(tiers),
        cost_ms=tuple(profile.cost_ms[k] for k in kept),
        macs=tuple(profile.macs[k] for k in kept),
        peak_bytes=tuple(profile.peak_bytes[k] for k in kept),
        local_error=profile.local_error[kept],
        drift=profile.drift[kept],
    )


def measure_evidence(
    judge: Evaluator,
    plan: Plan,
    profile: Profile,
    features: Distance | None = None,
    *,
    reference: Plan | None = None,
) -> Plan:
    """The plan with evidence, measured on the judge's requests.

    They should differ from those that the plan was chosen on.

    Args:
        judge: has the requests and their reference.
        plan: the plan to measure.
        profile: has the costs of tiers.
        features: a perceptual distance between pictures, measured as well.
        reference: the plan of the judge's reference, to measure how far that is from the limit.
    """
    ends = rollout(judge.adapter, plan, judge.requests)
    near = _on_lattice(plan, profile)
    prediction = near and predict(profile, near)
    # As of a solver of second order, whose error falls to a quarter with twice the moves.
    off = 0.0 if reference is None else judge.error(halved(reference), LIMITS) / 3
    proof = Proof(rms(ends, judge.reference), None, Limit.of(judge.reference, off))
    evidence = Evidence(
        made={**profile.made, **proof.stated, "pictures": str(len(judge.requests))},
        cost_ms=step_prices(profile, plan),
        full_ms=profile.cost_ms[0],
        shares=prediction.shares if prediction else (),
        predicted=prediction.error if prediction else None,
        rms=proof.mean,
        distance=None if features is None else mean_interval(features(ends, judge.reference)),
        pictures=len(judge.requests),
    )
    return replace(plan, evidence=evidence)


def halved(plan: Plan) -> Plan:
    """The plan with every second node only: two moves become one, as the first of them is made.

    Nodes where the tier changes stay, or the plan would be off by more than its order.
    """
    halves: list[Step] = []
    for _, group in groupby(plan.steps, key=lambda step: step.tier):
        steps = tuple(group)
        pairs = (steps[i : i + 2] for i in range(0, len(steps), 2))
        halves += [pair[0].moved(pair[0].t, pair[-1].s) for pair in pairs]
    return Plan(plan.name, tuple(halves))


_PROFILED: dict[Solver, Solver] = dict.fromkeys(
    ("multistep2", "multistep3", "corrected2"), "damped2"
)


def _on_lattice(plan: Plan, profile: Profile) -> Plan | None:
    """The plan with its nodes at the nearest candidates, and its solvers the nearest profiled.

    None where it has more nodes than there are candidates, guides where the profile does not, or
    has steps that no profile measures.
    """
    if len(plan.times) > len(profile.times):
        return None
    if any(step.reuse or step.guidance_scale is not None for step in plan.steps):
        return None
    nodes = [0]
    for number, t in enumerate(plan.times[1:-1]):
        # Leave a candidate for every remaining node.
        free = range(nodes[-1] + 1, len(profile.times) - (len(plan.steps) - 1 - number))
        nodes.append(min(free, key=lambda i: abs(profile.times[i] - t)))
    nodes.append(len(profile.times) - 1)
    times = [profile.times[i] for i in nodes]
    steps = tuple(
        replace(step.moved(t, s), weights=None, solver=_PROFILED.get(step.solver, step.solver))
        for step, (t, s) in zip(plan.steps, pairwise(times), strict=True)
    )
    found = Plan(plan.name, steps)
    return found if math.isfinite(predict(profile, found).error) else None
