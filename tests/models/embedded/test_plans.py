"""The plans that come with the model."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from asymflow.core.compiler import compile_requests
from asymflow.core.errors import InputError
from asymflow.core.flow import average_pool
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.transforms import (
    at_larger_size,
    at_lower_resolution,
    pooled,
    rescaled,
    with_pool_factors,
    with_sequential_guidance,
)
from asymflow.core.types import (
    CONDITIONAL,
    FULL,
    SEQUENTIAL_CFG,
    Plan,
    Request,
    Step,
    Tier,
    cheaper_tiers,
)
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded import plans
from asymflow.models.empirical import EmpiricalAdapter
from tests.helpers import driven

HALF = Tier("half", pool_factor=2)


@pytest.mark.parametrize("name", plans.NAMES)
@pytest.mark.parametrize("side", plans.SIDES)
def test_each_was_measured_on_the_shipped_model(name: str, side: int) -> None:
    plan = plans.load(name, (side, side))
    assert plan.name == name
    assert plan.evidence is not None
    assert plan.evidence.made["adapter"] == embedded.load().name == plans.made_for(name)
    assert plan.evidence.made["size"] == f"{side}x{side}"
    assert plan.evidence.rms.value > 0


@pytest.mark.parametrize("side", plans.SIDES)
def test_more_costs_more_and_is_nearer_to_the_reference(side: int) -> None:
    found = [plans.load(name, (side, side)).evidence for name in plans.NAMES]
    for less, more in pairwise(found):
        assert less is not None
        assert more is not None
        assert sum(less.cost_ms) / less.full_ms < sum(more.cost_ms) / more.full_ms
        assert less.rms.value > more.rms.value


def test_other_sizes_take_a_plan_of_less_at_the_same_visible_noise() -> None:
    plan = plans.load("fast", (48, 48))
    near = plans.load("fast", (64, 64))
    assert plan.evidence is None
    for t, u in zip(plan.times[1:-1], near.times[1:-1], strict=True):
        assert t / (1 - t) == pytest.approx(0.75 * u / (1 - u))
    assert plans.load("fast", (256, 256)).times[1] > plans.load("fast", (128, 128)).times[1]
    # Of a size that the model is asked for whole.
    assert {step.tier for step in plans.load("best", (96, 96)).steps} == {FULL, CONDITIONAL}


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="draft, fast, balanced, best"):
        plans.load("quick", (64, 64))


def test_rescaling_back_gives_the_plan_again() -> None:
    plan = Plan("p", (Step(1.0, 0.6, HALF), Step(0.6, 0.0)))
    again = rescaled(rescaled(plan, 3.0), 1 / 3)
    assert again.times == pytest.approx(plan.times)
    assert again.steps[0].tier == HALF
    with pytest.raises(InputError, match="factor=0 must be a positive number"):
        rescaled(plan, 0)


def test_sizes_that_cannot_be_pooled_are_asked_in_full() -> None:
    cheap = Tier("half conditional+", guided=False, pool_factor=2, cached=True)
    plan = Plan("p", (Step(1.0, 0.6, HALF), Step(0.6, 0.3), Step(0.3, 0.0, cheap)))
    assert with_pool_factors(plan, (2,)) is plan
    assert [step.tier for step in with_pool_factors(plan, ()).steps] == [FULL, FULL, CONDITIONAL]
    small = [step.tier for step in with_pool_factors(with_sequential_guidance(plan), ()).steps]
    assert small == [SEQUENTIAL_CFG, SEQUENTIAL_CFG, CONDITIONAL]


def test_a_pooled_plan_is_asked_small_and_a_coarse_one_in_its_last_step_at_twice_that() -> None:
    plan = Plan("p", (Step(1.0, 0.6), Step(0.6, 0.3, CONDITIONAL), Step(0.3, 0.0)))
    assert at_lower_resolution(plan, 1) is pooled(plan, 1) is plan
    assert {step.tier for step in at_lower_resolution(plan, 2).steps} & {
        *cheaper_tiers((2,)),
        FULL,
    } == {
        HALF,
        FULL,
    }
    for found, pool_factors in (
        (pooled(plan, 2), [2, 2, 2]),
        (at_lower_resolution(plan, 2), [2, 2, 1]),
        (with_sequential_guidance(at_lower_resolution(plan, 8)), [8, 8, 4]),
    ):
        assert [step.tier.pool_factor for step in found.steps] == pool_factors
        assert [step.tier.guided for step in found.steps] == [True, False, True]
        assert found.times == plan.times
        assert found.steps[-1].tier.full == (pool_factors[-1] == 1)
    with pytest.raises(InputError, match="1/3"):
        pooled(plan, 3)


def test_the_pooled_path_of_an_enlarged_plan_is_that_of_the_plan() -> None:
    """Exactly, with solvers of order 1; with others up to what they interpolate in."""
    pictures = torch.rand(7, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    eps = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])

    def end(pictures: Tensor, plan: Plan, x_t: Tensor) -> Tensor:
        model = EmpiricalAdapter(pictures, labels)
        size = (x_t.shape[-2], x_t.shape[-1])
        requests = [Request({"label": i}, size, guidance_scale=1.5) for i in (0, 1)]
        program, state = compile_requests(model, [plan] * 2, requests)
        return driven(program, replace(state, x=x_t)).x

    small = plan_of(shifted(5, 2.0), solver="multistep1", guidance_interval=(0.5, 1.0))
    large = at_larger_size(small, 2)
    assert [step.tier.pool_factor for step in large.steps] == [2] * 5
    expected = end(average_pool(pictures, 2), small, 2 * average_pool(eps, 2))
    assert torch.allclose(average_pool(end(pictures, large, eps), 2), expected)


def test_plans_that_carry_cannot_be_enlarged() -> None:
    cached = Tier("conditional+", guided=False, cached=True)
    plan = Plan("p", (Step(1.0, 0.5), Step(0.5, 0.0, cached)))
    assert at_larger_size(plan, 1) is plan
    with pytest.raises(InputError, match=r"carries from full estimates \('conditional\+'\)"):
        at_larger_size(plan, 2)
    with pytest.raises(InputError, match="enlarged 3 times"):
        at_larger_size(plan, 3)


def test_the_plans_of_a_larger_side_are_those_of_a_smaller_one() -> None:
    for name in plans.NAMES:
        small, large = (plans.load(name, (side, side)) for side in (64, 128))
        assert large.steps == at_larger_size(small, 2).steps


@pytest.mark.parametrize("side", [128, 256, 512])
def test_the_shipped_model_can_be_asked_for_large_pictures_at_64_px(side: int) -> None:
    plan = pooled(plans.load("fast", (side, side)), side // 64)
    pool_factors = embedded.load().pool_factors((side, side))
    assert with_pool_factors(plan, pool_factors) is plan
