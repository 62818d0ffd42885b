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

from asymflow.adapter import Adapter, Context, Denoiser
from asymflow.errors import InputError
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
    plan = truncated(plan, requests[0].strength)
    like = adapter.like
    shape = (adapter.channels, *requests[0].size)
    eps = torch.stack([noise(request.seed, shape) for request in requests]).to(like)
    given = torch.stack([_given(adapter, request, shape) for request in requests])
    scale = torch.tensor([request.guidance_scale for request in requests]).to(like)
    cond, null = adapter.encode(requests)
    denoisers = {
        True: guided(adapter, cond, null, scale),
        False: guided(adapter, cond, null, torch.ones_like(scale)),
    }
    if any(request.mask is not None for request in requests):
        mask = torch.stack([_mask(request) for request in requests]).to(like)
        denoisers = {key: _keeping(each, given, mask) for key, each in denoisers.items()}
    x_t = interpolate(given, eps, plan.steps[0].t)
    history: History = ()
    for index, step in enumerate(plan.steps):
        began = _now(like)
        x_t, history = advance(denoisers[step.tier.guided], x_t, step, history)
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


def guided(adapter: Adapter, cond: Context, null: Context, scale: Tensor) -> Denoiser:
    """Classifier-free guidance: D_cond + (w - 1) (D_cond - D_null), with a weight w per picture.

    Both passes of a picture share one network call, of at most `adapter.batch` pictures. A picture
    with w = 1 takes the conditional pass only.

    Args:
        cond, null: contexts of b pictures.
        scale: w [b].
    """
    parts = [_Part.of(cond, null, scale, rows) for rows in _chunks(len(scale), adapter.batch)]

    def denoiser(x_t: Tensor, t: Tensor, /) -> Tensor:
        return torch.cat([part.denoise(adapter, x_t[part.rows], t[part.rows]) for part in parts])

    return denoiser


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What one network call covers: `rows` of the batch, then `again` the guided ones of them."""

    rows: slice
    again: Tensor
    weight: Tensor
    context: Context

    @classmethod
    def of(cls, cond: Context, null: Context, scale: Tensor, rows: slice) -> _Part:
        scale = scale[rows]
        again = torch.nonzero(scale != 1).flatten()
        weight = (scale[again] - 1).view(-1, 1, 1, 1)
        context = {key: torch.cat([cond[key][rows], null[key][rows][again]]) for key in cond}
        return cls(rows, again, weight, context)

    def denoise(self, adapter: Adapter, x_t: Tensor, t: Tensor) -> Tensor:
        again = self.again
        both = torch.cat([x_t, x_t[again]]), torch.cat([t, t[again]])
        x_0 = adapter.denoise(*both, self.context)
        d_cond, d_null = x_0[: len(t)], x_0[len(t) :]
        return d_cond.index_add(0, again, self.weight * (d_cond[again] - d_null))


def _chunks(count: int, size: int | None) -> list[slice]:
    size = size or count
    return [slice(begin, begin + size) for begin in range(0, count, size)]


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


def _keeping(denoiser: Denoiser, given: Tensor, mask: Tensor) -> Denoiser:
    """Knows x_0 where the mask is 0.

    A constant estimate moves x_t along (1 - s) x_0 + s eps exactly, so the state there is the known
    picture noised with this picture's own draw at every time: nothing has to be pasted in.
    """

    def known(x_t: Tensor, t: Tensor, /) -> Tensor:
        return torch.lerp(given, denoiser(x_t, t), mask)

    return known


def _now(like: Tensor) -> float:
    if like.is_cuda:
        torch.cuda.synchronize(like.device)
    return time.perf_counter()
