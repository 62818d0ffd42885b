"""The networks of EDM (arXiv 2206.00364): DDPM++ and NCSN++ (`SongUNet`), and ADM (`DhariwalUNet`).

They map a scaled picture, a noise label and a class to a picture. Parameters have the names of the
published state dicts, which are those of the official code below "model.". Augmentation labels are
those of no augmentation, as in sampling: their weights are held and not used.

What stands around them is in `asymflow.models.edm.preconditioning`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Resample = Literal["up", "down"]

_HEAD = 64  # channels per head of a DhariwalUNet; a SongUNet has one head
_PERIOD = 10000


@dataclass(frozen=True, slots=True)
class SongConfig:
    """The configuration of a `SongUNet`; the default is DDPM++ for CIFAR-10.

    Attributes:
        size: side of the pictures of training, halved from level to level.
        channels, outputs: of pictures, and of the output.
        classes: number of classes; 0 for none.
        augmentations: numbers in an augmentation label; 0 for none.
        width: channels after the first convolution.
        widths: channels of every level.
        embedding: width of the embedding of noise and class.
        noise: features of the noise label.
        blocks: per level.
        attention: sides of pictures at which blocks have attention.
        fourier: whether the noise label is embedded by random frequencies, as in NCSN++.
        encoder: how the picture itself reaches lower levels; "residual" in NCSN++.
        decoder: whether every level adds to the output.
        taps: of the binomial filter by which pictures are halved; 2 is the mean, 4 in NCSN++.
    """

    size: int = 32
    channels: int = 3
    outputs: int = 3
    classes: int = 0
    augmentations: int = 0
    width: int = 128
    widths: tuple[int, ...] = (256, 256, 256)
    embedding: int = 512
    noise: int = 128
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    fourier: bool = False
    encoder: Literal["standard", "skip", "residual"] = "standard"
    decoder: Literal["standard", "skip"] = "standard"
    taps: int = 2


@dataclass(frozen=True, slots=True)
class DhariwalConfig:
    """The configuration of a `DhariwalUNet`; the default is ADM for ImageNet at 64 px.

    The attributes are those of `SongConfig`; `width` is the number of features of the noise label.
    """

    size: int = 64
    channels: int = 3
    outputs: int = 3
    classes: int = 1000
    augmentations: int = 0
    width: int = 192
    widths: tuple[int, ...] = (192, 384, 576, 768)
    embedding: int = 768
    blocks: int = 3
    attention: tuple[int, ...] = (32, 16, 8)


class SongUNet(nn.Module):
    """DDPM++ and NCSN++."""

    def __init__(self, config: SongConfig) -> None:
        super().__init__()
        self.config = config
        style = _Style(config.embedding, config.taps, math.sqrt(0.5), 1e-6, True, False)
        self.map_noise = _Frequencies(config.noise // 2) if config.fourier else None
        self.map_label = nn.Linear(config.classes, config.noise) if config.classes else None
        self.map_augment = _augmentation(config.augmentations, config.noise)
        self.map_layer0 = nn.Linear(config.noise, config.embedding)
        self.map_layer1 = nn.Linear(config.embedding, config.embedding)
        self.enc, skips = _encoder(config, config.width, style)
        if config.encoder != "standard":
            self.enc = _with_picture(config, self.enc)
        self.dec = _decoder(config, skips, style)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        """The output [b, outputs, h, w], for x [b, c, h, w] and noise labels [b].

        Args:
            labels: one-hot classes [b, classes], all zeros for none; None without classes.
        """
        emb = self._embedded(noise, labels)
        skips: list[Tensor] = []
        picture = x
        for name, block in self.enc.items():
            if name.endswith("_aux_down"):
                picture = block(picture)
            elif name.endswith("_aux_skip"):
                x = skips[-1] = x + block(picture)
            elif name.endswith("_aux_residual"):
                x = skips[-1] = picture = (x + block(picture)) * math.sqrt(0.5)
            else:
                x = block(x, emb) if isinstance(block, _Block) else block(x)
                skips.append(x)
        return self._decoded(x, emb, skips)

    def _decoded(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        output = normed = x.new_zeros(())
        for name, block in self.dec.items():
            if name.endswith("_aux_up"):
                output = block(output)
            elif name.endswith("_aux_norm"):
                normed = block(x)
            elif name.endswith("_aux_conv"):
                output = output + block(F.silu(normed))
            else:
                x = block(torch.cat((x, skips.pop()), 1) if "_block" in name else x, emb)
        return output

    def _embedded(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        half = self.config.noise // 2
        if self.map_noise is None:
            ramp = torch.arange(half, device=noise.device) / (half - 1)
            cosines, sines = waves(noise, _PERIOD**-ramp)
        else:
            cosines, sines = waves(noise, 2 * math.pi * self.map_noise.freqs)
        emb = torch.cat((sines, cosines), 1).to(self.map_layer0.weight)
        if self.map_label is not None and labels is not None:
            emb = emb + self.map_label(labels.to(emb) * math.sqrt(self.config.classes))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))


class DhariwalUNet(nn.Module):
    """ADM, as EDM has it."""

    def __init__(self, config: DhariwalConfig) -> None:
        super().__init__()
        self.config = config
        style = _Style(config.embedding, 2, 1.0, 1e-5, False, True)
        self.map_augment = _augmentation(config.augmentations, config.width)
        self.map_layer0 = nn.Linear(config.width, config.embedding)
        self.map_layer1 = nn.Linear(config.embedding, config.embedding)
        self.map_label = (
            nn.Linear(config.classes, config.embedding, bias=False) if config.classes else None
        )
        self.enc, skips = _encoder(config, config.widths[0], style)
        self.dec = _decoder(config, skips, style)
        self.out_norm = _norm(config.widths[0], style.eps)
        self.out_conv = _Conv(config.widths[0], config.outputs, 3)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        """As of `SongUNet`."""
        half = self.config.width // 2
        ramp = torch.arange(half, device=noise.device) / half
        emb = torch.cat(waves(noise, _PERIOD**-ramp), 1).to(self.map_layer0.weight)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None and labels is not None:
            emb = emb + self.map_label(labels.to(emb))
        emb = F.silu(emb)
        skips: list[Tensor] = []
        for block in self.enc.values():
            x = block(x, emb) if isinstance(block, _Block) else block(x)
            skips.append(x)
        for name, block in self.dec.items():
            x = block(torch.cat((x, skips.pop()), 1) if "_block" in name else x, emb)
        return self.out_conv(F.silu(self.out_norm(x)))


def waves(noise: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [b, n] of noise labels [b] times frequencies [n], in float32."""
    angles = noise.float()[:, None] * frequencies.to(noise.device).float()
    return angles.cos(), angles.sin()


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention between positions; all [b, heads, channels of a head, n]."""
    return F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT


@dataclass(frozen=True, slots=True)
class _Style:
    """What the blocks of a network have in common.

    Attributes:
        scale: of sums of two branches.
        projects: whether skips that change the size of the picture have a convolution, too.
        film: whether the embedding scales and shifts what is normalised; else it is added before.
    """

    embedding: int
    taps: int
    scale: float
    eps: float
    projects: bool
    film: bool


class _Frequencies(nn.Module):
    freqs: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(count))


class _Resampling(nn.Module):
    """A picture of twice or half the side."""

    resample_filter: Tensor

    def __init__(self, resample: Resample, taps: int) -> None:
        super().__init__()
        self.resample: Resample = resample
        self.register_buffer("resample_filter", _filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        return _resampled(x, self.resample_filter, self.resample)


class _Conv(nn.Conv2d):
    """A convolution of a picture, which is resampled before."""

    resample_filter: Tensor | None

    def __init__(
        self, into: int, out: int, side: int, resample: Resample | None = None, taps: int = 2
    ) -> None:
        super().__init__(into, out, side, padding=side // 2)
        self.resample: Resample | None = resample
        self.register_buffer("resample_filter", None if resample is None else _filter(taps))

    def forward(self, input: Tensor) -> Tensor:
        if self.resample is not None and self.resample_filter is not None:
            input = _resampled(input, self.resample_filter, self.resample)
        return super().forward(input)


class _HalvedConv(nn.Conv2d):
    """A convolution whose output is halved; its margin is as wide as the filter reaches."""

    resample_filter: Tensor

    def __init__(self, into: int, out: int, taps: int) -> None:
        super().__init__(into, out, 3, padding=1 + _reach(taps))
        self.register_buffer("resample_filter", _filter(taps))

    def forward(self, input: Tensor) -> Tensor:
        x = super().forward(input)
        return F.conv2d(x, _each(self.resample_filter, x), stride=2, groups=x.shape[1])


class _Block(nn.Module):
    """Two convolutions with the embedding between them, and attention where there are heads."""

    def __init__(
        self, into: int, out: int, style: _Style, resample: Resample | None = None, heads: int = 0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.style = style
        self.norm0 = _norm(into, style.eps)
        self.conv0 = _Conv(into, out, 3, resample, style.taps)
        self.affine = nn.Linear(style.embedding, 2 * out if style.film else out)
        self.norm1 = _norm(out, style.eps)
        self.conv1 = _Conv(out, out, 3)
        self.skip: nn.Module | None = None
        if into != out or (resample is not None and style.projects):
            self.skip = _Conv(into, out, 1, resample, style.taps)
        elif resample is not None:
            self.skip = _Resampling(resample, style.taps)
        if heads:
            self.norm2 = _norm(out, style.eps)
            self.qkv = _Conv(out, 3 * out, 1)
            self.proj = _Conv(out, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x [b, into, h, w] and the embedding [b, e] to [b, out, h', w']."""
        h = self.conv0(F.silu(self.norm0(x)))
        affine = self.affine(emb)[..., None, None]
        if self.style.film:
            scale, shift = affine.chunk(2, 1)
            h = torch.addcmul(shift, self.norm1(h), 1 + scale)
        else:
            h = self.norm1(h + affine)
        h = self.conv1(F.silu(h))
        x = (h + (x if self.skip is None else self.skip(x))) * self.style.scale
        if self.heads:
            # Channels are numbered by head, then by channel of the head, then by q, k and v.
            qkv = self.qkv(self.norm2(x)).flatten(2).unflatten(1, (self.heads, -1, 3))
            x = (x + self.proj(attended(*qkv.unbind(3)).reshape(x.shape))) * self.style.scale
        return x


