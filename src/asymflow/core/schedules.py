"""Falling time grids, and plans made from them without measurements.

A grid of n steps is a tuple of n + 1 times, strictly falling to exactly 0. It begins at 1, pure
noise, unless its definition has a largest noise level below that. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import cast

from asymflow.core.checks import finite, number, positive, whole
from asymflow.core.errors import InputError
from asymflow.core.types import CONDITIONAL, FULL, Plan, Solver, Step

EDGE = 1e-5
"""How far below the end of a guidance interval a node is: whether the end itself is guided, models
have different opinions."""


def uniform(n: int) -> tuple[float, ...]:
    """n equal steps: t_i = 1 - i/n."""
    return _grid(1 - i / n for i in _nodes(n))


def shifted(n: int, shift: float) -> tuple[float, ...]:
    """The uniform grid moved towards noise: t / (1 - t) is multiplied by `shift`.

    A shift of f gives pictures f times the side the log-SNR of the original grid.
    """
    positive("shift", shift)
    ratios = (1 - i / n for i in _nodes(n))
    return _grid(shift * t / (shift * t + (1 - t)) for t in ratios)  # exactly 1 at 1


def logit_normal(n: int, mean: float = 0.0, std: float = 1.0) -> tuple[float, ...]:
    """Quantiles of the logit-normal law: logit(t_i) = mean + std Phi^-1(1 - i/n).

    A mean above 0 puts more nodes near noise; a small std puts them around sigmoid(mean).
    """
    finite("mean", mean)
    positive("std", std)
    normal = NormalDist()
    inner = (mean + std * normal.inv_cdf(1 - i / n) for i in _nodes(n)[1:-1])
    return _grid((1.0, *(_time(-x) for x in inner), 0.0))


def karras(
    n: int, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> tuple[float, ...]:
    """The grid of Karras et al. (arXiv 2206.00364, equation 5), at t = sigma / (1 + sigma).

    sigma_i^(1/rho) is linear from sigma_max to sigma_min over the first n nodes; the last is 0.
    """
    positive("rho", rho)
    positive("sigma_min", sigma_min)
    positive("sigma_max", sigma_max)
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


def switched(times: Sequence[float], guidance_interval: tuple[float, float]) -> tuple[float, ...]:
    """The grid with the nodes nearest to the ends of a guidance interval moved there.

    A plan can switch guidance at nodes only. Where the interval ends within a step, the plan is off
    by an error of first order in its length, whatever the solver.
    """
    found = list(times)
    for end in interval(guidance_interval):
        if found[-1] < end < found[0] and len(found) > 2:
            nearest = min(range(1, len(found) - 1), key=lambda i: abs(found[i] - end))
            if found[nearest - 1] > end > found[nearest + 1] + EDGE:
                found[nearest] = end - EDGE
    return tuple(found)


def interval(guidance_interval: tuple[float, float]) -> tuple[float, float]:
    """Check a guidance interval (low, high) in t.

    Raises:
        InputError: it is not within [0, 1].
    """
    found = moments("guidance_interval", guidance_interval)
    if len(found) != 2 or not 0 <= found[0] <= found[1] <= 1:
        raise InputError(
            f"The guidance interval ({', '.join(map(str, found))}) is not a part of [0, 1]. "
            "Give two times, the lower one first: (0.0, 1.0) guides every step."
        )
    return found[0], found[1]


def moments(name: str, times: object) -> tuple[float, ...]:
    """Convert a list, array or tensor of numbers in any order to a tuple.

    Raises:
        InputError: it contains something else.
    """
    if isinstance(times, (str, bytes, Mapping)) or not isinstance(times, Iterable):
        raise InputError(f"{name}={times!r} is no list of times. Give numbers from 0 to 1.")
    found = cast("Iterable[object]", times)
    return tuple(number(f"{name}[{index}]", time) for index, time in enumerate(found))


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


def _grid(times: Iterable[float]) -> tuple[float, ...]:
    grid = tuple(times)
    if not all(t > s for t, s in pairwise(grid)):
        raise InputError(
            f"These settings give times that do not fall: {grid}. "
            "Use fewer steps or less extreme values."
        )
    return grid


def candidates(size: tuple[int, int], count: int = 32) -> tuple[float, ...]:
    """Times to plan with for pictures of (height, width): `count` moves, dense near noise.

    The grid is shifted in proportion to the side, so that every size has the same visible noise.
    """
    return shifted(count, 2.5 * math.sqrt(size[0] * size[1]) / 64)


def fine_plan(
    size: tuple[int, int],
    count: int = 64,
    *,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
) -> Plan:
    """The reference plan: enough moves that more would make no visible difference."""
    return plan_of(
        switched(candidates(size, count), guidance_interval),
        solver="multistep2",
        guidance_interval=guidance_interval,
        name="reference",
    )
