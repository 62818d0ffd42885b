"""The level of a plan for a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asymflow.core.binding import Binding, ModelDescription, Requirements
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.statistics import Interval
from asymflow.core.types import Evidence
from asymflow.planning.binding import binding_of, bound, match

MODEL = ModelDescription("embedded", 4 * "0123456789abcdef", "x_0", "cfg", "side / 64", alpha=True)
OTHER = replace(MODEL, weights=64 * "f")
PLAN = plan_of(uniform(2), name="mine")
EVIDENCE = Evidence(
    made={"adapter": "embedded:0123456789ab"},
    cost_ms=(1.0, 1.0),
    full_ms=1.0,
    shares=(),
    predicted=None,
    rms=Interval(0.1, 0.0, 0.2),
    distance=None,
    pictures=2,
)


def test_a_plan_that_claims_nothing_fits_every_model() -> None:
    assert binding_of(PLAN) is None
    found = match(PLAN, MODEL)
    assert (found.level, found.line) == ("compatible", "")


def test_a_measured_plan_is_bound_to_its_weights() -> None:
    plan = bound(replace(PLAN, evidence=EVIDENCE), MODEL)
    assert plan == PLAN
    assert plan.evidence is not None
    assert plan.evidence.weights == MODEL.weights
    assert match(plan, MODEL).level == "exact"
    found = match(plan, OTHER)
    assert found.level == "compatible"
    assert found.line == (
        "was measured on embedded:0123456789ab, and this model is embedded:ffffffffffff"
    )
    found = match(plan, replace(MODEL, family="jit"))
    assert found.level == "other"
    assert found.line == ("was made for embedded:0123456789ab, and this model is jit:0123456789ab")


def test_evidence_of_version_0_1_binds_too() -> None:
    plan = replace(PLAN, evidence=EVIDENCE)
    assert binding_of(plan) == Binding("embedded", "0123456789ab")
    assert match(plan, MODEL).level == "exact"
    assert match(plan, OTHER).level == "compatible"
    unnamed = replace(PLAN, evidence=replace(EVIDENCE, made={}))
    assert binding_of(unnamed) is None


def test_a_few_digits_are_no_weights() -> None:
    for weights, level in (("0123456", "compatible"), ("01234567", "exact")):
        assert match(replace(PLAN, binding=Binding("embedded", weights)), MODEL).level == level


def test_a_plan_may_be_of_a_family() -> None:
    found = match(replace(PLAN, binding=Binding("embedded")), MODEL)
    assert found.level == "compatible"
    assert "all models of the kind 'embedded'" in found.line


@pytest.mark.parametrize(
    ("requires", "line"),
    [
        (Requirements(parameterisation="v"), "needs parameterisation = 'v', and this model"),
        (Requirements(noise_scale=2.0), "needs noise_scale = 2.0"),
        (Requirements(shift_rule="none"), "needs shift_rule = 'none'"),
        (Requirements(guidance="none"), "needs guidance = 'none'"),
        (Requirements(alpha=False), "needs alpha = False"),
        (Requirements(size=(64, 96)), "is for pictures of 96x64, and these are 64x64"),
    ],
)
def test_what_a_plan_needs_and_does_not_get_is_said(requires: Requirements, line: str) -> None:
    plan = replace(PLAN, requires=requires, binding=MODEL.binding)
    found = match(plan, MODEL, (64, 64))
    assert found.level == "other"
    assert line in found.line


def test_what_a_plan_needs_and_gets_is_not_said() -> None:
    plan = replace(PLAN, requires=replace(MODEL.requirements, size=(64, 96)))
    for size in (None, (64, 96)):
        assert match(plan, MODEL, size).level == "compatible"
        assert match(replace(plan, binding=MODEL.binding), MODEL, size).level == "exact"


def test_requirements_are_checked() -> None:
    with pytest.raises(InputError, match="shift_rule is a int"):
        Requirements(shift_rule=3)  # pyright: ignore[reportArgumentType]
    assert str(Binding("embedded", 64 * "a", "mine")) == "embedded:aaaaaaaaaaaa (mine)"
