"""The search for the cheapest trajectories through a measured profile.

A path makes moves (i, j, tier, order) from the first candidate time to the last. An order-2 move
at i extrapolates from p, where the move before it began, if the two may share a history: full and
carried tiers share one, a biased tier (all others) has its own. Without history, p = i, order 1.

What a path is expected to be off by at t = 0, root mean square, is built from single moves:

    full, biased   e = amplification[j] * defect[tier, p, i, j]
    carried        e^2 = that^2 + (amplification[j] * weight[p, i, j] * drift[tier, k, i])^2,
                   where the last full move began at k < i

Errors of full and carried moves are taken for independent: they add in squares. A biased tier errs
in the same direction every time, so the errors of consecutive moves of one biased tier, a stretch,
add up; the sums of stretches then add in squares to the rest. `predict` computes exactly this.

`front` minimises it by dynamic programming, with costs in whole ticks, rounded up. What the rest
of a path depends on is where it is, what it has spent, k, and how it arrived: p of a faithful move
or the biased tier, which may not go on as if its stretch began anew. Stretches are solved first:
the least sum from s to e in m moves does not depend on anything outside. Nothing is approximated
but the price: with costs that are whole ticks the front is that of all paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asymflow.errors import InputError
from asymflow.types import Plan, Profile, Solver, Step, Tier

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

    A "multistep2" step without a history to use is of order 1, as it is when the plan runs.

    Raises:
        InputError: the plan uses a time, tier or solver that the profile has not measured.
    """
    path = _path(profile, plan)
    errors: list[float] = []
    stretches: list[list[int]] = []
    spent = 0.0
    for index, (p, i, j, k) in enumerate(_moves(profile, path)):
        tier = path[index][1]
        p = p if plan.steps[index].solver == "multistep2" else i
        errors.append(_error(profile, tier, p, i, j, k))
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


def _moves(profile: Profile, path: _Path) -> list[tuple[int, int, int, int]]:
    """(p, i, j, k) of every move of a path at the highest order it can have, up to 2.

    p is where the move it extrapolates from began, or i; k where the last full one did, or -1.
    """
    ends = [*(i for i, _ in path[1:]), len(profile.times) - 1]
    moves: list[tuple[int, int, int, int]] = []
    before: tuple[int, Tier] | None = None
    k = -1
    for (i, index), j in zip(path, ends, strict=True):
        tier = profile.tiers[index]
        p = before[0] if before is not None and _share(before[1], tier) else i
        moves.append((p, i, j, k))
        before = (i, tier)
        k = i if tier.full else k
    return moves


def _share(one: Tier, other: Tier) -> bool:
    """Whether estimates of two tiers may stand in one polynomial."""
    return one == other or (one.faithful and other.faithful)


def _error(profile: Profile, tier: int, p: int, i: int, j: int, k: int) -> float:
    """Of one move, root mean square at t = 0."""
    amplification = float(profile.amplification[j])
    error = amplification * float(profile.defect[tier, p, i, j])
    if profile.tiers[tier].carried:
        drift = float(profile.weight[p, i, j]) * float(profile.drift[tier, k, i])
        error = math.hypot(error, amplification * drift)
    return error


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
            return float(Step(1.0, 0.0, profile.tiers[tier], "multistep1").forwards)


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
        if step.solver not in ("multistep1", "multistep2"):
            raise InputError(
                f"Plan {plan.name!r} uses the solver {step.solver!r}, and profiles know orders 1 "
                "and 2. Use 'multistep1' or 'multistep2'."
            )
    return [(nodes[step.t], profile.tiers.index(step.tier)) for step in plan.steps]


