"""Intervals that cover what they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from asymflow.core.errors import InputError
from asymflow.core.statistics import (
    Interval,
    bootstrap_interval,
    mean_interval,
    rms,
    share_bound,
    t_interval,
    t_quantile,
)

REPEATS = 2000
ERROR = math.sqrt(0.95 * 0.05 / REPEATS)
"""Standard error of a coverage of 95% in as many simulations."""


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [
        (1, 12.706205),
        (2, 4.302653),
        (3, 3.182446),
        (4, 2.776445),
        (5, 2.570582),
        (7, 2.364624),
        (10, 2.228139),
        (19, 2.093024),
        (23, 2.068658),
        (30, 2.042272),
        (120, 1.979930),
    ],
)
def test_t_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(expected, abs=6e-7)
    assert t_quantile(0.025, freedom) == pytest.approx(-expected, abs=6e-7)


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    [(0.9, 1, 3.077684), (0.995, 2, 9.924843), (0.995, 6, 3.707428), (0.9, 9, 1.383029)],
)
def test_other_t_quantiles(probability: float, freedom: int, expected: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize("probability", [0.01, 0.3, 0.5, 0.8, 0.999])
def test_t_quantiles_of_one_and_two_degrees_have_formulas(probability: float) -> None:
    one = math.tan(math.pi * (probability - 0.5))
    two = (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    assert t_quantile(probability, 1) == pytest.approx(one, rel=1e-12, abs=1e-12)
    assert t_quantile(probability, 2) == pytest.approx(two, rel=1e-12, abs=1e-12)


def test_the_t_quantile_tends_to_the_normal_one() -> None:
    # The first term of its expansion in 1 / freedom (Abramowitz and Stegun, 26.7.5).
    z = 1.959963984540054
    assert t_quantile(0.975, 100_000) == pytest.approx(z + (z**3 + z) / 400_000, abs=1e-9)


@pytest.mark.parametrize(("probability", "freedom"), [(0.0, 5), (1.0, 5), (math.nan, 5), (0.9, 0)])
def test_impossible_quantiles_are_refused(probability: float, freedom: int) -> None:
    with pytest.raises(InputError, match="no quantile"):
        t_quantile(probability, freedom)


def test_the_interval_of_a_mean_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776445 * math.sqrt(2.5 / 5)
    assert found.value == 3
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-6)
    assert found.half == pytest.approx(half, abs=1e-6)
    assert found == t_interval(3.0, math.sqrt(2.5 / 5), 4)


def test_the_interval_of_a_mean_of_five_covers_it() -> None:
    rng = np.random.default_rng(0)
    found = [mean_interval(rng.normal(2, 3, 5)) for _ in range(REPEATS)]
    assert np.mean([each.low <= 2 <= each.high for each in found]) == pytest.approx(
        0.95, abs=3 * ERROR
    )
    # The normal quantile would not do.
    narrow = 1.959964 / t_quantile(0.975, 4)
    covered = [abs(each.value - 2) <= narrow * each.half for each in found]
    assert np.mean(covered) < 0.95 - 5 * ERROR


@pytest.mark.parametrize("count", [8, 25])
def test_the_bootstrap_interval_of_a_median_covers_it(count: int) -> None:
    rng, repeats = np.random.default_rng(1), 500
    found = [bootstrap_interval(rng.exponential(size=count), np.median) for _ in range(repeats)]
    covered = np.mean([each.low <= math.log(2) <= each.high for each in found])
    error = math.sqrt(0.95 * 0.05 / repeats)
    assert covered == pytest.approx(0.95, abs=3 * error)


def test_rows_are_drawn_together() -> None:
    """A ratio of medians of two columns that belong together has no spread at all."""
    seconds = np.random.default_rng(2).lognormal(size=30)
    pairs = np.stack([2 * seconds, seconds], axis=1)

    def ratio(rows: Any, axis: int) -> Any:
        medians = np.median(rows, axis)
        return medians[..., 0] / medians[..., 1]

    found = bootstrap_interval(pairs, ratio)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))


def test_the_bootstrap_is_determined_by_its_seed() -> None:
    values = np.random.default_rng(3).normal(size=20)
    found = bootstrap_interval(values, np.mean, seed=1)
    assert found == bootstrap_interval(values, np.mean, seed=1)
    assert found != bootstrap_interval(values, np.mean, seed=2)


def median_interval(values: list[float]) -> Interval:
    return bootstrap_interval(values, np.median)


@pytest.mark.parametrize("of", [mean_interval, median_interval])
def test_one_value_has_no_known_interval_and_none_is_an_error(
    of: Callable[[list[float]], Interval],
) -> None:
    assert of([0.5]) == Interval(0.5, 0.0, 1.0)
    assert of([-0.5]) == Interval(-0.5, -1.0, 0.0)
    assert of([3.0, 3.0]) == Interval(3.0, 3.0, 3.0)
    with pytest.raises(InputError, match="0 values"):
        of([])


def test_intervals_print_themselves() -> None:
    found = Interval(0.25, 0.125, 0.5)
    assert str(found) == "0.250 (0.125 to 0.500)"
    assert found.plus_minus(2) == "0.25 ±0.19"
    assert found.plus_minus(1, factor=100) == "25.0 ±18.8"
    assert Interval(-0.001, -0.1, 0.1).plus_minus(1) == "0.0 ±0.1"
    assert asdict(found) == {"value": 0.25, "low": 0.125, "high": 0.5}


def test_rms_of_each_row() -> None:
    differences = np.stack([np.full((2, 2), 3.0), np.zeros((2, 2)), np.array([[1, -7], [5, -5]])])
    assert rms(differences) == pytest.approx([3, 0, 5])


def test_the_bound_of_a_share_is_that_of_the_binomial_distribution() -> None:
    assert share_bound(0, 16) == pytest.approx(1 - 0.05 ** (1 / 16))
    assert share_bound(1, 16) == pytest.approx(0.2640, abs=1e-4)  # of a table
    assert share_bound(16, 16) == 1.0
