"""Training the embedded model: one loop for a laptop CPU and for a GPU.

Weights, optimizer state and the weight average live in float32; the passes run on a copy in
bfloat16 where the machine multiplies that faster. A run can be killed at any moment and resumed.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from asymflow.adapters.embedded import fast_dtype
from asymflow.data.dataset import Dataset
from asymflow.errors import FileFormatError
from asymflow.files import replacing
from asymflow.flow import interpolate
from asymflow.nets.picture import PictureConfig, PictureModel, patch_basis
from asymflow.nets.text import load_tokenizer, tokenize
from asymflow.training.muon import Muon
from asymflow.training.recipes import Recipe

_MATRICES = ("qkv", "query_key", "value", "project", "text_kv", "gate", "expand", "contract")


@dataclass(frozen=True, slots=True)
class Batch:
    """x_0 [b, 4, h, w] in [-1, 1] with its conditioning: ids and mask [b, l], style [b]."""

    x_0: Tensor
    ids: Tensor
    mask: Tensor
    style: Tensor


@dataclass(slots=True)
class State:
    """What a checkpoint holds."""

    model: PictureModel
    average: PictureModel
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    seconds: float = 0.0
    progress: float = 0.0


def draw_times(rng: np.random.Generator, n: int, size: tuple[int, int], recipe: Recipe) -> Tensor:
    """Times [n] for pictures of `size`: logit-normal, with one in ten uniform.

    Pooling by f divides t/(1 - t) by f at equal signal (`asymflow.flow.coarse_time`), so the mean
    of the logit moves by the logarithm of the side.
    """
    side = math.sqrt(size[0] * size[1])
    logit = rng.normal(recipe.time_mean + math.log(side / 64), recipe.time_std, n)
    t = np.where(rng.random(n) < 0.1, rng.random(n), 1 / (1 + np.exp(-logit)))
    return torch.from_numpy(np.clip(t, 1e-3, 1.0).astype(np.float32))


def loss(
    model: PictureModel, batch: Batch, t: Tensor, noise: Tensor, context: Mapping[str, Tensor]
) -> Tensor:
    """Velocity loss |x_0_hat - x_0|^2 / t^2, with t at least 0.05 as in JiT."""
    x_t = interpolate(batch.x_0, noise, t)
    x_0 = model(x_t.to(context["summary"].dtype), t, context)
    return ((x_0.float() - batch.x_0) / t.clamp_min(0.05).view(-1, 1, 1, 1)).square().mean()


def batches(dataset: Dataset, recipe: Recipe, state: State) -> Iterator[tuple[Batch, Tensor]]:
    """Endless batches with their times, prepared ahead on a thread."""
    tokenizer = load_tokenizer()
    patch = recipe.transformer.patch

    def draw(rng: np.random.Generator) -> tuple[Batch, Tensor]:
        shares = recipe.sizes(min(1.0, state.progress))
        weights = np.array([weight for _, weight in shares])
        size = shares[int(rng.choice(len(shares), p=weights / weights.sum()))][0]
        n = max(1, recipe.tokens // ((size[0] // patch) * (size[1] // patch)))
        sample = dataset.sample(rng, n, size, p_background=recipe.background, p_scene=recipe.scene)
        no_text = rng.random(n) < recipe.drop_text
        no_style = rng.random(n) < recipe.drop_style
        neither = rng.random(n) < recipe.drop_all
        captions = [
            "" if absent else caption
            for caption, absent in zip(sample.captions, no_text | neither, strict=True)
        ]
        ids, mask = tokenize(tokenizer, captions, length=None)
        style = np.where(no_style | neither, 0, np.asarray(sample.styles) + 1)
        pixels = torch.from_numpy(np.ascontiguousarray(sample.images)).permute(0, 3, 1, 2)
        x_0 = pixels.float() / 127.5 - 1
        return (
            Batch(x_0, ids, mask, torch.from_numpy(style.astype(np.int64))),
            draw_times(rng, n, size, recipe),
        )

    rng = np.random.default_rng((recipe.seed, state.step))
    # One thread, so that the draws keep their order.
    with ThreadPoolExecutor(1) as pool:
        ahead = deque(pool.submit(draw, rng) for _ in range(3))
        while True:
            yield ahead.popleft().result()
            ahead.append(pool.submit(draw, rng))


def build(recipe: Recipe, dataset: Dataset, vectors: Tensor) -> PictureModel:
    """A fresh model: static text vectors set, patch basis from pictures of 64 px."""
    config = PictureConfig(
        styles=tuple(dataset.styles),
        transformer=recipe.transformer,
        vocabulary=len(vectors),
        rank=recipe.rank,
    )
    torch.manual_seed(recipe.seed)
    model = PictureModel(config)
    model.text.set_vectors(vectors)
    if recipe.rank:
        sample = dataset.sample(np.random.default_rng(recipe.seed), 1024, (64, 64))
        pictures = torch.from_numpy(np.ascontiguousarray(sample.images)).permute(0, 3, 1, 2)
        basis = patch_basis(pictures.float() / 127.5 - 1, recipe.transformer.patch, recipe.rank)
        model.basis.copy_(basis)
    return model


def _optimizers(
    model: PictureModel, recipe: Recipe, device: torch.device
) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices of the blocks, AdamW for the rest."""
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if name.split(".")[-2] in _MATRICES and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in named.values() if id(p) not in chosen]
    return (
        Muon(
            matrices,
            lr=recipe.muon_rate,
            weight_decay=recipe.weight_decay,
            dtype=fast_dtype(device),
        ),
        torch.optim.AdamW(
            others, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        ),
    )


