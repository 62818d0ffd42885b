"""The transformer of "Back to basics: let denoising generative models denoise" (arXiv 2511.13720).

JiT is a plain vision transformer on raw patches of pixels: a low-rank patch embedding, a fixed
position embedding plus rotary positions, RMSNorm, SwiGLU, adaLN from time and class, and copies of
the class embedding as extra tokens in the upper blocks. AsymFlow-JiT (arXiv 2605.12964) is the same
network with another parameterisation of its output, see `asymflow.models.subspace`.

`JitTransformer` is the plain network. `JitModel` converts its output to x_0, with this package's
times: 1 is noise and 0 is data, where JiT counts the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asymflow.core.errors import InputError
from asymflow.models.subspace import calibrated, recovered

_TIME_FEATURES = 256
_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class JitConfig:
    """The configuration of a `JitModel`; the default is B/16.

    Attributes:
        size: side of the pictures of training; a multiple of `patch`.
        width: a multiple of `heads`; each head has a multiple of 4.
        hidden: width of the MLP inside.
        bottleneck: rank of the patch embedding.
        classes: without the null class, which is number `classes`.
        class_tokens: extra tokens that carry the class, from block `class_start` on.
        noise_scale: standard deviation of the noise that the network was trained with, in units of
            pictures in [-1, 1]. The papers use size / 256.
        rank: of the noise subspace; None for x_0 prediction, as in JiT.
    """

    size: int = 256
    patch: int = 16
    channels: int = 3
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 2048
    bottleneck: int = 128
    classes: int = 1000
    class_tokens: int = 32
    class_start: int = 4
    noise_scale: float = 1.0
    rank: int | None = None

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise InputError(
                f"Pictures of {self.size} pixels are not made of patches of {self.patch}. "
                "Choose a size that is a multiple of the patch."
            )
        if self.width % (4 * self.heads):
            raise InputError(
                f"A width of {self.width} cannot be shared by {self.heads} heads. Choose a "
                f"multiple of {4 * self.heads}: positions turn pairs, for rows and for columns."
            )
        if not 0 < self.noise_scale < math.inf:
            raise InputError(
                f"noise_scale={self.noise_scale} is no standard deviation. Give a positive number, "
                "such as 1.0."
            )
        if self.rank is not None and not 0 <= self.rank <= self.pixels:
            raise InputError(
                f"A subspace of rank {self.rank} does not fit into patches of {self.pixels} "
                f"numbers. Choose 0 to {self.pixels}."
            )
        if self.rank is not None and self.noise_scale != 1:
            raise InputError(
                f"A rank-asymmetric model scales its data by itself and cannot have "
                f"noise_scale={self.noise_scale} too. Leave that at 1."
            )

    @property
    def pixels(self) -> int:
        """Numbers in a patch."""
        return self.channels * self.patch**2

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.size // self.patch

    @property
    def slow(self) -> int:
        """Blocks of the slow part: the first ones, about two thirds; 0 if there is one only."""
        return self.depth - max(1, round(self.depth / 3))


SHAPES: Mapping[str, tuple[int, int, int, int, int, int]] = {
    # width, depth, heads, hidden, bottleneck, class_start
    "B": (768, 12, 12, 2048, 128, 4),
    "L": (1024, 24, 16, 2730, 128, 8),
    "H": (1280, 32, 16, 3413, 256, 10),
}


def named_config(name: str) -> JitConfig:
    """The published shapes: "B/16", "L/16", "H/16" for 256 px and "B/32", "L/32", "H/32" for 512.

    Raises:
        InputError: there is no such model.
    """
    size, _, patch = name.partition("/")
    if size not in SHAPES or patch not in ("16", "32"):
        known = ", ".join(f"{s}/{p}" for p in (16, 32) for s in SHAPES)
        raise InputError(f"There is no JiT named {name!r}. Choose one of {known}.")
    width, depth, heads, hidden, bottleneck, start = SHAPES[size]
    side = 16 * int(patch)
    return JitConfig(
        size=side,
        patch=int(patch),
        width=width,
        depth=depth,
        heads=heads,
        hidden=hidden,
        bottleneck=bottleneck,
        class_start=start,
        noise_scale=side / 256,
    )


def patches_of(x: Tensor, patch: int) -> Tensor:
    """[b, c, h, w] to [b, (h/p)(w/p), p p c], row by row; channels vary fastest, unlike elsewhere.

    The published models and their subspaces have this order.
    """
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch * c)


def picture_of(patches: Tensor, patch: int, rows: int) -> Tensor:
    """Inverse of `patches_of` for pictures of so many rows of patches."""
    b, n, pixels = patches.shape
    channels, columns = pixels // patch**2, n // rows
    x = patches.reshape(b, rows, columns, patch, patch, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, channels, rows * patch, columns * patch)


class _Block(nn.Module):
    """Attention over all tokens, then a gated MLP, both modulated by time and class."""

    def __init__(self, config: JitConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention_norm = nn.RMSNorm(width, eps=_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.query_norm = nn.RMSNorm(width // config.heads, eps=_EPS)
        self.key_norm = nn.RMSNorm(width // config.heads, eps=_EPS)
        self.project = nn.Linear(width, width)
        self.mlp_norm = nn.RMSNorm(width, eps=_EPS)
        self.expand = nn.Linear(width, 2 * config.hidden)
        self.contract = nn.Linear(config.hidden, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """x [b, n, width], condition [b, 1, width], rope two tables [n, head_dim]."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition).chunk(6, -1)
        h = torch.addcmul(shift_a, self.attention_norm(x), 1 + scale_a)
        qkv = self.qkv(h).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = _turned(self.query_norm(q), rope), _turned(self.key_norm(k), rope)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        x = torch.addcmul(x, gate_a, self.project(attended))
        gate, value = self.expand(torch.addcmul(shift_m, self.mlp_norm(x), 1 + scale_m)).chunk(
            2, -1
        )
        return torch.addcmul(x, gate_m, self.contract(F.silu(gate) * value))


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    """What the blocks are given.

    Attributes:
        tokens: of the patches [b, n, width].
        classes: extra tokens [b, m, width].
        condition: time and class [b, 1, width].
        rope: two tables [n, head_dim] of rotations.
    """

    tokens: Tensor
    classes: Tensor
    condition: Tensor
    rope: tuple[Tensor, Tensor]

    def with_classes(self, tokens: Tensor) -> Tensor:
        """Tokens [b, m + n, width], the extra ones first."""
        return torch.cat((self.classes, tokens), dim=1)


