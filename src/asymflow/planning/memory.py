"""The memory that a model takes: its weights, and what one call takes beyond them.

The second is measured by one call of the rows that a picture has. The states of solvers come to it,
a few times the picture, which is little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

import torch
from torch import nn

from asymflow.core.adapter import Adapter, Wrapped, denoised
from asymflow.core.compiler import noise
from asymflow.core.types import Request
from asymflow.planning import costs


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a model takes.

    Attributes:
        weights: of its networks, text encoders included.
        call: of one call beyond that, for one picture.
    """

    weights: int
    call: int

    def __str__(self) -> str:
        return f"{_short(self.weights)} of weights, and {_short(self.call)} for a call"


def needed(adapter: Adapter, request: Request) -> Memory:
    """The memory for pictures like one, one at a time."""
    return Memory(weight_bytes(adapter), call_bytes(adapter, request))


def weight_bytes(adapter: Adapter) -> int:
    """Bytes of all tensors of the networks of an adapter; shared ones count once."""
    tensors = {
        tensor.data_ptr(): tensor.nbytes
        for network in _networks(adapter)
        for tensor in (*network.parameters(), *network.buffers())
        if not tensor.is_meta
    }
    return sum(tensors.values())


@torch.inference_mode()
def call_bytes(adapter: Adapter, request: Request) -> int:
    """Bytes that one call for a picture takes beyond the weights; with guidance it has two rows."""
    pair = adapter.encode([request])
    contexts = pair if request.guidance_scale != 1 else pair[:1]
    rows = {name: torch.cat([each[name] for each in contexts]) for name in contexts[0]}
    x_t = noise(request.seed, (1, adapter.channels, *request.size)).to(adapter.template)
    x_t = x_t.repeat(len(contexts), 1, 1, 1)
    t = x_t.new_full((len(contexts),), 0.5)
    return costs.peak_bytes(lambda: denoised(adapter, x_t, t, rows, None))


def _networks(found: Any) -> Iterator[nn.Module]:
    """Networks of an adapter, and of what it holds: another adapter, a pipeline, a text encoder."""
    if isinstance(found, nn.Module):
        yield found
    elif isinstance(found, Wrapped):
        yield from _networks(found.inner)
    elif isinstance(components := getattr(found, "components", None), dict):  # of diffusers
        for part in cast("dict[str, Any]", components).values():
            if isinstance(part, nn.Module):
                yield part
    elif is_dataclass(found):
        for each in fields(found):
            yield from _networks(getattr(found, each.name))


def _short(count: int) -> str:
    """Bytes in words."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
