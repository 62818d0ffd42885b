"""The embedded model: prompt and noisy picture in, estimate of x_0 out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from asymflow.nets.text import TextTower
from asymflow.nets.transformer import PixelTransformer, TransformerConfig, patchify, unpatchify


@dataclass(frozen=True, slots=True)
class PictureConfig:
    """Everything that fixes the shapes of a `PictureModel`.

    `rank` is the rank of the noise subspace that the network predicts: 0 is x_0 prediction, the
    full patch size is velocity prediction, between them lies the rank-asymmetric velocity.
    """

    styles: tuple[str, ...]
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    vocabulary: int = 30522
    rank: int = 16


class PictureModel(nn.Module):
    """Text tower, pixel transformer and the rank-asymmetric reading of its output.

    With P the projection on the `rank` leading principal directions of picture patches, the
    network predicts u_A = P eps - x_0 (arXiv 2605.12964, section 3). The estimate follows without
    any division: in the subspace u_A is the velocity, so x_0 = x_t - t u_A there; in the
    complement u_A is -x_0. Together

        x_0 = P (x_t + (1 - t) u_A) - u_A.
    """

    basis: Tensor

    def __init__(self, config: PictureConfig) -> None:
        super().__init__()
        self.config = config
        self.text = TextTower(config.vocabulary, len(config.styles), config.transformer.text_width)
        self.transformer = PixelTransformer(config.transformer)
        pixels = config.transformer.channels * config.transformer.patch**2
        self.register_buffer("basis", torch.eye(pixels)[: config.rank].contiguous())

    def context(self, ids: Tensor, mask: Tensor, style: Tensor) -> dict[str, Tensor]:
        """What all steps share; ids and mask [b, l] from `tokenize`, style [b] (0: none)."""
        features, mask, summary = self.text(ids, mask, style)
        return self.transformer.context(features, mask, summary)

    def forward(self, x_t: Tensor, t: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Estimate of x_0 [b, c, h, w] from x_t [b, c, h, w] at times t [b]."""
        patch = self.config.transformer.patch
        height, width = x_t.shape[-2:]
        patches = patchify(x_t, patch)
        u_a = self.transformer(patches, t, (height // patch, width // patch), context)
        inside = torch.addcmul(patches, (1 - t)[:, None, None].to(u_a.dtype), u_a) @ self.basis.T
        x_0 = inside @ self.basis - u_a
        return unpatchify(x_0, patch, height, width)


def patch_basis(pictures: Tensor, patch: int, rank: int) -> Tensor:
    """Orthonormal rows [rank, c p p]: leading principal directions of the patches of pictures.

    Uncentred, since the mean patch carries signal too. `pictures` is [n, c, h, w] in state space.
    """
    patches = patchify(pictures.float(), patch).flatten(0, 1)
    covariance = patches.T @ patches / len(patches)
    _, vectors = torch.linalg.eigh(covariance)
    return vectors.flip(-1)[:, :rank].T.contiguous()
