"""The algebra of the path, against identities that hold exactly and against drawn noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import flow
from asymflow.core.errors import InputError
from tests.helpers import draw64

TIMES = (0.0, 1e-6, 0.01, 0.3, 0.5, 0.9, 0.9999, 1.0)
INNER = TIMES[1:-1]

From = Callable[[Tensor, Tensor, "float | Tensor"], Tensor]


def close(actual: Tensor, expected: Tensor, atol: float) -> None:
    assert_close(actual, expected, rtol=0, atol=atol)


def pair() -> tuple[Tensor, Tensor]:
    """x_0 and eps."""
    return draw64(1, len(TIMES), 3, 8, 8), draw64(2, len(TIMES), 3, 8, 8)


def low_rank(x: Tensor) -> Tensor:
    """An orthogonal projection on 5 directions of [3, 8, 8]."""
    basis, _ = torch.linalg.qr(draw64(3, 3 * 8 * 8, 5))
    return (x.flatten(1) @ basis @ basis.T).view_as(x)


def test_ends_of_the_path_are_exact() -> None:
    x_0, eps = pair()
    assert torch.equal(flow.interpolate(x_0, eps, 0.0), x_0)
    assert torch.equal(flow.interpolate(x_0, eps, 1.0), eps)


def test_times_per_image_are_the_same_as_one_by_one() -> None:
    x_0, eps = pair()
    together = flow.interpolate(x_0, eps, torch.tensor(TIMES, dtype=torch.float64))
    for i, t in enumerate(TIMES):
        assert torch.equal(together[i], flow.interpolate(x_0, eps, t)[i])


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_all_quantities_give_x_0_back(t: float, as_tensor: bool) -> None:
    x_0, eps = pair()
    time = torch.full((len(x_0),), t, dtype=torch.float64) if as_tensor else t
    x_t = flow.interpolate(x_0, eps, time)
    close(flow.x_0_from_velocity(x_t, eps - x_0, time), x_0, 1e-13)
    u_a = flow.asymmetric_from_x_0(x_0, eps, low_rank)
    close(flow.x_0_from_asymmetric(x_t, u_a, time, low_rank), x_0, 1e-13)
    if t < 1:
        close(flow.x_0_from_eps(x_t, eps, time), x_0, 1e-13 / (1 - t))
    if t > 0:
        close(flow.velocity_from_x_0(x_t, x_0, time), eps - x_0, 1e-13 / t)
        close(flow.eps_from_x_0(x_t, x_0, time), eps, 1e-13 / t)
        score = flow.score_from_x_0(x_t, x_0, time)
        close(score * t, -eps, 1e-13 / t)
        if t < 1:
            close(flow.x_0_from_score(x_t, score, time), x_0, 1e-13 / (1 - t))


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(
    ("convert", "t"),
    [
        (flow.x_0_from_eps, 1.0),
        (flow.x_0_from_score, 1.0),
        (flow.velocity_from_x_0, 0.0),
        (flow.eps_from_x_0, 0.0),
        (flow.score_from_x_0, 0.0),
    ],
)
def test_what_a_time_leaves_open_is_zero(convert: From, t: float, as_tensor: bool) -> None:
    x_0, eps = pair()
    time = torch.full((len(x_0),), t, dtype=torch.float64) if as_tensor else t
    assert torch.equal(convert(x_0, eps, time), torch.zeros_like(x_0))


def test_velocity_is_the_derivative_of_the_path() -> None:
    x_0, eps = pair()
    rise = flow.interpolate(x_0, eps, 0.6 + 1e-6) - flow.interpolate(x_0, eps, 0.6 - 1e-6)
    x_t = flow.interpolate(x_0, eps, 0.6)
    close(flow.velocity_from_x_0(x_t, x_0, 0.6), rise / 2e-6, 1e-8)


def test_asymmetric_velocity_is_the_velocity_inside_and_minus_x_0_outside() -> None:
    x_0, eps = pair()
    u_a = flow.asymmetric_from_x_0(x_0, eps, low_rank)
    assert_close(low_rank(u_a), low_rank(eps - x_0))
    assert_close(u_a - low_rank(u_a), -(x_0 - low_rank(x_0)))


def test_log_snr_and_its_inverse_reach_the_ends() -> None:
    t = torch.tensor(TIMES, dtype=torch.float64)
    lam = flow.log_snr(t)
    assert lam[0] == math.inf
    assert lam[-1] == -math.inf
    assert_close(lam[1:-1], torch.log((1 - t[1:-1]) / t[1:-1]))
    close(flow.time_of_log_snr(lam), t, 1e-15)


def test_vp_states_are_scaled_states_of_ours() -> None:
    x_0, eps = pair()
    angle = torch.linspace(0, math.pi / 2, len(TIMES), dtype=torch.float64)
    alpha, sigma = angle.cos(), angle.sin()
    theirs = alpha.view(-1, 1, 1, 1) * x_0 + sigma.view(-1, 1, 1, 1) * eps
    t, k = flow.from_vp(alpha, sigma)
    assert_close(k.view(-1, 1, 1, 1) * flow.interpolate(x_0, eps, t), theirs)
    assert_close(flow.to_vp(t), (alpha, sigma, k))


@pytest.mark.parametrize("t", INNER)
def test_ve_states_are_scaled_states_of_ours(t: float) -> None:
    x_0, eps = pair()
    time = torch.full((len(x_0),), t, dtype=torch.float64)
    sigma, k = flow.to_ve(time, sigma_max=1e9)
    theirs = x_0 + sigma.view(-1, 1, 1, 1) * eps
    assert_close(k.view(-1, 1, 1, 1) * flow.interpolate(x_0, eps, time), theirs)
    assert_close(flow.from_vp(torch.ones_like(sigma), sigma), (time, k))


def test_ve_near_noise_stays_at_the_largest_known_level() -> None:
    t = torch.tensor([0.0, 0.5, 80 / 81, 0.999, 1.0], dtype=torch.float64)
    sigma, k = flow.to_ve(t, sigma_max=80.0)
    assert_close(sigma, torch.tensor([0.0, 1.0, 80.0, 80.0, 80.0], dtype=torch.float64))
    assert_close(k, torch.tensor([1.0, 2.0, 81.0, 80 / 0.999, 80.0], dtype=torch.float64))


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("f", [2, 4])
def test_pooling_gives_a_state_of_the_path_with_the_pooled_draw(t: float, f: int) -> None:
    x_0, eps = pair()
    y_t, time = flow.pool(flow.interpolate(x_0, eps, t), t, f)
    ours = flow.interpolate(flow.average_pool(x_0, f), f * flow.average_pool(eps, f), time)
    close(y_t, ours, 1e-13)
    assert flow.fine_time(time, f) == pytest.approx(t, abs=1e-12)


def test_pooled_noise_has_the_level_that_its_time_says() -> None:
    eps = draw64(0, 1, 1, 1024, 1024)
    for t in (0.2, 0.7, 1.0):
        y_t, time = flow.pool(t * eps, t, 4)
        assert y_t.std().item() == pytest.approx(time, rel=0.01)
        # Four times the side: signal to noise is four times better, before and after.
        if t < 1:
            assert (1 - time) / time == pytest.approx(4 * (1 - t) / t)


def test_unpooling_with_the_same_draw_and_the_true_detail_undoes_pooling() -> None:
    x_0, eps = pair()
    t = torch.tensor(TIMES, dtype=torch.float64)
    x_t = flow.interpolate(x_0, eps, t)
    y_t, at_lower_resolution = flow.pool(x_t, t, 2)
    # Only the detail of the estimate is used, so what it has in the low pass must not matter.
    estimate = x_0 + flow.enlarge(draw64(9, *y_t.shape), 2)
    back, fine = flow.unpool(y_t, at_lower_resolution, eps, estimate, 2)
    close(back, x_t, 1e-12)
    close(fine, t, 1e-12)
    for i, time in enumerate(TIMES):
        one = slice(i, i + 1)
        y_t, at_lower_resolution = flow.pool(x_t[one], time, 2)
        back, fine = flow.unpool(y_t, at_lower_resolution, eps[one], estimate[one], 2)
        close(back, x_t[one], 1e-12)
        assert fine == pytest.approx(time, abs=1e-12)


def test_detail_and_low_pass_are_orthogonal_and_add_up() -> None:
    x = draw64(0, 2, 3, 8, 8)
    low = flow.enlarge(flow.average_pool(x, 4), 4)
    assert_close(low + flow.detail(x, 4), x)
    assert (low * flow.detail(x, 4)).sum().abs() < 1e-12
    assert_close(flow.average_pool(flow.enlarge(x, 4), 4), x)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match="6 x 8 pixels cannot be pooled by 4"):
        flow.average_pool(draw64(0, 1, 1, 6, 8), 4)


def test_weights_are_rounded_once_to_the_precision_of_the_state() -> None:
    x_0, eps = draw64(0, 1, 1, 8, 8).float(), draw64(1, 1, 1, 8, 8).float()
    t = torch.tensor([0.3], dtype=torch.float64)
    assert flow.interpolate(x_0, eps, t).dtype == torch.float32
    assert torch.equal(flow.interpolate(x_0, eps, t), flow.interpolate(x_0, eps, 0.3))
