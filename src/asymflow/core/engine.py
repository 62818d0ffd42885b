"""Runs a plan for requests: `walk` yields every step, `run` collects pictures.

A result depends on its own request and the plan, never on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from asymflow.core.adapter import Adapter
from asymflow.core.batcher import Batcher, Move
from asymflow.core.batcher import Frame as Frame
from asymflow.core.compiler import noise as noise
from asymflow.core.requests import check as check
from asymflow.core.requests import check_plan as check_plan
from asymflow.core.requests import check_types
from asymflow.core.transforms import truncated
from asymflow.core.types import Picture, Plan, Request, Result

Observer = Callable[[Frame], None]
"""Called after every network call."""


def no_observer(frame: Frame) -> None:
    """Observes nothing."""


def run(
    adapter: Adapter,
    plan: Plan,
    requests: Sequence[Request],
    *,
    observer: Observer = no_observer,
) -> list[Result]:
    """One result per request, in their order. Sizes and strengths may be mixed.

    Args:
        adapter: the model.
        plan: for all of them.
        requests: the pictures.
        observer: called after every network call; pictures are numbered in the order of requests.

    Raises:
        InputError: a request cannot be served; nothing has been computed yet.
    """
    ends = rollout(adapter, plan, requests, observer=observer)
    results: list[Result] = []
    for request, end in zip(requests, ends, strict=True):
        [picture] = pictures(adapter, [request], end.x_0[None])
        ran = truncated(plan, request.strength)
        seconds = tuple(move.seconds for move in end.moves)
        total = forwards(ran, request)
        results.append(Result(picture, request, ran, total, sum(seconds), seconds))
    return results


@dataclass(frozen=True, slots=True, eq=False)
class End:
    """Where a picture ended, x_0 [c, h, w], and the moves that led there."""

    x_0: Tensor
    moves: tuple[Move, ...]


def rollout(
    adapter: Adapter,
    plan: Plan,
    requests: Sequence[Request],
    *,
    observer: Observer = no_observer,
) -> list[End]:
    """As `run`, without making pictures of the states."""
    ends: dict[int, Tensor] = {}
    moves: dict[int, list[Move]] = {}
    for frame in walk(adapter, plan, requests):
        for move, x_t in zip(frame.moves, frame.x_t, strict=True):
            moves.setdefault(move.picture, []).append(move)
            if move.last:
                ends[move.picture] = x_t
        observer(frame)
    return [End(ends[index], tuple(moves[index])) for index in range(len(requests))]


def walk(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> Generator[Frame, None, None]:
    """Run requests, yielding after every network call; closing the iterator cancels the rest.

    The plan is truncated to the strength of each request.

    Raises:
        InputError: a request cannot be served; nothing has been computed yet.
    """
    check_types(adapter, plan, requests)
    for request in requests:
        check(adapter, request)
        check_plan(adapter, plan, request.size)
    batcher = Batcher(adapter)
    index_of: dict[int, int] = {}
    for size in dict.fromkeys(request.size for request in requests):
        rows = [index for index, request in enumerate(requests) if request.size == size]
        group = [requests[row] for row in rows]
        plans = [truncated(plan, request.strength) for request in group]
        index_of |= zip(batcher.add(plans, group), rows, strict=True)
    while (frame := batcher.tick()) is not None:
        if frame.moves:
            moves = tuple(replace(move, picture=index_of[move.picture]) for move in frame.moves)
            yield replace(frame, moves=moves)


def pictures(adapter: Adapter, requests: Sequence[Request], x_0: Tensor) -> list[Picture]:
    """Convert states at t = 0, or estimates of x_0, to pictures.

    Pixels outside the mask are those of the request's image, bit for bit.
    """
    result: list[Picture] = []
    for request, state in zip(requests, x_0, strict=True):
        picture = adapter.to_picture(state)
        if request.image is not None and request.mask is not None:
            picture = np.where(request.mask[..., None] == 0, request.image, picture)
        result.append(picture)
    return result


def forwards(plan: Plan, request: Request) -> int:
    """Network passes (NFE) of a plan for one request; one per estimate without guidance."""
    return sum(step.passes(guided=request.guidance_scale != 1) for step in plan.steps)
