"""What each ingredient of fitted plans is worth: taken away, one at a time.

    OMP_NUM_THREADS=1 python -m benchmarks fashion ablation

At each price plans are fitted with everything, and again without one ingredient; all of them then
draw the same fresh pictures. *worth*: the mean error without it over that with it, at equal network
passes, with an interval from the common seeds. Writes ablation.json and ablation.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asymflow.core import engine
from asymflow.core.types import Plan, Solver
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.planning.proof import rms
from asymflow.planning.proposals import Fits, Guidance
from benchmarks import results
from benchmarks.suites.fashion import paired
from benchmarks.suites.fashion.campaign import Table, add_models, each_table, fits
from benchmarks.suites.fashion.paired import Array

WHOLE = "everything"
SOLVERS: tuple[Solver, ...] = ("multistep2", "multistep3", "damped2", "corrected2")
"""Whose weights stand for those that are not fitted: the best by pictures of their own."""


class Throughout(Fits):
    """Fits that are guided wherever the model's own sampler is."""

    def kinds(self) -> Iterator[Guidance]:
        yield Guidance(self.guided)


class Uncarried(Fits):
    """Fits without steps that carry the guidance term."""

    def kinds(self) -> Iterator[Guidance]:
        yield from (kind for kind in super().kinds() if kind.every == 1)


def changed(table: Table) -> Mapping[str, Fits]:
    """Fits with everything, and without one ingredient."""

    def made(kind: type[Fits] = Fits, **changes: int) -> Fits:
        found = fits(table, kind)
        found.effort = replace(found.effort, **changes)
        return found

    found = {
        WHOLE: made(),
        "polishing": made(polish=0),
        "polishing and search of times": made(first=1, again=1, polish=0),
    }
    if table.guided:
        found["carried guidance"] = made(Uncarried)
        found["unguided steps"] = made(Throughout)
    return found


def unfitted(plan: Plan, solver: Solver) -> Plan:
    """The times and tiers of a plan, with the weights of a solver."""
    return Plan(plan.name, tuple(replace(step, solver=solver, weights=None) for step in plan.steps))


def compared(table: Table, prices: Sequence[int], limit: int) -> dict[str, Any]:
    """Errors with and without each ingredient, for each price."""
    fine = table.limit(limit)
    ends, few = table.drawn(fine, table.fresh), table.drawn(fine, table.chosen)
    ways = changed(table)
    rows: list[dict[str, Any]] = []
    for price in prices:
        estimates = price // 2 if table.guided else price
        plans = {name: way.at(estimates)["fitted"] for name, way in ways.items()}
        of_solvers = [unfitted(plans[WHOLE], solver) for solver in SOLVERS]
        plans["fitted weights"] = min(
            of_solvers, key=lambda plan: rms(table.drawn(plan, table.chosen), few).mean()
        )
        errors = {name: rms(table.drawn(plan, table.fresh), ends) for name, plan in plans.items()}
        passes = {name: engine.forwards(plan, table.fresh[0]) for name, plan in plans.items()}
        own = errors.pop(WHOLE)
        row = {
            "passes": price,
            WHOLE: {"passes": passes[WHOLE], **paired.described(own)},
            "without": {
                name: {
                    "passes": passes[name],
                    **paired.described(each),
                    "worth": paired.ratio_to_best(each[None], own),
                }
                for name, each in errors.items()
            },
            "solver": plans["fitted weights"].steps[0].solver,
        }
        rows.append(row)
        print(f"{table.model.name} {table.scale:g}: {row}", flush=True)
    return {"limit": len(fine.steps), "rows": rows, "passes": table.counted.rows}


def _draw(tables: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """What ingredients are worth at each price, one panel for each model and guidance."""
    figure = new_figure(4.4 * len(tables), 3.6)
    every = [name for table in tables.values() for name in table["rows"][0]["without"]]
    colours = {name: f"C{k}" for k, name in enumerate(dict.fromkeys(every))}
    for number, (title, table) in enumerate(tables.items()):
        panel = figure.add_subplot(1, len(tables), number + 1)
        rows, names = table["rows"], list(table["rows"][0]["without"])
        width = 0.8 / len(names)
        for k, name in enumerate(names):
            found = [row["without"][name]["worth"] for row in rows]
            x = np.arange(len(rows)) + width * (k - (len(names) - 1) / 2)
            y: Array = np.array([each["value"] for each in found])
            bars = np.array(
                [[each["value"] - each["low"], each["high"] - each["value"]] for each in found]
            )
            panel.bar(x, y - 1, width, bottom=1, color=colours[name], label=name)
            panel.errorbar(x, y, bars.T, fmt="none", ecolor="0.3", lw=1)
        panel.axhline(1, color="0.5", lw=1)
        panel.set_xticks(range(len(rows)), [str(row["passes"]) for row in rows])
        panel.set(title=title, xlabel="network passes", yscale="log")
        panel.set_yticks([1, 1.5, 2, 3, 5], ["1", "1.5", "2", "3", "5"])
        panel.minorticks_off()
        panel.grid(alpha=0.3, axis="y")
        panel.legend(frameon=False, fontsize=8)
        if number == 0:
            panel.set_ylabel("error without it / with it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=130)


QUICK: dict[str, Any] = {"prices": [4], "pictures": 3, "chosen": 2, "guidance": [2.0], "limit": 6}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prices", type=int, nargs="+", default=[6, 10, 16])
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument(
        "--chosen", type=int, default=32, help="pictures that solvers are chosen by"
    )
    parser.add_argument("--limit", type=int, default=50, help="steps of either half of the limit")
    add_models(parser, "jit")


def run(given: argparse.Namespace) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    weights: dict[str, None] = {}
    for table in each_table(given.networks, given, given.chosen, given.pictures):
        tables[table.title] = compared(table, given.prices, given.limit)
        weights[table.model.name] = None
    _draw(tables, given.out / "ablation.png")
    report = {"pictures": given.pictures, "tables": tables}
    path = given.out / "ablation.json"
    return results.save(path, report, weights=[*weights], dtype="float32", device="cpu")
