"""Plots of cost against quality, and contact sheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asymflow.bench.baselines.report import REFERENCE, BaselinesReport, Quartiles, SamplerResult
from asymflow.bench.pairs import job
from asymflow.core.statistics import Interval
from asymflow.generation.sheets import sheet
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.training.data.manifest import Entry

SHEET_COLUMNS = 8


def plot_report(report: BaselinesReport, path: Path) -> None:
    """Plot KID and the distance to the reference over milliseconds, a colour per family."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = new_figure(13, 6)
    panels: Any = figure.subplots(1, 2)
    what: tuple[tuple[str, Callable[[SamplerResult], Interval]], ...] = (
        ("KID x1000 to real pictures", lambda result: result.score.kid),
        ("feature distance to the reference", lambda result: result.to_reference),
    )
    families = list(dict.fromkeys(result.family for result in report.results))
    for axes, (label, value) in zip(panels, what, strict=True):
        for number, family in enumerate(families):
            rows = [result for result in report.results if result.family == family]
            ms, found = [result.ms for result in rows], [value(result) for result in rows]
            ours = family == "asymflow"
            axes.errorbar(
                [each.median for each in ms],
                [each.value for each in found],
                xerr=_error_bars([each.median for each in ms], ms),
                yerr=_error_bars([each.value for each in found], found),
                fmt="*" if ours else "o",
                color=f"C{number % 10}",
                markersize=12 if ours else 5,
                markerfacecolor=None if number < 10 else "white",
                elinewidth=0.8,
                label=family,
            )
            if family in ("baseline", "asymflow", REFERENCE):
                for result, each, estimate in zip(rows, ms, found, strict=True):
                    axes.annotate(
                        result.name,
                        (each.median, estimate.value),
                        textcoords="offset points",
                        xytext=(6, 6),
                        fontsize=8,
                    )
        axes.set(xlabel="ms per picture, one at a time", ylabel=label, xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(visible=True, which="both", alpha=0.25)
    panels[0].legend(fontsize=8)
    figure.suptitle(f"{report.name} at {report.settings['size']} px")
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")


def _error_bars(
    middles: Sequence[float], around: Sequence[Quartiles] | Sequence[Interval]
) -> list[list[float]]:
    """Lengths of error bars; negative ones, from rounded quartiles, become 0."""
    pairs = list(zip(middles, around, strict=True))
    return [
        [max(0.0, middle - each.low) for middle, each in pairs],
        [max(0.0, each.high - middle) for middle, each in pairs],
    ]


def draw_pictures(
    entries: Sequence[Entry],
    real: NDArray[np.uint8],
    made: Mapping[str, NDArray[np.float16]],
    path: Path,
) -> None:
    """Write a contact sheet: real pictures, then a row for each configuration."""
    count = len(real)
    rows: list[Sequence[NDArray[Any]]] = [list(real)]
    rows += [list(pictures[:count].astype(np.float32)) for pictures in made.values()]
    picture = sheet(
        rows,
        row_labels=("real", *made),
        col_labels=[job(entry, 0)[0] for entry in entries[:count]],
        scale=max(1, 64 // real.shape[1]),
    )
    with replacing(path) as file:
        picture.save(file, "PNG")
