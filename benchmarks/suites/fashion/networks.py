"""The two networks, each below 1 M parameters: what they predict, their files, their own sampler.

- `unet`: fashion-unet/, diffusers' `UNet2DModel` as `DDPMPipeline.save_pretrained` writes it; it
  predicts v = alpha eps - sigma x_0 on the cosine schedule of 1,000 timesteps.
- `jit`: fashion-jit.safetensors, a JiT with the names of tensors of the published checkpoints; it
  predicts x_0 on x_t = (1 - t) x_0 / s + t eps with s = 0.5.

Both are asked for one of ten classes, or for none, which is class 10. Weights are in float16.
What neither format has a place for is in the file `asymflow.json` beside them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from asymflow.io.files import replacing, write_text
from asymflow.models.about import beside
from asymflow.models.jit.checkpoint import published_name
from asymflow.models.jit.network import JitConfig, JitModel
from benchmarks.suites.fashion.data import CLASSES, SIDE

diffusers: Any = importlib.import_module("diffusers")  # whose own types do not describe its calls

NULL = len(CLASSES)
_LEAST = 0.05
"""Of u, in the weight 1 / u^2 that makes an error of x_0 one of the velocity."""

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Of a network, for pictures x_0 [b, 1, h, w] in [-1, 1] and their labels [b]."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network in training.

    Attributes:
        file: of the model, or its folder.
        card: what is written beside it, but for what both have.
        bfloat16: whether autocast makes its training faster where bfloat16 is fast.
        steps, batch, rate: of the optimizer.
        write: a network to that path.
    """

    file: str
    card: Mapping[str, Any]
    bfloat16: bool
    steps: int
    batch: int
    rate: float
    make: Callable[[], nn.Module]
    loss: Loss
    write: Callable[[Any, Path], None]


def spread(count: int) -> Tensor:
    """Numbers of (0, 1) evenly over the batch, so that the loss is less noisy."""
    return (torch.randperm(count) + torch.rand(count)) / count


def _scheduler() -> Any:
    return diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )


def _unet() -> Any:
    return diffusers.UNet2DModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 48, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        norm_num_groups=8,
        num_class_embeds=NULL + 1,
    )


def _unet_loss(network: nn.Module, x_0: Tensor, labels: Tensor) -> Tensor:
    noising = _scheduler()
    tau = (spread(len(x_0)) * noising.config.num_train_timesteps).long()
    eps = torch.randn_like(x_0)
    v = network(noising.add_noise(x_0, eps, tau), tau, labels).sample
    return (v.float() - noising.get_velocity(x_0, eps, tau)).square().mean()


def _write_unet(network: Any, path: Path) -> None:
    diffusers.DDPMPipeline(unet=network, scheduler=_scheduler()).save_pretrained(path)


_JIT = JitConfig(
    size=SIDE, patch=4, channels=1, width=96, depth=6, heads=3, hidden=192, bottleneck=16,
    classes=NULL, class_tokens=4, class_start=2, noise_scale=0.5,
)  # fmt: skip


def _jit_loss(network: nn.Module, x_0: Tensor, labels: Tensor) -> Tensor:
    # u is the time at which a path with noise of standard deviation 1 has as much of it; the median
    # of the distribution is a noise of 0.55.
    u = (1.2 * torch.special.ndtri(spread(len(x_0))) - 0.6).sigmoid()
    s = _JIT.noise_scale
    t = u / (u + s * (1 - u))
    x_t = torch.lerp(x_0 / s, torch.randn_like(x_0), t.view(-1, 1, 1, 1))
    error = s * network(x_t, t, labels) - x_0
    return (error / u.clamp(min=_LEAST).view(-1, 1, 1, 1)).square().mean()


def _write_jit(network: Any, path: Path) -> None:
    state = {published_name(name): value for name, value in network.state_dict().items()}
    with replacing(path) as file:
        file.write(save(state))


NETWORKS: Mapping[str, Network] = {
    "unet": Network(
        "fashion-unet",
        {"title": "Fashion UNet", "null": NULL, "guidance": 2.0},
        True, 3000, 64, 1e-3, _unet, _unet_loss, _write_unet,
    ),
    "jit": Network(
        "fashion-jit.safetensors",
        {
            "title": "Fashion JiT",
            "guidance": 2.0,
            "options": {"class_start": _JIT.class_start, "noise_scale": _JIT.noise_scale},
        },
        False, 3600, 64, 1e-3, lambda: JitModel(_JIT), _jit_loss, _write_jit,
    ),
}  # fmt: skip


def write(network: nn.Module, name: str, models: Path) -> Path:
    """Write the weights of a network in float16, and its card; return its path."""
    found = NETWORKS[name]
    for parameter in network.parameters():  # tables of positions stay as they are
        parameter.data = parameter.data.half()
    path = models / found.file
    models.mkdir(parents=True, exist_ok=True)
    found.write(network, path)
    card = {
        **found.card,
        "classes": CLASSES,
        "licence": "Apache-2.0",
        "source": f"python -m benchmarks fashion train {name}, on Fashion-MNIST (MIT)",
    }
    write_text(beside(path), json.dumps(card, indent=2) + "\n")
    return path
