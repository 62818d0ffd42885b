"""Choose the guidance scale and interval: pictures of seen pairs against the real ones.

    python -m benchmarks guidance data/emoji

writes guidance.json: for every scale and every interval [low, 1] of t, recall, KID, and the feature
distance to the real picture of the pair, with the difference to guidance everywhere at scale 3 for
the same prompts and noise. The defaults are in `core.presets`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asymflow.bench import metrics
from asymflow.bench.features import extract, load_network
from asymflow.bench.pairs import job, pick
from asymflow.bench.quality import gallery_of, scores_of
from asymflow.core import engine, schedules
from asymflow.core.statistics import mean_interval
from asymflow.core.types import Plan, Request
from asymflow.generation import pipeline
from asymflow.io import folders
from asymflow.training.data.dataset import Dataset
from benchmarks import results

FIRST = (3.0, 0.0)
"""Scale and low end that the others are compared with."""
OTHERS = (
    *((scale, low) for scale in (3.0, 5.0, 7.0) for low in (0.6, 0.8)),
    *((scale, 0.0) for scale in (1.0, 5.0)),
)
SEED = 5
"""Seed of the noise, different from that of the quality suite, which evaluates the choice."""


def plan(low: float) -> Plan:
    """Enough steps that more would not change which guidance is better."""
    return schedules.plan_of(
        schedules.shifted(10, 4.0), solver="corrected2", guidance_interval=(low, 1.0)
    )


QUICK = {"pairs": 12, "out": results.QUICK / "guidance.json"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--out", type=Path, metavar="FILE")


def run(given: argparse.Namespace) -> dict[str, Any]:
    network = load_network()
    dataset = Dataset(given.data)
    common = [entry for entry in dataset.entries if entry.weight == 1]
    entries = pick((e for e in common if e.split == "train"), given.pairs, SEED)
    cached = partial(extract, network=network, cache=folders.cache() / "features")
    gallery = gallery_of(dataset, common, given.side, cached)
    model = pipeline.load(given.weights, dtype=None, device=None)
    size = (given.side, given.side)
    requests = [
        Request({"prompt": prompt, "style": style}, size, noise)
        for prompt, style, noise in (job(entry, SEED) for entry in entries)
    ]
    rows: list[dict[str, Any]] = []
    first: Any = None
    for scale, low in (FIRST, *OTHERS):
        guided = [replace(request, guidance_scale=scale) for request in requests]
        pictures = [result.picture for result in engine.run(model.adapter, plan(low), guided)]
        features = extract(np.stack(pictures), network=network)
        score, *_ = scores_of("generated", entries, features, split="seen", gallery=gallery)
        distances = metrics.cosine_distance(features, gallery.of(entries))
        first = distances if first is None else first
        nearer = mean_interval(distances - first)
        rows.append({"scale": scale, "low": low, **asdict(score), "difference": asdict(nearer)})
        print(
            f"scale {scale:g} in [{low:g}, 1]: KID {score.kid.value:.1f}, recall@1 "
            f"{score.recall_1.value:.1%}, @5 {score.recall_5.value:.1%}, distance "
            f"{score.distance.value:.4f}, difference {nearer.value:+.4f} "
            f"({nearer.low:+.4f} to {nearer.high:+.4f})",
            flush=True,
        )
    report = {
        "adapter": model.adapter.name,
        "dtype": model.dtype,
        "side": given.side,
        "pairs": len(entries),
        "rows": rows,
    }
    path = given.out or results.folder_of(model.adapter.name) / "guidance.json"
    ran = {f"from {low:g}": plan(low) for _, low in (FIRST, *OTHERS)}
    return results.save(path, report, **results.on(model, ran))
