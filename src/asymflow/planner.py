"""The search for the cheapest trajectories through a measured profile.

A path makes moves (i, j, tier, order) from the first candidate time to the last. An order-2 move
at i extrapolates from p, where the move before it began, if the two may share a history: full and
carried tiers share one, a biased tier (all others) has its own. Without history, p = i, order 1.

What a path is expected to be off by at t = 0, root mean square, is built from single moves:

    every tier     e = grown(defect[tier, p, i, j])
    carried at i   e = grown(sqrt(defect[tier, p, i, j]^2 + (w * drift[tier, k, i])^2)), where
                   w = weight[p, i, j] and the last full move began at k < i
    carried at p   e^2 = that^2 + grown(v * drift[tier at p, k, p])^2, where v = 1 - s/t - w is the
                   weight of the estimate at p

What is wrong by d at times[j] is wrong by this much at t = 0, with a = amplification[j]:

    grown(d) = d (1 + (a - 1) / sqrt(1 + (a d / saturation)^2))

A small error grows by a. A large one has led to another picture, and that is only so far away.

Errors of full and carried moves are taken for independent: they add in squares. A biased tier errs
in the same direction every time, so the errors of consecutive moves of one biased tier, a stretch,
add up; the sums of stretches then add in squares to the rest. `predict` computes exactly this.

`front` minimises it by dynamic programming, with costs in whole ticks, rounded up. What the rest
of a path depends on is where it is, what it has spent, k, and how it arrived: p and kind (full, or
which carried tier) of a faithful move, or the biased tier, which may not go on as if its stretch
began anew. Stretches are solved first:
the least sum from s to e in m moves does not depend on anything outside. Nothing is approximated
but the price: with costs that are whole ticks the front is that of all paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asymflow.errors import InputError
from asymflow.types import UNGUIDED, Plan, Profile, Solver, Step, Tier

Cost = Literal["ms", "macs", "forwards"]
"""What is to be saved: milliseconds, multiply-accumulates or network passes, per picture."""

DEFAULT_MOVES = 24
"""Full moves that the default limit pays for."""

_Table = NDArray[np.float32]
_Path = Sequence[tuple[int, int]]
"""Where every move begins, and the index of its tier."""

_UNITS: dict[Cost, str] = {"ms": "ms", "macs": "MACs", "forwards": "forwards"}
_INF = np.float32(np.inf)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan that no other one beats in both cost and error.

    Attributes:
        plan: the steps.
        cost: per picture, in the unit searched for.
        error: predicted, root mean square at t = 0.
    """

    plan: Plan
    cost: float
    error: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a plan is expected to cost and to be off by.

    Attributes:
        errors: of every step by itself, root mean square at t = 0.
        shares: of every step in `error` squared; they sum to 1 unless the error is 0 or infinite.
        error: of all steps, root mean square at t = 0.
        cost: per picture, in the unit asked for.
    """

    errors: tuple[float, ...]
    shares: tuple[float, ...]
    error: float
    cost: float


def predict(profile: Profile, plan: Plan, *, cost: Cost = "ms") -> Prediction:
    """The expected error of a plan, step by step, and its cost.

    A "damped2" step without a history to use is of order 1, as it is when the plan runs.

    Raises:
        InputError: the plan uses a time, tier or solver that the profile has not measured.
    """
    path = _path(profile, plan)
    errors: list[float] = []
    stretches: list[list[int]] = []
    spent = 0.0
    for index, move in enumerate(_moves(profile, path)):
        tier = path[index][1]
        move = move if plan.steps[index].solver == "damped2" else move.first_order
        errors.append(_error(profile, tier, move))
        spent += _price(profile, tier, cost)
        biased = not profile.tiers[tier].faithful
        if biased and index > 0 and path[index - 1][1] == tier:
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


def front(
    profile: Profile,
    *,
    cost: Cost = "ms",
    limit: float | None = None,
    max_bytes: int | None = None,
    ticks: int = 128,
    name: str = "planned",
) -> tuple[Candidate, ...]:
    """Every plan on the Pareto front of cost against error, cheapest first: the error falls.

    Args:
        profile: what moves cost, and how wrong they are.
        cost: the unit of costs.
        limit: the most a plan may cost; by default what 24 full moves do.
        max_bytes: leave out tiers whose estimates need more memory.
        ticks: costs are rounded up to whole ticks, of which the limit has at most this many and at
            least three quarters of it: the number that wastes least. Time and memory are
            proportional to it.
        name: of the plans.

    Raises:
        InputError: no plan fits.
    """
    if ticks < 1:
        raise InputError(f"Costs in {ticks} ticks cannot be told apart. Use 1 or more; try 128.")
    tiers = _usable(profile, max_bytes)
    prices = {tier: _price(profile, tier, cost) for tier in tiers}
    for tier, price in prices.items():
        if not 0 < price < math.inf:
            raise InputError(
                f"Tier {profile.tiers[tier].name!r} costs {price:g} {_UNITS[cost]} in the profile, "
                "and prices must be positive numbers. Search by another cost."
            )
    if limit is None:
        limit = DEFAULT_MOVES * _price(profile, 0, cost)
    if not 0 < limit < math.inf:
        raise InputError(
            f"A limit of {limit} {_UNITS[cost]} cannot be planned for. Give a positive number, "
            "or none at all for the default."
        )
    # Ticks of a limit that no path can reach would be wasted.
    reach = min(limit, (len(profile.times) - 1) * max(prices.values()))
    grid = _grid(profile, prices, reach, ticks)
    candidates: list[Candidate] = []
    for path in _search(profile, grid):
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
    """The best plan within a budget, or the cheapest within an error: exactly one is given.

    Args:
        profile: what moves cost, and how wrong they are.
        budget: the most the plan may cost.
        error: the most it may be off by at t = 0, root mean square, as predicted.
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
    dearest = max(_price(profile, tier, cost) for tier in _usable(profile, max_bytes))
    everything = dearest * (len(profile.times) - 1)
    usual = min(everything, DEFAULT_MOVES * _price(profile, 0, cost))
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