def _plan(profile: Profile, path: _Path, name: str) -> Plan:
    """The plan of a path, with the better order in every step."""
    steps: list[Step] = []
    for (p, i, j, k), (_, tier) in zip(_moves(profile, path), path, strict=True):
        second = _error(profile, tier, p, i, j, k) < _error(profile, tier, i, i, j, k)
        solver: Solver = "multistep2" if second else "multistep1"
        steps.append(Step(profile.times[i], profile.times[j], profile.tiers[tier], solver))
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
# move. The last class is the start itself: it is reached by nothing, at node 0. A row is k + 1, so
# that row 0 stands for no full move yet.


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
    """Squared errors of faithful moves from i at their better order [p <= i, k, j].

    For a full tier, which does not depend on k, the second axis has length 1.
    """
    amplification = profile.amplification[js]
    square = (amplification * profile.defect[tier, : i + 1, i, js])[:, None] ** 2
    if profile.tiers[tier].carried:
        weight = (amplification * profile.weight[: i + 1, i, js])[:, None]
        square = square + (weight * profile.drift[tier, ks, i, None]) ** 2
    return np.minimum(square, square[i])


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
        error = profile.amplification[i + 1 :] * profile.defect[tier, : i + 1, i, i + 1 :]
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
    arrived = tuple(np.full((classes + j, j + 1, width), _INF) for j in range(nodes))
    arrived[0][classes - 1, 0, 0] = 0.0
    others = np.full((classes - 1, nodes, nodes, width), _INF)
    stretches = tuple(
        _solve_stretches(profile, tier, _most_moves(grid, tier, nodes - 1)) for tier in grid.biased
    )
    for i in range(nodes - 1):
        for b, stretch in enumerate(stretches):
            np.delete(arrived[i], b, axis=0).min(axis=0, out=others[b, i, : i + 1])
            _push_stretches(grid, b, stretch.squares[i], others[b, i, : i + 1], arrived, i)
        _push_full(profile, grid, arrived, i)
        _push_carried(profile, grid, arrived, i)
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


def _push_full(profile: Profile, grid: _Grid, arrived: tuple[_Table, ...], i: int) -> None:
    """From node i by a full move: p = k = i from then on."""
    classes = grid.classes
    least = arrived[i].min(axis=1)
    sources = np.concatenate((least[classes:], least.min(axis=0)[None]))
    for tier in grid.full:
        c = grid.ticks(tier)
        square = _errors(profile, tier, i, slice(0), slice(i + 1, None))[:, 0, :, None]
        reached = (sources[:, None, :-c] + square).min(axis=0)
        for table, part in zip(arrived[i + 1 :], reached, strict=True):
            target = table[classes + i, i + 1, c:]
            np.minimum(target, part, out=target)


def _push_carried(profile: Profile, grid: _Grid, arrived: tuple[_Table, ...], i: int) -> None:
    """From node i by a carried move: p = i from then on, and k stays."""
    if i == 0:
        return
    classes = grid.classes
    sources = np.concatenate((arrived[i][classes:, 1:], arrived[i][:, 1:].min(axis=0)[None]))
    prices = {tier: grid.ticks(tier) for tier in grid.carried}
    for c in set(prices.values()):
        # Among tiers of one price only the best counts, move by move.
        same = [tier for tier in prices if prices[tier] == c]
        every = [_errors(profile, tier, i, slice(i), slice(i + 1, None)) for tier in same]
        square = np.minimum.reduce(every)[..., None]
        # [k, j, c], from what may have any history and then from every p: k <= p.
        reached = sources[i, :, None, :-c] + square[i]
        longer = np.empty_like(reached)
        for p in range(i):
            np.add(sources[p, : p + 1, None, :-c], square[p, : p + 1], out=longer[: p + 1])
            np.minimum(reached[: p + 1], longer[: p + 1], out=reached[: p + 1])
        for j, table in enumerate(arrived[i + 1 :]):
            target = table[classes + i, 1 : i + 1, c:]
            np.minimum(target, reached[:, j], out=target)


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
            i = way - grid.classes
            j, (tier, c, way, row) = i, _trace_faithful(profile, grid, tables, i, j, row, c)
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
        error = profile.amplification[e] * profile.defect[tier, : i + 1, i, e]
        longer = stretch.sums[i][:, s, m] + np.minimum(error, error[i])[:i]
        begins.append(int(longer.argmin()))
        e = i
    return begins


def _trace_faithful(
    profile: Profile, grid: _Grid, tables: _Tables, i: int, j: int, row: int, c: int
) -> tuple[int, int, int, int]:
    """The tier of the move from i to j with this row and c; and c, way and row before it."""
    full = row == i + 1
    best, found = math.inf, None
    for tier in grid.full if full else grid.carried:
        before = c - grid.ticks(tier)
        if before < 0:
            continue
        square = _errors(profile, tier, i, slice(row - 1, row), slice(j, j + 1))[:, 0, 0]
        arrived = tables.arrived[i][:, :, before]
        square = np.concatenate((np.repeat(square[i], grid.classes), square[:i]))
        values = (arrived if full else arrived[:, row, None]) + square[:, None]
        way, column = _least(values)
        if values[way, column] < best:
            best, found = values[way, column], (tier, before, way, column if full else row)
    assert found is not None, "an entry that is finite was reached by something"
    return found


def _least(values: _Table) -> tuple[int, int]:
    """Where the least of a matrix is."""
    row, column = divmod(int(values.argmin()), values.shape[1])
    return row, column
