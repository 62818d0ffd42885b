"""The search for the cheapest trajectories through a measured profile.

A path makes moves (i, j, tier, order) from the first candidate time to the last. An order-2 move
at i extrapolates from p, where the move before it began, if the two may share a history: full and
carried tiers share one, a biased tier (all others) has its own. Without history, p = i, order 1.

The expected error of a path at t = 0, root mean square, is built from those of single moves:

    every tier     e = grown(defect[tier, p, i, j])
    carried at i   e = grown(sqrt(defect[tier, p, i, j]^2 + (w * drift[tier, k, i])^2)), where
                   w = weight[p, i, j] and the last full move began at k < i
    carried at p   e^2 = that^2 + grown(v * drift[tier at p, k, p])^2, where v = 1 - s/t - w is the
                   weight of the estimate at p

An error d at times[j] grows until t = 0 to this, with a = amplification[j]:

    grown(d) = d (1 + (a - 1) / sqrt(1 + (a d / saturation)^2))

A small error grows by the factor a. A large one leads to another picture, whose distance is
bounded: the error saturates.

Errors of full and carried moves are assumed independent: they add in squares. A biased tier errs
in the same direction every time, so the errors of consecutive moves of one biased tier, a stretch,
add up; the sums of stretches then add in squares to the rest. `predict` computes exactly this.

Late tiers are no part of the search: their errors depend on the last move that asked the whole
network, which is another one for every tier. `predict` knows them,

    late at i      e = grown(sqrt(defect[tier, p, i, j]^2 + (w * drift[tier, q, i])^2)), where the
                   last move that asked the whole network at full size began at q < i

and fits and rollouts try them (`asymflow.planning.proposals`, `asymflow.planning.verifier`).

`front` minimises it by dynamic programming, with costs in whole ticks, rounded up. The state
of the search is the node, the cost so far, k, and the way of arrival: p and kind (full, or
which carried tier) of an unreduced move, or the biased tier, whose stretch may not be continued as
if it were a new one. Stretches are solved first:
the least sum from s to e in m moves does not depend on anything outside. Only the
price is approximated: with costs that are whole ticks the front is that of all paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asymflow.core.errors import InputError
from asymflow.core.types import Plan, Profile, Solver, Step
from asymflow.planning.prediction import (
    UNITS,
    Cost,
    Path,
    move_error,
    moves_of,
    predict,
    tier_price,
)
from asymflow.planning.search import grid_of, search

DEFAULT_MOVES = 24
"""The default limit, in costs of a full move."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan on the Pareto front of cost and error.

    Attributes:
        plan: the steps.
        cost: per picture, in the unit searched for.
        error: predicted, root mean square at t = 0.
    """

    plan: Plan
    cost: float
    error: float


def front(
    profile: Profile,
    *,
    cost: Cost = "ms",
    limit: float | None = None,
    max_bytes: int | None = None,
    ticks: int = 128,
    name: str = "planned",
) -> tuple[Candidate, ...]:
    """Find every plan on the Pareto front of cost against error, cheapest first.

    Args:
        profile: cost and error of moves.
        cost: the unit of costs.
        limit: maximal cost of a plan; by default that of 24 full moves.
        max_bytes: leave out tiers whose estimates need more memory.
        ticks: costs are rounded up to whole ticks. The limit is divided into at most this many, and
            at least three quarters of it: the number with the least rounding loss. Time and
            memory are proportional to it.
        name: of the plans.

    Raises:
        InputError: no plan fits.
    """
    if ticks < 1:
        raise InputError(f"Costs in {ticks} ticks cannot be told apart. Use 1 or more; try 128.")
    tiers = _usable(profile, max_bytes)
    prices = {tier: tier_price(profile, tier, cost) for tier in tiers}
    for tier, price in prices.items():
        if not 0 < price < math.inf:
            raise InputError(
                f"Tier {profile.tiers[tier].name!r} costs {price:g} {UNITS[cost]} in the profile, "
                "and prices must be positive numbers. Search by another cost."
            )
    if limit is None:
        limit = DEFAULT_MOVES * tier_price(profile, 0, cost)
    if not 0 < limit < math.inf:
        raise InputError(
            f"A limit of {limit} {UNITS[cost]} cannot be planned for. Give a positive number, "
            "or none at all for the default."
        )
    # Ticks of a limit that no path can reach would be wasted.
    reach = min(limit, (len(profile.times) - 1) * max(prices.values()))
    grid = grid_of(profile, prices, reach, ticks)
    candidates: list[Candidate] = []
    for path in search(profile, grid):
        found = _plan(profile, path, name)
        prediction = predict(profile, found, cost=cost)
        candidates.append(Candidate(found, prediction.cost, prediction.error))
    if not candidates:
        raise _nothing_fits(profile, prices, cost, limit)
    return _pareto(candidates)


def plan(
    profile: Profile,
    *,
    budget: float | None = None,
    error: float | None = None,
    cost: Cost = "ms",
    max_bytes: int | None = None,
    name: str = "planned",
) -> Plan:
    """Find the best plan within a budget, or the cheapest within an error; give exactly one.

    Args:
        profile: cost and error of moves.
        budget: maximal cost of the plan.
        error: maximal predicted error at t = 0, root mean square.
        cost: the unit of costs.
        max_bytes: leave out tiers whose estimates need more memory.
        name: of the plan.

    Raises:
        InputError: there is no such plan.
    """
    if budget is not None and error is None:
        found = front(profile, cost=cost, limit=budget, max_bytes=max_bytes, name=name)
        return found[-1].plan
    if error is None or budget is not None:
        raise InputError(
            f"budget={budget} and error={error} do not say what to look for. Give one of them: the "
            "best plan within a budget, or the cheapest within an error."
        )
    if not 0 < error < math.inf:
        raise InputError(f"No plan can be asked for an error of {error}. Give a positive number.")
    dearest = max(tier_price(profile, tier, cost) for tier in _usable(profile, max_bytes))
    everything = dearest * (len(profile.times) - 1)
    usual = min(everything, DEFAULT_MOVES * tier_price(profile, 0, cost))
    best = math.inf
    for limit in sorted({usual, everything}):
        found = front(profile, cost=cost, limit=limit, max_bytes=max_bytes, name=name)
        best = min(best, found[-1].error)
        good = next((each for each in found if each.error <= error), None)
        if good is not None:
            # The same search with finer ticks may find a cheaper one; or, by rounding, none.
            finer = front(profile, cost=cost, limit=good.cost, max_bytes=max_bytes, name=name)
            return next((each for each in finer if each.error <= error), good).plan
    raise InputError(
        f"No plan comes within an error of {error:g}: the best reaches {best:g}. Allow at least "
        "that, or measure a profile with more times."
    )


# What a path is, and what it costs.


def _plan(profile: Profile, path: Path, name: str) -> Plan:
    """The plan of a path, with the better order in every step."""
    steps: list[Step] = []
    for move, (_, tier) in zip(moves_of(profile, path), path, strict=True):
        second = move_error(profile, tier, move) < move_error(profile, tier, move.first_order)
        solver: Solver = "damped2" if second else "multistep1"
        t, s = profile.times[move.i], profile.times[move.j]
        steps.append(Step(t, s, profile.tiers[tier], solver))
    return Plan(name, tuple(steps))


def _pareto(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The non-dominated candidates. Rounded prices may have left some in the wrong order."""
    kept: list[Candidate] = []
    for each in sorted(candidates, key=lambda each: (each.cost, each.error)):
        if not kept or each.error < kept[-1].error:
            kept.append(each)
    return tuple(kept)