@dataclass(frozen=True, slots=True)
class _Move:
    """A move of a path at the highest order it can have, up to 2.

    Attributes:
        p, i, j: it extrapolates from p, or has p = i, and goes from i to j.
        k: where the last full move before it began, or -1.
        older: tier of the estimate at p; its own where p = i.
    """

    p: int
    i: int
    j: int
    k: int
    older: int

    @property
    def first_order(self) -> _Move:
        return replace(self, p=self.i)


def _moves(profile: Profile, path: _Path) -> list[_Move]:
    ends = [*(i for i, _ in path[1:]), len(profile.times) - 1]
    moves: list[_Move] = []
    before: tuple[int, int] | None = None
    k = -1
    for (i, tier), j in zip(path, ends, strict=True):
        kind = profile.tiers[tier]
        shared = before is not None and _share(profile.tiers[before[1]], kind)
        p, older = before if before is not None and shared else (i, tier)
        moves.append(_Move(p, i, j, k, older))
        before = (i, tier)
        k = i if kind.full else k
    return moves


def _share(one: Tier, other: Tier) -> bool:
    """Whether estimates of two tiers may stand in one polynomial."""
    return one == other or (one.faithful and other.faithful)


def _error(profile: Profile, tier: int, move: _Move) -> float:
    """Of one move, root mean square at t = 0."""
    p, i, j, k = move.p, move.i, move.j, move.k
    parts = [profile.defect[tier, p, i, j]]
    w = profile.weight[p, i, j]
    if profile.tiers[tier].carried:
        parts[0] = np.hypot(parts[0], w * profile.drift[tier, k, i])
    if p < i and profile.tiers[move.older].carried:
        v = 1 - profile.times[j] / profile.times[i] - w
        parts.append(v * profile.drift[move.older, k, p])
    return math.hypot(*_grown(profile, np.array(parts), j))


def _grown(profile: Profile, error: _Table, j: int | slice) -> _Table:
    """Errors at a time, or [..., j] at some, as they are at t = 0."""
    a = profile.amplification[j]
    growth = 1 + (a - 1) / np.sqrt(1 + np.square(a * error / profile.saturation))
    return error * growth.astype(np.float32, copy=False)


