"""Time beside network calls: of the engine, and of diffusers' schedulers on the same states.

On a GPU it is wall time with the queued work, on a CPU processor time: other work on the machine
disturbs that less.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from asymflow.bench.baselines import samplers
from asymflow.core import calls, devices, engine, schedules
from asymflow.core.adapter import Adapter, Context
from asymflow.core.batcher import Batcher
from asymflow.core.compiler import noise
from asymflow.core.statistics import bootstrap_interval
from asymflow.core.types import Picture, Plan, Request, Solver
from asymflow.models import gaussian

Timed = Callable[[], float]
"""Does something, and returns how many seconds of it count."""
SOLVERS: tuple[Solver, ...] = ("euler", "multistep2", "damped2", "corrected2")
SCHEDULERS: Mapping[str, Mapping[str, Any]] = {
    "FlowMatchEulerDiscreteScheduler": {},
    "UniPCMultistepScheduler": {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
    "DPMSolverMultistepScheduler": {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
}
"""Those of diffusers, with the options for flow models."""


@dataclass(frozen=True, slots=True, eq=False)
class FreeAdapter:
    """A network that costs nothing: its estimate is the state."""

    device: torch.device
    name = "free"
    channels = 4
    batch = None

    @property
    def template(self) -> Tensor:
        return torch.empty(0, device=self.device)

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return gaussian.pool_factors(size)

    def check(self, request: Request) -> None:
        pass

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        rows = torch.zeros(len(requests), 1, device=self.device)
        return {"rows": rows}, {"rows": rows}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return x_t

    def to_state(self, picture: Picture) -> Tensor:
        return gaussian.to_state(picture)

    def to_picture(self, x_0: Tensor) -> Picture:
        return gaussian.to_picture(x_0)


def clocked(device: torch.device, call: Callable[[], object]) -> float:
    """Seconds of a call: processor time on a CPU, else wall time with the work it queued."""
    if device.type == "cpu":
        began = time.process_time()
        call()
        return time.process_time() - began
    devices.synchronize(device)
    began = time.perf_counter()
    call()
    devices.synchronize(device)
    return time.perf_counter() - began


def alternated(timed: Mapping[str, Timed], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, after one warm-up. They take turns, each round begun by another one."""
    names = list(timed)
    for each in timed.values():
        each()
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        begin = turn % len(names)
        for name in names[begin:] + names[:begin]:
            found[name].append(timed[name]())
    return found


