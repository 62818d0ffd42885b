"""Check and measure the package on one GPU, in at most four minutes.

    scripts/gpu-check
    scripts/gpu-check --device cpu --quick

Parts, each with a time limit:

- `agreement`: pictures of the shipped plans in float32 and bfloat16 beside those of the CPU in
  float32. Fails where a root mean square difference is above the tolerance.
- `determinism`: one picture alone, again, and in batches of 2, 8 and 16. Fails where a repetition
  differs at all or a batch by more than the tolerance; on a CPU, where a batch differs at all.
- `overhead`: a whole run beside its bare network calls; and steps of the engine with a network that
  costs nothing beside those of diffusers' schedulers, on the same states.
- `sampler`: JiT-B/16 with random weights, its own 50 Heun steps beside a plan of as many steps as
  `accelerate()` chose for a small JiT.
- `memory`: the measured peak of a call beside the estimate from calls of fewer rows.
- `compiled`: JiT-B/16 with and without torch.compile.

A part that fails is recorded with its error, and the others still run. The exit status is 1 if
`agreement` or `determinism` fails. What needs CUDA or a package that is not there is recorded as
not run. `--quick` is the check itself in miniature.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asymflow.core import devices, engine, presets, schedules
from asymflow.core.batcher import Batcher
from asymflow.core.transforms import with_pool_factors
from asymflow.core.types import Plan, Request
from asymflow.models import jit
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded import plans
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.models.jit.adapter import JitAdapter
from asymflow.models.jit.network import JitConfig, JitModel, named_config
from asymflow.planning import costs, profiler
from benchmarks import results
from benchmarks.suites import overhead

NO_CUDA = "not run: no CUDA"
NO_DIFFUSERS = "not run: diffusers is not installed"
TOLERANCE = {"float32": 0.002, "bfloat16": 0.03}
"""Root mean square difference of pictures in [0, 1]. On a CPU, bfloat16 is at .004 to .006."""
NETWORK = named_config("B/16")
"""At 256 px."""
PLANNED_STEPS = 17
"""Of the plan in benchmarks/results/trained/accelerate-jit.json, for the quality of 50 of Heun."""
PROMPTS = ("a fox", "a red apple on a plate", "two cats", "a green tree in the snow", "a house")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    size: tuple[int, int] = (64, 64)
    plans: tuple[str, ...] = plans.NAMES
    pictures: int = 2
    batches: tuple[int, ...] = (2, 8, 16)
    rows: tuple[int, ...] = (1, 8, 64)
    steps: int = 20
    repeats: int = 7
    network: JitConfig = NETWORK
    heun_steps: int = 50
    planned_steps: int = PLANNED_STEPS
    images: int = 16
    curve: tuple[int, ...] = (1, 2, 4, 8, 16)
    estimated: tuple[int, ...] = (32, 64)


MINIATURE = Extent(
    size=(32, 32),
    plans=("draft",),
    pictures=1,
    batches=(2,),
    rows=(1, 2),
    steps=4,
    repeats=3,
    network=JitConfig(size=32, patch=8, width=32, depth=3, heads=2, hidden=64, class_start=1),
    heun_steps=3,
    planned_steps=2,
    images=2,
    curve=(1, 2, 4),
    estimated=(8,),
)


class Failed(Exception):
    """A part found something that is not as it should be."""


@dataclass(frozen=True)
class Setup:
    """What parts share; models are loaded when they are first used."""

    device: torch.device
    extent: Extent
    _adapters: dict[Any, EmbeddedAdapter] = field(default_factory=dict[Any, EmbeddedAdapter])

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def fast(self) -> torch.dtype:
        return torch.bfloat16 if self.cuda else torch.float32

    def embedded(self, dtype: torch.dtype, device: torch.device | None = None) -> EmbeddedAdapter:
        key = (device or self.device, dtype)
        if key not in self._adapters:
            self._adapters[key] = embedded.load(device=key[0], dtype=dtype)
        return self._adapters[key]

    @cached_property
    def jit(self) -> JitAdapter:
        """A JiT with random weights, that of a layer that is initially 0 included."""
        with self.device:
            model = JitModel(self.extent.network).to(self.device)
        for module in model.modules():
            if isinstance(module, nn.Linear) and not module.weight.any():
                nn.init.normal_(module.weight, std=0.02)
        adapter = jit.adapt(model, floor=0.0)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(self.fast)
        return adapter

    def images(self, count: int) -> list[Request]:
        """Requests for the JiT, with guidance."""
        return [Request({"label": i % 10}, self.jit.size, i, 3.0) for i in range(count)]

    def pictures(self, count: int, scale: float = presets.GUIDANCE) -> list[Request]:
        """Requests for the embedded model; the first are the same for every count."""
        prompts = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
        size = self.extent.size
        return [Request({"prompt": p}, size, i, scale) for i, p in enumerate(prompts)]

    def plans(self, adapter: EmbeddedAdapter) -> dict[str, Plan]:
        """Shipped plans, at the resolutions that the size has."""
        size = self.extent.size
        factors = adapter.pool_factors(size)
        return {
            name: with_pool_factors(plans.load(name, size), factors) for name in self.extent.plans
        }


Found = Iterator[tuple[str, Any]]
"""Measurements by name, as they are made: those of a part that fails are kept."""


def agreement(setup: Setup) -> Found:
    requests = setup.pictures(setup.extent.pictures)
    reference = setup.embedded(torch.float32, torch.device("cpu"))
    chosen = setup.plans(reference)
    expected = {name: _pictures(reference, plan, requests) for name, plan in chosen.items()}
    if not setup.cuda:
        yield "cuda float32", NO_CUDA
        yield "cuda bfloat16", NO_CUDA
    wrong: list[str] = []
    for dtype, most in TOLERANCE.items():
        adapter = setup.embedded(getattr(torch, dtype))
        rows: dict[str, Any] = {}
        for name, plan in chosen.items():
            rows[name] = _difference(_pictures(adapter, plan, requests), expected[name])
            if not rows[name]["rms"] <= most:
                wrong.append(f"{name} in {dtype}: {rows[name]['rms']:.2g} > {most}")
        yield f"{setup.device.type} {dtype}", rows
    if wrong:
        raise Failed("; ".join(wrong))


def determinism(setup: Setup) -> Found:
    wrong: list[str] = []
    for dtype, most in TOLERANCE.items():
        adapter = setup.embedded(getattr(torch, dtype))
        plan = setup.plans(adapter)[setup.extent.plans[-1]]
        counts = {"alone": 1, "again": 1} | {f"of {n}": n for n in setup.extent.batches}
        firsts = {
            name: _pictures(adapter, plan, setup.pictures(count))[:1]
            for name, count in counts.items()
        }
        alone = firsts.pop("alone")
        rows = {name: _difference(each, alone) for name, each in firsts.items()}
        yield dtype, rows
        for name, row in rows.items():
            exact = name == "again" or adapter.batch == 1
            if not row["rms"] <= (0 if exact else most):
                wrong.append(f"{name} in {dtype}: {row['max']:.2g}")
    if wrong:
        raise Failed("; ".join(wrong))


def over_calls(setup: Setup) -> Found:
    extent = setup.extent
    adapter = setup.embedded(setup.fast)
    plan = schedules.plan_of(schedules.uniform(max(extent.steps // 2, 2)))
    for rows in extent.rows:
        found = overhead.over_calls(adapter, plan, setup.pictures(rows, 1.0), extent.repeats)
        yield f"network, {rows} rows", found
    if find_spec("diffusers") is None:
        yield "schedulers of diffusers", NO_DIFFUSERS
    for rows in extent.rows:
        found = overhead.per_step(
            setup.device, rows, steps=extent.steps, side=extent.size[0], repeats=extent.repeats
        )
        yield f"free network, {rows} rows", found


def sampler(setup: Setup) -> Found:
    extent = setup.extent
    requests = setup.images(extent.images)
    chosen = {
        "default": jit.plan(extent.heun_steps),
        "planned": jit.plan(extent.planned_steps, solver="corrected2"),
    }
    timed = {name: overhead.ticks(setup.jit, plan, requests) for name, plan in chosen.items()}
    found = overhead.alternated(timed, max(extent.repeats // 2, 3))
    for name, plan in chosen.items():
        yield (
            name,
            {
                "passes": plan.forwards,
                "seconds": overhead.median(found[name]),
                "images_per_second": overhead.median([len(requests) / s for s in found[name]]),
            },
        )
    yield "images_per_batch", len(requests)
    yield "speed_up", overhead.median(overhead.ratios(found["default"], found["planned"]))
    yield "passes_ratio", round(chosen["default"].forwards / chosen["planned"].forwards, 3)


def memory(setup: Setup) -> Found:
    extent = setup.extent
    [image] = setup.images(1)
    curve = costs.curve(setup.jit, image, extent.curve, extent.repeats)
    yield "curve", [asdict(each) | {"rows_per_second": round(each.rate, 1)} for each in curve]
    yield "knee", costs.knee(curve)
    fixed, slope = costs.peak_line(curve)
    yield "line", {"fixed_bytes": round(fixed), "bytes_per_row": round(slope)}
    for rows in extent.estimated:
        [call] = costs.curve(setup.jit, image, (rows,), 1)
        estimate = fixed + slope * rows
        yield (
            f"call of {rows} rows",
            {
                "estimated": round(estimate),
                "measured": call.peak_bytes,
                "measured_to_estimated": round(call.peak_bytes / estimate, 3),
            },
        )
    batcher = Batcher(setup.jit)
    batcher.add([jit.plan(2, solver="damped2")] * extent.images, setup.images(extent.images))
    batcher.tick()
    rows = min(setup.jit.batch or extent.images, extent.images) * 2
    tick = costs.peak_bytes(batcher.tick)
    yield (
        f"tick of {extent.images} pictures",
        {"estimated_call": round(fixed + slope * rows), "measured": tick},
    )


def compiled(setup: Setup) -> Found:
    if not setup.cuda:
        yield "torch.compile", NO_CUDA
        return
    extent, adapter = setup.extent, setup.jit
    count = 2 * extent.images
    context, _ = adapter.encode(setup.images(count))
    x_t = torch.randn(count, adapter.channels, *adapter.size, device=setup.device)
    t = torch.full((count,), 0.5, device=setup.device)
    faster: Any = torch.compile(adapter.model)
    both = {"plain": adapter, "compiled": replace(adapter, model=faster)}

    def call(name: str) -> float:
        with torch.inference_mode():
            return overhead.clocked(setup.device, lambda: both[name].denoise(x_t, t, context))

    yield "rows", count
    yield "first_call_seconds", {name: round(call(name), 3) for name in both}
    found = overhead.alternated({name: lambda n=name: call(n) for name in both}, extent.repeats)
    yield "ms_per_call", {n: overhead.median([1000 * s for s in found[n]]) for n in both}
    yield "speed_up", overhead.median(overhead.ratios(found["plain"], found["compiled"]))


def _pictures(adapter: EmbeddedAdapter, plan: Plan, requests: list[Request]) -> NDArray[np.float32]:
    return np.stack([made.picture for made in engine.run(adapter, plan, requests)])


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> dict[str, Any]:
    d = a.astype(np.float64) - b
    equal = bool((a == b).all())
    return {"equal": equal, "max": float(abs(d).max()), "rms": float(np.sqrt((d**2).mean()))}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the check: its time limit, and whether the exit status depends on it."""

    run: Callable[[Setup], Found]
    seconds: int
    correctness: bool = False


