"""The algebra of one linear path between data and noise.

    x_t = (1 - t) x_0 + t eps        t = 1 is noise, t = 0 is data
    u   = dx_t/dt = eps - x_0        velocity
    score = -eps / t                 gradient of log p_t(x_t)

States are [b, c, h, w]; a time is a float or a tensor [b]. x_0 is the hub: all conversions go to
it or come from it. Where the result is undetermined (eps given x_0 at t = 0, x_0 given eps at
t = 1) it is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from asymflow.core.errors import InputError

Time = float | Tensor
T = TypeVar("T", float, Tensor)

Projector = Callable[[Tensor], Tensor]
"""An orthogonal projection of states [b, c, h, w], each item of the batch by itself."""


def per_image(weight: Time, x: Tensor) -> Time:
    """A weight shaped to multiply x [b, c, h, w]: [b] becomes [b, 1, 1, 1] in the dtype of x.

    Weights are computed in the precision of the time, and rounded once, here.
    """
    return weight.to(x).view(-1, 1, 1, 1) if isinstance(weight, Tensor) else weight


def interpolate(x_0: Tensor, eps: Tensor, t: Time) -> Tensor:
    """x_t = (1 - t) x_0 + t eps."""
    return per_image(1 - t, x_0) * x_0 + per_image(t, eps) * eps


# Equivalent parameterisations of one state.


def x_0_from_velocity(x_t: Tensor, u: Tensor, t: Time) -> Tensor:
    """x_0 = x_t - t u."""
    return x_t - per_image(t, x_t) * u


def x_0_from_eps(x_t: Tensor, eps: Tensor, t: Time) -> Tensor:
    """x_0 = (x_t - t eps) / (1 - t); 0 at t = 1."""
    return _over(x_t - per_image(t, x_t) * eps, 1 - t)


def x_0_from_score(x_t: Tensor, score: Tensor, t: Time) -> Tensor:
    """x_0 = (x_t + t^2 score) / (1 - t), Tweedie's formula; 0 at t = 1."""
    return _over(x_t + per_image(t * t, x_t) * score, 1 - t)


def x_0_from_asymmetric(x_t: Tensor, u: Tensor, t: Time, project: Projector) -> Tensor:
    """x_0 from a rank-asymmetric velocity u = P eps - x_0 (arXiv 2605.12964).

    Inside the subspace u is the velocity, so P x_0 = P (x_t - t u); outside it u is -x_0. Together

        x_0 = P (x_t + (1 - t) u) - u
    """
    return project(x_t + per_image(1 - t, x_t) * u) - u


def velocity_from_x_0(x_t: Tensor, x_0: Tensor, t: Time) -> Tensor:
    """u = (x_t - x_0) / t; 0 at t = 0."""
    return _over(x_t - x_0, t)


def eps_from_x_0(x_t: Tensor, x_0: Tensor, t: Time) -> Tensor:
    """eps = (x_t - (1 - t) x_0) / t; 0 at t = 0."""
    return _over(x_t - per_image(1 - t, x_t) * x_0, t)


def score_from_x_0(x_t: Tensor, x_0: Tensor, t: Time) -> Tensor:
    """score = ((1 - t) x_0 - x_t) / t^2; 0 at t = 0."""
    return _over(per_image(1 - t, x_t) * x_0 - x_t, t * t)


def asymmetric_from_x_0(x_0: Tensor, eps: Tensor, project: Projector) -> Tensor:
    """u = P eps - x_0, what a rank-asymmetric network predicts: full-rank data, low-rank noise."""
    return project(eps) - x_0


# Other conventions. Each function gives the time t of a state, and k with x_theirs = k x_t.


def log_snr(t: Tensor) -> Tensor:
    """lam = log((1 - t) / t), half the log-SNR; +-inf at the ends."""
    return -torch.logit(t)


def time_of_log_snr(lam: Tensor) -> Tensor:
    """t = 1 / (1 + e^lam)."""
    return torch.sigmoid(-lam)


def from_vp(alpha: T, sigma: T) -> tuple[T, T]:
    """(t, k) of alpha x_0 + sigma eps = k x_t, for any alpha and sigma; alpha = 1 is VE."""
    k = alpha + sigma
    return sigma / k, k


