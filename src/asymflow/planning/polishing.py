"""Polishes a fitted plan: times and weights of all steps together, by gradients of where it ends.

A fit makes good at every step what those before it left, and never spares a later one an error that
could be avoided earlier. Descent by Adam (arXiv 1412.6980) does: back through the sampler, from the
RMSE of its pictures to the teacher's. What moves are the inner times, in log-SNR, and the numbers
k, g and c of every step, see `asymflow.planning.fitting`.

The network is asked again on the way back, so that memory is that of one estimate and of the
states. It must let gradients through: one in another process does not, and its plans stay as they
are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from asymflow.core import calls
from asymflow.core.calls import Answer, Conditions, Question
from asymflow.core.compiler import compile_requests
from asymflow.core.stages import Stage, Trajectory, compile_steps
from asymflow.core.state import Program, State, advance, question
from asymflow.core.types import Plan, Step
from asymflow.planning.fitting import APART, Fit, Teacher
from asymflow.planning.proof import rms
from asymflow.planning.verifier import rollout

RATE, BY_ERROR = 0.3, 12.0
"""Of Adam: at most, and over the error at the beginning. What a large error takes spoils a small
one."""
BETAS = (0.9, 0.98)
MOST = 12
"""Steps of plans that are polished: with more, next to nothing was gained on other pictures."""
SNR, STATE, NEWEST, DIFFERENCE = 0.1, 0.003, 0.01, 0.05
"""Units in which log-SNR, k, g and c move."""
_LEAST = 1e-12
"""Added to mean squares, whose root has no slope at 0."""


def polished(teacher: Teacher, found: Fit, rounds: int) -> Fit:
    """The plan after so many rounds of descent, or as it was if that does not help.

    Args:
        teacher: what it follows, with an adapter that is asked with gradients.
        found: a fitted plan. One of a single step or of over `MOST` stays as it is.
        rounds: of all pictures of the teacher.
    """
    few = 1 < len(found.plan.steps) <= MOST
    if rounds == 0 or not few or not math.isfinite(found.error):
        return found
    with torch.inference_mode(False), torch.enable_grad():
        plan = _descended(teacher, found, rounds)
    if plan is None:
        return found
    error = float(rms(rollout(teacher.adapter, plan, teacher.requests), teacher.ends).mean())
    return replace(found, plan=plan, error=error) if error < found.error else found


def _descended(teacher: Teacher, found: Fit, rounds: int) -> Plan | None:
    """The plan after all rounds; None if no gradient passes through the network."""
    requests = teacher.requests
    program, state = compile_requests(teacher.adapter, [found.plan] * len(requests), requests)
    # Tensors that were made for inference cannot be kept for the way back.
    program = replace(program, calls=tuple(_copied(each) for each in program.calls))
    state, wanted = replace(state, x=state.x.clone()), teacher.ends.clone()
    if not _differentiable(program, state):
        return None
    scales = [request.guidance_scale for request in requests]
    begin = Numbers.of(found.plan)
    by = [torch.zeros_like(each, requires_grad=True) for each in (begin.snr, *begin.steps)]
    rate = min(RATE, BY_ERROR * found.error)
    adam = torch.optim.Adam(by, lr=rate, betas=BETAS)
    for number in range(rounds):
        for group in adam.param_groups:
            group["lr"] = rate * math.sqrt(1 - number / rounds)
        rows = begin.moved(by).stages(found.plan, scales)
        pictures = ends(replace(program, trajectory=Trajectory.of(rows, state.x)), state)
        missing = (pictures - wanted).flatten(1).double()
        error = (missing.square().mean(1) + _LEAST).sqrt().mean()
        if not bool(error.isfinite()):
            return None
        for each, slope in zip(by, torch.autograd.grad(error, by), strict=True):
            each.grad = slope
        adam.step()
        with torch.no_grad():
            by[0].copy_((_apart(begin.snr + SNR * by[0]) - begin.snr) / SNR)
    return begin.moved(by).plan(found.plan)


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """What moves, in float64.

    Attributes:
        snr: log-SNR of the inner times [n - 1].
        steps: (k, g, c_1, c_2, ...) of each step.
    """

    snr: Tensor
    steps: tuple[Tensor, ...]

    @classmethod
    def of(cls, plan: Plan) -> Numbers:
        """Those of a fitted plan that begins where it likes and ends at 0."""
        snr = [math.log((1 - step.t) / step.t) for step in plan.steps[1:]]
        return cls(_double(snr), tuple(_of_step(step) for step in plan.steps))

    def moved(self, by: Sequence[Tensor]) -> Numbers:
        """By so many units each, of log-SNR first."""
        snr, *others = by
        pairs = zip(self.steps, others, strict=True)
        steps = tuple(each + _units(each) * other for each, other in pairs)
        return Numbers(self.snr + SNR * snr, steps)

    def times(self, like: Plan) -> list[Tensor]:
        """All times [n + 1]; the first and the last are those of another plan."""
        first, last = (self.snr.new_tensor(t) for t in (like.times[0], like.times[-1]))
        return [first, *torch.sigmoid(-self.snr), last]

    def weights(self, times: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """(a, w_0, w_1, ...) of each step."""
        found: list[tuple[Tensor, ...]] = []
        for numbers, (t, s) in zip(self.steps, pairwise(times), strict=True):
            k, g, c = numbers[:1], numbers[1:2], numbers[2:]
            # Every difference has two estimates.
            w = torch.cat([g, -c]) + torch.cat([c, torch.zeros_like(g)])
            found.append(tuple(torch.cat([s / t * k, (1 - s / t) * w])))
        return found

    def stages(self, like: Plan, scales: Sequence[float]) -> list[tuple[Stage, ...]]:
        """Those of pictures with such guidance scales, that gradients reach these numbers from."""
        times = self.times(like)
        weights = self.weights(times)
        made: dict[float, tuple[Stage, ...]] = {}
        for scale in dict.fromkeys(scales):
            stages = compile_steps(like.steps, scale, times=times)
            pairs = zip(stages, weights, strict=True)
            made[scale] = tuple(replace(stage, weights=row) for stage, row in pairs)
        return [made[scale] for scale in scales]

    def plan(self, like: Plan) -> Plan:
        """The plan, with the tiers of another."""
        times = self.times(like)
        rows = zip(like.steps, pairwise(times), self.weights(times), strict=True)
        steps = (
            replace(step, t=t.item(), s=s.item(), weights=tuple(each.item() for each in weights))
            for step, (t, s), weights in rows
        )
        return Plan(like.name, tuple(steps))


def _of_step(step: Step) -> Tensor:
    """(k, g, c_1, c_2, ...) of a step with weights, where 1 - s/t is never 0."""
    assert step.weights is not None, "it is fitted"
    rest, (a, *weights) = step.s / step.t, step.weights
    w = _double(weights) / (1 - rest)
    # w_0 = g + c_1, w_1 = c_2 - c_1, ..., and the last one is -c_m.
    c = -w.flip(0).cumsum(0).flip(0)[1:]
    return torch.cat([w.new_tensor([a / rest if rest else 1.0]), w.sum()[None], c])


def _double(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _units(numbers: Tensor) -> Tensor:
    units = torch.full_like(numbers, DIFFERENCE)
    units[:2] = units.new_tensor([STATE, NEWEST])
    return units


def _apart(snr: Tensor) -> Tensor:
    """Log-SNR that rises by at least `APART`."""
    least = APART * torch.arange(len(snr)).to(snr)
    return (snr - least).cummax(0).values + least


def ends(program: Program, state: State) -> Tensor:
    """x_0 [b, c, h, w] of a program, of which only states are kept for the way back."""
    while not all(program.finished(state)):
        asked = question(program, state)
        ask = partial(_answer, program, asked)
        answer = checkpoint(ask, asked.x_t, asked.t, use_reentrant=False)
        state = advance(program, state, answer)
    return state.x


def _answer(program: Program, asked: Question, x_t: Tensor, t: Tensor) -> Answer:
    return calls.ask(program.adapter, program.calls, replace(asked, x_t=x_t, t=t))


def _differentiable(program: Program, state: State) -> bool:
    """Whether the network's answer says how it depends on the state."""
    asked = question(program, state)
    x_t = asked.x_t.clone().requires_grad_()
    answer = _answer(program, asked, x_t, asked.t)
    if not answer.cond.requires_grad:
        return False
    slopes = torch.autograd.grad(answer.cond.sum(), [x_t], allow_unused=True)
    # Of pure noise the slope may be 0, and is None where there is no way back.
    return cast("tuple[Tensor | None]", slopes)[0] is not None


def _copied(call: Conditions) -> Conditions:
    cond, null = ({key: x.clone() for key, x in each.items()} for each in (call.cond, call.null))
    return Conditions(cond, null, call.count)
