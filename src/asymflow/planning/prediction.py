"""Predicts the cost of a plan and its error at t = 0, from a profile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asymflow.core.errors import InputError
from asymflow.core.types import UNGUIDED, Plan, Profile, Step, Tier, share_history, whole_tier

Cost = Literal["ms", "macs", "forwards"]
"""Unit of cost: milliseconds, multiply-accumulates or network passes, per picture."""
Table = NDArray[np.float32]
Path = Sequence[tuple[int, int]]
"""For every move, the index of the time where it begins and of its tier."""
UNITS: dict[Cost, str] = {"ms": "ms", "macs": "MACs", "forwards": "forwards"}
INF = np.float32(np.inf)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted cost and error of a plan.

    Attributes:
        errors: of every step on its own, root mean square at t = 0.
        shares: of every step in `error` squared; they sum to 1 unless the error is 0 or infinite.
        error: of all steps, root mean square at t = 0.
        cost: per picture, in the requested unit.
    """

    errors: tuple[float, ...]
    shares: tuple[float, ...]
    error: float
    cost: float


def predict(profile: Profile, plan: Plan, *, cost: Cost = "ms") -> Prediction:
    """Predict the error of a plan, step by step, and its cost.

    A "damped2" step without a history is of order 1, as when the plan runs.

    Raises:
        InputError: the plan uses a time, tier or solver that the profile has not measured.
    """
    path = path_of(profile, plan)
    errors: list[float] = []
    stretches: list[list[int]] = []
    spent = 0.0
    for index, move in enumerate(moves_of(profile, path)):
        tier = path[index][1]
        move = move if plan.steps[index].solver == "damped2" else move.first_order
        errors.append(move_error(profile, tier, move))
        spent += tier_price(profile, tier, cost)
        kind = whole_tier(profile.tiers[tier])
        before = whole_tier(profile.tiers[path[index - 1][1]]) if index > 0 else None
        if not kind.unreduced and kind == before:
            stretches[-1].append(index)
        else:
            stretches.append([index])
    sums = [sum(errors[index] for index in stretch) for stretch in stretches]
    square = sum(each**2 for each in sums)
    shares = tuple(
        errors[index] * whole / square if 0 < square < math.inf else 0.0
        for stretch, whole in zip(stretches, sums, strict=True)
        for index in stretch
    )
    return Prediction(tuple(errors), shares, math.sqrt(square), spent)


@dataclass(frozen=True, slots=True)
class _Move:
    """A move of a path at the highest possible order, up to 2.

    Attributes:
        p, i, j: it extrapolates from p, or has p = i, and goes from i to j.
        k: where the last full move before it began, or -1.
        asked: where the last move before it that asked the whole network at full size began, or -1.
        older: tier of the estimate at p; its own where p = i.
    """

    p: int
    i: int
    j: int
    k: int
    asked: int
    older: int

    @property
    def first_order(self) -> _Move:
        return replace(self, p=self.i)

    def source(self, tier: Tier) -> int | None:
        """Where what a tier reuses in this move was made; None if it reuses nothing."""
        if tier.late:
            return self.asked
        return self.k if tier.cached else None


def moves_of(profile: Profile, path: Path) -> list[_Move]:
    """The moves of a path, each with the earlier estimates that it depends on."""
    ends = [*(i for i, _ in path[1:]), len(profile.times) - 1]
    moves: list[_Move] = []
    before: tuple[int, int] | None = None
    k = asked = -1
    for (i, tier), j in zip(path, ends, strict=True):
        kind = profile.tiers[tier]
        shared = before is not None and share_history(profile.tiers[before[1]], kind)
        p, older = before if before is not None and shared else (i, tier)
        moves.append(_Move(p, i, j, k, asked, older))
        before = (i, tier)
        k = i if kind.full else k
        asked = i if kind.whole else asked
    return moves


def move_error(profile: Profile, tier: int, move: _Move) -> float:
    """Error of one move, root mean square at t = 0."""
    p, i, j = move.p, move.i, move.j
    parts = [profile.local_error[tier, p, i, j]]
    w = profile.weight[p, i, j]
    if (k := move.source(profile.tiers[tier])) is not None:
        parts[0] = np.hypot(parts[0], w * profile.drift[tier, k, i])
    v = 1 - profile.times[j] / profile.times[i] - w
    # Without weight nothing counts, not even what is unknown because it was never profiled.
    if v and p < i and (k := move.source(profile.tiers[move.older])) is not None:
        parts.append(v * profile.drift[move.older, k, p])
    return math.hypot(*grown(profile, np.array(parts), j))


