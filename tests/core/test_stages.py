"""Steps with explicit weights, guidance of their own or reused estimates, on exact models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine, schedules
from asymflow.core.compiler import compile_requests
from asymflow.core.errors import InputError
from asymflow.core.solvers import move_weights
from asymflow.core.stages import compile_steps
from asymflow.core.transforms import pooled, rescaled, truncated
from asymflow.core.types import (
    CONDITIONAL,
    FULL,
    REUSED,
    Plan,
    Request,
    Solver,
    Step,
)
from asymflow.models.gaussian import GaussianAdapter
from tests.helpers import draw64, driven

SIZE = (8, 8)
GRID = schedules.shifted(6, 2.0)
MULTISTEP: tuple[Solver, ...] = ("euler", "multistep2", "multistep3", "damped2")


def gaussian() -> GaussianAdapter:
    mean = 0.3 * draw64(0, 3, 3, 8, 8)
    return GaussianAdapter(mean, 0.5 + 0.2 * draw64(1, 3, 3, 8, 8).tanh())


def request(seed: int = 0, scale: float = 2.0, **options: Any) -> Request:
    return Request({"label": 1 + seed % 2}, SIZE, seed, scale, **options)


def end(steps: Sequence[Step], request: Request) -> Tensor:
    [found] = engine.rollout(gaussian(), Plan("p", tuple(steps)), [request])
    return found.x_0


def by_hand(steps: Sequence[Step], request: Request) -> Tensor:
    """The end of a plan with explicit weights only, one line of arithmetic per step."""
    model = gaussian()
    _, state = compile_requests(model, [Plan("p", tuple(steps))], [request])
    x, estimates = state.x, list[Tensor]()
    label, null = torch.tensor([request.inputs["label"]]), torch.tensor([0])
    for step in steps:
        if not step.reuse:
            t = x.new_tensor([step.t])
            cond = model.denoise(x, t, {"label": label})
            scale = request.guidance_scale if step.guidance_scale is None else step.guidance_scale
            if step.tier.guided:
                cond = cond + (scale - 1) * (cond - model.denoise(x, t, {"label": null}))
            estimates.insert(0, cond)
        assert step.weights is not None
        a, *weights = step.weights
        x = a * x
        for weight, estimate in zip(weights, estimates, strict=False):
            x = x + weight * estimate
    return x[0]


def random_steps(seed: int) -> list[Step]:
    """Steps with random weights that keep x at a size of about 1."""
    rng = np.random.default_rng(seed)
    steps: list[Step] = []
    made = 0
    for number, (t, s) in enumerate(pairwise(GRID)):
        reuse = number > 0 and rng.random() < 0.3
        made += not reuse
        weights = (s / t, *rng.normal(0, 0.4, rng.integers(1, min(made, 7) + 1)))
        tier = CONDITIONAL if rng.random() < 0.3 else FULL
        scale = float(rng.uniform(0, 4)) if tier.guided and rng.random() < 0.5 else None
        if reuse:
            steps.append(Step(t, s, weights=weights, reuse=True))
        else:
            steps.append(Step(t, s, tier, weights=weights, guidance_scale=scale))
    return steps


@pytest.mark.parametrize("seed", range(12))
def test_weights_scales_and_reuse_are_what_their_definition_says(seed: int) -> None:
    steps, asked = random_steps(seed), request(seed)
    assert_close(end(steps, asked), by_hand(steps, asked), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", MULTISTEP)
def test_weights_of_a_solver_give_its_picture_bit_for_bit(solver: Solver) -> None:
    named = [Step(t, s, FULL, solver) for t, s in pairwise(GRID)]
    explicit = [
        Step(t, s, FULL, weights=tuple(map(float, move_weights(solver, t, s, GRID[:number][::-1]))))
        for number, (t, s) in enumerate(pairwise(GRID))
    ]
    assert all(step.weights is not None for step in explicit)
    one, other = (
        engine.run(gaussian(), Plan("p", tuple(steps)), [request(0), request(1)])
        for steps in (named, explicit)
    )
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.picture, b.picture)
        assert a.forwards == b.forwards


def test_plans_with_and_without_weights_share_calls() -> None:
    plans = [
        Plan("named", tuple(Step(t, s, FULL, "corrected2") for t, s in pairwise(GRID))),
        Plan("explicit", tuple(replace(s, reuse=False, tier=FULL) for s in random_steps(2))),
    ]
    requests = [request(0), request(1)]
    alone = [end(plan.steps, each) for plan, each in zip(plans, requests, strict=True)]
    together = driven(*compile_requests(gaussian(), plans, requests))
    for one, other in zip(alone, together.x, strict=True):
        assert torch.equal(one, other)


def test_weights_reach_past_a_change_of_tiers_and_solvers_do_not() -> None:
    steps = [
        Step(1.0, 0.8, FULL),
        Step(0.8, 0.6, CONDITIONAL),
        Step(0.6, 0.4, CONDITIONAL, weights=(2 / 3, 0.2, 0.1, 0.03)),
        Step(0.4, 0.0, CONDITIONAL),
    ]
    stages = compile_steps(steps)
    assert [len(stage.weights) for stage in stages] == [2, 2, 4, 3]
    assert [stage.older for stage in stages] == [(), (1.0,), (0.8, 1.0), (0.6,)]


def test_solvers_keep_no_more_than_they_use() -> None:
    plan = schedules.plan_of(schedules.uniform(12), solver="multistep3")
    assert max(len(stage.older) for stage in compile_steps(plan.steps)) == 2
    plan = schedules.plan_of(schedules.uniform(12), solver="damped2")
    assert max(len(stage.older) for stage in compile_steps(plan.steps)) == 1


@given(
    st.sampled_from(MULTISTEP),
    st.lists(st.floats(0.01, 0.99), min_size=3, max_size=6, unique=True),
    st.data(),
)
def test_reuse_with_a_solver_is_one_longer_step_of_it(
    solver: Solver, inner: list[float], data: st.DataObject
) -> None:
    times = [1.0, *sorted(inner, reverse=True), 0.0]
    steps = [Step(t, s, FULL, solver) for t, s in pairwise(times)]
    index = data.draw(st.integers(0, len(steps) - 2))
    short = [*steps[:index], replace(steps[index], s=steps[index + 1].s), *steps[index + 2 :]]
    steps[index + 1] = replace(steps[index + 1], reuse=True)
    for one, other in zip(compile_steps(steps), compile_steps(short), strict=True):
        assert (one.t, one.s, one.older) == (other.t, other.s, other.older)
        assert one.weights == pytest.approx(other.weights, abs=1e-9, rel=1e-9)


def test_a_step_that_reuses_asks_nothing() -> None:
    steps = (Step(1.0, 0.7), Step(0.7, 0.5, FULL, "euler", reuse=True), Step(0.5, 0.0, CONDITIONAL))
    plan = Plan("p", steps)
    assert steps[1].tier == REUSED
    assert [step.evaluations for step in steps] == [1, 0, 1]
    assert plan.forwards == 3
    assert "reused" in str(plan).splitlines()[3]
    [result] = engine.run(gaussian(), plan, [request()])
    assert result.forwards == 3
    assert len(result.step_seconds) == 2
    assert result.plan == plan


def test_the_corrector_repeats_a_move_and_what_reused_its_estimate() -> None:
    steps = [Step(1.0, 0.8), Step(0.8, 0.6, FULL, "corrected2"), Step(0.6, 0.3, FULL, "corrected2")]
    last = Step(0.3, 0.0, FULL, "corrected2")
    longer = [*steps[:1], replace(steps[1], s=0.3), last]
    reusing = [*steps[:2], replace(steps[2], reuse=True), last]
    assert_close(end(longer, request()), end(reusing, request()))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_step_guides_by_its_own_scale(scale: float) -> None:
    own = [Step(t, s, FULL, guidance_scale=3.0) for t, s in pairwise(GRID)]
    asked = [Step(t, s) for t, s in pairwise(GRID)]
    assert torch.equal(end(own, request(0, scale)), end(asked, request(0, 3.0)))
    none = [replace(step, guidance_scale=1.0) for step in asked]
    assert torch.equal(end(none, request(0, scale)), end(asked, request(0, 1.0)))
    for steps, passes in ((own, 2), (none, 1), (asked, 1 if scale == 1 else 2)):
        plan = Plan("p", tuple(steps))
        assert engine.forwards(plan, request(0, scale)) == passes * len(steps)
        [result] = engine.run(gaussian(), plan, [request(0, scale)])
        assert result.forwards == passes * len(steps)
    assert [row.split()[5] for row in str(Plan("p", tuple(own))).splitlines()[2:]] == ["3"] * 6
    assert Plan("p", tuple(none)).forwards == 6


def test_weights_give_way_where_they_do_not_hold() -> None:
    steps = (
        Step(1.0, 0.7, weights=(0.7, 0.3)),
        Step(0.7, 0.5, weights=(0.5, 0.2, 0.1), reuse=False),
        Step(0.5, 0.2, weights=(0.4, 0.6), reuse=True),
        Step(0.2, 0.0, CONDITIONAL, weights=(0.0, 1.0)),
    )
    plan = Plan("p", steps)
    for other in (truncated(plan, 0.65), rescaled(plan, 2.0)):
        assert all(step.weights is None for step in other.steps)
    assert truncated(plan, 1.0) is plan
    assert pooled(plan, 2).steps[2] == steps[2]
    # What a step would have reused is cut off, so it asks as the step before it does.
    [first, last] = truncated(plan, 0.45).steps
    assert (first.t, first.s, first.tier, first.reuse) == (0.45, 0.2, FULL, False)
    assert last.tier == CONDITIONAL
    image = np.full((*SIZE, 3), 0.5, np.float32)
    [result] = engine.run(gaussian(), plan, [request(image=image, strength=0.45)])
    assert result.forwards == 3


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"weights": (1.0,)}, "are no weights of a step"),
        ({"weights": (1.0,) * 9}, "are no weights of a step"),
        ({"weights": (0.5, float("nan"))}, "are no weights of a step"),
        ({"weights": "ab"}, "weights is a str"),
        ({"weights": (0.5, 0.5), "solver": "euler"}, "Drop the one or the other"),
        ({"reuse": True, "solver": "heun"}, "Heun's method asks the network"),
        ({"guidance_scale": float("inf")}, "must be a finite number"),
        ({"guidance_scale": 2.0, "tier": CONDITIONAL}, "has no effect"),
        ({"guidance_scale": 2.0, "reuse": True}, "has no effect"),
    ],
)
def test_contradictory_steps_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Step(0.5, 0.2, **options)


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ((Step(1.0, 0.0, reuse=True),), "before one has been made"),
        (
            (Step(1.0, 0.5, FULL, "heun"), Step(0.5, 0.0, reuse=True)),
            "whose second estimate is not kept",
        ),
        (
            (Step(1.0, 0.5), Step(0.5, 0.0, weights=(0, 1, 0), reuse=True)),
            "has weights of 2 estimates, and only 1 have been made there",
        ),
    ],
)
def test_plans_that_use_estimates_they_do_not_have_are_refused(
    steps: tuple[Step, ...], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        Plan("p", steps)


def test_a_part_of_a_plan_without_its_estimates_is_refused() -> None:
    with pytest.raises(InputError, match="none has been made"):
        compile_steps([Step(0.5, 0.0, reuse=True)])
    with pytest.raises(InputError, match="Run the plan from its beginning"):
        compile_steps([Step(0.5, 0.0, weights=(0, 1, 0))])
