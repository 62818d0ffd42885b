"""Profiles of a model whose trajectories have a closed form, against moves that are really made."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core import schedules
from asymflow.core.errors import InputError
from asymflow.core.estimators import Memory, carry, estimate
from asymflow.core.flow import enlarge
from asymflow.core.schedules import shifted
from asymflow.core.types import CONDITIONAL, FULL, Plan, Profile, Request, Step, Tier, cheaper_tiers
from asymflow.models.empirical import EmpiricalAdapter
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import prediction, profiler, verifier
from tests.helpers import draw64, moved

TIMES = shifted(7, 2.0)
TIERS = cheaper_tiers((2,))
REQUESTS = [Request({"label": 1}, (8, 8), seed, 3.0) for seed in range(3)]


def build() -> GaussianAdapter:
    mean = 0.2 * draw64(0, 1, 3, 8, 8).expand(2, -1, -1, -1)
    std = enlarge(0.6 + 0.3 * draw64(1, 2, 3, 4, 4).tanh(), 2)
    return GaussianAdapter(mean, std)


@pytest.fixture(scope="module")
def model() -> GaussianAdapter:
    return build()


@pytest.fixture(scope="module")
def answers(model: GaussianAdapter) -> profiler.ReferenceOutputs:
    return profiler.reference(model, REQUESTS, TIMES, TIERS)


@pytest.fixture(scope="module")
def profile(model: GaussianAdapter) -> Profile:
    return profiler.profile(model, REQUESTS, times=TIMES, repeats=3)


def test_the_reference_follows_the_exact_trajectory(model: GaussianAdapter) -> None:
    label = torch.ones(3, dtype=torch.long)
    errors: list[float] = []
    for count in (28, 56):
        found = profiler.reference(model, REQUESTS, shifted(count, 2.0), ())
        exact = model.guided_solution(found.x[0], 1.0, 0.0, label, 3.0)
        errors.append(float((found.x[-1] - exact).square().mean().sqrt()))
    assert errors[1] < 0.005
    assert errors[0] > 3 * errors[1]  # of second order


def asked(answers: profiler.ReferenceOutputs, tier: Tier, i: int) -> Tensor:
    """What a tier says at the i-th state of the reference."""
    time = answers.x.new_full((answers.x.shape[1],), TIMES[i])
    return estimate(answers.models.guided, tier, answers.x[i], time, None)[0]


def test_every_defect_is_that_of_the_move_when_it_is_made(
    profile: Profile, answers: profiler.ReferenceOutputs
) -> None:
    count = len(TIMES)
    for number, tier in enumerate(profile.tiers):
        if tier.cached:
            assert np.array_equal(profile.local_error[number], profile.local_error[0])
            continue
        for p in range(count):
            for i in range(count):
                for j in range(count):
                    found = profile.local_error[number, p, i, j]
                    if not p <= i < j:
                        assert np.isinf(found)
                        continue
                    newest, older = (asked(answers, tier, k) for k in (i, p))
                    step = Step(TIMES[i], TIMES[j], tier, "damped2")
                    past = (TIMES[p], older) if p < i else None
                    x_s = moved(step, answers.x[i], newest, past)
                    rms = float((x_s - answers.x[j]).square().mean().sqrt())
                    assert found == pytest.approx(rms, rel=1e-4, abs=1e-6)


def test_drift_is_what_carrying_changes(
    profile: Profile, answers: profiler.ReferenceOutputs
) -> None:
    for number, tier in enumerate(profile.tiers):
        if not tier.cached:
            assert np.isinf(profile.drift[number]).all()
            continue
        for i in range(1, len(TIMES) - 1):
            raw = asked(answers, Tier("cheap", tier.guided, tier.pool_factor), i)
            if tier.pool_factor > 1:
                raw = torch.nn.functional.avg_pool2d(raw, tier.pool_factor)
            for k in range(i):
                memory: Memory = answers.memories[k]
                cached = carry(tier, raw, memory)
                rms = float((cached - answers.memories[i].x_0).square().mean().sqrt())
                assert profile.drift[number, k, i] == pytest.approx(rms, rel=1e-4)


def test_weights_are_those_of_the_newest_estimate(profile: Profile) -> None:
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    step = Step(TIMES[2], TIMES[4], FULL, "damped2")
    x_s = moved(step, x, x + 1, (TIMES[1], x))
    assert profile.weight[1, 2, 4] == pytest.approx(float(x_s), rel=1e-6)


def test_amplification_ends_at_one_and_is_that_of_the_linear_flow(
    model: GaussianAdapter, answers: profiler.ReferenceOutputs, profile: Profile
) -> None:
    assert profile.amplification[-1] == 1
    label = torch.ones(3, dtype=torch.long)
    j = 3
    step = Step(TIMES[j - 1], TIMES[j], FULL, "euler")
    euler = moved(step, answers.x[j - 1], answers.memories[j - 1].x_0)
    error = euler - answers.x[j]
    ends = [model.guided_solution(x, TIMES[j], 0.0, label, 3.0) for x in (euler, answers.x[j])]
    exact = float((ends[0] - ends[1]).square().mean().sqrt() / error.square().mean().sqrt())
    assert profile.amplification[j] == pytest.approx(exact, rel=0.15)


def test_errors_of_a_linear_model_grow_however_large_they_are(profile: Profile) -> None:
    assert profile.saturation == 1e3


def test_errors_stop_growing_where_they_have_led_to_another_picture() -> None:
    """A model of 1024 colours: how an error grows that is neither of the measured sizes."""
    colours = torch.rand(1024, 3, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.zeros(1024, dtype=torch.long)
    model = EmpiricalAdapter((2 * colours - 1).expand(-1, 3, 8, 8), labels)
    requests = [Request({"label": 0}, (8, 8), seed) for seed in range(16)]
    found = profiler.profile(model, requests, times=TIMES, tiers=(), repeats=3)
    assert found.amplification[1:6].min() > 2
    answers = profiler.reference(model, requests, TIMES, (FULL,))
    for j in (1, 2, 3):
        step = Step(TIMES[j - 1], TIMES[j], FULL, "euler")
        direction = moved(step, answers.x[j - 1], answers.memories[j - 1].x_0) - answers.x[j]
        direction /= direction.square().mean().sqrt()
        for error in (0.05, 0.1, 0.4):
            x_t = answers.x[j] + error * direction
            far = profiler.follow(answers, x_t, j) - profiler.follow(answers, answers.x[j], j)
            growth = float(far.square().mean().sqrt()) / error
            a = float(found.amplification[j])
            expected = 1 + (a - 1) / np.hypot(1, a * error / found.saturation)
            assert growth == pytest.approx(expected, rel=0.25)


def test_a_saturation_gives_back_the_growth_it_was_found_from() -> None:
    limit = profiler.saturating(5.0, 2.5, 0.2)
    assert 1 + 4 / np.hypot(1, 5.0 * 0.2 / limit) == pytest.approx(2.5)
    assert profiler.saturating(5.0, 5.1, 0.2) == 1e3


def test_predictions_rank_plans_as_rollouts_do(model: GaussianAdapter, profile: Profile) -> None:
    """The assumption that everything rests on, for plans of the full and of carried tiers."""
    rng = np.random.default_rng(0)
    judge = verifier.Evaluator.of(model, REQUESTS, verifier.rms)
    cached = [tier for tier in profile.tiers if tier.cached]
    predicted: list[float] = []
    real: list[float] = []
    for _ in range(40):
        inner = sorted(rng.choice(range(1, 7), rng.integers(1, 6), replace=False))
        nodes = [0, *(int(each) for each in inner), 7]
        tiers = [FULL] + [
            cached[int(rng.integers(len(cached)))] if rng.random() < 0.3 else FULL for _ in inner
        ]
        steps = tuple(
            Step(TIMES[i], TIMES[j], tier)
            for (i, j), tier in zip(pairwise(nodes), tiers, strict=True)
        )
        plan = Plan("random", steps)
        predicted.append(prediction.predict(profile, plan).error)
        real.append(judge.error(plan))
    ranks = np.stack([np.argsort(np.argsort(each)) for each in (predicted, real)])
    assert float(np.corrcoef(ranks[0], ranks[1]).min()) > 0.9


def test_costs_count_rows_and_pixels(profile: Profile, model: GaussianAdapter) -> None:
    assert len(profile.cost_ms) == len(profile.macs) == len(profile.peak_bytes)
    assert all(cost > 0 for cost in profile.cost_ms)
    assert all(peak > 0 for peak in profile.peak_bytes)
    again = profiler.measure_costs(model, REQUESTS[0], profile, repeats=3)
    assert np.array_equal(again.local_error, profile.local_error)
    assert again.made["adapter"] == profile.made["adapter"] == "gaussian"
    assert profile.made["size"] == "8x8"


def test_without_guidance_no_tier_leaves_it_out(model: GaussianAdapter) -> None:
    plain = [replace(request, guidance_scale=1.0) for request in REQUESTS[:1]]
    found = profiler.profile(model, plain, times=shifted(3, 1.0), repeats=3)
    assert [tier.name for tier in found.tiers] == ["full", "half", "half+", "quarter", "quarter+"]


def test_progress_is_told_and_bad_requests_are_refused(model: GaussianAdapter) -> None:
    heard: list[str] = []
    profiler.profile(
        model, REQUESTS[:1], times=shifted(3, 1.0), repeats=3,
        progress=lambda what, done, total: heard.append(f"{what} {done}/{total}"),
    )  # fmt: skip
    assert "following the reference 3/3" in heard
    assert "timing the tiers 1/1" in heard
    with pytest.raises(InputError, match="without a common size and guidance scale"):
        profiler.profile(model, [REQUESTS[0], replace(REQUESTS[1], guidance_scale=2.0)])
    picture = np.zeros((8, 8, 3), np.float32)
    with pytest.raises(InputError, match="without an image"):
        profiler.profile(model, [replace(REQUESTS[0], image=picture)])


@pytest.mark.filterwarnings("error")
def test_a_model_that_always_says_the_same_is_profiled() -> None:
    same = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    found = profiler.profile(GaussianAdapter(same, same), REQUESTS[:1], times=TIMES, repeats=3)
    assert found.local_error[0, 1, 2, 3] == pytest.approx(0, abs=1e-6)
    assert np.isfinite(found.amplification).all()
    assert found.amplification[-1] == 1


def test_outside_the_interval_the_reference_is_not_guided(model: GaussianAdapter) -> None:
    interval = (0.5, 1.0)
    found = profiler.profile(model, REQUESTS, times=TIMES, guidance_interval=interval, repeats=3)
    answers = profiler.reference(model, REQUESTS, TIMES, TIERS, interval)
    fine = schedules.fine_plan((8, 8), 256, guidance_interval=interval)
    end = verifier.rollout(model, fine, REQUESTS)
    everywhere = verifier.rollout(model, schedules.fine_plan((8, 8), 256), REQUESTS)
    away = [float(verifier.rms(answers.x[-1], x).mean()) for x in (end, everywhere)]
    assert away[0] < 0.3 * away[1]
    last, plain = len(TIMES) - 2, found.tiers.index(CONDITIONAL)
    assert TIMES[last] < 0.5 < TIMES[1]
    for number, tier in enumerate(found.tiers):
        assert np.isfinite(found.local_error[number, last, last, -1]) == (not tier.guided)
        assert np.isfinite(found.local_error[number, 1, 1, -1])
    time = answers.x.new_full((len(REQUESTS),), TIMES[last])
    x_0, _ = estimate(answers.models.plain, CONDITIONAL, answers.x[last], time, None)
    rms = float((x_0 - answers.x[-1]).square().mean().sqrt())
    assert found.local_error[plain, last, last, -1] == pytest.approx(rms, rel=1e-4)


def test_plans_guide_where_the_reference_does(model: GaussianAdapter) -> None:
    interval = (0.5, 1.0)
    found = profiler.profile(model, REQUESTS, times=TIMES, guidance_interval=interval, repeats=3)
    judge = verifier.Evaluator.of(model, REQUESTS, verifier.rms, guidance_interval=interval)
    best = verifier.best_within(judge, found, 9.0, cost="forwards", rollouts=4)
    assert all(step.t >= 0.5 for step in best.steps if step.tier.guided)
    proved = verifier.measure_evidence(judge, best, found)
    assert proved.evidence is not None
    assert proved.evidence.predicted is not None
    guided = Plan("guided", (Step(1.0, TIMES[-2]), Step(TIMES[-2], 0.0)))
    assert prediction.predict(found, guided).error == np.inf
    evidence = verifier.measure_evidence(judge, guided, found).evidence
    assert evidence is not None
    assert evidence.predicted is None
