"""What an allocation of steps by pictures could save, from an oracle of their difficulty.

    python -m benchmarks oracle --dtype bfloat16

Grids of 4 to 20 steps are run on the same pictures. With one grid as the goal, an oracle assigns a
grid to every picture and minimises the total time under one of two constraints:

    mean    the mean error is at most that of the goal
    worst   the 90th percentile of the errors is at most that of the goal

Three oracles differ in their information: all real errors, including chance; the difficulty, in a
model of errors as the product of a factor per picture and one per grid; and the difficulty
estimated from prediction residuals, which are known at run time, fitted to all other pictures. A
prediction residual is how far an estimate of x_0 is from what those before it predicted. Writes
oracle.json and .png.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench.evaluators import by_reference
from asymflow.core import engine, presets, schedules
from asymflow.core.types import Plan, Step
from asymflow.generation import pipeline
from asymflow.io.plots import new_figure
from asymflow.planning import calibration, verifier
from benchmarks import results

LENGTHS = tuple(range(4, 21))
SHIFT = 6.0
GOALS = (6, 8, 12)
PRICES = np.geomspace(1e-6, 1, 2000)
"""Of one step, in error."""
OFTEN = 0.9
RIDGE = 10.0
KINDS = ("real errors", "difficulty", "surprises")
COLOURS = ("#999999", "#2f6f9f", "#d98c2b")

Array = NDArray[np.float64]


def grid(size: tuple[int, int], steps: int) -> Plan:
    """The plain grid of so many steps."""
    guided = presets.guidance_interval(size)
    nodes = schedules.shifted(steps, SHIFT * (size[0] * size[1]) ** 0.5 / 64)
    return schedules.plan_of(
        nodes, solver="damped2", guidance_interval=guided, name=f"{steps} steps"
    )


def measure(evaluator: verifier.Evaluator, plan: Plan) -> tuple[Array, Array]:
    """Errors [b], and prediction residuals [b, s] at the steps that have a prediction."""
    estimates: dict[int, list[tuple[Step, Tensor]]] = defaultdict(list)

    def observe(frame: engine.Frame) -> None:
        for move, x_0 in zip(frame.moves, frame.x_0, strict=True):
            estimates[move.picture].append((move.step, x_0))

    ends = engine.rollout(evaluator.adapter, plan, evaluator.requests, observer=observe)
    residuals = [list(prediction_residuals(estimates[row])) for row in range(len(ends))]
    states = torch.stack([end.x_0 for end in ends])
    return evaluator.distance(states, evaluator.reference), np.array(residuals)


def prediction_residuals(estimates: Sequence[tuple[Step, Tensor]]) -> Iterator[float]:
    """How far estimates are from what those before them predict, relative to their norms.

    The prediction is the line in t squared through the two before, as solvers extrapolate; a single
    one is used unchanged. Estimates of another tier predict nothing.
    """
    for i, (step, found) in enumerate(estimates):
        known = [each for each in estimates[max(i - 2, 0) : i] if each[0].tier == step.tier]
        if not known:
            continue
        before, predicted = known[-1]
        if len(known) == 2:
            earlier, other = known[0]
            ratio = (step.t**2 - before.t**2) / (before.t**2 - earlier.t**2)
            predicted = predicted + ratio * (predicted - other)
        yield float((found - predicted).double().norm() / found.double().norm())


def split(errors: Array) -> tuple[Array, Array]:
    """Of errors [b, n], what is a picture's [b] and what is a grid's [n]: their product."""
    logs = np.log(errors)
    return np.exp(logs.mean(1) - logs.mean()), np.exp(logs.mean(0))


def estimated_difficulty(difficulty: Array, prediction_residuals: Array) -> Array:
    """The difficulty of every picture, by a ridge regression of logarithms on all the others."""
    x, y = np.log(prediction_residuals), np.log(difficulty)
    x = (x - x.mean(0)) / x.std(0)
    found = np.empty_like(y)
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        mean = y[others].mean()
        square = x[others].T @ x[others] + RIDGE * np.eye(x.shape[1])
        found[i] = mean + x[i] @ np.linalg.solve(square, x[others].T @ (y[others] - mean))
    return np.exp(found)


def _worst(errors: Array) -> float:
    return float(np.quantile(errors, OFTEN))


def savings(estimated: Array, true: Array, goal: int) -> dict[str, float]:
    """Share of the steps of a goal that are saved when grids are chosen by estimated errors [b, n].

    The errors that are kept are the true ones.
    """
    steps = np.array(LENGTHS, float)
    column = LENGTHS.index(goal)
    rows = np.arange(len(true))

    def least(chosen: list[NDArray[np.int64]], statistic: Any) -> float:
        """Mean steps of the cheapest choice of grids that keeps a statistic of the errors."""
        allowed = statistic(true[:, column])
        kept = [c for c in chosen if statistic(true[rows, c]) <= allowed]
        return min((float(steps[c].mean()) for c in kept), default=float("inf"))

    by_price = [(estimated + price * steps).argmin(1) for price in PRICES]
    limits = np.geomspace(estimated.min(), estimated.max(), 2000)
    enough = [np.where((ok := estimated <= e).any(1), ok.argmax(1), len(steps) - 1) for e in limits]
    return {
        "mean": 1 - least(by_price, np.mean) / goal,
        "worst": 1 - least(enough, _worst) / goal,
    }


QUICK = {"pictures": 4, "work": results.QUICK / "plans"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--work", type=Path, default=Path("runs/plans"))
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    model = pipeline.load(None, dtype=given.dtype, device=None)
    size = (given.side, given.side)
    requests = calibration.requests(
        model.adapter.card, size, presets.GUIDANCE, given.pictures, calibration.PROVED
    )
    evaluator = by_reference(model, requests, given.work)
    found = [measure(evaluator, grid(size, steps)) for steps in LENGTHS]
    errors = np.stack([error for error, _ in found], 1)
    difficulty, of_grid = split(errors)
    separable = difficulty[:, None] * of_grid
    report: dict[str, Any] = {
        "adapter": model.adapter.name,
        "side": given.side,
        "dtype": model.dtype,
        "pictures": given.pictures,
        "mean error": dict(zip(map(str, LENGTHS), errors.mean(0).tolist(), strict=True)),
        "spread of difficulty (standard deviation of its logarithm)": float(
            np.log(difficulty).std()
        ),
        "explained by difficulty and grid (share of the variance of logarithms)": float(
            1 - np.log(errors / separable).var() / np.log(errors).var()
        ),
        "goals": {},
    }
    for goal in GOALS:
        estimated = estimated_difficulty(difficulty, found[LENGTHS.index(goal)][1])
        kinds = dict(
            zip(
                KINDS,
                (
                    savings(errors, errors, goal),
                    savings(separable, separable, goal),
                    savings(estimated[:, None] * of_grid, separable, goal),
                ),
                strict=True,
            )
        )
        correlation = float(np.corrcoef(np.log(estimated), np.log(difficulty))[0, 1])
        report["goals"][str(goal)] = {"saved": kinds, "correlation of surprises": correlation}
        print(goal, json.dumps(report["goals"][str(goal)]), flush=True)
    print(json.dumps({key: value for key, value in report.items() if key != "goals"}, indent=1))
    here = (given.out or results.folder_of(model.adapter.name)) / "oracle"
    ran = {f"{steps} steps": grid(size, steps) for steps in LENGTHS}
    whole = results.save(here.with_suffix(".json"), report, **results.on(model, ran))
    plot(errors, report).savefig(here.with_suffix(".png"), dpi=120)
    return whole


def plot(errors: Array, report: dict[str, Any]) -> Any:
    """Left, errors of all pictures by grid; right, what oracles save."""
    figure = new_figure(10, 4.2)
    left: Any
    right: Any
    left, right = figure.subplots(1, 2)
    left.plot(LENGTHS, errors.T, color="#2f6f9f", alpha=0.15, linewidth=1)
    left.plot(LENGTHS, errors.mean(0), color="#333333", linewidth=2, label="mean")
    left.set(xlabel="steps", ylabel="difference to the reference", yscale="log")
    left.set_title(f"{len(errors)} pictures, one line each")
    left.legend(frameon=False)
    wide = 0.8 / len(KINDS)
    for number, (kind, colour) in enumerate(zip(KINDS, COLOURS, strict=True)):
        saved = [100 * report["goals"][str(g)]["saved"][kind]["mean"] for g in GOALS]
        places = np.arange(len(GOALS)) + number * wide
        right.bar(places, np.maximum(saved, 0), wide, color=colour, label=kind)
        for x, y in zip(places, saved, strict=True):
            right.annotate(str(round(y)), (x, max(y, 0)), ha="center", va="bottom", fontsize=8)
    right.set_xticks(np.arange(len(GOALS)) + wide, [f"{g} steps" for g in GOALS])
    right.set(ylabel="% of the steps saved", title="by an oracle, at the mean error of the goal")
    right.legend(frameon=False, title="with access to", alignment="left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
