"""The plans that come with the model."""

from __future__ import annotations

from itertools import pairwise

import pytest

from asymflow import plans
from asymflow.adapters import embedded
from asymflow.errors import InputError
from asymflow.times import coarse, lighter, rescaled, within
from asymflow.types import CONDITIONAL, FULL, IN_TURN, Plan, Step, Tier, cheaper_tiers

HALF = Tier("half", shrink=2)


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


def test_other_sizes_take_the_nearest_plan_at_the_same_visible_noise() -> None:
    plan = plans.load("fast", (48, 48))
    near = plans.load("fast", (64, 64))
    assert plan.evidence is None
    for t, u in zip(plan.times[1:-1], near.times[1:-1], strict=True):
        assert t / (1 - t) == pytest.approx(0.75 * u / (1 - u))
    assert plans.load("fast", (256, 256)).times[1] > plans.load("fast", (128, 128)).times[1]


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
    cheap = Tier("half conditional+", guided=False, shrink=2, carried=True)
    plan = Plan("p", (Step(1.0, 0.6, HALF), Step(0.6, 0.3), Step(0.3, 0.0, cheap)))
    assert within(plan, (2,)) is plan
    assert [step.tier for step in within(plan, ()).steps] == [FULL, FULL, CONDITIONAL]
    small = [step.tier for step in within(lighter(plan), ()).steps]
    assert small == [IN_TURN, IN_TURN, CONDITIONAL]


def test_a_coarse_plan_is_asked_small_and_in_its_last_step_at_twice_that() -> None:
    plan = Plan("p", (Step(1.0, 0.6), Step(0.6, 0.3, CONDITIONAL), Step(0.3, 0.0)))
    assert coarse(plan, 1) is plan
    assert {step.tier for step in coarse(plan, 2).steps} & {*cheaper_tiers((2,)), FULL} == {
        HALF,
        FULL,
    }
    for found, shrinks in ((coarse(plan, 2), [2, 2, 1]), (lighter(coarse(plan, 8)), [8, 8, 4])):
        assert [step.tier.shrink for step in found.steps] == shrinks
        assert [step.tier.guided for step in found.steps] == [True, False, True]
        assert found.times == plan.times
        assert found.steps[-1].tier.full == (shrinks[-1] == 1)
    with pytest.raises(InputError, match="1/3"):
        coarse(plan, 3)


@pytest.mark.parametrize("side", [128, 256, 512])
def test_the_shipped_model_can_be_asked_for_large_pictures_at_64_px(side: int) -> None:
    plan = coarse(plans.load("fast", (side, side)), side // 64)
    shrinks = embedded.load().shrinks((side, side))
    assert within(plan, shrinks) is plan
