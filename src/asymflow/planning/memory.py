"""The memory that a model takes: its weights, and what one call takes beyond them.

The second is measured by one call of the rows that a picture has. The states of solvers come to it,
a few times the picture, which is little unless the picture is large and shown in tiles: `of_plan`
counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

import torch
from torch import nn

from asymflow.core.adapter import Adapter, Wrapped, denoised
from asymflow.core.compiler import noise
from asymflow.core.stages import compile_steps
from asymflow.core.types import UNGUIDED, Plan, Profile, Request
from asymflow.planning import costs
from asymflow.planning.prediction import tiers_asked


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
        return f"{short(self.weights)} of weights, and {short(self.call)} for a call"


def needed(adapter: Adapter, request: Request) -> Memory:
    """The memory for pictures like one, one at a time."""
    return Memory(weight_bytes(adapter), call_bytes(adapter, request))


def of_plan(profile: Profile, plan: Plan) -> int | None:
    """Bytes that a plan takes for one picture beyond the weights, by a profile.

    At every estimate there are the contexts of the picture, the states that the solver keeps, what
    the slow part of the network said, if a late step uses that, and either the peak of the
    estimate, as it was measured, or the answers to it and the move that they lead to.

    Args:
        profile: has the peaks of the tiers of the plan.
        plan: for pictures of the profile.

    Returns:
        None if the profile has no peaks, or is of version 0.1.

    Raises:
        InputError: the plan has a tier that was not profiled.
    """
    if "state_bytes" not in profile.made or not all(profile.peak_bytes):
        return None
    state_bytes, slow_bytes = (
        int(profile.made.get(name, 0)) for name in ("state_bytes", "slow_bytes")
    )
    scale = float(profile.made.get("guidance_scale", UNGUIDED))
    peaks = [profile.peak_bytes[tier] for tier in tiers_asked(profile, plan)]
    most = 0
    anchored = False
    for number, stage in enumerate(compile_steps(plan.steps, scale)):
        newest = 1 if number else 0
        kept = 1 + max(len(stage.older), newest) + anchored
        if stage.tier.cached or (stage.carried_from and number):
            kept += 2
        slow = slow_bytes if stage.tier.late or stage.reused_from else 0
        # Of both passes, of the size of the call, and of what they are combined to.
        answers = 1 + (2 / stage.tier.pool_factor**2 if stage.guided else 0)
        moving = round((answers + 2) * state_bytes)
        most = max(most, kept * state_bytes + slow + max(peaks[stage.index], moving))
        anchored = stage.base is not None or not stage.ends_step
    return int(profile.made["context_bytes"]) + most


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


def short(count: int) -> str:
    """Bytes in words, such as 1.6 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
