"""The transformer of MiniT2I (https://peppaking8.github.io/#/post/minit2i).

Tokens of the text and patches of the picture attend to each other in one sequence, each kind with
weights of its own, as in MMDiT. There is no modulation, and the network is not told the time: it
sees the noise in its input. Two blocks of the text alone adapt the features of a frozen language
model.

The text always has `text_tokens` positions. Those behind the prompt hold one trained vector, and
all of them do in the unconditional estimate; attention has no mask.

`MiniT2ITransformer` is the plain network. `MiniT2IModel` converts its output to x_0 on this
package's path, where 1 is noise; MiniT2I counts the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asymflow.core.errors import InputError
from asymflow.models.jit.network import picture_of, position_table

_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class MiniT2IConfig:
    """The configuration of a `MiniT2IModel`; the default is B/16.

    Attributes:
        size: side of the pictures, the only one supported; a multiple of `patch`.
        width: a multiple of 4.
        depth: blocks of text and picture.
        head_dim: a multiple of 4.
        hidden: width of the MLPs inside.
        bottleneck: rank of the patch embedding.
        text_width: of the features of the language model.
        text_depth: blocks of the text alone.
        text_tokens: positions of the text; longer prompts are truncated.
        noise_scale: standard deviation of the noise that the network was trained with, in units of
            pictures in [-1, 1].
    """

    size: int = 512
    patch: int = 16
    channels: int = 3
    width: int = 768
    depth: int = 17
    heads: int = 12
    head_dim: int = 64
    hidden: int = 2048
    bottleneck: int = 128
    text_width: int = 1024
    text_depth: int = 2
    text_tokens: int = 256
    noise_scale: float = 2.0

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise InputError(
                f"Pictures of {self.size} pixels are not made of patches of {self.patch}. "
                "Choose a size that is a multiple of the patch."
            )
        if self.heads < 1:
            raise InputError(
                f"A network with {self.heads} heads has no attention. Choose 1 or more."
            )
        for name, value in (("width", self.width), ("head_dim", self.head_dim)):
            if value % 4:
                raise InputError(
                    f"{name}={value} has no room for positions: they are pairs of numbers, for "
                    "rows and for columns. Choose a multiple of 4."
                )
        if not 0 < self.noise_scale < math.inf:
            raise InputError(
                f"noise_scale={self.noise_scale} is no standard deviation. Give a positive number, "
                "such as 2.0."
            )

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.size // self.patch


SHAPES: Mapping[str, MiniT2IConfig] = {
    "B/16": MiniT2IConfig(),
    "L/16": MiniT2IConfig(width=1248, depth=23, heads=24, head_dim=52, hidden=3376),
}
"""The published networks."""


class _Stream(nn.Module):
    """The weights of a block for one kind of token."""

    def __init__(self, config: MiniT2IConfig) -> None:
        super().__init__()
        width, inner = config.width, config.heads * config.head_dim
        self.attention_norm = nn.RMSNorm(width, eps=_EPS)
        self.qkv = nn.Linear(width, 3 * inner)
        self.project = nn.Linear(inner, width)
        self.mlp_norm = nn.RMSNorm(width, eps=_EPS)
        self.gate = nn.Linear(width, config.hidden, bias=False)
        self.expand = nn.Linear(width, config.hidden, bias=False)
        self.contract = nn.Linear(config.hidden, width, bias=False)

    def queried(self, x: Tensor) -> Tensor:
        """Queries, keys and values [b, n, 3 heads head_dim] of tokens x [b, n, width]."""
        return self.qkv(self.attention_norm(x))

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        """Tokens [b, n, width] after the block, from x and what they attended to."""
        x = x + self.project(attended)
        h = self.mlp_norm(x)
        return x + self.contract(F.silu(self.gate(h)) * self.expand(h))


class _Block(nn.Module):
    """Attention over the tokens of all streams together, then an MLP for each."""

    def __init__(self, config: MiniT2IConfig, streams: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.streams = nn.ModuleList(_Stream(config) for _ in range(streams))
        self.query_norm = nn.RMSNorm(config.head_dim, eps=_EPS)
        self.key_norm = nn.RMSNorm(config.head_dim, eps=_EPS)

    def forward(self, parts: Sequence[Tensor], rope: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Tokens of each stream, [b, n_i, width]; rope two tables [sum of n_i, head_dim]."""
        streams = [stream for stream in self.streams if isinstance(stream, _Stream)]
        qkv = torch.cat([s.queried(x) for s, x in zip(streams, parts, strict=True)], dim=1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = _turned(self.query_norm(q), rope), _turned(self.key_norm(k), rope)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        pieces = attended.split([x.shape[1] for x in parts], dim=1)
        return [s(x, piece) for s, x, piece in zip(streams, parts, pieces, strict=True)]


class MiniT2ITransformer(nn.Module):
    """Maps a picture and a text to one vector per patch.

    Only square pictures of `config.size` are supported: the position embedding is fixed.
    """

    position: Tensor
    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: MiniT2IConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.squeeze = nn.Conv2d(
            config.channels, config.bottleneck, config.patch, config.patch, bias=False
        )
        self.embed = nn.Conv2d(config.bottleneck, width, 1)
        self.embed_text = nn.Linear(config.text_width, width, bias=False)
        self.padding = nn.Parameter(torch.zeros(1, 1, config.text_width))
        self.text_blocks = nn.ModuleList(_Block(config, 1) for _ in range(config.text_depth))
        self.blocks = nn.ModuleList(_Block(config, 2) for _ in range(config.depth))
        self.head_norm = nn.RMSNorm(width, eps=_EPS)
        self.head = nn.Linear(width, config.channels * config.patch**2)
        cos, sin = rotary_tables(config.text_tokens, config.side, config.head_dim)
        position = position_table((config.side, config.side), width)[None]
        for name, table in (("position", position), ("rope_cos", cos), ("rope_sin", sin)):
            self.register_buffer(name, table, persistent=False)

    def encode(self, features: Tensor) -> Tensor:
        """The text [b, text_tokens, width] of features [b, l, text_width], l <= text_tokens.

        It depends on neither picture nor time; without features it is that of no prompt.
        """
        count = self.config.text_tokens
        padding = self.padding.expand(len(features), count - features.shape[1], -1)
        text = self.embed_text(torch.cat((features.to(padding), padding), dim=1))
        rope = (self.rope_cos[:count], self.rope_sin[:count])
        for block in self.text_blocks:
            [text] = block([text], rope)
        return text

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """[b, n, p p c] in the order of `asymflow.models.jit.network.patches_of`.

        x is [b, c, size, size], and text [b, text_tokens, width] that of `encode`.
        """
        weight = self.head.weight
        tokens = self.embed(self.squeeze(x.to(weight))).flatten(2).transpose(1, 2)
        tokens = tokens + self.position.to(weight)
        text, rope = text.to(weight), (self.rope_cos, self.rope_sin)
        for block in self.blocks:
            text, tokens = block([text, tokens], rope)
        return self.head(self.head_norm(tokens))


class MiniT2IModel(nn.Module):
    """A `MiniT2ITransformer` as an estimator of x_0 on x_t = (1 - t) x_0 + t eps, eps ~ N(0, 1).

    The state is the picture in [-1, 1] divided by S, the `config.noise_scale`. Then MiniT2I's
    state z = tau x + (1 - tau) S eps is S x_t at the time tau = 1 - t, and all operations on z,
    solvers included, are equivalent to operations on x_t.
    """

    def __init__(self, config: MiniT2IConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = MiniT2ITransformer(config)

    def forward(self, x_t: Tensor, t: Tensor, text: Tensor, *, floor: float = 0.0) -> Tensor:
        """x_0 [b, c, size, size] from x_t at times t [b], for texts of `encode`; in float32.

        MiniT2I's sampler divides velocities by max(t, `floor`). The estimate with that velocity is
        x_t + min(1, t / floor) (x_0 - x_t). Otherwise t has no effect.
        """
        s = self.config.noise_scale
        patches = self.transformer(s * x_t, text).float() / s
        x_0 = picture_of(patches, self.config.patch, self.config.side)
        if not floor:
            return x_0
        return torch.lerp(x_t.float(), x_0, (t.float() / floor).clamp(max=1).view(-1, 1, 1, 1))


def rotary_tables(words: int, side: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines [words + side^2, head_dim] of the rotations of text, then patches.

    Number i of the first half of a head is turned with number i of the second: by the place of a
    word, and by row and column of a patch, a half of the pairs each.
    """
    half, quarter = head_dim // 2, head_dim // 4
    frequencies = 10000.0 ** -(torch.arange(half, device="cpu") / half)
    text = torch.arange(words, device="cpu")[:, None] * frequencies
    # A quarter has every second of these frequencies.
    line = torch.arange(side, device="cpu")[:, None] * frequencies[::2]
    shape = (side, side, quarter)
    both = torch.cat((line[:, None].expand(shape), line[None].expand(shape)), dim=-1)
    angles = torch.cat((text, both.reshape(side * side, half)))
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def _turned(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys [b, heads, n, head_dim] rotated by their positions."""
    cos, sin = rope
    return (x * cos + x.roll(x.shape[-1] // 2, -1) * sin).to(x.dtype)