def _save(state: State, recipe: Recipe, path: Path) -> None:
    with replacing(path) as file:
        torch.save(
            {
                "recipe": dataclasses.asdict(recipe),
                "model": state.model.state_dict(),
                "average": state.average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
                "step": state.step,
                "seconds": state.seconds,
                "progress": state.progress,
            },
            file,
        )


def _restore(state: State, recipe: Recipe, path: Path, device: torch.device) -> None:
    saved = cast("dict[str, Any]", torch.load(path, map_location=device, weights_only=True))
    shape = dataclasses.asdict(recipe.transformer) | {"rank": recipe.rank}
    if saved["recipe"]["transformer"] | {"rank": saved["recipe"]["rank"]} != shape:
        raise FileFormatError(
            f"{path} was trained with another model shape than recipe {recipe.name!r}. "
            "Train into another folder, or go on with the recipe it was begun with."
        )
    state.model.load_state_dict(saved["model"])
    state.average.load_state_dict(saved["average"])
    for optimizer, values in zip(state.optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(values)
    state.step, state.seconds = saved["step"], saved["seconds"]
    state.progress = saved["progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of the log."""

    step: int
    progress: float
    minutes: float
    loss: float
    rate: float
    size: tuple[int, int]
    pictures_per_second: float
    saved: bool
    """A checkpoint was written after this step, as it is after the last."""


def train(
    model: PictureModel,
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    *,
    device: torch.device,
    steps: int | None = None,
) -> Generator[tuple[Progress, PictureModel], None, None]:
    """Train `model` and yield after every step; the second value is the averaged model.

    Checkpoints and `log.jsonl` go to `out`. When `out` holds a checkpoint the run goes on from it.
    The run ends after the recipe's minutes, or after `steps` steps where given (then the schedule
    counts steps too, so that runs can be compared at equal compute).
    """
    out.mkdir(parents=True, exist_ok=True)
    model = model.to(device)
    state = State(model, copy.deepcopy(model), _optimizers(model, recipe, device))
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        _restore(state, recipe, checkpoint, device)
    passes = copy.deepcopy(model).to(fast_dtype(device))
    # The word-piece scales are data, not weights: keep them out of the cast's rounding.
    passes.text.table_scale = model.text.table_scale
    forward = cast("PictureModel", torch.compile(passes)) if recipe.compile else passes
    generator = torch.Generator(device).manual_seed(recipe.seed + state.step)
    source = batches(dataset, recipe, state)
    total = 60 * recipe.minutes
    last_save = state.seconds

    with (out / "log.jsonl").open("a") as log:
        while state.progress < 1:
            begun = time.perf_counter()
            host, t = next(source)
            batch = Batch(*(getattr(host, f.name).to(device) for f in dataclasses.fields(host)))
            noise = torch.randn(batch.x_0.shape, generator=generator, device=device)
            context = passes.context(batch.ids, batch.mask, batch.style)
            value = loss(forward, batch, t.to(device), noise, context)
            value.backward()
            factor = recipe.rate(state.step, state.progress)
            _update(state, passes, recipe, factor)
            took = time.perf_counter() - begun
            state.step += 1
            state.seconds += took
            state.progress = state.seconds / total if steps is None else state.step / steps
            saved = (
                state.progress >= 1 or state.seconds - last_save > 60 * recipe.checkpoint_minutes
            )
            if saved:
                last_save = state.seconds
                _save(state, recipe, checkpoint)
            row = Progress(
                step=state.step,
                progress=state.progress,
                minutes=state.seconds / 60,
                loss=float(value.detach()),
                rate=factor,
                size=(batch.x_0.shape[-2], batch.x_0.shape[-1]),
                pictures_per_second=len(t) / took,
                saved=saved,
            )
            log.write(json.dumps(dataclasses.asdict(row)) + "\n")
            log.flush()
            yield row, state.average


def _update(state: State, passes: PictureModel, recipe: Recipe, factor: float) -> None:
    """Gradients from the copy to the masters, a step of both optimizers, weights back, average."""
    for master, copied in zip(state.model.parameters(), passes.parameters(), strict=True):
        master.grad = None if copied.grad is None else copied.grad.float()
        copied.grad = None
    nn.utils.clip_grad_norm_(state.model.parameters(), 2.0)
    for optimizer in state.optimizers:
        rate = recipe.muon_rate if isinstance(optimizer, Muon) else recipe.adam_rate
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        optimizer.step()
    keep = min(recipe.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for master, copied, mean in zip(
            state.model.parameters(), passes.parameters(), state.average.parameters(), strict=True
        ):
            copied.copy_(master)
            mean.lerp_(master, 1 - keep)