def price(profile: Profile, plan: Plan, *, cost: Cost = "ms") -> float:
    """What the network calls of any plan cost per picture, whatever its times and solvers.

    Raises:
        InputError: the plan has a tier that was not profiled.
    """
    known = {tier: number for number, tier in enumerate(profile.tiers)}
    for step in plan.steps:
        if step.tier not in known:
            raise InputError(
                f"Tier {step.tier.name!r} of plan {plan.name!r} is not in the profile, which has "
                f"{', '.join(tier.name for tier in profile.tiers)}. Profile it, or drop the tier."
            )
    return sum(step.evaluations * _price(profile, known[step.tier], cost) for step in plan.steps)


def _price(profile: Profile, tier: int, cost: Cost) -> float:
    match cost:
        case "ms":
            return float(profile.cost_ms[tier])
        case "macs":
            return float(profile.macs[tier])
        case "forwards":
            # Of any move with one estimate.
            step = Step(1.0, 0.0, profile.tiers[tier], "multistep1")
            return float(step.passes(guided=profile.made.get("guidance_scale") != UNGUIDED))


def _path(profile: Profile, plan: Plan) -> _Path:
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
        if step.solver not in ("multistep1", "damped2"):
            raise InputError(
                f"Plan {plan.name!r} uses the solver {step.solver!r}, and profiles know orders 1 "
                "and 2. Use 'multistep1' or 'damped2'."
            )
    return [(nodes[step.t], profile.tiers.index(step.tier)) for step in plan.steps]


def _plan(profile: Profile, path: _Path, name: str) -> Plan:
    """The plan of a path, with the better order in every step."""
    steps: list[Step] = []
    for move, (_, tier) in zip(_moves(profile, path), path, strict=True):
        second = _error(profile, tier, move) < _error(profile, tier, move.first_order)
        solver: Solver = "damped2" if second else "multistep1"
        t, s = profile.times[move.i], profile.times[move.j]
        steps.append(Step(t, s, profile.tiers[tier], solver))
    return Plan(name, tuple(steps))


