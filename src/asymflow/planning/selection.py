"""Chooses the cheapest plan that is as near to the limit as another sampler, and proves it.

At every price that is tried, plans of all kinds are screened on one picture, and the best compared
on more. What is chosen must keep the promise on pictures that it was not chosen by
(`asymflow.planning.proof`): a candidate that does not is dropped for the next dearer one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from asymflow.core.types import Plan
from asymflow.planning.proof import UNSEEN, Errors
from asymflow.planning.verifier import Evaluator, best_of

FEW = 1
"""Pictures that plans are screened on."""
FINALISTS = 2
"""Plans of a price that are compared on all pictures, after screening."""
BEGIN = 8
"""Full estimates of the price that is tried first, at most: errors there tell about how many more
are needed, for little."""
KEPT = 3
"""Kinds of plans that are screened at further prices: the best of the nearest price tried."""
ROUNDS = 5
"""Numbers of steps that are tried after the first."""
CLOSE = 0.08
"""The search ends when fewer steps could save no more than this share."""
COARSER = 1 / 3
"""Share of an error up to which the limit that it is measured against may be off."""


def limit_plan(
    judge: Evaluator, plans: Sequence[Plan], errors: Errors, *, few: int, moves: int
) -> tuple[Plan, float]:
    """The first plan that may serve as the limit that such errors are measured against.

    Errors of limits are those of a solver of second order: at distance d from the reference a plan
    of n moves is off by d / (1 - r), where r = (n / moves)^2.

    Args:
        judge: has the limit as its reference.
        plans: from the cheapest, with more and more moves. The last one is good enough.
        errors: of what is measured, on the judge's pictures [b]. Of some, all plans are far off.
        few: pictures that the plans are compared on.
        moves: of the reference.

    Returns:
        The plan, and its root mean square error, estimated.
    """
    allowed = COARSER * max(float(errors[:few].mean()), UNSEEN)
    last, least = 0.0, 0.0
    for plan in plans[:-1]:
        if len(plan.steps) >= moves:  # the reference says nothing of a plan as fine as itself
            break
        if len(plan.steps) < least:
            continue
        off = judge.error(plan, few) / (1 - (len(plan.steps) / moves) ** 2)
        if off <= allowed:
            return plan, off
        last = off * (len(plan.steps) / len(plans[-1].steps)) ** 2
        least = len(plan.steps) * math.sqrt(off / allowed)
    return plans[-1], last


def known_to(judge: Evaluator, plans: Sequence[Plan], moves: int) -> Errors:
    """How far two fine solutions are apart [b]: nothing can be told to be nearer than that.

    Some pictures are at a point where the model's answer turns from one thing into another, and no
    number of steps says which of the two is right.

    Args:
        judge: has one of the solutions as its reference.
        plans: limits, from the cheapest; the last but one is the other solution, if it is about as
            fine.
        moves: of the reference.
    """
    if len(plans) < 2 or 2 * len(plans[-2].steps) <= moves:
        return np.zeros(len(judge.requests))
    return judge.errors(plans[-2])


Kinds = Callable[[int], Mapping[str, Plan]]
"""Plans of all kinds, by name, for the price of so many full estimates."""


@dataclass(slots=True, eq=False)
class Search:
    """Compares plans of all kinds and prices.

    Attributes:
        judge: compares them.
        kinds: proposes plans.
        found: the best plan of every price that was tried.
        ranks: the kinds that were screened there, from the best.
    """

    judge: Evaluator
    kinds: Kinds
    found: dict[int, Plan] = field(default_factory=dict[int, Plan])
    ranks: dict[int, list[str]] = field(default_factory=dict[int, list[str]])

    def best(self, steps: int) -> Plan:
        """The best plan for the price of so many full estimates."""
        if steps not in self.found:
            plans = self.kinds(steps)
            if self.ranks:
                nearest = self.ranks[min(self.ranks, key=lambda price: abs(price - steps))]
                plans = {name: plans[name] for name in nearest[:KEPT] if name in plans} or plans
            self.found[steps] = best_of(
                self.judge, list(plans.values()), few=FEW, finalists=FINALISTS
            )
            self.ranks[steps] = sorted(plans, key=lambda name: self.judge.error(plans[name], FEW))
        return self.found[steps]

    def near(self, others: Errors, most: int) -> int | None:
        """The least price that was found to be as near as others; None if none is.

        Args:
            others: errors [b] of another sampler on the judge's pictures.
            most: the number of steps that is no gain any more.
        """
        low, high = 1, most
        steps = min(BEGIN, max(2, most - 1))
        for _ in range(ROUNDS + 1):
            plan = self.best(steps)
            if self._as_near(plan, others):
                high = steps
            else:
                low = steps
            if high - low <= max(1, CLOSE * high):
                break
            # Errors fall with about the square of the number of steps.
            allowed = max(float(others.mean()), UNSEEN)
            expected = steps * math.sqrt(self.judge.error(plan) / allowed)
            aimed = math.ceil(expected) if math.isfinite(expected) else high
            if steps == low and high < most:  # or a price that fails barely is followed by the next
                aimed = max(aimed, math.ceil(math.sqrt(low * high)))
            steps = min(max(aimed, low + 1), high - 1)
        passed = [n for n, each in self.found.items() if n < most and self._as_near(each, others)]
        return min(passed, default=None)

    def _as_near(self, plan: Plan, others: Errors) -> bool:
        """By one standard error more, since the best of several is not quite as good on others."""
        further = self.judge.errors(plan) - np.maximum(others, UNSEEN)
        spread = further.std(ddof=1) / math.sqrt(len(further)) if len(further) > 1 else 0.0
        return bool(further.mean() + spread <= 0)


def evenly(count: int, examples: int) -> int:
    """The least number of pictures, at least `count`, with every example equally often."""
    return examples * math.ceil(count / examples)