def median(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """The median with its 95% interval."""
    found = asdict(bootstrap_interval(values, np.median))
    return {name: round(value, digits) for name, value in found.items()}


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """a over b, round by round."""
    return [x / y for x, y in zip(a, b, strict=True)]


def ticks(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> Timed:
    """All ticks of a batcher that makes pictures; compiling and encoding do not count."""

    def timed() -> float:
        batcher = Batcher(adapter)
        batcher.add([plan] * len(requests), requests)

        def run() -> None:
            while batcher.tick() is not None:
                pass

        return clocked(adapter.template.device, run)

    return timed


def bare(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> Timed:
    """The network calls of the same rows, without an engine; for pictures without guidance."""
    own = calls.split(adapter, *adapter.encode(requests), len(requests))
    shape = (1, adapter.channels, *requests[0].size)
    x_t = noise(0, shape).to(adapter.template).repeat(len(requests), 1, 1, 1)
    parts = [x_t[: call.count] for call in own]
    evaluations = sum(step.evaluations for step in plan.steps)

    @torch.inference_mode()
    def run() -> None:
        for _ in range(evaluations):
            for call, part in zip(own, parts, strict=True):
                adapter.denoise(part, part.new_full((call.count,), 0.5), call.cond)

    return lambda: clocked(adapter.template.device, run)


def over_calls(
    adapter: Adapter, plan: Plan, requests: Sequence[Request], repeats: int
) -> dict[str, Any]:
    """Time of a whole run, and of its ticks alone, as ratios to bare network calls.

    The ratios are of long times, which other work on the machine disturbs. `parts_to_calls` is the
    ratio of a whole run from its parts, which are short: `encode` is the model's own encoding of
    the prompts, `engine` a whole run with a network that costs nothing.
    """
    device = adapter.template.device
    free = FreeAdapter(device)

    @torch.inference_mode()
    def encode() -> object:
        return adapter.encode(requests)

    found = alternated(
        {
            "run": lambda: clocked(device, lambda: engine.run(adapter, plan, requests)),
            "ticks": ticks(adapter, plan, requests),
            "calls": bare(adapter, plan, requests),
            "encode": lambda: clocked(device, encode),
            "engine": lambda: clocked(device, lambda: engine.run(free, plan, requests)),
        },
        repeats,
    )
    parts = zip(found["encode"], found["engine"], found["calls"], strict=True)
    return {
        "ms": {name: median([1000 * each for each in found[name]]) for name in found},
        "run_to_calls": median(ratios(found["run"], found["calls"])),
        "ticks_to_calls": median(ratios(found["ticks"], found["calls"])),
        "parts_to_calls": median([1 + (a + b) / c for a, b, c in parts]),
    }


def scheduler_steps(name: str, device: torch.device, rows: int, side: int, steps: int) -> Timed:
    """The steps of a scheduler of diffusers, with a network that costs nothing."""
    kind = getattr(samplers.library(), name)
    sample = noise(0, (1, FreeAdapter.channels, side, side)).to(device).repeat(rows, 1, 1, 1)

    def timed() -> float:
        scheduler = kind(**SCHEDULERS[name])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, in diffusers
            scheduler.set_timesteps(steps, device=device)
        scheduler.set_begin_index(0)

        @torch.inference_mode()
        def run() -> None:
            x_t = sample
            for t in scheduler.timesteps:
                x_t = scheduler.step(x_t, t, x_t, return_dict=False)[0]

        return clocked(device, run)

    return timed


def per_step(
    device: torch.device, rows: int, *, steps: int, side: int, repeats: int
) -> dict[str, Any]:
    """Microseconds per step of all rows with a network that costs nothing, and as a ratio.

    The engine's include all that a tick does; a scheduler's only its `step`. `to_euler` is the
    ratio to FlowMatchEulerDiscreteScheduler, round by round. Without diffusers the engine's are
    measured alone.
    """
    adapter = FreeAdapter(device)
    requests = [Request({}, (side, side), seed) for seed in range(rows)]
    timed = {
        f"asymflow {solver}": ticks(
            adapter, schedules.plan_of(schedules.uniform(steps), solver=solver), requests
        )
        for solver in SOLVERS
    }
    if find_spec("diffusers") is not None:
        timed |= {name: scheduler_steps(name, device, rows, side, steps) for name in SCHEDULERS}
    found = alternated(timed, repeats)
    euler = found.get("FlowMatchEulerDiscreteScheduler")
    report: dict[str, Any] = {}
    for name, seconds in found.items():
        us = [1e6 * each / steps for each in seconds]
        report[name] = {
            "us_per_step": median(us, 1),
            "us_per_step_and_row": median([each / rows for each in us], 2),
        }
        if euler is not None:
            report[name]["to_euler"] = median(ratios(seconds, euler), 3)
    return report


class _Operators(TorchDispatchMode):
    """Counts the operators that reach PyTorch's dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operators(rows: int, plan: Plan, side: int = 64) -> float:
    """PyTorch operators per tick, for so many pictures of a plan and a free network."""
    batcher = Batcher(FreeAdapter(torch.device("cpu")))
    batcher.add([plan] * rows, [Request({}, (side, side), seed) for seed in range(rows)])
    made = 0
    with _Operators() as counted:
        while batcher.tick() is not None:
            made += 1
    return counted.count / made
