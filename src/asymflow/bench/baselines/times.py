"""Time grids that people sample with, each for any number of steps.

A grid of n steps is a tuple of n + 1 times, strictly falling to exactly 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asymflow.core import schedules
from asymflow.core.errors import InputError
from asymflow.core.types import Plan, Step
from asymflow.planning.grids import resampled

Grid = Callable[[int], Sequence[float]]
SHIFTS = (2.0, 3.0, 5.0, 8.0, 0.5, 0.25)
"""Towards noise, and below 1 towards the picture."""
FIRST, LAST = 0.998, (0.01, 0.03, 0.06)
"""Where equal steps in log-SNR begin and end. From there to 0 noise is hardly seen."""
_ALIGNED = {
    "AYS of SD": "StableDiffusionSigmas",
    "AYS of SDXL": "StableDiffusionXLSigmas",
    "AYS of SVD": "StableDiffusionVideoSigmas",
}
_CELLS = 4096


def named(own: Plan) -> dict[str, Grid]:
    """All grids that need nothing but the model's own sampler, by name."""
    return {
        "uniform": schedules.uniform,
        **{f"shifted {shift:g}": partial(schedules.shifted, shift=shift) for shift in SHIFTS},
        "karras": schedules.karras,
        **{
            f"log-SNR to {last:g}": partial(schedules.log_snr, start=FIRST, last=last)
            for last in LAST
        },
        "beta": beta,
        "linear-quadratic": linear_quadratic,
        **{name: partial(aligned, name) for name in _ALIGNED},
        "own": partial(owned, own),
    }


def beta(n: int, a: float = 0.6, b: float = 0.6) -> tuple[float, ...]:
    """Quantiles of the beta law: denser at both ends (arXiv 2407.12173)."""
    # With t = sin^2 x its density is that of sin^(2a - 1) x cos^(2b - 1) x, which is bounded here.
    x = np.linspace(0, np.pi / 2, _CELLS + 1)
    middle = (x[1:] + x[:-1]) / 2
    mass = np.sin(middle) ** (2 * a - 1) * np.cos(middle) ** (2 * b - 1)
    law = np.concatenate([[0.0], np.cumsum(mass)]) / mass.sum()
    inner = np.sin(np.interp(1 - np.arange(1, n) / n, law, x)) ** 2
    return (1.0, *inner.tolist(), 0.0)


def linear_quadratic(n: int, threshold: float = 0.025) -> tuple[float, ...]:
    """Equal steps over the first `threshold` of the noise, then a parabola of the same slope.

    So half of the steps are near pure noise (Movie Gen, arXiv 2410.13720).
    """
    first = n // 2
    if not first or threshold * n >= first:
        return schedules.uniform(n)
    slope, rest = threshold / first, n - first
    bend = (1 - threshold - slope * rest) / rest**2
    gone = [slope * i for i in range(first)]
    gone += [threshold + slope * i + bend * i * i for i in range(rest)]
    return (*(1 - each for each in gone), 0.0)


def aligned(name: str, n: int) -> tuple[float, ...]:
    """Noise levels of Align Your Steps (arXiv 2404.14507), as diffusers has them.

    They were found for other models with 10 steps; for other numbers their logarithms are
    interpolated, as the authors do.
    """
    published: Any = importlib.import_module("diffusers.schedulers").AysSchedules
    logs = np.log(published[_ALIGNED[name]][:-1])
    places = np.linspace(0, len(logs) - 1, n)
    sigma = np.exp(np.interp(places, np.arange(len(logs)), logs))
    return (*(sigma / (1 + sigma)).tolist(), 0.0)


def thinned(plan: Plan, steps: int) -> Plan:
    """A plan of so many steps over nodes of another plan, which are spread evenly by number."""
    whole = len(plan.steps)
    nodes = [round(whole * i / steps) for i in range(steps + 1)]
    made: list[Step] = []
    for begin, end in pairwise(nodes):
        merged = plan.steps[begin:end]
        kind = next((step for step in merged if step.tier.guided), merged[0])
        made.append(kind.moved(merged[0].t, merged[-1].s))
    return Plan(plan.name, tuple(made))


def owned(own: Plan, n: int) -> tuple[float, ...]:
    """Nodes of the model's own sampler, and between them where it has fewer steps."""
    return thinned(own, n).times if n <= len(own.steps) else resampled(own.times, n)


def chord_errors(
    times: Sequence[float], states: NDArray[np.float32], estimates: NDArray[np.float32]
) -> NDArray[np.float64]:
    """How far Euler's moves between nodes of a fine solution lead from it [n, n], inf where s >= t.

    No network is asked: the estimate where a move begins is known.

    Args:
        times: [n], falling to 0.
        states: x_t at these times [n, b, ...].
        estimates: of x_0 at all but the last [n - 1, b, ...].
    """
    count = len(times)
    error = np.full((count, count), np.inf)
    for i, t in enumerate(times[:-1]):
        for j in range(i + 1, count):
            rest = times[j] / t
            off = rest * states[i] + (1 - rest) * estimates[i] - states[j]
            # The root of each picture first, as in all errors of pictures.
            error[i, j] = np.sqrt(np.square(off.reshape(len(off), -1)).mean(1)).mean()
    return error


def cheapest(error: NDArray[np.float64], steps: int) -> tuple[int, ...]:
    """The path of so many moves from the first node to the last with the least sum of errors.

    Args:
        error: of moves [from, to], inf where there is none.
        steps: moves of the path.

    Raises:
        InputError: there are fewer moves than `steps`.
    """
    count = len(error)
    if not 1 <= steps < count:
        raise InputError(
            f"A solution of {count} times has no grid of {steps} steps. Choose 1 to {count - 1}, "
            "or more times."
        )
    best = np.where(np.arange(count) == 0, 0.0, np.inf)
    origins: list[NDArray[np.int64]] = []
    for _ in range(steps):
        total = best[:, None] + error
        origins.append(total.argmin(0))
        best = total.min(0)
    nodes = [count - 1]
    for origin in reversed(origins):
        nodes.append(int(origin[nodes[-1]]))
    return tuple(reversed(nodes))
