"""What are late steps worth on the embedded model? Its best plans of some prices, and without them.

    python -m benchmarks plans late --work runs/plans --dtype bfloat16

For every price the same search, by rollouts on the same pictures, with all tiers and with all but
late ones; both plans are measured on the same fresh pictures. Writes late.json and late.png, cost
against error.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from asymflow.core.statistics import Array, bootstrap_interval, mean_interval
from asymflow.core.types import Plan
from asymflow.io.plots import new_figure
from asymflow.planning import prediction, verifier
from benchmarks import results
from benchmarks.suites.plans.make import Workshop

PRICES = (1.5, 2.25, 3.75, 8.0)
QUICK = {
    "pictures": 4,
    "rollouts": 2,
    "calibration": 4,
    "candidates": 6,
    "prices": [3.0],
    "work": results.QUICK / "plans",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    Workshop.options(parser)
    parser.add_argument("--prices", type=float, nargs="+", default=[*PRICES])
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    shop = Workshop.of(given)
    full = shop.profile.cost_ms[0]
    plain = verifier.only(shop.profile, [tier for tier in shop.profile.tiers if not tier.late])
    late = {
        tier.name: round(cost / full, 3)
        for tier, cost in zip(shop.profile.tiers, shop.profile.cost_ms, strict=True)
        if tier.late
    }
    rows: list[dict[str, Any]] = []
    ran: dict[str, Plan] = {}
    for price in given.prices:
        found: dict[str, Plan] = {
            label: verifier.best_within(
                shop.chosen, profile, price * full, name=label, rollouts=given.rollouts
            )
            for label, profile in (("with", shop.profile), ("without", plain))
        }
        errors = {label: shop.fresh.errors(plan) for label, plan in found.items()}
        pairs = np.stack([errors["without"], errors["with"]], axis=1)
        worth = bootstrap_interval(pairs, _ratio)
        row: dict[str, Any] = {"price": price, "worth": asdict(worth)}
        for label, plan in found.items():
            row[label] = {
                "steps": len(plan.steps),
                "late": sum(step.tier.late for step in plan.steps),
                "full_estimates": round(prediction.price(shop.profile, plan) / full, 3),
                "rms": asdict(mean_interval(errors[label])),
            }
            ran[f"{label} late, {price:g}"] = plan
        rows.append(row)
        shop.say(f"{price:g}: {row}")
    out = given.out or results.folder_of(shop.model.adapter.name)
    report = {
        "made": dict(shop.profile.made),
        "pictures": given.pictures,
        "rollouts": given.rollouts,
        "prices of late tiers": late,
        "rows": rows,
    }
    whole = results.save(out / "late.json", report, **results.on(shop.model, ran))
    plot(rows).savefig(out / "late.png", dpi=110)
    return whole


def _ratio(pairs: Array, axis: int) -> Any:
    """Mean error without over mean error with."""
    means = pairs.mean(axis)
    return means[..., 0] / means[..., 1]


def plot(rows: list[dict[str, Any]]) -> Any:
    figure = new_figure(6, 4)
    axis: Any = figure.subplots()
    for label, colour in (("without", "#8a98a6"), ("with", "#2f6f9f")):
        values = [row[label]["rms"] for row in rows]
        spread = [[v["value"] - v["low"] for v in values], [v["high"] - v["value"] for v in values]]
        axis.errorbar(
            [row[label]["full_estimates"] for row in rows],
            [v["value"] for v in values],
            yerr=spread,
            marker="o",
            capsize=3,
            color=colour,
            label=f"{label} late steps",
        )
    axis.set(xscale="log", yscale="log", xlabel="full estimates", ylabel="RMSE to the reference")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    return figure
