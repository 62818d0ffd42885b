"""Numbers of the official code, and the network and inputs that it was given.

official.json was made with `diffusers/mmdit.py` of the repository and commit that it names, in
float32 on a CPU: `DiffusionModel(MMJiTConfig(image_size=8, patch_size=2, txt_input_size=10,
hidden_size=24, txt_hidden_size=24, cond_vec_size=24, depth_double=2, num_heads=2, head_dim=12,
mlp_ratio=2.7, pca_channels=6, prompt_length=7))`, with the weights of `state`.

* "conditional" and "unconditional" are `net(chirp("picture"), 0.3, text, mask)`, [3, 8, 8]: the
  text begins with `features`, and where the mask is 0 every number is 9;
* "states" are x after steps of `sample(text, mask, cfg_scale=2.5)`, where `torch.randn` returned
  `noise`.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from asymflow.models.minit2i.checkpoint import PREFIX, built, published_name
from asymflow.models.minit2i.network import MiniT2IConfig, MiniT2IModel

SHAPE = MiniT2IConfig(
    size=8, patch=2, width=24, depth=2, heads=2, head_dim=12, hidden=64, bottleneck=6,
    text_width=10, text_depth=2, text_tokens=7,
)  # fmt: skip

UNUSED = (
    "t_embedder.mlp.0.weight",
    "t_embedder.mlp.0.bias",
    "t_embedder.mlp.2.weight",
    "t_embedder.mlp.2.bias",
    "pooled_embedder.weight",
)
"""Layers whose output the official network does not use."""


def chirp(name: str, *shape: int) -> Tensor:
    """Numbers in [-1, 1] that look random, and are the same everywhere."""
    place = torch.arange(math.prod(shape), dtype=torch.float64) + zlib.crc32(name.encode()) % 997
    return torch.sin(0.7 * place * place).float().reshape(shape)


def weight(name: str, *shape: int) -> Tensor:
    """A weight of the miniature, by its published name."""
    drawn = chirp(name, *shape)
    if len(shape) == 1:
        return 1 + 0.2 * drawn if "norm" in name else 0.1 * drawn
    return 1.2 * drawn / math.prod(shape[1:]) ** 0.5


def state(config: MiniT2IConfig = SHAPE) -> dict[str, Tensor]:
    """The published file of a miniature."""
    with torch.device("meta"):
        wanted = MiniT2IModel(config).state_dict()
    shapes = {published_name(name): tuple(value.shape) for name, value in wanted.items()}
    width = config.width
    unused = ((width, 256), (width,), (width, width), (width,), (width, config.text_width))
    shapes |= {PREFIX + name: shape for name, shape in zip(UNUSED, unused, strict=True)}
    return {name: weight(name, *shape) for name, shape in shapes.items()}


def network(config: MiniT2IConfig = SHAPE) -> MiniT2IModel:
    return built(config, state(config)).eval().requires_grad_(False)


def features() -> Tensor:
    """Of a prompt of four tokens, [1, 4, 10]."""
    return chirp("features", 1, 4, 10)


def noise() -> Tensor:
    return 1.4 * chirp("noise", 3, 8, 8)


def recorded() -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """The conditional and the unconditional answer, and states by the number of steps made."""
    found = json.loads(Path(__file__).with_name("official.json").read_text("utf-8"))

    def picture(values: list[float]) -> Tensor:
        return torch.tensor(values).view(3, 8, 8)

    states = {int(step): picture(values) for step, values in found["states"].items()}
    return picture(found["conditional"]), picture(found["unconditional"]), states
