"""Train the small models of the other two parts, each within minutes on one core.

    python -m benchmarks families train unet data/emoji --out runs/families/unet --minutes 15
    python -m benchmarks families train told-unet data/emoji --out runs/families/told --minutes 15
    python -m benchmarks families train jit data/emoji --out runs/families/jit.pth --minutes 15

All are trained on the faces of four styles of emoji in RGB on white at 32 px: the `unet` without
conditioning, for `DDPMPipeline`, the others with the style as their class, which is dropped with
probability 0.1 for guidance. A `unet` is diffusers' `UNet2DModel`, predicts
v = alpha eps - sigma x_0 on the linear schedule of DDPM and is saved by
`DDPMPipeline.save_pretrained`; the `jit` predicts x_0 on x_t = (1 - t) x_0 + t eps and is saved
with the tensor names of the published checkpoints. The saved weights are moving averages.

The prediction is v instead of eps, because an error in eps is multiplied by sigma / alpha in x_0,
157 at the end of this schedule: after training in eps for as long, samples looked like noise.

Forward and backward passes run in a bfloat16 copy, weights and optimizer are float32. The learning
rate decays with the share of `--minutes` of processor time.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asymflow.io.files import replacing
from asymflow.models.jit.checkpoint import published_name
from asymflow.models.jit.network import JitConfig, JitModel
from asymflow.training.data.dataset import Dataset

diffusers: Any = importlib.import_module("diffusers")  # whose own types do not describe its calls

SIDE = 32
BATCH = 16
STYLES = ("fluent-flat", "noto", "twemoji", "emojione")
"""Classes, in this order."""
FACES = ("face-", "cat-face", "monkey-face")  # how subgroups of faces begin
RATE = 1e-3
DROP = 0.1
"""Share of pictures whose class is dropped."""
LEAST = 0.05
"""Of t, in the weight 1 / t^2 that makes an error of x_0 one of the velocity."""

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Of a network, for pictures x_0 [b, 3, h, w] and their styles [b]."""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Pictures [n, 3, h, w] in [-1, 1] on white, their styles [n], whether each may be mirrored."""

    pictures: Tensor
    styles: Tensor
    flip_ok: Tensor

    @classmethod
    def of(cls, dataset: Dataset) -> Faces:
        found = [
            entry
            for entry in dataset.entries
            if entry.split == "train" and entry.style in STYLES and entry.subgroup.startswith(FACES)
        ]
        pixels = np.stack([dataset.image(entry.index, SIDE) for entry in found])
        rgba = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        return cls(
            (rgba[:, :3] + (1 - rgba[:, 3:])) * 2 - 1,  # premultiplied, so white shows as it is
            torch.tensor([STYLES.index(entry.style) for entry in found]),
            torch.tensor([entry.flip_ok for entry in found]),
        )

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Pictures, some of them mirrored, and their styles."""
        rows = torch.randint(len(self.pictures), (count,))
        chosen = self.pictures[rows]
        mirrored = (torch.rand(count) < 0.5) & self.flip_ok[rows]
        return torch.where(mirrored.view(-1, 1, 1, 1), chosen.flip(-1), chosen), self.styles[rows]


def spread(count: int) -> Tensor:
    """Numbers of (0, 1) evenly over the batch, so that the loss is less noisy."""
    return (torch.arange(count) + torch.rand(count)) / count


def hidden(styles: Tensor, classes: int) -> Tensor:
    """Class labels with random dropping: `classes` is the null class."""
    return torch.where(torch.rand(len(styles)) < DROP, classes, styles)


def train(
    network: nn.Module, loss_of: Loss, faces: Faces, minutes: float, keep: Callable[[Any], None]
) -> None:
    """Hand `keep` the average of the weights, at the end and now and then before it."""
    low = copy.deepcopy(network).to(torch.bfloat16)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2, fused=True)
    pairs = list(zip(network.parameters(), low.parameters(), strict=True))
    print(f"{len(faces.pictures)} pictures, {sum(p.numel() for p, _ in pairs):,} weights")
    began, step, recent = time.process_time(), 0, 0.0
    while (done := (time.process_time() - began) / (60 * minutes)) < 1:
        low.zero_grad()
        loss = loss_of(low, *faces.draw(BATCH))
        loss.backward()
        for master, worker in pairs:
            master.grad = None if worker.grad is None else worker.grad.float()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        fallen = 0.02 + 0.98 * math.cos(done * math.pi / 2)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 50) * fallen
        optimizer.step()
        step += 1
        decay = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for (master, worker), mean in zip(pairs, average.parameters(), strict=True):
                worker.copy_(master)
                mean.lerp_(master, 1 - decay)
        recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"step {step}  {done:.0%}  loss {recent:.4f}", flush=True)
        if step % 200 == 0:
            keep(copy.deepcopy(average))
    keep(average)
    print(f"{step} steps")


def unet_of(classes: int | None) -> Any:
    """A `UNet2DModel` conditioned on one of `classes`, or unconditional."""
    return diffusers.UNet2DModel(
        sample_size=SIDE,
        layers_per_block=1,
        block_out_channels=(24, 48, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=16,
        norm_num_groups=8,
        num_class_embeds=None if classes is None else classes + 1,
    ).to(memory_format=torch.channels_last)


def jit_of() -> JitModel:
    return JitModel(
        JitConfig(
            size=SIDE, patch=4, width=96, depth=4, heads=4, hidden=256, bottleneck=48,
            classes=len(STYLES), class_tokens=4, class_start=1,
        )
    )  # fmt: skip


def unet(faces: Faces, minutes: float, out: Path, *, conditional: bool = False) -> None:
    classes = len(STYLES)
    network = unet_of(classes if conditional else None)
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction", clip_sample=False)

    def loss(network: nn.Module, x_0: Tensor, styles: Tensor) -> Tensor:
        tau = (spread(len(x_0)) * 1000).long()
        eps = torch.randn_like(x_0)
        z = scheduler.add_noise(x_0, eps, tau).bfloat16()
        label = hidden(styles, classes) if conditional else None
        output = network(z.contiguous(memory_format=torch.channels_last), tau, label).sample
        return (output.float() - scheduler.get_velocity(x_0, eps, tau)).square().mean()

    def keep(network: Any) -> None:
        network.to(memory_format=torch.contiguous_format)
        diffusers.DDPMPipeline(unet=network, scheduler=scheduler).save_pretrained(out)

    train(network, loss, faces, minutes, keep)


def jit(faces: Faces, minutes: float, out: Path) -> None:
    classes = len(STYLES)

    def loss(network: nn.Module, x_0: Tensor, styles: Tensor) -> Tensor:
        t = torch.special.ndtri(spread(len(x_0))).sigmoid()
        eps = torch.randn_like(x_0)
        share = t.view(-1, 1, 1, 1)
        output = network(torch.lerp(x_0, eps, share), t, hidden(styles, classes))
        return ((output - x_0) / share.clamp(min=LEAST)).square().mean()

    def keep(network: Any) -> None:
        state = {published_name(name): value for name, value in network.state_dict().items()}
        with replacing(out) as file:
            torch.save(state, file)

    train(jit_of(), loss, faces, minutes, keep)


QUICK = {"minutes": 0.5}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=("unet", "told-unet", "jit"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)


def run(given: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    make = {"unet": unet, "told-unet": partial(unet, conditional=True), "jit": jit}[given.model]
    make(Faces.of(Dataset(given.data)), given.minutes, given.out)
    return {}
