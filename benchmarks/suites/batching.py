"""Continuous batching with a network that costs nothing, and the time that the engine takes.

    OMP_NUM_THREADS=1 python -m benchmarks batching

The clock of `load` is simulated: one call of the network is one tick. Pictures arrive at random at
80% of what the network can make, with at most 8 in a call, and prompts of five lengths that the
adapter pads to buckets. Compared are, for the same arrivals:

- `one`: every picture has the same plan, of 10 estimates and 15 passes (NFE).
- `mixed`: four plans, of 4 to 16 estimates and 4 to 22 passes, the same on average.
- `tiers`: those plans with the first part of two of them at half the side. Calls are counted for
  each shape; beside rows there are pictures per call, since stages at half the side have other
  guidance.

A ratio is of rows or pictures per call to those of `one`. `waiting` is the number of ticks that a
picture takes beyond its estimates.

`poisoned` makes 32 pictures together of which one becomes NaN. `engine` is the time of the engine
beside network calls and beside the schedulers of diffusers: processor time, each pair or group
alternating, as medians with 95% intervals. A `run` has, beside its `ticks`, the encoding of the
prompt by the model's own text encoder and the conversion to a picture; `parts` is that ratio from
the parts, which are measured alone and are short. Other work on the machine
widens the intervals: `load_average` is that of the machine before and after.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from asymflow.core import engine, schedules
from asymflow.core.adapter import Context
from asymflow.core.batcher import Batcher
from asymflow.core.statistics import mean_interval
from asymflow.core.types import CONDITIONAL, FULL, Plan, Request, Step, Tier
from asymflow.models.embedded import adapter as embedded
from benchmarks import results
from benchmarks.suites import overhead
from benchmarks.suites.overhead import FreeAdapter

LIMIT = 8
"""Pictures per tick."""
LOAD = 0.8
PROMPTS = (3, 8, 20, 33, 77)
"""Tokens of prompts."""
BUCKETS = (8, 32, 77)
SIZE = (8, 8)
TARGET = 0.87
MOST_OVERHEAD = 1.02
HALF, HALF_CONDITIONAL = Tier("half", pool_factor=2), Tier("half", pool_factor=2, guided=False)


def plan_of(steps: int, guided: int, small: int = 0) -> Plan:
    """A plan of so many steps, of which the first are guided and the first `small` at half."""
    grid = schedules.uniform(steps)
    tiers = [
        (HALF if i < guided else HALF_CONDITIONAL)
        if i < small
        else FULL
        if i < guided
        else CONDITIONAL
        for i in range(steps)
    ]
    moves = zip(grid, grid[1:], tiers, strict=False)
    return Plan(f"{steps} steps", tuple(Step(t, s, tier) for t, s, tier in moves))


ONE = (plan_of(10, 5),)
MIXED = (plan_of(4, 0), plan_of(8, 8), plan_of(12, 6), plan_of(16, 6))
TIERS = (plan_of(4, 0), plan_of(8, 8, 4), plan_of(12, 6), plan_of(16, 6, 8))
SCENARIOS: Mapping[str, tuple[Plan, ...]] = {"one": ONE, "mixed": MIXED, "tiers": TIERS}


@dataclass(frozen=True, slots=True, eq=False)
class Counting(FreeAdapter):
    """Notes the shape of every call; prompts of any length share them, padded to a bucket.

    A picture whose prompt begins with 1 becomes NaN.
    """

    shapes: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        tokens = [torch.tensor(request.inputs["tokens"])[None] for request in requests]
        cond = self.collate([{"tokens": each} for each in tokens])
        return cond, {"tokens": torch.zeros_like(cond["tokens"])}

    def collate(self, contexts: Sequence[Context]) -> Context:
        most = max(each["tokens"].shape[1] for each in contexts)
        length = next(bucket for bucket in BUCKETS if bucket >= most)
        padded = [
            functional.pad(each["tokens"], (0, length - each["tokens"].shape[1]))
            for each in contexts
        ]
        return {"tokens": torch.cat(padded)}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.shapes.append((*x_t.shape, context["tokens"].shape[1]))
        poison = torch.where(context["tokens"][:, 0] == 1, math.nan, 0.0)
        return 0.5 * x_t + poison.view(-1, 1, 1, 1)


def request(seed: int, tokens: int, first: int = 0) -> Request:
    return Request({"tokens": [first] + [2] * (tokens - 1)}, SIZE, seed, 2.0)


QUICK = {"seeds": 2, "ticks": 60, "rows": [1, 4], "repeats": 3, "out": results.QUICK}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=12, help="of arrivals")
    parser.add_argument("--ticks", type=int, default=1500, help="of a simulation")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    average = [os.getloadavg()]
    adapter = embedded.load()
    out = given.out or results.folder_of(adapter.name)
    report: dict[str, Any] = {
        "note": "other work ran on the machine: see load_average; times are processor time",
        "load": loaded(given.seeds, given.ticks),
        "poisoned": poisoned(),
        "engine": timed(given.rows, given.repeats),
        "cpus": os.cpu_count(),
    }
    average.append(os.getloadavg())
    report["load_average"] = [round(each[0], 1) for each in average]
    whole = results.save(out / "batching.json", report, **results.on_adapters([adapter]))
    print(json.dumps(whole, indent=1))
    return whole


# Load


def loaded(seeds: int, ticks: int) -> dict[str, Any]:
    """All scenarios with each seed, and the ratios to `one`, as means over seeds."""
    began = time.monotonic()
    runs = {
        name: [simulated(chosen, seed, ticks) for seed in range(seeds)]
        for name, chosen in SCENARIOS.items()
    }
    found: dict[str, Any] = {
        "limit": LIMIT,
        "load": LOAD,
        "seeds": seeds,
        "ticks": ticks,
        "prompts": PROMPTS,
        "buckets": BUCKETS,
        "plans": {
            name: [{"estimates": len(p.steps), "passes": p.forwards} for p in chosen]
            for name, chosen in SCENARIOS.items()
        },
    }
    for name, own in runs.items():
        shapes = {shape for one in own for shape in one["calls"]}
        found[name] = {"waiting": over_seeds([one["waiting"] for one in own]), "shapes": {}}
        for shape in sorted(shapes, reverse=True):
            row = {"share_of_calls": over_seeds([one["share"][shape] for one in own])}
            for what in ("rows", "pictures"):
                values = [one["calls"][shape][what] for one in own]
                base = [one["calls"]["full"][what] for one in runs["one"]]
                row[f"{what}_per_call"] = over_seeds(values)
                row[f"{what}_ratio"] = over_seeds(overhead.ratios(values, base))
            found[name]["shapes"][shape] = row
    worst = min(
        row[f"{what}_ratio"]["value"]
        for name in ("mixed", "tiers")
        for row in found[name]["shapes"].values()
        for what in ("rows", "pictures")
    )
    found |= {"target": TARGET, "worst_ratio": worst, "reached": worst >= TARGET}
    print(f"load: {time.monotonic() - began:.0f} s, worst ratio {worst:.3f}", flush=True)
    return found


def simulated(chosen: Sequence[Plan], seed: int, ticks: int) -> dict[str, Any]:
    """Pictures of some plans that arrive at random, for so many ticks."""
    arrivals, kinds = np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1))
    adapter = Counting(torch.device("cpu"))
    batcher = Batcher(adapter, LIMIT)
    rate = LOAD * LIMIT / statistics.fmean(len(plan.steps) for plan in chosen)
    begun: dict[int, int] = {}
    waiting: list[int] = []
    asked: dict[str, list[tuple[int, int]]] = {}
    pictures = 0
    for tick in range(ticks):
        for _ in range(arrivals.poisson(rate)):
            plan = chosen[int(kinds.integers(len(chosen)))]
            length = PROMPTS[int(kinds.integers(len(PROMPTS)))]
            [number] = batcher.add([plan], [request(pictures, length)])
            begun[number], pictures = tick, pictures + 1
        frame = batcher.tick()
        if frame is None:
            continue
        [(rows, _, side, _, _)] = adapter.shapes
        adapter.shapes.clear()
        shape = "full" if side == SIZE[0] else "half"
        asked.setdefault(shape, []).append((rows, len(frame.moves)))
        for move in frame.moves:
            if move.last:
                waiting.append(tick + 1 - begun[move.picture] - move.count)
    calls = sum(len(each) for each in asked.values())
    return {
        "waiting": statistics.fmean(waiting),
        "share": {shape: len(each) / calls for shape, each in asked.items()},
        "calls": {
            shape: {
                "rows": statistics.fmean(rows for rows, _ in each),
                "pictures": statistics.fmean(count for _, count in each),
            }
            for shape, each in asked.items()
        },
    }


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """The mean with its 95% interval."""
    return {name: round(value, 3) for name, value in asdict(mean_interval(values)).items()}


def poisoned() -> dict[str, Any]:
    """32 pictures of four plans, one of which becomes NaN: who fails, and who is as made alone."""
    adapter = Counting(torch.device("cpu"))
    batcher = Batcher(adapter, isolated=True)
    requests = [request(i, PROMPTS[i % 5], int(i == 17)) for i in range(32)]
    chosen = [MIXED[i % 4] for i in range(32)]
    batcher.add(chosen, requests)
    ends: dict[int, Tensor] = {}
    failed: dict[int, str] = {}
    while (frame := batcher.tick()) is not None:
        ends |= {m.picture: x for m, x in zip(frame.moves, frame.x_t, strict=True) if m.last}
        failed |= {number: str(error) for number, error in frame.failed}
    equal = sum(
        torch.equal(end, engine.rollout(adapter, chosen[i], [requests[i]])[0].x_0)
        for i, end in ends.items()
    )
    return {"pictures": 32, "failed": failed, "made": len(ends), "equal_to_alone": equal}


# Time


def timed(rows: Sequence[int], repeats: int) -> dict[str, Any]:
    """Operators and time of ticks, and the overhead over calls of the embedded model."""
    cpu = torch.device("cpu")
    grid = schedules.uniform(20)
    found: dict[str, Any] = {
        "operators_per_tick": {
            solver: {
                str(count): overhead.operators(count, schedules.plan_of(grid, solver=solver))
                for count in rows
            }
            for solver in overhead.SOLVERS
        },
        "free_network": {
            str(count): overhead.per_step(cpu, count, steps=20, side=64, repeats=repeats)
            for count in rows
        },
    }
    model = embedded.load()
    plan = schedules.plan_of(schedules.uniform(15))  # as many passes as the default plan
    one = [Request({"prompt": "a fox"}, embedded.DEFAULT_SIZE)]
    found["embedded"] = overhead.over_calls(model, plan, one, repeats)
    measured = {
        name: found["embedded"][f"{name}_to_calls"]["value"] for name in ("ticks", "run", "parts")
    }
    found |= {
        "target": MOST_OVERHEAD,
        "reached": {name: value <= MOST_OVERHEAD for name, value in measured.items()},
    }
    text = ", ".join(f"{name} {value:.4f}" for name, value in measured.items())
    print(f"engine: {text} times bare calls", flush=True)
    return found
