"""Dynamic programming over times, tiers and prices: the whole front of cost against error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asymflow.core.types import Profile
from asymflow.planning.prediction import INF, Path, Table, grown


@dataclass(frozen=True, slots=True)
class _Grid:
    """Prices in ticks.

    Attributes:
        count: ticks that may be spent.
        prices: of one estimate, by tier, in ticks that are not rounded.
        full, cached, biased: the tiers whose single moves are affordable, by kind.
    """

    count: int
    prices: dict[int, float]
    full: tuple[int, ...]
    cached: tuple[int, ...]
    biased: tuple[int, ...]

    def ticks(self, tier: int, moves: int = 1) -> int:
        """Cost of a number of moves in a row, rounded up together."""
        return _rounded_up(moves * self.prices[tier])

    @property
    def classes(self) -> int:
        return len(self.biased) + 1

    @property
    def kinds(self) -> int:
        return 1 + len(self.cached)

    def way(self, p: int, kind: int) -> int:
        """Index of arriving by an unreduced move from p."""
        return self.classes + p * self.kinds + kind


@dataclass(frozen=True, slots=True, eq=False)
class _Stretches:
    """The best stretches of one biased tier.

    Attributes:
        sums: per end e, the least sum of errors [p, s, m] from s in m + 1 moves, the last from p.
        squares: the least sum from s to e squared [s, e, m]; inf where fewer moves do as well.
    """

    sums: tuple[Table, ...]
    squares: Table


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """Least squared errors at exactly c ticks.

    Attributes:
        arrived: per node, by way, row and c [ways, rows, c].
        others: arrived in any other way than by that biased class [class, i, row, c].
        stretches: per biased class.
    """

    arrived: tuple[Table, ...]
    others: Table
    stretches: tuple[_Stretches, ...]


def _rounded_up(ticks: float) -> int:
    """Whole ticks. A price that is whole but for float error stays as it is."""
    return max(1, math.ceil(ticks - 1e-9))


def grid_of(profile: Profile, prices: dict[int, float], limit: float, ticks: int) -> _Grid:
    """Prices in whole ticks, rounded up, in the unit with the least rounding loss.

    Args:
        prices: of one move, by the index of its tier, in the unit of `limit`.
        ticks: the limit is divided into at most this many, and at least 3/4 of it.
    """

    def waste(count: int) -> tuple[float, int]:
        """Rounding loss of one move with every tier, as a share of the limit; ties prefer more."""
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
        cached=tuple(tier for tier, kind in zip(able, kinds, strict=True) if kind.cached),
        biased=tuple(tier for tier, kind in zip(able, kinds, strict=True) if not kind.unreduced),
    )


def _errors(profile: Profile, tier: int, i: int, ks: slice, js: slice) -> Table:
    """Squared errors of unreduced moves from i [p <= i, k, j], without the multistep history term.

    For a full tier, which does not depend on k, the second axis has length 1.
    """
    error = profile.local_error[tier, : i + 1, None, i, js]
    if profile.tiers[tier].cached:
        weight = profile.weight[: i + 1, None, i, js]
        error = np.hypot(error, weight * profile.drift[tier, ks, i, None])
    return np.square(grown(profile, error, js))


def _stale(
    profile: Profile, tiers: Sequence[int], ps: slice, i: int, ks: slice, js: slice
) -> Table:
    """Squared errors added by moves from i if estimates at p were carried [tier, p, k, j]."""
    ratio = (np.array(profile.times[js]) / profile.times[i]).astype(np.float32)
    v = 1 - ratio - profile.weight[ps, None, i, js]
    drift = profile.drift[tiers, ks, ps].swapaxes(1, 2)[..., None]
    return np.square(grown(profile, v * drift, js))


def _solve_stretches(profile: Profile, tier: int, most: int) -> _Stretches:
    """All stretches of a biased tier, of up to `most` moves."""
    nodes = len(profile.times)
    sums = tuple(np.full((e, e, most), INF) for e in range(nodes))
    squares = np.full((nodes, nodes, most), INF)
    for i in range(nodes):
        if i > 0:
            least = sums[i].min(axis=0)
            fewer = np.minimum.accumulate(least, axis=1)[:, :-1]
            least[:, 1:][least[:, 1:] >= fewer] = INF
            squares[:i, i] = least**2
        if i == nodes - 1:
            break
        later = slice(i + 1, None)
        error = grown(profile, profile.local_error[tier, : i + 1, i, later], later)
        error = np.minimum(error, error[i])
        reached = np.full((i + 1, nodes - 1 - i, most), INF)
        for p in range(i):
            m = min(p + 1, most - 1)
            longer = sums[i][p, : p + 1, None, :m] + error[p, :, None]
            part = reached[: p + 1, :, 1 : m + 1]
            np.minimum(part, longer, out=part)
        reached[i, :, 0] = error[i]
        for j in range(i + 1, nodes):
            sums[j][i, : i + 1] = reached[:, j - i - 1]
    return _Stretches(sums, squares)


# Errors that overflow become infinite, as intended.
@np.errstate(over="ignore")
def search(profile: Profile, grid: _Grid) -> list[Path]:
    """The path of least error for every number of ticks that lowers it, cheapest first."""
    tables = _sweep(profile, grid)
    least = tables.arrived[-1].min(axis=(0, 1))
    record = np.minimum.accumulate(np.concatenate(([INF], least)))
    improving = np.flatnonzero(least < record[:-1])
    return [_trace(profile, grid, tables, int(c)) for c in improving]


def _sweep(profile: Profile, grid: _Grid) -> _Tables:
    """All tables, node after node in the direction of the moves."""
    nodes, width, classes = len(profile.times), grid.count + 1, grid.classes
    arrived = tuple(np.full((grid.way(j, 0), j + 1, width), INF) for j in range(nodes))
    arrived[0][classes - 1, 0, 0] = 0.0
    others = np.full((classes - 1, nodes, nodes, width), INF)
    stretches = tuple(
        _solve_stretches(profile, tier, _most_moves(grid, tier, nodes - 1)) for tier in grid.biased
    )
    for i in range(nodes - 1):
        for b, stretch in enumerate(stretches):
            np.delete(arrived[i], b, axis=0).min(axis=0, out=others[b, i, : i + 1])
            _push_stretches(grid, b, stretch.squares[i], others[b, i, : i + 1], arrived, i)
        _push_unreduced(profile, grid, arrived, i)
    return _Tables(arrived, others, stretches)


def _most_moves(grid: _Grid, tier: int, most: int) -> int:
    return max(m for m in range(1, most + 1) if grid.ticks(tier, m) <= grid.count)


def _push_stretches(
    grid: _Grid, b: int, squares: Table, source: Table, arrived: tuple[Table, ...], i: int
) -> None:
    """Extend from node i, at [row, c], by stretches of class b to every later node."""
    reached = np.full((len(arrived) - 1 - i, *source.shape), INF)
    for m in range(min(squares.shape[1], len(reached))):
        square = squares[i + 1 + m :, m]
        if np.isfinite(square).any():
            c = grid.ticks(grid.biased[b], m + 1)
            part = reached[m:, :, c:]
            np.minimum(part, source[:, :-c] + square[:, None, None], out=part)
    for table, part in zip(arrived[i + 1 :], reached, strict=True):
        target = table[b, : i + 1]
        np.minimum(target, part, out=target)


def _push_unreduced(profile: Profile, grid: _Grid, arrived: tuple[Table, ...], i: int) -> None:
    """Extend from node i by full moves, which set k = i, and carried ones, which keep k."""
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
    for kind, tier in enumerate(grid.cached, 1):
        if i == 0:
            break
        square = _errors(profile, tier, i, slice(i), later)[..., None]
        reached = anyhow[1:] + square[i]
        for p, history in enumerate(histories):
            part = reached[: p + 1]
            np.minimum(part, history + square[p, : p + 1], out=part)
        _arrive(grid, arrived, reached, tier, grid.way(i, kind), slice(1, i + 1))


def _history(profile: Profile, grid: _Grid, arrived: Table, p: int, i: int, js: slice) -> Table:
    """Least squared errors at i with an estimate at p to extrapolate from [k <= p, j, c].

    Includes the term that it adds to a move from i to j if it is a carried one, that is, k < p.
    """
    first = grid.way(p, 0)
    nodes = len(profile.amplification[js])
    history = np.full((p + 1, nodes, arrived.shape[2]), INF)
    history[p] = arrived[first, p + 1]
    if grid.cached and p > 0:
        older = _stale(profile, grid.cached, slice(p, p + 1), i, slice(p), js)[:, 0, ..., None]
        for kind, each in enumerate(older, 1):
            part = history[:p]
            np.minimum(part, arrived[first + kind, 1 : p + 1, None] + each, out=part)
    return history


def _arrive(
    grid: _Grid, arrived: tuple[Table, ...], reached: Table, tier: int, way: int, rows: slice
) -> None:
    """Record what moves of a tier reach [row, j, c before them] at the last nodes."""
    c = grid.ticks(tier)
    for j, table in enumerate(arrived[-reached.shape[1] :]):
        target = table[way, rows, c:]
        np.minimum(target, reached[:, j, :-c], out=target)


def _trace(profile: Profile, grid: _Grid, tables: _Tables, c: int) -> Path:
    """The path to the last node that spends exactly c ticks and has the least error.

    At every node it searches for the move that led there, which is cheaper than storing it for
    every entry.
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
            i, m = _least(np.where(before < 0, INF, values))
            path += [(node, tier) for node in _trace_stretch(profile, tier, stretch, i, j, m)]
            j, c = i, int(before[m])
            ways = tables.arrived[j][:, row, c].copy()
            ways[way] = INF
            way = int(ways.argmin())
        else:
            i, kind = divmod(way - grid.classes, grid.kinds)
            j, (tier, c, way, row) = i, _trace_unreduced(profile, grid, tables, i, j, kind, row, c)
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
        error = grown(profile, profile.local_error[tier, : i + 1, i, e], e)
        longer = stretch.sums[i][:, s, m] + np.minimum(error, error[i])[:i]
        begins.append(int(longer.argmin()))
        e = i
    return begins