def to_vp(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(alpha, sigma, k) with alpha^2 + sigma^2 = 1 and alpha x_0 + sigma eps = k x_t."""
    k = 1 / torch.hypot(1 - t, t)
    return (1 - t) * k, t * k, k


def to_ve(t: Tensor, sigma_max: float) -> tuple[Tensor, Tensor]:
    """(sigma, k) with x_0 + sigma eps = k x_t, for models trained with noise up to `sigma_max`.

    sigma = t / (1 - t) and k = 1 + sigma grow without bound near t = 1. Above sigma_max the state
    is scaled so that its noise has that level; its signal is then weaker than the model expects.
    """
    k = torch.minimum(1 / (1 - t), sigma_max / t)
    return t * k, k


# Resolution. Mean-pooling by f leaves noise of standard deviation 1/f.


def coarse_time(t: T, f: float) -> T:
    """The time t' = t / (t + f (1 - t)) that a state of time t has after pooling by f."""
    return t / (t + f * (1 - t))


def fine_time(t: T, f: float) -> T:
    """The inverse: the time f t' / (f t' + 1 - t') of a state whose pooled form has time t'."""
    return f * t / (f * t + (1 - t))


def average_pool(x: Tensor, f: int) -> Tensor:
    """The mean of every f x f block, [b, c, h/f, w/f]."""
    if x.shape[-2] % f or x.shape[-1] % f:
        raise InputError(
            f"{x.shape[-2]} x {x.shape[-1]} pixels cannot be pooled by {f}. "
            f"Choose a height and width divisible by {f}."
        )
    return functional.avg_pool2d(x, f)


def enlarge(x: Tensor, f: int) -> Tensor:
    """Every pixel as an f x f block, [b, c, h f, w f]. `average_pool` undoes it."""
    return x.repeat_interleave(f, -2).repeat_interleave(f, -1)


def smooth(x: Tensor, f: int) -> Tensor:
    """Enlarged by f without edges between pixels: bilinear, and `average_pool` still undoes it."""
    soft = functional.interpolate(x, scale_factor=f, mode="bilinear", align_corners=False)
    return enlarge(x, f) + detail(soft, f)


def detail(x: Tensor, f: int) -> Tensor:
    """What pooling by f loses: x - enlarge(average_pool(x)), orthogonal to what it keeps."""
    return x - enlarge(average_pool(x, f), f)


def pool(x_t: Tensor, t: T, f: int) -> tuple[Tensor, T]:
    """The SNR-matched state of 1/f the side: (k y, t') with y = average_pool(x_t).

        y = (1 - t) average_pool(x_0) + (t / f) eps',   eps' = f average_pool(eps) ~ N(0, 1)

    is not a state of our path until it is multiplied by k = 1 / ((1 - t) + t / f); its time is then
    t' = `coarse_time(t, f)`. For a network it is an ordinary state of that size.
    """
    return per_image(_pool_scale(t, f), x_t) * average_pool(x_t, f), coarse_time(t, f)


def unpool(y_t: Tensor, t: T, eps: Tensor, x_0: Tensor, f: int) -> tuple[Tensor, T]:
    """Back to f times the side with the noise draw of the start: the inverse of `pool`.

        x = enlarge(y_t / k) + t (detail of eps) + (1 - t) (detail of x_0)

    Args:
        y_t: [b, c, h/f, w/f], at time t.
        eps: [b, c, h, w], the draw whose pooled form is the noise in y_t.
        x_0: [b, c, h, w], an estimate such as a smooth enlargement; only its detail is used.

    Returns:
        The state [b, c, h, w] and its time, `fine_time(t, f)`.
    """
    fine = fine_time(t, f)
    details = interpolate(detail(x_0, f), detail(eps, f), fine)
    return enlarge(y_t / per_image(_pool_scale(fine, f), y_t), f) + details, fine


def _pool_scale(t: T, f: int) -> T:
    return 1 / ((1 - t) + t / f)


def _over(x: Tensor, divisor: Time) -> Tensor:
    """x / divisor, 0 where the divisor is 0."""
    if isinstance(divisor, Tensor):
        return x * per_image(torch.where(divisor == 0, 0.0, 1 / divisor), x)
    return x / divisor if divisor else torch.zeros_like(x)
