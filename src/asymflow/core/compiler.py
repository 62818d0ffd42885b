"""From requests and plans to programs and the states that they begin at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from asymflow.core import calls
from asymflow.core.adapter import Adapter, begun
from asymflow.core.estimators import InpaintConstraint
from asymflow.core.flow import interpolate
from asymflow.core.stages import Stage, Trajectory, compile_steps
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
    known = None
    if any(request.mask is not None for request in requests):
        given = torch.stack([_given(adapter, request, shape) for request in requests])
        masks = torch.stack([_mask(request) for request in requests])
        known = InpaintConstraint(given, masks.to(template))
    pairs = zip(plans, requests, strict=True)
    stages = [_compiled(plan, request.guidance_scale) for plan, request in pairs]
    trajectory = Trajectory.of(stages, template)
    contexts = calls.split(adapter, *adapter.encode(requests), len(requests))
    begins = {plan.steps[0].t for plan in plans}
    if len(begins) == 1 and all(request.image is None for request in requests):
        x_t = begun(adapter, eps, *begins)
    else:
        x_t = torch.stack(
            [
                _begun(adapter, request, row, plan.steps[0].t)
                for plan, request, row in zip(plans, requests, eps, strict=True)
            ]
        )
    state = State((0,) * len(requests), x_t.to(template))
    return Program(adapter, trajectory, contexts, known), state


def compile_states(
    adapter: Adapter, plan: Plan, x_t: Tensor, guidance_scale: float
) -> tuple[Program, State]:
    """What pictures are made by that a host has begun and asks its own network for.

    The host knows contexts, and how they share network calls. It answers the questions of
    `asymflow.core.state`, and moves on by the answers, until the program is finished.

    Args:
        adapter: the model; only what it does to estimates is used.
        plan: of all pictures.
        x_t: states [b, c, h, w] at the beginning of the plan.
        guidance_scale: of all pictures.
    """
    stages = _compiled(plan, guidance_scale)
    trajectory = Trajectory.of([stages] * len(x_t), x_t)
    return Program(adapter, trajectory, ()), State((0,) * len(x_t), x_t)


@lru_cache(maxsize=256)
def _compiled(plan: Plan, guidance_scale: float) -> tuple[Stage, ...]:
    """The stages of a plan. Pictures of one plan share them, whenever they are added."""
    return compile_steps(plan.steps, guidance_scale)


def _begun(adapter: Adapter, request: Request, eps: Tensor, t: float) -> Tensor:
    """The state [c, h, w] at which a picture begins."""
    if request.image is None:
        return begun(adapter, eps[None], t)[0]
    return interpolate(_given(adapter, request, tuple(eps.shape)), eps, t)


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
