"""A complete training run: data, model, checkpoints, learning curve, samples and model file."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asymflow.core import devices, engine, presets
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import Request
from asymflow.generation.sheets import sheet
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded import installed
from asymflow.models.embedded.network import PictureModel
from asymflow.training import curve
from asymflow.training.data.dataset import Dataset, is_simple
from asymflow.training.data.manifest import Entry
from asymflow.training.errors import squared_errors
from asymflow.training.loop import CHECKPOINT, SHAPE, Progress, build, train
from asymflow.training.recipes import Recipe, finish
from asymflow.training.vectors import distil, encoder_folder

PAIRS = 64
"""Number of pictures per split for a point of the curve."""

VECTORS = "vectors.pt"
"""Name of the static word vectors in the output folder (`asymflow.training.vectors`)."""

SHEET_PROMPTS = (
    "a fox", "a red apple", "a smiling face", "a car", "a house", "a tree", "a guitar",
    "a slice of pizza", "a rocket", "a blue butterfly", "a cat left of a dog", "a crown on blue",
)  # fmt: skip
"""Prompts of the sample sheets, cycling through the styles."""


def run(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    device: str | None = None,
    start: Path | None = None,
    blend: float = 1.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train a recipe and return the model file `out/embedded.safetensors`.

    Resumes from `out/checkpoint.pt` if it exists. `out` also receives `log.jsonl`, and at intervals
    a sheet of samples, `loss.png` and a point of the curve (`asymflow.training.curve`).

    Args:
        recipe: the recipe.
        data: folder of a dataset, from `asymflow data build`.
        out: output folder.
        device: "cpu", "cuda", ...; by default cuda if available.
        start: model file to initialise weights and word vectors from; its architecture must be
            that of the recipe.
        blend: weight of the trained model in the average with `start` that is exported.
        on_progress: called after every step.

    Raises:
        FileFormatError: `start` or the checkpoint does not fit the recipe.
    """
    where = devices.choose(device)
    out.mkdir(parents=True, exist_ok=True)
    dataset = Dataset(data)
    model = _begin(recipe, dataset, out, start)
    first = copy.deepcopy(model)
    target = out / "embedded.safetensors"
    pairs = curve_pairs(dataset)
    for row, average in train(model, recipe, dataset, out, device=where):
        if on_progress is not None:
            on_progress(row)
        points = curve.read(out) if row.saved else []
        since = row.minutes - (points[-1].minutes if points else 0)
        if row.saved and (since >= recipe.sample_minutes or row.progress >= 1):
            made = blended(first, average, blend)
            _export(made, recipe, row, target, blend)
            _measure(made, dataset, pairs, row, out)
            _draw(target, out / f"samples-{row.step:06d}.png")
            plot_loss(out / "log.jsonl", out / "loss.png")
    return target


def finishing(recipe: Recipe, out: Path, steps: int) -> tuple[Recipe, Path]:
    """How to end the run in `out` now, within `steps`, and the folder in it to do that in.

    The run itself is left as it is, and can go on. An interrupted end is resumed: it began where
    its checkpoint says.

    Raises:
        InputError: there is no run in `out`, or its rates fall already.
    """
    folder = out / f"finish-{steps}"
    own, begun = folder / CHECKPOINT, out / CHECKPOINT
    if not own.exists():
        if not begun.exists():
            raise InputError(f"{out} has no {CHECKPOINT} to finish. Give the --out of a run.")
        folder.mkdir(exist_ok=True)
        for name in ("log.jsonl", curve.ERRORS, VECTORS):
            if (out / name).exists():
                shutil.copyfile(out / name, folder / name)
        with begun.open("rb") as source, replacing(own) as target:
            shutil.copyfileobj(source, target)
    saved = torch.load(own, map_location="cpu", weights_only=True, mmap=True)
    ends = finish(recipe, saved["step"], steps)
    if saved["recipe"]["name"] == ends.name:
        return finish(recipe, saved["recipe"]["steps"] - steps, steps), folder
    if saved["progress"] > 1 - recipe.decay:
        own.unlink()
        raise InputError(f"The rates of the run in {out} fall already. Let it end by itself.")
    return ends, folder