def _pareto(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those that no other beats. Rounded prices may have put some in the wrong order."""
    kept: list[Candidate] = []
    for each in sorted(candidates, key=lambda each: (each.cost, each.error)):
        if not kept or each.error < kept[-1].error:
            kept.append(each)
    return tuple(kept)


def _usable(profile: Profile, max_bytes: int | None) -> list[int]:
    """Tiers that fit in memory. Carried ones need a full one that does."""
    every = range(len(profile.tiers))
    fit = [tier for tier in every if max_bytes is None or profile.peak_bytes[tier] <= max_bytes]
    if not any(profile.tiers[tier].full for tier in fit):
        fit = [tier for tier in fit if not profile.tiers[tier].carried]
    if not fit:
        able = [tier for tier in every if not profile.tiers[tier].carried]
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
    first = [tier for tier in prices if not profile.tiers[tier].carried]
    cheap = min(first, key=lambda tier: prices[tier])
    unit, least = _UNITS[cost], prices[cheap]
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


# The search. A way of arriving at a node is a biased class or, after all of those, p of a faithful
# move and its kind: 0 for full, then the carried tiers. The last class is the start itself: it is
# reached by nothing, at node 0. A row is k + 1, so that row 0 stands for no full move yet.


@dataclass(frozen=True, slots=True)
class _Grid:
    """Prices in ticks.

    Attributes:
        count: ticks that may be spent.
        prices: of one estimate, by tier, in ticks that are not rounded.
        full, carried, biased: the tiers whose single moves are affordable, by kind.
    """

    count: int
    prices: dict[int, float]
    full: tuple[int, ...]
    carried: tuple[int, ...]
    biased: tuple[int, ...]

    def ticks(self, tier: int, moves: int = 1) -> int:
        """Of a number of moves in a row, rounded up together."""
        return _rounded_up(moves * self.prices[tier])

    @property
    def classes(self) -> int:
        return len(self.biased) + 1

    @property
    def kinds(self) -> int:
        return 1 + len(self.carried)

    def way(self, p: int, kind: int) -> int:
        """Of arriving by a faithful move from p."""
        return self.classes + p * self.kinds + kind


@dataclass(frozen=True, slots=True, eq=False)
class _Stretches:
    """The best ways of one biased tier by itself.

    Attributes:
        sums: per end e, the least sum of errors [p, s, m] from s in m + 1 moves, the last from p.
        squares: the least sum from s to e squared [s, e, m]; inf where fewer moves do as well.
    """

    sums: tuple[_Table, ...]
    squares: _Table


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """Least squared errors at exactly c ticks.

    Attributes:
        arrived: per node, by way, row and c [ways, rows, c].
        others: arrived in any way but by that biased class [class, i, row, c].
        stretches: per biased class.
    """

    arrived: tuple[_Table, ...]
    others: _Table
    stretches: tuple[_Stretches, ...]


def _rounded_up(ticks: float) -> int:
    """Whole ticks. A price that is whole but for float error stays as it is."""
    return max(1, math.ceil(ticks - 1e-9))


def _grid(profile: Profile, prices: dict[int, float], limit: float, ticks: int) -> _Grid:
    def waste(count: int) -> tuple[float, int]:
        """Of one move with every tier, in parts of the limit; then more ticks are better."""
        exact = [price * count / limit for price in prices.values()]
        return round(sum(_rounded_up(price) - price for price in exact) / count, 9), -count

    count = min(range(max(1, ticks * 3 // 4), ticks + 1), key=waste)
    scaled = {tier: price * count / limit for tier, price in prices.items()}
    able = [tier for tier in scaled if _rounded_up(scaled[tier]) <= count]
    kinds = [profile.tiers[tier] for tier in able]
    return _Grid(
        count,
        scaled,
        full=tuple(tier for tier, kind in zip(able, kinds, strict=True) if kind.full),
        carried=tuple(tier for tier, kind in zip(able, kinds, strict=True) if kind.carried),
        biased=tuple(tier for tier, kind in zip(able, kinds, strict=True) if not kind.faithful),
    )


def _errors(profile: Profile, tier: int, i: int, ks: slice, js: slice) -> _Table:
    """Squared errors of faithful moves from i [p <= i, k, j], but for what is old in them.

    For a full tier, which does not depend on k, the second axis has length 1.
    """
    error = profile.defect[tier, : i + 1, None, i, js]
    if profile.tiers[tier].carried:
        weight = profile.weight[: i + 1, None, i, js]
        error = np.hypot(error, weight * profile.drift[tier, ks, i, None])
    return np.square(_grown(profile, error, js))


def _stale(
    profile: Profile, tiers: Sequence[int], ps: slice, i: int, ks: slice, js: slice
) -> _Table:
    """What moves from i add to squared errors since estimates at p were carried [tier, p, k, j]."""
    ratio = (np.array(profile.times[js]) / profile.times[i]).astype(np.float32)
    v = 1 - ratio - profile.weight[ps, None, i, js]
    drift = profile.drift[tiers, ks, ps].swapaxes(1, 2)[..., None]
    return np.square(_grown(profile, v * drift, js))


def _solve_stretches(profile: Profile, tier: int, most: int) -> _Stretches:
    """All stretches of a biased tier, of up to `most` moves."""
    nodes = len(profile.times)
    sums = tuple(np.full((e, e, most), _INF) for e in range(nodes))
    squares = np.full((nodes, nodes, most), _INF)
    for i in range(nodes):
        if i > 0:
            least = sums[i].min(axis=0)
            fewer = np.minimum.accumulate(least, axis=1)[:, :-1]
            least[:, 1:][least[:, 1:] >= fewer] = _INF
            squares[:i, i] = least**2
        if i == nodes - 1:
            break
        later = slice(i + 1, None)
        error = _grown(profile, profile.defect[tier, : i + 1, i, later], later)
        error = np.minimum(error, error[i])
        reached = np.full((i + 1, nodes - 1 - i, most), _INF)
        for p in range(i):
            m = min(p + 1, most - 1)
            longer = sums[i][p, : p + 1, None, :m] + error[p, :, None]
            part = reached[: p + 1, :, 1 : m + 1]
            np.minimum(part, longer, out=part)
        reached[i, :, 0] = error[i]
        for j in range(i + 1, nodes):
            sums[j][i, : i + 1] = reached[:, j - i - 1]
    return _Stretches(sums, squares)


# Errors that overflow are infinite, which is what they should be.
@np.errstate(over="ignore")
def _search(profile: Profile, grid: _Grid) -> list[_Path]:
    """The path of least error for every number of ticks that lowers it, cheapest first."""
    tables = _sweep(profile, grid)
    least = tables.arrived[-1].min(axis=(0, 1))
    record = np.minimum.accumulate(np.concatenate(([_INF], least)))
    improving = np.flatnonzero(least < record[:-1])
    return [_trace(profile, grid, tables, int(c)) for c in improving]


def _sweep(profile: Profile, grid: _Grid) -> _Tables:
    """All tables, node after node in the direction of the moves."""
    nodes, width, classes = len(profile.times), grid.count + 1, grid.classes
    arrived = tuple(np.full((grid.way(j, 0), j + 1, width), _INF) for j in range(nodes))
    arrived[0][classes - 1, 0, 0] = 0.0
    others = np.full((classes - 1, nodes, nodes, width), _INF)
    stretches = tuple(
        _solve_stretches(profile, tier, _most_moves(grid, tier, nodes - 1)) for tier in grid.biased
    )
    for i in range(nodes - 1):
        for b, stretch in enumerate(stretches):
            np.delete(arrived[i], b, axis=0).min(axis=0, out=others[b, i, : i + 1])
            _push_stretches(grid, b, stretch.squares[i], others[b, i, : i + 1], arrived, i)
        _push_faithful(profile, grid, arrived, i)
    return _Tables(arrived, others, stretches)


def _most_moves(grid: _Grid, tier: int, most: int) -> int:
    return max(m for m in range(1, most + 1) if grid.ticks(tier, m) <= grid.count)


def _push_stretches(
    grid: _Grid, b: int, squares: _Table, source: _Table, arrived: tuple[_Table, ...], i: int
) -> None:
    """From node i, left from [row, c], by a stretch of class b to every later node."""
    reached = np.full((len(arrived) - 1 - i, *source.shape), _INF)
    for m in range(min(squares.shape[1], len(reached))):
        square = squares[i + 1 + m :, m]
        if np.isfinite(square).any():
            c = grid.ticks(grid.biased[b], m + 1)
            part = reached[m:, :, c:]
            np.minimum(part, source[:, :-c] + square[:, None, None], out=part)
    for table, part in zip(arrived[i + 1 :], reached, strict=True):
        target = table[b, : i + 1]
        np.minimum(target, part, out=target)


def _push_faithful(profile: Profile, grid: _Grid, arrived: tuple[_Table, ...], i: int) -> None:
    """From node i by full moves, after which k = i, and by carried ones, after which k stays."""
    later = slice(i + 1, None)
    anyhow = arrived[i].min(axis=0)[:, None]  # [row, 1, c]
    histories = [_history(profile, grid, arrived[i], p, i, later) for p in range(i)]
    shortest = [history.min(axis=0) for history in histories]
    for tier in grid.full:
        square = _errors(profile, tier, i, slice(0), later)[:, 0, :, None]
        reached = anyhow.min(axis=0) + square[i]
        for p, history in enumerate(shortest):
            np.minimum(reached, history + square[p], out=reached)
        _arrive(grid, arrived, reached[None], tier, grid.way(i, 0), slice(i + 1, i + 2))
    for kind, tier in enumerate(grid.carried, 1):
        if i == 0:
            break
        square = _errors(profile, tier, i, slice(i), later)[..., None]
        reached = anyhow[1:] + square[i]
        for p, history in enumerate(histories):
            part = reached[: p + 1]
            np.minimum(part, history + square[p, : p + 1], out=part)
        _arrive(grid, arrived, reached, tier, grid.way(i, kind), slice(1, i + 1))


def _history(profile: Profile, grid: _Grid, arrived: _Table, p: int, i: int, js: slice) -> _Table:
    """Least squared errors at i with an estimate at p to extrapolate from [k <= p, j, c].

    With what it will add to a move from i to j for being a carried one, which it is if k < p.
    """
    first = grid.way(p, 0)
    nodes = len(profile.amplification[js])
    history = np.full((p + 1, nodes, arrived.shape[2]), _INF)
    history[p] = arrived[first, p + 1]
    if grid.carried and p > 0:
        older = _stale(profile, grid.carried, slice(p, p + 1), i, slice(p), js)[:, 0, ..., None]
        for kind, each in enumerate(older, 1):
            part = history[:p]
            np.minimum(part, arrived[first + kind, 1 : p + 1, None] + each, out=part)
    return history


def _arrive(
    grid: _Grid, arrived: tuple[_Table, ...], reached: _Table, tier: int, way: int, rows: slice
) -> None:
    """Note what moves of a tier reach [row, j, c before them] at the last nodes."""
    c = grid.ticks(tier)
    for j, table in enumerate(arrived[-reached.shape[1] :]):
        target = table[way, rows, c:]
        np.minimum(target, reached[:, j, :-c], out=target)


def _trace(profile: Profile, grid: _Grid, tables: _Tables, c: int) -> _Path:
    """The path to the last node that spends exactly c ticks and has the least error.

    It asks at every node which move led there. That is less work than noting it for every entry.
    """
    path: list[tuple[int, int]] = []
    j = len(profile.times) - 1
    way, row = _least(tables.arrived[j][:, :, c])
    while j > 0:
        if way < grid.classes - 1:
            stretch, tier = tables.stretches[way], grid.biased[way]
            counts = stretch.squares.shape[2]
            before = np.array([c - grid.ticks(tier, m + 1) for m in range(counts)])
            values = tables.others[way, :j, row][:, before] + stretch.squares[:j, j]
            i, m = _least(np.where(before < 0, _INF, values))
            path += [(node, tier) for node in _trace_stretch(profile, tier, stretch, i, j, m)]
            j, c = i, int(before[m])
            ways = tables.arrived[j][:, row, c].copy()
            ways[way] = _INF
            way = int(ways.argmin())
        else:
            i, kind = divmod(way - grid.classes, grid.kinds)
            j, (tier, c, way, row) = i, _trace_faithful(profile, grid, tables, i, j, kind, row, c)
            path.append((i, tier))
    return path[::-1]


def _trace_stretch(
    profile: Profile, tier: int, stretch: _Stretches, s: int, e: int, m: int
) -> list[int]:
    """Where the m + 1 moves of the best stretch from s to e begin, the last one first."""
    begins = [int(stretch.sums[e][:, s, m].argmin())]
    while begins[-1] != s:
        m -= 1
        i = begins[-1]
        error = _grown(profile, profile.defect[tier, : i + 1, i, e], e)
        longer = stretch.sums[i][:, s, m] + np.minimum(error, error[i])[:i]
        begins.append(int(longer.argmin()))
        e = i
    return begins


def _trace_faithful(
    profile: Profile, grid: _Grid, tables: _Tables, i: int, j: int, kind: int, row: int, c: int
) -> tuple[int, int, int, int]:
    """The tier of the move of this kind from i to j with this row and c; c, way and row before."""
    best, found = math.inf, None
    for tier in grid.full if kind == 0 else grid.carried[kind - 1 : kind]:
        before = c - grid.ticks(tier)
        if before < 0:
            continue
        arrived = tables.arrived[i][:, :, before]
        end = slice(j, j + 1)
        # A full move goes on from any row, and its error does not depend on that.
        rows = range(arrived.shape[1]) if kind == 0 else [row]
        for k in (each - 1 for each in rows):
            square = _errors(profile, tier, i, slice(k, k + 1), end)[:, 0, 0]
            values = arrived[:, k + 1] + square[i]
            if k >= 0:
                older = np.zeros((i - k, grid.kinds), np.float32)
                if grid.carried:
                    ps, ks = slice(k + 1, i), slice(k, k + 1)
                    older[1:, 1:] = _stale(profile, grid.carried, ps, i, ks, end)[..., 0, 0].T
                ways = slice(grid.way(k, 0), grid.way(i, 0))
                longer = arrived[ways, k + 1] + (square[k:i, None] + older).ravel()
                values[ways] = np.minimum(values[ways], longer)
            way = int(values.argmin())
            if values[way] < best:
                best, found = values[way], (tier, before, way, k + 1)
    assert found is not None, "an entry that is finite was reached by something"
    return found


def _least(values: _Table) -> tuple[int, int]:
    """Where the least of a matrix is."""
    row, column = divmod(int(values.argmin()), values.shape[1])
    return row, column