def _encoder(
    config: SongConfig | DhariwalConfig, width: int, style: _Style
) -> tuple[nn.ModuleDict, list[int]]:
    """Blocks by name, and the channels of what they hand to the decoder."""
    layers: dict[str, nn.Module] = {}
    skips: list[int] = []
    into = width
    for level, out in enumerate(config.widths):
        side = config.size >> level
        if level:
            layers[f"{side}x{side}_down"] = _Block(into, into, style, "down")
        else:
            layers[f"{side}x{side}_conv"] = _Conv(config.channels, into, 3)
        skips.append(into)
        for index in range(config.blocks):
            heads = _heads(config, out) if side in config.attention else 0
            layers[f"{side}x{side}_block{index}"] = _Block(into, out, style, heads=heads)
            skips.append(out)
            into = out
    return nn.ModuleDict(layers), skips


def _with_picture(config: SongConfig, encoder: nn.ModuleDict) -> nn.ModuleDict:
    """The encoder with layers that bring the picture to all levels below the first."""
    layers: dict[str, nn.Module] = {}
    sides = {f"{config.size >> level}": level for level in range(1, len(config.widths))}
    into = config.channels
    for name, block in encoder.items():
        layers[name] = block
        side, _, rest = name.partition("x")
        if side not in sides or not rest.endswith("_down"):
            continue
        out = config.widths[sides[side] - 1]
        if config.encoder == "residual":
            layers[f"{side}x{side}_aux_residual"] = _HalvedConv(into, out, config.taps)
            into = out
        else:
            layers[f"{side}x{side}_aux_down"] = _Resampling("down", config.taps)
            layers[f"{side}x{side}_aux_skip"] = _Conv(into, out, 1)
    return nn.ModuleDict(layers)


