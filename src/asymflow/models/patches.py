"""Pictures as tokens: patchify and back."""

from __future__ import annotations

from torch import Tensor


def patchify(x: Tensor, patch: int) -> Tensor:
    """[b, c, h, w] to tokens [b, (h/p)(w/p), c p p], row by row."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch * patch)


def unpatchify(tokens: Tensor, patch: int, height: int, width: int) -> Tensor:
    """Inverse of `patchify`: tokens [b, n, c p p] to a picture [b, c, height, width] in pixels."""
    rows, columns = height // patch, width // patch
    b, _, size = tokens.shape
    channels = size // patch**2
    x = tokens.reshape(b, rows, columns, channels, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(b, channels, height, width)
