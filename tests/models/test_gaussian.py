"""The normal model against integrals, its differential equation, and drawn pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core.adapter import Adapter
from asymflow.core.errors import InputError
from asymflow.core.flow import average_pool
from asymflow.core.types import Request
from asymflow.models.gaussian import GaussianAdapter
from tests.helpers import draw64

LABELS = torch.tensor([0, 1])


def model() -> GaussianAdapter:
    return GaussianAdapter(0.5 * draw64(0, 2, 1, 4, 4), 0.2 + draw64(1, 2, 1, 4, 4).abs())


def shared_mean() -> GaussianAdapter:
    return GaussianAdapter(model().mean[:1].expand(2, -1, -1, -1), model().std)


def test_it_is_an_adapter() -> None:
    assert isinstance(model(), Adapter)


@pytest.mark.parametrize("t", [0.05, 0.4, 0.8, 0.99])
def test_estimates_are_posterior_means(t: float) -> None:
    """By summing over x_0 on a fine grid, pixel by pixel."""
    this, x_t = model(), draw64(2, 2, 1, 4, 4)
    x_0 = torch.linspace(-50, 50, 40001, dtype=torch.float64).view(-1, 1, 1, 1, 1)
    prior = -((x_0 - this.mean) ** 2) / (2 * this.std**2)
    weights = torch.softmax(prior - (x_t - (1 - t) * x_0) ** 2 / (2 * t**2), 0)
    estimate = this.denoise(x_t, torch.full((2,), t, dtype=torch.float64), {"label": LABELS})
    assert_close(estimate, (weights * x_0).sum(0), rtol=0, atol=1e-9)


def test_estimates_at_the_ends() -> None:
    this, x_t = model(), draw64(2, 2, 1, 4, 4)
    assert_close(this.denoise(x_t, torch.zeros(2, dtype=torch.float64), {"label": LABELS}), x_t)
    assert_close(
        this.denoise(x_t, torch.ones(2, dtype=torch.float64), {"label": LABELS}), this.mean
    )


@pytest.mark.parametrize("t", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("scale", [1.0, 0.0, 3.0])
def test_solutions_solve_the_differential_equation(t: float, scale: float) -> None:
    this, x_1, h = shared_mean(), draw64(3, 2, 1, 4, 4), 1e-5
    null = torch.zeros_like(LABELS)

    def solution(s: float) -> Tensor:
        return this.guided_solution(x_1, 1.0, s, LABELS, scale)

    x_t, time = solution(t), torch.full((2,), t, dtype=torch.float64)
    d_cond = this.denoise(x_t, time, {"label": LABELS})
    d_null = this.denoise(x_t, time, {"label": null})
    u = (x_t - (d_null + scale * (d_cond - d_null))) / t
    assert_close((solution(t + h) - solution(t - h)) / (2 * h), u, rtol=1e-7, atol=1e-8)
    assert_close(solution(1.0), x_1)
    if scale == 1:
        assert_close(this.solution(x_1, 1.0, t, LABELS), x_t)


def test_solutions_carry_noise_to_the_data() -> None:
    this = model()
    x_1 = draw64(4, 20000, 1, 4, 4)
    x_0 = this.solution(x_1, 1.0, 0.0, torch.ones(20000, dtype=torch.long))
    assert_close(x_0, this.mean[1] + this.std[1] * x_1)


def test_solutions_take_times_per_image() -> None:
    this, x_t = model(), draw64(5, 2, 1, 4, 4)
    s = torch.tensor([0.2, 0.6], dtype=torch.float64)
    together = this.solution(x_t, torch.tensor([0.7, 0.9], dtype=torch.float64), s, LABELS)
    for i, (t, end) in enumerate(((0.7, 0.2), (0.9, 0.6))):
        one = slice(i, i + 1)
        assert_close(together[one], this.solution(x_t[one], t, end, LABELS[one]))


def test_smaller_pictures_are_the_pooled_ones() -> None:
    this = model()
    small = GaussianAdapter(average_pool(this.mean, 2), average_pool(this.std**2, 2).sqrt() / 2)
    x_t, t = draw64(6, 2, 1, 2, 2), torch.tensor([0.3, 0.7], dtype=torch.float64)
    assert_close(this.denoise(x_t, t, {"label": LABELS}), small.denoise(x_t, t, {"label": LABELS}))
    pictures = average_pool(this.mean[1] + this.std[1] * draw64(7, 50000, 1, 4, 4), 2)
    assert_close(pictures.mean(0), small.mean[1], rtol=0, atol=0.02)
    assert_close(pictures.std(0), small.std[1], rtol=0.02, atol=0)


def test_pictures_and_states_are_inverse() -> None:
    this = model()
    picture = np.random.default_rng(0).random((4, 4, 1), dtype=np.float32)
    state = this.to_state(picture)
    assert state.shape == (1, 4, 4)
    assert state.dtype == torch.float64
    assert state[0, 1, 2].item() == pytest.approx(2 * float(picture[1, 2, 0]) - 1)
    np.testing.assert_allclose(this.to_picture(state), picture, atol=1e-7)
    assert this.to_picture(3 * torch.ones(1, 4, 4)).max() == 1


def test_contexts_and_properties() -> None:
    this = model()
    cond, null = this.encode([Request({"label": 1}, (4, 4)), Request({}, (4, 4))])
    assert cond["label"].tolist() == [1, 0]
    assert null["label"].tolist() == [0, 0]
    assert (this.channels, this.template.dtype, this.batch) == (1, torch.float64, None)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Request({"label": 2}, (4, 4)), "Unknown label 2"),
        (Request({"label": "dog"}, (4, 4)), "'dog'"),
        (Request({}, (3, 4)), r"\(3, 4\)"),
        (Request({}, (4, 2)), r"\(4, 2\)"),
        (Request({}, (8, 8)), r"\(8, 8\)"),
        (Request({}, (-4, -4)), r"\(-4, -4\)"),
    ],
)
def test_refusals(wanted: Request, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model().check(wanted)


def test_every_whole_fraction_is_served() -> None:
    for side in (1, 2, 4):
        model().check(Request({"label": 1}, (side, side)))


def test_a_library_computes_the_same_estimates() -> None:
    noise = pytest.importorskip("azula.noise")
    denoise = pytest.importorskip("azula.denoise")
    linalg = pytest.importorskip("azula.linalg.covariance")
    this, x_t = model(), draw64(8, 2, 1, 4, 4)
    schedule = noise.RectifiedSchedule(alpha_min=0.0, sigma_min=0.0)
    for label in (0, 1):
        variance = this.std[label] ** 2
        theirs = denoise.GaussianDenoiser(
            this.mean[label], linalg.DiagonalCovariance(variance), schedule
        )
        for t in (0.1, 0.5, 0.9):
            time = torch.full((2,), t, dtype=torch.float64)
            expected = theirs(x_t, torch.tensor(t, dtype=torch.float64)).mean
            labels = torch.full((2,), label)
            assert_close(this.denoise(x_t, time, {"label": labels}), expected)
    assert math.isclose(float(schedule(torch.tensor(0.3))[0]), 0.7, rel_tol=1e-6)
