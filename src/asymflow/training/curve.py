"""How far a training run is, and where it leads: `python -m asymflow.training.curve FOLDER`.

A run writes squared errors of single estimates into `errors.jsonl` (`asymflow.training.errors`).
They fall like a power of the pictures seen, until a run begins to know its drawings by heart; the
line through the second half of the curve, in logarithms, says what more hours would bring.
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
_FEWEST = 4  # points that a line is drawn through


@dataclass(frozen=True, slots=True)
class Point:
    """Squared errors after some time: by split ("seen", "held out") and t."""

    step: int
    minutes: float
    errors: Mapping[str, Mapping[str, float]]


def read(out: Path) -> list[Point]:
    """The curve of the run in a folder, empty before its first point."""
    path = out / ERRORS
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    return [Point(row["step"], row["minutes"], row["errors"]) for row in rows]


def extrapolated(minutes: Sequence[float], values: Sequence[float], later: float) -> float:
    """The power law through the second half of a curve, at `later` minutes.

    Least squares in logarithms; points are (minutes, value), all above 0.
    """
    half = len(minutes) // 2
    x = [math.log(m) for m in minutes[half:]]
    y = [math.log(v) for v in values[half:]]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    return math.exp(mean_y + slope * (math.log(later) - mean_x))


def table(points: Sequence[Point], *, last: int = 8) -> str:
    """The last points, and what the curve predicts for some hours, as text."""
    if not points:
        return "no point of the curve yet"
    lines: list[str] = []
    for split in points[-1].errors:
        times = list(points[-1].errors[split])
        lines.append(f"{split}: mean squared error at t")
        lines.append("     step   hours  " + "  ".join(f"{t:>7}" for t in times))
        for point in points[-last:]:
            values = "  ".join(f"{point.errors[split][t]:7.4f}" for t in times)
            lines.append(f"{point.step:9d} {point.minutes / 60:7.2f}  {values}")
        minutes = [point.minutes for point in points]
        if len(points) >= _FEWEST:
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
