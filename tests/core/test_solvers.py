"""Moves, against closed-form integrals and trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from asymflow.core.flow import Time, per_image, velocity_from_x_0
from asymflow.core.solvers import heun_weights, line_weights, move_weights, multistep_weights
from asymflow.core.stages import Trajectory, compile_steps
from asymflow.core.state import State, move
from asymflow.core.types import CONDITIONAL, FULL, Solver, Step
from asymflow.models.gaussian import GaussianAdapter
from tests.helpers import draw64

ONE = torch.ones(2, dtype=torch.long)


@pytest.fixture(scope="module")
def model() -> GaussianAdapter:
    std = torch.linspace(0.3, 1.5, 48, dtype=torch.float64).view(1, 3, 4, 4)
    return GaussianAdapter(0.3 * draw64(0, 2, 3, 4, 4), std.expand(2, -1, -1, -1))


class Network:
    """The model's denoiser for label 1, counting calls and noting their times."""

    def __init__(self, model: GaussianAdapter) -> None:
        self.model = model
        self.times: list[float] = []

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        assert t.shape == (len(x_t),)
        self.times.append(float(t[0]))
        return self.model.denoise(x_t, t, {"label": ONE})


def weighed(weights: Sequence[Time], x_t: Tensor, *estimates: Tensor) -> Tensor:
    """a x_t + sum of w_k D_k."""
    found = per_image(weights[0], x_t) * x_t
    for weight, x_0 in zip(weights[1:], estimates, strict=True):
        found = found + per_image(weight, x_0) * x_0
    return found


def follow(
    network: Callable[[Tensor, Tensor], Tensor],
    x_t: Tensor,
    steps: Sequence[Step],
    past: Sequence[tuple[float, Tensor]] = (),
) -> list[State]:
    """The state after every stage of some steps, with estimates from before them, newest first."""
    times = (*(t for t, _ in reversed(past)), steps[0].t)
    stages = compile_steps([*grid("euler", *times), *steps])
    trajectory = Trajectory.of([stages] * len(x_t), x_t)
    states = [State((len(past),) * len(x_t), x_t, past=tuple(x_0 for _, x_0 in past))]
    for stage in stages[len(past) :]:
        x_0 = network(states[-1].x, x_t.new_full((len(x_t),), float(stage.t)))
        states.append(move(trajectory, states[-1], x_0))
    return states[1:]


def grid(solver: Solver, *times: float) -> list[Step]:
    return [Step(t, s, FULL, solver) for t, s in pairwise(times)]


def roll(
    model: GaussianAdapter, solver: Solver, start: float, end: float, n: int, *, exact: bool
) -> float:
    """Error of n equal steps; with `exact`, history from before the start is the solution's."""
    network, h = Network(model), (start - end) / n
    x_1 = draw64(1, 2, 3, 4, 4)
    past: list[tuple[float, Tensor]] = []
    for t in (start + h, start + 2 * h) if exact else ():
        x_0 = network(model.solution(x_1, 1.0, t, ONE), torch.tensor([t, t], dtype=torch.float64))
        past.append((t, x_0))
    x_t = model.solution(x_1, 1.0, start, ONE)
    times = [start + (end - start) * i / n for i in range(n + 1)]
    x_t = follow(network, x_t, grid(solver, *times), past)[-1].x
    return (x_t - model.solution(x_1, 1.0, end, ONE)).square().mean().sqrt().item()


def order(errors: dict[int, float]) -> float:
    """The slope of log error over log step."""
    slope, _ = np.polyfit(np.log(list(errors)), np.log(list(errors.values())), 1)
    return -float(slope)


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        ("euler", 1),
        ("multistep1", 1),
        ("multistep2", 2),
        ("multistep3", 3),
        ("damped2", 2),
        ("heun", 2),
    ],
)
@pytest.mark.parametrize("end", [0.1, 0.0])
def test_order(model: GaussianAdapter, solver: Solver, expected: int, end: float) -> None:
    errors = {n: roll(model, solver, 0.8, end, n, exact=True) for n in (32, 64, 128, 256)}
    assert order(errors) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(
    ("solver", "expected"),
    [("euler", 1), ("multistep2", 2), ("damped2", 2), ("heun", 2), ("corrected2", 2)],
)
def test_order_of_a_whole_trajectory(model: GaussianAdapter, solver: Solver, expected: int) -> None:
    errors = {n: roll(model, solver, 1.0, 0.0, n, exact=False) for n in (64, 128, 256, 512)}
    assert order(errors) == pytest.approx(expected, abs=0.15)


def test_more_history_is_better_at_equal_cost(model: GaussianAdapter) -> None:
    solvers: tuple[Solver, ...] = ("multistep1", "multistep2", "multistep3")
    errors = [roll(model, solver, 0.8, 0.0, 40, exact=True) for solver in solvers]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def weights_of(t: float, s: float, earlier: Sequence[float]) -> list[float]:
    return [float(weight) for weight in multistep_weights(t, s, earlier)]


