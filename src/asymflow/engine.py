"""Runs a plan for a batch of requests: `walk` yields every step, `run` collects pictures.

A result depends on its own request and the plan, never on its neighbours in the batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asymflow.adapter import Adapter
from asymflow.errors import InputError
from asymflow.estimators import Estimators, Guided, Known
from asymflow.flow import interpolate
from asymflow.solvers import History, advance
from asymflow.times import truncated
from asymflow.types import Picture, Plan, Request, Result, Step


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Where a batch stands after a step. Its tensors cannot be changed in place.

    Attributes:
        index: of the step, from 0.
        count: steps in all, so that (index + 1) / count is done.
        step: the move that was made.
        x_0: [b, c, h, w], the estimate of the end that the move began with: a preview.
        x_t: [b, c, h, w], the state at time `step.s`; the result when that is 0.
        seconds: that the step took, for the whole batch.
    """

    index: int
    count: int
    step: Step
    x_0: Tensor
    x_t: Tensor
    seconds: float


def run(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> list[Result]:
    """One result per request, in their order. Sizes and strengths may be mixed.

    Raises:
        InputError: a request cannot be served; nothing has been computed yet.
    """
    for request in requests:
        check(adapter, request)
        check_plan(adapter, plan, request.size)
    groups: dict[tuple[tuple[int, int], float], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault((request.size, request.strength), []).append(index)
    results: dict[int, Result] = {}
    for indices in groups.values():
        group = [requests[index] for index in indices]
        results |= zip(indices, _run_group(adapter, plan, group), strict=True)
    return [results[index] for index in range(len(requests))]


def _run_group(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> list[Result]:
    plan = truncated(plan, requests[0].strength)
    seconds: list[float] = []
    frame = None
    for frame in walk(adapter, plan, requests):
        seconds.append(frame.seconds)
    assert frame is not None, "a plan has at least one step"
    return [
        Result(picture, request, plan, forwards(plan, request), sum(seconds), tuple(seconds))
        for picture, request in zip(pictures(adapter, requests, frame.x_t), requests, strict=True)
    ]


@torch.inference_mode()
def walk(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> Generator[Frame, None, None]:
    """Every step of a batch of requests that share their size and strength, as it is made.

    Closing the iterator cancels the rest. The plan is cut to the strength of the requests.

    Raises:
        InputError: a request cannot be served, or does not share size and strength.
    """
    if len({(request.size, request.strength) for request in requests}) != 1:
        raise InputError(
            f"{len(requests)} requests without a common size and strength cannot walk together. "
            "Use run(), which groups them."
        )
    for request in requests:
        check(adapter, request)
    check_plan(adapter, plan, requests[0].size)
    plan = truncated(plan, requests[0].strength)
    like = adapter.like
    shape = (adapter.channels, *requests[0].size)
    eps = torch.stack([noise(request.seed, shape) for request in requests]).to(like)
    given = torch.stack([_given(adapter, request, shape) for request in requests])
    scale = torch.tensor([request.guidance_scale for request in requests]).to(like)
    cond, null = adapter.encode(requests)
    known = None
    if any(request.mask is not None for request in requests):
        known = Known(given, torch.stack([_mask(request) for request in requests]).to(like))
    estimators = Estimators(Guided.of(adapter, cond, null, scale), known)
    x_t = interpolate(given, eps, plan.steps[0].t)
    history: History = ()
    for index, step in enumerate(plan.steps):
        began = _now(like)
        x_t, history = advance(estimators.of(step.tier), x_t, step, history)
        seconds = _now(like) - began
        yield Frame(index, len(plan.steps), step, history[0].x_0, x_t, seconds)


def pictures(adapter: Adapter, requests: Sequence[Request], x_0: Tensor) -> list[Picture]:
    """States at t = 0, or estimates of them, as pictures.

    Pixels that a mask keeps are those of the request's own image, bit for bit.
    """
    result: list[Picture] = []
    for request, state in zip(requests, x_0, strict=True):
        picture = adapter.to_picture(state)
        if request.image is not None and request.mask is not None:
            picture = np.where(request.mask[..., None] == 0, request.image, picture)
        result.append(picture)
    return result


def forwards(plan: Plan, request: Request) -> int:
    """Network passes that a plan takes for a picture: without guidance, one per estimate."""
    if request.guidance_scale == 1:
        return sum(step.evaluations for step in plan.steps)
    return plan.forwards


def noise(seed: int, shape: Sequence[int]) -> Tensor:
    """The standard normal draw of one picture: float32, on the CPU, a function of its seed only."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def check(adapter: Adapter, request: Request) -> None:
    """Raise `InputError` when a request cannot be served by this adapter."""
    adapter.check(request)
    if not 0 <= request.seed < 2**63:
        raise InputError(f"Seed {request.seed} is out of range. Choose one from 0 to 2**63 - 1.")
    if not math.isfinite(request.guidance_scale):
        raise InputError(f"Guidance scale {request.guidance_scale} must be a finite number.")
    if not 0 < request.strength <= 1:
        raise InputError(
            f"Strength {request.strength} is not in (0, 1]. 1 repaints everything; smaller values "
            "stay closer to the image."
        )
    if request.image is None and (request.mask is not None or request.strength != 1):
        raise InputError("A mask or a strength below 1 needs an image to start from. Give `image`.")
    for name, array, shape in (
        ("image", request.image, (*request.size, adapter.channels)),
        ("mask", request.mask, request.size),
    ):
        if array is None:
            continue
        if array.shape != shape:
            raise InputError(
                f"The {name} has shape {array.shape}, but this request needs {shape}. "
                f"Convert the {name}, or ask for its size."
            )
        if not ((array >= 0) & (array <= 1)).all():
            raise InputError(
                f"The {name} has values outside [0, 1], or not a number. Divide bytes by 255."
            )


def check_plan(adapter: Adapter, plan: Plan, size: tuple[int, int]) -> None:
    """Raise `InputError` when the model has no tier that the plan uses, at (height, width)."""
    possible = (1, *adapter.shrinks(size))
    for step in plan.steps:
        if step.tier.shrink not in possible:
            height, width = size
            raise InputError(
                f"The plan {plan.name!r} asks for tier {step.tier.name!r}, a picture pooled by "
                f"{step.tier.shrink}, and this model cannot do that at {width}x{height}. Use a "
                "plan made for this size, or the default one."
            )


def _given(adapter: Adapter, request: Request, shape: tuple[int, ...]) -> Tensor:
    """The picture to start from; without one, 0, the middle of the state's range."""
    if request.image is None:
        return adapter.like.new_zeros(shape)
    return adapter.to_state(request.image).to(adapter.like)


def _mask(request: Request) -> Tensor:
    """[1, h, w]; without a mask everything is repainted."""
    if request.mask is None:
        return torch.ones(1, *request.size)
    return torch.as_tensor(request.mask)[None]


def _now(like: Tensor) -> float:
    if like.is_cuda:
        torch.cuda.synchronize(like.device)
    return time.perf_counter()