PARTS: Mapping[str, Part] = {
    "agreement": Part(agreement, 35, correctness=True),
    "determinism": Part(determinism, 25, correctness=True),
    "overhead": Part(over_calls, 40),
    "sampler": Part(sampler, 35),
    "memory": Part(memory, 20),
    "compiled": Part(compiled, 70),
}
"""Their limits are 225 seconds together."""


@contextmanager
def limit(seconds: float) -> Generator[None]:
    """Raise TimeoutError in the block after so many seconds, and again if it is swallowed."""

    def ring(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ran(name: str, part: Part, setup: Setup, say: Callable[[str], None]) -> dict[str, Any]:
    """What a part found: its status, error and measurements."""
    found: dict[str, Any] = {}
    began = time.monotonic()
    status, error = "done", None
    try:
        with limit(part.seconds):
            for key, value in part.run(setup):
                found[key] = value
                say(f"{name}: {key}: {json.dumps(value)[:160]}")
        if all(value == NO_CUDA for value in found.values()):
            status = NO_CUDA
    except Exception as problem:
        status, error = "failed", f"{type(problem).__name__}: {problem}"
        if time.monotonic() - began >= part.seconds:  # whatever became of the TimeoutError
            status, error = "out of time", f"It took longer than {part.seconds} s."
        elif not isinstance(problem, Failed):
            error = "".join(traceback.format_exception(problem)[-4:])
        say(f"{name} {status}: {error}")
    seconds = round(time.monotonic() - began, 1)
    return {
        "status": status,
        "seconds": seconds,
        "limit": part.seconds,
        "error": error,
        "found": found,
    }


QUICK = {"miniature": True, "out": results.QUICK / "gpu-check.json"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="default: a GPU if there is one")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check.json"))
    parser.set_defaults(miniature=False)


def run(given: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    device = devices.choose(given.device)
    setup = Setup(device, MINIATURE if given.miniature else Extent())
    say(f"on {profiler.machine(overhead.FreeAdapter(device))['device']}")
    parts = {name: ran(name, PARTS[name], setup, say) for name in given.parts}
    failed = [
        name
        for name, part in parts.items()
        if part["status"] in ("failed", "out of time") and PARTS[name].correctness
    ]
    report = {
        "miniature": given.miniature,
        "passed": not failed,
        "tolerance": TOLERANCE,
        "tf32": {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolutions": torch.backends.cudnn.allow_tf32,
        },
        "parts": parts,
    }
    chosen = {name: plans.load(name, setup.extent.size) for name in setup.extent.plans}
    whole = results.save(
        given.out,
        report,
        weights=[results.shipped()],
        plans=chosen,
        device=profiler.machine(overhead.FreeAdapter(device))["device"],
    )
    for name, part in parts.items():
        say(f"{name:12} {part['status']:18} {part['seconds']:6.1f} s of {part['limit']}")
    say(f"written to {given.out}")
    if failed:
        raise SystemExit(1)
    return whole
