"""The network of guided-diffusion (arXiv 2105.05233), ADM: a U-Net with attention on pixels.

Parameters have the names of the published state dicts. The `DhariwalUNet` of
`asymflow.models.edm.networks` is the same architecture under other names, with heads in another
order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asymflow.core.errors import InputError
from asymflow.models.edm.networks import Resample, attended, waves

_GROUPS = 32
_PERIOD = 10000


@dataclass(frozen=True, slots=True)
class AdmConfig:
    """The configuration of an `AdmNetwork`; the default is that for ImageNet at 256 px.

    Attributes:
        size: side of the pictures of training.
        channels, outputs: of pictures, and of the output: twice as many with a learned variance.
        width: number of features of the timestep.
        widths: channels of every level; the picture is halved between two.
        blocks: per level.
        attention: levels that have it, 0 for the picture's own size.
        classes: number of classes; 0 for none.
        heads: of attention, in every block; or
        head_width: channels of a head.
        new_order: whether channels of attention are numbered by q, k and v before the heads.
        film: whether the embedding scales and shifts what is normalised (`use_scale_shift_norm`);
            else it is added before.
        residual: whether residual blocks change the size (`resblock_updown`), or convolutions.
    """

    size: int = 256
    channels: int = 3
    outputs: int = 6
    width: int = 256
    widths: tuple[int, ...] = (256, 256, 512, 512, 1024, 1024)
    blocks: int = 2
    attention: tuple[int, ...] = (3, 4, 5)
    classes: int = 1000
    heads: int = 4
    head_width: int | None = 64
    new_order: bool = False
    film: bool = True
    residual: bool = True

    def __post_init__(self) -> None:
        for width in {self.widths[-1], *(self.widths[level] for level in self.attention)}:
            if width % (self.head_width or self.heads):
                heads = (
                    f"heads of {self.head_width} channels"
                    if self.head_width
                    else f"{self.heads} heads"
                )
                raise InputError(
                    f"{width} channels of attention cannot be shared by {heads}. Give the "
                    "num_heads or num_head_channels of training."
                )

    def heads_of(self, channels: int) -> int:
        """Heads in a block of so many channels."""
        return self.heads if self.head_width is None else channels // self.head_width


class AdmNetwork(nn.Module):
    """Maps a picture, a timestep and a class to the noise, and to a variance if it learns one."""

    def __init__(self, config: AdmConfig) -> None:
        super().__init__()
        self.config = config
        embedding = 4 * config.width
        self.time_embed = nn.Sequential(
            nn.Linear(config.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.label_emb = nn.Embedding(config.classes, embedding) if config.classes else None
        first, last = config.widths[0], config.widths[-1]
        self.input_blocks, skips = _encoder(config)
        self.middle_block = nn.ModuleList(
            (_Residual(last, last, config), _Attention(last, config), _Residual(last, last, config))
        )
        self.output_blocks = _decoder(config, skips)
        self.out = nn.Sequential(
            nn.GroupNorm(_GROUPS, first),
            nn.SiLU(),
            nn.Conv2d(first, config.outputs, 3, padding=1),
        )

    def forward(self, x: Tensor, tau: Tensor, y: Tensor | None = None) -> Tensor:
        """The output [b, outputs, h, w] in the dtype of x, for x [b, c, h, w].

        Args:
            x: variance preserving.
            tau: timesteps [b], not necessarily whole.
            y: labels [b]; None without classes.
        """
        half = self.config.width // 2
        frequencies = torch.exp(-math.log(_PERIOD) * torch.arange(half, device=x.device) / half)
        weight = next(self.parameters())
        emb = self.time_embed(torch.cat(waves(tau, frequencies), 1).to(weight))
        if self.label_emb is not None and y is not None:
            emb = emb + self.label_emb(y)
        emb = F.silu(emb)
        h, skips = x.to(weight), list[Tensor]()
        for block in self.input_blocks:
            h = _through(block, h, emb)
            skips.append(h)
        h = _through(self.middle_block, h, emb)
        for block in self.output_blocks:
            h = _through(block, torch.cat((h, skips.pop()), 1), emb)
        return self.out(h).to(x)


class _Residual(nn.Module):
    """Two convolutions with the embedding between them; may change the size of the picture."""

    def __init__(
        self, into: int, out: int, config: AdmConfig, resample: Resample | None = None
    ) -> None:
        super().__init__()
        self.film = config.film
        self.resample: Resample | None = resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, into), nn.SiLU(), nn.Conv2d(into, out, 3, padding=1)
        )
        # Of the embedding after its SiLU, which the network applies once for all blocks.
        self.emb_layers = nn.Sequential(
            nn.Identity(), nn.Linear(4 * config.width, 2 * out if config.film else out)
        )
        self.out_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, out),
            nn.SiLU(),
            nn.Identity(),  # dropout in training
            nn.Conv2d(out, out, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if into == out else nn.Conv2d(into, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, activation, convolve = self.in_layers
        h = convolve(_resampled(activation(norm(x)), self.resample))
        affine = self.emb_layers(emb)[..., None, None]
        norm, activation, _, convolve = self.out_layers
        if self.film:
            scale, shift = affine.chunk(2, 1)
            h = torch.addcmul(shift, norm(h), 1 + scale)
        else:
            h = norm(h + affine)
        return self.skip_connection(_resampled(x, self.resample)) + convolve(activation(h))


class _Attention(nn.Module):
    """Attention between all pixels."""

    def __init__(self, channels: int, config: AdmConfig) -> None:
        super().__init__()
        self.heads = config.heads_of(channels)
        self.new_order = config.new_order
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        order = (3, self.heads, -1) if self.new_order else (self.heads, 3, -1)
        parts = self.qkv(self.norm(flat)).unflatten(1, order)
        q, k, v = parts.unbind(1 if self.new_order else 2)
        return (flat + self.proj_out(attended(q, k, v).flatten(1, 2))).view_as(x)


class _Halved(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Doubled(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(_resampled(x, "up"))


def _encoder(config: AdmConfig) -> tuple[nn.ModuleList, list[int]]:
    """Blocks, each of which is a list of layers, and the channels of their outputs."""
    into = config.widths[0]
    blocks = [nn.ModuleList([nn.Conv2d(config.channels, into, 3, padding=1)])]
    skips = [into]
    for level, out in enumerate(config.widths):
        if level:
            down = _Residual(into, into, config, "down") if config.residual else _Halved(into)
            blocks.append(nn.ModuleList([down]))
            skips.append(into)
        for _ in range(config.blocks):
            blocks.append(nn.ModuleList(_layers(into, out, level, config)))
            skips.append(out)
            into = out
    return nn.ModuleList(blocks), skips


def _decoder(config: AdmConfig, skips: list[int]) -> nn.ModuleList:
    """Blocks, each of which has an output of the encoder beside its input."""
    blocks: list[nn.ModuleList] = []
    into = config.widths[-1]
    for level in range(len(config.widths) - 1, -1, -1):
        out = config.widths[level]
        for index in range(config.blocks + 1):
            layers = _layers(into + skips.pop(), out, level, config)
            if level and index == config.blocks:
                layers.append(
                    _Residual(out, out, config, "up") if config.residual else _Doubled(out)
                )
            blocks.append(nn.ModuleList(layers))
            into = out
    return nn.ModuleList(blocks)


def _layers(into: int, out: int, level: int, config: AdmConfig) -> list[nn.Module]:
    attention = [_Attention(out, config)] if level in config.attention else []
    return [_Residual(into, out, config), *attention]


def _through(block: nn.Module, x: Tensor, emb: Tensor) -> Tensor:
    """x after all layers of a block."""
    for layer in block.children():
        x = layer(x, emb) if isinstance(layer, _Residual) else layer(x)
    return x


def _resampled(x: Tensor, resample: Resample | None) -> Tensor:
    """x [b, c, h, w] at twice the side, or the means of 2 x 2 blocks, or as it is."""
    if resample == "up":
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return x if resample is None else F.avg_pool2d(x, 2)
