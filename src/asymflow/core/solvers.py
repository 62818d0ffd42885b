"""Moves from time t to s < t, given estimates D of x_0.

Along the path dx/dt = (x - D)/t, so d(x/t)/dt = -D/t^2 and, without approximation,

    x_s = (s/t) x_t + s * integral from s to t of D(tau) / tau^2 dtau

The linear part is exact; a solver only approximates how D changes. Constant D is Euler's method
(DDIM). `multistepN` puts a polynomial in tau^2 through the N newest estimates, an exponential
Adams-Bashforth method of order N. Why tau^2: trajectories depend smoothly on the variance of the
noise, so D reaches t = 0 without a slope in tau; elsewhere tau^2 is as good as tau. The weights are
rational in the times, free of cancellation, and finite from t = 1 to s = 0.

`damped2` follows the line of `multistep2` only in part,

    1 / (1 + 2 r h) of it,   r = t (t - s) / (p^2 - t^2),   h = log t/(1-t) - log s/(1-s)

where h is the length of the move in log-SNR, and r the amount of extrapolation: the weight of the
older estimate, made at p, is -r times that of Euler's whole move. Short moves keep their order;
long ones, and all that extrapolate far from two estimates close to each other, fall back to
Euler's, the one into t = 0 entirely. The reason: estimates differ by more than the slope of D. An
error of the previous move disturbs the next estimates, and a line takes the disturbance for a
slope.

`corrected2` uses lines in tau^4, which put more of the slope where there is more noise. It also
repeats each move once the estimate at its end is known, with the line through that and the one at
its beginning: an Adams-Moulton corrector. It costs no network call, since the estimate is needed
for the next move anyway (the idea of UniPC, arXiv 2302.04867).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from asymflow.core.adapter import Denoiser
from asymflow.core.flow import Time, per_image
from asymflow.core.types import Step, Tier


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """An estimate of x_0 [b, c, h, w] at time t, and the tier that made it.

    `x_t` [b, c, h, w] is the state at t that the next move started from, which a corrector needs to
    repeat that move; without it there is no correction.
    """

    t: Time
    x_0: Tensor
    tier: Tier
    x_t: Tensor | None = None


History = tuple[Estimate, ...]
"""The newest estimates of one tier, or of full and carried ones, newest first."""

ORDERS = {
    "euler": 1,
    "heun": 1,
    "multistep1": 1,
    "multistep2": 2,
    "multistep3": 3,
    "damped2": 2,
    "corrected2": 2,
}
"""Number of estimates that a solver uses, the newest included."""


def advance(
    denoiser: Denoiser, x_t: Tensor, step: Step, history: History
) -> tuple[Tensor, History]:
    """One move of a batch: x_s and the history with the estimate at t in front.

    Estimates of another tier are dropped: two tiers differ by a bias, and a polynomial through
    both would take that for the slope of D. Full and carried estimates have no bias and share a
    history.
    """
    x_0 = _ask(denoiser, x_t, step.t)
    older = tuple(e for e in history if _agree(e.tier, step.tier))
    before = older[0] if older and step.solver == "corrected2" else None
    if before is not None and before.x_t is not None:
        x_t = line(before.x_t, before, Estimate(step.t, x_0, step.tier), step.t)
    estimate = Estimate(step.t, x_0, step.tier, x_t)
    history = (estimate, *older[: max(ORDERS.values()) - 1])
    if before is not None:
        x_s = line(x_t, estimate, before, step.s)
    elif older and step.solver == "damped2":
        x_s = _combine(x_t, step.s, history[:2], damped_weights(step.t, step.s, float(older[0].t)))
    else:
        x_s = multistep(x_t, step.s, history[: ORDERS[step.solver]])
    if step.evaluations == 2:
        x_s = heun(x_t, estimate.x_0, x_s, _ask(denoiser, x_s, step.s), step.t, step.s)
    return x_s, history


def multistep(x_t: Tensor, s: Time, estimates: Sequence[Estimate]) -> Tensor:
    """x_s from x_t at t = estimates[0].t, of the order of the number of estimates (1 to 3)."""
    weights = multistep_weights(estimates[0].t, s, [e.t for e in estimates[1:]])
    return _combine(x_t, s, estimates, weights)


def _combine(
    x_t: Tensor, s: Time, estimates: Sequence[Estimate], weights: Sequence[Time]
) -> Tensor:
    x_s = per_image(s / estimates[0].t, x_t) * x_t
    for weight, estimate in zip(weights, estimates, strict=True):
        x_s = x_s + per_image(weight, x_t) * estimate.x_0
    return x_s


def line(x_t: Tensor, begin: Estimate, other: Estimate, s: float) -> Tensor:
    """x_s from x_t at t = begin.t, with D a line in tau^4 through both estimates.

    `other` is an earlier estimate for a prediction, or the one at s for a correction.
    """
    t = begin.t
    m_0 = (t - s) / t
    # s * integral from s to t of (tau^4 - t^4) / tau^2 dtau
    m_1 = -((t - s) ** 2) * (s * s + 2 * t * s + 3 * t * t) / 3
    weight = m_1 / ((other.t - t) * (other.t + t) * (other.t**2 + t**2))
    x_s = per_image(s / t, x_t) * x_t + per_image(m_0 - weight, x_t) * begin.x_0
    return x_s + per_image(weight, x_t) * other.x_0


def heun(x_t: Tensor, at_t: Tensor, x_s: Tensor, at_s: Tensor, t: Time, s: Time) -> Tensor:
    """Heun's correction of an Euler prediction, with the mean of the velocities at both ends.

    Args:
        x_t: the state at t.
        at_t: the estimate of x_0 there.
        x_s: what Euler's method predicts at s > 0.
        at_s: the estimate of x_0 there.
    """
    velocities = (x_t - at_t) / per_image(t, x_t) + (x_s - at_s) / per_image(s, x_t)
    return x_t + per_image(0.5 * (s - t), x_t) * velocities


def multistep_weights(t: Time, s: Time, earlier: Sequence[Time]) -> tuple[Time, ...]:
    """Weights w with x_s = (s/t) x_t + sum of w_k D_k.

    They integrate polynomials in tau^2 exactly, up to a degree of their number minus one:

        sum over k of w_k (t_k^2 - t^2)^j = m_j = s * integral from s to t of
                                                  (tau^2 - t^2)^j / tau^2 dtau

    Args:
        t: where the move begins and the newest estimate was made.
        s: where it ends.
        earlier: times of up to two older estimates, the newer one first.
    """
    m_0 = (t - s) / t
    if not earlier:
        return (m_0,)
    m_1 = -((t - s) ** 2)
    a, *others = ((time - t) * (time + t) for time in earlier)
    if not others:
        return m_0 - m_1 / a, m_1 / a
    m_2 = (t - s) ** 3 * (3 * t + s) / 3
    b = others[0]
    w_1 = (m_1 * b - m_2) / (a * (b - a))
    w_2 = (m_2 - m_1 * a) / (b * (b - a))
    return m_0 - w_1 - w_2, w_1, w_2


def damped_weights(t: float, s: float, p: float) -> tuple[float, float]:
    """Weights (w, v) with x_s = (s/t) x_t + w D_t + v D_p of `damped2`; p > t > s."""
    m_0 = (t - s) / t
    if s == 0:
        return m_0, 0.0
    overshoot = t * (t - s) / ((p - t) * (p + t))
    length = math.log(t * (1 - s) / (s * (1 - t)))
    v = -m_0 * overshoot / (1 + 2 * overshoot * length)
    return m_0 - v, v


def _agree(one: Tier, other: Tier) -> bool:
    return one == other or (one.unreduced and other.unreduced)


def _ask(denoiser: Denoiser, x_t: Tensor, t: float) -> Tensor:
    return denoiser(x_t, x_t.new_full((len(x_t),), t))
