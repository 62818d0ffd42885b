"""Pictures of models as files have them, premultiplied RGBA, and back."""

from __future__ import annotations

import numpy as np

from asymflow.core.types import Picture

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


def to_rgba(picture: Picture) -> Picture:
    """A picture [h, w, c] of 1 to 4 channels as premultiplied RGBA [h, w, 4].

    One channel is grey, two are premultiplied grey and alpha.
    """
    channels = picture.shape[-1]
    if channels == 4:
        return picture
    alpha = picture[..., -1:] if channels == 2 else np.ones_like(picture[..., :1])
    colour = picture[..., :3] if channels == 3 else np.repeat(picture[..., :1], 3, axis=-1)
    return np.concatenate([colour, alpha], axis=-1)


def from_rgba(picture: Picture, channels: int) -> Picture:
    """Premultiplied RGBA [h, w, 4] with so many channels; laid on white where there is no alpha."""
    if channels == 4:
        return picture
    alpha = picture[..., 3:]
    colour: Picture = picture[..., :3] + (0 if channels == 2 else 1 - alpha)
    if channels == 3:
        return np.ascontiguousarray(colour)
    grey: Picture = (colour @ _LUMA)[..., None].astype(np.float32)
    return grey if channels == 1 else np.concatenate([grey, alpha], axis=-1)
