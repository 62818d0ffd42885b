"""Requests to measure a model with: those of different purposes share no seed.

Nor a prompt, where the model's card has enough of them. So no plan is measured on pictures that it
was selected on.
"""

from __future__ import annotations

from asymflow.core.card import Card
from asymflow.core.types import Request

PROFILED, VERIFIED, PROVED, FITTED = 0, 1, 2, 3
"""Purposes of requests: profiling, verification, final evidence, fitting weights."""
COMPARED = 8
"""Comparison of distributions: the last purpose, so that it has any number of seeds."""
MOST = 32
"""Maximum number of requests for profiling and for verification."""
_SEEDS = 1000


def requests(
    card: Card, size: tuple[int, int], guidance: float, count: int, purpose: int
) -> list[Request]:
    """So many requests for pictures of (height, width), with seeds of the purpose."""
    inputs = card.calibration
    # With few of them, every purpose begins at another one.
    begin = MOST * purpose if len(inputs) > MOST else purpose
    return [
        Request(inputs[(begin + i) % len(inputs)], size, _SEEDS * purpose + i, guidance)
        for i in range(count)
    ]
