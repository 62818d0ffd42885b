"""The preconditioning of EDM's networks (arXiv 2206.00364, table 1): from F to the denoiser D.

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)

    EDM     c_skip = s^2 / (sigma^2 + s^2), s the deviation of the data; c_noise = log(sigma) / 4
    VP      F predicts -eps at the timestep of DDPM's linear schedule
    VE      F predicts -eps / sigma of the state as it is; c_noise = log(sigma / 2)
    iDDPM   as VP, at one of M levels of a cosine schedule, which are a table; F has a variance, too

Attributes have the names of the official code, since files say them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from asymflow.core.checks import number, positive
from asymflow.core.errors import InputError
from asymflow.models.edm.networks import DhariwalConfig, DhariwalUNet, SongConfig, SongUNet


class Preconditioning(Protocol):
    """How a network is asked, and its output read."""

    def coefficients(self, sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float]:
        """(c_skip, c_out, c_in) at noise levels sigma [b, 1, 1, 1]."""
        ...

    def label(self, sigma: Tensor, levels: Tensor | None) -> Tensor:
        """c_noise at noise levels sigma; `levels` is the table of a model that has one."""
        ...

    def limits(self, levels: Tensor | None) -> tuple[float, float]:
        """Smallest and largest noise level; 0 and inf without a limit."""
        ...


@dataclass(frozen=True, slots=True)
class EDMPrecond:
    """EDM's own.

    Attributes:
        sigma_data: standard deviation of the data.
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.0
    sigma_max: float = math.inf

    def coefficients(self, sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float]:
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt(), total.rsqrt()

    def label(self, sigma: Tensor, levels: Tensor | None) -> Tensor:
        return sigma.log() / 4

    def limits(self, levels: Tensor | None) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max


@dataclass(frozen=True, slots=True)
class VPPrecond:
    """That of models which keep the variance, in continuous time.

    Attributes:
        beta_d, beta_min: slope and start of the noise schedule.
        M: timesteps that c_noise counts.
        epsilon_t: smallest time of training.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    M: int = 1000
    epsilon_t: float = 1e-5

    def coefficients(self, sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float]:
        return 1.0, -sigma, (sigma**2 + 1).rsqrt()

    def label(self, sigma: Tensor, levels: Tensor | None) -> Tensor:
        root = (self.beta_min**2 + 2 * self.beta_d * (1 + sigma**2).log()).sqrt()
        return (self.M - 1) * (root - self.beta_min) / self.beta_d

    def limits(self, levels: Tensor | None) -> tuple[float, float]:
        low, high = (
            math.sqrt(math.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t))
            for t in (self.epsilon_t, 1.0)
        )
        return low, high


@dataclass(frozen=True, slots=True)
class VEPrecond:
    """That of models whose variance explodes."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def coefficients(self, sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float]:
        return 1.0, sigma, 1.0

    def label(self, sigma: Tensor, levels: Tensor | None) -> Tensor:
        return (0.5 * sigma).log()

    def limits(self, levels: Tensor | None) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max


@dataclass(frozen=True, slots=True)
class IDDPMPrecond:
    """That of "Improved denoising diffusion probabilistic models", whose levels are numbered.

    Attributes:
        C_1: the least factor of alpha^2 between two levels.
        C_2: shift of the cosine schedule.
        M: number of levels.
    """

    C_1: float = 0.001
    C_2: float = 0.008
    M: int = 1000

    def levels(self) -> Tensor:
        """Noise levels [M + 1], falling to 0."""
        sines = [math.sin(math.pi / 2 * j / self.M / (1 + self.C_2)) for j in range(self.M + 1)]
        levels = [0.0]
        for j in range(self.M, 0, -1):
            factor = max((sines[j - 1] / sines[j]) ** 2, self.C_1)
            levels.append(math.sqrt((levels[-1] ** 2 + 1) / factor - 1))
        return torch.tensor(levels[::-1])

    def coefficients(self, sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float]:
        return 1.0, -sigma, (sigma**2 + 1).rsqrt()

    def label(self, sigma: Tensor, levels: Tensor | None) -> Tensor:
        assert levels is not None
        return self.M - 1 - nearest(sigma, levels).to(sigma)

    def limits(self, levels: Tensor | None) -> tuple[float, float]:
        assert levels is not None
        return float(levels[self.M - 1]), float(levels[0])


KINDS = {
    "EDMPrecond": EDMPrecond,
    "VPPrecond": VPPrecond,
    "VEPrecond": VEPrecond,
    "iDDPMPrecond": IDDPMPrecond,
}
"""By the name of the official class."""


def named(name: object, settings: Mapping[str, object]) -> Preconditioning:
    """The preconditioning of an official class, with those of its arguments that are given.

    Raises:
        InputError: there is no such class, or an argument is no positive number.
    """
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InputError(
            f"Preconditioning {name!r} is not known. Choose one of {', '.join(KINDS)}: the class "
            "of the official code that the network was trained with."
        )
    given: dict[str, Any] = {}
    for each in fields(kind):
        if (value := settings.get(each.name)) is None or value == each.default:
            continue
        found = number(each.name, value)
        positive(each.name, found)
        given[each.name] = int(found) if isinstance(each.default, int) else found
    return kind(**given)


class EdmModel(nn.Module):
    """A network and its preconditioning: D(x, sigma), or D(x, sigma, one_hot) with classes."""

    u: Tensor | None

    def __init__(
        self, config: SongConfig | DhariwalConfig, preconditioning: Preconditioning
    ) -> None:
        super().__init__()
        self.preconditioning = preconditioning
        self.model = SongUNet(config) if isinstance(config, SongConfig) else DhariwalUNet(config)
        levels = preconditioning.levels() if isinstance(preconditioning, IDDPMPrecond) else None
        self.register_buffer("u", levels)

    @property
    def sigma_min(self) -> float:
        return self.preconditioning.limits(self.u)[0]

    @property
    def sigma_max(self) -> float:
        return self.preconditioning.limits(self.u)[1]

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise levels that the network knows."""
        if self.u is None:
            return sigma
        return self.u[nearest(sigma, self.u)].to(sigma)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """x_0 [b, c, h, w] in float32, from x = x_0 + sigma eps and noise levels sigma [b].

        Args:
            labels: one-hot classes [b, classes], all zeros for none.
        """
        x, sigma = x.float(), sigma.float().view(-1, 1, 1, 1)
        c_skip, c_out, c_in = self.preconditioning.coefficients(sigma)
        noise = self.preconditioning.label(sigma, self.u).flatten()
        answer = self.model((c_in * x).to(self.model.map_layer0.weight), noise, labels)
        # Models with a learned variance append it.
        return c_skip * x + c_out * answer[:, : x.shape[1]].float()


def nearest(sigma: Tensor, levels: Tensor) -> Tensor:
    """Indices of the levels [n] nearest to noise levels sigma, in its shape."""
    distances = (sigma.to(levels)[..., None] - levels).abs()
    return distances.argmin(-1)
