"""Chooses the cheapest plan that is as near to the limit as another sampler, and proves it.

The limit is where the model leads in many steps. It is computed, so it has an error of its own,
which is measured and stated (`Limit`). At every price that is tried, all kinds of plans are
screened on two pictures, and the best compared on more. What is chosen must keep the promise on
pictures that it was not chosen by (`Proof`): a candidate that does not is dropped for the next
dearer one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval, bootstrap_interval, mean_interval
from asymflow.core.types import Plan
from asymflow.planning.verifier import rms

S = TypeVar("S")
Errors = NDArray[np.float64]
Make = Callable[[Plan, Sequence[S]], Tensor]
"""Makes the states x_0 [b, c, h, w] of samples by a plan."""

UNSEEN = 2 / 255
"""Root mean square below which a difference is none: one level of a byte. A sampler of many steps
can be nearer to the limit than any picture file tells."""
FEW = 2
"""Pictures that plans are screened on."""
KINDS = 3
"""Plans of a price that are compared on all pictures, after screening."""
ROUNDS = 5
"""Numbers of steps that are tried after the first."""
CLOSE = 0.08
"""The search ends when fewer steps could save no more than this share."""
ANOTHER = 0.5
"""A picture has become another when its error is more than this share of the distance between
pictures of different samples."""


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """Where the model leads, for some samples.

    Attributes:
        states: x_0 [b, c, h, w] by the fine plan.
        errors: estimated for the first pictures: a third of the root mean square of the
            difference to half as many moves, as of a solver of second order.
        apart: median distance between pictures of different samples.
    """

    states: Tensor
    errors: Errors
    apart: float

    @classmethod
    def of(cls, make: Make[S], fine: Plan, coarse: Plan, samples: Sequence[S], few: int) -> Limit:
        """Compute the limit, and its error on the first few samples.

        Raises:
            InputError: the model leads to states that are not finite.
        """
        states = make(fine, samples)
        if not states.isfinite().all():
            raise InputError(
                f"This model makes pictures that are not finite in {len(fine.steps)} steps, so no "
                "plan can come near to them. Check its weights for NaN, and its dtype for "
                "overflow: float16 is too narrow for some models."
            )
        errors = rms(make(coarse, samples[:few]), states[:few]) / 3
        pairs = list(combinations(range(len(states)), 2))
        apart = [float(rms(states[a, None], states[b, None])[0]) for a, b in pairs]
        return cls(states, errors, median(apart) if apart else math.inf)

    @property
    def error(self) -> float:
        """The stated error of the limit: that of the worst picture."""
        return float(self.errors.max())


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What a plan does on pictures that it was not chosen by.

    Attributes:
        errors: root mean square of each picture against the limit [b].
        others: those of the sampler it is compared with; None if that makes no pictures.
        limit: of these pictures.
    """

    errors: Errors
    others: Errors | None
    limit: Limit

    @property
    def mean(self) -> Interval:
        """The mean error, with an interval that holds what the limit may be off by.

        Errors are skew: the lower end is that of a bootstrap, which is never below zero, and the
        upper one the larger of that and Student's t.
        """
        found = bootstrap_interval(self.errors, np.mean)
        high = max(found.high, mean_interval(self.errors).high)
        return Interval(found.value, found.low, high + self.limit.error)

    @property
    def changed(self) -> int:
        """Number of pictures that have become another."""
        return self._changed(self.errors)

    @property
    def promised(self) -> float:
        """The largest mean error that keeps the promise."""
        return UNSEEN if self.others is None else max(float(self.others.mean()), UNSEEN)

    @property
    def kept(self) -> bool:
        """Whether the plan is as near to the limit as the other sampler, and loses no picture."""
        lost = self.changed - (0 if self.others is None else self._changed(self.others))
        return float(self.errors.mean()) <= self.promised and lost <= 0

    def _changed(self, errors: Errors) -> int:
        return int((errors > ANOTHER * self.limit.apart).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A plan, and its errors [b] on the pictures that candidates are compared on."""

    plan: Plan
    errors: Errors

    @property
    def error(self) -> float:
        """The mean error; infinite where a picture is not finite."""
        return float(np.nan_to_num(self.errors.mean(), nan=np.inf))


Kinds = Callable[[int], Sequence[Plan]]
"""Plans of all kinds for the price of so many full estimates."""


@dataclass(slots=True, eq=False)
class Search(Generic[S]):
    """Compares plans of all kinds and prices on fixed samples.

    Attributes:
        make: makes the pictures.
        kinds: proposes plans.
        samples: what they are compared on.
        limit: of these.
        found: the best candidate of every price that was tried.
    """

    make: Make[S]
    kinds: Kinds
    samples: Sequence[S]
    limit: Limit
    found: dict[int, Candidate] = field(default_factory=dict[int, Candidate])

    def best(self, steps: int) -> Candidate:
        """The best candidate for the price of so many full estimates."""
        if steps not in self.found:
            # Which kind is best depends on the price, so all are screened at each.
            screened = [self._candidate(plan, slice(FEW)) for plan in self.kinds(steps)]
            finalists = sorted(screened, key=lambda each: each.error)[:KINDS]
            compared = [self._compared(each) for each in finalists]
            self.found[steps] = min(compared, key=lambda each: each.error)
        return self.found[steps]

    def near(self, others: Errors, most: int) -> int | None:
        """The least price that was found to be as near as others; None if none is.

        Args:
            others: errors [b] of another sampler on the same samples.
            most: the number of steps that is no gain any more.
        """
        low, high = 1, most
        steps = max(2, most // 4)
        for _ in range(ROUNDS + 1):
            candidate = self.best(steps)
            if self._as_near(candidate, others):
                high = steps
            else:
                low = steps
            if high - low <= max(1, CLOSE * high):
                break
            # Errors fall with about the square of the number of steps.
            allowed = max(float(others.mean()), UNSEEN)
            expected = steps * math.sqrt(candidate.error / allowed) if allowed else high
            aimed = math.ceil(expected) if math.isfinite(expected) else high
            steps = min(max(aimed, low + 1), high - 1)
        passed = [n for n, each in self.found.items() if n < most and self._as_near(each, others)]
        return min(passed, default=None)

    def _as_near(self, candidate: Candidate, others: Errors) -> bool:
        """By one standard error more, since the best of several is not quite as good on others."""
        further = candidate.errors - np.maximum(others, UNSEEN)
        spread = further.std(ddof=1) / math.sqrt(len(further)) if len(further) > 1 else 0.0
        return bool(further.mean() + spread <= 0)

    def _compared(self, screened: Candidate) -> Candidate:
        """A candidate on all samples, of which it has made a few."""
        if len(self.samples) <= FEW:
            return screened
        rest = self._candidate(screened.plan, slice(FEW, None))
        return Candidate(screened.plan, np.concatenate([screened.errors, rest.errors]))

    def _candidate(self, plan: Plan, part: slice) -> Candidate:
        made = self.make(plan, self.samples[part])
        return Candidate(plan, rms(made, self.limit.states[part]))


def evenly(count: int, examples: int) -> int:
    """The least number of pictures, at least `count`, with every example equally often."""
    return examples * math.ceil(count / examples)
