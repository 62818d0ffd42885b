"""Training loop of the embedded model, for CPUs and GPUs.

Weights, optimizer state and the weight average are float32; forward and backward passes run on a
bfloat16 copy where the hardware is faster at it. A run can be killed at any time and resumed.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import statistics
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asymflow.core.devices import fast_dtype
from asymflow.core.errors import FileFormatError
from asymflow.core.flow import interpolate
from asymflow.io.files import replacing, write_text
from asymflow.models.embedded.network import PictureConfig, PictureModel, patch_basis
from asymflow.models.embedded.text import load_tokenizer, tokenize
from asymflow.training.data.dataset import Dataset
from asymflow.training.muon import Muon
from asymflow.training.recipes import Recipe

SHAPE = ("transformer", "rank", "detail", "skip", "references")
"""Fields of a recipe that determine the architecture."""
CHECKPOINT = "checkpoint.pt"
EDGES_UNTIL = 0.7
"""Larger t show no edges yet: there the best estimate is blurred."""
_STRIDES = (1, 2, 4)
_KERNELS = ("first", "second")
_MATRICES = ("qkv", "query_key", "value", "project", "text_kv", "gate", "expand", "contract")


@dataclass(frozen=True, slots=True)
class Batch:
    """A training batch.

    Attributes:
        x_0: [b, 4, h, w] in [-1, 1].
        t: times [b].
        ids, mask: tokens of the captions [b, l].
        style: [b], 0 for none.
        references: [b, r, 4, h, w].
        present: [b, r], which references exist.
    """

    x_0: Tensor
    t: Tensor
    ids: Tensor
    mask: Tensor
    style: Tensor
    references: Tensor
    present: Tensor

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device."""
        return Batch(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


@dataclass(slots=True)
class State:
    """Training state, as saved in a checkpoint."""

    model: PictureModel
    average: PictureModel
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    seconds: float = 0.0
    progress: float = 0.0


def draw_times(rng: np.random.Generator, n: int, size: tuple[int, int], recipe: Recipe) -> Tensor:
    """Times [n] for pictures of `size`: a mixture of logit-normal and uniform.

    Pooling by f divides t/(1 - t) by f at equal signal-to-noise ratio (`core.flow.coarse_time`), so
    the mean of the logit shifts by the logarithm of the side.
    """
    side = math.sqrt(size[0] * size[1])
    logit = rng.normal(recipe.time_mean + math.log(side / 64), recipe.time_std, n)
    uniform = rng.random(n) < recipe.time_uniform
    t = np.where(uniform, rng.uniform(0.02, 0.95, n), 1 / (1 + np.exp(-logit)))
    return torch.from_numpy(np.clip(t, 1e-3, 1.0).astype(np.float32))


def loss(
    model: PictureModel,
    batch: Batch,
    noise: Tensor,
    context: Mapping[str, Tensor],
    edges: float = 0.0,
) -> Tensor:
    """Velocity loss mean of v^2, v = (x_0_hat - x_0) / t, with t clamped to 0.05 as in JiT.

    `edges` is the weight of the mean of |differences of v over 1, 2 and 4 pixels| where t is below
    `EDGES_UNTIL`. An estimate that is off by as much everywhere has none: flat colours stay flat.
    """
    x_t = interpolate(batch.x_0, noise, batch.t)
    x_0 = model(x_t.to(context["summary"].dtype), batch.t, context)
    v = (x_0.float() - batch.x_0) / batch.t.clamp_min(0.05).view(-1, 1, 1, 1)
    total = v.square().mean()
    if not edges:
        return total
    late = v * (batch.t < EDGES_UNTIL).view(-1, 1, 1, 1)
    differences = [_differences(late, pixels) for pixels in _STRIDES]
    return total + edges * torch.stack(differences).mean()


def _differences(x: Tensor, pixels: int) -> Tensor:
    """Mean of |x - x moved by so many pixels|, down and to the right."""
    down = (x[..., pixels:, :] - x[..., :-pixels, :]).abs().mean()
    right = (x[..., pixels:] - x[..., :-pixels]).abs().mean()
    return (down + right) / 2


def draw(dataset: Dataset, recipe: Recipe, step: int, progress: float) -> tuple[Batch, int]:
    """The batch of a step and the seed of its noise, a function of recipe, step and progress."""
    rng = np.random.default_rng((recipe.seed, step))
    phase, patch = recipe.phase(min(1.0, progress)), recipe.transformer.patch
    weights = np.array([weight for _, weight in phase.shares])
    size = phase.shares[int(rng.choice(len(weights), p=weights / weights.sum()))][0]
    n = max(1, recipe.tokens // ((size[0] // patch) * (size[1] // patch)))
    sample = dataset.sample(
        rng,
        n,
        size,
        p_background=recipe.background,
        p_scene=recipe.scene,
        p_flip=recipe.flip,
        simple=phase.simple,
        count=recipe.references,
        p_disturb=recipe.disturb,
        p_recolour=recipe.recolour,
    )
    u = rng.random((5, n))
    no_input, no_words = u[0] < recipe.drop_all, u[1] < recipe.drop_words
    no_text = no_input | no_words | (u[2] < recipe.drop_text)
    no_style = no_input | no_words | (u[3] < recipe.drop_style)
    no_reference = no_input | (~no_words & (u[4] < recipe.drop_reference))
    captions = [
        "" if absent else caption for caption, absent in zip(sample.captions, no_text, strict=True)
    ]
    ids, mask = tokenize(_tokenizer(), captions, length=None)
    style = np.where(no_style, 0, np.asarray(sample.styles) + 1).astype(np.int64)
    batch = Batch(
        x_0=states(sample.images),
        t=draw_times(rng, n, size, recipe),
        ids=ids,
        mask=mask,
        style=torch.from_numpy(style),
        references=states(sample.references),
        present=torch.from_numpy(sample.present & ~no_reference[:, None]),
    )
    return batch, int(rng.integers(2**62))


def states(pictures: NDArray[np.uint8]) -> Tensor:
    """Premultiplied RGBA [..., h, w, 4] as states [..., 4, h, w] in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, -3)))
    return pixels.float() / 127.5 - 1


_tokenizer = cache(load_tokenizer)


def _batches(dataset: Dataset, recipe: Recipe, state: State) -> Iterator[tuple[Batch, int]]:
    """Infinite batches from the state's step on, prefetched on a thread."""

    def at(step: int) -> tuple[Batch, int]:
        done = state.progress if recipe.steps is None else step / recipe.steps
        return draw(dataset, recipe, step, done)

    with ThreadPoolExecutor(1) as pool:
        ahead = deque(pool.submit(at, state.step + i) for i in range(3))
        for step in count(state.step + 3):
            yield ahead.popleft().result()
            ahead.append(pool.submit(at, step))


def build(recipe: Recipe, dataset: Dataset, vectors: Tensor) -> PictureModel:
    """Initialise a model, with static text vectors and mean or patch basis of 64 px pictures."""
    config = PictureConfig(
        styles=tuple(dataset.styles),
        transformer=recipe.transformer,
        vocabulary=len(vectors),
        rank=recipe.rank,
        detail=recipe.detail,
        skip=recipe.skip,
        references=recipe.references,
    )
    torch.manual_seed(recipe.seed)
    model = PictureModel(config)
    model.text.set_vectors(vectors)
    pictures = states(dataset.sample(np.random.default_rng(recipe.seed), 1024, (64, 64)).images)
    if recipe.skip is not None or recipe.references:
        model.mean.copy_(pictures.mean((0, 2, 3)))
    if recipe.rank:
        model.basis.copy_(patch_basis(pictures, recipe.transformer.patch, recipe.rank))
    return model


def _optimizers(
    model: PictureModel, recipe: Recipe, device: torch.device
) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices of the blocks and for kernels, AdamW for the rest.

    The entry "peak" of a group is its peak learning rate.
    """
    named = dict(model.named_parameters())

    def chosen(names: tuple[str, ...], ndim: int) -> list[nn.Parameter]:
        return [p for n, p in named.items() if n.split(".")[-2] in names and p.ndim == ndim]

    matrices, kernels = chosen(_MATRICES, 2), chosen(_KERNELS, 4)
    with_muon = {id(p) for p in (*matrices, *kernels)}
    others = [p for p in named.values() if id(p) not in with_muon]
    groups: list[dict[str, Any]] = [
        {"params": params, "peak": peak}
        for params, peak in ((matrices, recipe.muon_rate), (kernels, recipe.kernel_rate))
        if params
    ]
    rest: list[dict[str, Any]] = [{"params": others, "peak": recipe.adam_rate}]
    return (
        Muon(groups, lr=0.0, weight_decay=recipe.weight_decay, dtype=fast_dtype(device)),
        torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
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
    defaults = dataclasses.asdict(
        Recipe("", 0, ())
    )  # defaults of fields that older checkpoints lack
    if any((defaults | saved["recipe"])[k] != dataclasses.asdict(recipe)[k] for k in SHAPE):
        raise FileFormatError(
            f"{path} was trained with another model shape than recipe {recipe.name!r}. "
            "Train in another folder, or resume with the original recipe."
        )
    state.model.load_state_dict(saved["model"])
    state.average.load_state_dict(saved["average"])
    for optimizer, values in zip(state.optimizers, saved["optimizers"], strict=True):
        peaks = [group["peak"] for group in optimizer.param_groups]
        optimizer.load_state_dict(values)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["peak"] = peak
    state.step, state.seconds = saved["step"], saved["seconds"]
    state.progress = saved["progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A row of the log."""

    step: int
    progress: float
    minutes: float
    loss: float
    rate: float
    size: tuple[int, int]
    pictures_per_second: float
    saved: bool
    """Whether a checkpoint was written after this step."""


def train(
    model: PictureModel,
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    *,
    device: torch.device,
) -> Generator[tuple[Progress, PictureModel], None, None]:
    """Train `model` and yield after every step; the second value is the averaged model.

    Checkpoints and `log.jsonl` are written to `out`; a checkpoint in `out` is resumed. The run ends
    after the steps of the recipe, or after its minutes if it has no steps.
    """
    out.mkdir(parents=True, exist_ok=True)
    model = model.to(device)
    state = State(model, copy.deepcopy(model), _optimizers(model, recipe, device))
    checkpoint = out / CHECKPOINT
    if checkpoint.exists():
        _restore(state, recipe, checkpoint, device)
    passes = copy.deepcopy(model).to(fast_dtype(device))
    # The word-piece scales are data, not weights: keep them in float32.
    passes.text.table_scale = model.text.table_scale
    forward = cast("PictureModel", torch.compile(passes)) if recipe.compile else passes
    generator = torch.Generator(device)
    source = _batches(dataset, recipe, state)
    total = 60 * recipe.minutes
    last_save = state.seconds
    recent: deque[float] = deque(maxlen=20)
    _truncate_log(out / "log.jsonl", state.step)

    with (out / "log.jsonl").open("a") as log:
        while state.progress < 1:
            begun = time.perf_counter()
            host, noise_seed = next(source)
            batch = host.to(device)
            generator.manual_seed(noise_seed)
            noise = torch.randn(batch.x_0.shape, generator=generator, device=device)
            value = loss(forward, batch, noise, context_of(passes, batch), recipe.edges)
            value.backward()
            factor = recipe.rate(state.step, state.progress)
            _update(state, passes, recipe, factor)
            took = time.perf_counter() - begun
            recent.append(took)
            state.step += 1
            # Exclude time in which the process was suspended.
            state.seconds += min(took, 10 * statistics.median(recent))
            state.progress = (
                state.seconds / total if recipe.steps is None else state.step / recipe.steps
            )
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
                pictures_per_second=len(batch.t) / took,
                saved=saved,
            )
            log.write(json.dumps(dataclasses.asdict(row)) + "\n")
            log.flush()
            yield row, state.average


def context_of(model: PictureModel, batch: Batch) -> dict[str, Tensor]:
    """The context of a batch, with references if the model is conditioned on them."""
    references = None
    if model.config.references:
        references = model.encode_references(batch.references, batch.present)
    return model.context(batch.ids, batch.mask, batch.style, references)


def _truncate_log(log: Path, step: int) -> None:
    """Drop rows of steps after the checkpoint, which will be repeated."""
    if not log.exists():
        return
    lines = log.read_text("utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    if len(kept) < len(lines):
        write_text(log, "".join(line + "\n" for line in kept))


def _update(state: State, passes: PictureModel, recipe: Recipe, factor: float) -> None:
    """Copy gradients to the master weights, step the optimizers, update the copy and average."""
    for master, copied in zip(state.model.parameters(), passes.parameters(), strict=True):
        master.grad = None if copied.grad is None else copied.grad.float()
        copied.grad = None
    nn.utils.clip_grad_norm_(state.model.parameters(), 2.0)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.step()
    keep = min(recipe.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for master, copied, mean in zip(
            state.model.parameters(), passes.parameters(), state.average.parameters(), strict=True
        ):
            copied.copy_(master)
            mean.lerp_(master, 1 - keep)
