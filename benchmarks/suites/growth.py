"""Growth of time and memory with the size of pictures, for several plans.

    python -m benchmarks growth
    python -m benchmarks growth --sheet 256

The first writes growth.json and growth.png. *Uniform* is Heun's method with 50
steps and guidance, 99 full estimates: one is measured, and time is multiplied. *Planned* is the
default plan of 64 px at that size, *lighter* the same with sequential guidance, and *pooled* that
plan evaluated at 64 px. One estimate per tier is measured, and times are added up. The peak is that
of the largest estimate, beyond the weights.

The second draws one scene at those sides, with 12 full steps and with the pooled plan, and writes
growth-sheet.png, for a visual comparison: the network was trained up to 128 px.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asymflow.core import engine, presets
from asymflow.core.estimators import Guided, estimate
from asymflow.core.schedules import candidates, plan_of
from asymflow.core.transforms import pooled, rescaled, with_sequential_guidance
from asymflow.core.types import FULL, Plan, Request, Step, Tier
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded import plans
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.planning import costs, profiler
from benchmarks import results

UNIFORM = 99
"""Estimates of Heun's method with 50 steps: two each, but for the last one."""
SIDES = (32, 64, 128, 256, 512)
NATIVE = 64
"""The side of the pooled plan, for which the default plan was made."""
NAMES = ("uniform", "planned", "lighter", "pooled")

QUICK = {"sides": [32, 64], "repeats": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIDES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sheet", type=int, nargs="+", metavar="SIDE")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its profiler warns at every start

    adapter = embedded.load()
    out = given.out or results.folder_of(adapter.name)
    if given.sheet:
        write_sheet(adapter, given.sheet, out / "growth-sheet.png")
        return {}
    rows: list[dict[str, Any]] = []
    for side in given.sides:
        rows.append(measured(adapter, side, given.repeats))
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "adapter": adapter.name,
        "uniform": f"{UNIFORM} times the time of one full estimate, and its peak",
        **profiler.machine(adapter),
        "repeats": given.repeats,
        "rows": rows,
        "exponents": {
            name: {what: exponent(rows, name, what) for what in ("ms", "peak_bytes")}
            for name in NAMES
        },
    }
    default = plans.load(plans.DEFAULT, (NATIVE, NATIVE))
    described = results.on_adapters([adapter], {plans.DEFAULT: default})
    whole = results.save(out / "growth.json", report, **described)
    with replacing(out / "growth.png") as file:
        drawn(rows).savefig(file, format="png", dpi=120)
    return whole


@torch.inference_mode()
def measured(adapter: EmbeddedAdapter, side: int, repeats: int) -> dict[str, Any]:
    """Milliseconds and peak bytes of one picture of side x side pixels, by plan."""
    size = (side, side)
    planned = rescaled(plans.load(plans.DEFAULT, (NATIVE, NATIVE)), side / NATIVE)
    uniform = Plan("uniform", (Step(1.0, 0.0, FULL),))
    chosen = {
        "uniform": uniform,
        "planned": planned,
        "lighter": with_sequential_guidance(planned),
        "pooled": pooled_plan(side),
    }
    tiers = tuple({step.tier for plan in chosen.values() for step in plan.steps})
    request = Request({"prompt": "a cat left of a dog"}, size, 0, presets.GUIDANCE)
    scale = torch.tensor([request.guidance_scale])
    model = Guided.of(adapter, *adapter.encode([request]), scale)
    x_t = engine.noise(0, (1, adapter.channels, *size))
    time = torch.full((1,), 0.5)
    _, memory = estimate(model, FULL, x_t, time, None)

    def call(tier: Tier) -> costs.Call:
        return lambda: estimate(model, tier, x_t, time, memory)

    calls = [call(tier) for tier in tiers]
    ms = dict(zip(tiers, costs.fastest(calls, repeats), strict=True))
    peaks = {tier: costs.peak_bytes(each) for tier, each in zip(tiers, calls, strict=True)}
    found: dict[str, Any] = {"side": side}
    for name, plan in chosen.items():
        times = UNIFORM if name == "uniform" else 1
        found[name] = {
            "ms": 1000 * times * sum(ms[step.tier] for step in plan.steps),
            "peak_bytes": max(peaks[step.tier] for step in plan.steps),
        }
    return found


def pooled_plan(side: int) -> Plan:
    """The default plan evaluated at `NATIVE`, with sequential guidance."""
    return with_sequential_guidance(
        pooled(plans.load(plans.DEFAULT, (side, side)), max(1, side // NATIVE))
    )


def write_sheet(adapter: EmbeddedAdapter, sides: list[int], path: Path) -> None:
    """A scene on white: a row for every side, 12 full steps on the left, pooled on the right."""
    figure = new_figure(9, 4.6 * len(sides))
    for row, side in enumerate(sides):
        size = (side, side)
        full = plan_of(candidates(size, 12), name="12 full steps")
        inputs = {"prompt": "a cat left of a dog", "style": "noto"}
        request = Request(inputs, size, 0, presets.GUIDANCE)
        named = {full.name: full, "pooled": pooled_plan(side)}
        for column, (name, plan) in enumerate(named.items(), 1):
            [result] = engine.run(adapter, plan, [request])
            title = f"{side} px, {name}, {result.seconds:.1f} s"
            print(title, flush=True)
            axes: Any = figure.add_subplot(len(sides), 2, 2 * row + column, title=title)
            picture = result.picture
            axes.imshow((picture[..., :3] + 1 - picture[..., 3:]).clip(0, 1), interpolation="none")
            axes.axis("off")
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)


def exponent(rows: list[dict[str, Any]], name: str, what: str) -> float:
    """Of the number of pixels, by least squares on logarithms, from 64 px on."""
    large = [row for row in rows if row["side"] >= 64]
    if len(large) < 2:
        return math.nan
    pixels = np.log([row["side"] ** 2 for row in large])
    return round(float(np.polyfit(pixels, np.log([row[name][what] for row in large]), 1)[0]), 3)


def drawn(rows: list[dict[str, Any]]) -> Any:
    """Time and memory over the side, on logarithmic axes."""
    figure = new_figure(9, 3.8)
    sides = [row["side"] for row in rows]
    for i, (what, unit, by) in enumerate((("ms", "seconds", 1e3), ("peak_bytes", "MB", 1e6)), 1):
        axes: Any = figure.add_subplot(1, 2, i, xlabel="side in pixels", ylabel=unit)
        for name, line in zip(NAMES, ("-", "--", ":", "-."), strict=True):
            values = [row[name][what] / by for row in rows]
            axes.plot(sides, values, line, marker="o", label=name, linewidth=2)
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(sides, [str(side) for side in sides])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle("One picture: uniform is 99 times one guided estimate (Heun, 50 steps)")
    return figure
