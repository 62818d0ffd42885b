"""Train the small models that tests load as users load theirs, each in a quarter of an hour.

    OMP_NUM_THREADS=1 python -m benchmarks shapes train unet
    OMP_NUM_THREADS=1 python -m benchmarks shapes train jit

write into tests/models/small. Both models draw pictures of eight shapes at 32 px (`drawing`) and
are asked for a class, which was dropped with probability 0.1 for guidance; the null class is the
last number, 8.

- `unet`: shapes-unet/, diffusers' `UNet2DModel`, which predicts v = alpha eps - sigma x_0 on the
  linear schedule of DDPM, as `DDPMPipeline.save_pretrained` writes it.
- `jit`: shapes-jit.safetensors, a JiT with the tensor names of the published checkpoints. It has
  the 12 blocks and the noise scale, size / 256, that `asymflow.models.jit.adapter.load` takes a
  bare state dict to have.

What neither format has a place for is in a card, a JSON object: `asymflow.json` in a folder,
`NAME.asymflow.json` beside a file NAME.safetensors. Its keys:

    title, licence, source   text
    classes                  names by number, without the null class
    null                     number of the null class, where the format does not say it
    guidance                 scale by default

Weights are moving averages, in float16. The reports are shapes-unet.json and shapes-jit.json, each
with a sheet of pictures that the model's own sampler makes and how many of them show their class
(`judging`). Everything follows from a seed, up to the rounding of a machine and of a version of
torch.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import importlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from asymflow.core import engine
from asymflow.core.adapter import Adapter, Wrapped
from asymflow.core.schedules import plan_of
from asymflow.core.types import Plan, Request
from asymflow.generation.sheets import sheet
from asymflow.io.files import replacing, write_text
from asymflow.models.diffusers import networks
from asymflow.models.jit import adapter as jit
from asymflow.models.jit.checkpoint import published_name
from asymflow.models.jit.network import JitConfig, JitModel
from benchmarks import results
from benchmarks.suites.shapes.drawing import CLASSES, SIDE, pictures
from benchmarks.suites.shapes.judging import classes_of

diffusers: Any = importlib.import_module("diffusers")  # whose own types do not describe its calls

MODELS = results.ROOT / "tests/models/small"
NULL = len(CLASSES)
DROP = 0.1
"""Share of pictures whose class is dropped."""
DRAWN = 16_384
"""Pictures drawn for training; half of the time they are mirrored."""
BATCH = 16
RATE = 2e-3
AVERAGE = 0.999
"""Decay of the moving average of the weights per step."""
LEAST = 0.05
"""Of u, in the weight 1 / u^2 that makes an error of x_0 one of the velocity."""
SAMPLER_STEPS = 50
EACH = 8
"""Pictures of every class that are sampled."""

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Of a network, for pictures x_0 [b, 3, h, w] in [-1, 1] and their labels [b]."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is made and sampled.

    Attributes:
        file: of the model, or its folder.
        card: what is written beside it, but for classes, licence and source.
        steps: of the optimizer.
        write: a network in training to that path.
        load: as users do.
        plan: of its own sampler.
    """

    file: str
    card: Mapping[str, Any]
    steps: int
    make: Callable[[], nn.Module]
    loss: Loss
    write: Callable[[Any, Path], None]
    load: Callable[[Path], Adapter]
    plan: Callable[[Any], Plan]


# --- UNet --------------------------------------------------------------------------------------


def scheduler() -> Any:
    return diffusers.DDPMScheduler(prediction_type="v_prediction")


def unet() -> Any:
    return diffusers.UNet2DModel(
        sample_size=SIDE,
        layers_per_block=1,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=16,
        norm_num_groups=8,
        num_class_embeds=NULL + 1,
    )


def unet_loss(network: nn.Module, x_0: Tensor, labels: Tensor) -> Tensor:
    noising = scheduler()
    tau = (spread(len(x_0)) * noising.config.num_train_timesteps).long()
    eps = torch.randn_like(x_0)
    v = network(noising.add_noise(x_0, eps, tau), tau, labels).sample
    return (v - noising.get_velocity(x_0, eps, tau)).square().mean()


def write_unet(network: Any, path: Path) -> None:
    diffusers.DDPMPipeline(unet=network, scheduler=scheduler()).save_pretrained(path)


def load_unet(path: Path) -> networks.DiffusersAdapter:
    return networks.load(path, null=NULL)


def unet_plan(adapter: networks.DiffusersAdapter) -> Plan:
    """DDIM."""
    return plan_of(adapter.convention.times(SAMPLER_STEPS), name=f"ddim {SAMPLER_STEPS}")


# --- JiT ---------------------------------------------------------------------------------------

JIT = JitConfig(
    size=SIDE, patch=4, width=64, depth=12, heads=4, hidden=176, bottleneck=32, classes=NULL,
    class_tokens=4, class_start=4, noise_scale=SIDE / 256,
)  # fmt: skip


def jit_loss(network: nn.Module, x_0: Tensor, labels: Tensor) -> Tensor:
    # u is the time at which a path with noise of standard deviation 1 has as much of it: half of
    # the training is below u = 0.5, which is t = 0.89 here.
    u = torch.special.ndtri(spread(len(x_0))).sigmoid()
    s = JIT.noise_scale
    t = u / (u + s * (1 - u))
    x_t = torch.lerp(x_0 / s, torch.randn_like(x_0), t.view(-1, 1, 1, 1))
    error = s * network(x_t, t, labels) - x_0
    return (error / u.clamp(min=LEAST).view(-1, 1, 1, 1)).square().mean()


