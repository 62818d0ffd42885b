"""Where quality is lost: real drawings, noised to t, and drawn on from there.

    python -m benchmarks rendering DATA OUT

What the picture shows is given at small t, so what is lost there is rendering; what is lost from
larger t only is what the model did not know to draw. Then the same from t = .6 by grids of fewer
and of more steps. Writes `rendering.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asymflow.bench import pairs
from asymflow.bench.pairs import Job
from asymflow.bench.quality import quality, real_pictures
from asymflow.core import engine, presets
from asymflow.core.types import Picture, Request
from asymflow.io import folders
from asymflow.models.embedded import adapter as embedded
from asymflow.training.data.dataset import Dataset
from benchmarks import results
from benchmarks.suites.embedded import row

SIDE = 64
STEPS = 14
CASES = (
    *((strength, STEPS) for strength in (1.0, 0.95, 0.8, 0.6, 0.4, 0.2)),
    *((0.6, steps) for steps in (5, 40)),
)
"""Times to begin at, and steps of the grid from t = 1, of which those below are taken."""
QUICK = {"pairs": 12}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=100)


def run(given: argparse.Namespace) -> dict[str, Any]:
    adapter = embedded.load()
    drawings = real(Dataset(given.data), given.pairs)
    plans = {steps: presets.Grid(steps=steps).plan((SIDE, SIDE)) for _, steps in CASES}
    rows: list[dict[str, Any]] = []
    for strength, steps in CASES:

        def generate(
            jobs: Sequence[Job], side: int, strength: float = strength, steps: int = steps
        ) -> NDArray[np.float32]:
            requests = [
                Request(
                    {"prompt": job[0], "style": job[1]},
                    (side, side),
                    job[2],
                    presets.GUIDANCE,
                    image=drawings[job],
                    strength=strength,
                )
                for job in jobs
            ]
            return np.stack([r.picture for r in engine.run(adapter, plans[steps], requests)])

        report = quality(
            generate,
            given.data,
            name=f"from t = {strength:g}, {steps} steps",
            size=SIDE,
            pairs=given.pairs,
            cache=folders.cache() / "features",
            progress=False,
        )
        print(report, flush=True)
        found = {"seen": row(report, "generated", "seen")}
        found["held out"] = row(report, "generated", "heldout")
        rows.append({"from": strength, "steps": steps, **found})
    used = {plan.name: plan for plan in plans.values()}
    described = results.on_adapters([adapter], used)
    return results.save(given.out / "rendering.json", {"rows": rows}, **described)


def real(dataset: Dataset, count: int) -> dict[Job, Picture]:
    """The real drawing of every job of `quality` with so many pairs."""
    found: dict[Job, Picture] = {}
    for split in ("train", "heldout"):
        common = (e for e in dataset.entries if e.weight == 1 and e.split == split)
        chosen = pairs.pick(common, count, 0)
        pictures = real_pictures(dataset, chosen, SIDE).astype(np.float32) / np.float32(255)
        found |= {pairs.job(e, 0): p for e, p in zip(chosen, pictures, strict=True)}
    return found
