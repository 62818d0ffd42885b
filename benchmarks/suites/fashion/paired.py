"""Statistics of errors on common seeds: ratios, a band over all baselines, passes for an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESAMPLED = 4000
MARGIN = 0.03
"""By how much we may be worse than a baseline and still be called not inferior."""


def draws(count: int) -> NDArray[np.int64]:
    """Seeds drawn again with replacement [resamples, count], the same for everybody."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLED, count))


def described(errors: Array) -> dict[str, float]:
    mean, median, worst = errors.mean(), np.median(errors), errors.max()
    return {"mean": float(mean), "median": float(median), "worst": float(worst)}


def ratio_to_best(others: Array, own: Array) -> dict[str, float]:
    """The least mean error of others [k, n] over ours [n], with a 95 % interval.

    The best one is chosen again in every draw, which favours the others: they gain by its luck.
    """
    rows = draws(len(own))
    drawn = others[:, rows].mean(2).min(0) / own[rows].mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    value = others.mean(1).min() / own.mean()
    return {"value": float(value), "low": float(low), "high": float(high)}


def band(others: Mapping[str, Array], own: Array) -> dict[str, Any]:
    """Lower bounds of the ratios of all mean errors over ours that hold together, in 95 of 100.

    Logarithms of ratios are divided by their spread over draws, and the bounds are as many spreads
    below as the largest excess over all baselines is in 95 % of draws.

    Returns:
        Bounds by name, and whether each of them is above 1 / (1 + MARGIN).
    """
    rows = draws(len(own))
    errors = np.stack(list(others.values()))
    logs = np.log(errors.mean(1) / own.mean())
    drawn = np.log(errors[:, rows].mean(2) / own[rows].mean(1))
    spread = drawn.std(1)
    excess = ((drawn - logs[:, None]) / spread[:, None]).max(0)
    bounds = np.exp(logs - np.quantile(excess, 0.95) * spread)
    return {
        "bounds": dict(zip(others, bounds.tolist(), strict=True)),
        "margin": MARGIN,
        "not_inferior": bool((bounds > 1 / (1 + MARGIN)).all()),
    }


def passes_to_reach(ladder: Mapping[int, Array], own: Array, price: int) -> dict[str, Any]:
    """How many times our passes the others take for our error, with a 95 % interval.

    Errors between the rungs are interpolated in logarithms of passes and errors. An error is that
    of the best rung of as many passes or fewer.

    Args:
        ladder: errors [n] of the best baseline by passes.
        own: errors [n] of ours.
        price: our passes.

    Returns:
        The ratio; `capped` where the ladder ends before our error is reached, so that it is more.
    """
    passes = np.array(sorted(ladder))
    errors = np.stack([ladder[each] for each in passes.tolist()])
    rows = draws(len(own))
    wanted = own[rows].mean(1)
    curves = np.minimum.accumulate(errors[:, rows].mean(2), 0)
    drawn = [_crossed(passes, curve, goal) for curve, goal in zip(curves.T, wanted, strict=True)]
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    value = _crossed(passes, np.minimum.accumulate(errors.mean(1)), float(own.mean()))
    most = float(passes[-1])
    return {
        "value": value / price,
        "low": low / price,
        "high": high / price,
        "capped": {"value": value == most, "low": low == most, "high": high == most},
    }


def _crossed(passes: NDArray[np.int64], curve: Array, goal: float) -> float:
    """Where a curve that does not rise reaches an error; at most its end."""
    reached = np.flatnonzero(curve <= goal)
    if not len(reached):
        return float(passes[-1])
    after = int(reached[0])
    if after == 0:
        return float(passes[0])
    x, y = np.log(passes[after - 1 : after + 1]), np.log(curve[after - 1 : after + 1])
    share = (y[0] - np.log(goal)) / (y[0] - y[1])
    return float(np.exp(x[0] + share * (x[1] - x[0])))
