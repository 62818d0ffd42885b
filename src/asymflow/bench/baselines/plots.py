"""Plots of cost against quality, and contact sheets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asymflow.bench.baselines.report import REFERENCE, BaselinesReport, SamplerResult
from asymflow.core.statistics import Interval
from asymflow.generation.pixels import to_rgba
from asymflow.generation.sheets import sheet
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure

SHEET_COLUMNS = 8
_SIDE = 128
"""Largest side of pictures on a sheet, about."""

Range = tuple[float, float, float]
"""(value, low, high)."""


@dataclass(frozen=True, slots=True)
class Point:
    """One configuration on a panel: its cost and its error."""

    name: str
    family: str
    x: Range
    y: Range


@dataclass(frozen=True, slots=True)
class Panel:
    """Errors against a cost; `log` has the error on a logarithmic scale."""

    xlabel: str
    ylabel: str
    points: Sequence[Point]
    log: bool = False


def draw_panels(panels: Sequence[Panel], path: Path, *, title: str, named: Sequence[str]) -> None:
    """Plot panels side by side, a colour per family.

    Args:
        panels: with the same families.
        path: PNG file.
        title: above them.
        named: families whose points have their names beside them.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = new_figure(6.5 * len(panels), 6)
    places: Any = figure.subplots(1, len(panels), squeeze=False)
    families = list(dict.fromkeys(point.family for panel in panels for point in panel.points))
    for axes, panel in zip(places[0], panels, strict=True):
        for number, family in enumerate(families):
            points = [point for point in panel.points if point.family == family]
            ours = family == "asymflow"
            axes.errorbar(
                [point.x[0] for point in points],
                [point.y[0] for point in points],
                xerr=_error_bars([point.x for point in points]),
                yerr=_error_bars([point.y for point in points]),
                fmt="*" if ours else "o",
                color=f"C{number % 10}",
                markersize=12 if ours else 5,
                markerfacecolor=None if number < 10 else "white",
                elinewidth=0.8,
                label=family,
            )
        axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel, xscale="log")
        for point in panel.points:
            if point.family in named:
                _label(axes, point)
        if panel.log:
            axes.set(yscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(visible=True, which="both", alpha=0.25)
    places[0][0].legend(fontsize=8)
    figure.suptitle(title)
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")


def _label(axes: Any, point: Point) -> None:
    """The name of a point beside it, on the side where the plot goes on."""
    low, high = axes.get_xlim()
    late = math.log(point.x[0] / low) > 0.7 * math.log(high / low)
    axes.annotate(
        point.name.removeprefix("asymflow "),  # the legend says whose the stars are
        (point.x[0], point.y[0]),
        textcoords="offset points",
        xytext=(-6 if late else 6, 6),
        ha="right" if late else "left",
        fontsize=8,
    )


def plot_report(report: BaselinesReport, path: Path) -> None:
    """Plot KID and the distance to the reference over milliseconds."""
    what: tuple[tuple[str, Callable[[SamplerResult], Interval]], ...] = (
        ("KID x1000 to real pictures", lambda result: result.score.kid),
        ("feature distance to the reference", lambda result: result.to_reference),
    )
    panels: list[Panel] = []
    for label, value in what:
        points: list[Point] = []
        for each in report.results:
            ms, found = each.ms, value(each)
            x, y = (ms.median, ms.low, ms.high), (found.value, found.low, found.high)
            points.append(Point(each.name, each.family, x, y))
        panels.append(Panel("ms per picture, one at a time", label, points))
    title = f"{report.name} at {report.settings['size']} px"
    draw_panels(panels, path, title=title, named=("baseline", "asymflow", REFERENCE))


def _error_bars(ranges: Sequence[Range]) -> list[list[float]]:
    """Lengths of error bars; negative ones, from rounded quartiles, become 0."""
    return [
        [max(0.0, value - low) for value, low, _ in ranges],
        [max(0.0, high - value) for value, _, high in ranges],
    ]


def draw_pictures(labels: Sequence[str], rows: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write a contact sheet: a row of pictures [n, h, w, c] for each configuration.

    Args:
        labels: of the first columns, at most `SHEET_COLUMNS`.
        rows: premultiplied pictures of 1 to 4 channels, uint8 or in [0, 1].
        path: PNG file.
    """
    shown = [
        [_thumbnail(picture) for picture in pictures[: len(labels)]] for pictures in rows.values()
    ]
    side = shown[0][0].shape[1]
    picture = sheet(shown, row_labels=list(rows), col_labels=labels, scale=max(1, 64 // side))
    with replacing(path) as file:
        picture.save(file, "PNG")


def _thumbnail(picture: NDArray[Any]) -> NDArray[np.float32]:
    """A picture as RGBA in [0, 1], averaged over squares where it is large."""
    unit = picture / np.float32(255) if picture.dtype == np.uint8 else picture.astype(np.float32)
    factor = max(1, min(unit.shape[:2]) // _SIDE)
    height, width = (side // factor for side in unit.shape[:2])
    cut = unit[: height * factor, : width * factor]
    squares = cut.reshape(height, factor, width, factor, unit.shape[2])
    return to_rgba(squares.mean((1, 3)))