def curve_pairs(dataset: Dataset) -> dict[str, list[Entry]]:
    """Pictures for the curve: `PAIRS` everyday things of each split, "seen" and "held out"."""
    everyday = [entry for entry in dataset.entries if is_simple(entry)] or list(dataset.entries)
    splits: dict[str, list[Entry]] = {
        "seen": [entry for entry in everyday if entry.split == "train"],
        "held out": [entry for entry in everyday if entry.split == "heldout"],
    }
    return {
        split: [entries[i] for i in np.random.default_rng(0).permutation(len(entries))[:PAIRS]]
        for split, entries in splits.items()
        if entries
    }


def _measure(
    model: PictureModel,
    dataset: Dataset,
    pairs: Mapping[str, Sequence[Entry]],
    row: Progress,
    out: Path,
) -> None:
    """Append a point to the curve."""
    errors = {
        split: {
            f"{t:g}": round(value, 6)
            for t, value in squared_errors(model, dataset, entries, embedded.NATIVE).items()
        }
        for split, entries in pairs.items()
    }
    point = {"step": row.step, "minutes": round(row.minutes, 2), "errors": errors}
    with (out / curve.ERRORS).open("a") as file:
        file.write(json.dumps(point) + "\n")


def _begin(recipe: Recipe, dataset: Dataset, out: Path, start: Path | None) -> PictureModel:
    if start is None:
        return build(recipe, dataset, _vectors(out))
    model = embedded.load(start, packed=False).model.requires_grad_(True).train()
    if any(getattr(model.config, part) != getattr(recipe, part) for part in SHAPE):
        raise FileFormatError(
            f"{start} holds a model of another shape than recipe {recipe.name!r}. Choose the "
            "recipe it was trained with, or train from scratch."
        )
    return model


def _vectors(out: Path) -> Tensor:
    """Static word vectors: from `out`, from the shipped model, or distilled and saved in `out`."""
    path = out / VECTORS
    if path.exists():
        return torch.load(path, weights_only=True)
    if installed.find(installed.WEIGHTS) is not None:
        return embedded.load().model.text.vectors()
    vectors = distil(encoder_folder())
    with replacing(path) as file:
        torch.save(vectors, file)
    return vectors


@torch.no_grad()
def blended(first: PictureModel, last: PictureModel, share: float) -> PictureModel:
    """Interpolate weights from `first` (share 0) to `last` (share 1) (arXiv 2109.01903)."""
    made = copy.deepcopy(last)
    for own, begin in zip(made.parameters(), first.parameters(), strict=True):
        own.lerp_(begin.to(own), 1 - share)
    return made


def _export(model: PictureModel, recipe: Recipe, row: Progress, path: Path, blend: float) -> None:
    training: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "blend": blend,
        "steps": row.step,
        "minutes": round(row.minutes, 1),
        "torch": torch.__version__,
    }
    embedded.save(model, path, training=training)


def _draw(weights: Path, path: Path) -> None:
    adapter = embedded.load(weights)
    size, styles = (embedded.NATIVE, embedded.NATIVE), adapter.styles
    requests = [
        Request({"prompt": prompt, "style": styles[i % len(styles)]}, size, i, presets.GUIDANCE)
        for i, prompt in enumerate(SHEET_PROMPTS)
    ]
    results = engine.run(adapter, presets.Grid(steps=12).plan(size), requests)
    sheet([[result.picture for result in results]], col_labels=SHEET_PROMPTS, scale=2).save(path)


def plot_loss(log: Path, path: Path) -> None:
    """Plot loss over minutes per size, smoothed over 50 batches, as a PNG."""
    by_size: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for line in log.read_text("utf-8").splitlines():
        row = json.loads(line)
        by_size.setdefault(tuple(row["size"]), []).append((row["minutes"], row["loss"]))
    figure = new_figure(7, 4)
    axes: Any = figure.add_subplot()
    for size, points in sorted(by_size.items()):
        minutes, smooth = _smooth(points)
        axes.plot(minutes, smooth, label=f"{size[1]}x{size[0]}")
    axes.set(xlabel="minutes", ylabel="velocity loss", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)


def _smooth(
    points: Sequence[tuple[float, float]], window: int = 50
) -> tuple[list[float], list[float]]:
    minutes = [minute for minute, _ in points]
    losses = [value for _, value in points]
    means = [
        sum(losses[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(losses))
    ]
    return minutes, means