def _usable(profile: Profile, max_bytes: int | None) -> list[int]:
    """Tiers that fit in memory, but late ones. Carried ones need a full one that fits."""
    every = [number for number, tier in enumerate(profile.tiers) if not tier.late]
    fit = [tier for tier in every if max_bytes is None or profile.peak_bytes[tier] <= max_bytes]
    if not any(profile.tiers[tier].full for tier in fit):
        fit = [tier for tier in fit if not profile.tiers[tier].cached]
    if not fit:
        able = [tier for tier in every if not profile.tiers[tier].cached]
        small = min(able, key=lambda tier: profile.peak_bytes[tier])
        raise InputError(
            f"No tier fits in {max_bytes} bytes: the smallest that a plan can begin with, "
            f"{profile.tiers[small].name!r}, needs {profile.peak_bytes[small]}. Raise max_bytes, "
            "or measure a profile of smaller pictures."
        )
    return fit


def _nothing_fits(
    profile: Profile, prices: dict[int, float], cost: Cost, limit: float
) -> InputError:
    first = [tier for tier in prices if not profile.tiers[tier].cached]
    cheap = min(first, key=lambda tier: prices[tier])
    unit, least = UNITS[cost], prices[cheap]
    if least <= limit:
        return InputError(
            f"No plan within {limit:g} {unit} has a finite error in this profile, though a step of "
            f"{profile.tiers[cheap].name!r} takes {least:g} {unit}. Raise the budget, or measure "
            "the profile again."
        )
    return InputError(
        f"No plan fits in {limit:g} {unit}: the cheapest single step, "
        f"{profile.tiers[cheap].name!r}, takes {least:g} {unit}. Raise the budget to that or more."
    )


# The search. A way of arriving at a node is a biased class or, after all of those, p of an
# unreduced move and its kind: 0 for full, then the carried tiers. The last class is the start
# itself: it is reached by nothing, at node 0. A row is k + 1, so that row 0 stands for no full move
# yet.
