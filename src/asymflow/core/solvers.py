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

import torch
from torch import Tensor

from asymflow.core.flow import Time
from asymflow.core.types import Solver

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

Weights = tuple[Time, ...]
"""(a, w_0, w_1, ...) of x_s = a x + sum of w_k D_k."""


def move_weights(solver: Solver, t: Time, s: Time, older: Sequence[Time]) -> Weights:
    """Weights of the move from t to s with the estimate at t and older ones, newest first.

    Args:
        solver: for `heun`, these are the weights of its first half, Euler's.
        t: where the move begins and the newest estimate was made.
        s: where it ends.
        older: times of the estimates before; those that the solver does not use are ignored.
    """
    used = older[: ORDERS[solver] - 1]
    if used and solver == "corrected2":
        return line_weights(t, s, used[0])
    if used and solver == "damped2":
        return s / t, *damped_weights(t, s, used[0])
    return s / t, *multistep_weights(t, s, used)


def continued_weights(
    solver: Solver, made: Time, t: Time, s: Time, older: Sequence[Time]
) -> Weights:
    """Weights of a move from t to s that asks nothing, with the estimate made at `made` > t.

    It leads from where the solver's move from `made` would be at t to where it would be at s.

    Args:
        solver: not `heun`.
        made: where the newest estimate was made.
        t: where the move begins.
        s: where it ends.
        older: times of the estimates before the newest, newest first.
    """
    _, *before = move_weights(solver, made, t, older)
    _, *after = move_weights(solver, made, s, older)
    rest = s / t
    return rest, *(w - rest * v for w, v in zip(after, before, strict=True))


def line_weights(t: Time, s: Time, other: Time) -> tuple[Time, Time, Time]:
    """(a, w, v) with x_s = a x_t + w D_t + v D_other, D a line in tau^4 through both estimates.

    `other` is an earlier time for a prediction, and s for a correction.
    """
    m_0 = (t - s) / t
    # s * integral from s to t of (tau^4 - t^4) / tau^2 dtau
    m_1 = -((t - s) ** 2) * (s * s + 2 * t * s + 3 * t * t) / 3
    weight = m_1 / ((other - t) * (other + t) * (other**2 + t**2))
    return s / t, m_0 - weight, weight


def heun_weights(t: Time, s: Time) -> tuple[Time, Time, Time]:
    """(a, w, v) with x_s = a x_t + w D_s + v D_t: the mean of the velocities at both ends.

    D_s is the estimate at the end s > 0 of Euler's move.
    """
    return s / t, (t - s) / (2 * s), -(t - s) * (t - 2 * s) / (2 * s * t)


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


def damped_weights(t: Time, s: Time, p: Time) -> tuple[Time, Time]:
    """Weights (w, v) with x_s = (s/t) x_t + w D_t + v D_p of `damped2`; p > t > s."""
    m_0 = (t - s) / t
    if s == 0:
        return m_0, 0.0
    overshoot = t * (t - s) / ((p - t) * (p + t))
    length = _log(t * (1 - s) / (s * (1 - t)))
    v = -m_0 * overshoot / (1 + 2 * overshoot * length)
    return m_0 - v, v


def _log(value: Time) -> Time:
    return torch.log(value) if isinstance(value, Tensor) else math.log(value)
