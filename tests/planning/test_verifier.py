"""Rollouts on a model with a closed form: what is chosen must really be better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core import schedules
from asymflow.core.adapter import Adapter
from asymflow.core.errors import InputError
from asymflow.core.flow import enlarge
from asymflow.core.types import (
    CONDITIONAL,
    FULL,
    SEQUENTIAL_CFG,
    Plan,
    Profile,
    Request,
    Step,
    Tier,
)
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import planner, prediction, profiler, verifier
from tests.helpers import draw64

TIMES = schedules.shifted(8, 2.0)
REQUESTS = tuple(Request({"label": 1}, (8, 8), seed, 3.0) for seed in range(3))


@pytest.fixture(scope="module")
def model() -> GaussianAdapter:
    mean = 0.2 * draw64(0, 1, 3, 8, 8).expand(2, -1, -1, -1)
    return GaussianAdapter(mean, enlarge(0.6 + 0.3 * draw64(1, 2, 3, 4, 4).tanh(), 2))


@pytest.fixture(scope="module")
def profile(model: GaussianAdapter) -> Profile:
    found = profiler.profile(model, REQUESTS, times=TIMES, repeats=3)
    # Timings of so small a model are noise. Full is 4, conditional 2, half a quarter of those.
    cost = tuple((4 if t.guided else 2) / t.pool_factor**2 for t in found.tiers)
    return replace(found, cost_ms=cost)


@pytest.fixture(scope="module")
def judge(model: GaussianAdapter) -> verifier.Evaluator:
    return verifier.Evaluator.of(model, REQUESTS, verifier.rms)


def test_the_reference_is_near_the_exact_end(
    model: GaussianAdapter, judge: verifier.Evaluator
) -> None:
    shape = (3, 8, 8)
    eps = torch.stack([verifier.engine.noise(r.seed, shape) for r in REQUESTS]).double()
    label = torch.ones(3, dtype=torch.long)
    exact = model.guided_solution(eps, 1.0, 0.0, label, 3.0)
    assert float(verifier.rms(judge.reference, exact).max()) < 0.03


def test_an_interval_of_guidance_costs_no_order_where_nodes_are_at_its_ends(
    model: GaussianAdapter,
) -> None:
    low, high = 0.2437, 0.7719
    eps = torch.stack([verifier.engine.noise(r.seed, (3, 8, 8)) for r in REQUESTS]).double()
    exact, label = eps, torch.ones(3, dtype=torch.long)
    for t, s, scale in ((1.0, high, 1.0), (high, low, 3.0), (low, 0.0, 1.0)):
        exact = model.guided_solution(exact, t, s, label, scale)

    def error(grid: tuple[float, ...]) -> float:
        plan = schedules.plan_of(grid, solver="corrected2", guidance_interval=(low, high))
        return float(verifier.rms(verifier.rollout(model, plan, REQUESTS), exact).mean())

    grids = [schedules.shifted(n, 2.0) for n in (80, 160)]
    coarse, fine = (error(schedules.switched(grid, (low, high))) for grid in grids)
    assert coarse / fine > 2**1.7
    assert error(grids[1]) > 10 * fine


def test_errors_are_per_picture_and_their_mean_is_kept(judge: verifier.Evaluator) -> None:
    plan = schedules.plan_of(schedules.uniform(4))
    errors = judge.errors(plan)
    assert errors.shape == (3,)
    assert judge.error(plan) == pytest.approx(float(errors.mean()))
    assert judge.error(plan, 2) == pytest.approx(float(errors[:2].mean()))


def test_no_picture_of_a_plan_is_made_twice(judge: verifier.Evaluator) -> None:
    made: list[int] = []

    def roll(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> Tensor:
        made.append(len(requests))
        return verifier.rollout(adapter, plan, requests)

    plan = schedules.plan_of(schedules.uniform(4))
    counting = replace(judge, roll=roll, known={})
    assert counting.errors(plan, 1).shape == (1,)
    assert counting.errors(plan) == pytest.approx(judge.errors(plan))
    counting.errors(plan, 2)
    assert made == [1, 2]


def test_errors_that_are_not_finite_are_infinitely_bad(judge: verifier.Evaluator) -> None:
    def roll(_: Adapter, plan: Plan, requests: Sequence[Request]) -> Tensor:
        return torch.full((len(requests), 3, 8, 8), math.nan)

    broken = replace(judge, roll=roll, known={})
    assert broken.error(schedules.plan_of(schedules.uniform(4))) == math.inf


def test_half_the_moves() -> None:
    half = verifier.halved(schedules.plan_of(schedules.uniform(5)))
    assert half.times == pytest.approx((1.0, 0.6, 0.2, 0.0))


def test_half_the_moves_switch_guidance_where_all_of_them_do() -> None:
    plan = schedules.plan_of(schedules.uniform(8), guidance_interval=(0.3, 0.8))
    half = verifier.halved(plan)
    assert half.times == pytest.approx((1.0, 0.75, 0.5, 0.25, 0.0))
    plan = schedules.plan_of(schedules.uniform(8), guidance_interval=(0.3, 0.9))
    half = verifier.halved(plan)
    assert half.times == pytest.approx((1.0, 0.875, 0.625, 0.375, 0.25, 0.0))
    assert [step.tier for step in half.steps] == [CONDITIONAL, FULL, FULL, FULL, CONDITIONAL]


def test_price_counts_every_estimate(profile: Profile) -> None:
    plan = schedules.plan_of(schedules.uniform(4), solver="heun", guidance_interval=(0.6, 1.0))
    assert prediction.price(profile, plan) == 2 * 4 + 2 * 4 + 2 * 2 + 2
    strange = Plan("strange", (Step(1.0, 0.0, Tier("odd", pool_factor=8)),))
    with pytest.raises(InputError, match="'odd' of plan 'strange' is not in the profile"):
        prediction.price(profile, strange)


def test_steps_that_ask_less_cost_less(profile: Profile) -> None:
    steps = (
        Step(1.0, 0.7, FULL),
        Step(0.7, 0.5, FULL, guidance_scale=1.0),
        Step(0.5, 0.2, FULL, reuse=True),
        Step(0.2, 0.0, CONDITIONAL),
    )
    prices = prediction.step_prices(profile, Plan("p", steps))
    assert prices == (prices[0], prices[3], 0.0, prices[3])
    assert prices[3] < prices[0]


def test_baselines_fill_the_budget_and_never_exceed_it(profile: Profile) -> None:
    found = list(verifier.baselines(profile, 21.0, (8, 8)))
    solvers = {step.solver for plan in found for step in plan.steps}
    assert solvers == {"multistep2", "damped2", "corrected2"}
    for plan in found:
        assert prediction.price(profile, plan) <= 21
        assert prediction.price(profile, plan) > 21 - 2 * 4
    assert any(CONDITIONAL in [step.tier for step in plan.steps] for plan in found)


def test_what_is_chosen_beats_its_start_and_every_baseline(
    judge: verifier.Evaluator, profile: Profile
) -> None:
    budget = 16.0
    plan = verifier.best_within(judge, profile, budget, name="mine", rollouts=25)
    assert plan.name == "mine"
    assert prediction.price(profile, plan) <= budget
    predicted = planner.plan(profile, budget=budget)
    others = list(verifier.baselines(profile, budget, (8, 8)))
    assert judge.error(plan) < judge.error(predicted)
    assert all(judge.error(plan) <= judge.error(other) for other in others)


def test_a_larger_budget_is_no_worse_where_the_smaller_one_is_known(
    judge: verifier.Evaluator, profile: Profile
) -> None:
    budget = 4 * profile.cost_ms[0]
    cheap = verifier.best_within(judge, profile, budget, rollouts=40)
    plan = verifier.best_within(judge, profile, 1.01 * budget, known=[cheap], rollouts=0)
    assert judge.error(plan) <= judge.error(cheap)
    assert judge.error(verifier.best_within(judge, profile, 1.01 * budget, rollouts=0)) > (
        judge.error(cheap)
    )


def test_climbing_never_makes_worse_and_respects_the_budget(
    judge: verifier.Evaluator, profile: Profile
) -> None:
    start = schedules.plan_of(schedules.uniform(3))
    budget = prediction.price(profile, start)
    assert verifier.climb(judge, start, profile, budget, rollouts=0) == start
    heard: list[int] = []
    better = verifier.climb(
        judge, start, profile, budget, rollouts=20,
        progress=lambda what, done, total: heard.append(done),
    )  # fmt: skip
    assert judge.error(better) < judge.error(start)
    assert prediction.price(profile, better) <= budget
    assert heard[-1] <= 20
    assert all(s < t for t, s in pairwise(better.times))


def test_proof_is_measured_on_the_pictures_it_is_given(
    model: GaussianAdapter, profile: Profile
) -> None:
    fresh = verifier.Evaluator.of(
        model, [replace(r, seed=100 + r.seed) for r in REQUESTS], verifier.rms
    )
    plan = planner.plan(profile, budget=20.0, name="p")
    proved = verifier.measure_evidence(
        fresh, plan, profile, features=lambda x, y: np.full(len(x), 0.5)
    )
    evidence = proved.evidence
    assert proved == plan
    assert evidence is not None
    assert evidence.made["limit_rms"] == "0.0000"
    assert float(evidence.made["worst_rms"]) == pytest.approx(fresh.errors(plan).max(), abs=1e-4)
    reference = schedules.fine_plan((8, 8))
    with_limit = verifier.measure_evidence(fresh, plan, profile, reference=reference).evidence
    assert with_limit is not None
    off = fresh.error(verifier.halved(reference)) / 3
    assert float(with_limit.made["limit_rms"]) == pytest.approx(off, abs=1e-4)
    assert with_limit.rms.high == pytest.approx(evidence.rms.high + off)
    assert evidence.rms.value == pytest.approx(float(fresh.errors(plan).mean()))
    assert evidence.rms.low < evidence.rms.value < evidence.rms.high
    assert evidence.distance is not None
    assert evidence.distance.value == 0.5
    assert evidence.made["adapter"] == "gaussian"
    assert evidence.pictures == 3
    assert sum(evidence.cost_ms) == pytest.approx(prediction.price(profile, plan))
    assert evidence.predicted == pytest.approx(prediction.predict(profile, plan).error)
    assert sum(evidence.shares) == pytest.approx(1)


def test_nodes_off_the_lattice_are_predicted_by_the_nearest(
    judge: verifier.Evaluator, profile: Profile
) -> None:
    near = (1.0, TIMES[2] + 0.001, TIMES[3] - 0.001, 0.0)
    plan = schedules.plan_of(near, solver="multistep3")
    proved = verifier.measure_evidence(judge, plan, profile)
    exact = schedules.plan_of((1.0, TIMES[2], TIMES[3], 0.0), solver="damped2")
    assert proved.evidence is not None
    assert proved.evidence.predicted == prediction.predict(profile, exact).error
    crowded = schedules.plan_of((1.0, 0.999, 0.998, 0.997, 0.0))
    assert verifier.measure_evidence(judge, crowded, profile).evidence is not None


def test_only_what_was_profiled_and_is_paid_for_is_tried(
    judge: verifier.Evaluator, profile: Profile
) -> None:
    unguided = verifier.only(profile, [tier for tier in profile.tiers if tier.guided])
    assert all(
        step.tier == FULL
        for plan in verifier.baselines(unguided, 40.0, (8, 8))
        for step in plan.steps
    )
    # Where guidance in turn is all that memory allows, baselines have it too.
    light = verifier.only(profile, [tier for tier in profile.tiers if tier != FULL])
    assert {
        step.tier for plan in verifier.baselines(light, 40.0, (8, 8)) for step in plan.steps
    } == {
        SEQUENTIAL_CFG,
        CONDITIONAL,
    }
    # Less than a full estimate, and no full tier at all.
    small = verifier.only(profile, [CONDITIONAL])
    assert list(verifier.baselines(small, 40.0, (8, 8))) == []
    for some, budget in ((profile, 3.0), (light, 12.0), (small, 6.0)):
        plan = verifier.best_within(judge, some, budget, rollouts=3)
        assert prediction.price(some, plan) <= budget
        assert all(step.tier in some.tiers for step in plan.steps)


def test_the_budget_counts_in_the_unit_that_was_asked_for(
    judge: verifier.Evaluator, profile: Profile
) -> None:
    plan = verifier.best_within(judge, profile, 6, cost="forwards", rollouts=15)
    assert plan.forwards <= 6


def test_more_nodes_than_candidates_have_no_prediction(
    judge: verifier.Evaluator, profile: Profile
) -> None:
    evidence = verifier.measure_evidence(
        judge, schedules.plan_of(schedules.uniform(9)), profile
    ).evidence
    assert evidence is not None
    assert evidence.predicted is None
    assert evidence.shares == ()


def test_a_profile_of_fewer_tiers_is_the_same_otherwise(profile: Profile) -> None:
    some = verifier.only(profile, (FULL, CONDITIONAL))
    assert [tier.name for tier in some.tiers] == ["full", "conditional"]
    index = profile.tiers.index(CONDITIONAL)
    assert np.array_equal(some.local_error[1], profile.local_error[index])
    assert some.cost_ms[1] == profile.cost_ms[index]