def _decoder(config: SongConfig | DhariwalConfig, skips: list[int], style: _Style) -> nn.ModuleDict:
    """Blocks by name; those called "block" have an output of the encoder beside their input."""
    layers: dict[str, nn.Module] = {}
    song = isinstance(config, SongConfig)
    last = len(config.widths) - 1
    into = config.widths[-1]
    for level in range(last, -1, -1):
        side, out = config.size >> level, config.widths[level]
        name = f"{side}x{side}"
        if level == last:
            layers[f"{name}_in0"] = _Block(into, into, style, heads=_heads(config, into))
            layers[f"{name}_in1"] = _Block(into, into, style)
        else:
            layers[f"{name}_up"] = _Block(into, into, style, "up")
        for index in range(config.blocks + 1):
            # A SongUNet has attention in the last block of a level only.
            attends = side in config.attention and (not song or index == config.blocks)
            heads = _heads(config, out) if attends else 0
            layers[f"{name}_block{index}"] = _Block(into + skips.pop(), out, style, heads=heads)
            into = out
        if isinstance(config, SongConfig) and (level == 0 or config.decoder == "skip"):
            if level < last and config.decoder == "skip":
                layers[f"{name}_aux_up"] = _Resampling("up", config.taps)
            layers[f"{name}_aux_norm"] = _norm(out, style.eps)
            layers[f"{name}_aux_conv"] = _Conv(out, config.outputs, 3)
    return nn.ModuleDict(layers)


def _heads(config: SongConfig | DhariwalConfig, channels: int) -> int:
    return 1 if isinstance(config, SongConfig) else channels // _HEAD


def _augmentation(numbers: int, width: int) -> nn.Linear | None:
    return nn.Linear(numbers, width, bias=False) if numbers else None


def _norm(channels: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps)


def _filter(taps: int) -> Tensor:
    """The binomial filter [1, 1, taps, taps], which keeps the mean."""
    row = torch.tensor([float(math.comb(taps - 1, i)) for i in range(taps)])
    return (row[:, None] * row / row.sum() ** 2)[None, None]


def _reach(taps: int) -> int:
    """Pixels by which a filter reaches beyond the pair that it halves."""
    return (taps - 1) // 2


def _each(kernel: Tensor, x: Tensor) -> Tensor:
    """The filter for every channel of x."""
    return kernel.to(x).expand(x.shape[1], -1, -1, -1)


def _resampled(x: Tensor, kernel: Tensor, resample: Resample) -> Tensor:
    """x [b, c, h, w] at twice or half the side."""
    weight, margin, channels = _each(kernel, x), _reach(kernel.shape[-1]), x.shape[1]
    if resample == "up":
        return F.conv_transpose2d(x, 4 * weight, stride=2, padding=margin, groups=channels)
    return F.conv2d(x, weight, stride=2, padding=margin, groups=channels)
