"""Turn a latent diffusion model into a pixel model, and see what that is worth.

Everything is made here, in about two minutes on one CPU core: a small autoencoder of emoji, a
diffusion model of its latents, and then pixel models that are trained for the same number of steps
in different ways:

    python examples/rank/latent_to_pixels.py data/emoji

`asymflow data build` makes the folder. See docs/guide/jit.md for what the numbers mean.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from asymflow.core import engine
from asymflow.core.flow import interpolate
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Request
from asymflow.generation.sheets import sheet
from asymflow.models import jit
from asymflow.models.jit.network import JitConfig, JitModel, patches_of
from asymflow.training.data.dataset import Dataset
from asymflow.training.rank import (
    aligned_subspace,
    latent_residual,
    less_noisy,
    lifted,
    prepare,
    principal_subspace,
    velocity_loss,
)

SIDE, PATCH, CHANNELS = 32, 4, 4
LATENT = 8
"""Numbers that the autoencoder keeps of the 64 in a patch."""
BATCH = 48
TIMES = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, slots=True)
class Pictures:
    """x_0 [n, 4, 32, 32] in [-1, 1], premultiplied by alpha, and their styles [n]."""

    x_0: Tensor
    label: Tensor

    @classmethod
    def draw(cls, dataset: Dataset, n: int, seed: int) -> Pictures:
        sample = dataset.sample(np.random.default_rng(seed), n, SIDE)
        pixels = torch.from_numpy(np.ascontiguousarray(sample.images)).permute(0, 3, 1, 2)
        return cls(pixels.float() / 127.5 - 1, torch.from_numpy(sample.styles))

    def batches(self, steps: int, seed: int) -> Iterator[tuple[Pictures, torch.Generator]]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            rows = torch.randint(len(self.x_0), (BATCH,), generator=generator)
            yield Pictures(self.x_0[rows], self.label[rows]), generator


class Autoencoder(nn.Module):
    """Patches of 4 x 4 pixels to 8 numbers: linear, plus what neighbours and bends add to that."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(CHANNELS, LATENT, PATCH, PATCH, bias=False)
        self.encoder = nn.Sequential(
            nn.Conv2d(CHANNELS, 64, PATCH, PATCH), nn.SiLU(), nn.Conv2d(64, LATENT, 3, padding=1)
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT, 64, 3, padding=1), nn.SiLU(),
            nn.ConvTranspose2d(64, CHANNELS, PATCH, PATCH),
        )  # fmt: skip
        self.size = 1.0

    def encode(self, x_0: Tensor) -> Tensor:
        """Latents [n, 8, 8, 8] with a mean square of 1 over the pictures of `fit`."""
        return (self.linear(x_0) + self.encoder(x_0)) / self.size

    def fit(self, pictures: Pictures, steps: int) -> float:
        """Mean squared error at the end."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=0.0)
        error = torch.zeros(())
        for batch, _ in pictures.batches(steps, seed=1):
            error = (self.decoder(self.encode(batch.x_0)) - batch.x_0).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        with torch.no_grad():
            self.size = float(self.encode(pictures.x_0).square().mean().sqrt())
        self.requires_grad_(False)
        return float(error.detach())


Target = Callable[[Pictures, Tensor, Tensor, Tensor], Tensor]
"""From pictures, noise, times and patches of the estimate: patches that it should have been."""


def plain(batch: Pictures, eps: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
    return patches_of(batch.x_0, PATCH)


def train(model: JitModel, data: Pictures, steps: int, target: Target, seed: int) -> JitModel:
    """The average of the weights over the last part of the training."""
    patch = model.config.patch
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    average = copy.deepcopy(model)
    for step, (batch, generator) in enumerate(data.batches(steps, seed)):
        t = torch.sigmoid(0.8 + 0.8 * torch.randn(BATCH, generator=generator))
        eps = torch.randn(batch.x_0.shape, generator=generator)
        # One picture in ten has no label, for guidance.
        none = torch.rand(BATCH, generator=generator) < 0.1
        label = torch.where(none, model.config.classes, batch.label)
        estimate = patches_of(model(interpolate(batch.x_0, eps, t), t, label), patch)
        loss = velocity_loss(estimate, target(batch, eps, t, estimate.detach()), t)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20, 2 * (1 - step / steps))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(value, max(0.05, 1 / (step + 1)))
    return average.eval()


@torch.no_grad()
def scatter(model: JitModel, data: Pictures, target: Target) -> list[float]:
    """Mean square of target minus estimate at every one of `TIMES`: what gradients are made of."""
    eps = torch.randn(data.x_0.shape, generator=torch.Generator().manual_seed(9))
    found: list[float] = []
    for each in TIMES:
        t = torch.full((len(data.x_0),), each)
        estimate = patches_of(model(interpolate(data.x_0, eps, t), t, data.label), PATCH)
        found.append(float((target(data, eps, t, estimate) - estimate).square().mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="A latent diffusion model becomes a pixel model.")
    parser.add_argument("data", type=Path, help="folder that `asymflow data build` wrote")
    parser.add_argument("--steps", type=int, default=60, help="of every training")
    parser.add_argument("--pictures", type=Path, help="a PNG file for samples of every model")
    asked = parser.parse_args()
    torch.manual_seed(0)
    began = time.perf_counter()

    dataset = Dataset(asked.data)
    seen = Pictures.draw(dataset, 2000, seed=0)
    unseen = Pictures.draw(Dataset(asked.data, "heldout"), 200, seed=0)

    autoencoder = Autoencoder()
    error = autoencoder.fit(seen, 2 * asked.steps)
    latents = Pictures(autoencoder.encode(seen.x_0), seen.label)
    print(f"autoencoder: {PATCH * PATCH * CHANNELS} numbers to {LATENT}, error {error:.4f}")

    config = JitConfig(
        size=8, patch=1, channels=LATENT, width=96, depth=4, heads=3, hidden=256, bottleneck=32,
        classes=len(dataset.styles), class_tokens=4, class_start=1, rank=LATENT,
    )  # fmt: skip
    latent = train(JitModel(config), latents, 4 * asked.steps, latent_target, seed=2)
    latent.requires_grad_(False)

    subspace = aligned_subspace(
        (patches_of(autoencoder.encode(x_0), 1).flatten(0, 1), patches_of(x_0, PATCH).flatten(0, 1))
        for x_0 in seen.x_0.split(500)
    )
    best = principal_subspace((patches_of(seen.x_0, PATCH).flatten(0, 1),), LATENT)
    print(
        f"aligned subspace: keeps {subspace.kept:.0%} of the patches (at best {best.kept:.0%}), "
        f"agrees by {subspace.agreement:.0%}, scale {subspace.scale:.2f}"
    )

    def quieter(batch: Pictures, eps: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
        def reference(z: Tensor, tau: Tensor, /) -> Tensor:
            return latent(z, tau, batch.label)

        c = latent_residual(reference, autoencoder.encode(batch.x_0), eps, t, subspace, patch=PATCH)
        return less_noisy(patches_of(batch.x_0, PATCH), estimate, c, t, shift=1.0)

    start = lifted(latent, subspace, patch=PATCH, channels=CHANNELS).requires_grad_(True)
    torch.manual_seed(0)
    fresh = JitModel(start.config)
    prepare(fresh, best)
    models = {"lifted, untrained": copy.deepcopy(start).eval()}
    for name, model, target in (
        ("from scratch", fresh, plain),
        ("lifted, plain loss", copy.deepcopy(start), plain),
        ("lifted, less noisy", copy.deepcopy(start), quieter),
    ):
        models[name] = train(model, seen, asked.steps, target, seed=3)

    print(f"\nmean squared error of x_0, {len(unseen.x_0)} unseen pictures")
    print(f"{'':<20}" + "".join(f"{f't = {t:g}':>10}" for t in TIMES))
    for name, model in models.items():
        print(f"{name:<20}" + "".join(f"{e:>10.4f}" for e in scatter(model, unseen, plain)))
    quiet = scatter(models["lifted, less noisy"], unseen, quieter)
    print(f"{'  of its targets':<20}" + "".join(f"{e:>10.4f}" for e in quiet))
    print(f"\n{time.perf_counter() - began:.0f} seconds, {asked.steps} steps for each pixel model")
    if asked.pictures:
        draw(models, asked.pictures)


def latent_target(batch: Pictures, eps: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
    return patches_of(batch.x_0, 1)


def draw(models: dict[str, JitModel], path: Path) -> None:
    """Samples of every model from the same noise, a row each."""
    plan = plan_of(shifted(24, 2.0), solver="multistep2")
    requests = [Request({"label": i % 4}, (SIDE, SIDE), i, 2.0) for i in range(8)]
    rows = [
        [result.picture for result in engine.run(jit.adapt(model, floor=0.0), plan, requests)]
        for model in models.values()
    ]
    enlarged = [[p.repeat(3, 0).repeat(3, 1) for p in row] for row in rows]
    sheet(enlarged, row_labels=tuple(models), col_labels=("",) * len(requests)).save(path)
    print(f"samples in {path}")


if __name__ == "__main__":
    main()
