"""A plan at work, as one picture: what is known after every step, and what the step cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asymflow import engine
from asymflow.adapter import Adapter
from asymflow.errors import MissingExtra
from asymflow.files import replacing
from asymflow.types import Picture, Plan, Request, Step

_COLOURS = ("#2f6f9f", "#d98c2b", "#5f9f4f", "#a04f7f", "#8f8f8f", "#4fa0a0", "#c0504d", "#70659f")


def strip(adapter: Adapter, plan: Plan, request: Request, path: Path) -> None:
    """Draw a request with a plan and write a PNG: estimates of x_0 above, cost below.

    Bars are as wide as their share of the time that the steps took in this run, and have the
    colour of their tier; beneath stand the times t.

    Raises:
        InputError: the request or the plan does not fit the model; nothing is written.
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        raise MissingExtra("matplotlib", "train") from error
    frames = list(engine.walk(adapter, plan, [request]))
    steps = [frame.step for frame in frames]
    estimates = [engine.pictures(adapter, [request], frame.x_0)[0] for frame in frames]
    estimates.append(engine.pictures(adapter, [request], frames[-1].x_t)[0])
    seconds = np.array([frame.seconds for frame in frames])

    figure = Figure(figsize=(1.25 * len(estimates), 2.6), layout="constrained")
    grid: Any = figure.add_gridspec(2, len(estimates), height_ratios=(3, 1))
    for number, picture in enumerate(estimates):
        axes: Any = figure.add_subplot(grid[0, number])
        axes.imshow(_on_white(picture), interpolation="nearest")
        last = number == len(steps)
        axes.set_title("picture" if last else f"t = {steps[number].t:.2f}", fontsize=8)
        axes.set_axis_off()
    bars: Any = figure.add_subplot(grid[1, :])
    colours = _colours(steps)
    ends = np.cumsum(seconds / seconds.sum())
    for step, end, share in zip(steps, ends, seconds / seconds.sum(), strict=True):
        bars.barh(0, share, left=end - share, color=colours[step.tier.name], edgecolor="white")
        bars.text(end - share / 2, 0, f"{share:.0%}", ha="center", va="center", fontsize=7)
    bars.set(xlim=(0, 1), yticks=(), xticks=(), ylim=(-0.4, 0.4))
    bars.set_xlabel(
        f"{plan.name}: {sum(seconds):.2f} s, {engine.forwards(plan, request)} forwards", fontsize=8
    )
    patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
    bars.legend(
        handles=patches, fontsize=7, ncols=len(patches), loc="lower left",
        bbox_to_anchor=(0, 1.0), frameon=False,
    )  # fmt: skip
    with replacing(path) as file:
        figure.savefig(file, dpi=110, format="png")


def _colours(steps: Sequence[Step]) -> dict[str, str]:
    """A colour for every tier in the order of first use."""
    names = dict.fromkeys(step.tier.name for step in steps)
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}


def _on_white(picture: Picture) -> NDArray[np.float32]:
    """Premultiplied RGBA over white; other pictures as they are."""
    if picture.shape[-1] != 4:
        return picture
    return np.clip(picture[..., :3] + 1 - picture[..., 3:], 0, 1)
