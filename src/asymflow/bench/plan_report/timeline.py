"""A plan at work, as one picture: what is known after every step, and what the step cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from asymflow.bench.plan_report.cost import colours, on_white, watch
from asymflow.core.adapter import Adapter
from asymflow.core.types import Plan, Request
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure


def strip(adapter: Adapter, plan: Plan, request: Request, path: Path) -> None:
    """Draw a request with a plan and write a PNG: estimates of x_0 above, cost below.

    Bars are as wide as their share of the time that the steps took in this run, and have the
    colour of their tier; beneath stand the times t.

    Raises:
        InputError: the request or the plan does not fit the model; nothing is written.
        MissingExtra: matplotlib is not installed.
    """
    watched = watch(adapter, plan, request)
    steps, seconds = plan.steps, np.array(watched.seconds)
    shown = (*watched.estimates, watched.picture)

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
    bars.set_xlabel(f"{plan.name}: {sum(seconds):.2f} s, {watched.forwards} forwards", fontsize=8)
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=name) for name, colour in tiers.items()]
    bars.legend(
        handles=patches, fontsize=7, ncols=len(patches), loc="lower left",
        bbox_to_anchor=(0, 1.0), frameon=False,
    )  # fmt: skip
    with replacing(path) as file:
        figure.savefig(file, dpi=110, format="png")
