"""A pixel transformer optimised for repeated calls along a trajectory.

Patches of raw pixels go through adaLN-modulated attention blocks, as in DiT and JiT. Two choices
serve repeated evaluation along a trajectory:

* The prompt enters only as extra *keys and values* of every attention, and these depend neither on
  the picture nor on the time. `PixelTransformer.context` computes them once per picture; all
  steps share them.
* Every element-wise operation is a fused kernel where PyTorch has one (`layer_norm`, `addcmul`),
  since on a CPU at batch 1 such kernels, not the matrix products, dominate the time.

For large pictures memory is the limit. Only keys and values are needed for all tokens at once, so
without gradients a block processes many tokens in parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PART = 256
"""Maximal number of tokens that a block processes at a time: a picture of 128 x 128 pixels. The
data of a part fits in the cache of a core."""


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Sizes of a `PixelTransformer`; `width` is a multiple of `head_dim`, itself of 4."""

    width: int = 384
    depth: int = 8
    head_dim: int = 64
    hidden: int = 1024
    patch: int = 8
    channels: int = 4
    text_width: int = 256

    @property
    def heads(self) -> int:
        return self.width // self.head_dim


def sinusoid(value: Tensor, width: int, scale: float) -> Tensor:
    """Fourier features [b, width] of scalars [b]; `scale` is the highest angular frequency."""
    half = width // 2
    steps = torch.arange(half, device=value.device, dtype=torch.float32) / (half - 1)
    frequencies = scale ** (1 - steps)
    angles = value.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


