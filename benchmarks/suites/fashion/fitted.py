"""Fitted plans against the best grid and solver, at equal passes, on the models of Fashion-MNIST.

    OMP_NUM_THREADS=1 python -m benchmarks fashion fitted

For each model, with and without guidance, and each number of steps: every grid with every solver,
and a fitted plan, each chosen by the same pictures; then the error of the two to the limit of the
model on pictures of other seeds, and the ratio of both with a bootstrap interval over pictures.
Writes fitted.json and fitted.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import asymflow
from asymflow.core import schedules
from asymflow.core.adapter import CardedAdapter, Described, Wrapped
from asymflow.core.card import Carded
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of
from asymflow.core.types import Plan, Request, Solver
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.planning import fitting, grids
from asymflow.planning.encoded import Encoded
from asymflow.planning.fitting import Teacher
from asymflow.planning.proof import rms
from asymflow.planning.verifier import rollout
from benchmarks import results
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.train import MODELS

SOLVERS: tuple[Solver, ...] = ("multistep2", "multistep3", "damped2", "corrected2")
SHIFTS = (3.0, 2.0, 0.5, 0.25)
LIMIT = 120
"""Moves of the limit."""
RESAMPLED = 2000
FITTED, FRESH = 1000, 5000
"""First seeds of the pictures that plans are chosen by, and that they are measured on."""

Grid = Callable[[int], Sequence[float]]
Array = NDArray[np.float64]


class Together(Wrapped):
    """The same model, many pictures per call: quicker, where a last bit does not matter."""

    @property
    def batch(self) -> int | None:
        return None


def loaded(path: Path) -> CardedAdapter:
    """A model of the suite.

    Raises:
        InputError: it has no card.
    """
    model = asymflow.load(path)
    if not (isinstance(model, Carded) and isinstance(model, Described)):
        raise InputError(f"{path} has no card. Train it with `fashion train`.")
    return model


def asked(model: CardedAdapter, scale: float, first: int, count: int) -> list[Request]:
    """Requests for all classes in turn."""
    size, classes = model.card.sizes.native, len(model.card.classes)
    return [Request({"label": i % classes}, size, first + i, scale) for i in range(count)]


def standard(dense: tuple[float, ...], steps: int) -> dict[str, Plan]:
    """Every grid with every solver."""
    every: Mapping[str, Grid] = {
        "own": partial(grids.resampled, dense),
        "blended": partial(grids.blended, dense),
        "karras": schedules.karras,
        **{f"shifted {by:g}": partial(schedules.shifted, shift=by) for by in SHIFTS},
    }
    return {
        f"{name}, {solver}": plan_of(grid(steps), solver=solver)
        for (name, grid), solver in product(every.items(), SOLVERS)
    }


def compared(
    model: CardedAdapter, scale: float, prices: Sequence[int], pictures: int
) -> list[dict[str, Any]]:
    """The errors of both kinds of plans on fresh pictures, for each number of steps."""
    adapter = Encoded(Together(model))
    dense = model.own_plan(model.card.sizes.native).times
    if dense[0] == 1:  # equal steps of a flow, of any number
        dense = schedules.uniform(400)
    fine = plan_of(grids.blended(dense, LIMIT), solver="corrected2")
    fresh = asked(model, scale, FRESH, pictures)
    limit = rollout(adapter, fine, fresh)
    seen = asked(model, scale, FITTED, fitting.PICTURES)
    teacher = Teacher.of(
        adapter, seen, plan_of(grids.blended(dense, fitting.MOVES), solver="corrected2")
    )
    begins: Sequence[Sequence[float]] = fitting.BEGINS
    rows: list[dict[str, Any]] = []
    for number, steps in enumerate(prices):
        plans = standard(dense, steps)
        best = min(plans, key=lambda name: _error(adapter, plans[name], seen, teacher.ends).mean())
        rollouts = fitting.rollouts(steps) if number else fitting.FIRST_TIME
        found = fitting.fit(teacher, partial(_shape, dense, steps), begins, rollouts)
        assert found is not None, "every shape is allowed"
        begins = [found.bends, *fitting.BEGINS]
        other = _error(adapter, plans[best], fresh, limit)
        own = _error(adapter, found.plan, fresh, limit)
        rows.append(
            {
                "steps": steps,
                "best": best,
                "best_rms": _described(other),
                "fitted_rms": _described(own),
                "fitted_train": found.error,
                "ratio": _ratio(other, own),
            }
        )
        print(f"{model.name} {scale:g} {rows[-1]}", flush=True)
    return rows


def _shape(dense: tuple[float, ...], steps: int, bends: Sequence[float]) -> Plan:
    times = fitting.bent(grids.blended(dense, fitting.DENSE), steps, bends)
    return plan_of(times, solver="euler")


def _error(adapter: Encoded, plan: Plan, wanted: Sequence[Request], limit: Tensor) -> Array:
    return rms(rollout(adapter, plan, wanted), limit)


def _described(errors: Array) -> dict[str, float]:
    mean, median, worst = errors.mean(), np.median(errors), errors.max()
    return {"mean": float(mean), "median": float(median), "worst": float(worst)}


def _ratio(other: Array, own: Array) -> dict[str, float]:
    """The ratio of mean errors, above 1 where the second is less, with a 95 % interval."""
    rows = np.random.default_rng(0).integers(len(own), size=(RESAMPLED, len(own)))
    low, high = np.quantile(other[rows].mean(1) / own[rows].mean(1), (0.025, 0.975))
    return {"value": float(other.mean() / own.mean()), "low": float(low), "high": float(high)}


def _draw(tables: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Errors against steps, both axes logarithmic, one panel for each model and guidance."""
    figure = new_figure(3.4 * len(tables), 3.2)
    for place, (title, rows) in enumerate(tables.items()):
        panel = figure.add_subplot(1, len(tables), place + 1)
        steps = [row["steps"] for row in rows]
        for key, label, colour in (
            ("best_rms", "best grid and solver", "0.5"), ("fitted_rms", "fitted", "C1"),
        ):  # fmt: skip
            panel.plot(steps, [row[key]["mean"] for row in rows], "o-", color=colour, label=label)
        panel.set(xscale="log", yscale="log", title=title, xlabel="steps")
        panel.set_xticks(steps, [str(n) for n in steps])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if place == 0:
            panel.set_ylabel("RMSE to the limit")
            panel.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)


QUICK = {"steps": [4, 6], "pictures": 4, "guidance": [1.0]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 10, 12, 16, 20, 24])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    tables: dict[str, list[dict[str, Any]]] = {}
    names: list[str] = []
    for network in NETWORKS.values():
        model = loaded(given.models / network.file)
        names.append(model.name)
        scales: list[float] = given.guidance
        for scale in scales:
            guided = "unguided" if scale == 1 else f"guidance {scale:g}"
            title = f"{model.card.title}, {guided}"
            tables[title] = compared(model, scale, given.steps, given.pictures)
    report = {"limit": LIMIT, "pictures": given.pictures, "tables": tables}
    _draw(tables, given.out / "fitted.png")
    path = given.out / "fitted.json"
    return results.save(path, report, weights=names, dtype="float32", device="cpu")
