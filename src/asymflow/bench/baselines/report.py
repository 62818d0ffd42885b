"""Report of the comparison: cost and quality of every sampler."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from asymflow.bench.report import Score
from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval

SCHEMA = 2
"""Version 1 has the key `peers` instead of `results`."""
BASELINE = "Heun 50"
REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Quartiles:
    """Median and quartiles over pictures: the spread, not a confidence interval."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def to_text(self, digits: int) -> str:
        """As "median (low-high)"."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


@dataclass(frozen=True, slots=True)
class SamplerResult:
    """Cost and quality of one configuration.

    Attributes:
        forwards: rows of network calls per picture (NFE); a guided estimate has two.
        whole: rows that went through every block. Caches skip most blocks of the others.
        macs: multiply-accumulates per picture, mean over the first few.
        ms: wall time of one picture, generated alone.
        speedup: time of `BASELINE` divided by the time of this sampler, for the same picture.
        peak_bytes: peak memory of one picture.
        score: quality against real pictures, as in `asymflow.bench.quality`.
        to_reference: feature distance to the reference.
        rms: RMSE to the reference, for pictures in [0, 1]: half of the RMSE in a plan's evidence,
            which is measured in [-1, 1] and before clipping.
    """

    name: str
    family: str
    settings: Mapping[str, Any]
    forwards: float
    whole: float
    macs: float
    ms: Quartiles
    speedup: Quartiles
    peak_bytes: int
    score: Score
    to_reference: Interval
    rms: Interval


@dataclass(frozen=True, slots=True)
class BaselinesReport:
    """All configurations, with the settings to reproduce them.

    Attributes:
        searched: for each scheduler of diffusers, the RMSE to the reference (in [-1, 1]) of every
            candidate shift; None where pictures are not finite.
    """

    provenance: Mapping[str, Any]
    name: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    searched: Mapping[str, Mapping[str, float | None]]
    results: tuple[SamplerResult, ...]

    def result(self, name: str) -> SamplerResult:
        """The result of one configuration.

        Raises:
            InputError: the name is unknown.
        """
        for result in self.results:
            if result.name == name:
                return result
        names = ", ".join(result.name for result in self.results)
        raise InputError(f"This report has no {name!r}. It has: {names}.")

    def to_json(self) -> str:
        """The report as one JSON object, with its schema version."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    def __str__(self) -> str:
        size, count = self.settings["size"], self.settings["pairs"]
        lines = [
            f"Samplers on {self.name} at {size} px, {count} pictures each, one at a time "
            "(±: half of the 95% interval; of times and speed-ups: quartiles)",
            "",
            header(_COLUMNS),
            *map(_row, self.results),
            "",
            f"forwards: rows of network calls; whole: rows through every block. {REFERENCE}: "
            "64 guided steps of multistep2.",
            "FD falls as n grows: compare it at equal n. Features are EfficientNet-Lite0's: never "
            "compare with a published FID or KID.",
        ]
        return "\n".join(lines)


_COLUMNS = (
    ("forwards", 9),
    ("whole", 7),
    ("GMAC", 8),
    ("ms", 21),
    ("speed-up", 22),
    ("MB", 7),
    ("KID x1000", 14),
    ("FD", 14),
    ("recall@1 %", 13),
    ("recall@5 %", 13),
    ("to reference", 15),
    ("rms", 15),
)
_NAME = 40


def header(columns: Sequence[tuple[str, int]]) -> str:
    """The first line of a table, of names and widths of columns."""
    return f"{'':{_NAME}}" + "".join(f"{name:>{width}}" for name, width in columns)


def row(name: str, cells: Sequence[str], columns: Sequence[tuple[str, int]]) -> str:
    """A line of a table."""
    found = f"{name:{_NAME}}"
    for cell, (_, width) in zip(cells, columns, strict=True):
        found += f"{cell:>{width}}"
    return found


def _row(result: SamplerResult) -> str:
    score = result.score
    cells = (
        f"{result.forwards:.1f}",
        f"{result.whole:.1f}",
        f"{result.macs / 1e9:.1f}",
        result.ms.to_text(0),
        result.speedup.to_text(2),
        f"{result.peak_bytes / 1e6:.1f}",
        score.kid.plus_minus(1),
        score.fd.plus_minus(1),
        score.recall_1.plus_minus(1, factor=100),
        score.recall_5.plus_minus(1, factor=100),
        result.to_reference.plus_minus(4),
        result.rms.plus_minus(4),
    )
    return row(result.name, cells, _COLUMNS)
