"""A table of samplers: their cost, and how near their pictures come."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from asymflow.bench.report import Score
from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval

SCHEMA = 1
BASELINE = "Heun 50"
REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Quartiles:
    """The median over pictures, and the quartiles around it: how they differ, no interval."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True, slots=True)
class Peer:
    """What one configuration takes and what its pictures are worth.

    Attributes:
        forwards: rows of network calls per picture; a guided estimate has two.
        whole: of them, rows that went through every block. Caches skip most blocks of the others.
        macs: multiply-accumulates per picture, mean of the first few.
        ms: wall time of one picture, generated alone.
        speedup: time of `BASELINE` over its time for the same picture.
        peak_bytes: most memory that one picture holds.
        score: against the real pictures, as in `asymflow.bench.quality`.
        to_reference: one minus the cosine of features of its picture and of the reference's.
        rms: of their difference, for pictures in [0, 1]: half of what a plan's evidence says, which
            is measured in [-1, 1] and before clipping.
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
class PeersReport:
    """All configurations, with what is needed to repeat them.

    Attributes:
        searched: per scheduler of diffusers, the root mean square to the reference (in [-1, 1]) of
            every shift that it could choose from.
    """

    provenance: Mapping[str, Any]
    name: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    searched: Mapping[str, Mapping[str, float]]
    peers: tuple[Peer, ...]

    def peer(self, name: str) -> Peer:
        """One row; raises `InputError` where there is none of that name."""
        for peer in self.peers:
            if peer.name == name:
                return peer
        raise InputError(
            f"This report has no {name!r}. It has: {', '.join(peer.name for peer in self.peers)}."
        )

    def to_json(self) -> str:
        """The report as one JSON object, with its schema version."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    def __str__(self) -> str:
        size, count = self.settings["size"], self.settings["pairs"]
        lines = [
            f"Samplers on {self.name} at {size} px, {count} pictures each, one at a time "
            "(±: half of the 95% interval; of times and speed-ups: quartiles)",
            "",
            _HEADER,
            *map(_row, self.peers),
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
_HEADER = f"{'':{_NAME}}" + "".join(f"{name:>{width}}" for name, width in _COLUMNS)


def _row(peer: Peer) -> str:
    ms, speedup, score = peer.ms, peer.speedup, peer.score
    cells = (
        f"{peer.forwards:.1f}",
        f"{peer.whole:.1f}",
        f"{peer.macs / 1e9:.1f}",
        f"{ms.median:.0f} ({ms.low:.0f}-{ms.high:.0f})",
        f"{speedup.median:.2f} ({speedup.low:.2f}-{speedup.high:.2f})",
        f"{peer.peak_bytes / 1e6:.1f}",
        score.kid.plus_minus(1),
        score.fd.plus_minus(1),
        score.recall_1.plus_minus(1, factor=100),
        score.recall_5.plus_minus(1, factor=100),
        peer.to_reference.plus_minus(4),
        peer.rms.plus_minus(4),
    )
    row = f"{peer.name:{_NAME}}"
    for cell, (_, width) in zip(cells, _COLUMNS, strict=True):
        row += f"{cell:>{width}}"
    return row
