"""Report on a plan as one PNG."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from asymflow.bench.plan_report.cost import Account, colours, on_white
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure

_COLUMN_LIMIT = 10
"""Maximum number of estimates in a row."""


def poster(account: Account, path: Path) -> None:
    """Plot the final pictures, every estimate with cost and share of error, and the table.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    plan, costs = account.plan.plan, account.costs(account.plan)
    shares = plan.evidence.shares if plan.evidence is not None else ()
    tiers = colours([step.tier.name for step in plan.steps])
    columns = min(len(plan.steps), _COLUMN_LIMIT)
    rows = -(-len(plan.steps) // columns)
    table = str(plan)
    if plan.evidence is not None and plan.evidence.predicted is not None:
        table += f"\npredicted, for the nearest plan of the profile, {plan.evidence.predicted:.3f}"
    heights = (2.6, 2.3 * rows, 0.17 * (table.count("\n") + 3))
    figure = new_figure(max(9.5, 1.15 * columns), sum(heights))
    parts: Any = figure.subfigures(3, 1, height_ratios=heights)
    ends, strip, text = parts

    places: Any = ends.subplots(1, len(account.runs) + 1)
    for axes in places:
        axes.set_axis_off()
    words = textwrap.fill(account.title, 30) + "\n\n" + textwrap.fill(account.lead, 34)
    places[0].text(0, 1, words, fontsize=9, va="top", transform=places[0].transAxes)
    for axes, (name, run) in zip(places[1:], account.runs, strict=True):
        axes.imshow(on_white(run.picture), interpolation="nearest")
        words = f"{sum(account.costs(run)):.1f} full estimates"
        if run is not account.reference:
            words += f"\nRMSE {account.rmse(run):.3f}"
        axes.set_title(f"{name}\n{words}", fontsize=9, loc="left")

    most = max(1.0, *costs)
    places = strip.subplots(2 * rows, columns, height_ratios=(3, 1) * rows, squeeze=False)
    for axes in places.flat:
        axes.set_axis_off()
    for i, step in enumerate(plan.steps):
        row, column = divmod(i, columns)
        picture, bars = places[2 * row, column], places[2 * row + 1, column]
        picture.imshow(on_white(account.plan.estimates[i]), interpolation="nearest")
        picture.set_title(f"{i + 1}: t = {step.t:.2f}", fontsize=8)
        values = [(costs[i] / most, tiers[step.tier.name], f"cost {costs[i]:.0%}")]
        if shares:
            values.append((shares[i], "#b5473f", f"error {shares[i]:.0%}"))
        for level, (value, colour, words) in enumerate(values):
            bars.barh(-level, 1, height=0.35, color="#eceae4")
            bars.barh(-level, value, height=0.35, color=colour)
            bars.text(0, 0.2 - level, words, fontsize=7, va="bottom")
        kind = f"{step.tier.name}\n{step.solver_name}"
        bars.text(0, -0.4 - (len(values) - 1), kind, fontsize=7, va="top", color=values[0][1])
        bars.set(xlim=(0, 1), ylim=(-2.4, 0.7))
    text.text(0.01, 0.95, table, family="monospace", fontsize=8, va="top")
    with replacing(path) as file:
        figure.savefig(file, dpi=130, format="png")
