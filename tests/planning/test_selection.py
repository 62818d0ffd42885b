"""Plans that keep what they promise, on models whose errors are made up or known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import Plan
from asymflow.planning import selection
from asymflow.planning.selection import Limit, Proof, Search, evenly
from tests.helpers import draw

FINE, COARSE = plan_of(uniform(64)), plan_of(uniform(32))


def picture(seed: int) -> Tensor:
    return draw(seed, 1, 2, 2).clamp(-1, 1)


def maker(error: Callable[[Plan, int], float]) -> selection.Make[int]:
    """Pictures that are so far from the limit, as a function of plan and seed."""

    def make(plan: Plan, samples: Sequence[int]) -> Tensor:
        return torch.stack([picture(seed) + error(plan, seed) for seed in samples])

    return make


def second_order(scale: float) -> Callable[[Plan, int], float]:
    return lambda plan, seed: scale * (1 + 0.2 * math.sin(seed)) / len(plan.steps) ** 2


def kinds(steps: int) -> list[Plan]:
    return [plan_of(uniform(steps), name=kind) for kind in ("worst", "good", "bad", "worse")]


def by_kind(scale: float) -> Callable[[Plan, int], float]:
    factor = {"good": 1, "bad": 2, "worse": 3, "worst": 4}
    own = second_order(scale)
    return lambda plan, seed: factor.get(plan.name, 1) * own(plan, seed)


def test_the_error_of_the_limit_is_measured() -> None:
    limit = Limit.of(maker(second_order(8.0)), FINE, COARSE, range(6), 4)
    assert limit.errors == pytest.approx([second_order(8.0)(FINE, s) for s in range(4)], rel=1e-3)
    assert limit.error == max(limit.errors)
    assert 0.3 < limit.apart < 2

    def broken(plan: Plan, seed: int) -> float:
        return math.nan if seed == 3 else 0.0

    with pytest.raises(InputError, match="not finite in 64 steps"):
        Limit.of(maker(broken), FINE, COARSE, range(6), 4)


@pytest.mark.parametrize("scale", [0.3, 2.0, 20.0])
def test_the_least_price_is_found_in_a_few_tries(scale: float) -> None:
    make = maker(by_kind(scale))
    limit = Limit.of(make, FINE, FINE, range(4), 2)
    others = np.full(4, 0.03)
    search = Search(make, kinds, range(4), limit)
    price = search.near(others, 50)
    right = next(n for n in range(2, 50) if second_order(scale)(plan_of(uniform(n)), 2) <= 0.03)
    assert price is not None
    assert 0.85 * right <= price <= max(right + 2, 1.25 * right)  # by a standard error more, too
    assert len(search.found) <= selection.ROUNDS + 1
    assert search.best(price).plan.name == "good"


def test_where_nothing_is_as_near_there_is_no_price() -> None:
    make = maker(lambda plan, seed: 0.5)
    limit = Limit.of(maker(lambda plan, seed: 0.0), FINE, COARSE, range(4), 2)
    assert Search(make, kinds, range(4), limit).near(np.full(4, 0.1), 50) is None


def test_plans_are_screened_on_few_pictures_and_none_is_made_twice() -> None:
    asked: list[tuple[str, int, int]] = []
    own = by_kind(2.0)

    def make(plan: Plan, samples: Sequence[int]) -> Tensor:
        asked.append((plan.name, len(plan.steps), len(samples)))
        return maker(own)(plan, samples)

    limit = Limit.of(maker(own), FINE, COARSE, range(6), 2)
    search = Search(make, kinds, range(6), limit)
    search.best(10)
    search.best(20)
    search.best(10)
    expected: list[tuple[str, int, int]] = []
    for n in (10, 20):
        expected += [(plan.name, n, selection.FEW) for plan in kinds(n)]
        expected += [(name, n, 6 - selection.FEW) for name in ("good", "bad", "worse")]
    assert asked == expected


def proof(errors: Sequence[float], others: Sequence[float] | None, error: float = 0.001) -> Proof:
    states = torch.stack([picture(seed) for seed in range(len(errors))])
    limit = Limit(states, np.array([error]), apart=1.0)
    return Proof(np.array(errors), None if others is None else np.array(others), limit)


def test_a_promise_is_kept_where_the_mean_is_no_larger() -> None:
    own = [0.02] * 16
    assert proof([0.019] * 16, own).kept
    assert not proof([0.021] * 16, own).kept
    # One level of a byte is no difference.
    assert proof([0.007] * 16, [0.0001] * 16).kept
    assert proof([0.007] * 16, None).kept
    assert not proof([0.009] * 16, None).kept
    assert not proof([math.nan] * 16, own).kept


def test_a_picture_that_becomes_another_breaks_the_promise() -> None:
    """A mean hides it: seven pictures of eight are nearer than the other sampler's."""
    errors = [0.002] * 15 + [0.66]
    found = proof(errors, [0.05] * 16)
    assert float(np.mean(errors)) < 0.05
    assert found.changed == 1
    assert not found.kept
    assert proof(errors, [0.05] * 15 + [0.7]).kept  # the other sampler loses it, too


def test_the_interval_of_skew_errors_is_never_below_zero_and_holds_the_limit() -> None:
    errors = [0.002] * 15 + [0.66]
    found = proof(errors, None, error=0.01).mean
    assert 0 <= found.low <= found.value <= found.high
    assert found.high > float(np.mean(errors)) + 0.01
    even = proof([0.02] * 16, None, error=0.01).mean
    assert even.low == pytest.approx(0.02)
    assert even.high == pytest.approx(0.03)


def test_intervals_hold_the_mean_of_skew_errors() -> None:
    rng = np.random.default_rng(0)
    expected = math.exp(0.5)
    held = sum(
        found.low <= expected <= found.high
        for found in (proof(list(rng.lognormal(size=16)), None, 0.0).mean for _ in range(300))
    )
    assert held > 0.8 * 300  # of 16 values of so skew a distribution


def test_every_example_serves_equally_often() -> None:
    assert [evenly(16, n) for n in (1, 4, 6, 20)] == [16, 16, 18, 20]