def write_jit(network: Any, path: Path) -> None:
    state = {published_name(name): value for name, value in network.state_dict().items()}
    with replacing(path) as file:
        file.write(save(state))


def jit_plan(adapter: jit.JitAdapter) -> Plan:
    return jit.plan(SAMPLER_STEPS)


RECIPES: Mapping[str, Recipe] = {
    "unet": Recipe(
        "shapes-unet",
        {"title": "Shapes UNet", "null": NULL, "guidance": 2.0},
        3300, unet, unet_loss, write_unet, load_unet, unet_plan,
    ),
    "jit": Recipe(
        "shapes-jit.safetensors",
        {"title": "Shapes JiT", "guidance": 2.0},
        4000, lambda: JitModel(JIT), jit_loss, write_jit, jit.load, jit_plan,
    ),
}  # fmt: skip


# --- training ----------------------------------------------------------------------------------


def spread(count: int) -> Tensor:
    """Numbers of (0, 1) evenly over the batch, so that the loss is less noisy."""
    return (torch.arange(count) + torch.rand(count)) / count


def train(network: nn.Module, loss_of: Loss, steps: int) -> tuple[nn.Module, list[float]]:
    """The average of the weights, and the mean loss of every hundredth of the steps."""
    pixels, numbers = pictures(DRAWN, seed=0)
    drawn = torch.from_numpy(pixels).movedim(-1, 1).float() / 127.5 - 1
    labels = torch.from_numpy(numbers)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, betas=(0.9, 0.99), fused=True)
    losses: list[float] = []
    for step in range(steps):
        rows = torch.randint(DRAWN, (BATCH,))
        x_0 = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, drawn[rows], drawn[rows].flip(-1))
        told = torch.where(torch.rand(BATCH) < DROP, NULL, labels[rows])
        loss = loss_of(network, x_0, told)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100) * math.cos(step / steps * math.pi / 2)
        optimizer.step()
        decay = min(AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} of {steps}: loss {np.mean(losses[-100:]):.4f}", flush=True)
    parts = np.array_split(np.array(losses), min(steps, 100))
    return average, [round(float(part.mean()), 5) for part in parts]


def card_file(model: Path) -> Path:
    """Where the card of a model is."""
    return model.with_suffix(".asymflow.json") if model.suffix else model / "asymflow.json"


def write(network: nn.Module, name: str, models: Path) -> Path:
    """Write a trained network and its card, and return its path."""
    recipe = RECIPES[name]
    for parameter in network.parameters():  # tables of positions stay as they are
        parameter.data = parameter.data.half()
    path = models / recipe.file
    recipe.write(network, path)
    card = {
        **recipe.card,
        "classes": CLASSES,
        "licence": "Apache-2.0",
        "source": f"python -m benchmarks shapes train {name}, in the repository of asymflow",
    }
    write_text(card_file(path), json.dumps(card, indent=2) + "\n")
    return path


def sha256(model: Path) -> str:
    """Of the weights of a model."""
    [file] = [model] if model.is_file() else model.rglob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


# --- pictures ----------------------------------------------------------------------------------


class Together(Wrapped):
    """The same model, many pictures per call: quicker, where a last bit does not matter."""

    @property
    def batch(self) -> int | None:
        return None


def sampled(adapter: Adapter, plan: Plan, scale: float, each: int = EACH) -> NDArray[np.float32]:
    """Pictures [classes, each, h, w, 3] in [0, 1]."""
    asked = [
        Request({"label": label}, (SIDE, SIDE), number, scale)
        for label in range(NULL)
        for number in range(each)
    ]
    made = [result.picture for result in engine.run(Together(adapter), plan, asked)]
    return np.stack(made).reshape(NULL, each, SIDE, SIDE, 3)


def right(made: NDArray[np.float32]) -> float:
    """The share of pictures [classes, n, h, w, 3] that show their class."""
    found = classes_of(made.reshape(-1, *made.shape[2:]).astype(np.float64))
    return float((found.reshape(made.shape[:2]) == np.arange(NULL)[:, None]).mean())


def draw(made: NDArray[np.float32], path: Path) -> None:
    """A sheet of pictures [classes, n, h, w, 3]."""
    opaque = np.concatenate([made, np.ones_like(made[..., :1])], axis=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        sheet(opaque, row_labels=CLASSES, scale=2).save(file, "PNG")


QUICK = {"steps": 20, "models": results.QUICK}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=tuple(RECIPES))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    recipe = RECIPES[given.model]
    steps = given.steps or recipe.steps
    torch.manual_seed(0)
    began = time.process_time()
    network, losses = train(recipe.make(), recipe.loss, steps)
    seconds = time.process_time() - began

    path = write(network, given.model, given.models)
    adapter = recipe.load(path)
    plan = recipe.plan(adapter)
    made = {scale: sampled(adapter, plan, scale) for scale in (recipe.card["guidance"], 1.0)}
    shares = {f"{scale:g}": right(each) for scale, each in made.items()}
    print(f"{seconds:.0f} s; pictures that show their class, by guidance: {shares}")
    name = f"shapes-{given.model}"
    draw(made[recipe.card["guidance"]], given.out / f"{name}.png")
    report = {
        "model": adapter.name,
        "sha256": sha256(path),
        "weights": sum(parameter.numel() for parameter in network.parameters()),
        "steps": steps,
        "batch": BATCH,
        "processor_seconds": round(seconds),
        "loss": losses,
        "sampler": plan.name,
        "pictures": EACH * NULL,
        "right": shares,
    }
    return results.save(
        given.out / f"{name}.json", report, weights=[adapter.name], dtype="float32", device="cpu"
    )
