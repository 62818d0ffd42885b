"""Which prediction learns fastest? x_0, velocity, or rank-asymmetric velocity between them.

Equal compute: the same network, data, noise and number of steps at 32 px; only the rank of the
predicted noise differs (0 is x_0 prediction, 256 is velocity prediction). All three are trained and
judged by the same velocity loss, |x_0_hat - x_0|^2 / t^2 with t >= 0.05, so the numbers compare.

    python -m benchmarks parameterisation data/emoji [--steps 250]

writes parameterisation.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from asymflow.models.embedded import adapter as embedded
from asymflow.training.data.dataset import Dataset
from asymflow.training.loop import build, train
from asymflow.training.recipes import Phase, recipe
from benchmarks import results

RANKS = {"x_0": 0, "asymmetric, rank 16": 16, "asymmetric, rank 64": 64, "velocity": 256}

QUICK = {"steps": 50}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    dataset = Dataset(given.data)
    vectors = embedded.load().model.text.vectors()
    base = dataclasses.replace(
        recipe("cpu"),
        steps=given.steps,
        tokens=2048,
        background=0.0,
        scene=0.0,
        phases=(Phase(1.0, (((32, 32), 1.0),)),),
    )
    losses_of: dict[str, dict[str, float]] = {}
    for name, rank in RANKS.items():
        each = dataclasses.replace(base, rank=rank)
        with tempfile.TemporaryDirectory() as out:
            losses: list[float] = []
            for row, _ in train(
                build(each, dataset, vectors),
                each,
                dataset,
                Path(out),
                device=torch.device("cpu"),
            ):
                losses.append(row.loss)
        losses_of[name] = {
            f"loss around step {step}": statistics.mean(losses[step - 25 : step])
            for step in range(50, given.steps + 1, 50)
        }
        print(name, {key: round(value, 4) for key, value in losses_of[name].items()}, flush=True)
    report = {
        "steps": given.steps,
        "pictures_per_step": base.tokens // 16,
        "size": 32,
        "torch": torch.__version__,
        "velocity_loss": losses_of,
    }
    out = given.out or results.TRAINED
    return results.save(out / "parameterisation.json", report, dtype="float32", device="cpu")
