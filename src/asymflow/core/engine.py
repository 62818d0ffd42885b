"""Runs a plan for a batch of requests: `walk` yields every step, `run` collects pictures.

A result depends on its own request and the plan, never on its neighbours in the batch. Where the
plan has rules (`Plan.adaptive`) they are applied to each picture separately, and pictures at the
same time share a network call; with `exact` all pictures make the plan's steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asymflow.core import controller, devices
from asymflow.core.adapter import Adapter, Context, begun
from asymflow.core.checks import each_instance, instance
from asymflow.core.errors import InputError
from asymflow.core.estimators import Estimators, Guided, InpaintConstraint, Memory
from asymflow.core.flow import interpolate
from asymflow.core.solvers import History, advance
from asymflow.core.transforms import truncated
from asymflow.core.types import Action, Decision, Picture, Plan, Request, Result, Step, Tier


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The state of a batch after a move. Its tensors cannot be changed in place.

    Attributes:
        index: of the plan's step that the pictures moved from, counted from 0. Adaptive pictures
            may skip steps, and split others into two moves.
        count: steps of the plan.
        step: the move that was made.
        x_0: [b, c, h, w], each picture's newest estimate of x_0: a preview.
        x_t: [b, c, h, w], the states; of the pictures that moved, at time `step.s`. At 0 they are
            the result.
        seconds: duration of the move, for all pictures together.
        rows: batch indices of the pictures that moved; all of them, unless the plan is adaptive.
        prediction_residuals: of those pictures, if the plan is adaptive; None where there was no
            prediction.
        action: by which they left the plan.
    """

    index: int
    count: int
    step: Step
    x_0: Tensor
    x_t: Tensor
    seconds: float
    rows: tuple[int, ...]
    prediction_residuals: tuple[float | None, ...] = ()
    action: Action | None = None

    @property
    def decisions(self) -> dict[int, Decision]:
        """Decisions made in this frame, by row."""
        if self.action is None:
            return {}
        return {
            row: Decision(self.index, self.action, rho)
            for row, rho in zip(self.rows, self.prediction_residuals, strict=True)
            if rho is not None
        }


