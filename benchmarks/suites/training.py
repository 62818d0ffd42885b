"""What a training run was: steps, time, pictures, its learning curve and what that predicts.

    python -m benchmarks training RUN

RUN is the folder of a run (`asymflow train --out`). Reads its log and its curve, and writes
training.json and training.png.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open

from asymflow.io.plots import new_figure
from asymflow.models.embedded import adapter as embedded
from asymflow.training import curve
from benchmarks import results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of a training run")
    parser.add_argument("--out", type=Path, help="default: the folder of its weights")
    parser.add_argument("--hours", type=float, nargs="+", default=[10, 20, 30], help="to predict")


def run(given: argparse.Namespace) -> dict[str, Any]:
    weights = given.run / "embedded.safetensors"
    adapter = embedded.load(weights)
    with safe_open(weights, "pt") as file:
        recipe = json.loads(cast("dict[str, str]", file.metadata())["training"])["recipe"]
    patch, tokens = recipe["transformer"]["patch"], recipe["tokens"]
    # Steps that were lost by an interruption were done again: the last one of a number counts.
    log = (given.run / "log.jsonl").read_text("utf-8").splitlines()
    steps = {row["step"]: row for row in map(json.loads, log)}
    drawn: Counter[int] = Counter()
    for row in steps.values():
        height, width = row["size"]
        drawn[height] += max(1, tokens // ((height // patch) * (width // patch)))
    points = curve.read(given.run)
    minutes = [point.minutes for point in points]
    total = sum(drawn.values())
    report: dict[str, Any] = {
        "recipe": recipe["name"],
        "steps": len(steps),
        "minutes": round(max(row["minutes"] for row in steps.values()), 1),
        "pictures": total,
        "share of pictures by height": {
            str(side): round(count / total, 4) for side, count in sorted(drawn.items())
        },
        "curve": [
            {"step": point.step, "minutes": point.minutes, "squared errors": dict(point.errors)}
            for point in points
        ],
        "predicted by hours": {
            f"{hours:g}": {
                split: {
                    t: round(
                        curve.extrapolated(
                            minutes, [point.errors[split][t] for point in points], 60 * hours
                        ),
                        5,
                    )
                    for t in errors
                }
                for split, errors in points[-1].errors.items()
            }
            for hours in given.hours
        },
    }
    print(curve.table(points))
    here = given.out or results.folder_of(adapter.name)
    figure = new_figure(7, 4)
    axes: Any = figure.add_subplot(
        title="Squared errors of single estimates", xlabel="minutes", ylabel="mean squared error"
    )
    for i, t in enumerate(points[-1].errors["seen"]):
        for split, line in (("seen", "-"), ("held out", "--")):
            values = [point.errors[split][t] for point in points]
            label = f"t = {t}" if split == "seen" else None
            axes.plot(minutes, values, line, color=f"C{i}", label=label)
    axes.set(xscale="log", yscale="log")
    axes.legend(title="dashed: held out", fontsize="small", ncols=2)
    here.mkdir(parents=True, exist_ok=True)
    figure.savefig(here / "training.png", dpi=120)
    return results.save(here / "training.json", report, **results.on_adapters([adapter]))
