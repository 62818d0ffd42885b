"""The cheapest plan as near as another sampler, on models whose errors are made up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core.adapter import Adapter
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import Plan, Request
from asymflow.planning import selection
from asymflow.planning.selection import Search, evenly, known_to, limit_plan
from asymflow.planning.verifier import Evaluator
from tests.fakes import FakeModel
from tests.helpers import draw

ADAPTER = FakeModel()


def picture(seed: int) -> Tensor:
    return draw(seed, 1, 2, 2).clamp(-1, 1)


def judge(error: Callable[[Plan, int], float], count: int) -> Evaluator:
    """Pictures that are so far from the reference, as a function of plan and seed."""

    def roll(_: Adapter, plan: Plan, requests: Sequence[Request]) -> Tensor:
        return torch.stack([picture(r.seed) + error(plan, r.seed) for r in requests])

    requests = tuple(Request({}, (2, 2), seed) for seed in range(count))
    reference = torch.stack([picture(seed) for seed in range(count)])
    return Evaluator(ADAPTER, requests, reference, roll=roll)


def second_order(scale: float) -> Callable[[Plan, int], float]:
    return lambda plan, seed: scale * (1 + 0.2 * math.sin(seed)) / len(plan.steps) ** 2


def kinds(steps: int) -> dict[str, Plan]:
    names = ("worst", "good", "bad", "worse", "poor", "awful")
    return {
        name: plan_of((1.0, (1 + i / 1000) * uniform(steps)[1], *uniform(steps)[2:]), name=name)
        for i, name in enumerate(names)
    }


def by_kind(scale: float) -> Callable[[Plan, int], float]:
    factor = {"good": 1, "bad": 2, "worse": 3, "worst": 4}
    own = second_order(scale)
    return lambda plan, seed: factor.get(plan.name, 5) * own(plan, seed)


@pytest.mark.parametrize("scale", [0.3, 2.0, 20.0])
def test_the_least_price_is_found_in_a_few_tries(scale: float) -> None:
    search = Search(judge(by_kind(scale), 4), kinds)
    price = search.near(np.full(4, 0.03), 50)
    right = next(n for n in range(2, 50) if second_order(scale)(plan_of(uniform(n)), 2) <= 0.03)
    assert price is not None
    assert 0.85 * right <= price <= max(right + 2, 1.25 * right)  # by a standard error more, too
    assert len(search.found) <= selection.ROUNDS + 1
    assert search.best(price).name == "good"


def test_where_nothing_is_as_near_there_is_no_price() -> None:
    search = Search(judge(lambda plan, seed: 0.5, 4), kinds)
    assert search.near(np.full(4, 0.1), 50) is None


def test_a_few_steps_to_gain_are_tried_before_the_last() -> None:
    search = Search(judge(by_kind(0.3), 4), kinds)
    price = search.near(np.full(4, 0.03), 5)
    assert price is not None
    assert price < 5


def test_all_kinds_are_screened_once_and_the_best_of_them_at_other_prices() -> None:
    screened: list[tuple[str, int, int]] = []
    own = by_kind(2.0)
    inner = judge(own, 6)

    def roll(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> Tensor:
        screened.append((plan.name, len(plan.steps), len(requests)))
        return inner.roll(adapter, plan, requests)

    search = Search(Evaluator(ADAPTER, inner.requests, inner.reference, roll=roll), kinds)
    search.best(10)
    search.best(20)
    search.best(10)
    rest = 6 - selection.FEW
    expected = [(name, 10, selection.FEW) for name in kinds(10)]
    expected += [(name, 10, rest) for name in ("good", "bad")]
    expected += [(name, 20, selection.FEW) for name in ("good", "bad", "worse")]
    expected += [(name, 20, rest) for name in ("good", "bad")]
    assert screened == expected


LIMITS = [plan_of(uniform(n)) for n in (8, 16, 24, 32)]


@pytest.mark.parametrize(
    ("scale", "error", "moves", "tried"),
    [
        (1, 1.0, 8, {8}),
        (1, 0.02, 16, {8, 16}),
        (1, 0.01, 24, {8, 24}),
        (1, 0.0001, 24, {8, 24}),  # what cannot be seen need not be measured
        (20, 0.01, 32, {8}),
    ],
)
def test_the_limit_has_as_many_moves_as_the_error_needs(
    scale: float, error: float, moves: int, tried: set[int]
) -> None:
    """Errors of all limits are scale / n^2."""
    seen: set[int] = set()

    def off(plan: Plan, _: int) -> float:
        seen.add(len(plan.steps))
        return scale / len(plan.steps) ** 2 - scale / 64**2

    errors = np.array([error, error, 99, 99])
    plan, estimated = limit_plan(judge(off, 4), LIMITS, errors, few=2, moves=64)
    assert len(plan.steps) == moves
    assert seen == tried
    assert estimated == pytest.approx(scale / moves**2, rel=1e-4)


def test_a_coarse_reference_says_nothing_of_finer_plans() -> None:
    evaluator = judge(lambda plan, seed: 0.0, 4)
    plan, _ = limit_plan(evaluator, LIMITS, np.full(4, 0.1), few=2, moves=8)
    assert plan == LIMITS[-1]


def test_nothing_is_told_to_be_nearer_than_two_fine_solutions_are_to_each_other() -> None:
    """The second picture is one where they part."""

    def off(plan: Plan, seed: int) -> float:
        return 0.3 if seed == 1 else 1 / len(plan.steps) ** 2

    evaluator = judge(off, 3)
    known = known_to(evaluator, LIMITS, moves=32)
    np.testing.assert_allclose(known, evaluator.errors(LIMITS[-2]))
    assert known[1] > 100 * known[0]
    # One of half as many moves tells less of the limit than of itself.
    assert not known_to(evaluator, LIMITS, moves=48).any()
    assert not known_to(evaluator, LIMITS[:1], moves=8).any()


def test_every_example_serves_equally_often() -> None:
    assert [evenly(16, n) for n in (1, 4, 6, 20)] == [16, 16, 18, 20]
