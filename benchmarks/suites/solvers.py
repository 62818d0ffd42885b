"""Compare the solvers of asymflow and diffusers in few steps, by their error to the reference.

    python -m benchmarks solvers --dtype bfloat16

Every solver uses, for every number of steps and both metrics, the best of the shifted grids, which
is selected on separate pictures. Guidance is applied above t = 0.6 only. Resumes after an
interruption; writes solvers.json and solvers.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asymflow.bench import protocol
from asymflow.bench.baselines import samplers
from asymflow.core import presets, schedules
from asymflow.core.statistics import mean_interval
from asymflow.core.types import Solver
from asymflow.generation import pipeline
from asymflow.io.files import write_text
from asymflow.io.plots import new_figure
from asymflow.planning import calibration, verifier
from benchmarks import results

STEPS = (5, 6, 8, 12)
SHIFTS = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
OURS: tuple[Solver, ...] = ("multistep1", "multistep2", "damped2", "corrected2")
THEIRS = {"UniPC-2": partial(samplers.unipc, 2), "UniPC-3": partial(samplers.unipc, 3)} | {
    f"DPM-Solver++ {order}M": partial(samplers.dpm, order) for order in (2, 3)
}
CHOSEN, MEASURED = protocol.GRIDS_CHOSEN, protocol.SOLVERS_MEASURED
COLOURS = dict(
    zip(
        (*OURS, *THEIRS),
        ("#999999", "#2f6f9f", "#c0392b", "#5f9f4f", "#d98c2b", "#8e6fbf", "#3f9f9f", "#bf6f8f"),
        strict=True,
    )
)


def walk(solver: str, steps: int, shift: float, low: float) -> samplers.Walk:
    """x_0 of requests by so many steps of a solver, guided down to t = `low`."""
    if solver in THEIRS:
        return THEIRS[solver](steps, shift, (low, 1.0)).walk
    grid = schedules.shifted(steps, shift)
    plan = schedules.plan_of(
        grid, solver=next(each for each in OURS if each == solver), guidance_interval=(low, 1.0)
    )
    return lambda adapter, requests: verifier.rollout(adapter, plan, requests)


QUICK = {"choose": 1, "measure": 2, "work": results.QUICK / "solvers"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--choose", type=int, default=12, help="pictures that grids are chosen on")
    parser.add_argument("--measure", type=int, default=32)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--work", type=Path, default=Path("runs/solvers"))
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    model = pipeline.load(None, dtype=given.dtype, device=None)
    adapter, size = model.adapter, (64, 64)
    interval = presets.guidance_interval(size)
    features = protocol.perceptual(model)
    given.work.mkdir(parents=True, exist_ok=True)

    def evaluator(count: int, purpose: int) -> verifier.Evaluator:
        wanted = calibration.requests(adapter.card, size, presets.GUIDANCE, count, purpose)
        kept = given.work / f"reference-{adapter.name}-{given.dtype}-{purpose}-{count}.pt"
        if not kept.exists():
            made = verifier.Evaluator.of(adapter, wanted, verifier.rms, guidance_interval=interval)
            torch.save(made.reference, kept)
        reference = torch.load(kept, weights_only=True)
        return verifier.Evaluator(adapter, tuple(wanted), reference, verifier.rms, interval)

    cache = given.work / f"{adapter.name}-{given.dtype}-{given.choose}-{given.measure}.json"
    known: dict[str, Any] = json.loads(cache.read_text()) if cache.exists() else {}

    def measured(
        by: verifier.Evaluator, solver: str, steps: int, shift: float
    ) -> Mapping[str, Any]:
        key = f"{solver}, {steps} steps, shift {shift:g}, {len(by.requests)} pictures"
        if key not in known:
            go = walk(solver, steps, shift, interval[0])
            ends = torch.cat([go(adapter, [request]) for request in by.requests])
            rms = verifier.rms(ends, by.reference)
            known[key] = {
                "rms": float(np.sqrt(np.mean(np.square(rms)))),
                "median": float(np.median(rms)),
                "features": features(ends, by.reference).tolist(),
            }
            write_text(cache, json.dumps(known))
        return known[key]

    choose, measure = evaluator(given.choose, CHOSEN), evaluator(given.measure, MEASURED)
    rows: list[dict[str, Any]] = []
    for steps in STEPS:
        for solver in (*OURS, *THEIRS):
            tried = {shift: measured(choose, solver, steps, shift) for shift in SHIFTS}
            near = min(SHIFTS, key=lambda shift: tried[shift]["rms"])
            batchable = min(SHIFTS, key=lambda shift: float(np.mean(tried[shift]["features"])))
            found = measured(measure, solver, steps, near)
            distance = mean_interval(
                np.array(measured(measure, solver, steps, batchable)["features"], np.float32)
            )
            rows.append(
                {
                    "solver": solver,
                    "steps": steps,
                    "shift": {"rms": near, "features": batchable},
                    "rms": found["rms"],
                    "median": found["median"],
                    "features": asdict(distance),
                }
            )
            print(
                f"{steps:>3} steps  {solver:16} shift {near:g}  rms {found['rms']:.4f}  median "
                f"{found['median']:.4f}  shift {batchable:g}  features {distance.value:.4f}",
                flush=True,
            )
    report = {
        "adapter": adapter.name,
        "dtype": given.dtype,
        "pictures": {"chosen": given.choose, "measured": given.measure},
        "rows": rows,
    }
    here = (given.out or results.folder_of(adapter.name)) / "solvers"
    whole = results.save(here.with_suffix(".json"), report, **results.on(model))
    plot(rows).savefig(here.with_suffix(".png"), dpi=120)
    return whole


def plot(rows: list[dict[str, Any]]) -> Any:
    """Difference to the reference over steps, a line for every solver."""
    figure = new_figure(10, 4.4)
    both: Any = figure.subplots(1, 2)
    for axes, key, name in zip(
        both, ("rms", "features"), ("root mean square", "in features, mean"), strict=True
    ):
        for solver in (*OURS, *THEIRS):
            own = [row for row in rows if row["solver"] == solver]
            axes.plot(
                [row["steps"] for row in own],
                [row[key] if key == "rms" else row[key]["value"] for row in own],
                "o-" if solver in OURS else "s--",
                color=COLOURS[solver],
                linewidth=2.4 if solver == "damped2" else 1.2,
                label=solver,
            )
        axes.set(
            xlabel="steps", ylabel=f"difference to 64 steps, {name}", yscale="log", xticks=STEPS
        )
        axes.grid(alpha=0.25, which="both")
    both[0].legend(frameon=False, fontsize=9)
    return figure
