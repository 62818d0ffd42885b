"""The random plans of benchmarks/suites/predicted_error.py."""

from __future__ import annotations

from benchmarks.suites import predicted_error
from benchmarks.suites.predicted_error import COUNT, KINDS

from asymflow.core.schedules import shifted
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