def run(
    adapter: Adapter, plan: Plan, requests: Sequence[Request], *, exact: bool = False
) -> list[Result]:
    """One result per request, in their order. Sizes and strengths may be mixed.

    Args:
        exact: make every step of the plan and ignore its rules.

    Raises:
        InputError: a request cannot be served; nothing has been computed yet.
    """
    _check_types(adapter, plan, requests)
    for request in requests:
        check(adapter, request)
        check_plan(adapter, plan, request.size)
    groups: dict[tuple[tuple[int, int], float], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault((request.size, request.strength), []).append(index)
    results: dict[int, Result] = {}
    for indices in groups.values():
        group = [requests[index] for index in indices]
        results |= zip(indices, _run_group(adapter, plan, group, exact), strict=True)
    return [results[index] for index in range(len(requests))]


def _run_group(
    adapter: Adapter, plan: Plan, requests: Sequence[Request], exact: bool
) -> list[Result]:
    plan = truncated(plan, requests[0].strength)
    seconds: list[list[float]] = [[] for _ in requests]
    decisions: list[list[Decision]] = [[] for _ in requests]
    frame = None
    for frame in walk(adapter, plan, requests, exact=exact):
        for row in frame.rows:
            seconds[row].append(frame.seconds)
        for row, decision in frame.decisions.items():
            decisions[row].append(decision)
    assert frame is not None, "a plan has at least one step"
    results: list[Result] = []
    made = pictures(adapter, requests, frame.x_t)
    for picture, request, times, own in zip(made, requests, seconds, decisions, strict=True):
        ran = controller.taken(plan, own)
        total = forwards(ran, request)
        results.append(Result(picture, request, ran, total, sum(times), tuple(times), tuple(own)))
    return results


@torch.inference_mode()
def walk(
    adapter: Adapter, plan: Plan, requests: Sequence[Request], *, exact: bool = False
) -> Generator[Frame, None, None]:
    """Run a batch of requests of one size and strength, yielding after every move.

    Closing the iterator cancels the rest. The plan is truncated to the strength of the requests. A
    truncated plan has no rules, since they were calibrated on the whole plan.

    Raises:
        InputError: a request cannot be served, or does not share size and strength.
    """
    _check_types(adapter, plan, requests)
    if not requests:
        raise InputError("There is no request to walk with. Give one or more, or use run().")
    if len({(request.size, request.strength) for request in requests}) != 1:
        raise InputError(
            f"{len(requests)} requests without a common size and strength cannot walk together. "
            "Use run(), which groups them."
        )
    for request in requests:
        check(adapter, request)
    check_plan(adapter, plan, requests[0].size)
    plan = truncated(plan, requests[0].strength)
    template = adapter.template
    shape = (adapter.channels, *requests[0].size)
    eps = torch.stack([noise(request.seed, shape) for request in requests]).to(template)
    given = torch.stack([_given(adapter, request, shape) for request in requests])
    scale = torch.tensor([request.guidance_scale for request in requests]).to(template)
    cond, null = adapter.encode(requests)
    known = None
    if any(request.mask is not None for request in requests):
        known = InpaintConstraint(
            given, torch.stack([_mask(request) for request in requests]).to(template)
        )
    x_t = interpolate(given, eps, plan.steps[0].t)
    alone = [index for index, request in enumerate(requests) if request.image is None]
    x_t[alone] = begun(adapter, eps[alone], plan.steps[0].t)
    if plan.adaptive and not exact:
        yield from _adapt(plan, _Batch(adapter, cond, null, scale, known), x_t)
        return
    estimators = Estimators(Guided.of(adapter, cond, null, scale), known)
    history: History = ()
    rows = tuple(range(len(requests)))
    for index, step in enumerate(plan.steps):
        began = _now(template)
        x_t, history = advance(estimators.of(step.tier), x_t, step, history)
        seconds = _now(template) - began
        yield Frame(index, len(plan.steps), step, history[0].x_0, x_t, seconds, rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Inputs of the network calls for all pictures of a batch."""

    adapter: Adapter
    cond: Context
    null: Context
    scale: Tensor
    known: InpaintConstraint | None

    def estimators(self, rows: Sequence[int], memory: Memory | None) -> Estimators:
        """The estimators for some of the pictures."""
        some = list(rows)
        cond = {key: value[some] for key, value in self.cond.items()}
        null = {key: value[some] for key, value in self.null.items()}
        guided = Guided.of(self.adapter, cond, null, self.scale[some])
        known = self.known and InpaintConstraint(self.known.x_0[some], self.known.mask[some])
        return Estimators(guided, known, memory)


@dataclass(slots=True, eq=False)
class _SampleState:
    """State of one sample under an adaptive plan; tensors are [1, c, h, w].

    Attributes:
        ahead: moves still to make before the sample is back at a node of the plan.
    """

    t: float
    x_t: Tensor
    mask: Tensor | None
    history: History = ()
    memory: Memory | None = None
    ahead: tuple[Step, ...] = ()

    def move(self, plan: Plan, index: int, x_0: Tensor) -> tuple[Step, float | None, Action | None]:
        """Make a move with the estimate x_0 at t; return the step, the residual and the action."""

        def told(x_t: Tensor, t: Tensor, /) -> Tensor:
            return x_0

        action, rho = None, None
        step, *ahead = self.ahead or (plan.steps[index],)
        x_s, history = advance(told, self.x_t, step, self.history)
        if not self.ahead:
            rho = controller.prediction_residual(history, step.solver, self.mask)
            action = controller.decide(plan, index, rho)
        if action is not None:
            step, *ahead = controller.moves(plan, index, action)
            x_s, history = advance(told, self.x_t, step, self.history)
        self.t, self.x_t, self.history, self.ahead = step.s, x_s, history, tuple(ahead)
        return step, rho, action


def _adapt(plan: Plan, batch: _Batch, x_t: Tensor) -> Generator[Frame, None, None]:
    """Run an adaptive plan: pictures have their own trajectories and share network calls."""
    masks = None if batch.known is None else batch.known.mask
    travellers = [
        _SampleState(plan.steps[0].t, x_t[i : i + 1], None if masks is None else masks[i : i + 1])
        for i in range(len(x_t))
    ]
    for index, step in enumerate(plan.steps):
        # A sample with an inserted node is processed twice here; one that skips, not at all.
        while rows := [i for i, each in enumerate(travellers) if each.t > step.s]:
            began = _now(x_t)
            here = [travellers[i] for i in rows]
            answers = _ask(batch, step.tier, rows, here)
            groups: dict[tuple[Step, Action | None], list[tuple[int, float | None]]] = {}
            for row, each, x_0 in zip(rows, here, answers, strict=True):
                move, rho, action = each.move(plan, index, x_0[None])
                groups.setdefault((move, action), []).append((row, rho))
            seconds = _now(x_t) - began
            x_0 = torch.cat([each.history[0].x_0 for each in travellers])
            x_s = torch.cat([each.x_t for each in travellers])
            for (move, action), group in groups.items():
                share = seconds * len(group) / len(rows)
                moved, rhos = zip(*group, strict=True)
                yield Frame(index, len(plan.steps), move, x_0, x_s, share, moved, rhos, action)


def _ask(batch: _Batch, tier: Tier, rows: Sequence[int], here: Sequence[_SampleState]) -> Tensor:
    """Estimates of x_0 [n, c, h, w] for n samples at the same time; updates their memories."""
    memories = [each.memory for each in here if each.memory is not None]
    memory = None
    if len(memories) == len(here):
        memory = Memory(
            torch.cat([each.x_0 for each in memories]),
            torch.cat([each.guidance for each in memories]),
        )
    estimators = batch.estimators(rows, memory)
    x_t = torch.cat([each.x_t for each in here])
    x_0 = estimators.of(tier)(x_t, x_t.new_full((len(x_t),), here[0].t))
    if (memory := estimators.memory) is not None:
        for i, each in enumerate(here):
            each.memory = Memory(memory.x_0[i : i + 1], memory.guidance[i : i + 1])
    return x_0


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


def noise(seed: int, shape: Sequence[int]) -> Tensor:
    """The standard normal draw of one picture: float32, on the CPU, a function of its seed only."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def _check_types(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> None:
    """Raise `InputError` if an argument has the wrong type, perhaps because of their order."""
    order = "The order is adapter, plan, requests."
    instance("adapter", adapter, Adapter, f"Pass what asymflow.load() returns. {order}")
    instance("plan", plan, Plan, f"Make one with asymflow.plan_of, or load one. {order}")
    each_instance("requests", requests, Request, f"Pass [asymflow.Request(...), ...]. {order}")


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
    possible = (1, *adapter.pool_factors(size))
    for step in plan.steps:
        if step.tier.pool_factor not in possible:
            height, width = size
            raise InputError(
                f"The plan {plan.name!r} asks for tier {step.tier.name!r}, a picture pooled by "
                f"{step.tier.pool_factor}, and this model cannot do that at {width}x{height}. Use "
                "a plan made for this size, or the default one."
            )


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


def _now(template: Tensor) -> float:
    devices.synchronize(template.device)
    return time.perf_counter()
