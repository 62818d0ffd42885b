"""Learning curve of a training run: `python -m asymflow.training.curve FOLDER`.

A run appends squared errors of single estimates to `errors.jsonl` (`asymflow.training.errors`).
They follow a power law in the number of pictures until the model overfits; a power law fitted to
the second half of the curve extrapolates to longer training.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ERRORS = "errors.jsonl"
HOURS = (10, 30, 60)
_MIN_POINTS = 4  # needed for a fit


@dataclass(frozen=True, slots=True)
class Point:
    """Squared errors at a time of training, by split ("seen", "held out") and t."""

    step: int
    minutes: float
    errors: Mapping[str, Mapping[str, float]]


def read(out: Path) -> list[Point]:
    """Read the curve of a run; empty before its first point."""
    path = out / ERRORS
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    return [Point(row["step"], row["minutes"], row["errors"]) for row in rows]


def extrapolated(minutes: Sequence[float], values: Sequence[float], later: float) -> float:
    """A power law fitted to the second half of a curve, evaluated at `later` minutes.

    Least squares in logarithms; all minutes and values must be positive.
    """
    half = len(minutes) // 2
    x = [math.log(m) for m in minutes[half:]]
    y = [math.log(v) for v in values[half:]]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    return math.exp(mean_y + slope * (math.log(later) - mean_x))


def table(points: Sequence[Point], *, last: int = 8) -> str:
    """The last points and extrapolations, as text."""
    if not points:
        return "the curve has no points yet"
    lines: list[str] = []
    for split in points[-1].errors:
        times = list(points[-1].errors[split])
        lines.append(f"{split}: mean squared error at t")
        lines.append("     step   hours  " + "  ".join(f"{t:>7}" for t in times))
        for point in points[-last:]:
            values = "  ".join(f"{point.errors[split][t]:7.4f}" for t in times)
            lines.append(f"{point.step:9d} {point.minutes / 60:7.2f}  {values}")
        minutes = [point.minutes for point in points]
        if len(points) >= _MIN_POINTS:
            for hours in HOURS:
                if 60 * hours <= minutes[-1]:
                    continue
                at = [
                    extrapolated(minutes, [p.errors[split][t] for p in points], 60 * hours)
                    for t in times
                ]
                values = "  ".join(f"{value:7.4f}" for value in at)
                lines.append(f"predicted {hours:7.0f}  {values}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(read(Path(sys.argv[1]))))
