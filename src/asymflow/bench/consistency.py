"""Consistency of a model across resolutions.

Lower-resolution tiers replace a full estimate of x_0 by one at 1/f of the side, on the SNR-matched
pooled state (`core.flow.pool`). Its distance to the pooled full estimate is

    disagreement(t) = rms(D(k pool(x_t), t') - pool(D(x_t, t))) / rms(pool(x_0))

It is reported with the errors of both estimates to the true pooled picture: a disagreement far
below these errors has no cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core import engine
from asymflow.core.adapter import Adapter
from asymflow.core.estimators import Guided
from asymflow.core.flow import average_pool, interpolate, pool
from asymflow.core.types import Request

TIMES = (0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True, slots=True)
class Consistency:
    """Errors relative to the RMS of the pooled pictures, at time `t` of the full size."""

    t: float
    disagreement: float
    error_full: float
    error_low: float


@torch.inference_mode()
def consistency(
    adapter: Adapter,
    pictures: NDArray[np.float32],
    inputs: Sequence[dict[str, str]],
    *,
    f: int = 2,
    times: Sequence[float] = TIMES,
) -> list[Consistency]:
    """Compare conditional estimates at full size and at 1/f the side, without guidance.

    Args:
        pictures: [n, h, w, c] in [0, 1], the true x_0; picture i gets the noise of seed i.
        inputs: inputs of the adapter's requests, one per picture.
        f: pool factor of both sides.
        times: times of the full-size state.
    """
    size = (pictures.shape[1], pictures.shape[2])
    requests = [Request(each, size, seed) for seed, each in enumerate(inputs)]
    x_0 = torch.stack([adapter.to_state(picture) for picture in pictures])
    eps = torch.stack([engine.noise(i, x_0.shape[1:]) for i in range(len(x_0))]).to(x_0)
    truth = average_pool(x_0, f)
    cond, null = adapter.encode(requests)
    denoise = Guided.of(adapter, cond, null, torch.ones(len(x_0)).to(x_0)).denoise

    def relative(a: Tensor, b: Tensor) -> float:
        return float((a - b).square().mean().sqrt() / truth.square().mean().sqrt())

    rows: list[Consistency] = []
    for t in times:
        x_t = interpolate(x_0, eps, t)
        y_t, coarse = pool(x_t, t, f)
        full = average_pool(denoise(x_t, x_0.new_full((len(x_0),), t), guided=False)[0], f)
        low, _ = denoise(y_t, x_0.new_full((len(x_0),), coarse), guided=False)
        rows.append(
            Consistency(t, relative(low, full), relative(full, truth), relative(low, truth))
        )
    return rows
