"""An adapter to be checked, and what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core.adapter import Adapter, Context
from asymflow.core.card import Carded
from asymflow.core.checks import each_instance, instance, positive
from asymflow.core.compiler import noise
from asymflow.core.errors import InputError
from asymflow.core.types import Request

TOLERANCE = 1e-3
GUIDANCE = 2.5
"""The guidance scale that is tried, where a request has none."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """An adapter to be checked, and what it is asked.

    Attributes:
        adapter: the model.
        requests: two pictures of one size, without guidance; of other seeds, and of other inputs
            if the model has any.
        refused: requests that it has to refuse.
        tolerance: how far the same answer may be apart in other batches.
        again: loads the same model once more.
        scale: of guidance, where it is possible.
    """

    adapter: Adapter
    requests: tuple[Request, Request]
    refused: tuple[Request, ...] = ()
    tolerance: float = TOLERANCE
    again: Callable[[], Adapter] | None = None
    scale: float = GUIDANCE

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        requests: Sequence[Request] | None = None,
        *,
        refused: Sequence[Request] = (),
        tolerance: float = TOLERANCE,
        again: Callable[[], Adapter] | None = None,
    ) -> Subject:
        """From one or two requests, or those of the adapter's card; see `contract.check`.

        Raises:
            InputError: it is no adapter, or there is neither a card nor a request.
        """
        missing = [name for name in _MEMBERS if not hasattr(adapter, name)]
        instance("adapter", adapter, Adapter, f"It has no {', '.join(missing)}.")
        positive("tolerance", tolerance)
        if requests is None and isinstance(adapter, Carded):
            card = adapter.card
            scale = card.guidance if card.guided and card.guidance != 1 else GUIDANCE
            requests = [Request(inputs, card.sizes.native, 0, scale) for inputs in card.calibration]
        if not requests:
            raise InputError(
                f"{adapter.name} has no card that says what it is asked, and no request is given. "
                "Give it a card (asymflow.core.card), or pass requests."
            )
        each_instance("requests", requests, Request, "Pass [asymflow.Request(...), ...].")
        each_instance("refused", refused, Request, "Pass [asymflow.Request(...), ...].")
        first, second = requests[0], requests[min(1, len(requests) - 1)]
        if second.size != first.size:
            raise InputError(
                f"The requests are of {first.size} and {second.size}. Pass requests of one size."
            )
        scale = GUIDANCE if first.guidance_scale == 1 else first.guidance_scale
        pair = tuple(
            replace(each, seed=seed, guidance_scale=1.0)
            for seed, each in enumerate((first, second))
        )
        return cls(adapter, (pair[0], pair[1]), tuple(refused), tolerance, again, scale)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures."""
        return self.requests[0].size

    @property
    def guided(self) -> bool:
        """Whether the adapter accepts a guidance scale."""
        try:
            self.adapter.check(replace(self.requests[0], guidance_scale=self.scale))
        except InputError:
            return False
        return True

    def request(self, which: int = 0, seed: int = 0, scale: float | None = None) -> Request:
        """One of the requests with such a seed; guided where possible, by default."""
        if scale is None:
            scale = self.scale if self.guided else 1.0
        return replace(self.requests[which], seed=seed, guidance_scale=scale)

    def state(self, seed: int, count: int = 1) -> Tensor:
        """Noise [count, c, h, w] in the place of states."""
        return noise(seed, (count, self.adapter.channels, *self.size)).to(self.adapter.template)

    def contexts(self, *which: int) -> tuple[Context, Context]:
        """The contexts of some of the requests, made anew."""
        return self.adapter.encode([self.request(each, each) for each in which])

    def asked(self, x_t: Tensor, times: Sequence[float], context: Context) -> Tensor:
        """The answer for states [b, c, h, w] at as many times."""
        return self.adapter.denoise(x_t, x_t.new_tensor(times), context)

    def same(self, one: Tensor, other: Tensor) -> bool:
        """Whether two tensors are the same up to rounding."""
        return apart(one, other) <= self.tolerance


_MEMBERS = (
    "name", "channels", "template", "batch", "pool_factors", "check", "encode", "denoise",
    "to_state", "to_picture",
)  # fmt: skip


def apart(one: Tensor | NDArray[np.float32], other: Tensor | NDArray[np.float32]) -> float:
    """The largest difference; infinite between other shapes and where one is not a number."""
    first, second = (torch.as_tensor(each).double().cpu() for each in (one, other))
    if first.shape != second.shape:
        return float("inf")
    if not first.numel():
        return 0.0
    found = float((first - second).abs().max())
    return found if found == found else float("inf")
