"""Oklab, a perceptually uniform colour space: lightness, green to red, blue to yellow.

The numbers are those of its author, Bjoern Ottosson (bottosson.github.io/posts/oklab): linear light
to the three kinds of cones, their cube roots, and those to Oklab. White is (1, 0, 0).
"""

from __future__ import annotations

import torch
from torch import Tensor

_LIGHT_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_ROOTS_TO_OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def oklab_of(srgb: Tensor) -> Tensor:
    """Oklab [..., 3, h, w] of sRGB [..., 3, h, w] in [0, 1]."""
    light = torch.where(
        srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    )
    cones = _mixed(_LIGHT_TO_CONES, light).clamp(min=0)
    return _mixed(_ROOTS_TO_OKLAB, cones ** (1 / 3))


def srgb_of(oklab: Tensor) -> Tensor:
    """sRGB [..., 3, h, w] in [0, 1] of Oklab [..., 3, h, w]; other colours are clipped."""
    cones = _mixed(_inverse(_ROOTS_TO_OKLAB), oklab) ** 3
    light = _mixed(_inverse(_LIGHT_TO_CONES), cones).clamp(0, 1)
    return torch.where(
        light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    )


_Matrix = tuple[tuple[float, float, float], ...]


def _inverse(matrix: _Matrix) -> Tensor:
    return torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64))


def _mixed(matrix: _Matrix | Tensor, x: Tensor) -> Tensor:
    """A matrix [3, 3] applied to the channels of x [..., 3, h, w]."""
    return torch.einsum("ij,...jhw->...ihw", torch.as_tensor(matrix).to(x), x)