@lru_cache(maxsize=32)
@torch.inference_mode(mode=False)
def rotary(
    rows: int, columns: int, head_dim: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosine and *signed* sine tables [n, 1, head_dim] of a 2-D rotary embedding.

    Positions are relative to the picture (its geometric mean side is 2), not counted in patches,
    so the same content keeps its position at every resolution. Half of the pairs turn with y, half
    with x. The sign of the usual `rotate_half` is in the sine table, so that applying the
    rotation takes a multiplication, a roll and an `addcmul`. Tables are cached, as ordinary
    tensors even when created in inference mode, so that training may use them too.
    """
    side = math.sqrt(rows * columns)
    y = (torch.arange(rows, device=device) + 0.5 - rows / 2) * (2 / side)
    x = (torch.arange(columns, device=device) + 0.5 - columns / 2) * (2 / side)
    frequencies = torch.logspace(0, math.log10(16), head_dim // 4, device=device) * math.pi / 2
    angles = torch.cat(
        (
            (y[:, None, None] * frequencies).expand(rows, columns, -1),
            (x[None, :, None] * frequencies).expand(rows, columns, -1),
        ),
        dim=-1,
    ).reshape(rows * columns, 1, head_dim // 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention; q [b, heads, n, d], k and v [b, heads, l, d], bias [b, 1, 1, l].

    Training on a CPU uses an explicit formula: the backward pass of PyTorch's fused CPU kernel is
        four times
    slower in bfloat16 than that of two matrix products and a softmax.
    """
    if q.device.type == "cpu" and torch.is_grad_enabled():
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return (scores + bias).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class Block(nn.Module):
    """Attention over the picture's own tokens and the prompt's, then a gated MLP."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        # Separate matrices where one would do: splitting its output costs a concatenation in the
        # backward pass and strided kernels in the forward one.
        self.query_key = nn.Linear(config.width, 2 * config.width, bias=False)
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.qk_scale = nn.Parameter(torch.ones(config.head_dim))
        self.project = nn.Linear(config.width, config.width, bias=False)
        self.text_kv = nn.Linear(config.text_width, 2 * config.width, bias=False)
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.expand = nn.Linear(config.width, config.hidden, bias=False)
        self.contract = nn.Linear(config.hidden, config.width, bias=False)
        self.modulation = nn.Parameter(torch.zeros(6 * config.width))

    def context(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [b, heads, l, head_dim] of prompt features [b, l, text_width]."""
        b, length, _ = text.shape
        kv = self.text_kv(text).reshape(b, length, 2, self.heads, self.head_dim)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        return F.layer_norm(k, (self.head_dim,), self.qk_scale), v

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        rope: tuple[Tensor, Tensor],
        context: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """x [b, n, width], modulation [b, 1, 6 width], context = (keys, values, bias)."""
        if x.shape[1] > PART and not torch.is_grad_enabled():
            return self._in_parts(x, modulation, rope, context)
        shift, scale, *rest = (modulation + self.modulation).chunk(6, dim=-1)
        return self._finished(x, rest, self._attended(x, (shift, scale), rope, context))

    def _attended(
        self,
        x: Tensor,
        modulation: tuple[Tensor, Tensor],
        rope: tuple[Tensor, Tensor],
        context: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """The output of attention [b, heads, n, head_dim]; intermediate tensors are freed."""
        q, k, v = self._projected(x, modulation, rope)
        text_k, text_v, bias = context
        return attention(q, torch.cat((text_k, k), dim=2), torch.cat((text_v, v), dim=2), bias)

    def _projected(
        self,
        x: Tensor,
        modulation: tuple[Tensor, Tensor],
        rope: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [b, heads, n, head_dim] of tokens x [b, n, width]."""
        b, n, width = x.shape
        shift, scale = modulation
        h = torch.addcmul(shift, F.layer_norm(x, (width,)), 1 + scale)
        q_k = self.query_key(h).reshape(b, n, 2 * self.heads, self.head_dim)
        q_k = F.layer_norm(q_k, (self.head_dim,), self.qk_scale)
        cos, sin = rope
        turned = torch.addcmul(q_k * cos, q_k.roll(self.head_dim // 2, dims=-1), sin)
        q, k = turned.transpose(1, 2).chunk(2, dim=1)
        v = self.value(h).reshape(b, n, self.heads, self.head_dim).transpose(1, 2)
        return q, k, v

    def _in_parts(
        self,
        x: Tensor,
        modulation: Tensor,
        rope: tuple[Tensor, Tensor],
        context: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """The same with `PART` tokens at a time, so that few tensors are as long as x.

        First come queries, keys and values of all tokens; with them, the rest is token by token.
        Queries are stored in the tensor of the result.
        """
        b, n, _ = x.shape
        shift, scale, *rest = (modulation + self.modulation).chunk(6, dim=-1)
        text_k, text_v, bias = context
        length = text_k.shape[2]
        k, v = (x.new_empty(b, self.heads, length + n, self.head_dim) for _ in range(2))
        k[:, :, :length], v[:, :, :length] = text_k, text_v
        result = torch.empty_like(x)
        q = result.view(b, n, self.heads, self.head_dim).transpose(1, 2)
        parts = [slice(begin, min(begin + PART, n)) for begin in range(0, n, PART)]
        for part in parts:
            there = slice(length + part.start, length + part.stop)
            own = self._projected(x[:, part], (shift, scale), (rope[0][part], rope[1][part]))
            q[:, :, part], k[:, :, there], v[:, :, there] = own
        for part in parts:
            attended = attention(q[:, :, part], k, v, bias)
            result[:, part] = self._finished(x[:, part], rest, attended)
        return result

    def _finished(self, x: Tensor, modulation: Sequence[Tensor], attended: Tensor) -> Tensor:
        """The block after its attention, for any tokens x [b, n, width] of a picture.

        `modulation` is the gate of the attention, then shift, scale and gate of the MLP.
        """
        gate_a, shift_m, scale_m, gate_m = modulation
        attended = attended.transpose(1, 2).reshape(x.shape)
        x = torch.addcmul(x, gate_a, self.project(attended))
        h = torch.addcmul(shift_m, F.layer_norm(x, x.shape[-1:]), 1 + scale_m)
        return torch.addcmul(x, gate_m, self.contract(F.silu(self.gate(h)) * self.expand(h)))


class PixelTransformer(nn.Module):
    """Maps patches of a noisy picture, a time and a prompt context to one output per patch.

    Additional inputs, and the meaning of the output (x_0, velocity, rank-asymmetric velocity), are
    defined by `asymflow.models.embedded.network`.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        pixels = config.channels * config.patch**2
        self.embed = nn.Linear(pixels, config.width)
        self.time = nn.Linear(256, config.width)
        self.resolution = nn.Linear(64, config.width)
        self.summary = nn.Linear(config.text_width, config.width)
        self.condition = nn.Linear(config.width, 6 * config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head_condition = nn.Linear(config.width, 2 * config.width)
        self.head = nn.Linear(config.width, pixels)
        self._initialise()

    def _initialise(self) -> None:
        for layer in (self.condition, self.head_condition, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for block in self.blocks:
            assert isinstance(block, Block)
            # Residual branches start at a fixed small gain instead of adaLN's zero: with a zero
            # gate, Muon's first updates of the branch weights would be noise.
            width = self.config.width
            with torch.no_grad():
                block.modulation[2 * width : 3 * width] = 0.2
                block.modulation[5 * width : 6 * width] = 0.2

    def context(self, text: Tensor, mask: Tensor, summary: Tensor) -> dict[str, Tensor]:
        """Compute what all steps of a picture share: every block's prompt keys and values.

        Args:
            text: prompt features [b, l, text_width].
            mask: True where `text` holds a token [b, l].
            summary: one vector per prompt [b, text_width].

        Returns:
            "keys" and "values" [b, depth, heads, l, head_dim], "mask" [b, l], "summary" [b, width].
        """
        pairs = [block.context(text) for block in self.blocks if isinstance(block, Block)]
        return {
            "keys": torch.stack([k for k, _ in pairs], dim=1),
            "values": torch.stack([v for _, v in pairs], dim=1),
            "mask": mask,
            "summary": self.summary(summary),
        }

    def conditioned(
        self, t: Tensor, grid: tuple[int, int], context: Mapping[str, Tensor]
    ) -> Tensor:
        """The vector [b, width] that modulates every layer: time, size and prompt.

        Args:
            t: times [b].
            grid: (rows, columns) of the patches.
            context: from `PixelTransformer.context`, of the same batch.
        """
        rows, columns = grid
        dtype = context["summary"].dtype
        side = math.sqrt(rows * columns) * self.config.patch
        log_side = t.new_full(t.shape, math.log2(side / 64))
        c = self.time(sinusoid(t, 256, 1000.0).to(dtype)) + context["summary"]
        return F.silu(c + self.resolution(sinusoid(log_side, 64, 4.0).to(dtype)))

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        grid: tuple[int, int],
        context: Mapping[str, Tensor],
    ) -> Tensor:
        """Normed tokens [b, n, width], for `head` to read, from embedded ones of the same shape.

        `grid` is (rows, columns) of the patches, n = rows * columns; `condition` [b, width] comes
        from `conditioned`.
        """
        rows, columns = grid
        dtype = tokens.dtype
        modulation = self.condition(condition)[:, None]
        rope = rotary(rows, columns, self.config.head_dim, tokens.device, dtype)
        keys, values = context["keys"].unbind(1), context["values"].unbind(1)
        own = context["mask"].new_ones((len(tokens), rows * columns))
        mask = torch.cat((context["mask"], own), dim=1)[:, None, None]
        bias = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, -torch.inf)
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, modulation, rope, (keys[i], values[i], bias))
        shift, scale = self.head_condition(condition)[:, None].chunk(2, dim=-1)
        return torch.addcmul(shift, F.layer_norm(tokens, (self.config.width,)), 1 + scale)
