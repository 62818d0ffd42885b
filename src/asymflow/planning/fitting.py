"""Fitted plans: weights of every step by least squares, times by a search over a few numbers.

A step from t to s with the newest estimates D_0, D_1, ... of x_0 is

    x_s = k (s/t) x_t + (1 - s/t) (g D_0 + c_1 (D_0 - D_1) + c_2 (D_1 - D_2) + ...)

With k = g = 1, c_1 = h / (2 h'), where h and h' are the lengths of this step and of the last one in
log-SNR, and nothing else, that is DPM-Solver++ 2M (arXiv 2211.01095). Here k, g and c are a
least-squares solution: they lead from the sampler's own states to those of a fine solution at s,
for several pictures at once. A ridge pulls them towards the values above. So every step also makes
good what those before it left, and no gradient is needed: one rollout gives all weights.

Fitted weights are no Taylor coefficients. They damp what an error just made does to the next
estimate, so that a step gains from more estimates than a solver of its order can use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core import calls
from asymflow.core.adapter import Adapter
from asymflow.core.compiler import compile_requests
from asymflow.core.flow import Time
from asymflow.core.solvers import move_weights
from asymflow.core.state import estimated, move, question
from asymflow.core.types import MAX_ESTIMATES, Plan, Request, Step, Tier
from asymflow.planning.effort import Effort
from asymflow.planning.grids import LEAST
from asymflow.planning.proof import rms

BYTES = 2**30
"""That states and estimates of the teacher take at most; large pictures are fewer."""
DENSE = 400
"""Steps of the times that those of plans are bent from."""
BEGINS = ((0.0, 0.0, 0.0, 0.0), (0.0, -0.5, -0.5, 0.5), (-1.0, -1.0, -1.0, -1.0))
"""Bends that a search begins with: the first, denser in the middle, denser where there is noise."""
RIDGE = 1e-3
"""On changes of weights, in parts of the mean square of what they multiply."""
FIRST, SMALLEST = 0.35, 0.05
"""Changes of bends that a search begins with, and below which it ends."""
APART = 0.02
"""Least length of a step in log-SNR."""
_NEAR = 1e-4
"""Root mean square error below which no picture counts more than another."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """A fine solution for b requests of one size.

    Attributes:
        times: of its nodes, falling, without the last one, 0.
        tiers: of the estimates there.
        states: x_t [n, b, c, h, w] at the nodes.
        estimates: of x_0 there [n, b, c, h, w].
        ends: x_0 [b, c, h, w].
    """

    adapter: Adapter
    requests: tuple[Request, ...]
    times: tuple[float, ...]
    tiers: tuple[Tier, ...]
    states: Tensor
    estimates: Tensor
    ends: Tensor

    @classmethod
    @torch.inference_mode()
    def of(cls, adapter: Adapter, requests: Sequence[Request], plan: Plan) -> Teacher:
        """Run a plan of many steps that ask once each."""
        program, state = compile_requests(adapter, [plan] * len(requests), requests)
        states: list[Tensor] = []
        estimates: list[Tensor] = []
        for _ in plan.steps:
            states.append(state.x)
            answer = calls.ask(adapter, program.calls, question(program, state))
            state, x_0 = estimated(program, state, answer)
            estimates.append(x_0)
            state = move(program.trajectory, state, x_0)
        times, tiers = zip(*((step.t, step.tier) for step in plan.steps), strict=True)
        both = torch.stack(states), torch.stack(estimates)
        return cls(adapter, tuple(requests), times, tiers, *both, state.x)

    def at(self, t: float) -> Tensor:
        """The states [b, c, h, w] at a time, by a move of order 3 from the node before.

        Where guidance switches estimates have a jump, and none from before it are used.
        """
        if t == 0:
            return self.ends
        node = sum(each >= t for each in self.times) - 1
        first = node
        while first > max(node - 2, 0) and self.tiers[first - 1] == self.tiers[node]:
            first -= 1
        older = self.times[first:node][::-1]
        a, *weights = move_weights("multistep3", self.times[node], t, older)
        newest_first = self.estimates[first : node + 1].flip(0)
        return _sum(a, self.states[node], weights, [*newest_first])


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted plan.

    Attributes:
        bends: of its times, see `bent`.
        error: mean RMSE to the teacher, of the teacher's pictures.
    """

    plan: Plan
    bends: tuple[float, ...]
    error: float


