"""Report of the quality suite."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval

SCHEMA = 1

Split = Literal["seen", "heldout"]
Source = Literal["generated", "nudged", "half size", "reference", "other style", "other concept"]
Nearest = Literal["own", "reference", "concept", "style", "none"]

MEANING: Mapping[Source, str] = {
    "generated": "the pictures under test",
    "nudged": "the real picture, slightly rotated, scaled and shifted: an upper bound",
    "half size": "the real picture at half its side, upsampled: correct but blurred",
    "reference": "a copy of the first library drawing that a model is conditioned on",
    "other style": "a real picture of the concept in another style",
    "other concept": "a real picture of another concept in the same style: recall by chance, "
    "KID and FD between real sets",
}
NEAREST: Mapping[Nearest, str] = {
    "own": "the real picture of the pair",
    "reference": "a library drawing that a model is conditioned on",
    "concept": "another drawing of the concept",
    "style": "another concept in the requested style",
    "none": "another concept in another style",
}
"""Kinds of the nearest real picture, over all concepts and styles."""


@dataclass(frozen=True, slots=True)
class Score:
    """Metrics of a set of pictures against the real pictures of its pairs."""

    source: Source
    split: Split
    style: str | None
    """None for all styles together."""
    n: int
    recall_1: Interval
    recall_5: Interval
    style_1: Interval
    """Share whose nearest real picture of the same concept is of the requested style."""
    kid: Interval
    """Times 1000. For all styles, the mean of the KIDs of the styles: KID of the pooled set is
    blind to exchanged styles."""
    fd: Interval
    """Pooled where `style` is None, because FD needs many pictures. Compare at equal n only."""
    distance: Interval
    """Mean of one minus the cosine to the real picture of the pair."""


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Scores of a generator and of the anchors, with the settings to reproduce them.

    Attributes:
        config: settings of the generator, as given.
        settings, versions, hashes: of the measurement.
        seconds: duration of every stage.
        nearest: shares of generated pictures by the kind of their nearest real picture, which
            shows copying.
    """

    provenance: Mapping[str, Any]
    name: str
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    seconds: Mapping[str, float]
    scores: tuple[Score, ...]
    nearest: Mapping[Split, Mapping[Nearest, float]]

    def score(self, source: Source, split: Split, style: str | None = None) -> Score:
        """One score.

        Raises:
            InputError: it was not measured.
        """
        for score in self.scores:
            if (score.source, score.split, score.style) == (source, split, style):
                return score
        raise InputError(
            f"This report has no score of {source!r} for {split!r} pairs and style {style!r}: "
            "a style with fewer than 3 pairs is not scored. Ask for more pairs."
        )

    def to_json(self) -> str:
        """The report as one JSON object, with its schema version."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    def __str__(self) -> str:
        lines = [
            f"Quality of {self.name} at {self.settings['size']} px (±: half of the 95% interval)"
        ]
        for split, title in (("seen", "seen pairs"), ("heldout", "held-out pairs")):
            lines += ["", _HEADER.format(title)]
            lines += [
                _row(score)
                for score in self.scores
                if score.split == split and (score.style is None or score.source == "generated")
            ]
        lines += ["", "nearest of all real pictures, share of generated ones in %"]
        for split, shares in self.nearest.items():
            row = ", ".join(f"{kind} {100 * share:.1f}" for kind, share in shares.items())
            lines.append(f"{split:14}{row}")
        lines.append("")
        lines += [f"{source:14}{text}" for source, text in MEANING.items()]
        lines += [f"{kind:14}nearest is {text}" for kind, text in NEAREST.items()]
        lines.append("FD falls as n grows: compare it at equal n.")
        lines.append(
            "Features are EfficientNet-Lite0's: never compare with a published FID or KID."
        )
        return "\n".join(lines)


_COLUMNS = ("recall@1 %", "recall@5 %", "style %", "KID x1000", "FD", "distance")
_HEADER = f"{{:24}}{'n':>5}" + "".join(f"{column:>15}" for column in _COLUMNS)


def _row(score: Score) -> str:
    what = score.source if score.style is None else f"  {score.style}"
    cells = (
        score.recall_1.plus_minus(1, factor=100),
        score.recall_5.plus_minus(1, factor=100),
        score.style_1.plus_minus(1, factor=100),
        score.kid.plus_minus(1),
        score.fd.plus_minus(1),
        score.distance.plus_minus(3),
    )
    return f"{what:24}{score.n:5}" + "".join(f"{cell:>15}" for cell in cells)
