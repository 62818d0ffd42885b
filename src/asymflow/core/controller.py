"""Run-time decisions of adaptive plans, from the prediction residual of each picture.

Earlier estimates of a trajectory predict the next one, by the extrapolation that the solver uses. A
picture whose estimates are close to the prediction can merge two moves into one. Every function
here depends on the plan and on the estimates of one picture only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from asymflow.core.flow import Time
from asymflow.core.stages import OLDER, Stage, compile_steps
from asymflow.core.types import Action, Decision, Plan, Solver, Step

Estimate = tuple[Time, Tensor]
"""The time of an estimate, and x_0 [1, c, h, w]."""


def prediction_residual(
    history: Sequence[Estimate], solver: Solver, mask: Tensor | None = None
) -> float | None:
    """How far the newest estimate is from what the older ones predict, relative to its norm.

    The prediction is the line through the two before it, in tau^4 for `corrected2` and else in
    tau^2; a single one is used unchanged. Without earlier estimates the result is None.

    Args:
        history: estimates of one picture, newest first.
        solver: of the step that begins with the newest.
        mask: [1, 1, h, w], 1 where x_0 is unknown; known pixels do not count.
    """
    if len(history) < 2:
        return None
    (t, found), (p, predicted), *older = history
    if older:
        q, other = older[0]
        power = 4 if solver == "corrected2" else 2
        ratio = (t**power - p**power) / (p**power - q**power)
        predicted = predicted + ratio * (predicted - other)
    missed = found - predicted
    if mask is not None:
        found, missed = mask * found, mask * missed
    size = found.double().norm()
    return float(missed.double().norm() / size) if size > 0 else None


def decide(plan: Plan, index: int, rho: float | None) -> Action | None:
    """The action of a picture with residual `rho` at a step; None to follow the plan."""
    if rho is None:
        return None
    for rule in plan.adaptive:
        above = rule.action == "insert"
        if rule.step == index and (
            rho > rule.prediction_residual if above else rho < rule.prediction_residual
        ):
            return rule.action
    return None


def moves(plan: Plan, index: int, action: Action | None) -> tuple[Step, ...]:
    """The moves that replace a step: one, or two with a node between them."""
    step = plan.steps[index]
    match action:
        case None:
            return (step,)
        case "skip":
            return (replace(step, s=plan.steps[index + 1].s),)
        case "insert":
            middle = (step.t + step.s) / 2
            return replace(step, s=middle), replace(step, t=middle)


def taken(plan: Plan, decisions: Iterable[Decision]) -> Plan:
    """The steps executed by a picture with these decisions, as a plan without rules."""
    actions: dict[int, Action] = {decision.step: decision.action for decision in decisions}
    if not actions:
        return replace(plan, adaptive=())
    steps: list[Step] = []
    for index, step in enumerate(plan.steps):
        if not steps or step.t == steps[-1].s:
            steps += moves(plan, index, actions.get(index))
    return Plan(plan.name, tuple(steps))


def rerouted(
    plan: Plan, stages: Sequence[Stage], at: int, action: Action, guidance_scale: float
) -> tuple[Stage, ...]:
    """The stages of a picture that leaves its plan at a stage, with the moves of an action.

    Args:
        plan: of the picture.
        stages: made from it so far.
        at: number of the stage where the picture is.
        action: what it does there.
        guidance_scale: of the picture.
    """
    stage = stages[at]
    made = moves(plan, stage.index, action)
    rest = stage.index + (2 if action == "skip" else 1)
    steps = (*made, *plan.steps[rest:])
    indices = [stage.index] * len(made) + list(range(rest, len(plan.steps)))
    past = [(time, stage.tier) for time in stage.older]
    return *stages[:at], *compile_steps(
        steps, guidance_scale, past=past, indices=indices, keep=OLDER
    )