def pictures(adapter: Adapter, size: tuple[int, int], effort: Effort) -> int:
    """How many pictures of (height, width) a teacher has, so that its states take `BYTES`."""
    each = 2 * effort.moves * 4 * adapter.channels * size[0] * size[1]
    return max(1, min(effort.pictures, BYTES // each))


Shape = Callable[[Sequence[float]], Plan | None]
"""Times and tiers of a plan, from bends; None where they are not allowed."""


def fit(
    teacher: Teacher,
    shape: Shape,
    begins: Sequence[Sequence[float]],
    rollouts: int,
    *,
    known: Fit | None = None,
) -> Fit | None:
    """The best fitted plan that a search over bends finds.

    From the best of the first ones, one bend at a time is changed as long as that helps, then by
    half as much.

    Args:
        teacher: what plans follow.
        shape: makes plans from bends.
        begins: bends that are tried first, such as those of a plan of about as many steps.
        rollouts: plans that are tried, these included.
        known: a plan of this shape that was tried before, and counts as one of them.

    Returns:
        The plan; None where none of the first bends is allowed.
    """
    tried = [] if known is None else [known]
    tried += [fitted(teacher, plan, bends) for bends in begins if (plan := shape(bends))]
    if not tried:
        return None
    best, count, change = min(tried, key=lambda each: each.error), len(tried), FIRST
    while change >= SMALLEST:
        before = best
        for place in reversed(range(len(best.bends))):
            for sign in (1, -1):
                if count >= rollouts:
                    return best
                bends = list(best.bends)
                bends[place] += sign * change
                if (plan := shape(bends)) is None:
                    continue
                count += 1
                found = fitted(teacher, plan, bends)
                if found.error < best.error:
                    best = found
                    break
        if best is before:
            change /= 2
    return best


def fitted(teacher: Teacher, plan: Plan, bends: Sequence[float]) -> Fit:
    """The plan with weights that follow the teacher.

    Args:
        teacher: the fine solution.
        plan: times and tiers; every step asks once.
        bends: that its times were made by.
    """
    found, ends = rolled(teacher, plan)
    error = float(rms(ends, teacher.ends).mean())
    return Fit(found, tuple(bends), error if math.isfinite(error) else math.inf)


@torch.inference_mode()
def rolled(teacher: Teacher, plan: Plan) -> tuple[Plan, Tensor]:
    """The plan with weights that follow the teacher, and where it leads [b, c, h, w]."""
    adapter, requests = teacher.adapter, teacher.requests
    # Of this plan only the questions count.
    asking = Plan(
        plan.name, tuple(replace(step, solver="euler", weights=None) for step in plan.steps)
    )
    program, state = compile_requests(adapter, [asking] * len(requests), requests)
    past: list[Tensor] = []
    steps: list[Step] = []
    for step in plan.steps:
        answer = calls.ask(adapter, program.calls, question(program, state))
        state, x_0 = estimated(program, state, answer)
        past = [x_0, *past][:MAX_ESTIMATES]
        length = _length(steps[-1]) if steps else None
        a, *weights = _weights(teacher.at(step.s), state.x, past, step, length)
        steps.append(replace(step, solver="damped2", weights=(a, *weights)))
        at = tuple(number + 1 for number in state.at)
        state = replace(state, at=at, x=_sum(a, state.x, weights, past), x_0=x_0)
    return Plan(plan.name, tuple(steps)), state.x


def bent(times: Sequence[float], count: int, bends: Sequence[float]) -> tuple[float, ...]:
    """Times of so many steps, as dense as others but for shifts in log-SNR.

    Args:
        times: the others, dense, falling to 0.
        count: of steps.
        bends: shifts at even distances along them, and between these in proportion.
    """
    inner = np.minimum(times[:-1], 1 - LEAST)  # of pure noise there is no logarithm
    known = np.log1p(-inner) - np.log(inner)
    along = np.arange(count) / count  # as a grid of equal steps, which are longer if they are few
    snr = np.interp(along, np.linspace(0, 1, len(known)), known)
    snr = snr + np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(bends)), bends)
    highest = known[-1] - APART * np.arange(count)[::-1]
    lowest = known[0] + APART * np.arange(count)
    snr = np.maximum.accumulate(np.clip(snr, lowest, highest) - APART * np.arange(count))
    snr += APART * np.arange(count)
    return (float(times[0]), *(1 / (1 + np.exp(snr[1:]))).tolist(), 0.0)


def _weights(
    wanted: Tensor, x_t: Tensor, past: Sequence[Tensor], step: Step, length: float | None
) -> tuple[float, ...]:
    """The weights (a, w_0, w_1, ...) of a step.

    Args:
        wanted: states where it should end [b, c, h, w].
        x_t: states where it begins.
        past: estimates of x_0, newest first.
        step: from t to s.
        length: of the step before in log-SNR, if there is one.
    """
    rest = step.s / step.t
    differences = (one - other for one, other in pairwise(past))
    parts = [rest * x_t, *((1 - rest) * each for each in (past[0], *differences))]
    usual = np.array([1.0, 1.0, *[0.0] * (len(parts) - 2)])
    if length is not None and step.s > 0:
        usual[2] = _length(step) / (2 * length)
    first, *others = usual.tolist()
    missing = wanted - _sum(first, parts[0], others, parts[1:])
    # As a sum over pictures of root mean squares would, whose square roots have such slopes.
    counts = 1 / (missing.flatten(1).double().square().mean(1).sqrt() + _NEAR)
    free = slice(0 if step.s > 0 else 1, None)  # the state has no weight in the last move
    x = torch.stack([_scaled(part, counts) for part in parts[free]])
    gram, ahead = (x @ x.T).cpu().numpy(), (x @ _scaled(missing, counts)).cpu().numpy()
    if np.isfinite(gram).all() and np.isfinite(ahead).all():  # or else the plan is of no use
        ridge = RIDGE * np.diag(np.diag(gram))
        usual[free] += np.linalg.lstsq(gram + ridge, ahead, rcond=None)[0]
    k, g, *c = usual
    # Of estimates, of which every difference has two.
    weights = np.array([g, *np.negative(c)]) + np.array([*c, 0.0])
    return (float(rest * k), *((1 - rest) * weights).tolist())


def _scaled(x: Tensor, counts: Tensor) -> Tensor:
    """All numbers of pictures [b, c, h, w], so that their squares count so much."""
    return (x.flatten(1).double() * counts.sqrt()[:, None]).flatten()


def _length(step: Step) -> float:
    """The length of a step in log-SNR."""
    t = min(step.t, 1 - LEAST)
    return math.log(t * (1 - step.s) / (step.s * (1 - t)))


def _sum(a: Time, x: Tensor, weights: Iterable[Time], parts: Sequence[Tensor]) -> Tensor:
    total = a * x
    for weight, part in zip(weights, parts, strict=True):
        total += weight * part
    return total
