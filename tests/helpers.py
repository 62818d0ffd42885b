"""What the tests of several folders share: `from tests.helpers import ...`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers that only the arguments decide; other dtypes draw other numbers."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


draw64 = partial(draw, dtype=torch.float64)
"""For what is compared to more digits than float32 has."""


def wait_until(condition: Callable[[], T | None], *, within: float = 60, what: str = "it") -> T:
    """Wait for something that another thread or process does.

    Args:
        condition: asked again and again until its answer is true.
        within: seconds until the test fails; only a busy machine needs many.
        what: the failure says that this did not happen.

    Returns:
        The first true answer.
    """
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {within:g} s: {found!r}"
        time.sleep(0.01)
    return found
