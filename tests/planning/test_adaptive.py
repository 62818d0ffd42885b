"""Rules chosen on models with closed forms, for pictures of which some are simple."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core import engine, schedules
from asymflow.core.adapter import Context
from asymflow.core.errors import InputError
from asymflow.core.types import Decision, Plan, Request
from asymflow.models.empirical import EmpiricalAdapter
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import adaptive, verifier
from asymflow.planning.adaptive import Forecast
from asymflow.planning.verifier import Evaluator
from tests.helpers import draw64

PLAN = schedules.plan_of(schedules.uniform(8))


def gaussian() -> GaussianAdapter:
    """Three kinds of pictures, whose estimates stand still, move, and move otherwise."""
    mean = 0.2 * draw64(0, 1, 3, 8, 8).expand(4, -1, -1, -1)
    std = torch.tensor([1.0, 0.05, 0.6, 1.5], dtype=torch.float64).view(4, 1, 1, 1)
    return GaussianAdapter(mean, std.expand(-1, 3, 8, 8).contiguous())


def requests(first: int) -> list[Request]:
    return [Request({"label": 1 + i % 3}, (8, 8), first + i) for i in range(6)]


@pytest.fixture(scope="module")
def judge() -> Evaluator:
    return Evaluator.of(gaussian(), requests(0), verifier.rms)


@pytest.fixture(scope="module")
def forecast(judge: Evaluator) -> Forecast:
    return Forecast.of(judge, PLAN)


def test_effects_are_those_of_leaving_the_plan(judge: Evaluator, forecast: Forecast) -> None:
    assert forecast.error() == pytest.approx(judge.error(PLAN))
    ways = {(i, action) for i in range(1, 8) for action in ("skip", "insert")}
    assert set(forecast.effects) == ways - {(7, "skip")}
    for (step, action), effect in forecast.effects.items():
        taken = adaptive.controller.taken(PLAN, [Decision(step, action, 0.1)])
        ends = verifier.rollout(judge.adapter, taken, judge.requests)
        assert torch.equal(effect, ends - forecast.exact.ends)
        one = [[Decision(step, action, 0.1)]] * 6
        assert forecast.cost(one) == taken.forwards
        assert forecast.error(one) == pytest.approx(judge.error(taken), rel=1e-6)


def test_what_was_asked_is_not_asked_again() -> None:
    class Counting(GaussianAdapter):
        rows = 0

        def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
            Counting.rows += len(t)
            return GaussianAdapter.denoise(self, x_t, t, context)

    plain = gaussian()
    model = Counting(plain.mean, plain.std, batch=1)
    judge = Evaluator(model, tuple(requests(0)), torch.zeros(6, 3, 8, 8), verifier.rms)
    found = Forecast.of(judge, PLAN, ("skip",))
    assert Counting.rows == 6 * (8 + (5 + 4 + 3 + 2 + 1 + 0))
    other = Forecast.of(replace(judge, adapter=plain), PLAN, ("skip",))
    assert all(torch.equal(found.effects[way], other.effects[way]) for way in other.effects)


def test_rules_save_where_a_shorter_plan_cannot(judge: Evaluator, forecast: Forecast) -> None:
    found = adaptive.choose(forecast, forecast.error())
    fixed = adaptive.choose(forecast, forecast.error(), levels=1)
    assert found.error <= found.exact == pytest.approx(judge.error(PLAN))
    assert found.saving > fixed.saving + 0.1
    fresh = Evaluator.of(judge.adapter, requests(100), verifier.rms)
    results = engine.run(judge.adapter, found.plan, fresh.requests)
    steps = [len(result.plan.steps) for result in results]
    assert steps[:3] == steps[3:]  # by the kind of picture
    assert len({*steps}) > 1
    forwards = np.mean([result.forwards for result in results])
    # Without guidance, a pass per step.
    assert 1 - forwards / len(PLAN.steps) == pytest.approx(found.saving, abs=0.1)
    assert fresh.errors(found.plan).mean() < 1.1 * fresh.error(PLAN)


def test_more_error_buys_no_less(judge: Evaluator, forecast: Forecast) -> None:
    savings = [
        adaptive.choose(forecast, allowed * forecast.error()).saving for allowed in (0, 1, 2)
    ]
    assert savings[0] == 0
    assert savings == sorted(savings)
    nothing = adaptive.choose(forecast, 0.0)
    assert (nothing.plan, nothing.error) == (PLAN, nothing.exact)


def test_pictures_of_a_set(judge: Evaluator) -> None:
    model = EmpiricalAdapter(draw64(2, 12, 3, 8, 8).clamp(-1, 1), torch.arange(12) % 3)
    wanted = [Request({"label": i % 3}, (8, 8), i) for i in range(3)]
    judge = Evaluator.of(model, wanted, verifier.rms)
    plan = schedules.plan_of(schedules.shifted(6, 2.0))
    found = adaptive.calibrate(judge, plan, rise=0.5, actions=("skip",))
    assert found.error <= 1.5 * found.exact
    assert 0 <= found.saving < 1


def test_plans_without_a_choice() -> None:
    judge = Evaluator(gaussian(), tuple(requests(0)), torch.zeros(6, 3, 8, 8), verifier.rms)
    with pytest.raises(InputError, match="could skip"):
        adaptive.calibrate(judge, schedules.plan_of(schedules.uniform(2)), actions=("skip",))


def test_costs_are_those_of_the_evidence(judge: Evaluator) -> None:
    proved = _with_evidence(PLAN)
    forecast = Forecast.of(judge, proved, ("skip",))
    assert forecast.cost([()]) == 80
    assert forecast.cost([[Decision(1, "skip", 0.1)]]) == 70


def _with_evidence(plan: Plan) -> Plan:
    from asymflow.core.statistics import Interval
    from asymflow.core.types import Evidence

    cost = (10.0,) * len(plan.steps)
    interval = Interval(0.1, 0.0, 0.2)
    return replace(plan, evidence=Evidence({}, cost, 10.0, (), None, interval, None, 3))
