"""From requests and plans to programs and the states that they begin at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asymflow.core import calls
from asymflow.core.adapter import Adapter, begun
from asymflow.core.estimators import InpaintConstraint
from asymflow.core.flow import interpolate
from asymflow.core.stages import OLDER, Trajectory, compile_steps
from asymflow.core.state import Program, State
from asymflow.core.types import Plan, Request


def compile_requests(
    adapter: Adapter, plans: Sequence[Plan], requests: Sequence[Request]
) -> tuple[Program, State]:
    """What pictures of one size are made by, and where they begin.

    Args:
        adapter: the model.
        plans: of each picture, already cut to the strength of its request.
        requests: of each picture.
    """
    template = adapter.template
    shape = (adapter.channels, *requests[0].size)
    eps = torch.stack([noise(request.seed, shape) for request in requests]).to(template)
    given = torch.stack([_given(adapter, request, shape) for request in requests])
    known = None
    if any(request.mask is not None for request in requests):
        masks = torch.stack([_mask(request) for request in requests])
        known = InpaintConstraint(given, masks.to(template))
    keys = [(plan, request.guidance_scale) for plan, request in zip(plans, requests, strict=True)]
    compiled = {
        (plan, scale): compile_steps(plan.steps, scale, keep=OLDER if plan.adaptive else 0)
        for plan, scale in dict.fromkeys(keys)
    }
    trajectory = Trajectory.of([compiled[key] for key in keys], template)
    contexts = calls.split(adapter, *adapter.encode(requests), len(requests))
    starts: dict[float, list[int]] = {}
    for row, plan in enumerate(plans):
        starts.setdefault(plan.steps[0].t, []).append(row)
    x_t = torch.empty_like(eps)
    for t, rows in starts.items():
        x_t[rows] = interpolate(given[rows], eps[rows], t)
        alone = [row for row in rows if requests[row].image is None]
        x_t[alone] = begun(adapter, eps[alone], t)
    return Program(adapter, trajectory, contexts, known), State((0,) * len(requests), x_t)


def noise(seed: int, shape: Sequence[int]) -> Tensor:
    """The standard normal draw of one picture: float32, on the CPU, a function of its seed only."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def _given(adapter: Adapter, request: Request, shape: tuple[int, ...]) -> Tensor:
    """The input image as a state; without one, 0, the middle of the state's range."""
    if request.image is None:
        return adapter.template.new_zeros(shape)
    return adapter.to_state(request.image).to(adapter.template)


def _mask(request: Request) -> Tensor:
    """[1, h, w]; without a mask everything is repainted."""
    if request.mask is None:
        return torch.ones(1, *request.size)
    return torch.as_tensor(request.mask)[None]
