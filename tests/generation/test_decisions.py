"""Pictures of version 0.1 that left their plan by its rules: read as the steps that they made."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from asymflow.core.errors import FileFormatError
from asymflow.core.schedules import plan_of
from asymflow.core.types import CONDITIONAL, FULL, Plan, Step, Tier
from asymflow.generation import decisions
from asymflow.generation.decisions import Action
from asymflow.io.json_reader import Fields

PLAN = plan_of((1.0, 0.8, 0.6, 0.4, 0.2, 0.0), guidance_interval=(0.5, 1.0))
CARRIED = Tier("conditional+", guided=False, cached=True)


@pytest.mark.parametrize(
    ("actions", "times"),
    [
        ({}, (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)),
        ({1: "skip"}, (1.0, 0.8, 0.4, 0.2, 0.0)),
        ({3: "skip"}, (1.0, 0.8, 0.6, 0.4, 0.0)),
        ({1: "insert"}, (1.0, 0.8, 0.7, 0.6, 0.4, 0.2, 0.0)),
        ({4: "insert"}, (1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0)),
        ({0: "skip", 2: "insert", 3: "skip"}, (1.0, 0.6, 0.5, 0.4, 0.0)),
    ],
)
def test_the_steps_that_were_made(actions: dict[int, Action], times: tuple[float, ...]) -> None:
    found = decisions.made(PLAN, actions, "fox.png")
    assert found.times == pytest.approx(times)
    # Every one is asked as the step of the plan was that it began in.
    for step in found.steps:
        [own] = [each for each in PLAN.steps if each.s < step.t <= each.t]
        assert (step.tier, step.solver) == (own.tier, own.solver)


def test_all_else_of_the_plan_stays() -> None:
    plan = replace(PLAN, extra={"new": 1})
    found = decisions.made(plan, {1: "skip"}, "fox.png")
    assert (found.name, found.extra) == (plan.name, plan.extra)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({5: "insert"}, "a decision to insert at step 5, and its plan has the steps 0 to 4"),
        ({4: "skip"}, "a decision to skip at step 4"),
        ({-1: "skip"}, "a decision to skip at step -1"),
    ],
)
def test_decisions_at_steps_that_are_not_there(actions: dict[int, Action], message: str) -> None:
    with pytest.raises(FileFormatError, match=f"fox.png has {message}"):
        decisions.made(PLAN, actions, "fox.png")


def test_decisions_that_leave_out_what_others_carry() -> None:
    steps = (Step(1.0, 0.8, CONDITIONAL), Step(0.8, 0.6, FULL), Step(0.6, 0.0, CARRIED))
    with pytest.raises(FileFormatError, match=r"fox.png has decisions .* full estimate at t=0.6"):
        decisions.made(Plan("carrying", steps), {0: "skip"}, "fox.png")


def test_entries_are_read() -> None:
    data: dict[str, Any] = {
        "decisions": [
            {"step": 1, "action": "skip", "surprise": 0.25},
            {"step": 3, "action": "insert", "surprise": 1},
        ]
    }
    assert decisions.read(Fields(data, "fox.png")) == {1: "skip", 3: "insert"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": "jump"}, "decision 0 has the unknown action 'jump'"),
        ({"step": 0.5}, "decision 0 has step = 0.5"),
        ({"surprise": None}, "decision 0 has surprise = None"),
        ({"more": 1}, "decision 0 has unknown entries: more"),
    ],
)
def test_damaged_entries_are_refused(change: dict[str, Any], message: str) -> None:
    entry = {"step": 1, "action": "skip", "surprise": 0.25} | change
    fields = Fields(json.loads(json.dumps({"decisions": [entry]})), "fox.png")
    with pytest.raises(FileFormatError, match=f"fox.png: {message}"):
        decisions.read(fields)