class JitTransformer(nn.Module):
    """Maps a picture, a time and a class to one vector per patch, in JiT's own time.

    The position embedding is a fixed table for square pictures of `config.size`, those of training.
    For pictures of other sizes it is continued.
    """

    position: Tensor
    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: JitConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.squeeze = nn.Conv2d(
            config.channels, config.bottleneck, config.patch, config.patch, bias=False
        )
        self.embed = nn.Conv2d(config.bottleneck, width, 1)
        self.time = nn.Sequential(
            nn.Linear(_TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(config.classes + 1, width)
        self.class_position = nn.Parameter(torch.empty(1, config.class_tokens, width))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.head_norm = nn.RMSNorm(width, eps=_EPS)
        self.head_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, config.pixels)
        grid = config.side, config.side
        self.register_buffer("position", position_table(grid, width)[None])
        cos, sin = rotary_tables(grid, width // config.heads)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as in the papers: every block is the identity, the output is 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (self.squeeze, self.embed):
            nn.init.xavier_uniform_(layer.weight.view(len(layer.weight), -1))
        if self.embed.bias is not None:
            nn.init.zeros_(self.embed.bias)
        for weight in (self.label.weight, self.class_position):
            nn.init.normal_(weight, std=0.02)
        for layer in self.time:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        zero = [block.modulation for block in self.blocks if isinstance(block, _Block)]
        for layer in (*zero, self.head_modulation, self.head):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """[b, n, p p c] in the order of `patches_of`, for x [b, c, h, w], time and label [b].

        Label `config.classes` is none.
        """
        begun = self._begun(x, time, label)
        return self._drawn(begun, self._through(begun, begun.tokens, 0, self.config.depth))

    def split(
        self, x: Tensor, time: Tensor, label: Tensor, slow: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`forward`, and what the first `config.slow` blocks add to their tokens [b, m, width].

        With `slow`, what they added to others, they are left out: the newest patches are embedded,
        and go to the other blocks with that added.
        """
        begun, cut = self._begun(x, time, label), self.config.slow
        early = self.config.class_tokens and self.config.class_start < cut
        plain = begun.with_classes(begun.tokens) if early else begun.tokens
        if slow is None:
            tokens = self._through(begun, begun.tokens, 0, cut)
            slow = tokens - plain
        else:
            tokens = plain + slow
        return self._drawn(begun, self._through(begun, tokens, cut, self.config.depth)), slow

    def _begun(self, x: Tensor, time: Tensor, label: Tensor) -> _Begun:
        position, rope = self._positions(
            (x.shape[-2] // self.config.patch, x.shape[-1] // self.config.patch)
        )
        dtype = self.head.weight.dtype
        label_embedding = self.label(label)
        condition = self.time(_features(time).to(dtype)) + label_embedding
        condition = F.silu(condition)[:, None]
        tokens = self.embed(self.squeeze(x.to(dtype))).flatten(2).transpose(1, 2)
        tokens = tokens + position.to(dtype)
        return _Begun(tokens, label_embedding[:, None] + self.class_position, condition, rope)

    def _through(self, begun: _Begun, tokens: Tensor, first: int, last: int) -> Tensor:
        """Tokens after the blocks from the first one on, before the last one."""
        start, extra, rope = self.config.class_start, self.config.class_tokens, begun.rope
        # The extra tokens have no position: they are not rotated.
        cos, sin = rope
        turned = (F.pad(cos, (0, 0, extra, 0), value=1), F.pad(sin, (0, 0, extra, 0)))
        for index in range(first, last):
            if index == start and extra:
                tokens = begun.with_classes(tokens)
            tokens = self.blocks[index](tokens, begun.condition, turned if index >= start else rope)
        return tokens

    def _drawn(self, begun: _Begun, tokens: Tensor) -> Tensor:
        """The output for the tokens after all blocks."""
        tokens = tokens[:, tokens.shape[1] - begun.tokens.shape[1] :]
        shift, scale = self.head_modulation(begun.condition).chunk(2, dim=-1)
        return self.head(torch.addcmul(shift, self.head_norm(tokens), 1 + scale))

    def _positions(self, grid: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The position embedding [1, n, width] and the rotations of (rows, columns) of patches."""
        side, width = self.config.side, self.config.width
        if grid == (side, side):
            return self.position, (self.rope_cos, self.rope_sin)
        cos, sin = rotary_tables(grid, width // self.config.heads)
        position = position_table(grid, width)[None].to(self.position)
        return position, (cos.to(self.rope_cos), sin.to(self.rope_sin))


class JitModel(nn.Module):
    """A `JitTransformer` as an estimator of x_0 on x_t = (1 - t) x_0 + t eps, eps ~ N(0, 1).

    The state is the picture in [-1, 1] divided by S, the `config.noise_scale`. Then the papers'
    state z = tau x + (1 - tau) S eps is S x_t at the time tau = 1 - t, and all operations on z,
    solvers included, are equivalent to operations on x_t.
    """

    basis: Tensor
    scale: Tensor

    def __init__(self, config: JitConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = JitTransformer(config)
        if config.rank is not None:
            self.register_buffer("basis", torch.eye(config.rank, config.pixels))
            self.register_buffer("scale", torch.ones(()))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor, *, floor: float = 0.0) -> Tensor:
        """x_0 [b, c, h, w] from x_t at times t [b], for labels [b]; in float32.

        The papers' samplers divide velocities by max(t, `floor`). The estimate with JiT's velocity
        is x_t + min(1, t / floor) (x_0 - x_t); for
        AsymFlow's see `asymflow.models.subspace.recovered`.
        """
        return self._estimate(self.transformer(*self._seen(x_t, t), label), x_t, t, floor)

    def split(
        self, x_t: Tensor, t: Tensor, label: Tensor, slow: Tensor | None, *, floor: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """`forward`, and what the slow part says, see `JitTransformer.split`."""
        output, slow = self.transformer.split(*self._seen(x_t, t), label, slow)
        return self._estimate(output, x_t, t, floor), slow

    def _seen(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures and times as the transformer is shown them."""
        if self.config.rank is None:
            return self.config.noise_scale * x_t, 1 - t
        k, tau = calibrated(t.float(), self.scale.float())
        return k.view(-1, 1, 1, 1) * x_t, tau

    def _estimate(self, output: Tensor, x_t: Tensor, t: Tensor, floor: float) -> Tensor:
        """x_0 [b, c, h, w] from the transformer's output."""
        patch = self.config.patch
        rows = x_t.shape[-2] // patch
        if self.config.rank is not None:
            patches = patches_of(x_t.float(), patch)
            x_0 = recovered(
                patches, output.float(), t, self.basis.float(), self.scale.float(), floor
            )
            return picture_of(x_0, patch, rows)
        x_0 = picture_of(output.float() / self.config.noise_scale, patch, rows)
        if not floor:
            return x_0
        return torch.lerp(x_t.float(), x_0, (t.float() / floor).clamp(max=1).view(-1, 1, 1, 1))


def position_table(grid: tuple[int, int], width: int) -> Tensor:
    """The position embedding [n, width] of n patches: sines and cosines of column, then of row.

    `grid` is (rows, columns).
    """
    rows, columns = grid
    quarter = width // 4
    frequencies = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64, device="cpu") / quarter)
    angles = torch.arange(max(grid), dtype=torch.float64, device="cpu")[:, None] * frequencies
    waves = torch.cat((angles.sin(), angles.cos()), dim=-1).float()
    shape = (rows, columns, 2 * quarter)
    across, down = waves[None, :columns].expand(shape), waves[:rows, None].expand(shape)
    return torch.cat((across, down), dim=-1).reshape(rows * columns, 4 * quarter)


def rotary_tables(grid: tuple[int, int], head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines [n, head_dim] that turn neighbouring pairs, half with the row.

    `grid` is (rows, columns), of n patches. The sign of each pair's rotation is in the table of
    sines.
    """
    rows, columns = grid
    count = head_dim // 4
    frequencies = 10000.0 ** -(torch.arange(count, device="cpu") / count)
    angles = torch.arange(max(grid), device="cpu")[:, None] * frequencies.repeat_interleave(2)
    shape = (rows, columns, 2 * count)
    down, across = angles[:rows, None].expand(shape), angles[None, :columns].expand(shape)
    both = torch.cat((down, across), dim=-1).reshape(rows * columns, head_dim)
    sign = torch.tensor([-1.0, 1.0], device="cpu").repeat(head_dim // 2)
    return both.cos(), both.sin() * sign


def _turned(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys [b, heads, n, head_dim] rotated by their positions."""
    cos, sin = rope
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return (x * cos + swapped * sin).to(x.dtype)


def _features(time: Tensor) -> Tensor:
    """Cosines and sines [b, 256] of times [b]."""
    half = _TIME_FEATURES // 2
    steps = torch.arange(half, device=time.device, dtype=torch.float32)
    angles = time.float()[:, None] * torch.exp(-math.log(10000) * steps / half)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
