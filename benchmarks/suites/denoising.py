"""Errors of single estimates of x_0: the most sensitive and fastest metric of weights.

    python -m benchmarks denoising data/emoji [--weights FILE ...]

Mean squared error (state in [-1, 1]) of the conditional estimate at several times, on held-out
pairs and on simple things, most of which are in training; captions are plain names with their
style. All models use the same pictures and noise. Writes denoising.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asymflow.bench.pairs import job, pick
from asymflow.core.flow import interpolate
from asymflow.core.types import Request
from asymflow.models.embedded import adapter as embedded
from asymflow.training.data.dataset import Dataset
from benchmarks import results

TIMES = (1.0, 0.97, 0.9, 0.8, 0.6)
SIDES = (32, 64)
COUNT = 96


@torch.inference_mode()
def errors(
    model: embedded.EmbeddedAdapter, pictures: Tensor, inputs: list[dict[str, str]]
) -> list[float]:
    """Mean squared error at each of `TIMES` of pictures [n, 4, h, w]."""
    size = (pictures.shape[2], pictures.shape[3])
    context, _ = model.encode([Request(each, size) for each in inputs])
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    found: list[float] = []
    for time in TIMES:
        t = torch.full((len(pictures),), time)
        x_0 = model.denoise(interpolate(pictures, noise, t), t, context)
        found.append(float((x_0 - pictures).square().mean()))
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, action="append", help="model files to compare")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    dataset = Dataset(given.data)
    simple = dataset.sample(
        np.random.default_rng(0),
        COUNT,
        64,
        p_background=0,
        p_scene=0,
        p_flip=0,
        p_style=1,
        simple=1e9,
    )
    held = pick([e for e in dataset.entries if e.split == "heldout"], COUNT, seed=0)
    report: dict[str, dict[str, list[float]]] = {}
    models: list[embedded.EmbeddedAdapter] = []
    for path in given.weights or [None]:
        model = embedded.load(path)
        models.append(model)
        rows = report[model.name] = {}
        for side in SIDES:
            images = np.stack([dataset.image(entry.index, side) for entry in held])
            jobs = [job(entry, seed=0) for entry in held]
            inputs = [{"prompt": prompt, "style": style} for prompt, style, _ in jobs]
            groups = {"held out": (images, inputs)}
            if side == 64:
                styles = [dataset.styles[number] for number in simple.styles]
                pairs = zip(simple.captions, styles, strict=True)
                groups["simple"] = (
                    simple.images,
                    [{"prompt": prompt, "style": style} for prompt, style in pairs],
                )
            for name, (pixels, wanted) in groups.items():
                state = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
                rows[f"{side} px {name}"] = errors(model, state, wanted)
        print(model.name)
        for name, values in rows.items():
            print(
                f"  {name:16}"
                + "".join(f"  t={t:g} {v:.4f}" for t, v in zip(TIMES, values, strict=True))
            )
    data = {"times": TIMES, "pictures": COUNT, "models": report}
    out = given.out or results.folder_of(models[-1].name)
    return results.save(out / "denoising.json", data, **results.on_adapters(models))
