"""Late tiers in profiles and predictions, and fits that end late: never worse for it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from asymflow.core import engine
from asymflow.core.adapter import Context
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, shifted, uniform
from asymflow.core.types import (
    CONDITIONAL,
    FULL,
    LATE,
    LATE_CONDITIONAL,
    LATE_TIERS,
    Plan,
    Profile,
    Request,
    Step,
)
from asymflow.planning import fitting, grids, plan_files, planner, prediction, profiler, proposals
from asymflow.planning.effort import Effort
from asymflow.planning.fitting import Fit, Teacher
from asymflow.planning.journal import Journal
from asymflow.planning.profiler import AGES
from asymflow.planning.proof import rms
from asymflow.planning.proposals import Fits, ending_late
from asymflow.planning.verifier import Evaluator, climb, only, rollout
from tests.fakes import FakeModel, SplitFake

TIMES = shifted(11, 2.0)
SIZE = (16, 16)


def requests(count: int, first: int = 0) -> list[Request]:
    words = ("a fox", "a cat", "rain")
    return [Request({"prompt": words[i % 3]}, SIZE, first + i, 3.0) for i in range(count)]


@cache
def profiled(interval: tuple[float, float] = (0.0, 1.0)) -> Profile:
    return profiler.profile(
        SplitFake(), requests(2), times=TIMES, guidance_interval=interval, repeats=2
    )


def drift(tier: object, k: int, i: int) -> float:
    found = profiled()
    return float(found.drift[[each == tier for each in found.tiers].index(True), k, i])


# Profiles.


def test_only_a_network_in_two_parts_has_late_tiers() -> None:
    assert profiled().tiers[-2:] == LATE_TIERS
    plain = profiler.profile(FakeModel(), requests(1), times=(1.0, 0.5, 0.0), repeats=1)
    assert not any(tier.late for tier in plain.tiers)
    for adapter in (FakeModel(), SplitFake(splits=False)):
        with pytest.raises(InputError, match=r"'late' cannot be profiled: .* as a whole"):
            profiler.profile(adapter, requests(1), times=(1.0, 0.0), tiers=[LATE])


@pytest.mark.parametrize("tier", LATE_TIERS, ids=lambda tier: tier.name)
def test_drift_is_how_wrong_a_step_is_that_reuses(tier: object) -> None:
    """A rollout along the reference, whose last estimate is late or not."""
    answers = profiler.reference(SplitFake(), requests(2), TIMES, LATE_TIERS)
    guided = tier == LATE
    model = answers.models.guided
    for i in (1, 5, 9):
        for age in AGES:
            if (k := i - age) < 0:
                continue
            t = torch.full((2,), TIMES[k])
            *_, said = model.denoise_split(answers.x[k], t)
            now = torch.full((2,), TIMES[i])
            x_0, _, _ = model.denoise_split(answers.x[i], now, said, guided=guided)
            whole, _ = model.denoise(answers.x[i], now, guided=guided)
            wanted = float((x_0 - whole).square().mean().sqrt())
            assert wanted > 1e-4
            assert drift(tier, k, i) == pytest.approx(wanted, rel=1e-3)


def test_ages_between_are_in_proportion_and_others_unknown() -> None:
    i = 9
    for k in range(i - max(AGES), i):
        assert math.isfinite(drift(LATE, k, i))
    assert drift(LATE, i - 3, i) == pytest.approx(
        (drift(LATE, i - 1, i) + 2 * drift(LATE, i - 4, i)) / 3, rel=1e-5
    )
    for k in (0, i, i + 1):
        assert drift(LATE, k, i) == math.inf


def test_a_late_move_is_as_wrong_as_the_whole_but_for_what_is_reused() -> None:
    found = profiled()
    tiers = {tier: number for number, tier in enumerate(found.tiers)}
    for late, whole in ((LATE, FULL), (LATE_CONDITIONAL, CONDITIONAL)):
        np.testing.assert_allclose(
            found.local_error[tiers[late]], found.local_error[tiers[whole]], rtol=1e-3, atol=1e-6
        )


def test_before_guidance_begins_nothing_is_said_without_the_condition() -> None:
    found = profiled((0.0, TIMES[4]))
    tiers = {tier: number for number, tier in enumerate(found.tiers)}
    assert np.isinf(found.drift[tiers[LATE], :4, 4:]).all()
    assert np.isfinite(found.drift[tiers[LATE_CONDITIONAL], 3, 4])
    assert np.isfinite(found.drift[tiers[LATE], 4, 5])


def test_a_profile_is_saved_with_its_late_tiers(tmp_path: Path) -> None:
    plan_files.save_profile(profiled(), tmp_path / "found.profile")
    again = plan_files.load_profile(tmp_path / "found.profile")
    assert again.tiers == profiled().tiers
    np.testing.assert_array_equal(again.drift, profiled().drift)
    state = 4 * SIZE[0] * SIZE[1] * 4
    assert int(again.made["state_bytes"]) == state
    assert int(again.made["slow_bytes"]) == 2 * 4 * 4  # a colour of each pass


def test_predictions_know_where_what_is_reused_was_said() -> None:
    found = profiled()
    t = found.times
    steps = (
        Step(t[0], t[2], FULL, "multistep1"),
        Step(t[2], t[4], LATE, "multistep1"),
        Step(t[4], t[6], FULL, "multistep1"),
        Step(t[6], t[10], LATE, "multistep1"),
        Step(t[10], 0.0, LATE, "multistep1"),
    )
    tier = found.tiers.index(LATE)
    told = prediction.predict(found, Plan("late", steps))
    for index, (k, i, j) in {1: (0, 2, 4), 3: (4, 6, 10), 4: (4, 10, 11)}.items():
        defect = found.local_error[tier, i, i, j]
        moved = found.weight[i, i, j] * found.drift[tier, k, i]
        wanted = prediction.grown(found, np.hypot(defect, moved), j)
        assert told.errors[index] == pytest.approx(float(wanted), rel=1e-5)
    # What was said more than the most candidates ago was not measured.
    far = (replace(steps[0], s=t[9]), Step(t[9], 0.0, LATE, "multistep1"))
    assert prediction.predict(found, Plan("far", far)).error == math.inf


def test_dynamic_programming_leaves_them_out() -> None:
    found = planner.front(profiled(), cost="forwards", limit=10)
    assert found
    assert not any(step.tier.late for each in found for step in each.plan.steps)
    kept = [tier for tier in profiled().tiers if not tier.late]
    without = planner.front(only(profiled(), kept), cost="forwards", limit=10)
    assert [each.plan.steps for each in found] == [each.plan.steps for each in without]


def test_a_climb_tries_them() -> None:
    tried: set[bool] = set()

    class Watching(Evaluator):
        def errors(self, plan: Plan, count: int | None = None) -> np.ndarray:
            tried.add(any(step.tier.late for step in plan.steps))
            return super().errors(plan, count)

    wanted = tuple(requests(1))
    ends = rollout(SplitFake(), plan_of(uniform(32)), wanted)
    judge = Watching(SplitFake(), wanted, ends)
    begin = plan_of(uniform(4))
    found = climb(judge, begin, profiled(), 8, rollouts=60, cost="forwards")
    assert tried == {True, False}
    assert judge.error(found) <= judge.error(begin)


# Fits.


class Settled(SplitFake):
    """Its slow part says the same at all times, so that late estimates are exact."""

    def _slow(self, x_t: torch.Tensor, t: torch.Tensor, context: Context) -> torch.Tensor:
        return super()._slow(0 * x_t, t, context)

    def _fast(self, x_t: torch.Tensor, t: torch.Tensor, slow: torch.Tensor) -> torch.Tensor:
        return (slow[:, :, None, None] + 2 * x_t * (1 - t).view(-1, 1, 1, 1)).tanh()


EFFORT = Effort(pictures=3, moves=24, first=6, again=5)


def cheap(share: float) -> Profile:
    """Prices as if the fast part took such a share of a pass."""
    found = profiled()
    prices = {"full": 2.0, "late": 2 * share, "conditional": 1.0, "late conditional": share}
    ms = tuple(prices.get(tier.name, 1.5) for tier in found.tiers)
    return replace(found, cost_ms=ms)


class Opened(Fits):
    """Fits whose errors can be looked at."""

    def fit(self, steps: int) -> Fit:
        self.at(steps)
        found = self._found[steps]
        assert found is not None
        return found

    @property
    def teacher(self) -> Teacher:
        assert self._teacher is not None
        return self._teacher


def fits(share: float = 0.2, folder: Path | None = None) -> Opened:
    return Opened(
        SplitFake(), requests, cheap(share), (0.0, 1.0), uniform(400), Journal(folder), EFFORT
    )


def without(made: Opened) -> Opened:
    kept = [tier for tier in made.measured.tiers if not tier.late]
    return replace(made, measured=only(made.measured, kept))


def test_fits_that_may_end_late_are_never_worse_by_what_they_are_fitted_to() -> None:
    assert fits().fit(3).error <= without(fits()).fit(3).error
    made = fits()
    for each in (3, 5, 8):
        fit = made.fit(each)
        # At the price, and as wrong as is said.
        assert prediction.price(made.measured, fit.plan) <= 2 * each * 1.001
        real = rollout(SplitFake(), fit.plan, made.teacher.requests)
        assert float(rms(real, made.teacher.ends).mean()) == pytest.approx(fit.error, rel=1e-3)


def test_late_steps_are_taken_where_they_are_as_good_and_cheap() -> None:
    adapter = Settled()
    made, other = (replace(each, adapter=adapter) for each in (fits(0.01), without(fits(0.01))))
    found, plain = made.fit(3), other.fit(3)
    assert found.error < plain.error
    assert any(step.tier.late for step in found.plan.steps)
    # And at the next price what was best is tried again.
    assert any(step.tier.late for step in made.fit(4).plan.steps)


def test_they_are_not_tried_where_they_save_little() -> None:
    made = fits(0.8)
    adapter = made.adapter
    assert isinstance(adapter, SplitFake)
    adapter.parts.clear()
    made.at(3)
    assert "fast" not in adapter.parts
    assert made.at(3) == without(fits(0.8)).at(3)


def test_few_rollouts_more_are_made() -> None:
    def calls(made: Fits) -> int:
        adapter = made.adapter
        assert isinstance(adapter, SplitFake)
        for steps in (4, 5, 6):
            made.at(steps)
        return sum(1 if part == "fast" else 4 for part in adapter.parts)

    assert calls(fits(0.25)) < 1.5 * calls(without(fits(0.25)))


def test_an_interrupted_fit_ends_as_any_other(tmp_path: Path) -> None:
    whole = fits(0.01)
    wanted = [whole.at(steps) for steps in (3, 4)]
    made = fits(0.01, tmp_path)
    made.at(3)
    again = fits(0.01, tmp_path)
    found = [again.at(steps) for steps in (3, 4)]
    assert [each["fitted"].steps for each in found] == [each["fitted"].steps for each in wanted]
    broken = fits(0.01, tmp_path / "other")
    assert isinstance(broken.adapter, SplitFake)
    broken.adapter.interrupt_at = 150
    with pytest.raises(KeyboardInterrupt):
        broken.at(3)
    resumed = fits(0.01, tmp_path / "other")
    assert resumed.at(3)["fitted"].steps == wanted[0]["fitted"].steps


@pytest.mark.parametrize("places", [(1,), (1, 2), (1, 3)])
def test_weights_are_fitted_along_the_states_of_the_late_plan(places: tuple[int, ...]) -> None:
    teacher = Teacher.of(SplitFake(), requests(4), plan_of(uniform(40), solver="corrected2"))
    made = ending_late(lambda times: plan_of(times, solver="euler"), places)
    plan = made(fitting.bent(grids.blended(uniform(400), 400), 5, (0.0, 0.0, 0.0, 0.0)))
    assert plan is not None
    late = [place for place, step in enumerate(reversed(plan.steps), 1) if step.tier.late]
    assert tuple(late) == places
    fit = fitting.fitted(teacher, plan, (0.0,))
    [*ends] = (end.x_0 for end in engine.rollout(SplitFake(), fit.plan, teacher.requests))
    assert float(rms(torch.stack(ends), teacher.ends).mean()) == pytest.approx(fit.error, rel=1e-3)
    # Other weights are no better: those of the same plan without late steps, which are fitted to
    # other states.
    whole = Plan("whole", tuple(replace(step, tier=FULL) for step in plan.steps))
    others = fitting.fitted(teacher, whole, (0.0,)).plan
    mixed = Plan(
        "mixed",
        tuple(
            replace(step, weights=other.weights)
            for step, other in zip(fit.plan.steps, others.steps, strict=True)
        ),
    )
    off = float(rms(rollout(SplitFake(), mixed, teacher.requests), teacher.ends).mean())
    assert fit.error < off


def test_places_that_make_no_plan_are_none() -> None:
    plain = plan_of(uniform(3), solver="euler")
    assert ending_late(lambda times: plain, (3,))((1.0,)) is None
    assert ending_late(lambda times: None, (1,))((1.0,)) is None
    steps = (plain.steps[0], replace(plain.steps[1], tier=CONDITIONAL), plain.steps[2])
    assert ending_late(lambda times: Plan("gap", steps), (1,))((1.0,)) is None
    assert proposals.ENDS[0] == (1,), "what is tried at every price"
