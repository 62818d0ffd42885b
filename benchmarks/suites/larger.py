"""At what part of the side is the model asked best, for larger pictures than it knows best?

    python -m benchmarks larger --dtype bfloat16

One grid, asked at the whole side, at a half, at a quarter, and changing on the way; and the plans
that come with the model for that side. Every picture is compared, in features, with a real picture
of the same thing in the same style, and with itself asked at half the side. Writes larger.json and
larger.png, some of the pictures: a row for every way, in their order.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from asymflow.bench import metrics
from asymflow.bench.evaluators import by_real
from asymflow.bench.features import extract, load_network
from asymflow.bench.pairs import pick
from asymflow.bench.quality import real_pictures
from asymflow.core import presets, schedules, transforms
from asymflow.core.statistics import mean_interval
from asymflow.core.types import Plan
from asymflow.generation import pipeline
from asymflow.io import images
from asymflow.models.embedded import plans
from asymflow.planning import verifier
from asymflow.training.data.dataset import Dataset
from benchmarks import results

SIDE, STEPS, SHIFT = 128, 16, 12.0
SEED = 21
GALLERY = 512
"""Real pictures for KID."""
SHOWN = 10
TOGETHER = 16
BASE = "half"

WAYS: dict[str, Callable[[float, bool], int]] = {
    "half": lambda t, last: 2,
    "half, whole at the end": lambda t, last: 1 if last else 2,
    "whole": lambda t, last: 1,
    "quarter, half at the end": lambda t, last: 2 if last else 4,
    "quarter above t = 0.8, then half": lambda t, last: 4 if t > 0.8 else 2,
    "quarter above t = 0.3, then half": lambda t, last: 4 if t > 0.3 else 2,
}
"""By which factor a step that begins at t is pooled."""


def asked(grid: Plan, way: Callable[[float, bool], int]) -> Plan:
    """A whole grid, asked in a way."""
    end = len(grid.steps) - 1
    factors = [way(step.t, i == end) for i, step in enumerate(grid.steps)]
    return Plan(
        grid.name, tuple(transforms.pooled(grid, f).steps[i] for i, f in enumerate(factors))
    )


QUICK = {"pictures": 16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    model = pipeline.load(None, dtype=given.dtype, device=None)
    adapter, size = model.adapter, (SIDE, SIDE)
    judge = by_real(model, size, given.data, given.pictures, SEED)
    grid = schedules.plan_of(
        schedules.shifted(STEPS, SHIFT), guidance_interval=presets.guidance_interval(size)
    )
    compared = {name: asked(grid, way) for name, way in WAYS.items()}
    compared |= {f"plan {name}": plans.load(name, size) for name in plans.NAMES}
    dataset, network = Dataset(given.data), load_network()
    seen = [entry for entry in dataset.entries if entry.weight == 1 and entry.split == "train"]
    real = extract(real_pictures(dataset, pick(seen, GALLERY, SEED + 1), SIDE), network=network)
    report: dict[str, Any] = {
        "adapter": adapter.name,
        "dtype": model.dtype,
        "side": SIDE,
        "steps": STEPS,
        "pictures": given.pictures,
        "ways": {},
    }
    base, rows = None, []
    for name, plan in compared.items():
        groups = range(0, given.pictures, TOGETHER)
        ends = torch.cat(
            [verifier.rollout(adapter, plan, judge.requests[i : i + TOGETHER]) for i in groups]
        )
        distance = judge.distance(ends, judge.reference)
        made = np.stack([adapter.to_picture(state) for state in ends])
        found = extract(made, network=network)
        if base is None:
            base = (distance, found)
        row = {
            "to real pictures": asdict(mean_interval(distance)),
            f"minus {BASE}": asdict(mean_interval(distance - base[0])),
            f"to {BASE}": asdict(mean_interval(metrics.cosine_distance(found, base[1]))),
            "KID": asdict(metrics.kid(found, real)),
        }
        report["ways"][name] = row
        print(name, json.dumps(row), flush=True)
        rows.append(np.concatenate([images.to_bytes(each) for each in made[:SHOWN]], axis=1))
    here = (given.out or results.folder_of(adapter.name)) / "larger"
    whole = results.save(here.with_suffix(".json"), report, **results.on(model, compared))
    sheet = Image.fromarray(np.concatenate(rows))
    white = Image.new("RGBA", sheet.size, "white")
    opaque = Image.alpha_composite(white, sheet.convert("RGBA")).convert("RGB")
    opaque.quantize(128).save(here.with_suffix(".png"), optimize=True)
    return whole
