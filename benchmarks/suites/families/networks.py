"""Plan a network of another kind, and compare with diffusers' own samplers on that same network.

    python -m benchmarks families networks runs/families/told data/emoji

writes networks.json, networks.png and networks-sheet.png. Everything is measured in one run, on
the network that `families train told-unet` made: a convolutional DDPM in v. What is compared:

- **DDIM, DPM-Solver++ 2M, UniPC**: diffusers' schedulers in their own state and parameterisation,
  asking the network itself, over the trailing grid and over that of Karras.
- **Euler and Heun in t**: our engine over the uniform grid, at the same number of forwards.
- **asymflow**: `profiler.profile`, then `verifier.best_within` for that number of full estimates,
  then `verifier.measure_evidence` on other pictures.

All of them begin with the same noise at the largest that was trained, and errors are taken to where
that leads in the limit: `FINE` moves of our multistep2 over the network's own timesteps. How far
that is from twice as many is reported. Errors are of states cut to [-1, 1] as a picture is, so
twice what they would be of pictures in [0, 1]. Times are of one picture at a time, by turns, over
DDIM's for the same picture.
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench import metrics
from asymflow.core import engine, schedules
from asymflow.core.statistics import Interval, mean_interval
from asymflow.core.types import Plan, Request, Solver
from asymflow.generation.sheets import sheet
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.models.diffusers.networks import DiffusersAdapter, load
from asymflow.planning import plan_files, profiler, verifier
from asymflow.training.data.dataset import Dataset
from benchmarks import results
from benchmarks.suites.families.measuring import by_turns, features_of, milliseconds, ratio, rgba
from benchmarks.suites.families.train import SIDE, STYLES

diffusers: Any = importlib.import_module("diffusers")  # whose own types do not describe its calls

STEPS = (6, 10, 20)
FINE = 100
BASELINE = "DDIM 50"
CALIBRATION, CHOSEN, PROVED = 0, 1, 2  # no seed of one serves another


class Together(DiffusersAdapter):
    """The same model, many pictures per call: quicker, where a last bit does not matter."""

    @property
    def batch(self) -> int | None:
        return None

    @classmethod
    def of(cls, adapter: DiffusersAdapter) -> Together:
        return cls(*(getattr(adapter, field.name) for field in fields(adapter)))


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """One configuration; `walk` makes states x_0 [b, c, h, w] with any adapter of the model."""

    name: str
    family: str
    forwards: int
    walk: Callable[[DiffusersAdapter, Sequence[Request]], Tensor]


@dataclass(frozen=True, slots=True)
class Row:
    """What one configuration takes, and how far it is from its limit.

    Attributes:
        ms: median time of one picture.
        ratio: median of its time over that of `BASELINE` for the same picture; results from
            before intervals have a number.
        rms: root mean square of the difference to the limit.
        distance: one minus the cosine of EfficientNet-Lite0 features.
    """

    name: str
    family: str
    forwards: int
    ms: float
    ratio: Interval
    rms: Interval
    distance: Interval


def requests(count: int, purpose: int, scale: float, null: int) -> list[Request]:
    """All styles by turns."""
    return [
        Request({"label": i % null}, (SIDE, SIDE), 1000 * purpose + i, scale) for i in range(count)
    ]


# Samplers.


def scheduled(
    config: Any, kind: str, name: str, family: str, steps: int, guided: bool, **options: Any
) -> Sampler:
    """A scheduler of diffusers on the network itself, with the configuration it was saved with."""

    def walk(adapter: DiffusersAdapter, asked: Sequence[Request]) -> Tensor:
        scheduler: Any = getattr(diffusers, kind).from_config(config, **options)
        with warnings.catch_warnings():
            # It hands a tensor to numpy in a way that numpy 2 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            scheduler.set_timesteps(steps)
        shape = (adapter.channels, SIDE, SIDE)
        z = torch.stack([engine.noise(each.seed, shape) for each in asked])
        z = z * scheduler.init_noise_sigma
        cond, null = (context["label"] for context in adapter.encode(asked))
        scale = asked[0].guidance_scale
        for tau in scheduler.timesteps:
            if guided:
                both = adapter.model(torch.cat([z, z]), tau, torch.cat([cond, null])).sample
                d_cond, d_null = both.chunk(2)
                answer = d_null + scale * (d_cond - d_null)
            else:
                answer = adapter.model(z, tau, cond).sample
            z = scheduler.step(answer, tau, z).prev_sample
        return z

    return Sampler(name, family, steps * (2 if guided else 1), walk)


def planned(plan: Plan, name: str, family: str, guided: bool) -> Sampler:
    """A plan by our engine."""
    [probe] = requests(1, CALIBRATION, 2.0 if guided else 1.0, 1)

    def walk(adapter: DiffusersAdapter, asked: Sequence[Request]) -> Tensor:
        return verifier.rollout(adapter, plan, asked)

    return Sampler(name, family, engine.forwards(plan, probe), walk)


def others(config: Any, start: float, guided: bool) -> list[Sampler]:
    """`config` of the scheduler that the model was saved with; `start` is its most noise."""
    make = partial(scheduled, config)
    ddim: dict[str, Any] = {"timestep_spacing": "trailing"}
    found = [make("DDIMScheduler", BASELINE, "DDIM", 50, guided, **ddim)]
    for n in STEPS:
        found.append(make("DDIMScheduler", f"DDIM {n}", "DDIM", n, guided, **ddim))
        for kind, name in (
            ("DPMSolverMultistepScheduler", "DPM-Solver++ 2M"),
            ("UniPCMultistepScheduler", "UniPC"),
        ):
            for grid, options in (
                ("trailing", {"timestep_spacing": "trailing"}),
                ("Karras", {"use_karras_sigmas": True}),
            ):
                family = f"{name}, {grid}"
                found.append(make(kind, f"{family} {n}", family, n, guided, **options))
        counts: dict[Solver, int] = {"euler": n, "heun": (n + 1) // 2}
        for solver, count in counts.items():
            nodes = [start * t for t in schedules.uniform(count)]
            plan = schedules.plan_of(nodes, solver=solver)
            name = f"{solver.capitalize()} in t"
            found.append(planned(plan, f"{name} {count}", name, guided))
    return found


# Measuring.


def rms_seen(x: Tensor, y: Tensor) -> NDArray[np.float64]:
    """Root mean square of the difference that is seen [b]."""
    return verifier.rms(x.clamp(-1, 1), y.clamp(-1, 1))


def distance(x: Tensor, y: Tensor) -> NDArray[np.float64]:
    """One minus the cosine of features [b] of states."""
    return metrics.cosine_distance(features_of(pixels(x)), features_of(pixels(y)))


def pixels(states: Tensor) -> Tensor:
    """In [0, 1], of states."""
    return ((states + 1) / 2).clamp(0, 1)


@torch.inference_mode()
def compare(
    adapter: DiffusersAdapter,
    config: Any,
    scale: float,
    given: argparse.Namespace,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The table for one guidance scale, and the states x_0 of every row."""
    assert adapter.null is not None
    together, guided = Together.of(adapter), scale != 1
    calibration, chosen, fresh = (
        requests(count, purpose, scale, adapter.null)
        for count, purpose in (
            (given.calibration, CALIBRATION),
            (given.calibration, CHOSEN),
            (given.pictures, PROVED),
        )
    )
    profile = profiler.profile(
        together, calibration, times=adapter.convention.times(given.candidates)
    )
    say(f"profile: a full estimate takes {profile.cost_ms[0]:.1f} ms")
    fine, finer = (schedules.plan_of(adapter.convention.times(n)) for n in (FINE, 2 * FINE))
    evaluator, limit = (
        verifier.Evaluator(
            together, tuple(group), verifier.rollout(together, fine, group), rms_seen
        )
        for group in (chosen, fresh)
    )
    few = fresh[:4]
    floor = float(
        rms_seen(limit.reference[: len(few)], verifier.rollout(together, finer, few)).mean()
    )
    say(f"references: {floor:.4f} from finer ones")

    samplers, plans = others(config, adapter.convention.times(1)[0], guided), list[Plan]()
    for n in STEPS:
        budget = (n + 0.01) * profile.cost_ms[0]
        plan = verifier.best_within(
            evaluator, profile, budget, name=f"second-{n}", rollouts=given.rollouts
        )
        plans.append(verifier.measure_evidence(limit, plan, profile, distance))
        samplers.append(planned(plan, f"asymflow {n}", "asymflow", guided))
        say(f"{n} full estimates: {plans[-1]}")

    states = {each.name: each.walk(together, fresh) for each in samplers}
    say("rolled out")
    taken = by_turns(
        {
            each.name: lambda number, walk=each.walk: walk(adapter, [fresh[number]])
            for each in samplers
        },
        min(given.timed, len(fresh)),
    )
    say("timed")
    rows: list[Row] = []
    for each in samplers:
        own, base = taken[each.name].clock, taken[BASELINE].clock
        rows.append(
            Row(
                each.name,
                each.family,
                each.forwards,
                milliseconds(own),
                ratio(own, base),
                mean_interval(rms_seen(states[each.name], limit.reference)),
                mean_interval(distance(states[each.name], limit.reference)),
            )
        )
    report = {
        "guidance_scale": scale,
        "reference_floor": floor,
        "rows": [asdict(row) for row in rows],
        "plans": [
            {
                "name": plan.name,
                "times": plan.times,
                "tiers": [step.tier.name for step in plan.steps],
                "solvers": [step.solver for step in plan.steps],
                "predicted": plan.evidence and plan.evidence.predicted,
                "hash": plan_files.plan_hash(plan),
            }
            for plan in plans
        ],
    }
    say("\n".join(table(rows)))
    return report, {"reference": limit.reference, **states}


