"""The conventions of diffusers' pipelines for states, times and network outputs.

Their state is z = alpha x_0 + sigma eps at a timestep tau, and z = k x_t in terms of the state of
asymflow, with k = alpha + sigma (`core.flow.from_vp`). Two kinds of schedule cover all of them:

    Diffusion   alpha^2 + sigma^2 = 1, the noise levels of training numbered by tau = 0, 1, ...
    Flow        z = (1 - u) x_0 + u n eps,   tau = 1000 u,   n the standard deviation of the noise

A scheduler converts the output of the network to x_0: from eps, v or x_0 itself, or from the
velocity dz/du = n eps - x_0. The conversion here is that of diffusers' own schedulers, clipping and
dynamic thresholding included. All adapters of this package that share these conventions use it
(`estimated`), and estimates are cut after guidance, as by these schedulers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, get_args

import torch
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.core.flow import Time, coarse_time, fine_time, per_image
from asymflow.core.schedules import shifted
from asymflow.models.diffusers.schedule import X_0, Prediction, Schedule
from asymflow.planning import grids
from asymflow.planning.grids import LEAST

PARAMETERISATIONS: Mapping[Prediction, str] = {
    "epsilon": "eps",
    "v_prediction": "v",
    "sample": "x_0",
}
"""What plan files call the prediction of a network."""

DENSE = 200
"""Moves that grids are interpolated from."""


class Convention(Protocol):
    """The translation between a pipeline and asymflow; all times [b] are float64, on the CPU."""

    def time(self, tau: Tensor) -> Tensor:
        """t of the pipeline's timesteps tau."""
        ...

    def timestep(self, t: Tensor) -> Tensor:
        """The pipeline's timesteps tau at times t."""
        ...

    def scaled(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(alpha, sigma, k) of the network's input z = k x_t."""
        ...

    def beginning(self, t: float) -> float:
        """The factor of the noise draw eps in the initial state at time t.

        Pipelines begin with that much noise, whatever their first timestep is.
        """
        ...

    @property
    def noise(self) -> float:
        """Standard deviation of the noise where nothing else is left."""
        ...

    @property
    def parameterisation(self) -> str:
        """What the network predicts, as in `asymflow.core.binding.Requirements`."""
        ...

    @property
    def settings(self) -> Mapping[str, str]:
        """What else changes pictures, by name."""
        ...

    @property
    def most(self) -> int | None:
        """The largest count of moves that `times` supports; None without a limit."""
        ...

    def times(self, count: int) -> tuple[float, ...]:
        """`count` moves, spaced as the pipeline would, from the most noise to 0."""
        ...

    def x_0(self, z: Tensor, answer: Tensor, alpha: Time, sigma: Time) -> Tensor:
        """The estimate of x_0 [b, c, h, w] from the output that the scheduler receives."""
        ...

    def clip_estimate(self, x_0: Tensor) -> Tensor:
        """The estimate, clipped as the scheduler does."""
        ...

    def level(self, alpha: float, sigma: float) -> float:
        """The noise of a state in the convention of the scheduler's `sigmas`."""
        ...


@dataclass(frozen=True, slots=True)
class Threshold:
    """Dynamic thresholding (arXiv 2205.11487): a picture is scaled down until few values clip.

    Attributes:
        ratio: share of the values that must not be clipped.
        most: the largest divisor.
    """

    ratio: float
    most: float

    def __call__(self, x_0: Tensor) -> Tensor:
        s = torch.quantile(x_0.abs().flatten(1).float(), self.ratio, dim=1)
        s = s.clamp(1.0, max(self.most, 1.0)).to(x_0).view(-1, 1, 1, 1)
        return x_0.clamp(-s, s) / s


@dataclass(frozen=True, slots=True)
class Clip:
    """How estimates are cut, after guidance.

    Attributes:
        limit: x_0 is clipped to [-limit, limit]; None does not clip.
        threshold: in the place of that.
    """

    limit: float | None = None
    threshold: Threshold | None = None

    def __call__(self, x_0: Tensor) -> Tensor:
        if self.threshold is not None:
            return self.threshold(x_0)
        return x_0 if self.limit is None else x_0.clamp(-self.limit, self.limit)

    def __str__(self) -> str:
        if self.threshold is not None:
            return f"threshold {self.threshold.ratio:g} up to {self.threshold.most:g}"
        return "none" if self.limit is None else f"{self.limit:g}"


@dataclass(frozen=True, slots=True, eq=False)
class Diffusion:
    """A variance-preserving model.

    Attributes:
        clip: of estimates.
    """

    schedule: Schedule
    prediction: Prediction
    clip: Clip = Clip()

    @property
    def noise(self) -> float:
        return 1.0

    @property
    def parameterisation(self) -> str:
        return PARAMETERISATIONS[self.prediction]

    @property
    def settings(self) -> Mapping[str, str]:
        return {"schedule": self.schedule.digest[:12], "clip": str(self.clip)}

    def beginning(self, t: float) -> float:
        return self.schedule.beginning(t)

    def time(self, tau: Tensor) -> Tensor:
        return self.schedule.time(tau)

    def timestep(self, t: Tensor) -> Tensor:
        return self.schedule.timestep(t)

    def scaled(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.schedule.scaled(t)

    @property
    def most(self) -> int | None:
        return len(self.schedule.log_snr)

    def times(self, count: int) -> tuple[float, ...]:
        return self.schedule.times(count)

    def x_0(self, z: Tensor, answer: Tensor, alpha: Time, sigma: Time) -> Tensor:
        # Models with a learned variance append it.
        return X_0[self.prediction](z, answer[:, : z.shape[1]], alpha, sigma)

    def clip_estimate(self, x_0: Tensor) -> Tensor:
        return self.clip(x_0)

    def level(self, alpha: float, sigma: float) -> float:
        return sigma / alpha


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow-matching model.

    Attributes:
        noise: standard deviation n of the noise at u = 1.
        steps: the timestep at u = 1.
        shift: towards noise, of the pipeline's own grid.
    """

    noise: float = 1.0
    steps: int = 1000
    shift: float = 1.0

    @property
    def parameterisation(self) -> str:
        return "flow"

    @property
    def settings(self) -> Mapping[str, str]:
        return {"schedule": f"flow of {self.steps} timesteps"}

    def beginning(self, t: float) -> float:
        return self.noise / float(self.scaled(torch.tensor([t], dtype=torch.float64))[2])

    def time(self, tau: Tensor) -> Tensor:
        return fine_time(tau.cpu().double() / self.steps, self.noise)

    def timestep(self, t: Tensor) -> Tensor:
        return coarse_time(t.double(), self.noise) * self.steps

    def scaled(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u = coarse_time(t.double(), self.noise)
        alpha, sigma = 1 - u, u * self.noise
        return alpha, sigma, alpha + sigma

    @property
    def most(self) -> int | None:
        return None

    def times(self, count: int) -> tuple[float, ...]:
        return shifted(count, self.noise * self.shift)

    def x_0(self, z: Tensor, answer: Tensor, alpha: Time, sigma: Time) -> Tensor:
        return z - (1 - alpha) * answer

    def clip_estimate(self, x_0: Tensor) -> Tensor:
        return x_0

    def level(self, alpha: float, sigma: float) -> float:
        return 1 - alpha


def blended(convention: Convention, count: int) -> tuple[float, ...]:
    """The model's own spacing blended with equal log-SNR, see `planning.grids.blended`."""
    own = convention.times(min(DENSE, convention.most or DENSE))
    return grids.blended(own, count, max(float(convention.time(torch.zeros(1))), LEAST))


def estimated(
    convention: Convention, network: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, t: Tensor
) -> Tensor:
    """The estimate of x_0 [b, c, h, w] at states x_t and times t [b], before it is cut.

    Args:
        network: of the state z [b, c, h, w] and the timestep tau [b], in the dtype of x_t; returns
            what the scheduler receives.
    """
    # A few numbers per call: on the CPU, where there is always float64.
    time = t.cpu().double()
    alpha, sigma, k = (per_image(each, x_t) for each in convention.scaled(time))
    z = k * x_t
    answer = network(z, convention.timestep(time).to(x_t)).to(x_t)
    return convention.x_0(z, answer, alpha, sigma)


def convention_of(scheduler: Any, *, noise: float = 1.0) -> Convention:
    """The convention of a pipeline's scheduler for states and network outputs.

    It depends on the training schedule only, not on the sampling steps.

    Args:
        scheduler: of the pipeline.
        noise: standard deviation of the noise that a flow pipeline starts from.

    Raises:
        InputError: the scheduler is of a kind that cannot be translated.
    """
    kind, config = type(scheduler).__name__, scheduler.config
    if kind.startswith("FlowMatch"):
        if config.get("invert_sigmas"):
            raise InputError(
                f"{kind} counts its sigmas backwards (invert_sigmas), which is not supported. Load "
                "it with invert_sigmas=False, if that is how the model was trained."
            )
        shift = 1.0 if config.get("use_dynamic_shifting") else float(config["shift"])
        return Flow(noise, int(config["num_train_timesteps"]), shift)
    alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(alphas_cumprod, Tensor):
        raise InputError(
            f"{kind} has no alphas_cumprod and is no flow-matching scheduler, so there is nothing "
            "to translate its states by. Give the pipeline the scheduler that its model was "
            "trained with, such as DDPMScheduler or FlowMatchEulerDiscreteScheduler."
        )
    prediction = config.get("prediction_type")
    if prediction not in get_args(Prediction):
        raise InputError(
            f"{kind} says that the network predicts {prediction!r}, which is not supported. "
            f"Supported are {', '.join(get_args(Prediction))} and the velocity of flow matching. "
            "Wrap the network in a function that says one of them (asymflow.models.edm)."
        )
    threshold = None
    if config.get("thresholding"):
        ratio, most = config["dynamic_thresholding_ratio"], config["sample_max_value"]
        threshold = Threshold(float(ratio), float(most))
    limit = float(config["clip_sample_range"]) if config.get("clip_sample") else None
    return Diffusion(
        Schedule.of(alphas_cumprod), cast("Prediction", prediction), Clip(limit, threshold)
    )
