"""Speed as ratios measured side by side, so that they outlive the machine they came from.

Two questions:

- What does the engine cost over the network calls it makes? `ratio(run, calls)`, where
  `calls` makes the same network calls bare; 1.03 means 3% overhead.
- How much of this machine's matrix arithmetic does a forward pass use? `efficiency`.

Absolute milliseconds on a shared machine drift by tens of percent within minutes. So the two
sides take turns, each round gives one ratio, and the median of the rounds is reported with its
bootstrap interval: a few rounds are far off, so that a mean and its deviation would say little.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval, bootstrap_interval
from asymflow.planning.costs import Call, Shape, seconds, work

_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Ratio:
    """How long a takes in units of b."""

    median: Interval
    """Over rounds of time(a) / time(b)."""
    a_ms: float
    """Median milliseconds of a."""
    b_ms: float
    """Median milliseconds of b."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """How near a forward pass comes to this machine's matrix arithmetic."""

    dtype: str
    flops: int
    forward_ms: float
    forward_gflops: float
    matmul_gflops: float
    share: Interval
    """Rate of the forward pass over rate of bare products, median over rounds; 1 is perfect."""


def ratio(a: Call, b: Call, *, repeats: int = 20) -> Ratio:
    """Time `a` against `b`, taking turns, in an order that alternates between rounds.

    Raises:
        InputError: there are fewer than 3 repeats, whose median has no useful interval.
    """
    a_s, b_s = _interleave(a, b, repeats)
    rounds = [x / y for x, y in zip(a_s, b_s, strict=True)]
    return Ratio(
        median=bootstrap_interval(rounds, np.median),
        a_ms=1000 * statistics.median(a_s),
        b_ms=1000 * statistics.median(b_s),
    )


def efficiency(
    forward: Call,
    flops: int,
    shapes: Sequence[Shape],
    dtype: torch.dtype,
    *,
    repeats: int = 20,
    device: torch.device | str = "cpu",
) -> Efficiency:
    """Rate of `forward`, worth `flops`, over the rate of bare products of its `shapes`.

    `flops` and `shapes` come from `work(forward)`. The products run in `dtype` on `device`,
    one after the other as in the network; equal shapes share operands, which then stay in the
    caches where they fit. So the denominator is the best this machine does at these shapes,
    and the share is on the strict side.

    Raises:
        InputError: there are no shapes to compare with.
    """
    if not shapes:
        raise InputError(
            "The forward pass has no matrix products to compare with; give one that has "
            "linear layers, and count it uncompiled."
        )
    operands = {
        (m, k, n): (
            torch.randn(m, k, dtype=dtype, device=device),
            torch.randn(n, k, dtype=dtype, device=device).t(),  # as linear layers keep theirs
            torch.empty(m, n, dtype=dtype, device=device),
        )
        for m, k, n in set(shapes)
    }

    def products() -> None:
        for shape in shapes:
            a, b, out = operands[shape]
            torch.mm(a, b, out=out)

    with torch.inference_mode():
        forward_s, products_s = _interleave(forward, products, repeats)
    products_flops = sum(2 * m * k * n for m, k, n in shapes)
    rates = [flops / seconds for seconds in forward_s]
    best = [products_flops / seconds for seconds in products_s]
    shares = [x / y for x, y in zip(rates, best, strict=True)]
    return Efficiency(
        dtype=str(dtype).removeprefix("torch."),
        flops=flops,
        forward_ms=1000 * statistics.median(forward_s),
        forward_gflops=statistics.median(rates) / 1e9,
        matmul_gflops=statistics.median(best) / 1e9,
        share=bootstrap_interval(shares, np.median),
    )


def efficiency_grid(
    build: Callable[[int, torch.dtype], Call],
    *,
    batches: Sequence[int] = (8, 2),
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16),
    repeats: int = 20,
    device: torch.device | str = "cpu",
) -> dict[tuple[int, torch.dtype], Efficiency]:
    """`efficiency` of `build(batch, dtype)` for every batch size and dtype."""
    table: dict[tuple[int, torch.dtype], Efficiency] = {}
    for dtype in dtypes:
        for batch in batches:
            forward = build(batch, dtype)
            count = work(forward)
            table[batch, dtype] = efficiency(
                forward, count.flops, count.shapes, dtype, repeats=repeats, device=device
            )
    return table


def _interleave(a: Call, b: Call, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of each call of `a` and of `b`, after a warm-up."""
    if repeats < 3:
        raise InputError(f"{repeats} repeats give no spread; ask for at least 3.")
    for _ in range(_WARM_UP):
        a()
        b()
    a_s: list[float] = []
    b_s: list[float] = []
    for turn in range(repeats):
        # Whoever runs second finds warmer caches and a hotter clock: take turns at that too.
        if turn % 2:
            b_s.append(seconds(b))
            a_s.append(seconds(a))
        else:
            a_s.append(seconds(a))
            b_s.append(seconds(b))
    return a_s, b_s
