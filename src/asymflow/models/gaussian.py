"""A model of normal data, whose denoiser and trajectories have closed forms.

It replaces a network in tests and examples. Pixels are independent, so the same data at a
lower resolution is normal too, and the model is consistent across sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.checks import whole
from asymflow.core.errors import InputError
from asymflow.core.flow import Time, average_pool, per_image
from asymflow.core.requests import refuse_others
from asymflow.core.types import Picture, Request


@dataclass(frozen=True, slots=True, eq=False)
class GaussianAdapter:
    """Pixels x_0 ~ N(mean, std^2), with one mean and std for every label.

    The inputs of requests are {"label": k}. Label 0 is also the unconditional model, and the
    default.

    Attributes:
        mean: [labels, c, h, w], in a state space where pictures fill [-1, 1].
        std: [labels, c, h, w], above 0.
        batch: pictures per network call.
    """

    mean: Tensor
    std: Tensor
    batch: int | None = None

    @property
    def name(self) -> str:
        return "gaussian"

    @property
    def channels(self) -> int:
        return self.mean.shape[1]

    @property
    def template(self) -> Tensor:
        return self.mean.new_empty(0)

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return pool_factors(size)

    def check(self, request: Request) -> None:
        check_size(request, self.mean)
        refuse_others(request, ("label",), self.name)
        self._label(request)

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        labels = torch.tensor([self._label(request) for request in requests])
        labels = labels.to(self.mean.device)
        return {"label": labels}, {"label": torch.zeros_like(labels)}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """E[x_0 | x_t] = mean + (1 - t) std^2 / var_t (x_t - (1 - t) mean)."""
        mean, std = self._at(x_t, context["label"])
        alpha = per_image(1 - t, x_t)
        return mean + alpha * std**2 / _spread(std, t) ** 2 * (x_t - alpha * mean)

    def solution(self, x_t: Tensor, t: Time, s: Time, label: Tensor) -> Tensor:
        """x_s of the exact trajectory through x_t without guidance, for labels [b]."""
        return self.guided_solution(x_t, t, s, label, 1.0)

    def guided_solution(self, x_t: Tensor, t: Time, s: Time, label: Tensor, scale: float) -> Tensor:
        """x_s of the exact guided trajectory, for labels [b] whose means are that of label 0.

        About the mean every velocity is x (d/dt log spread_t), and guidance adds velocities, so

            x_s = x_t (spread_s / spread_t)^w (spread_s / spread_t of label 0)^(1 - w)
        """
        mean, std = self._at(x_t, label)
        _, null = self._at(x_t, torch.zeros_like(label))
        ratio = (_spread(std, s) / _spread(std, t)) ** scale
        ratio = ratio * (_spread(null, s) / _spread(null, t)) ** (1 - scale)
        return per_image(1 - s, x_t) * mean + ratio * (x_t - per_image(1 - t, x_t) * mean)

    def to_state(self, picture: Picture) -> Tensor:
        return to_state(picture).to(self.mean)

    def to_picture(self, x_0: Tensor) -> Picture:
        return to_picture(x_0)

    def _label(self, request: Request) -> int:
        label = request.inputs.get("label", 0)
        try:
            return whole("label", label, 0, len(self.mean) - 1)
        except InputError:
            raise InputError(
                f"Unknown label {label!r}. Choose one of 0 to {len(self.mean) - 1}."
            ) from None

    def _at(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std [b, c, h, w] of the data at the size of x."""
        factor = self.mean.shape[-1] // x.shape[-1]
        mean, variance = self.mean[label], self.std[label] ** 2
        return average_pool(mean, factor), average_pool(variance, factor).sqrt() / factor


def _spread(std: Tensor, t: Time) -> Tensor:
    """Standard deviation of x_t."""
    return torch.hypot(per_image(1 - t, std) * std, per_image(t, std) * torch.ones_like(std))


def pool_factors(size: tuple[int, int]) -> tuple[int, ...]:
    """2 and 4, where they divide the size."""
    return tuple(f for f in (2, 4) if not (size[0] % f or size[1] % f))


def check_size(request: Request, pictures: Tensor) -> None:
    """Check that a request has the size of pictures [..., h, w] or a whole fraction of it.

    Raises:
        InputError: it has another size.
    """
    height, width = pictures.shape[-2:]
    h, w = request.size
    if h < 1 or w < 1 or height % h or width % w or height // h != width // w:
        raise InputError(
            f"Size {request.size} cannot be served: this model knows (height, width) = "
            f"{(height, width)} and whole fractions of it, such as {(height // 2, width // 2)}."
        )


def to_state(picture: Picture) -> Tensor:
    """A picture [h, w, c] in [0, 1] as [c, h, w] in [-1, 1]."""
    return torch.as_tensor(picture).movedim(-1, 0) * 2 - 1


def to_picture(x_0: Tensor) -> Picture:
    """A state [c, h, w] in [-1, 1] as a picture [h, w, c], clipped to [0, 1]."""
    picture = ((x_0 + 1) / 2).clamp(0, 1).movedim(0, -1)
    return np.ascontiguousarray(picture.cpu().numpy(), dtype=np.float32)
