"""The benchmark of continuous batching: its simulated load, and what it counts."""

from __future__ import annotations

import pytest
import torch
from benchmarks.suites import batching, overhead

from asymflow.core import schedules


def test_plans_of_the_scenarios_take_the_same_on_average() -> None:
    for plans in batching.SCENARIOS.values():
        assert sum(len(plan.steps) for plan in plans) == 10 * len(plans)
        assert sum(plan.forwards for plan in plans) == 15 * len(plans)
        assert all(step.evaluations == 1 for plan in plans for step in plan.steps)


def test_unequal_plans_fill_calls_like_equal_ones() -> None:
    one, mixed, tiers = (batching.simulated(plans, 0, 150) for plans in batching.SCENARIOS.values())
    assert mixed["calls"]["full"]["rows"] > 0.8 * one["calls"]["full"]["rows"]
    assert tiers["calls"].keys() == {"full", "half"}
    assert sum(tiers["share"].values()) == pytest.approx(1)


def test_one_poisoned_picture_of_32_fails_alone() -> None:
    found = batching.poisoned()
    assert list(found["failed"]) == [17]
    assert found["made"] == found["equal_to_alone"] == 31


def test_operators_of_a_tick_do_not_grow_with_pictures() -> None:
    plan = schedules.plan_of(schedules.uniform(6))
    few, many = (overhead.operators(rows, plan, side=8) for rows in (1, 16))
    assert 0 < few <= 20
    assert many == few


def test_each_takes_its_turn_at_going_first() -> None:
    log: list[str] = []

    def timed(name: str) -> overhead.Timed:
        def run() -> float:
            log.append(name)
            return 1.0

        return run

    found = overhead.alternated({name: timed(name) for name in "abc"}, 3)
    assert "".join(log) == "abc" + "abcbcacab"
    assert found == {name: [1.0] * 3 for name in "abc"}


def test_steps_are_timed_beside_those_of_diffusers() -> None:
    found = overhead.per_step(torch.device("cpu"), 2, steps=3, side=8, repeats=3)
    assert found["FlowMatchEulerDiscreteScheduler"]["to_euler"]["value"] == 1
    assert all(row["us_per_step"]["value"] > 0 for row in found.values())
    assert len(found) == len(overhead.SOLVERS) + len(overhead.SCHEDULERS)


def test_without_diffusers_the_engine_is_timed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "find_spec", lambda _: None)  # pyright: ignore[reportUnknownLambdaType]
    found = overhead.per_step(torch.device("cpu"), 1, steps=3, side=8, repeats=3)
    assert list(found) == [f"asymflow {solver}" for solver in overhead.SOLVERS]
    assert all("to_euler" not in row for row in found.values())