def _trace_unreduced(
    profile: Profile, grid: _Grid, tables: _Tables, i: int, j: int, kind: int, row: int, c: int
) -> tuple[int, int, int, int]:
    """The tier of the move of this kind from i to j with this row and c; c, way and row before."""
    best, found = math.inf, None
    for tier in grid.full if kind == 0 else grid.cached[kind - 1 : kind]:
        before = c - grid.ticks(tier)
        if before < 0:
            continue
        arrived = tables.arrived[i][:, :, before]
        end = slice(j, j + 1)
        # A full move may follow any row, and its error does not depend on the row.
        rows = range(arrived.shape[1]) if kind == 0 else [row]
        for k in (each - 1 for each in rows):
            square = _errors(profile, tier, i, slice(k, k + 1), end)[:, 0, 0]
            values = arrived[:, k + 1] + square[i]
            if k >= 0:
                older = np.zeros((i - k, grid.kinds), np.float32)
                if grid.cached:
                    ps, ks = slice(k + 1, i), slice(k, k + 1)
                    older[1:, 1:] = _stale(profile, grid.cached, ps, i, ks, end)[..., 0, 0].T
                ways = slice(grid.way(k, 0), grid.way(i, 0))
                longer = arrived[ways, k + 1] + (square[k:i, None] + older).ravel()
                values[ways] = np.minimum(values[ways], longer)
            way = int(values.argmin())
            if values[way] < best:
                best, found = values[way], (tier, before, way, k + 1)
    assert found is not None, "a finite entry has a predecessor"
    return found


def _least(values: Table) -> tuple[int, int]:
    """Row and column of the smallest value."""
    row, column = divmod(int(values.argmin()), values.shape[1])
    return row, column
