"""Does the embedded model agree with itself across resolutions? See `asymflow.bench.consistency`.

    python -m benchmarks consistency data/emoji

writes consistency.json and .png: 64 pictures that training saw, at 128 against 64 px and
at 64 against 32 px.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from asymflow.bench.consistency import Consistency, consistency
from asymflow.bench.pairs import job, pick
from asymflow.io.plots import new_figure
from asymflow.models.embedded import adapter as embedded
from asymflow.training.data.dataset import Dataset
from benchmarks import results

COUNT = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    dataset = Dataset(given.data)
    adapter = embedded.load()
    entries = pick([entry for entry in dataset.entries if entry.split == "train"], COUNT, seed=0)
    jobs = [job(entry, seed=0) for entry in entries]
    inputs = [{"prompt": prompt, "style": style} for prompt, style, _ in jobs]
    found: dict[str, list[Consistency]] = {}
    for side in (128, 64):
        pictures = np.stack([dataset.image(entry.index, side) for entry in entries])
        rows = consistency(adapter, pictures.astype(np.float32) / np.float32(255), inputs)
        found[f"{side} against {side // 2} px"] = rows
        print(f"{side} against {side // 2} px")
        for row in rows:
            print(
                f"  t={row.t:.2f}  disagreement {row.disagreement:.3f}  "
                f"errors {row.error_full:.3f} full, {row.error_low:.3f} low"
            )
    here = (given.out or results.folder_of(adapter.name)) / "consistency"
    report: dict[str, Any] = {"model": adapter.name, "pictures": len(entries)}
    report |= {name: [asdict(row) for row in rows] for name, rows in found.items()}
    whole = results.save(here.with_suffix(".json"), report, **results.on_adapters([adapter]))
    figure = new_figure(9, 3.6)
    for i, (name, rows) in enumerate(found.items(), start=1):
        axes: Any = figure.add_subplot(1, 2, i, title=name, xlabel="t of the full size")
        t = [row.t for row in rows]
        axes.plot(t, [row.disagreement for row in rows], label="disagreement", linewidth=2)
        axes.plot(t, [row.error_full for row in rows], "--", label="error of the full estimate")
        axes.plot(t, [row.error_low for row in rows], ":", label="error of the low estimate")
        axes.set_ylabel("relative rms")
        axes.legend()
    figure.savefig(here.with_suffix(".png"), dpi=120)
    return whole