times = st.fractions(Fraction(1, 1000), 1, max_denominator=1000)


@given(st.lists(times, min_size=2, max_size=4, unique=True), st.booleans())
def test_weights_are_exact_for_polynomials(nodes: list[Fraction], to_data: bool) -> None:
    s, t, *earlier = sorted(nodes)
    if to_data:
        s = Fraction(0)
    weights = weights_of(float(t), float(s), [float(time) for time in earlier])
    for j in range(len(weights)):
        # s * integral of tau^(2j - 2) from s to t, in rational arithmetic
        exact = s * (t ** (2 * j - 1) - s ** (2 * j - 1)) / (2 * j - 1) if s else Fraction(j == 0)
        if s and j == 0:
            assert exact == 1 - s / t
        terms = [w * float(k) ** (2 * j) for w, k in zip(weights, (t, *earlier), strict=True)]
        tolerance = 1e-12 * sum(abs(term) for term in terms) + 1e-15
        assert math.fsum(terms) == pytest.approx(float(exact), rel=0, abs=tolerance)


@pytest.mark.parametrize("h", [1e-2, 1e-4, 1e-6])
def test_weights_of_small_equal_steps_are_those_of_adams_and_bashforth(h: float) -> None:
    t = 0.5
    two = np.array(weights_of(t, t - h, [t + h])) * t / h
    assert two == pytest.approx(np.array([3, -1]) / 2, abs=10 * h + 1e-8)
    three = np.array(weights_of(t, t - h, [t + h, t + 2 * h])) * t / h
    assert three == pytest.approx(np.array([23, -16, 5]) / 12, abs=20 * h + 1e-8)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_constant_estimate_is_reached_whatever_the_times(count: int) -> None:
    x_0, eps = draw64(2, 2, 1, 4, 4), draw64(3, 2, 1, 4, 4)
    solver: Solver = ("multistep1", "multistep2", "multistep3")[count - 1]
    for s in (0.0, 1e-9, 0.2, 0.399999):
        weights = move_weights(solver, 0.4, s, (0.7, 1.0)[: count - 1])
        assert len(weights) == count + 1
        x_s = weighed(weights, 0.6 * x_0 + 0.4 * eps, *[x_0] * count)
        assert_close(x_s, (1 - s) * x_0 + s * eps, rtol=0, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_times_per_image_are_the_same_as_one_by_one(count: int) -> None:
    t = torch.tensor([0.4, 0.9], dtype=torch.float64)
    s = torch.tensor([0.0, 0.5], dtype=torch.float64)
    x_t = draw64(4, 2, 1, 4, 4)
    x_0 = [draw64(5 + k, 2, 1, 4, 4) for k in range(count)]
    solver: Solver = ("multistep1", "multistep2", "multistep3")[count - 1]
    older = [t + 0.05 * k for k in range(1, count)]
    together = weighed(move_weights(solver, t, s, older), x_t, *x_0)
    for i in range(2):
        weights = move_weights(solver, float(t[i]), float(s[i]), [float(each[i]) for each in older])
        one = weighed(weights, x_t[i : i + 1], *(each[i : i + 1] for each in x_0))
        assert_close(together[i : i + 1], one)


def test_euler_is_a_step_along_the_velocity(model: GaussianAdapter) -> None:
    x_t, network = draw64(6, 2, 3, 4, 4), Network(model)
    [end] = follow(network, x_t, grid("euler", 0.7, 0.4))
    assert end.x_0 is not None
    assert_close(end.x, x_t - 0.3 * velocity_from_x_0(x_t, end.x_0, 0.7))


def test_heun_averages_the_velocities_at_both_ends(model: GaussianAdapter) -> None:
    x_t, network = draw64(7, 2, 3, 4, 4), Network(model)
    half, end = follow(network, x_t, grid("heun", 0.7, 0.4))
    assert network.times == pytest.approx([0.7, 0.4])
    assert half.x_0 is not None
    u = velocity_from_x_0(x_t, half.x_0, 0.7)
    predicted = x_t - 0.3 * u
    assert_close(half.x, predicted)
    at_s = model.denoise(predicted, torch.tensor([0.4, 0.4], dtype=torch.float64), {"label": ONE})
    v = velocity_from_x_0(predicted, at_s, 0.4)
    assert_close(end.x, x_t - 0.15 * (u + v))
    assert_close(weighed(heun_weights(0.7, 0.4), x_t, at_s, half.x_0), end.x)


def test_heun_into_data_is_one_euler_step(model: GaussianAdapter) -> None:
    x_t, network = draw64(8, 2, 3, 4, 4), Network(model)
    step = Step(0.3, 0.0, FULL, "heun")
    [end] = follow(network, x_t, [step])
    assert len(network.times) == step.evaluations == 1
    assert end.x_0 is not None
    assert torch.equal(end.x, end.x_0)


def test_history_is_newest_first_bounded_and_of_one_tier(model: GaussianAdapter) -> None:
    x_t, network = draw64(9, 2, 3, 4, 4), Network(model)
    full = grid("multistep3", 1.0, 0.9, 0.8, 0.7, 0.6)
    # A tier that answers differently is no point of the same curve.
    other = Step(0.6, 0.5, CONDITIONAL, "multistep3")
    stages = compile_steps([*full, other])
    assert [stage.older for stage in stages] == [(), (1.0,), (0.9, 1.0), (0.8, 0.9), ()]
    *_, before, after = follow(network, x_t, [*full, other])
    assert [len(state.past) for state in (before, after)] == [0, 0]
    [euler] = follow(network, before.x, [Step(0.6, 0.5, CONDITIONAL, "euler")])
    assert torch.equal(after.x, euler.x)


def test_only_what_is_still_used_is_kept(model: GaussianAdapter) -> None:
    x_t, network = draw64(9, 2, 3, 4, 4), Network(model)
    solvers: tuple[Solver, ...] = ("euler", "euler", "multistep3", "multistep2", "euler", "euler")
    steps = [
        Step(1 - i / 6, (5 - i) / 6 if i < 5 else 0.0, FULL, solver)
        for i, solver in enumerate(solvers)
    ]
    states = follow(network, x_t, steps)
    assert [len(state.past) for state in states] == [1, 2, 1, 0, 0, 0]
    assert all(state.anchor is None for state in states)
    corrected = follow(network, x_t, grid("corrected2", 1.0, 0.7, 0.4, 0.0))
    assert [state.anchor is None for state in corrected] == [False, False, True]


@pytest.mark.parametrize(("t", "other", "s"), [(0.6, 0.9, 0.2), (0.6, 0.9, 0.0), (0.6, 0.2, 0.2)])
def test_a_line_is_exact_for_the_fourth_power(t: float, other: float, s: float) -> None:
    """D = 2 + 3 tau^4: s * integral of D / tau^2 is 2 (1 - s/t) + s (t^3 - s^3)."""
    x_t = draw64(12, 1, 1, 2, 2)
    ends = [torch.full_like(x_t, 2 + 3 * time**4) for time in (t, other)]
    exact = s / t * x_t + 2 * (1 - s / t) + s * (t**3 - s**3)
    assert_close(weighed(line_weights(t, s, other), x_t, *ends), exact)


def test_a_corrected_move_is_made_again_with_what_was_found_at_its_end(
    model: GaussianAdapter,
) -> None:
    x_1, network = draw64(13, 2, 3, 4, 4), Network(model)
    first, second = follow(network, x_1, grid("corrected2", 1.0, 0.7, 0.3))
    assert network.times == [1.0, 0.7]  # nothing is asked twice
    assert first.x_0 is not None
    assert second.x_0 is not None
    corrected = weighed(line_weights(1.0, 0.7, 0.7), x_1, first.x_0, second.x_0)
    assert_close(second.x, weighed(line_weights(0.7, 0.3, 1.0), corrected, second.x_0, first.x_0))
    # Another tier ends where it ends.
    for solver in ("corrected2", "euler"):
        steps = [Step(1.0, 0.7, FULL, "corrected2"), Step(0.7, 0.3, CONDITIONAL, solver)]
        *_, end = follow(network, x_1, steps)
        assert end.x_0 is not None
        assert_close(end.x, 3 / 7 * first.x + 4 / 7 * end.x_0)


def test_solvers_of_different_order_share_their_history(model: GaussianAdapter) -> None:
    x_t, network = draw64(10, 2, 3, 4, 4), Network(model)
    steps = [
        Step(0.9, 0.8, FULL, "euler"),
        Step(0.8, 0.7, FULL, "heun"),
        Step(0.7, 0.6, FULL, "multistep3"),
    ]
    euler, half, heun, end = follow(network, x_t, steps)
    assert compile_steps(steps)[-1].older == (0.8, 0.9)
    estimates = [each.x_0 for each in (end, half, euler) if each.x_0 is not None]
    weights = move_weights("multistep3", 0.7, 0.6, (0.8, 0.9))
    assert_close(end.x, weighed(weights, heun.x, *estimates))


@pytest.mark.parametrize("solver", ["euler", "heun", "multistep2", "multistep3"])
def test_float32_follows_float64(model: GaussianAdapter, solver: Solver) -> None:
    single = GaussianAdapter(model.mean.float(), model.std.float())
    x = draw64(11, 2, 3, 4, 4)
    steps = grid(solver, *(1 - i / 200 for i in range(200)), 0.0)
    y = follow(Network(single), x.float(), steps)[-1].x
    assert y.dtype == torch.float32
    assert_close(y.double(), follow(Network(model), x, steps)[-1].x, rtol=0, atol=2e-5)
