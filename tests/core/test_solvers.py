"""Moves, against closed-form integrals and trajectories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from asymflow.core.flow import velocity_from_x_0
from asymflow.core.solvers import (
    Estimate,
    History,
    advance,
    heun,
    line,
    multistep,
    multistep_weights,
)
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


def roll(
    model: GaussianAdapter, solver: Solver, start: float, end: float, n: int, *, exact: bool
) -> float:
    """Error of n equal steps; with `exact`, history from before the start is the solution's."""
    network, h = Network(model), (start - end) / n
    x_1 = draw64(1, 2, 3, 4, 4)
    history: History = ()
    for t in (start + 2 * h, start + h) if exact else ():
        x_0 = network(model.solution(x_1, 1.0, t, ONE), torch.tensor([t, t], dtype=torch.float64))
        history = (Estimate(t, x_0, FULL), *history)
    x_t = model.solution(x_1, 1.0, start, ONE)
    times = [start + (end - start) * i / n for i in range(n + 1)]
    for t, s in pairwise(times):
        x_t, history = advance(network, x_t, Step(t, s, FULL, solver), history)
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
    estimates = [Estimate(t, x_0, FULL) for t in (0.4, 0.7, 1.0)[:count]]
    for s in (0.0, 1e-9, 0.2, 0.399999):
        x_s = multistep(0.6 * x_0 + 0.4 * eps, s, estimates)
        assert_close(x_s, (1 - s) * x_0 + s * eps, rtol=0, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_times_per_image_are_the_same_as_one_by_one(count: int) -> None:
    t = torch.tensor([0.4, 0.9], dtype=torch.float64)
    s = torch.tensor([0.0, 0.5], dtype=torch.float64)
    x_t = draw64(4, 2, 1, 4, 4)
    x_0 = [draw64(5 + k, 2, 1, 4, 4) for k in range(count)]
    together = multistep(x_t, s, [Estimate(t + 0.05 * k, x_0[k], FULL) for k in range(count)])
    for i in range(2):
        one = slice(i, i + 1)
        estimates = [Estimate(float(t[i] + 0.05 * k), x_0[k][one], FULL) for k in range(count)]
        assert_close(together[one], multistep(x_t[one], float(s[i]), estimates))


def test_euler_is_a_step_along_the_velocity(model: GaussianAdapter) -> None:
    x_t, network = draw64(6, 2, 3, 4, 4), Network(model)
    x_s, history = advance(network, x_t, Step(0.7, 0.4, FULL, "euler"), ())
    u = velocity_from_x_0(x_t, history[0].x_0, 0.7)
    assert_close(x_s, x_t - 0.3 * u)


def test_heun_averages_the_velocities_at_both_ends(model: GaussianAdapter) -> None:
    x_t, network = draw64(7, 2, 3, 4, 4), Network(model)
    x_s, history = advance(network, x_t, Step(0.7, 0.4, FULL, "heun"), ())
    assert network.times == pytest.approx([0.7, 0.4])
    u = velocity_from_x_0(x_t, history[0].x_0, 0.7)
    predicted = x_t - 0.3 * u
    at_s = model.denoise(predicted, torch.tensor([0.4, 0.4], dtype=torch.float64), {"label": ONE})
    v = velocity_from_x_0(predicted, at_s, 0.4)
    assert_close(x_s, x_t - 0.15 * (u + v))
    assert_close(heun(x_t, history[0].x_0, predicted, at_s, 0.7, 0.4), x_s)


def test_heun_into_data_is_one_euler_step(model: GaussianAdapter) -> None:
    x_t, network = draw64(8, 2, 3, 4, 4), Network(model)
    step = Step(0.3, 0.0, FULL, "heun")
    x_s, history = advance(network, x_t, step, ())
    assert len(network.times) == step.evaluations == 1
    assert torch.equal(x_s, history[0].x_0)


def test_history_is_newest_first_bounded_and_of_one_tier(model: GaussianAdapter) -> None:
    x_t, network = draw64(9, 2, 3, 4, 4), Network(model)
    history: History = ()
    for t in (1.0, 0.9, 0.8, 0.7):
        x_t, history = advance(network, x_t, Step(t, t - 0.1, FULL, "multistep3"), history)
    assert [e.t for e in history] == [0.7, 0.8, 0.9]
    # A tier that answers differently is no point of the same curve.
    step = Step(0.6, 0.5, CONDITIONAL, "multistep3")
    x_s, after = advance(network, x_t, step, history)
    assert [e.t for e in after] == [0.6]
    euler, _ = advance(network, x_t, Step(0.6, 0.5, CONDITIONAL, "euler"), ())
    assert torch.equal(x_s, euler)


@pytest.mark.parametrize(("t", "other", "s"), [(0.6, 0.9, 0.2), (0.6, 0.9, 0.0), (0.6, 0.2, 0.2)])
def test_a_line_is_exact_for_the_fourth_power(t: float, other: float, s: float) -> None:
    """D = 2 + 3 tau^4: s * integral of D / tau^2 is 2 (1 - s/t) + s (t^3 - s^3)."""
    x_t = draw64(12, 1, 1, 2, 2)
    ends = [Estimate(time, torch.full_like(x_t, 2 + 3 * time**4), FULL) for time in (t, other)]
    exact = s / t * x_t + 2 * (1 - s / t) + s * (t**3 - s**3)
    assert_close(line(x_t, ends[0], ends[1], s), exact)


def test_a_corrected_move_is_made_again_with_what_was_found_at_its_end(
    model: GaussianAdapter,
) -> None:
    x_1, network = draw64(13, 2, 3, 4, 4), Network(model)
    x_t, history = advance(network, x_1, Step(1.0, 0.7, FULL, "corrected2"), ())
    x_s, after = advance(network, x_t, Step(0.7, 0.3, FULL, "corrected2"), history)
    assert network.times == [1.0, 0.7]  # nothing is asked twice
    corrected = line(x_1, history[0], after[0], 0.7)
    assert after[0].x_t is not None
    assert_close(after[0].x_t, corrected)
    assert_close(x_s, line(corrected, after[0], history[0], 0.3))
    # Another tier ends where it ends.
    y_s, _ = advance(network, x_t, Step(0.7, 0.3, CONDITIONAL, "corrected2"), history)
    euler, _ = advance(network, x_t, Step(0.7, 0.3, CONDITIONAL, "euler"), ())
    assert_close(y_s, euler)


def test_solvers_of_different_order_share_their_history(model: GaussianAdapter) -> None:
    x_t, network = draw64(10, 2, 3, 4, 4), Network(model)
    x_t, history = advance(network, x_t, Step(0.9, 0.8, FULL, "euler"), ())
    x_t, history = advance(network, x_t, Step(0.8, 0.7, FULL, "heun"), history)
    x_s, history = advance(network, x_t, Step(0.7, 0.6, FULL, "multistep3"), history)
    assert [e.t for e in history] == [0.7, 0.8, 0.9]
    assert_close(x_s, multistep(x_t, 0.6, history))


@pytest.mark.parametrize("solver", ["euler", "heun", "multistep2", "multistep3"])
def test_float32_follows_float64(model: GaussianAdapter, solver: Solver) -> None:
    single = GaussianAdapter(model.mean.float(), model.std.float())
    x, y = draw64(11, 2, 3, 4, 4), draw64(11, 2, 3, 4, 4).float()
    history: History = ()
    single_history: History = ()
    for i in range(200):
        step = Step(1 - i / 200, 1 - (i + 1) / 200, FULL, solver)
        x, history = advance(Network(model), x, step, history)
        y, single_history = advance(Network(single), y, step, single_history)
    assert y.dtype == torch.float32
    assert_close(y.double(), x, rtol=0, atol=2e-5)