def grown(profile: Profile, error: Table, j: int | slice) -> Table:
    """The errors at t = 0 that errors at a time, or [..., j] at several, grow to."""
    a = profile.amplification[j]
    growth = 1 + (a - 1) / np.sqrt(1 + np.square(a * error / profile.saturation))
    return error * growth.astype(np.float32, copy=False)


def price(profile: Profile, plan: Plan, *, cost: Cost = "ms") -> float:
    """Cost of the network calls of a plan per picture; its times and solvers may be any.

    Raises:
        InputError: the plan has a tier that was not profiled.
    """
    return sum(step_prices(profile, plan, cost=cost))


def step_prices(profile: Profile, plan: Plan, *, cost: Cost = "ms") -> tuple[float, ...]:
    """Cost of the network calls of each step of a plan per picture.

    Raises:
        InputError: the plan has a tier that was not profiled.
    """
    steps = zip(plan.steps, tiers_asked(profile, plan), strict=True)
    return tuple(
        0.0 if step.reuse else step.evaluations * tier_price(profile, tier, cost)
        for step, tier in steps
    )


def tiers_asked(profile: Profile, plan: Plan) -> tuple[int, ...]:
    """The index of the tier whose passes each step of a plan makes; 0 where it makes none.

    Raises:
        InputError: the plan has a tier that was not profiled.
    """
    known = {tier: number for number, tier in enumerate(profile.tiers)}
    # That of an unguided step has no name of its own.
    unnamed = {replace(tier, name=""): number for tier, number in known.items()}
    found: list[int] = []
    for step in plan.steps:
        tier = asked_tier(step)
        number = known.get(tier) if tier.name else unnamed.get(tier)
        if number is None and not step.reuse:
            raise InputError(
                f"Tier {step.tier.name!r} of plan {plan.name!r} is not in the profile, which has "
                f"{', '.join(tier.name for tier in profile.tiers)}. Profile it, or drop the tier."
            )
        found.append(0 if step.reuse or number is None else number)
    return tuple(found)


def asked_tier(step: Step) -> Tier:
    """The tier whose passes a step makes: without a name, if a guided one has a scale of 1."""
    if step.guidance_scale != 1 or not step.tier.guided:
        return step.tier
    return replace(step.tier, name="", guided=False, sequential_cfg=False)


def tier_price(profile: Profile, tier: int, cost: Cost) -> float:
    """Cost of one estimate of a tier per picture, in the unit of `cost`."""
    match cost:
        case "ms":
            return float(profile.cost_ms[tier])
        case "macs":
            return float(profile.macs[tier])
        case "forwards":
            # Any move with one estimate will do.
            step = Step(1.0, 0.0, profile.tiers[tier], "multistep1")
            return float(step.passes(guided=profile.made.get("guidance_scale") != UNGUIDED))


def path_of(profile: Profile, plan: Plan) -> Path:
    """A plan as indices of the profile's times and tiers, one pair for each step.

    Raises:
        InputError: it has a time, tier or solver that was not profiled.
    """
    nodes = {t: i for i, t in enumerate(profile.times)}
    for t in plan.times:
        if t not in nodes:
            raise InputError(
                f"Plan {plan.name!r} stops at t={t}, which the profile has not measured. Use its "
                f"{len(nodes)} times only, or measure a profile with that time."
            )
    for step in plan.steps:
        if step.tier not in profile.tiers:
            names = ", ".join(tier.name for tier in profile.tiers)
            raise InputError(
                f"Plan {plan.name!r} uses the tier {step.tier.name!r}, which the profile has not "
                f"measured. Choose from: {names}."
            )
        if step.weights is not None or step.guidance_scale is not None:
            raise InputError(
                f"Plan {plan.name!r} has a step with weights or a guidance scale of its own, which "
                "no profile measures. Use solvers, and the scale of the request."
            )
        if step.solver not in ("multistep1", "damped2"):
            raise InputError(
                f"Plan {plan.name!r} uses the solver {step.solver!r}, and profiles know orders 1 "
                "and 2. Use 'multistep1' or 'damped2'."
            )
    return [(nodes[step.t], profile.tiers.index(step.tier)) for step in plan.steps]
