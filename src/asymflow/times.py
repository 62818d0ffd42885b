"""Falling time grids, and plans made of them without measuring anything.

A grid of n steps is a tuple of n + 1 times, strictly falling to exactly 0. It begins at 1, pure
noise, unless its definition has a largest noise level below that. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import NormalDist
from typing import cast

from asymflow.errors import InputError
from asymflow.types import (
    CONDITIONAL,
    FULL,
    IN_TURN,
    Plan,
    Solver,
    Step,
    Tier,
    number,
    part_name,
    whole,
)


def uniform(n: int) -> tuple[float, ...]:
    """n equal steps: t_i = 1 - i/n."""
    return _grid(1 - i / n for i in _nodes(n))


def shifted(n: int, shift: float) -> tuple[float, ...]:
    """The uniform grid moved towards noise: t / (1 - t) is multiplied by `shift`.

    A shift of f gives pictures f times the side the log-SNR of the original grid.
    """
    _positive("shift", shift)
    ratios = (1 - i / n for i in _nodes(n))
    return _grid(shift * t / (shift * t + (1 - t)) for t in ratios)  # exactly 1 at 1


def logit_normal(n: int, mean: float = 0.0, std: float = 1.0) -> tuple[float, ...]:
    """Quantiles of the logit-normal law: logit(t_i) = mean + std Phi^-1(1 - i/n).

    A mean above 0 puts more nodes near noise; a small std puts them around sigmoid(mean).
    """
    _finite("mean", mean)
    _positive("std", std)
    normal = NormalDist()
    inner = (mean + std * normal.inv_cdf(1 - i / n) for i in _nodes(n)[1:-1])
    return _grid((1.0, *(_time(-x) for x in inner), 0.0))


def karras(
    n: int, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> tuple[float, ...]:
    """The grid of Karras et al. (arXiv 2206.00364, equation 5), at t = sigma / (1 + sigma).

    sigma_i^(1/rho) is linear from sigma_max to sigma_min over the first n nodes; the last is 0.
    """
    _positive("rho", rho)
    _positive("sigma_min", sigma_min)
    _positive("sigma_max", sigma_max)
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = ((first + (last - first) * i) ** rho for i in _ramp(n))
    return _grid((*(sigma / (1 + sigma) for sigma in sigmas), 0.0))


def log_snr(n: int, start: float = 0.99, last: float = 0.01) -> tuple[float, ...]:
    """Equal steps in log((1 - t) / t) from t = `start` to t = `last`, then one to 0."""
    for name, t in (("start", start), ("last", last)):
        if not 0 < t < 1:
            raise InputError(
                f"{name}={t} has no finite log-SNR. Choose a time between 0 and 1, ends excluded."
            )
    first, final = math.log((1 - start) / start), math.log((1 - last) / last)
    return _grid((*(_time(first + (final - first) * i) for i in _ramp(n)), 0.0))


def plan_of(
    times: Sequence[float],
    *,
    solver: Solver = "damped2",
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    name: str = "unnamed",
) -> Plan:
    """A plan with one solver over a grid.

    Args:
        times: falling, n + 1 of them, the last 0.
        solver: of every step.
        guidance_interval: (low, high) in t. Steps that start outside it are conditional only.
        name: shown when the plan is printed.
    """
    low, high = interval(guidance_interval)
    nodes = moments("times", times)
    steps = (
        Step(t, s, FULL if low <= t <= high else CONDITIONAL, solver) for t, s in pairwise(nodes)
    )
    return Plan(name, tuple(steps))


def interval(guidance_interval: tuple[float, float]) -> tuple[float, float]:
    """The (low, high) in t that guidance is on in.

    Raises:
        InputError: it is no part of [0, 1].
    """
    found = moments("guidance_interval", guidance_interval)
    if len(found) != 2 or not 0 <= found[0] <= found[1] <= 1:
        raise InputError(
            f"The guidance interval ({', '.join(map(str, found))}) is not a part of [0, 1]. "
            "Give two times, the lower one first: (0.0, 1.0) guides every step."
        )
    return found[0], found[1]


def moments(name: str, times: object) -> tuple[float, ...]:
    """Numbers that somebody gave in any order, in a list, an array or a tensor.

    Raises:
        InputError: there is something else.
    """
    if isinstance(times, (str, bytes, Mapping)) or not isinstance(times, Iterable):
        raise InputError(f"{name}={times!r} is no list of times. Give numbers from 0 to 1.")
    found = cast("Iterable[object]", times)
    return tuple(number(f"{name}[{index}]", time) for index, time in enumerate(found))


def truncated(plan: Plan, start: float) -> Plan:
    """The end of a plan, beginning at t = `start` exactly; later nodes stay.

    Where less than half of a step would be left, it is joined to the next one: a tiny first step
    costs as much as any other, and a multistep solver would extrapolate far from two estimates
    that lie almost on top of each other.
    """
    if not 0 < start <= 1:
        raise InputError(f"A plan cannot begin at t={start}. Choose a time in (0, 1].")
    if start >= plan.steps[0].t:
        return plan
    steps = [step for step in plan.steps if step.s < start]
    if len(steps) > 1 and start - steps[0].s < (steps[0].t - steps[0].s) / 2:
        del steps[0]
    steps[0] = replace(steps[0], t=start)
    # What was to be carried may have been cut off: the first that would carry it is full.
    first = next((i for i, step in enumerate(steps) if step.tier.full or step.tier.carried), 0)
    if steps[first].tier.carried:
        full = next(step.tier for step in plan.steps if step.tier.full)
        steps[first] = replace(steps[first], tier=full)
    return Plan(plan.name, tuple(steps))


def rescaled(plan: Plan, factor: float) -> Plan:
    """A plan made for pictures of one side, for pictures of `factor` times that side.

    t / (1 - t) is multiplied by the factor, as in `shifted`: every step meets the same visible
    amount of noise. What was measured of the plan stays true for its own size only, and is dropped.
    """
    _positive("factor", factor)
    if factor == 1:
        return plan
    nodes = [factor * t / (factor * t + (1 - t)) for t in plan.times]  # exactly 1 at 1
    steps = (
        replace(step, t=t, s=s) for step, (t, s) in zip(plan.steps, pairwise(nodes), strict=True)
    )
    return Plan(plan.name, tuple(steps))


def enlarged(plan: Plan, factor: int) -> Plan:
    """The plan for pictures of `factor` times the side, of which the model is asked small ones.

    A pooled state of a large picture is the state of a small one (`asymflow.flow.pool`), at times
    that are moved as in `rescaled`. So the model is asked what the plan asks it, and its answers
    are enlarged: the path of the pooled picture is that of the plan, exactly for order 1.
    `factor` is a power of 2.

    Raises:
        InputError: `factor` is no power of 2, or the plan carries from full estimates, of which
            there are none.
    """
    if factor < 1 or factor & (factor - 1):
        raise InputError(f"Plans cannot be enlarged {factor} times. Choose 1, 2, 4 or 8.")
    if factor == 1:
        return plan
    steps: list[Step] = []
    for step in rescaled(plan, factor).steps:
        if step.tier.carried:
            raise InputError(
                f"Plan {plan.name!r} carries from full estimates ({step.tier.name!r}), which are "
                "not made when it is enlarged. Give a plan without tiers that end in +."
            )
        steps.append(replace(step, tier=_smaller(step.tier, factor * step.tier.shrink)))
    return Plan(plan.name, tuple(steps))


def within(plan: Plan, shrinks: Sequence[int]) -> Plan:
    """The plan for a model that can be asked at 1/f the side for f in `shrinks` only.

    Steps that want another factor are made at full size.
    """
    possible = (1, *shrinks)
    if all(step.tier.shrink in possible for step in plan.steps):
        return plan

    def large(tier: Tier) -> Tier:
        return CONDITIONAL if not tier.guided else IN_TURN if tier.in_turn else FULL

    steps = (
        step if step.tier.shrink in possible else replace(step, tier=large(step.tier))
        for step in plan.steps
    )
    return Plan(plan.name, tuple(steps))


def pooled(plan: Plan, shrink: int) -> Plan:
    """The plan asked at 1/`shrink` of the side, a power of 2.

    For pictures larger than those that a model was trained on: it is asked where it is good, which
    takes a fraction of time and memory, and the answer is enlarged.

    Raises:
        InputError: `shrink` is no power of 2.
    """
    if shrink < 1 or shrink & (shrink - 1):
        raise InputError(f"Pictures cannot be asked for at 1/{shrink}. Choose 1, 2, 4 or 8.")
    if shrink == 1:
        return plan
    steps = (replace(step, tier=_smaller(step.tier, shrink)) for step in plan.steps)
    return Plan(plan.name, tuple(steps))


def coarse(plan: Plan, shrink: int) -> Plan:
    """The plan asked at 1/`shrink` of the side, and in its last step at twice that.

    Raises:
        InputError: `shrink` is no power of 2.
    """
    if shrink == 1:
        return plan
    last = replace(plan.steps[-1], tier=_smaller(plan.steps[-1].tier, shrink // 2))
    return Plan(plan.name, (*pooled(plan, shrink).steps[:-1], last))


def _smaller(tier: Tier, shrink: int) -> Tier:
    """The tier at 1/`shrink` of the side, carrying nothing."""
    name = part_name(shrink)
    if not tier.guided:
        return CONDITIONAL if shrink == 1 else Tier(f"{name} conditional", False, shrink)
    return Tier(f"{name} in turn" if tier.in_turn else name, shrink=shrink, in_turn=tier.in_turn)


def lighter(plan: Plan) -> Plan:
    """The plan with guidance in turn: the same pictures, in about half of the memory."""
    steps = (
        replace(step, tier=replace(step.tier, name=f"{step.tier.name} in turn", in_turn=True))
        if step.tier.guided and not step.tier.in_turn
        else step
        for step in plan.steps
    )
    return Plan(plan.name, tuple(steps))


def _time(log_snr: float) -> float:
    """t = 1 / (1 + e^lam), without overflow."""
    return 0.5 * (1 - math.tanh(log_snr / 2))


def _nodes(n: int) -> range:
    steps = whole("The number of steps n", n, -(2**63))
    if steps < 1:
        raise InputError(f"A grid of {n} steps leads nowhere. Ask for at least 1.")
    return range(steps + 1)


def _ramp(n: int) -> list[float]:
    """n numbers from 0 to 1."""
    return [i / max(n - 1, 1) for i in _nodes(n)[:-1]]


def _positive(name: str, value: float) -> None:
    if not 0 < number(name, value) < math.inf:
        raise InputError(f"{name}={value} must be a positive number.")


def _finite(name: str, value: float) -> None:
    if not math.isfinite(number(name, value)):
        raise InputError(f"{name}={value} must be a finite number.")


def _grid(times: Iterable[float]) -> tuple[float, ...]:
    grid = tuple(times)
    if not all(t > s for t, s in pairwise(grid)):
        raise InputError(
            f"These settings give times that do not fall: {grid}. "
            "Use fewer steps or less extreme values."
        )
    return grid
