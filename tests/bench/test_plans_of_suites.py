"""Plans that suites build from grids and profiles."""

from __future__ import annotations

from benchmarks.suites import larger, predicted_error
from benchmarks.suites.predicted_error import COUNT, KINDS

from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import CONDITIONAL, FULL, Request
from asymflow.planning import prediction, profiler
from tests.fakes import SplitFake


def test_every_kind_of_plan_can_run_with_all_tiers_of_a_network_in_two_parts() -> None:
    profile = profiler.profile(
        SplitFake(),
        [Request({"prompt": "a fox"}, (16, 16), 0, 3.0)],
        times=shifted(20, 2.0),
        guidance_interval=(0.4, 1.0),
        repeats=1,
    )
    assert {"late", "late conditional"} <= {tier.name for tier in profile.tiers}
    drawn = [each for seed in range(5) for each in predicted_error.draw(profile, seed)]
    assert {kind for kind, _ in drawn} == set(KINDS)
    assert len(drawn) == 5 * COUNT
    for kind, plan in drawn:
        assert prediction.predict(profile, plan).error > 0
        if kind == "full only":
            assert all(step.tier in (FULL, CONDITIONAL) for step in plan.steps)
    late = [plan for _, plan in drawn if any(step.tier.late for step in plan.steps)]
    assert len(late) > COUNT / 4


def test_grids_are_asked_at_parts_of_the_side_that_change_on_the_way() -> None:
    grid = plan_of(shifted(4, 2.0))
    factors = {
        name: [step.tier.pool_factor for step in larger.asked(grid, way).steps]
        for name, way in larger.WAYS.items()
    }
    assert factors["half"] == [2, 2, 2, 2]
    assert factors["whole"] == [1, 1, 1, 1]
    assert factors["half, whole at the end"] == [2, 2, 2, 1]
    assert factors["quarter, half at the end"] == [4, 4, 4, 2]
    assert factors["quarter above t = 0.8, then half"] == [4, 4, 2, 2]
