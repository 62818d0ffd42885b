"""Calibration of the rules of adaptive plans (`Plan.adaptive`) on real rollouts.

Every way to leave the plan is rolled out once, for all pictures. The effect of several together is
predicted as the sum of their effects; thresholds are chosen on that prediction for several prices
of an estimate, and the cheapest rules whose real rollouts keep the stated quality are used.

Thresholds are fitted to the calibration pictures. Use 16 or more, and measure on others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core import controller, engine
from asymflow.core.adapter import Adapter, Context, Wrapped
from asymflow.core.errors import InputError
from asymflow.core.types import ACTIONS, Action, Decision, Plan, Rule
from asymflow.planning.profiler import Progress, no_progress
from asymflow.planning.replay import call_hash
from asymflow.planning.verifier import Evaluator

LEVELS = 8
"""Number of thresholds tried for a rule: quantiles of the prediction residual."""
PRICES = tuple(float(price) for price in np.geomspace(0.3, 6, 13))
"""Prices: the error that saving the whole cost of the plan would justify, relative to its own."""
_ALWAYS: dict[Action, float] = {"skip": np.inf, "insert": 0.0}
_NEVER: dict[Action, float] = {"skip": 0.0, "insert": np.inf}
_SWEEPS = 3
_DOUBT = 1.5
"""Rules are skipped if their predicted error exceeds the allowed one by more than this factor."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A plan with rules, and its results on the calibration pictures.

    Attributes:
        error: mean distance to the reference.
        exact: the same without rules.
        saving: mean share of the cost saved by the rules.
    """

    plan: Plan
    error: float
    exact: float
    saving: float


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """Final states [b, c, h, w], prediction residuals at every step [b, I], and decisions.

    Residuals are NaN where there was no prediction.
    """

    ends: Tensor
    prediction_residuals: NDArray[np.float64]
    decisions: tuple[tuple[Decision, ...], ...]


Way = tuple[int, Action]
"""A step and an action by which a picture can leave the plan there."""


def calibrate(
    judge: Evaluator,
    plan: Plan,
    *,
    rise: float = 0.05,
    actions: Sequence[Action] = ACTIONS,
    progress: Progress = no_progress,
) -> Calibrated:
    """Find the rules that save most of a plan's cost on the judge's requests.

    Args:
        judge: has the calibration requests and their reference.
        plan: rules that it already has are dropped.
        rise: allowed increase of the mean error, relative to the plan without rules.
        actions: allowed actions.
        progress: called before every rollout.

    Raises:
        InputError: the plan is too short for rules.
    """
    forecast = Forecast.of(judge, plan, actions, progress)
    return choose(forecast, (1 + rise) * forecast.error(), progress=progress)


def choose(
    forecast: Forecast, allowed: float, *, levels: int = LEVELS, progress: Progress = no_progress
) -> Calibrated:
    """Choose the cheapest rules whose real rollouts stay within a mean error.

    Costs are those of the plan's evidence, or else network passes.

    Args:
        forecast: predicted effects of all ways to leave the plan.
        allowed: the mean error allowed; for example the error of a coarser plan.
        levels: thresholds tried for a rule. With 1, all pictures follow a rule or none, so
            that the result is a shorter plan.
        progress: called before every rollout.
    """
    judge, plan, exact = forecast.judge, forecast.plan, forecast.exact
    error = forecast.error()
    front = _front(forecast, error, levels)
    for number, adapted in enumerate(front):
        progress("trying rules", number, len(front))
        if forecast.error(forecast.decisions(adapted)) > _DOUBT * allowed:
            continue
        rolled = _roll(judge, adapted)
        real = float(judge.distance(rolled.ends, judge.reference).mean())
        saving = 1 - _cost(plan, rolled.decisions) / _cost(plan, exact.decisions)
        if real <= allowed and saving > 0:
            return Calibrated(adapted, real, error, saving)
    return Calibrated(plan, error, error, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Predicted results of rules, assuming that the effects [b, c, h, w] of actions add up."""

    judge: Evaluator
    plan: Plan
    exact: Rollout
    effects: Mapping[Way, Tensor]
    costs: Mapping[Way, float]
    """Cost of the plan when all pictures leave it in one way."""

    @classmethod
    def of(
        cls,
        judge: Evaluator,
        plan: Plan,
        actions: Sequence[Action] = ACTIONS,
        progress: Progress = no_progress,
    ) -> Forecast:
        """Roll out the plan and every way to leave it."""
        plan = replace(plan, adaptive=())
        ways = list(_ways(plan, actions))
        if not ways:
            raise InputError(
                f"Plan {plan.name!r} has no step at which a picture could {' or '.join(actions)}: "
                "the first estimate has no prediction residual. Give a plan of three steps or more."
            )
        known = _Remembering(judge.adapter)
        judge = replace(judge, adapter=known)
        never = tuple(Rule(step, action, _NEVER[action]) for step, action in ways)
        exact = _roll(judge, replace(plan, adaptive=never))
        known.learns = False
        effects: dict[Way, Tensor] = {}
        for number, way in enumerate(ways):
            progress("leaving the plan", number, len(ways))
            effects[way] = _roll(judge, _with(plan, {way: _ALWAYS[way[1]]})).ends - exact.ends
        costs: dict[Way, float] = {}
        for i, action in ways:
            costs[i, action] = _cost(plan, [[Decision(i, action, 0.0)]])
        return cls(judge, plan, exact, effects, costs)

    def decisions(self, plan: Plan) -> list[list[Decision]]:
        """Decisions of every picture, with the residuals measured without rules."""
        return [_follow(plan, rhos) for rhos in self.exact.prediction_residuals]

    def error(self, decisions: Sequence[Sequence[Decision]] = ()) -> float:
        """Predicted mean distance to the reference, given the decisions of each picture."""
        ends = self.exact.ends.clone()
        for row, own in enumerate(decisions):
            for each in own:
                ends[row] += self.effects[each.step, each.action][row]
        return float(self.judge.distance(ends, self.judge.reference).mean())

    def cost(self, decisions: Sequence[Sequence[Decision]]) -> float:
        """Predicted mean cost of a picture, in the unit of `_cost`."""
        whole = _cost(self.plan, [()])
        saved = [whole - self.costs[each.step, each.action] for own in decisions for each in own]
        return whole - sum(saved) / len(decisions)


