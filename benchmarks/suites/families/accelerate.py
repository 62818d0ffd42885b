"""Compare `accelerate(pipe, plan="auto")` with diffusers' schedulers, on two small models.

    python -m benchmarks families accelerate unet runs/families/unet data/emoji
    python -m benchmarks families accelerate jit runs/families/jit.pth data/emoji

writes accelerate-MODEL.json, .png and -sheet.png: one model in one run, with its pipeline unchanged
except for the scheduler. `families train` trains the models. The samplers:

- the **default** of the pipeline: `DDPMPipeline` with 1000 steps of `DDPMScheduler`, the JiT with
  50 Heun steps;
- the **baseline** of `accelerate`: 50 steps of DDIM or Heun;
- **others**: all compatible schedulers, grids and orders of diffusers, with increasing numbers of
  steps until one is equal in both metrics below;
- **asymflow**: the plan of `accelerate`, made in this run, its cost, and plans for the price of a
  few steps.

Two metrics define equal quality, on the same held-out noise for all:

- **KID**: the 95% interval of the difference of KID to the baseline does not lie above zero. The
  noise and the real pictures are shared, so this interval is narrower than those of the two KIDs.
  With few pictures the criterion is lenient.
- **path**: the mean distance to the limit of many steps is at most that of the baseline, or one
  level of a byte.

Numbers of steps are tried in increasing order, and the first equal one counts. The others have
eleven or fifteen configurations, which favours them.
Times are of one picture at a time, interleaved, relative to the plan of `accelerate`: wall time,
and processor time, which other programs on the machine affect less. Ratios are medians over the
rounds with their 95% intervals; results from before intervals have the medians only.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

import asymflow
from asymflow.bench import metrics
from asymflow.core.schedules import plan_of
from asymflow.core.statistics import Interval, mean_interval, t_interval
from asymflow.core.types import Plan
from asymflow.generation.sheets import sheet
from asymflow.integrations.diffusers.original import Baseline
from asymflow.integrations.diffusers.task import FINE
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.models.diffusers.families import UNCONDITIONAL
from asymflow.models.diffusers.own import default_steps, refined
from asymflow.models.diffusers.pipelines import Family, copy_of, name_of, quiet
from asymflow.planning import plan_files, verifier
from asymflow.planning.selection import UNSEEN
from asymflow.training.data.dataset import Dataset
from benchmarks import results
from benchmarks.suites.families import pipelines
from benchmarks.suites.families.measuring import (
    Taken,
    by_turns,
    features_of,
    milliseconds,
    ratio,
    rgba,
)
from benchmarks.suites.families.train import STYLES, Faces

diffusers: Any = importlib.import_module("diffusers")  # whose own types do not describe its calls

COUNTS = (4, 6, 8, 10, 12, 16, 20, 25)
OURS = (4, 6, 8, 10)
"""Prices of plans, in full estimates. The result of the UNet is older than the first."""
COLOURS: Any = colormaps["tab20"]
BATCH = 32
FIRST_SEED = 100_000
"""Plans are chosen and measured on seeds below."""

Call = Callable[[Sequence[int]], Tensor]
"""Pictures [b, 3, h, w] in [0, 1] of these seeds."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A pipeline and the arguments of its calls.

    Attributes:
        arguments: arguments of a call for given seeds.
        default: name of its own sampler.
        schedulers: (name, kind, configuration) of the other schedulers.
    """

    pipe: Any
    family: Family
    arguments: Callable[[Sequence[int]], dict[str, Any]]
    default: str
    schedulers: tuple[tuple[str, str, dict[str, Any]], ...]

    def call(self, pipe: Any, scheduler: Any, steps: int) -> Call:
        def made(seeds: Sequence[int]) -> Tensor:
            generator = [torch.Generator().manual_seed(seed) for seed in seeds]
            arguments = {**self.arguments(seeds), "generator": generator, "output_type": "pt"}
            own = copy_of(pipe, scheduler=scheduler, **quiet(pipe))
            with warnings.catch_warnings():
                # A scheduler converts a tensor to numpy in a way that numpy 2 deprecates.
                warnings.simplefilter("ignore", DeprecationWarning)
                return own(**arguments, num_inference_steps=steps).images

        return made

    def passes(self, call: Call) -> int:
        """Rows of network calls for one picture."""
        with counted(self.pipe, self.family) as rows:
            call([FIRST_SEED])
        return sum(rows)


@contextmanager
def counted(pipe: Any, family: Family) -> Generator[list[int]]:
    """Record the rows of every call of the network of a pipeline."""
    network, rows = getattr(pipe, family.network), list[int]()
    forward, signature = network.forward, inspect.signature(network.forward)

    def counting(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(signature.bind(*args, **kwargs).arguments[family.state]))
        return forward(*args, **kwargs)

    network.forward = counting
    try:
        yield rows
    finally:
        del network.forward


def unet(path: Path) -> Subject:
    pipe = diffusers.DDPMPipeline.from_pretrained(path)
    trailing = {"timestep_spacing": "trailing"}
    karras, lu = {"use_karras_sigmas": True}, {"use_lu_lambdas": True}
    dpm, unipc = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
    schedulers: list[tuple[str, str, dict[str, Any]]] = [
        ("DDIM, leading", "DDIMScheduler", {}),
        ("DDIM, trailing", "DDIMScheduler", trailing),
        ("PNDM, trailing", "PNDMScheduler", {**trailing, "skip_prk_steps": True}),
        ("DPM-Solver++ 2M, trailing", dpm, trailing),
        ("DPM-Solver++ 2M, Karras", dpm, karras),
        ("DPM-Solver++ 2M, Lu", dpm, lu),
        ("DPM-Solver++ 3M, trailing", dpm, {**trailing, "solver_order": 3}),
        ("DPM-Solver++ 3M, Lu", dpm, {**lu, "solver_order": 3}),
        ("UniPC 2, trailing", unipc, trailing),
        ("UniPC 2, Karras", unipc, karras),
        ("UniPC 3, trailing", unipc, {**trailing, "solver_order": 3}),
    ]
    return Subject(
        pipe,
        UNCONDITIONAL,
        lambda seeds: {"batch_size": len(seeds)},
        "DDPM 1000",
        tuple(schedulers),
    )


def jit(path: Path) -> Subject:
    pipe = pipelines.load(path)
    schedulers: list[tuple[str, str, dict[str, Any]]] = []
    for shift in (0.5, 1.0, 2.0):
        flow = {
            "use_flow_sigmas": True,
            "flow_shift": shift,
            "prediction_type": "flow_prediction",
        }
        for name, kind, options in (
            ("Euler", "FlowMatchEulerDiscreteScheduler", {"shift": shift}),
            ("Heun", "FlowMatchHeunDiscreteScheduler", {"shift": shift}),
            ("DPM-Solver++ 2M", "DPMSolverMultistepScheduler", flow),
            ("UniPC 2", "UniPCMultistepScheduler", flow),
            ("UniPC 3", "UniPCMultistepScheduler", {**flow, "solver_order": 3}),
        ):
            schedulers.append((f"{name}, shift {shift:g}", kind, options))
    return Subject(
        pipe,
        pipelines.FAMILY,
        lambda seeds: {"class_labels": [seed % len(STYLES) for seed in seeds]},
        "Heun 50",
        tuple(schedulers),
    )


SUBJECTS = {"unet": unet, "jit": jit}


def scheduler_of(subject: Subject, kind: str, options: dict[str, Any]) -> Any:
    """A scheduler with what the model was trained on, whose step ignores what it has no use for."""
    own: Any = getattr(diffusers, kind)

    def step(self: Any, *args: Any, generator: Any = None, **named: Any) -> Any:
        return own.step(self, *args, **named)

    return type(kind, (own,), {"step": step}).from_config(subject.pipe.scheduler.config, **options)


@dataclass(frozen=True, slots=True)
class Row:
    """Cost and quality of one sampler.

    Attributes:
        passes: network passes for one picture.
        kid: KID to the real pictures, times 1000.
        more: difference of KID to the baseline.
        rms: RMSE to the limit, for pictures in [-1, 1].
        path: whether `rms` is at most that of the baseline, or invisible.
    """

    name: str
    group: str
    steps: int
    passes: int
    kid: Interval
    more: Interval
    rms: Interval
    path: bool

    @property
    def equal(self) -> bool:
        """In KID."""
        return bool(self.more.low <= 0)


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """What samplers are measured by: the limit, and the baseline's pictures of the same noise.

    Attributes:
        real: features [m, d].
        limit, baseline: pictures [n, 3, h, w].
        seen: features of the baseline's [n, d].
    """

    real: NDArray[np.float32]
    limit: Tensor
    baseline: Tensor
    seen: NDArray[np.float32]

    def row(self, name: str, group: str, steps: int, passes: int, made: Tensor) -> Row:
        found = features_of(made)
        errors = verifier.rms(2 * made, 2 * self.limit)
        most = verifier.rms(2 * self.baseline, 2 * self.limit).mean()
        return Row(
            name,
            group,
            steps,
            passes,
            metrics.kid(found, self.real),
            difference(found, self.seen, self.real),
            mean_interval(errors),
            bool(errors.mean() <= max(most, UNSEEN)),
        )


def difference(x: metrics.Array, y: metrics.Array, real: metrics.Array) -> Interval:
    """KID of x [n, d] to the real pictures [m, d] less that of y, times 1000.

    Row i of x and row i of y come from the same noise; the interval leaves out both at once, and
    one real picture at a time (the jackknife of `metrics.kid`).
    """

    def gram(a: metrics.Array, b: metrics.Array) -> NDArray[np.float64]:
        product = np.asarray(a, np.float64) @ np.asarray(b, np.float64).T
        return (product / a.shape[1] + 1) ** 3

    n, m = len(x), len(real)
    own = gram(x, x) - gram(y, y)
    np.fill_diagonal(own, 0)
    cross = gram(x, real) - gram(y, real)
    s_own, s_cross = own.sum(), cross.sum()
    value = float(s_own / (n * (n - 1)) - 2 * s_cross / (n * m))
    rows = (s_own - 2 * own.sum(1)) / ((n - 1) * (n - 2)) - 2 * (s_cross - cross.sum(1)) / (
        (n - 1) * m
    )
    columns = -2 * (s_cross - cross.sum(0)) / (n * (m - 1))
    error = math.sqrt(sum((len(part) - 1) * part.var() for part in (rows, columns)))
    return t_interval(1000 * value, 1000 * error, min(n, m) - 1)


def pictures(call: Call, count: int) -> Tensor:
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    return torch.cat([call(seeds[i : i + BATCH]) for i in range(0, count, BATCH)])


def automatic(
    subject: Subject, folder: Path, steps: int | None = None
) -> tuple[Plan, dict[str, float]]:
    """The plan of `accelerate` and its cost, in the first and in later calls."""
    # Calls that the plan is measured with: one picture per call, cycling through the classes.
    calls = [subject.arguments([seed]) for seed in range(len(STYLES))]
    found: dict[str, float] = {}
    accelerated: Any = None
    for when in ("first", "again"):
        began = time.perf_counter()
        with counted(subject.pipe, subject.family) as rows:
            accelerated = asymflow.accelerate(
                subject.pipe,
                plan="auto",
                steps=steps,
                examples=calls,
                family=subject.family,
                folder=folder,
            )
        found[f"{when}_passes"] = sum(rows)
        found[f"{when}_seconds"] = time.perf_counter() - began
    return accelerated.asymflow_plan, found


def timed(taken: Mapping[str, Taken], base: str) -> dict[str, dict[str, Any]]:
    """Medians of the time of one picture, and of its ratio to that of `base`."""
    return {
        name: {
            "ms": milliseconds(own.clock),
            "processor_ms": milliseconds(own.processor),
            "ratio": asdict(ratio(own.clock, taken[base].clock)),
            "processor_ratio": asdict(ratio(own.processor, taken[base].processor)),
        }
        for name, own in taken.items()
    }


def cheapest(rows: Sequence[Row], ours: bool, passed: Callable[[Row], bool]) -> Row | None:
    """Of our plans, or of the schedulers of others; of equally many passes the nearest."""
    groups = {"asymflow"} if ours else {row.group for row in rows} - {"asymflow", "own"}
    members = [row for row in rows if row.group in groups and passed(row)]
    return min(members, key=lambda row: (row.passes, row.rms.value), default=None)


@torch.inference_mode()
def compare(
    subject: Subject, real: Tensor, given: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    baseline, convention = Baseline.of(subject.pipe), subject.family.convention(subject.pipe)
    make = partial(subject.call, subject.pipe)
    plans: dict[str, Plan] = {}
    with tempfile.TemporaryDirectory() as folder:
        plans["asymflow"], cost = automatic(subject, Path(folder))
        say(f"plan: {cost}\n{plans['asymflow']}")
        for steps in OURS:
            plans[f"asymflow {steps}"], _ = automatic(subject, Path(folder), steps)
            say(f"a plan for the price of {steps}")

    def planned(plan: Plan) -> Call:
        pipe = asymflow.accelerate(subject.pipe, Plan(plan.name, plan.steps), family=subject.family)
        return subject.call(pipe, pipe.scheduler, 1)

    calls: dict[str, Call] = {
        "baseline": make(baseline.scheduler, baseline.steps),
        **{name: planned(plan) for name, plan in plans.items()},
    }
    limit = pictures(planned(plan_of(refined(convention, FINE))), given.pictures)
    states = {name: pictures(call, given.pictures) for name, call in calls.items()}
    scale = Scale(features_of(real), limit, states["baseline"], features_of(states["baseline"]))
    rows = [
        scale.row(name, group, steps, subject.passes(calls[name]), states[name])
        for name, group, steps in (
            ("baseline", "own", baseline.steps),
            *((name, "asymflow", len(plan.steps)) for name, plan in plans.items()),
        )
    ]
    rows.append(scale.row("limit", "own", FINE, 0, limit))
    say("\n".join(table(rows)))
    for family, kind, options in subject.schedulers:
        equal = False
        for steps in COUNTS:
            name = f"{family} {steps}"
            calls[name] = make(scheduler_of(subject, kind, options), steps)
            states[name] = pictures(calls[name], given.pictures)
            passes = subject.passes(calls[name])
            rows.append(scale.row(name, family, steps, passes, states[name]))
            equal = equal or rows[-1].equal
            if equal and (rows[-1].path or steps >= given.most):
                break
        say("\n".join(table(rows[-1:])))
    senses: dict[str, Callable[[Row], bool]] = {
        "kid": lambda row: row.equal,
        "path": lambda row: row.path,
        "both": lambda row: row.equal and row.path,
    }
    best = {
        f"{whose}, {name}": cheapest(rows, whose == "asymflow", passed)
        for name, passed in senses.items()
        for whose in ("asymflow", "others")
    }
    chosen = {"baseline", "asymflow", *(row.name for row in best.values() if row is not None)}
    default = make(subject.pipe.scheduler, default_steps(subject.pipe))
    if default_steps(subject.pipe) != baseline.steps:
        calls["default"], chosen = default, {*chosen, "default"}
        states["default"] = pictures(default, given.default_pictures)
        few = replace(
            scale,
            limit=limit[: given.default_pictures],
            baseline=scale.baseline[: given.default_pictures],
            seen=scale.seen[: given.default_pictures],
        )
        passes = subject.passes(default)
        rows.append(
            few.row("default", "own", default_steps(subject.pipe), passes, states["default"])
        )
        say("\n".join(table(rows[-1:])))
    taken = by_turns(
        {
            name: lambda number, call=call: call([FIRST_SEED + number])
            for name, call in calls.items()
            if name in chosen
        },
        given.timed,
    )
    seconds = timed(taken, "asymflow")
    for name, found in seconds.items():
        say(f"{name:30} {found}")
    gains = {
        name: asdict(ratio(taken[others.name].processor, taken[ours.name].processor))
        for name in senses
        if (ours := best[f"asymflow, {name}"]) and (others := best[f"others, {name}"])
    }
    say(f"times as long as our plan takes the quickest of others that is equal: {gains}")
    report: dict[str, Any] = {
        "default": subject.default,
        "baseline": baseline.name,
        "pictures": given.pictures,
        "real": len(real),
        "plan_cost": cost,
        "plans": {name: plan_files.plan_to_json(plan) for name, plan in plans.items()},
        "rows": [{**asdict(row), "equal": row.equal} for row in rows],
        "best": {name: row and row.name for name, row in best.items()},
        "seconds": seconds,
        "gains": gains,
    }
    shown = ["limit", *(name for name in calls if name in chosen)]
    return report, {name: {**states, "limit": limit}[name] for name in shown}


def table(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row.name:30}{row.passes:>6}  KID {row.kid.value:7.1f}  more {row.more.value:+7.2f} "
        f"[{row.more.low:+.2f}, {row.more.high:+.2f}]  rms {row.rms.value:.4f}"
        f"{'  equal' if row.equal else ''}{'  path' if row.path else ''}"
        for row in rows
    ]


def plot(report: dict[str, Any], path: Path) -> None:
    """Passes against both measures, one line per scheduler."""
    figure = new_figure(14, 5)
    panels: Any = figure.subplots(1, 2)
    rows = [row for row in report["rows"] if row["passes"]]
    for axes, key, label in (
        (panels[0], "more", "KID x 1000 beyond the baseline's"),
        (panels[1], "rms", "rms to the limit, in [-1, 1]"),
    ):
        for number, group in enumerate(dict.fromkeys(row["group"] for row in rows)):
            members = [row for row in rows if row["group"] == group and row["name"] != "default"]
            axes.plot(
                [row["passes"] for row in members],
                [row[key]["value"] for row in members],
                {"asymflow": "*", "own": "s"}.get(group, "o--"),
                color={"asymflow": "black", "own": "grey"}.get(group, COLOURS(number % 20)),
                markersize={"asymflow": 14, "own": 8}.get(group, 4),
                linewidth=1,
                zorder=3 if group == "asymflow" else 2,
                label={"own": report["baseline"]}.get(group, group),
            )
        axes.set(xlabel="network passes per picture", ylabel=label, xscale="log")
        axes.set_yscale("symlog" if key == "more" else "log")
        axes.grid(visible=True, which="both", alpha=0.25)
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    with replacing(path) as file:
        figure.savefig(file, dpi=110, format="png")


QUICK = {"pictures": 16, "default_pictures": 3, "most": 6, "timed": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=tuple(SUBJECTS))
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--default-pictures", type=int, default=64, help="of 1000 steps each")
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="steps of others")
    parser.add_argument("--timed", type=int, default=9)
    parser.add_argument("--out", type=Path, default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    logging.basicConfig(level=logging.WARNING)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {what}", flush=True)

    real = (Faces.of(Dataset(given.data)).pictures + 1) / 2
    subject = SUBJECTS[given.model](given.weights)
    report, made = compare(subject, real, given, say)
    name = f"accelerate-{given.model}"
    whole = results.save(
        given.out / f"{name}.json",
        {"model": given.model, **report},
        weights=[name_of(subject.pipe, subject.family)],
        plans={key: plan_files.plan_from_json(plan) for key, plan in report["plans"].items()},
        dtype="float32",
        device="cpu",
    )
    plot(report, given.out / f"{name}.png")
    grid = [list(rgba(each[:8])) for each in (real[::17], *made.values())]
    picture = sheet(grid, row_labels=("real", *made), col_labels=[""] * 8, scale=2)
    with replacing(given.out / f"{name}-sheet.png") as file:
        picture.save(file, "PNG")
    return whole
