"""Decisions of one picture, from its own estimates and the plan alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from asymflow.core import controller, schedules, transforms
from asymflow.core.controller import Estimate
from asymflow.core.errors import InputError
from asymflow.core.types import CONDITIONAL, Action, Decision, Plan, Rule, Solver, Step, Tier
from tests.helpers import draw64

PLAN = schedules.plan_of((1.0, 0.8, 0.6, 0.4, 0.2, 0.0))
CARRIED = Tier("conditional+", guided=False, cached=True)


def curve(power: int, nodes: tuple[float, ...]) -> list[Estimate]:
    """Estimates on a line in tau^power, newest first."""
    one, other = draw64(0, 1, 3, 4, 4), draw64(1, 1, 3, 4, 4)
    return [(t, one + t**power * other) for t in nodes]


# Surprise


@pytest.mark.parametrize(
    ("solver", "power"), [("multistep2", 2), ("multistep3", 2), ("euler", 2), ("corrected2", 4)]
)
def test_the_line_of_the_solver_surprises_nobody(solver: Solver, power: int) -> None:
    assert controller.prediction_residual(curve(power, (0.3, 0.5, 0.9)), solver) == pytest.approx(
        0, abs=1e-12
    )
    assert (controller.prediction_residual(curve(6 - power, (0.3, 0.5, 0.9)), solver) or 0) > 0.01


def test_surprise_is_relative_to_the_estimate() -> None:
    (t, newest), one, other = curve(2, (0.3, 0.5, 0.9))
    off = (t, newest * 1.25)
    assert controller.prediction_residual((off, one, other), "multistep2") == pytest.approx(0.2)
    twice = [(t, 2 * x_0) for t, x_0 in (off, one, other)]
    assert controller.prediction_residual(twice, "multistep2") == pytest.approx(0.2)


def test_one_earlier_estimate_is_taken_as_it_is_and_none_predicts_nothing() -> None:
    newest, one = curve(2, (0.5, 0.9))
    expected = float((newest[1] - one[1]).norm() / newest[1].norm())
    assert controller.prediction_residual((newest, one), "multistep2") == pytest.approx(expected)
    assert controller.prediction_residual((newest,), "multistep2") is None


def test_black_pictures_surprise_nobody() -> None:
    black = [(t, torch.zeros(1, 3, 4, 4)) for t in (0.3, 0.5)]
    assert controller.prediction_residual(black, "multistep2") is None


def test_known_pixels_do_not_count() -> None:
    newest, one = curve(2, (0.5, 0.9))
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    mask[..., :2] = 1
    half = [(t, x_0[..., :2]) for t, x_0 in (newest, one)]
    masked = controller.prediction_residual((newest, one), "multistep2", mask)
    assert masked == pytest.approx(controller.prediction_residual(half, "multistep2"))
    ones = torch.ones_like(mask)
    assert controller.prediction_residual(
        (newest, one), "multistep2", ones
    ) == controller.prediction_residual((newest, one), "multistep2")


# Decisions


def test_the_first_rule_that_applies_counts() -> None:
    rules = (
        Rule(1, "skip", 0.2),
        Rule(1, "insert", 0.5),
        Rule(3, "insert", 0.1),
        Rule(3, "skip", 9.0),
    )
    plan = replace(PLAN, adaptive=rules)
    found = [controller.decide(plan, 1, rho) for rho in (0.1, 0.2, 0.5, 0.6)]
    assert found == ["skip", None, None, "insert"]
    assert [controller.decide(plan, 3, rho) for rho in (0.1, 0.2)] == ["skip", "insert"]
    assert controller.decide(plan, 2, 0.05) is None
    assert controller.decide(plan, 1, None) is None
    assert controller.decide(PLAN, 1, 0.0) is None


@pytest.mark.parametrize(
    ("action", "nodes"),
    [
        (None, (0.8, 0.6)),
        ("skip", (0.8, 0.4)),
        ("insert", (0.8, 0.7, 0.6)),
    ],
)
def test_moves_in_place_of_a_step(action: Action | None, nodes: tuple[float, ...]) -> None:
    moves = controller.moves(PLAN, 1, action)
    assert (*(move.t for move in moves), moves[-1].s) == pytest.approx(nodes)
    assert {move.tier for move in moves} == {PLAN.steps[1].tier}


def test_steps_that_were_taken() -> None:
    plan = replace(PLAN, adaptive=(Rule(1, "skip", 0.1),))
    assert controller.taken(plan, ()) == PLAN
    decisions = (Decision(0, "skip", 0.1), Decision(2, "insert", 0.9), Decision(3, "skip", 0.0))
    taken = controller.taken(plan, decisions)
    assert taken.times == pytest.approx((1.0, 0.6, 0.5, 0.4, 0.0))
    assert taken.adaptive == ()


# Rules that cannot be followed


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ((4, "skip", 0.1), "cannot skip at step 4"),
        ((5, "insert", 0.1), "cannot insert at step 5"),
        ((-1, "skip", 0.1), "cannot skip at step -1"),
        ((1, "skip", -0.1), "no residual is less than 0"),
        ((1, "skip", float("nan")), "prediction_residual=nan"),
        ((1, "jump", 0.1), "Unknown action 'jump'"),
    ],
)
def test_rules_that_lead_nowhere(rule: tuple[int, Action, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(PLAN, adaptive=(Rule(*rule),))


def test_the_full_estimate_that_others_carry_cannot_be_left_out() -> None:
    steps = (Step(1.0, 0.8, CONDITIONAL), Step(0.8, 0.6), Step(0.6, 0.4), Step(0.4, 0.0))
    free = Plan("free", steps, adaptive=(Rule(0, "skip", 0.1),))
    assert free.adaptive
    carrying = (*steps[:3], replace(steps[3], tier=CARRIED))
    assert Plan("carrying", carrying, adaptive=(Rule(1, "skip", 0.1),)).adaptive
    with pytest.raises(InputError, match="full estimate of step 1"):
        Plan("carrying", carrying, adaptive=(Rule(0, "skip", 0.1),))


def test_two_estimates_in_a_step_cannot_be_predicted() -> None:
    plan = schedules.plan_of(schedules.uniform(4), solver="heun")
    with pytest.raises(InputError, match="step 0 asks twice"):
        replace(plan, adaptive=(Rule(1, "skip", 0.1),))


def test_a_printed_plan_says_its_rules() -> None:
    text = str(replace(PLAN, adaptive=(Rule(1, "skip", 0.1), Rule(2, "insert", 0.5))))
    assert "1  skip < 0.100" in text
    assert "2  insert > 0.500" in text
    assert "leaves" not in str(PLAN)


def test_a_changed_plan_has_no_rules() -> None:
    plan = replace(PLAN, adaptive=(Rule(1, "skip", 0.1),))
    assert transforms.truncated(plan, 1.0) is plan
    assert transforms.truncated(plan, 0.7).adaptive == ()
    assert transforms.rescaled(plan, 2.0).adaptive == ()
