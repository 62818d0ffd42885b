"""Measures the cost of a call: time, operations, memory."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from asymflow.core import devices
from asymflow.core.adapter import Adapter, Context, denoised
from asymflow.core.compiler import noise
from asymflow.core.errors import InputError
from asymflow.core.types import Request

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
    convolutions: tuple[Shape, ...] = ()
    """The same of the products that convolutions equal, one per picture and group."""

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


def fastest(calls: Sequence[Call], repeats: int) -> list[float]:
    """Least seconds of each call. Interleaved, since machines drift, after one warm-up each.

    On a busy machine most short calls are interrupted: a median then tells what else runs there.
    """
    for call in calls:
        call()
    rounds = [[seconds(call) for call in calls] for _ in range(repeats)]
    return [min(times) for times in zip(*rounds, strict=True)]


def work(call: Call) -> Work:
    """Count the operations of one `call`, and list the shapes of its matrix products.

    Counts what PyTorch dispatches, so pass the network uncompiled.
    """
    shapes: list[Shape] = []
    convolutions: list[Shape] = []

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

    def convolution(
        x: Sequence[int], weight: Sequence[int], *others: Any, out_shape: Sequence[int], **_: Any
    ) -> int:
        transposed, groups = others[4], others[6]
        m = math.prod((x if transposed else out_shape)[2:])
        n, k = weight[0] // groups, math.prod(weight[1:])
        if transposed:
            n, k = k, n
        convolutions.extend([(m, k, n)] * (x[0] * groups))
        return 2 * x[0] * groups * m * k * n

    aten = torch.ops.aten
    formulas: dict[Any, Callable[..., int]] = {
        aten.convolution: convolution,
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
    return Work(counter.flops, tuple(shapes), tuple(convolutions))


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


@dataclass(frozen=True, slots=True)
class CallCost:
    """The cost of a network call of so many rows; a picture with guidance has two."""

    rows: int
    seconds: float
    peak_bytes: int

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds


KNEE = 0.05
"""Share of the best rate that fewer rows may cost."""


@torch.inference_mode()
def curve(
    adapter: Adapter, request: Request, rows: Sequence[int], repeats: int
) -> tuple[CallCost, ...]:
    """Measure network calls of several numbers of rows, all with the condition of one request.

    Seconds are the least of interleaved calls.

    Args:
        adapter: the model. Its `batch` does not limit the rows.
        request: gives size and condition.
        rows: numbers of rows, ascending.
        repeats: timed calls of each number of rows.
    """
    context, _ = adapter.encode([request])
    x_t = noise(request.seed, (1, adapter.channels, *request.size)).to(adapter.template)

    def call(count: int) -> Call:
        states = x_t.repeat(count, 1, 1, 1)
        t = states.new_full((count,), 0.5)
        own: Context = {key: value[[0] * count] for key, value in context.items()}
        return lambda: denoised(adapter, states, t, own, None)

    calls = [call(count) for count in rows]
    times = fastest(calls, repeats)
    peaks = [peak_bytes(each) for each in calls]
    return tuple(CallCost(*each) for each in zip(rows, times, peaks, strict=True))


def knee(curve: Sequence[CallCost]) -> int:
    """The smallest number of rows whose rate is within `KNEE` of the best measured one.

    Raises:
        InputError: nothing has been measured.
    """
    if not curve:
        raise InputError("A cost curve without a measurement has no knee. Measure some rows.")
    best = max(each.rate for each in curve)
    return min(each.rows for each in curve if each.rate >= (1 - KNEE) * best)


def peak_line(curve: Sequence[CallCost]) -> tuple[float, float]:
    """Bytes (fixed, per row) of an affine bound on the measured peaks.

    It is the line of least squares, moved up until no measurement is above it.

    Raises:
        InputError: fewer than two numbers of rows have been measured.
    """
    if len({each.rows for each in curve}) < 2:
        raise InputError("Peak memory per row needs measurements of at least two numbers of rows.")
    rows = np.array([each.rows for each in curve], np.float64)
    peaks = np.array([each.peak_bytes for each in curve], np.float64)
    centred = len(rows) * rows - rows.sum()  # of whole numbers, without rounding
    slope = max(float(centred @ peaks / (centred @ rows)), 0.0)
    return float((peaks - slope * rows).max()), slope


def most_rows(curve: Sequence[CallCost], max_bytes: int) -> int:
    """The largest number of rows whose peak by `peak_line` is at most `max_bytes`.

    It is 0 if not even one row fits, and at most the largest number measured where memory does not
    grow with rows.

    Raises:
        InputError: fewer than two numbers of rows have been measured.
    """
    fixed, slope = peak_line(curve)
    if not slope:
        return max(each.rows for each in curve) if fixed <= max_bytes else 0
    return max(int((max_bytes - fixed) // slope), 0)
