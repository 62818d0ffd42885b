"""The noise levels of a variance-preserving model, and what its network predicts.

States are z = alpha x_0 + sigma eps with alpha^2 + sigma^2 = 1, at one of some thousand noise
levels that are numbered by timesteps tau. States of asymflow differ in scale
(`asymflow.core.flow.from_vp`),

    t = sigma / (alpha + sigma)        x_t = z / (alpha + sigma)

so plans, solvers and profiles apply unchanged. Between two timesteps tau is interpolated in the
log-SNR; networks embed it as a real number.

Training stops short of both ends. Plans begin at t = 1, where the linear schedule of DDPM has only
reached 0.994: there the network is evaluated at its largest trained noise, with the state scaled so
that its *noise* is what that timestep expects; the signal is weaker. Below its smallest noise the
*signal* is matched, and the noise is weaker than expected. Both are approximations outside of the
training range.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.core.flow import log_snr, time_of_log_snr, to_vp

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""What the network predicts: eps, v = alpha eps - sigma x_0, or x_0."""

_SMALLEST_SNR = 1e-12  # instead of 0, so that the logarithm can be interpolated

# x_0 from the state z, the network output, alpha and sigma.
X_0: Mapping[str, Callable[[Tensor, Tensor, Any, Any], Tensor]] = {
    "epsilon": lambda z, eps, alpha, sigma: (z - sigma * eps) / alpha,
    "v_prediction": lambda z, v, alpha, sigma: alpha * z - sigma * v,
    "sample": lambda z, x_0, alpha, sigma: x_0,
}


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The noise levels of a variance-preserving model.

    Attributes:
        log_snr: log(alpha / sigma) at timesteps 0, 1, ... [n], falling; float64, on the CPU.
    """

    log_snr: Tensor

    @classmethod
    def of(cls, alphas_cumprod: Tensor) -> Schedule:
        """From the alpha^2 [n] that schedulers of diffusers keep.

        Raises:
            InputError: they do not fall from nearly 1 to nearly 0.
        """
        try:
            squares = torch.as_tensor(alphas_cumprod).detach().cpu().double()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"alphas_cumprod is a {type(alphas_cumprod).__name__}, which holds no numbers "
                f"({error}). Pass alpha^2 at timesteps 0, 1, ... as a tensor."
            ) from error
        falling = squares.ndim == 1 and len(squares) > 0 and bool((squares.diff() <= 0).all())
        if not falling or not bool(((squares >= 0) & (squares <= 1)).all()):
            ends = f"{float(squares.view(-1)[0]):.4g} to {float(squares.view(-1)[-1]):.4g}"
            raise InputError(
                f"alphas_cumprod of shape {tuple(squares.shape)}, from {ends}, is no schedule: "
                "alpha^2 falls with the timestep, within [0, 1]. Of betas, which rise, make it by "
                "(1 - betas).cumprod(0)."
            )
        squares = squares.clamp(_SMALLEST_SNR, 1 - _SMALLEST_SNR)
        return cls(torch.logit(squares) / 2)

    @property
    def digest(self) -> str:
        """SHA-256 of the noise levels, to six decimals: diffusers computes them in float32."""
        levels = [f"{each:.6f}" for each in self.log_snr.tolist()]
        return hashlib.sha256(repr(levels).encode()).hexdigest()

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and largest trained noise, as times t."""
        low, high = time_of_log_snr(self.log_snr[[0, -1]]).tolist()
        return low, high

    def times(self, count: int) -> tuple[float, ...]:
        """`count` moves with equal steps in tau from the most trained noise, the last to 0.

        Diffusers' "trailing" grid. As candidates for a profile it is dense where a network that
        predicts eps needs it to be: near noise, where small errors in eps are large ones in x_0.

        Raises:
            InputError: there are not so many timesteps.
        """
        total = len(self.log_snr)
        if not 1 <= count <= total:
            raise InputError(
                f"{count} moves do not fit into a schedule of {total} timesteps. "
                f"Choose 1 to {total}."
            )
        tau = np.array([total * (1 - i / count) - 1 for i in range(count)])
        lam = np.interp(tau, np.arange(total), self.log_snr.numpy())
        return (*time_of_log_snr(torch.from_numpy(lam)).tolist(), 0.0)

    def time(self, tau: Tensor) -> Tensor:
        """t [b] at timesteps tau [b], which may lie between whole ones."""
        lam = np.interp(
            tau.cpu().double().numpy(), np.arange(len(self.log_snr)), self.log_snr.numpy()
        )
        return time_of_log_snr(torch.from_numpy(np.atleast_1d(lam)))

    def timestep(self, t: Tensor) -> Tensor:
        """tau [b] at times t [b], a real number from 0 to n - 1."""
        if len(self.log_snr) == 1:
            return torch.zeros_like(t, dtype=torch.float64)
        rising = self.log_snr.flip(0)
        lam = log_snr(t.double()).clamp(rising[0], rising[-1])
        above = torch.searchsorted(rising, lam).clamp(1, len(rising) - 1)
        low, high = rising[above - 1], rising[above]
        return len(rising) - above - (lam - low) / (high - low)

    def beginning(self, t: float) -> float:
        """The factor of the noise draw eps in the initial state at time t.

        Pipelines begin with z = eps at any timestep, instead of sigma eps.
        """
        return 1 / float(self.scaled(torch.tensor([t], dtype=torch.float64))[2])

    def scaled(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(alpha, sigma, k) [b] of the network's input k x_t at times t [b].

        Outside of the trained noise range, alpha and sigma are those of the limit.
        """
        t = t.double()
        alpha, sigma, _ = to_vp(t.clamp(*self.limits))
        # Inside the limits the two are equal. Outside, the stronger component is matched.
        return alpha, sigma, torch.minimum(alpha / (1 - t), sigma / t)
