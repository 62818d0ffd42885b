"""Fitted plans: against plain least squares, exact solutions, the engine and other samplers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core import transforms
from asymflow.core.adapter import Context
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import CONDITIONAL, FULL, MAX_ESTIMATES, Plan, Request, Step
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import fitting, grids
from asymflow.planning.fitting import Teacher, bent, fit, rolled
from asymflow.planning.proof import rms
from asymflow.planning.verifier import rollout
from tests.helpers import draw

SIZE = (8, 8)
DENSE = grids.blended(uniform(400), 400)


def fine(moves: int) -> Plan:
    return plan_of(grids.blended(uniform(400), moves), solver="corrected2")


def model() -> GaussianAdapter:
    """Every pixel has another spread, so that no weights suit all of them."""
    std = torch.linspace(0.1, 1.6, 64, dtype=torch.float64).view(1, 1, 8, 8)
    return GaussianAdapter(draw(1, 2, 1, 8, 8).double() * 0.3, torch.cat([std, std.flip(-1)]))


def asked(count: int, seed: int = 0, scale: float = 1.0) -> list[Request]:
    return [Request({"label": i % 2}, SIZE, seed + i, scale) for i in range(count)]


def taught(count: int = 6, moves: int = 80, scale: float = 1.0) -> Teacher:
    return Teacher.of(model(), asked(count, scale=scale), fine(moves))


@cache
def limit(scale: float) -> Tensor:
    return rollout(model(), fine(400), asked(16, 500, scale))


def error(plan: Plan, scale: float = 1.0) -> float:
    """On pictures that nothing was fitted to."""
    return float(rms(rollout(model(), plan, asked(16, 500, scale)), limit(scale)).mean())


def test_a_teacher_is_the_fine_plan() -> None:
    teacher = taught()
    torch.testing.assert_close(teacher.ends, rollout(model(), fine(80), teacher.requests))
    torch.testing.assert_close(teacher.at(0.0), teacher.ends)
    for node in (0, 1, 40, 79):
        torch.testing.assert_close(teacher.at(teacher.times[node]), teacher.states[node])


def test_states_between_the_nodes_of_a_teacher_converge() -> None:
    """Halved moves make the error of the teacher and of its interpolation a quarter, or less."""
    labels = torch.tensor([0, 1] * 3)
    errors: list[float] = []
    for moves in (20, 40, 80):
        teacher = taught(moves=moves)
        x_1 = teacher.states[0]
        off = [
            rms(teacher.at(t), model().solution(x_1, 1.0, t, labels)).mean()
            for t in (0.83, 0.51, 0.27, 0.06)
        ]
        errors.append(max(off))
    assert errors[0] > 2 * errors[1]
    assert errors[0] > 10 * errors[2]


@pytest.mark.parametrize("switch", [1.0, 0.55])
def test_the_way_from_a_node_of_a_teacher_is_of_third_order(switch: float) -> None:
    """On exact states; guidance begins at a time, where estimates have a jump."""
    mean = 0.3 * draw(1, 1, 1, 8, 8).double().expand(2, -1, -1, -1)
    this = GaussianAdapter(mean, model().std)
    x_1, labels, null = draw(3, 2, 1, 8, 8).double(), torch.tensor([0, 1]), torch.zeros(2).long()

    def solution(t: float) -> Tensor:
        if t >= switch or switch == 1:
            return this.solution(x_1, 1.0, t, labels)
        begin = this.solution(x_1, 1.0, switch, labels)
        return this.guided_solution(begin, switch, t, labels, 3.0)

    def estimate(t: float, guided: bool) -> Tensor:
        x_t, time = solution(t), torch.full((2,), t, dtype=torch.float64)
        cond, other = (this.denoise(x_t, time, {"label": each}) for each in (labels, null))
        return other + 3 * (cond - other) if guided else cond

    def error(moves: int) -> float:
        nodes = [min((switch, t), key=lambda s: abs(s - t) > 1e-9) for t in uniform(moves)[:-1]]
        guided = [t <= switch < 1 for t in nodes]
        teacher = Teacher(
            this,
            tuple(asked(2)),
            tuple(nodes),
            tuple(FULL if each else CONDITIONAL for each in guided),
            torch.stack([solution(t) for t in nodes]),
            torch.stack([estimate(t, each) for t, each in zip(nodes, guided, strict=True)]),
            solution(0.0),
        )
        between = [(t + s) / 2 for t, s in pairwise(nodes) if s < 0.45 and t > 0.2]
        return max(float(rms(teacher.at(t), solution(t)).max()) for t in between)

    assert error(20) > 2**3.3 * error(40) > 2**6.6 * error(80)


@pytest.mark.parametrize("last", [False, True])
def test_weights_are_those_of_least_squares(monkeypatch: pytest.MonkeyPatch, last: bool) -> None:
    """Without a ridge and for pictures that count alike: what numpy finds for the same parts."""
    monkeypatch.setattr(fitting, "RIDGE", 0.0)
    monkeypatch.setattr(fitting, "_NEAR", 1e9)
    teacher = taught(moves=40)
    times = (1.0, 0.8, 0.5, 0.0) if last else (1.0, 0.8, 0.5, 0.2, 0.0)
    plan, _ = rolled(teacher, plan_of(times, solver="euler"))
    x_t, past = states(teacher, plan.steps[:3])
    parts = [*past] if last else [x_t, *past]
    columns = np.stack([part.flatten().numpy() for part in parts], axis=1)
    wanted = teacher.at(times[3]).flatten().numpy()
    best, *_ = np.linalg.lstsq(columns, wanted, rcond=None)
    weights = plan.steps[2].weights
    assert weights is not None
    np.testing.assert_allclose(weights[1:] if last else weights, best, rtol=1e-5)


def states(teacher: Teacher, steps: Sequence[Step]) -> tuple[Tensor, list[Tensor]]:
    """Where the last of some steps begins, and the estimates that it uses, newest first."""
    adapter, x_t = teacher.adapter, teacher.states[0]
    context, _ = adapter.encode(teacher.requests)
    past: list[Tensor] = []
    for number, step in enumerate(steps):
        t = torch.full((len(x_t),), step.t, dtype=x_t.dtype)
        past = [adapter.denoise(x_t, t, context), *past]
        if number + 1 < len(steps):
            assert step.weights is not None
            a, *weights = step.weights
            x_t = a * x_t + sum(w * each for w, each in zip(weights, past, strict=True))
    return x_t, past


def test_the_engine_leads_where_the_fit_did() -> None:
    teacher = taught(scale=3.0)
    steps = plan_of(uniform(9), solver="euler", guidance_interval=(0.3, 1.0))
    plan, ends = rolled(teacher, steps)
    assert {step.tier for step in plan.steps} == {step.tier for step in steps.steps}
    assert max(len(step.weights or ()) for step in plan.steps) == 1 + MAX_ESTIMATES
    torch.testing.assert_close(rollout(teacher.adapter, plan, teacher.requests), ends)
    [alone] = rollout(teacher.adapter, plan, teacher.requests[2:3])
    torch.testing.assert_close(alone, ends[2])


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize(("steps", "times_nearer"), [(5, 1.1), (8, 1.5), (12, 1.5)])
def test_fitted_plans_are_nearer_than_others_on_fresh_pictures(
    steps: int, times_nearer: float, scale: float
) -> None:
    others = [
        error(plan_of(times, solver=solver), scale)
        for times in (grids.blended(uniform(400), steps), uniform(steps))
        for solver in ("multistep2", "multistep3", "damped2", "corrected2")
    ]
    plan, _ = rolled(taught(scale=scale), plan_of(bent(DENSE, steps, [0.0] * 4), solver="euler"))
    assert error(plan, scale) < min(others) / times_nearer


def test_fitted_weights_make_good_what_a_missing_pass_changes() -> None:
    """Steps without guidance follow a guided solution better than the guided sampler's weights."""
    teacher = taught(scale=2.0)
    cheap = plan_of(bent(DENSE, 8, [0.0] * 4), solver="corrected2", guidance_interval=(0.3, 1.0))
    assert any(step.tier == CONDITIONAL for step in cheap.steps)
    plan, _ = rolled(teacher, cheap)
    assert error(plan, 2.0) < error(cheap, 2.0) / 2


