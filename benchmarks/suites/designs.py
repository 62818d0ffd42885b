"""Which design learns fastest? Short runs from scratch on the same batches, one after the other.

    python -m benchmarks designs DATA designs.json             # the designs, at 64 px
    python -m benchmarks designs DATA skips.json --set skips   # what is predicted, at 32 px
    python -m benchmarks designs DATA gates.json --set gates   # noise of single pixels, at 64 px
    python -m benchmarks designs DATA passes.json --passes     # what a pass takes of each

Every run sees the same pictures, captions, times and noise. Squared errors are those of single
estimates, averaged weights, on pairs that training saw and on pairs that it did not, with
references as they would be shipped; `without` is the same model with none. The sheet has, of
held-out pairs, the references, the real drawing, and what each design makes of pure noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image

from asymflow.bench.pairs import job, pick
from asymflow.core import engine, presets
from asymflow.core.types import Request
from asymflow.generation.sheets import sheet
from asymflow.io.files import replacing
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded.detail import DetailConfig
from asymflow.models.embedded.network import PictureModel
from asymflow.models.embedded.transformer import TransformerConfig
from asymflow.models.embedded.words import nouns
from asymflow.training.data.dataset import Dataset, is_simple
from asymflow.training.data.manifest import Entry
from asymflow.training.errors import TIMES, squared_errors
from asymflow.training.loop import build, train
from asymflow.training.recipes import V2, Phase, Recipe
from benchmarks import results

AT = (*TIMES, 0.1, 0.05)
PAIRS = 160
COLUMNS = 12
SCALE = 3.0
"""Of guidance: networks that have learnt little take no more."""


def recipes(which: str) -> tuple[int, dict[str, Recipe]]:
    """Side in pixels, and the recipes to compare."""
    side = 32 if which == "skips" else 64
    base = dataclasses.replace(
        V2,
        tokens=2304 if side == 64 else 1152,
        warmup_steps=40,
        decay=0.35,
        ema=0.98,
        disturb=0.0,
        recolour=0.0,
        scene=0.0,
        checkpoint_minutes=1e9,
        phases=(Phase(1.0, (((side, side), 1.0),), simple=1e6),),
    )
    if which == "gates":
        return side, {
            "no gates": dataclasses.replace(base, detail=DetailConfig()),
            "gates": base,
        }
    base = dataclasses.replace(base, detail=DetailConfig())  # as the others were compared
    hybrid = dataclasses.replace(base, references=0)
    if which == "designs":
        transformer = TransformerConfig()
        shipped = dataclasses.replace(
            hybrid, transformer=transformer, detail=None, skip=None, rank=16
        )
        return side, {"shipped": shipped, "hybrid": hybrid, "hybrid + references": base}
    skips = {f"skip {s}": dataclasses.replace(base, skip=s) for s in (0.15, 0.25, 0.4)}
    return side, skips | {"rank 16": dataclasses.replace(base, skip=None, rank=16)}


@torch.inference_mode()
def passes(models: Mapping[str, PictureModel], side: int, repeats: int = 15) -> dict[str, Any]:
    """What a pass of each model takes over one of the first, taken in turns: the least of each."""
    found: dict[str, Any] = {}
    for rows in (1, 2):
        seconds: dict[str, list[float]] = {name: [] for name in models}
        x_t, t = torch.randn(rows, 4, side, side), torch.full((rows,), 0.5)
        ids = torch.ones(rows, 10, dtype=torch.long)
        for turn in range(repeats):
            for name, model in models.items():
                count = model.config.references
                seen = None
                if count:
                    drawings = torch.zeros(rows, count, 4, side, side)
                    seen = model.encode_references(drawings, torch.ones(rows, count))
                context = model.context(ids, ids.bool(), torch.zeros(rows, dtype=torch.long), seen)
                begun = time.perf_counter()
                model(x_t, t, context)
                if turn:
                    seconds[name].append(time.perf_counter() - begun)
        first = min(next(iter(seconds.values())))
        found[f"{rows} pictures"] = {
            name: round(min(each) / first, 3) for name, each in seconds.items()
        }
    return found


def held_out(
    dataset: Dataset, entries: Sequence[Entry], files: Mapping[str, Path], side: int
) -> Image.Image:
    """References, real drawings, and what every model makes of pure noise, a column each."""
    shown, _ = dataset.references(entries, side, V2.references)
    rows: dict[str, Sequence[NDArray[Any]]] = {
        f"reference {place + 1}": list(shown[:, place]) for place in range(V2.references)
    }
    rows["real"] = list(dataset.images([entry.index for entry in entries], side))
    plan = presets.Grid(steps=14).plan((side, side))
    requests = [
        Request({"prompt": prompt, "style": style}, (side, side), seed, SCALE)
        for prompt, style, seed in (job(entry, 0) for entry in entries)
    ]
    for name, path in files.items():
        results = engine.run(embedded.load(path), plan, requests)
        rows[name] = [result.picture for result in results]
    labels = [f"{nouns(entry.name)[0].bare}, {entry.style}" for entry in entries]
    return sheet(list(rows.values()), row_labels=list(rows), col_labels=labels, scale=128 // side)


QUICK = {"steps": 20, "keep": results.QUICK / "designs"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", choices=("designs", "skips", "gates"), default="designs")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--keep", type=Path, default=Path("runs/designs"), help="model files")
    parser.add_argument("--only", help="one design")
    parser.add_argument("--passes", action="store_true", help="only what a pass costs")


def run(given: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    side, chosen = recipes(given.set)
    chosen = {n: dataclasses.replace(r, steps=given.steps) for n, r in chosen.items()}
    dataset = Dataset(given.data)
    everyday = [entry for entry in dataset.entries if is_simple(entry)]
    pairs = {
        "seen": pick([e for e in everyday if e.split == "train"], PAIRS, 0),
        "held out": pick([e for e in everyday if e.split == "heldout"], PAIRS, 0),
    }
    vectors = embedded.load(packed=False).model.text.vectors()
    report: dict[str, Any] = {
        "side": side,
        "pairs": {split: len(entries) for split, entries in pairs.items()},
        "passes": passes(
            {name: build(recipe, dataset, vectors) for name, recipe in chosen.items()}, side
        ),
    }
    described = {"dtype": "float32", "device": "cpu"}
    if given.passes:
        print(json.dumps(report["passes"], indent=1))
        return results.save(given.out, report, **described)
    rows: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for name, recipe in chosen.items():
        if given.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = train(
                build(recipe, dataset, vectors),
                recipe,
                dataset,
                Path(folder),
                device=torch.device("cpu"),
            )
            losses: list[float] = []
            begun = time.process_time()
            model, pictures = None, 0
            for row, average in run:
                model = average
                losses.append(row.loss)
                pictures += recipe.tokens // (side // 8) ** 2
                if row.step % 10 == 0:
                    spent = time.process_time() - begun
                    print(f"{name}: step {row.step}, loss {sum(losses[-10:]) / 10:.4f}, "
                          f"{spent:.0f} s", flush=True)  # fmt: skip
        assert model is not None
        spent = time.process_time() - begun
        model.eval()
        rows[name] = {
            "steps": given.steps,
            "pictures": pictures,
            "seconds a picture": spent / pictures,
            "loss": sum(losses[-30:]) / 30,
            "squared errors": {
                split: squared_errors(model, dataset, entries, side, times=AT)
                for split, entries in pairs.items()
            },
        }
        if recipe.references:
            rows[name]["without"] = {
                split: squared_errors(model, dataset, entries, side, count=0, times=AT)
                for split, entries in pairs.items()
            }
        print(json.dumps(rows[name]), flush=True)
        files[name] = given.keep / f"{name.replace(' ', '-')}.safetensors"
        embedded.save(model, files[name], training={"steps": given.steps})
    whole = results.save(given.out, report | {"designs": rows}, **described)
    with replacing(given.out.with_suffix(".png")) as file:
        held_out(dataset, pairs["held out"][:COLUMNS], files, side).save(file, "PNG", optimize=True)
    return whole
