"""Speed as ratios, which depend less on the machine than milliseconds.

- `ratio(run, calls)`: overhead of the engine, with `calls` making the same network calls without
  it; 1.03 means 3% overhead.
- `efficiency`: throughput of a forward pass relative to matrix products on the same machine.

Absolute times on a shared machine drift by tens of percent within minutes. Both sides are
therefore interleaved; every round gives one ratio, and the median over rounds is reported with
its bootstrap interval, because single rounds can be outliers.
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
    """Time of a relative to b."""

    median: Interval
    """Median over rounds of time(a) / time(b)."""
    a_ms: float
    """Median milliseconds of a."""
    b_ms: float
    """Median milliseconds of b."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Throughput of a forward pass relative to matrix products on this machine."""

    dtype: str
    flops: int
    forward_ms: float
    forward_gflops: float
    matmul_gflops: float
    share: Interval
    """Rate of the forward pass over rate of its matrix products, median over rounds."""


def ratio(a: Call, b: Call, *, repeats: int = 20) -> Ratio:
    """Time `a` against `b`, interleaved, in alternating order.

    Raises:
        InputError: there are fewer than 3 repeats, too few for an interval.
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
    """Rate of `forward`, of `flops` operations, over the rate of matrix products of `shapes`.

    `flops` and `shapes` come from `work(forward)`, of linear layers and of convolutions. The
    products run in `dtype` on `device`, sequentially as in the network; equal shapes share
    operands, which may stay in the CPU caches. The denominator is thus an upper bound for these
    shapes, and the share is conservative.

    Raises:
        InputError: there are no shapes to compare with.
    """
    if not shapes:
        raise InputError(
            "The forward pass has no matrix products to compare with; give one that has "
            "linear layers or convolutions, and count it uncompiled."
        )
    operands = {
        (m, k, n): (
            torch.randn(m, k, dtype=dtype, device=device),
            torch.randn(n, k, dtype=dtype, device=device).t(),  # the layout of linear layers
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
            shapes = count.shapes + count.convolutions
            table[batch, dtype] = efficiency(
                forward, count.flops, shapes, dtype, repeats=repeats, device=device
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
        # The second call finds warmer caches and a hotter CPU: alternate the order.
        if turn % 2:
            b_s.append(seconds(b))
            a_s.append(seconds(a))
        else:
            a_s.append(seconds(a))
            b_s.append(seconds(b))
    return a_s, b_s
