"""Evaluators of plans: against a reference cached on disk, and against real pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench import metrics
from asymflow.bench.features import as_unit_float, extract, load_network
from asymflow.bench.pairs import job, pick
from asymflow.bench.quality import real_pictures
from asymflow.core import presets
from asymflow.core.types import Request
from asymflow.generation import pipeline
from asymflow.planning import plan_files, verifier
from asymflow.planning.verifier import Evaluator
from asymflow.training.data.dataset import Dataset


def by_reference(model: pipeline.Model, requests: Sequence[Request], folder: Path) -> Evaluator:
    """An evaluator against a fine plan, which is rolled out once and cached in a folder."""
    size = requests[0].size
    fine = pipeline.reference(model, size)
    inputs = repr([(each.inputs, each.seed, each.size) for each in requests])
    name = f"{model.adapter.name} {model.dtype} {plan_files.plan_hash(fine)} {inputs}"
    path = folder / f"reference-{hashlib.sha256(name.encode()).hexdigest()[:12]}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(verifier.rollout(model.adapter, fine, requests), path)
    reference = torch.load(path, weights_only=True)
    guided = presets.guidance_interval(size)
    return Evaluator(model.adapter, tuple(requests), reference, verifier.rms, guided)


def by_real(
    model: pipeline.Model, size: tuple[int, int], data: Path, count: int, seed: int
) -> Evaluator:
    """An evaluator against features of real pictures of seen pairs; `seed` selects the pairs.

    Raises:
        MissingExtra: the feature network is not installed.
        FileFormatError: `data` holds no dataset.
    """
    network = load_network()
    dataset = Dataset(data)
    common = (e for e in dataset.entries if e.weight == 1 and e.split == "train")
    entries = pick(common, count, seed)
    pictures = real_pictures(dataset, entries, size[0])
    target = extract(pictures, network=network)
    requests = [
        Request({"prompt": prompt, "style": style}, size, noise, presets.GUIDANCE)
        for prompt, style, noise in (job(entry, seed) for entry in entries)
    ]

    def distance(x: Tensor, y: Tensor) -> NDArray[np.float64]:
        made = np.stack([model.adapter.to_picture(state) for state in x])
        return metrics.cosine_distance(extract(made, network=network), target[: len(x)])

    states = [model.adapter.to_state(as_unit_float(picture)) for picture in pictures]
    guided = presets.guidance_interval(size)
    return Evaluator(model.adapter, tuple(requests), torch.stack(states), distance, guided)
