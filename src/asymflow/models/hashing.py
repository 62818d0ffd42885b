"""Identifies a model by the hash of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from asymflow.core.errors import InputError


def hash_weights(digest: Any, state: Mapping[str, Tensor]) -> None:
    """Add all weights to a digest of hashlib.

    They are hashed as bfloat16, so that a model has the same hash in float32 and bfloat16.

    Raises:
        InputError: some are offloaded, on the device "meta".
    """
    for name, value in sorted(state.items()):
        if value.is_meta:
            raise InputError(
                f"The weights of this model are not in memory ({name!r} is on the device 'meta'), "
                "so it cannot be told which model it is. Accelerate it first, and enable "
                "sequential offloading after that."
            )
        digest.update(f"{name} {tuple(value.shape)}".encode())
        if value.is_floating_point():
            value = value.to(torch.bfloat16)
        raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