def table(rows: Sequence[Row]) -> list[str]:
    lines = [f"{'':28}{'forwards':>9}{'ms':>8}{'ratio':>8}{'rms':>17}{'features':>17}"]
    for row in rows:
        cells = [e.plus_minus(4) for e in (row.rms, row.distance)]
        lines.append(
            f"{row.name:28}{row.forwards:>9}{row.ms:>8.0f}{row.ratio.value:>8.2f}"
            f"{cells[0]:>17}{cells[1]:>17}"
        )
    return lines


# Pictures of the table.


def plot(reports: Sequence[dict[str, Any]], path: Path) -> None:
    figure = new_figure(6.5 * len(reports), 5)
    panels: Any = figure.subplots(1, len(reports), squeeze=False)
    for axes, report in zip(panels[0], reports, strict=True):
        rows = report["rows"]
        for number, family in enumerate(dict.fromkeys(row["family"] for row in rows)):
            members = sorted(
                (row for row in rows if row["family"] == family), key=lambda row: row["forwards"]
            )
            axes.plot(
                [row["forwards"] for row in members],
                [row["rms"]["value"] for row in members],
                "*-" if family == "asymflow" else "o--",
                color=f"C{number}",
                markersize=12 if family == "asymflow" else 5,
                linewidth=2 if family == "asymflow" else 1,
                label=family,
            )
        axes.set(
            xlabel="forwards",
            ylabel="rms to the limit, in [-1, 1]",
            xscale="log",
            yscale="log",
            title=f"UNet2DModel at 32 px, guidance {report['guidance_scale']:g}",
        )
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend(fontsize=8)
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")


