"""Model files side by side, with the anchors, in one run; and what guidance should drop.

    python -m benchmarks embedded DATA OUT --weights shipped --weights runs/v2/embedded.safetensors
    python -m benchmarks embedded DATA OUT --weights FILE --drop all words style --scale 2 4

The same pairs, seeds and grid for every file. `--drop` says what the unconditional estimate does
without: all of the request, its words and style, its style alone, or its references alone. Writes
`embedded.json`, with squared errors of single estimates on the pairs of a run's curve, and of each
file a sheet of seen and of held-out pairs: real drawings above.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asymflow.bench import pairs
from asymflow.bench.quality import quality
from asymflow.bench.report import QualityReport, Source, Split
from asymflow.core import engine, presets
from asymflow.core.adapter import Adapter, Context, Wrapped
from asymflow.core.types import Request
from asymflow.io import folders
from asymflow.models.embedded import adapter as embedded
from asymflow.training.data.dataset import Dataset
from asymflow.training.errors import squared_errors
from asymflow.training.run import curve_pairs
from benchmarks import results

DROPS: dict[str, tuple[str, ...]] = {
    "all": ("prompt", "style", "reference"),
    "words": ("prompt", "style"),
    "style": ("style",),
    "reference": ("reference",),
}


class Dropping(Wrapped):
    """An adapter whose unconditional estimate does without some of the request."""

    def __init__(self, inner: Adapter, drops: Sequence[str]) -> None:
        super().__init__(inner)
        self.drops = drops

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        conditional, _ = self.inner.encode(requests)
        # References are found by the words, so they are held before those are dropped.
        kept, _ = self.inner.encode([self._without(request) for request in requests])
        if "reference" not in self.drops and "reference" in conditional:
            kept = {**kept, "reference": conditional["reference"]}
        return conditional, kept

    def _without(self, request: Request) -> Request:
        inputs = {key: value for key, value in request.inputs.items() if key not in self.drops}
        if "reference" in self.drops:
            inputs["reference"] = None
        return replace(request, inputs=inputs)


def row(report: QualityReport, source: Source, split: Split) -> dict[str, Any]:
    score = report.score(source, split)
    names = ("recall_1", "recall_5", "style_1", "kid", "distance")
    values = {name: getattr(score, name) for name in names}
    return {"n": score.n} | {
        name: [round(e.value, 4), round(e.half, 4)] for name, e in values.items()
    }


QUICK = {"pairs": 12, "steps": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", action="append", required=True, help="a file, or shipped")
    parser.add_argument("--drop", nargs="+", choices=DROPS, default=["all"])
    parser.add_argument("--scale", nargs="+", type=float, default=[presets.GUIDANCE])
    parser.add_argument("--pairs", type=int, default=160)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--size", type=int, default=64)


def run(given: argparse.Namespace) -> dict[str, Any]:
    plan = presets.Grid(steps=given.steps).plan((given.size, given.size))
    found: dict[str, Any] = {
        "plan": plan.name,
        "rows": {},
        "squared errors": {},
    }
    dataset = Dataset(given.data)
    adapters: list[embedded.EmbeddedAdapter] = []
    whole: dict[str, Any] = {}
    for name in given.weights:
        path = None if name == "shipped" else Path(name)
        adapter = embedded.load(path)
        adapters.append(adapter)
        found["squared errors"][adapter.name] = {
            split: squared_errors(embedded.load(path, packed=False).model, dataset, entries, 64)
            for split, entries in curve_pairs(dataset).items()
        }
        for drop in given.drop:
            for scale in given.scale:
                asked = adapter if drop == "all" else Dropping(adapter, DROPS[drop])
                label = f"{adapter.name}, guidance {scale:g} over {drop}"

                def generate(
                    jobs: Sequence[pairs.Job], side: int, asked: Any = asked, scale: float = scale
                ) -> np.ndarray:
                    requests = [
                        Request({"prompt": prompt, "style": style}, (side, side), seed, scale)
                        for prompt, style, seed in jobs
                    ]
                    return np.stack([r.picture for r in engine.run(asked, plan, requests)])

                report = quality(
                    generate,
                    given.data,
                    name=label,
                    size=given.size,
                    pairs=given.pairs,
                    out=given.out / label.replace(":", "-").replace(",", "").replace(" ", "-"),
                    cache=folders.cache() / "features",
                    progress=sys.stderr.isatty(),
                )
                splits: tuple[Split, ...] = ("seen", "heldout")
                found["rows"][label] = {
                    split: row(report, "generated", split)
                    | {"nearest": {k: round(v, 4) for k, v in report.nearest[split].items()}}
                    for split in splits
                }
                anchors: tuple[Source, ...] = ("reference", "half size")
                found["anchors"] = {
                    anchor: {split: row(report, anchor, split) for split in splits}
                    for anchor in anchors
                }
                print(report, flush=True)
                described = results.on_adapters(adapters, {plan.name: plan})
                whole = results.save(given.out / "embedded.json", found, **described)
    return whole
