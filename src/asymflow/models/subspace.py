"""x_0 from a rank-asymmetric velocity: full-rank data, noise in a subspace of the patches.

A patch is a vector of d pixels. With A [r, d] orthonormal rows, P = A^T A and s > 0, a network
gets k x_t at the time tau = k t and predicts v (arXiv 2605.12964, sections 3 and 4):

    k = 1 / (s (1 - t) + t)        v = P eps - x_0 / s

Inside the subspace that is the ordinary velocity of the r numbers l = A x_0 / s, since

    k A x_t = (1 - tau) l + tau (A eps),        tau = k t

so a network that was trained on l is already correct there: l = A (k x_t - tau v). In the
complement v is -x_0 / s. Together, for every t and without a division by it,

    x_0 = s (P (k x_t + (1 - tau) v) - v)

For s = 1 this is `core.flow.x_0_from_asymmetric`; with r = d it is velocity prediction, with r = 0
x_0 prediction.
"""

from __future__ import annotations

import torch
from torch import Tensor


def calibrated(t: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """k and tau [b] at times t [b]: the inputs of the network are k x_t and tau."""
    k = 1 / torch.lerp(scale.to(t), torch.ones_like(t), t)
    return k, k * t


def projected(patches: Tensor, basis: Tensor) -> Tensor:
    """P patches [..., d], for orthonormal rows `basis` [r, d]."""
    return (patches @ basis.T) @ basis


def recovered(
    x_t: Tensor, v: Tensor, t: Tensor, basis: Tensor, scale: Tensor, floor: float = 0.0
) -> Tensor:
    """x_0 [b, n, d] from patches x_t [b, n, d] at times t [b] and the output v [b, n, d].

    With a floor, divisions by t in AsymFlow's velocity are by max(t, floor). These are all terms
    but the velocity inside of the subspace:

        u = s k P v + ((1 - s k) P x_t + (1 - P) (x_t + s v)) / max(t, floor)

    For s = 1 that is v inside and (x_t + v) / max(t, floor) in the complement.
    """
    k, tau = (each[:, None, None].to(x_t) for each in calibrated(t, scale))
    scale = scale.to(x_t)
    x_0 = scale * (projected(k * x_t + (1 - tau) * v, basis) - v)
    if not floor:
        return x_0
    share = (t / floor).clamp(max=1)[:, None, None].to(x_t)
    return torch.lerp(x_t, x_0, share) - (1 - share) * scale * tau * projected(v, basis)