def draw(
    real: NDArray[np.uint8], made: dict[str, Tensor], styles: Sequence[str], path: Path
) -> None:
    names = ["reference", BASELINE]
    for n in STEPS[:2]:
        names += [
            f"DDIM {n}",
            f"DPM-Solver++ 2M, trailing {n}",
            f"UniPC, Karras {n}",
            f"asymflow {n}",
        ]
    rows = [list(real), *(list(rgba(pixels(made[name][: len(styles)]))) for name in names)]
    picture = sheet(rows, row_labels=("real", *names), col_labels=styles, scale=2)
    with replacing(path) as file:
        picture.save(file, "PNG")


def real_faces(dataset: Dataset) -> NDArray[np.uint8]:
    """One picture per style that training saw."""
    first: dict[str, int] = {}
    for entry in dataset.entries:
        if entry.split == "train" and entry.subgroup == "face-smiling":
            first.setdefault(entry.style, entry.index)
    return np.stack([dataset.image(first[style], SIDE) for style in STYLES])


QUICK = {"pictures": 2, "rollouts": 2, "candidates": 8, "calibration": 2, "guidance": [1.0]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--calibration", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--rollouts", type=int, default=10)
    parser.add_argument("--timed", type=int, default=4)
    parser.add_argument("--out", type=Path, default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {what}", flush=True)

    dataset = Dataset(given.data)
    adapter = load(given.model, null=len(STYLES))
    config = diffusers.DDPMScheduler.load_config(given.model / "scheduler")
    reports: list[dict[str, Any]] = []
    whole: dict[str, Any] = {}
    for scale in given.guidance:
        report, made = compare(adapter, config, scale, given, say)
        reports.append(report)
        result = {
            "model": adapter.name,
            "prediction": config["prediction_type"],
            "weights": sum(each.numel() for each in adapter.model.parameters()),
            "most_noise": adapter.convention.times(1)[0],
            "pictures": given.pictures,
            "timed": given.timed,
            "runs": reports,
        }
        plot(reports, given.out / "networks.png")
        suffix = "" if scale == given.guidance[0] else f"-{scale:g}"
        draw(real_faces(dataset), made, STYLES, given.out / f"networks-sheet{suffix}.png")
        whole = results.save(
            given.out / "networks.json",
            result,
            weights=[adapter.name],
            dtype="float32",
            device=profiler.machine(adapter)["device"],
        )
    return whole
