"""Report of the comparison by the model's own limit: cost and error of every sampler."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from asymflow.bench.baselines.report import Quartiles, header, row
from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval

SCHEMA = 1
LIMIT = "limit"
"""Name and family of the fine solution."""


@dataclass(frozen=True, slots=True)
class LimitResult:
    """Cost and error of one configuration.

    Attributes:
        forwards: rows of network calls per picture (NFE); a guided estimate has two.
        ms: wall time of one picture, generated alone, without the encoding of its prompt.
        speedup: time of the model's own sampler divided by the time of this one, for the same
            picture.
        rms: mean RMSE to the limit, for pictures in [0, 1]; the interval holds what the limit may
            be off by.
        worst: the largest RMSE of a picture.
        changed: pictures that have become another.
        changed_at_most: upper bound of their share, one-sided, at 95%.
        to_limit: mean feature distance to the limit; None without the feature network.
    """

    name: str
    family: str
    settings: Mapping[str, Any]
    forwards: float
    ms: Quartiles
    speedup: Quartiles
    rms: Interval
    worst: float
    changed: int
    changed_at_most: float
    to_limit: Interval | None


@dataclass(frozen=True, slots=True)
class LimitReport:
    """All configurations, with the settings to reproduce them.

    Attributes:
        title: of the model.
        name: of the model and its weights.
        settings: of the measurement: "size", "pictures", "guidance", "guided", ...; "rounds" are
            the numbers of pictures that grids were compared on, see `Budget.rounds`.
        limit_rms: what the limit is off by, estimated, for pictures in [0, 1].
        apart: median RMSE between pictures of different requests.
        searched: for each sampler the RMSE to the limit of every grid, in state space, on other
            pictures, as many as in the last of its rounds; None where they are not finite.
        notes: what was left out.
    """

    provenance: Mapping[str, Any]
    title: str
    name: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    limit_rms: float
    apart: float
    searched: Mapping[str, Mapping[str, float | None]]
    results: tuple[LimitResult, ...]
    notes: tuple[str, ...] = ()

    def result(self, name: str) -> LimitResult:
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
        settings = self.settings
        count, (low, high) = settings["pictures"], settings["guided"]
        guidance = (
            f"guidance {settings['guidance']:g} in t from {low:g} to {high:g}"
            if settings["guidance"] != 1
            else "without guidance"
        )
        lines = [
            f"Samplers on {self.title} ({self.name}) at {settings['size']} px, {guidance}, {count} "
            "pictures each, one at a time (±: half of the 95% interval; of times and speed-ups: "
            "quartiles)",
            "",
            header(_COLUMNS),
            *(_row(result, count) for result in self.results),
            "",
            "NFE: rows of network calls. rms: of the difference to the limit, for pictures in "
            f"[0, 1]; different pictures are {self.apart:.3f} apart.",
            f"{LIMIT}: 64 steps of multistep2, guided where the model's own sampler guides; off by "
            f"about {self.limit_rms:.4f}.",
            "others: pictures that have become another (at most this share, at 95%).",
            "Every sampler is on the best of its grids, which were compared on other pictures: "
            f"{_rounds(settings['rounds'])}.",
            *self.notes,
        ]
        return "\n".join(lines)


_COLUMNS = (
    ("NFE", 7),
    ("ms", 26),
    ("speed-up", 23),
    ("rms", 16),
    ("worst", 8),
    ("others", 15),
    ("features", 16),
)


def _rounds(pictures: Sequence[int]) -> str:
    first, *others = pictures
    halves = (f", then the better half on {n}" for n in others)
    return f"all grids on {first}{''.join(halves)}"


def _row(result: LimitResult, count: int) -> str:
    far = result.to_limit
    cells = (
        f"{result.forwards:.1f}",
        result.ms.to_text(1),
        result.speedup.to_text(2),
        result.rms.plus_minus(4),
        f"{result.worst:.4f}",
        f"{result.changed / count:.0%} (≤ {result.changed_at_most:.0%})",
        "" if far is None else far.plus_minus(4),
    )
    return row(result.name, cells, _COLUMNS)
