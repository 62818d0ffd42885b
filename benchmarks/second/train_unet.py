"""Train a small DDPM for `plan_unet.py`: diffusers' own `UNet2DModel`, and nothing of asymflow's.

    python benchmarks/second/train_unet.py data/emoji --out runs/unet32 --minutes 25

It shares neither architecture, parameterisation nor schedule with the embedded model: a
convolutional network predicts v = alpha eps - sigma x_0 on the linear DDPM schedule, in RGB on
white at 32 px. It is told the style, or nothing in one case of seven, so that it can be guided. It
learns faces only: a few hundred alike pictures are what half an hour on one core is enough for.

With `--prediction epsilon` it is not enough. The errors of such a network in eps are multiplied by
sigma / alpha in x_0, 157 at the end of this schedule. After 1100 steps of 16 pictures they were
0.07 there, and what was sampled looked like noise.

Time is the schedule: the learning rate falls with the share of `--minutes` that has passed, and
what is saved is the average of the weights, as `DDPMPipeline.save_pretrained` writes it.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asymflow.data.dataset import Dataset

diffusers: Any = importlib.import_module("diffusers")  # whose own types do not describe its calls

SIDE = 32
BATCH = 16
MOST_WEIGHT = 25.0
"""An error in eps is one of sigma / alpha times its size in x_0. Where that is large it counts
more, by 1 / alpha^2 as if it were measured in v, but not by more than this."""
RATE = 1e-3
FACES = ("face-", "cat-face", "monkey-face")  # how subgroups of faces begin
DROP = 0.15  # share of pictures whose style is not told


def faces(dataset: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures [n, 3, h, w] in [-1, 1] on white, their styles [n], whether each may be mirrored."""
    found = [
        entry
        for entry in dataset.entries
        if entry.split == "train" and entry.subgroup.startswith(FACES)
    ]
    pixels = np.stack([dataset.image(entry.index, SIDE) for entry in found])
    rgba = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    rgb = rgba[:, :3] + (1 - rgba[:, 3:])  # premultiplied, so white shows through as it is
    styles = torch.tensor([dataset.styles.index(entry.style) for entry in found])
    flip_ok = torch.tensor([entry.flip_ok for entry in found])
    return rgb * 2 - 1, styles, flip_ok


def network(styles: int) -> Any:
    """The last class stands for "not told"."""
    return diffusers.UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(24, 48, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=16,
        norm_num_groups=8,
        num_class_embeds=styles + 1,
    )


def save(network: Any, scheduler: Any, folder: Path) -> None:
    network.to(memory_format=torch.contiguous_format)
    diffusers.DDPMPipeline(unet=network, scheduler=scheduler).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/unet32"))
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--prediction", choices=("epsilon", "v_prediction"), default="v_prediction")
    parser.add_argument("--start", type=Path, help="a folder written before, to go on from")
    given = parser.parse_args()
    torch.manual_seed(0)
    dataset = Dataset(given.data)
    pictures, styles, flip_ok = faces(dataset)
    null = len(dataset.styles)
    # Samplers that clip x_0 cannot be compared with those that do not, so this one does not.
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=1000, clip_sample=False, prediction_type=given.prediction
    )
    if given.start is None:
        model = network(null)
    else:
        model = diffusers.UNet2DModel.from_pretrained(given.start / "unet").train()
    model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2, fused=True)
    print(f"{len(pictures)} pictures, {sum(p.numel() for p in model.parameters()):,} weights")

    began, step, recent = time.monotonic(), 0, 0.0
    while (done := (time.monotonic() - began) / (60 * given.minutes)) < 1:
        rows = torch.randint(len(pictures), (BATCH,))
        mirrored = (torch.rand(BATCH) < 0.5) & flip_ok[rows]
        x_0 = torch.where(mirrored.view(-1, 1, 1, 1), pictures[rows].flip(-1), pictures[rows])
        told = torch.where(torch.rand(BATCH) < DROP, null, styles[rows])
        # Evenly over the batch, so that the loss is less noisy.
        tau = ((torch.arange(BATCH) + torch.rand(BATCH)) / BATCH * 1000).long()
        eps = torch.randn_like(x_0)
        z = scheduler.add_noise(x_0, eps, tau).contiguous(memory_format=torch.channels_last)
        square = scheduler.alphas_cumprod[tau]
        if given.prediction == "epsilon":
            target, weight = eps, (1 / square).clamp(max=MOST_WEIGHT)
        else:
            target, weight = scheduler.get_velocity(x_0, eps, tau), torch.ones_like(square)
        errors = (model(z, tau, told).sample - target).square().mean((1, 2, 3))
        loss = (weight * errors).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = (
                RATE * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * math.cos(done * math.pi / 2))
            )
        optimizer.step()
        step += 1
        decay = min(0.997, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, new in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)
        recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
        if step % 25 == 0:
            print(f"step {step}  {done:.0%}  loss {recent:.4f}", flush=True)
        if step % 200 == 0:
            save(copy.deepcopy(average), scheduler, given.out)
    save(average, scheduler, given.out)
    print(f"{step} steps, saved {given.out}")


if __name__ == "__main__":
    main()
