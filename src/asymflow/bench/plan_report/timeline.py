"""Timeline of a plan as one picture: the estimate at every step, and the time of the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from asymflow.bench.plan_report.cost import colours, on_white, record
from asymflow.core.adapter import Adapter
from asymflow.core.types import Plan, Request
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure


def strip(adapter: Adapter, plan: Plan, request: Request, path: Path) -> None:
    """Run a plan on a request and write a PNG: estimates of x_0 above, cost below.

    The width of a bar is the step's share of the time of this run, its colour the tier.

    Raises:
        InputError: the model does not support the request or the plan; nothing is written.
        MissingExtra: matplotlib is not installed.
    """
    run = record(adapter, plan, request)
    steps, seconds = plan.steps, np.array(run.seconds)
    shown = (*run.estimates, run.picture)

    figure = new_figure(1.25 * len(shown), 2.6)
    grid: Any = figure.add_gridspec(2, len(shown), height_ratios=(3, 1))
    for number, picture in enumerate(shown):
        axes: Any = figure.add_subplot(grid[0, number])
        axes.imshow(on_white(picture), interpolation="nearest")
        last = number == len(steps)
        axes.set_title("picture" if last else f"t = {steps[number].t:.2f}", fontsize=8)
        axes.set_axis_off()
    bars: Any = figure.add_subplot(grid[1, :])
    tiers = colours([step.tier.name for step in steps])
    ends = np.cumsum(seconds / seconds.sum())
    for step, end, share in zip(steps, ends, seconds / seconds.sum(), strict=True):
        bars.barh(0, share, left=end - share, color=tiers[step.tier.name], edgecolor="white")
        bars.text(end - share / 2, 0, f"{share:.0%}", ha="center", va="center", fontsize=7)
    bars.set(xlim=(0, 1), yticks=(), xticks=(), ylim=(-0.4, 0.4))
    bars.set_xlabel(f"{plan.name}: {sum(seconds):.2f} s, {run.forwards} forwards", fontsize=8)
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=name) for name, colour in tiers.items()]
    bars.legend(
        handles=patches, fontsize=7, ncols=len(patches), loc="lower left",
        bbox_to_anchor=(0, 1.0), frameon=False,
    )  # fmt: skip
    with replacing(path) as file:
        figure.savefig(file, dpi=110, format="png")
