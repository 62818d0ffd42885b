"""Measures the cost of a call: time, operations, memory."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from asymflow.core import devices

Shape = tuple[int, int, int]
Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Work:
    """The operations of one call."""

    flops: int
    """Floating point operations of its matrix products, convolutions and attention."""
    shapes: tuple[Shape, ...]
    """(m, k, n) of each product [m, k] @ [k, n], in order; batched products and attention are
    counted above but not listed here."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates: two operations each."""
        return self.flops // 2


def seconds(call: Call) -> float:
    """Wall time of one call, a GPU's pending work included."""
    devices.synchronize_all()
    start = time.perf_counter()
    call()
    devices.synchronize_all()
    return time.perf_counter() - start


def medians(calls: Sequence[Call], repeats: int) -> list[float]:
    """Median seconds of each call. Interleaved, since machines drift, after one warm-up each."""
    for call in calls:
        call()
    rounds = [[seconds(call) for call in calls] for _ in range(repeats)]
    return [median(times) for times in zip(*rounds, strict=True)]


def work(call: Call) -> Work:
    """Count the operations of one `call`, and list the shapes of its matrix products.

    Counts what PyTorch dispatches, so pass the network uncompiled.
    """
    shapes: list[Shape] = []

    def product(a: Sequence[int], b: Sequence[int], **_: Any) -> int:
        m, k, n = a[0], a[1], b[1]
        shapes.append((m, k, n))
        return 2 * m * k * n

    def biased_product(_bias: Sequence[int], a: Sequence[int], b: Sequence[int], **_: Any) -> int:
        return product(a, b)

    def attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
        batch, heads, queries, width = q
        return 2 * batch * heads * queries * k[2] * (width + v[3])

    def packed_product(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        return product((math.prod(x[:-1]), x[-1]), (weight[1], weight[0]))

    aten = torch.ops.aten
    formulas: dict[Any, Callable[..., int]] = {
        aten.mm: product,
        aten.addmm: biased_product,
        # PyTorch's own table lacks the CPU's fused attention and would count it as 0.
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
    }
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # see `asymflow.models.embedded.packed`
        formulas[torch.ops.mkldnn._linear_pointwise] = packed_product
    counter = _Counter({**flop_registry, **{k: shape_wrapper(v) for k, v in formulas.items()}})
    with counter:
        call()
    return Work(counter.flops, tuple(shapes))


class _Counter(TorchDispatchMode):
    """Adds up operations of the thread that it is entered in.

    PyTorch's `FlopCounterMode` also tells modules apart, by hooks that run in every thread: calls
    of a network elsewhere in the process would fail, or spoil the count.
    """

    def __init__(self, formulas: Mapping[Any, Callable[..., int]]) -> None:
        super().__init__()
        self.flops = 0
        self._formulas = formulas

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        formula = self._formulas.get(func.overloadpacket)
        if formula is None:
            with self:  # composite operations are counted by their parts
                parts = func.decompose(*args, **named)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **named)
        if formula is not None:
            self.flops += formula(*args, **named, out_val=out)
        return out


def peak_bytes(call: Call) -> int:
    """Peak memory of one `call` beyond what was held before, in bytes.

    On a CPU this is what PyTorch's allocator provided; buffers inside kernels are not included.
    """
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise it prints two lines every time
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    results: Any = profile.profiler
    held = peak = 0
    for event in results.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
