"""What is each mechanism worth? A shipped plan, and what is left when one is taken away.

    python -m benchmarks plans ablation --side 64 --work runs/plans

At the price of the shipped plan, chosen on the same pictures as it was and measured on the same
fresh ones: without cheap tiers; on the best grid that others use instead of a planned one; as
predicted, without real rollouts; and the plan itself with whole lines, and at order 1. Reads what
`plans make` left in --work; writes ablation-SIDE.json and .png.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from asymflow.core.statistics import mean_interval
from asymflow.core.types import CONDITIONAL, Plan, Solver
from asymflow.io.plots import new_figure
from asymflow.models.embedded import plans
from asymflow.planning import planner, prediction, verifier
from asymflow.planning.profiler import no_progress
from benchmarks import results
from benchmarks.suites.plans.make import BUDGETS, FACTORS, Workshop


def with_solver(plan: Plan, solver: Solver) -> Plan:
    """The plan with another solver wherever one extrapolates."""
    steps = (
        step if step.solver == "multistep1" else replace(step, solver=solver) for step in plan.steps
    )
    return Plan(plan.name, tuple(steps))


def variants(shop: Workshop, name: str, rollouts: int) -> dict[str, Plan]:
    """The shipped plan, and those that miss one mechanism, at no higher price."""
    profile, evaluator = shop.profile, shop.chosen
    shipped = plans.load(name, shop.size)
    budget = BUDGETS[name] * profile.cost_ms[0]
    whole = [tier for tier in profile.tiers if tier.full or tier == CONDITIONAL]
    others = verifier.baselines(
        profile, budget, shop.size, guidance_interval=evaluator.guidance_interval
    )
    return {
        "the plan": shipped,
        "full size only": verifier.best_within(
            evaluator, verifier.only(profile, whole), budget, rollouts=rollouts
        ),
        "grids of others": verifier.best_of(evaluator, list(others), no_progress),
        "as predicted": planner.plan(profile, budget=budget),
        "lines undamped": with_solver(shipped, "multistep2"),
        "order 1": with_solver(shipped, "multistep1"),
    }


def plot(report: dict[str, list[dict[str, Any]]], title: str) -> Any:
    """A row of bars per budget."""
    figure = new_figure(8, 1.1 + 1.5 * len(report))
    axes: Any = figure.subplots(len(report), 1, squeeze=False)[:, 0]
    for axis, (name, rows) in zip(axes, report.items(), strict=True):
        values = [row["rms"]["value"] for row in rows]
        spread = [row["rms"]["high"] - row["rms"]["value"] for row in rows]
        colours = ["#2f6f9f", *["#b9c6d2"] * (len(rows) - 1)]
        axis.barh([row["without"] for row in rows], values, xerr=spread, color=colours)
        axis.invert_yaxis()
        axis.set_ylabel(name)
        axis.grid(alpha=0.25, axis="x")
    axes[0].set_title(title)
    axes[-1].set_xlabel("difference to the reference (root mean square), 95% interval")
    return figure


QUICK = {
    "pictures": 4,
    "rollouts": 2,
    "calibration": 4,
    "candidates": 6,
    "work": results.QUICK / "plans",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    Workshop.options(parser)
    parser.add_argument("--plan", action="append", choices=plans.NAMES)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    if FACTORS[given.side] > 1:
        raise SystemExit(f"plans of {given.side} px are enlarged ones: take --side 64")
    shop = Workshop.of(given)
    report: dict[str, list[dict[str, Any]]] = {}
    for name in given.plan or ("balanced",):
        report[name] = []
        for label, plan in variants(shop, name, given.rollouts).items():
            errors = shop.fresh.errors(plan)
            found = mean_interval(errors)
            cost = prediction.price(shop.profile, plan) / shop.profile.cost_ms[0]
            report[name].append(
                {
                    "without": label,
                    "steps": len(plan.steps),
                    "full_estimates": round(cost, 3),
                    "rms": asdict(found),
                }
            )
            shop.say(
                f"{name}, {label}: {len(plan.steps)} steps, {cost:.2f} full, {found.value:.4f}"
            )
    out = given.out or results.folder_of(shop.model.adapter.name)
    here = out / f"ablation-{given.side}"
    data = {"made": dict(shop.profile.made), "pictures": given.pictures, "plans": report}
    ran = {name: plans.load(name, shop.size) for name in report}
    whole = results.save(here.with_suffix(".json"), data, **results.on(shop.model, ran))
    title = f"One mechanism taken away, {given.side} px, {given.pictures} fresh pictures"
    plot(report, title).savefig(here.with_suffix(".png"), dpi=110)
    return whole