class _Remembering(Wrapped):
    """An adapter that caches the outputs of calls made while `learns` is set.

    All ways to leave a plan share their first steps with the plan itself.
    """

    def __init__(self, inner: Adapter) -> None:
        super().__init__(inner)
        self._outputs: dict[bytes, Tensor] = {}
        self.learns = True

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        key = call_hash(self.name, x_t, t, context)
        if key in self._outputs:
            return self._outputs[key]
        x_0 = self.inner.denoise(x_t, t, context)
        if self.learns:
            self._outputs[key] = x_0
        return x_0


def _ways(plan: Plan, actions: Sequence[Action]) -> Iterator[Way]:
    """Steps and actions by which a picture can leave a plan."""
    for i in range(1, len(plan.steps)):  # the first estimate has no residual
        for action in actions:
            with suppress(InputError):
                replace(plan, adaptive=(Rule(i, action, 0.0),))
                yield i, action


def _roll(judge: Evaluator, plan: Plan) -> Rollout:
    """Follow a plan with rules."""
    count = len(judge.requests)
    prediction_residuals = np.full((count, len(plan.steps)), np.nan)
    ends = engine.rollout(judge.adapter, plan, judge.requests)
    for row, end in enumerate(ends):
        for move in end.moves:
            if move.prediction_residual is not None:
                prediction_residuals[row, move.index] = move.prediction_residual
    states = torch.stack([end.x_0 for end in ends])
    return Rollout(states, prediction_residuals, tuple(end.decisions for end in ends))


def _follow(plan: Plan, rhos: NDArray[np.float64]) -> list[Decision]:
    """Decisions of one picture with these residuals [I] at the steps."""
    found: list[Decision] = []
    index = 0
    while index < len(plan.steps):
        rho = float(rhos[index])
        action = controller.decide(plan, index, rho)
        if action is not None:
            found.append(Decision(index, action, rho))
        index += 2 if action == "skip" else 1
    return found


def _front(forecast: Forecast, error: float, levels: int) -> list[Plan]:
    """The predicted best plan with rules for each price, cheapest first."""
    costs: dict[Plan, float] = {}
    rules: dict[Way, float] = {way: _NEVER[way[1]] for way in forecast.effects}
    whole = _cost(forecast.plan, [()])
    for price in PRICES:
        rules = _descend(forecast, rules, price * error / whole, levels)
        plan = _with(forecast.plan, rules)
        costs[plan] = forecast.cost(forecast.decisions(plan))
    return sorted(costs, key=lambda plan: costs[plan])


def _descend(
    forecast: Forecast, rules: Mapping[Way, float], price: float, levels: int
) -> dict[Way, float]:
    """Minimise error + price * cost by coordinate descent over the thresholds."""
    best = dict(rules)

    def loss(rules: Mapping[Way, float]) -> float:
        plan = _with(forecast.plan, rules)
        decisions = forecast.decisions(plan)
        return forecast.error(decisions) + price * forecast.cost(decisions)

    least = loss(best)
    for _ in range(_SWEEPS):
        before = dict(best)
        for way in best:
            for level in _levels(way[1], forecast.exact.prediction_residuals[:, way[0]], levels):
                near = best | {way: level}
                if (found := loss(near)) < least:
                    best, least = near, found
        if best == before:
            break
    return best


def _levels(action: Action, rhos: NDArray[np.float64], count: int) -> list[float]:
    """Thresholds that none, all, or a part of the pictures would follow."""
    known = np.unique(rhos[np.isfinite(rhos)])
    if not len(known):
        return [_NEVER[action]]
    between = (known[1:] + known[:-1]) / 2
    # Ordered from all pictures acting to few, for either direction of the comparison.
    all_to_few = [0.0, *between] if action == "insert" else [2 * known[-1], *between[::-1]]
    picked = np.unique(np.linspace(0, len(all_to_few) - 1, count).round().astype(int))
    return [_NEVER[action], *(float(all_to_few[i]) for i in picked)]


def _with(plan: Plan, rules: Mapping[Way, float]) -> Plan:
    """The plan with rules, except those that never apply."""
    kept = [
        Rule(step, action, prediction_residual)
        for (step, action), prediction_residual in rules.items()
        if prediction_residual != _NEVER[action]
    ]
    return replace(plan, adaptive=tuple(kept))


def _cost(plan: Plan, decisions: Sequence[Sequence[Decision]]) -> float:
    """Mean cost of a picture, in milliseconds of the plan's evidence or in network passes."""
    known = plan.evidence and dict(
        zip((step.tier for step in plan.steps), plan.evidence.cost_ms, strict=True)
    )
    made = [step for own in decisions for step in controller.taken(plan, own).steps]
    return sum(known[step.tier] if known else step.forwards for step in made) / len(decisions)
