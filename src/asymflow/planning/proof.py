"""What a plan keeps, on pictures that it was not chosen by, and where the model leads in the limit.

The limit is where the model leads in many steps. It is computed, so it has an error of its own,
which is measured and stated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core import statistics
from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval, bootstrap_interval, mean_interval, share_bound

Errors = NDArray[np.float64]

UNSEEN = 2 / 255
"""Root mean square below which a difference is none: one level of a byte. A sampler of many steps
can be nearer to the limit than any picture file tells."""
ANOTHER = 0.5
"""A picture has become another when its error is more than this share of the distance between
pictures of different samples."""


def rms(x: Tensor, y: Tensor) -> Errors:
    """Root mean square of the difference, per picture [b]."""
    return statistics.rms((x - y).cpu().double().numpy())


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """Where the model leads, for some samples.

    Attributes:
        states: x_0 [b, c, h, w] in many steps.
        error: root mean square that it is off by, estimated.
        apart: median distance between pictures of different samples.
    """

    states: Tensor
    error: float
    apart: float

    @classmethod
    def of(cls, states: Tensor, error: float) -> Limit:
        """The limit of these states.

        Raises:
            InputError: they are not finite.
        """
        if not states.isfinite().all():
            raise InputError(
                "This model makes pictures that are not finite in many steps, so no plan can come "
                "near to them. Check its weights for NaN, and its dtype for overflow: float16 is "
                "too narrow for some models."
            )
        pairs = list(combinations(range(len(states)), 2))
        apart = [float(rms(states[a, None], states[b, None])[0]) for a, b in pairs]
        return cls(states, error, median(apart) if apart else math.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What a plan does on pictures that it was not chosen by.

    Attributes:
        errors: root mean square of each picture against the limit [b].
        others: those of the sampler it is compared with, of the same pictures: a few that become
            another make most of a mean, so that means of others say little. None if it makes none.
        limit: of these pictures.
    """

    errors: Errors
    others: Errors | None
    limit: Limit

    @property
    def mean(self) -> Interval:
        """The mean error, with an interval that holds what the limit may be off by.

        Errors are skew: the lower end is that of a bootstrap, which is never below zero, and the
        upper one the larger of that and Student's t. The error of the limit is added above. Below
        it is taken away as a square, as of an independent error.
        """
        found = bootstrap_interval(self.errors, np.mean)
        low = math.sqrt(max(found.low**2 - self.limit.error**2, 0.0))
        high = max(found.high, mean_interval(self.errors).high)
        return Interval(found.value, low, high + self.limit.error)

    @property
    def changed(self) -> int:
        """Number of pictures that have become another."""
        return int(self._changed(self.errors).sum())

    @property
    def stated(self) -> dict[str, str]:
        """What evidence says besides the mean."""
        return {
            "median_rms": f"{np.median(self.errors):.4f}",
            "worst_rms": f"{self.errors.max():.4f}",
            "changed": f"{self.changed} of {len(self.errors)}",
            "changed_at_most": f"{share_bound(self.changed, len(self.errors)):.0%}",
            "limit_rms": f"{self.limit.error:.4f}",
        }

    @property
    def promised(self) -> float:
        """The largest mean error that keeps the promise."""
        return UNSEEN if self.others is None else max(float(self.others.mean()), UNSEEN)

    @property
    def kept(self) -> bool:
        """Whether the plan is as near to the limit as the other sampler, and loses no picture.

        One that the other sampler loses as well does not count.
        """
        lost = self._changed(self.errors)
        if self.others is not None:
            lost &= ~self._changed(self.others)
        return float(self.errors.mean()) <= self.promised and not lost.any()

    def _changed(self, errors: Errors) -> NDArray[np.bool_]:
        return errors > ANOTHER * self.limit.apart