def test_a_search_over_times_only_improves_and_stops_where_it_is_told() -> None:
    teacher, made = taught(), list[Plan]()

    def shape(bends: Sequence[float]) -> Plan:
        made.append(plan_of(bent(DENSE, 6, bends), solver="euler"))
        return made[-1]

    found = [fit(teacher, shape, [[1.0] * 4], rollouts) for rollouts in (1, 8, 24)]
    assert len(made) <= 33
    errors = [each.error for each in found if each is not None]
    assert errors[0] > errors[1] >= errors[2]
    assert errors[2] < 0.95 * errors[0]
    last = found[-1]
    assert last is not None
    assert last.plan.times == bent(DENSE, 6, last.bends)
    assert float(rms(rolled(teacher, last.plan)[1], teacher.ends).mean()) == pytest.approx(
        last.error
    )
    assert fit(teacher, lambda _: None, [[0.0] * 4], 5) is None


def test_a_search_leaves_out_what_is_not_allowed() -> None:
    def shape(bends: Sequence[float]) -> Plan | None:
        times = bent(DENSE, 6, bends)
        return plan_of(times, solver="euler") if times[2] > 0.75 else None

    begin = next(
        [by] * 4 for by in (0.0, -0.5, -1.0, -1.5, -2.0, -3.0) if shape([by] * 4) is not None
    )
    found = fit(taught(), shape, [[9.0] * 4, begin], 20)
    assert found is not None
    assert found.plan.times[2] > 0.75


