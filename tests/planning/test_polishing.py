"""Polished plans: the numbers that move, where they lead, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import CARRIED, Plan, Request
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import grids, polishing
from asymflow.planning.fitting import APART, Fit, Teacher, bent, fitted
from asymflow.planning.polishing import polished
from asymflow.planning.proof import rms
from asymflow.planning.verifier import rollout
from tests.helpers import draw

DENSE = grids.blended(uniform(400), 400)
FINE = plan_of(grids.blended(uniform(400), 100), solver="corrected2")


class Network(GaussianAdapter):
    """With a parameter, as a network has."""

    gain = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    blocked = False

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_0 = self.gain * super().denoise(x_t, t, context)
        return x_0.detach() if self.blocked else x_0


def model(kind: type[Network] = Network) -> Network:
    """Every pixel has another spread, so that no weights suit all of them."""
    std = torch.linspace(0.1, 1.6, 64, dtype=torch.float64).view(1, 1, 8, 8)
    return kind(draw(1, 2, 1, 8, 8).double() * 0.3, torch.cat([std, std.flip(-1)]))


def asked(count: int, seed: int = 0, scale: float = 1.0) -> list[Request]:
    return [Request({"label": i % 2}, (8, 8), seed + i, scale) for i in range(count)]


def taught(scale: float = 1.0, kind: type[Network] = Network) -> Teacher:
    return Teacher.of(model(kind), asked(8, scale=scale), FINE)


def fit(teacher: Teacher, steps: int = 5) -> Fit:
    """With a carried step, whose weights are of all estimates like those of any other."""
    bends = [0.0] * 4
    plan = plan_of(bent(DENSE, steps, bends), solver="euler")
    if teacher.requests[0].guidance_scale != 1 and steps > 3:
        carried = replace(plan.steps[2], tier=CARRIED)
        plan = Plan(plan.name, (*plan.steps[:2], carried, *plan.steps[3:]))
    return fitted(teacher, plan, bends)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_polished_plan_is_nearer_on_fresh_pictures(scale: float) -> None:
    teacher = taught(scale)
    found = fit(teacher)
    best = polished(teacher, found, 20)
    fresh = asked(16, 500, scale)
    limit = rollout(teacher.adapter, FINE, fresh)
    before, after = (
        float(rms(rollout(teacher.adapter, each.plan, fresh), limit).mean())
        for each in (found, best)
    )
    assert after < 0.95 * before
    ends = rollout(teacher.adapter, best.plan, teacher.requests)
    assert best.error == pytest.approx(float(rms(ends, teacher.ends).mean()))
    assert [step.tier for step in best.plan.steps] == [step.tier for step in found.plan.steps]
    assert best.bends == found.bends


def test_numbers_are_those_of_the_plan() -> None:
    plan = fit(taught(), 9).plan
    again = polishing.Numbers.of(plan).plan(plan)
    assert again.times == pytest.approx(plan.times, rel=1e-9)
    for step, other in zip(again.steps, plan.steps, strict=True):
        assert step.weights == pytest.approx(other.weights, rel=1e-6, abs=1e-9)


def test_descent_follows_the_slope_of_what_the_engine_draws() -> None:
    """The gradient of the error agrees with differences of rollouts."""
    teacher = taught(2.0)
    plan = fit(teacher).plan
    numbers = polishing.Numbers.of(plan)
    by = [torch.zeros_like(x) for x in (numbers.snr, *numbers.steps)]
    program, state = polishing.compile_requests(
        teacher.adapter, [plan] * len(teacher.requests), teacher.requests
    )

    def end(by: list[Tensor]) -> Tensor:
        rows = numbers.moved(by).stages(plan, [2.0] * len(teacher.requests))
        trajectory = polishing.Trajectory.of(rows, state.x)
        return polishing.ends(replace(program, trajectory=trajectory), state)

    torch.testing.assert_close(end(by), rollout(teacher.adapter, plan, teacher.requests))
    for each in by:
        each.requires_grad_()
    slopes = torch.autograd.grad(end(by).square().sum(), by)
    ahead = [draw(i, *each.shape).double() for i, each in enumerate(by)]
    step = 1e-4
    with torch.no_grad():
        far, near = (
            rollout(
                teacher.adapter,
                numbers.moved([sign * step * x for x in ahead]).plan(plan),
                teacher.requests,
            )
            .square()
            .sum()
            for sign in (1, -1)
        )
    wanted = sum(float((slope * x).sum()) for slope, x in zip(slopes, ahead, strict=True))
    assert float(far - near) / (2 * step) == pytest.approx(wanted, rel=1e-4)


def test_times_go_on_falling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polishing, "SNR", 3.0)  # moves that are far too long
    teacher = taught()
    made = list[tuple[float, ...]]()
    original = polishing.ends

    def ends(program: polishing.Program, state: polishing.State) -> Tensor:
        made.append(tuple(program.trajectory.table[:, 0].tolist()))
        return original(program, state)

    monkeypatch.setattr(polishing, "ends", ends)
    polished(teacher, fit(teacher), 8)
    assert len(made) == 8
    assert made[-1] != pytest.approx(made[0])
    for times in made:
        snr = torch.logit(1 - torch.tensor(times[1:], dtype=torch.float64))
        assert all(b - a > 0.99 * APART for a, b in pairwise(snr.tolist()))


def test_the_network_is_not_changed_and_keeps_no_gradient() -> None:
    teacher = taught()
    polished(teacher, fit(teacher), 2)
    assert Network.gain.grad is None
    assert Network.gain.item() == 1


class Blocked(Network):
    blocked = True


@pytest.mark.parametrize(("rounds", "steps"), [(0, 5), (5, polishing.MOST + 1), (5, 1)])
def test_what_is_not_polished_stays(rounds: int, steps: int) -> None:
    teacher = taught()
    found = fit(teacher, steps)
    assert polished(teacher, found, rounds) is found


def test_plans_of_a_network_without_gradients_stay() -> None:
    teacher = taught(kind=Blocked)
    found = fit(teacher)
    assert polished(teacher, found, 5) is found


def test_a_descent_that_does_not_help_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polishing, "BY_ERROR", 1e5)
    monkeypatch.setattr(polishing, "RATE", 1e5)
    teacher = taught()
    found = fit(teacher)
    assert polished(teacher, found, 3) is found
