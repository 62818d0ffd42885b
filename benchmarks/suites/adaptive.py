"""Compare adaptive rules with the plan itself and with a shorter plan.

    python -m benchmarks adaptive --by real
    python -m benchmarks adaptive --by reference

Rules are calibrated on some requests and measured on others. The mean error of a plan with rules
may exceed that of a goal by the share --rise: of the plan itself, or, from `best` with many skips,
of `balanced`. `fixed` is a calibration that ignores the pictures: the difference to it is the gain
from adaptivity.

An error is the distance to the reference, or the feature distance to real pictures. Resumes after
an interruption; writes adaptive-REAL_OR_REFERENCE.json and .png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench import metrics, protocol
from asymflow.bench.evaluators import by_real, by_reference
from asymflow.bench.features import extract, load_network
from asymflow.bench.pairs import pick
from asymflow.bench.quality import real_pictures
from asymflow.core import controller, engine, presets
from asymflow.core.adapter import Adapter
from asymflow.core.statistics import mean_interval
from asymflow.core.types import ACTIONS, Action, Decision, Plan, Request
from asymflow.generation import pipeline
from asymflow.io.plots import new_figure
from asymflow.models.embedded import plans
from asymflow.planning import adaptive, calibration, plan_files, verifier
from asymflow.training.data.dataset import Dataset
from benchmarks import results

CALIBRATED, MEASURED = protocol.RULES_CHOSEN, protocol.RULES_MEASURED
TOGETHER = 8
GALLERY = 512
"""Real pictures."""
TASKS = (("balanced", "balanced"), ("best", "best"), ("best", "balanced"))
"""Plans that get rules, and the plans whose error they are to keep."""


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """What a plan did to pictures, one by one: lists of the same length."""

    ends: list[Tensor] = field(default_factory=list[Tensor])
    forwards: list[int] = field(default_factory=list[int])
    steps: list[int] = field(default_factory=list[int])
    ms: list[float] = field(default_factory=list[float])
    ms_together: list[float] = field(default_factory=list[float])


QUICK = {"calibrate": 2, "measure": 2, "task": [0], "work": results.QUICK / "adaptive"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", choices=("real", "reference"), required=True)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--work", type=Path, default=Path("runs/adaptive"))
    parser.add_argument("--calibrate", type=int, default=16)
    parser.add_argument("--measure", type=int, default=32)
    parser.add_argument("--rise", type=float, default=0.05)
    parser.add_argument("--task", action="append", type=int, help="numbers of TASKS; all of them")
    parser.add_argument("--action", action="append", choices=ACTIONS)
    parser.add_argument("--out", type=Path, metavar="DIR")


def run(given: argparse.Namespace) -> dict[str, Any]:

    model = pipeline.load(None, dtype=given.dtype, device=None)
    adapter, size = model.adapter, (given.side, given.side)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {what}", flush=True)

    def evaluator(count: int, purpose: int) -> verifier.Evaluator:
        if given.by == "real":
            return by_real(model, size, given.data, count, purpose)
        requests = calibration.requests(adapter.card, size, presets.GUIDANCE, count, purpose)
        return by_reference(model, requests, given.work)

    measured: dict[str, Plan] = {}
    goals: dict[str, str] = {}
    for start, goal in [TASKS[i] for i in given.task or range(len(TASKS))]:
        name = start if start == goal else f"{start} as {goal}"
        for each in (start, goal):
            measured[each], goals[each] = plans.load(each, size), each
        paths = {
            kind: given.work
            / f"{start}-as-{goal}-{kind}-{given.calibrate}-{given.rise:g}-{given.by}.json"
            for kind in ("adaptive", "fixed")
        }
        if not all(path.exists() for path in paths.values()):
            chosen = evaluator(given.calibrate, CALIBRATED)
            error = chosen.error(measured[goal])
            allowed = (1 + given.rise) * error
            say(f"{goal} without rules: {error:.4f}, allowed {allowed:.4f}")
            actions = cast("Sequence[Action]", given.action or ACTIONS)
            forecast = adaptive.Forecast.of(chosen, measured[start], actions)
            say(f"ways to leave {start}\n{_effects(forecast)}")
            for kind, levels in (("adaptive", adaptive.LEVELS), ("fixed", 1)):
                found = adaptive.choose(forecast, allowed, levels=levels)
                say(f"{name}, {kind}: saves {found.saving:.1%} at {found.error:.4f}\n{found.plan}")
                # Without looking at pictures all of them decide alike.
                adapted = found.plan if levels > 1 else _alike(forecast, found.plan)
                plan_files.save_plan(adapted, paths[kind])
        for kind, path in paths.items():
            measured[f"{name}, {kind}"], goals[f"{name}, {kind}"] = plan_files.load_plan(path), goal

    fresh = evaluator(given.measure, MEASURED)
    runs = _measure(adapter, measured, fresh.requests)
    quality = _quality(model, fresh, given)
    complexity = _edges(fresh.reference)
    report: dict[str, Any] = {
        "adapter": adapter.name,
        "by": given.by,
        "side": given.side,
        "pictures": {"calibrated": given.calibrate, "measured": given.measure},
        "rise": given.rise,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "complexity": complexity.tolist(),
        "plans": {},
    }
    errors = {n: fresh.distance(torch.cat(r.ends), fresh.reference) for n, r in runs.items()}
    for name, each in runs.items():
        goal = goals[name]
        row: dict[str, Any] = {
            "goal": goal,
            "forwards": _summary(each.forwards),
            "ms": _summary(each.ms),
            f"ms, {TOGETHER} together": _summary(each.ms_together),
            "time over goal": statistics.median(
                a / b for a, b in zip(each.ms, runs[goal].ms, strict=True)
            ),
            "error": _summary(errors[name]),
            "error minus goal": _paired(errors[name] - errors[goal]),
            "correlation of steps with complexity": _correlation(each.steps, complexity),
            "steps": each.steps,
            "plan": plan_files.plan_to_json(measured[name]),
        }
        row |= quality(torch.cat(each.ends))
        report["plans"][name] = row
        shown = {key: value for key, value in row.items() if key not in ("plan", "steps")}
        say(f"{name}: {json.dumps(shown)}")
    path = (given.out or results.folder_of(adapter.name)) / f"adaptive-{given.by}.json"
    whole = results.save(path, report, **results.on(model, measured))
    _plot(runs, complexity, path.with_suffix(".png"))
    return whole


def _quality(
    model: pipeline.Model, fresh: verifier.Evaluator, given: argparse.Namespace
) -> Callable[[Tensor], dict[str, Any]]:
    """How good pictures are, whatever their errors are measured by."""
    if given.by == "reference":
        features = protocol.perceptual(model)
        return lambda ends: {"feature distance": _summary(features(ends, fresh.reference))}
    network, dataset = load_network(), Dataset(given.data)
    seen = [entry for entry in dataset.entries if entry.weight == 1 and entry.split == "train"]
    real = extract(real_pictures(dataset, pick(seen, GALLERY, MEASURED), given.side), network)

    def quality(ends: Tensor) -> dict[str, Any]:
        made = np.stack([model.adapter.to_picture(state) for state in ends])
        return {"KID": asdict(metrics.kid(extract(made, network), real))}

    return quality


def _effects(forecast: adaptive.Forecast) -> str:
    """Every way to leave the plan: what it does alone, and whether surprise foretells that."""
    rows = [f"{'step':>4}  {'action':<8}{'error':>8}{'moved':>8}{'residual':>10}  correlation"]
    for (step, action), effect in forecast.effects.items():
        alone = [[Decision(step, action, 0.0)]] * len(effect)
        moved = effect.double().square().mean((1, 2, 3)).sqrt().cpu().numpy()
        rho = forecast.exact.prediction_residuals[:, step]
        rows.append(
            f"{step:>4}  {action:<8}{forecast.error(alone):>8.4f}{moved.mean():>8.4f}"
            f"{np.median(rho):>10.4f}  {_correlation(rho, moved) or 0:.2f}"
        )
    return "\n".join(rows)


def _alike(forecast: adaptive.Forecast, plan: Plan) -> Plan:
    """The steps that the first picture makes, and with these rules every other."""
    return controller.taken(plan, forecast.decisions(plan)[0])


def _measure(
    adapter: Adapter, measured: Mapping[str, Plan], requests: Sequence[Request]
) -> dict[str, Runs]:
    """Time plans interleaved, for single pictures and batches, because machines drift."""
    runs = {name: Runs() for name in measured}
    for request in requests:
        for name, plan in measured.items():
            [(end, forwards, steps, ms)] = _run(adapter, plan, [request])
            runs[name].ends.append(end)
            runs[name].forwards.append(forwards)
            runs[name].steps.append(steps)
            runs[name].ms.append(ms)
    for begin in range(0, len(requests), TOGETHER):
        group = requests[begin : begin + TOGETHER]
        for name, plan in measured.items():
            made = _run(adapter, plan, group)
            runs[name].ms_together.append(sum(ms for *_, ms in made) / len(group))
    return runs


def _run(
    adapter: Adapter, plan: Plan, requests: Sequence[Request]
) -> list[tuple[Tensor, int, int, float]]:
    """End, forwards, steps and its share of the time, for every picture of a batch."""
    began = time.perf_counter()
    ends = engine.rollout(adapter, plan, requests)
    ms = 1000 * (time.perf_counter() - began) / len(requests)
    ran = [controller.taken(plan, end.decisions) for end in ends]
    return [
        (ends[i].x_0[None], engine.forwards(ran[i], request), len(ran[i].steps), ms)
        for i, request in enumerate(requests)
    ]


def _edges(pictures: Tensor) -> NDArray[np.float64]:
    """Mean absolute difference of neighbouring pixels [b]: how complex a picture is."""
    down = pictures.diff(dim=-2).abs().mean((1, 2, 3))
    right = pictures.diff(dim=-1).abs().mean((1, 2, 3))
    return (down + right).double().cpu().numpy()


def _summary(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "p95": float(np.quantile(values, 0.95))}


def _paired(differences: NDArray[np.float64]) -> dict[str, float]:
    """The mean difference with its 95% interval."""
    found = mean_interval(differences)
    return {"mean": found.value, "low": found.low, "high": found.high}


def _correlation(
    x: Sequence[float] | NDArray[np.float64], y: Sequence[float] | NDArray[np.float64]
) -> float | None:
    """Pearson's; None where one of them does not vary."""
    if np.std(x) == 0 or np.std(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _plot(runs: Mapping[str, Runs], complexity: NDArray[np.float64], path: Path) -> None:
    """Steps taken against complexity, for plans whose pictures differ in them."""
    figure = new_figure(7, 4.5)
    axes: Any = figure.add_subplot()
    adaptive = {name: each for name, each in runs.items() if "adaptive" in name}
    for number, (name, each) in enumerate(adaptive.items()):
        # Beside each other where they would hide each other.
        axes.plot(complexity, np.add(each.steps, 0.1 * number), "o", ms=5, alpha=0.7, label=name)
    axes.set(xlabel="edges in the reference (mean difference of neighbours)", ylabel="steps taken")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
