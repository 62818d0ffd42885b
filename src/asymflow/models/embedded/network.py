"""The embedded model: prompt and noisy picture in, estimate of x_0 out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asymflow.models.embedded.detail import Detail, DetailConfig
from asymflow.models.embedded.text import TextTower
from asymflow.models.embedded.transformer import PixelTransformer, TransformerConfig
from asymflow.models.patches import patchify, unpatchify

DEVIATION = 0.7
"""Standard deviation of a channel of x_0 about its mean, over pictures and pixels."""


@dataclass(frozen=True, slots=True)
class PictureConfig:
    """The configuration of a `PictureModel`: its shapes, and the meaning of its output.

    Attributes:
        rank: of the noise subspace that a network without `skip` predicts: 0 is x_0 prediction,
            the full patch size is velocity prediction, between them lies the rank-asymmetric
            velocity.
        detail: convolutions around the trunk, or None for a trunk alone.
        skip: standard deviation of a pixel about the value predicted by its neighbours, or None.
            With it, x_t itself is part of the estimate where its noise is below that.
        references: number of reference drawings in the input; they need `detail`.
    """

    styles: tuple[str, ...]
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    vocabulary: int = 30522
    rank: int = 16
    detail: DetailConfig | None = None
    skip: float | None = None
    references: int = 0


class PictureModel(nn.Module):
    """Text tower, pixel transformer, convolutions around it, and the reading of their output.

    With `skip` deviation s, F the output of trunk and convolutions, m the mean picture and D the
    deviation of x_0 about it, the estimate is that of EDM (arXiv 2206.00364, section 5) on our
    path,

        x_0 = m + a (x_t - (1 - t) m) + b F
        a = (1 - t) s^2 / ((1 - t)^2 s^2 + t^2),   b^2 = (1 - a (1 - t))^2 D^2 + a^2 t^2

    except for s: EDM's is the deviation of the whole picture, which passes noise on at middle
    times until the network has learnt to cancel it. Ours is that of a pixel about its neighbours,
    so the skip has weight only near t = 0. The network input is x_t - (1 - t) m at unit variance.
    Convolutions with gates are also given, and may add to F, the deviation of every pixel from the
    mean of the 3 x 3 around it, over ((1 - t)^2 s^2 + t^2)^(1/2), which is about its own.

    Without `skip`, the output is a rank-asymmetric velocity: P projects on the `rank` leading
    principal directions of picture patches, and the network predicts u_A = P eps - x_0 (arXiv
    2605.12964, section 3). The estimate follows without any division: in the subspace u_A is the
    velocity, so x_0 = x_t - t u_A there; in the complement u_A is -x_0. Together

        x_0 = P (x_t + (1 - t) u_A) - u_A.
    """

    basis: Tensor
    mean: Tensor

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        self.config = config
        assert config.detail is not None or not config.references, "references need convolutions"
        gates = config.detail is not None and config.detail.gates
        assert config.skip is not None or not gates, "gates need the deviation of `skip`"
        self.text = TextTower(config.vocabulary, len(config.styles), config.transformer.text_width)
        self.transformer = PixelTransformer(config.transformer)
        channels = config.transformer.channels
        pixels = channels * config.transformer.patch**2
        self.register_buffer("basis", torch.eye(pixels)[: config.rank].contiguous())
        self.detail = self.glance = None
        if config.skip is not None or config.references:
            self.register_buffer("mean", torch.zeros(channels))
        if config.detail is not None:
            assert config.transformer.patch == 8, "the convolutions make tokens of 8 x 8 px"
            seen = channels + config.references * (channels + 1)
            self.detail = Detail(config.detail, seen, channels, config.transformer.width)
        if config.references:
            drawn = config.references * (channels + 1) * config.transformer.patch**2
            self.glance = nn.Linear(drawn, config.transformer.width)
            nn.init.normal_(self.glance.weight, std=0.02)
            nn.init.zeros_(self.glance.bias)

    def context(
        self, ids: Tensor, mask: Tensor, style: Tensor, references: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute what all steps share.

        Args:
            ids, mask: [b, l], from `tokenize`.
            style: [b]; 0 is none.
            references: from `encode_references`; required by models with references.
        """
        features, mask, summary = self.text(ids, mask, style)
        context = self.transformer.context(features, mask, summary)
        if self.config.references:
            assert references is not None, "a model with references is given some, or empty ones"
            context["reference"] = references
        return context

    def encode_references(self, drawings: Tensor, present: Tensor) -> Tensor:
        """Convert reference drawings to network input [b, r (c + 1), h, w].

        Args:
            drawings: in state space [b, r, c, h, w].
            present: whether there is one [b, r]; the pixels of missing ones are ignored.
        """
        there = present.to(drawings.dtype)[:, :, None, None, None]
        there = there.expand(*drawings.shape[:2], 1, *drawings.shape[3:])
        scaled = (drawings - self.mean.to(drawings)[:, None, None]) / DEVIATION * there
        return torch.cat((scaled, there), dim=2).flatten(1, 2)

    def forward(self, x_t: Tensor, t: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Estimate of x_0 [b, c, h, w] from x_t [b, c, h, w] at times t [b]."""
        x_0, _ = self.split(x_t, t, context, None)
        return x_0

    def split(
        self, x_t: Tensor, t: Tensor, context: Mapping[str, Tensor], slow: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`forward`, and the tokens [b, n, width] behind the trunk, which is the slow part.

        With `slow`, those of an earlier call, the trunk is left out: the convolutions, and the head
        of the trunk, draw the estimate from them, the newest x_t and its time. Of models with
        convolutions only.
        """
        if self.config.skip is None:
            return self._asymmetric(x_t, t, context, slow)
        t_ = t.view(-1, 1, 1, 1)
        mean = self.mean[:, None, None].float()
        a, b = skip_scales(t_, self.config.skip)
        centred = x_t - ((1 - t_) * mean).to(x_t.dtype)
        unit = ((1 - t_).square() * DEVIATION**2 + t_.square()).rsqrt()
        local = None
        if self.config.detail is not None and self.config.detail.gates:
            own = ((1 - t_).square() * self.config.skip**2 + t_.square()).rsqrt()
            precise = centred.float()
            local = ((precise - _around(precise)) * own).to(x_t.dtype)
        f, slow = self._output(centred * unit.to(x_t.dtype), t, context, slow, local)
        return mean.to(f.dtype) + a.to(f.dtype) * centred + b.to(f.dtype) * f, slow

    def _output(
        self,
        x: Tensor,
        t: Tensor,
        context: Mapping[str, Tensor],
        slow: Tensor | None,
        local: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The output of trunk and convolutions [b, c, h, w] for their input [b, c, h, w]."""
        trunk, patch = self.transformer, self.config.transformer.patch
        height, width = x.shape[-2:]
        grid = height // patch, width // patch
        condition = trunk.conditioned(t, grid, context)
        if self.detail is None:
            assert slow is None, "a trunk alone has no fast part"
            tokens = trunk(trunk.embed(patchify(x, patch)), condition, grid, context)
            return unpatchify(trunk.head(tokens), patch, height, width), tokens
        patches, seen = x, None
        if self.glance is not None:
            seen = context["reference"].to(x.dtype)
            # Low-resolution tiers run at a fraction of the side that the drawings were prepared
            # for.
            seen = F.avg_pool2d(seen, seen.shape[-1] // width) if seen.shape[-1] > width else seen
            x = torch.cat((x, seen), dim=1)
        encoded, features = self.detail.encode(x, local, condition)
        if slow is None:
            tokens = trunk.embed(patchify(patches, patch))
            if self.glance is not None and seen is not None:
                tokens = tokens + self.glance(patchify(seen, patch))
            tokens = trunk(tokens + encoded, condition, grid, context)
        else:
            tokens = slow
        drawn = self.detail.decode(tokens, grid, features, patches, local, condition)
        return unpatchify(trunk.head(tokens), patch, height, width) + drawn, tokens

    def _asymmetric(
        self, x_t: Tensor, t: Tensor, context: Mapping[str, Tensor], slow: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        patch = self.config.transformer.patch
        height, width = x_t.shape[-2:]
        patches = patchify(x_t, patch)
        output, slow = self._output(x_t, t, context, slow)
        u_a = patchify(output, patch)
        inside = torch.addcmul(patches, (1 - t)[:, None, None].to(u_a.dtype), u_a) @ self.basis.T
        return unpatchify(inside @ self.basis - u_a, patch, height, width), slow


def _around(x: Tensor) -> Tensor:
    """Means of the 3 x 3 pixels around each [b, c, h, w], the border repeated."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def skip_scales(t: Tensor, skip: float) -> tuple[Tensor, Tensor]:
    """Weights a of x_t and b of the network in `PictureModel`, at times t."""
    variance = (1 - t).square() * skip**2 + t.square()
    a = (1 - t) * skip**2 / variance
    b = ((1 - a * (1 - t)).square() * DEVIATION**2 + a.square() * t.square()).sqrt()
    return a, b


def patch_basis(pictures: Tensor, patch: int, rank: int) -> Tensor:
    """Orthonormal rows [rank, c p p]: leading principal directions of the patches of pictures.

    Patches are not centred, since their mean carries signal too. `pictures` is [n, c, h, w] in
    state space.
    """
    patches = patchify(pictures.float(), patch).flatten(0, 1)
    covariance = patches.T @ patches / len(patches)
    _, vectors = torch.linalg.eigh(covariance)
    return vectors.flip(-1)[:, :rank].T.contiguous()
