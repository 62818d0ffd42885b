"""The exact denoiser of a finite set of pictures.

It is exact and multimodal, and shows the effect of a solver or a plan on real pictures without a
trained network. Its trajectories end in the pictures of the set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.checks import whole
from asymflow.core.errors import InputError
from asymflow.core.flow import average_pool
from asymflow.core.requests import refuse_others
from asymflow.core.types import Picture, Request
from asymflow.models.gaussian import check_size, pool_factors, to_picture, to_state

ALL = -1
"""The label of a request without one: every picture is possible."""

CHUNK = 512
"""Pictures compared at a time: bounds the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class EmpiricalAdapter:
    """Uniform distribution over the pictures, or over those with the label {"label": k}.

    Attributes:
        pictures: [n, c, h, w], in a state space where they fill [-1, 1].
        labels: [n] integers from 0.
        batch: pictures per network call.
    """

    pictures: Tensor
    labels: Tensor
    batch: int | None = None

    @property
    def name(self) -> str:
        return "empirical"

    @property
    def channels(self) -> int:
        return self.pictures.shape[1]

    @property
    def template(self) -> Tensor:
        return self.pictures.new_empty(0)

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return pool_factors(size)

    def check(self, request: Request) -> None:
        check_size(request, self.pictures)
        refuse_others(request, ("label",), self.name)
        label = _label(request)
        known = sorted({int(label) for label in self.labels})
        if label not in (ALL, *known):
            raise InputError(f"No picture has the label {label!r}. Choose one of {known}.")

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        labels = torch.tensor([_label(request) for request in requests])
        labels = labels.to(self.labels.device)
        return {"label": labels}, {"label": torch.full_like(labels, ALL)}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """E[x_0 | x_t], the mean of the pictures y with weights exp(-|x_t - (1 - t) y|^2 / 2 t^2).

        One image after the other and in float64: the weights span hundreds of orders of magnitude,
        and a sum over the set must not be rounded differently in another batch.
        """
        y = average_pool(self.pictures, self.pictures.shape[-1] // x_t.shape[-1]).double()
        estimates = [
            _posterior_mean(y if label == ALL else y[self.labels == label], x, float(time))
            for x, time, label in zip(x_t.double(), t, context["label"], strict=True)
        ]
        return torch.stack(estimates).to(x_t)

    def to_state(self, picture: Picture) -> Tensor:
        return to_state(picture).to(self.pictures)

    def to_picture(self, x_0: Tensor) -> Picture:
        return to_picture(x_0)


def _posterior_mean(y: Tensor, x: Tensor, t: float) -> Tensor:
    parts = [y[begin : begin + CHUNK] for begin in range(0, len(y), CHUNK)]
    distances = torch.cat([((x - (1 - t) * part) ** 2).sum((1, 2, 3)) for part in parts])
    # At t = 0 the nearest picture has all the weight; the floor is below any step a plan takes.
    weights = torch.softmax(-distances / (2 * max(t, 1e-8) ** 2), 0)
    return (weights @ y.flatten(1)).view_as(x)


def _label(request: Request) -> int:
    return whole("label", request.inputs.get("label", ALL), ALL)
