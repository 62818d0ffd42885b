"""Which prediction learns fastest? x_0, velocity, or rank-asymmetric velocity between them.

Equal compute: the same network, data, noise and number of steps at 32 px; only the rank of the
predicted noise differs (0 is x_0 prediction, 256 is velocity prediction). All three are trained and
judged by the same velocity loss, |x_0_hat - x_0|^2 / t^2 with t >= 0.05, so the numbers compare.

    python benchmarks/prediction.py data/emoji [--steps 250]

writes benchmarks/prediction.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path

import torch

from asymflow.models.embedded import adapter as embedded
from asymflow.training.data.dataset import Dataset
from asymflow.training.loop import build, train
from asymflow.training.recipes import Phase, recipe

RANKS = {"x_0": 0, "asymmetric, rank 16": 16, "asymmetric, rank 64": 64, "velocity": 256}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=250)
    arguments = parser.parse_args()
    dataset = Dataset(arguments.data)
    vectors = embedded.load().model.text.vectors()
    base = dataclasses.replace(
        recipe("cpu"),
        steps=arguments.steps,
        tokens=2048,
        background=0.0,
        scene=0.0,
        phases=(Phase(1.0, (((32, 32), 1.0),)),),
    )
    results: dict[str, dict[str, float]] = {}
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
        results[name] = {
            f"loss around step {step}": statistics.mean(losses[step - 25 : step])
            for step in range(50, arguments.steps + 1, 50)
        }
        print(name, {key: round(value, 4) for key, value in results[name].items()}, flush=True)
    report = {
        "steps": arguments.steps,
        "pictures_per_step": base.tokens // 16,
        "size": 32,
        "torch": torch.__version__,
        "velocity_loss": results,
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