def test_bent_times_fall_and_keep_their_ends() -> None:
    even = bent(DENSE, 40, [0.0] * 4)
    assert even[::10] == pytest.approx((*DENSE[:-1:100], 0.0), abs=5e-3)
    for bends in ([9, 9, 9, 9], [-9, -9, -9, -9], [3, -3, 3, -3], [-3, 3, -3, 3], [0, 0, 0, 0]):
        for count in (1, 2, 3, 7, 40):
            times = bent(DENSE, count, bends)
            assert len(times) == count + 1
            assert (times[0], times[-1]) == (1.0, 0.0)
            assert all(t > s for t, s in pairwise(times))
            assert all(t >= 0.999 * grids.LEAST for t in times[:-1])
    later = bent(DENSE, 10, [0.0, 0.0, 0.0, -1.0])
    assert later[-2] > bent(DENSE, 10, [0.0] * 4)[-2]


def test_a_plan_that_begins_later_falls_back_to_solvers() -> None:
    plan, _ = rolled(taught(), plan_of(bent(DENSE, 8, [0.0] * 4), solver="euler"))
    cut = transforms.truncated(plan, 0.6)
    assert all(step.weights is None for step in cut.steps)
    assert {step.solver for step in cut.steps} == {"damped2"}


def test_a_plan_whose_pictures_are_not_finite_is_never_the_best() -> None:
    class Broken(GaussianAdapter):
        def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
            found = super().denoise(x_t, t, context)
            return found * torch.nan if float(t[0]) == pytest.approx(0.5) else found

    whole = model()
    adapter = Broken(whole.mean, whole.std)
    teacher = replace(taught(), adapter=adapter)
    plans = {0.0: (1.0, 0.5, 0.0), 0.35: (1.0, 0.6, 0.0), -0.35: (1.0, 0.5, 0.2, 0.0)}

    def shape(bends: Sequence[float]) -> Plan | None:
        times = plans.get(bends[0])
        return None if times is None else plan_of(times, solver="euler")

    found = fit(teacher, shape, [[0.0]], 20)
    assert found is not None
    assert found.plan.times == (1.0, 0.6, 0.0)
    assert found.error < 1
