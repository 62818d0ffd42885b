"""Run-time decisions of adaptive plans, from the prediction residual of each picture.

Earlier estimates of a trajectory predict the next one, by the extrapolation that the solver uses. A
picture whose estimates are close to the prediction can merge two moves into one. Every function
here depends on the plan and on the estimates of one picture only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor

from asymflow.core.solvers import History
from asymflow.core.types import Action, Decision, Plan, Solver, Step


def prediction_residual(
    history: History, solver: Solver, mask: Tensor | None = None
) -> float | None:
    """How far the newest estimate is from what the older ones predict, relative to its norm.

    The prediction is the line through the two before it, in tau^4 for `corrected2` and else in
    tau^2; a single one is used unchanged. Without earlier estimates the result is None.

    Args:
        history: of one picture [1, c, h, w], newest first, as `solvers.advance` returns it.
        solver: of the step that begins with the newest.
        mask: [1, 1, h, w], 1 where x_0 is unknown; known pixels do not count.
    """
    if len(history) < 2:
        return None
    newest, one, *older = history
    found, predicted = newest.x_0, one.x_0
    if older:
        other = older[0]
        power = 4 if solver == "corrected2" else 2
        ratio = (newest.t**power - one.t**power) / (one.t**power - other.t**power)
        predicted = one.x_0 + ratio * (one.x_0 - other.x_0)
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
