"""Stages that make a small picture and then a larger one, planned as one within a shared budget.

The error that counts is that of the large picture. The first stage's reaches it through the second,
which is shown the small picture; the second adds its own. Both are measured there, one at a time:
every plan of a stage runs with the other stage at its limit. Errors of two networks have nothing to
do with each other, so their squares add up, and the pair that is predicted best within the budget
is taken. What that pair really does is measured once more, together.

That shares out the work. The second stage does not continue from the state of the first: it is
another network, with noise of its own, so a step of the first is no estimate within its trajectory.
"""

from __future__ import annotations

import inspect
import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from torch import Tensor

from asymflow.core.checks import each_instance, number
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of
from asymflow.core.types import Plan
from asymflow.integrations.diffusers import pipeline
from asymflow.integrations.diffusers.measuring import Pictures, measuring
from asymflow.integrations.diffusers.task import FINE
from asymflow.models.diffusers.families import family_of
from asymflow.models.diffusers.own import refined
from asymflow.models.diffusers.pipelines import Call, bound, copy_of
from asymflow.planning.verifier import rms

STEPS = (6, 8, 12, 16, 24, 32)
"""Of the plans that are tried, if none are given."""

_log = logging.getLogger("asymflow")


@dataclass(frozen=True, slots=True)
class Option:
    """A plan of one stage.

    Attributes:
        seconds: per picture.
        error: root mean square of what it changes in the last picture, of states in [-1, 1].
    """

    plan: Plan
    seconds: float
    error: float


@dataclass(frozen=True, slots=True, eq=False)
class Cascade:
    """Two accelerated pipelines, and what they do together.

    Attributes:
        seconds: per picture, of both.
        predicted, measured: root mean square of the last picture's difference to the limit.
    """

    first: Any
    second: Any
    seconds: float
    predicted: float
    measured: float


def accelerate(
    first: Any,
    second: Any,
    seconds: float,
    *,
    examples: Sequence[tuple[Call, Call]],
    plans: tuple[Sequence[Plan], Sequence[Plan]] = ((), ()),
) -> Cascade:
    """Both stages with the plans that make the best last picture in so many seconds.

        made = cascade.accelerate(stage_1, stage_2, 4.0, examples=[(call, call), ...])
        image = made.second(**call, image=made.first(**call, output_type="pt").images)

    Args:
        first, second: pipelines; the second takes what the first makes as `image`.
        seconds: per picture, for both, on this machine.
        examples: what each is called with, but for that image. One picture is made per example.
        plans: to choose from. By default each stage's own spacing in `STEPS` steps.

    Raises:
        InputError: a pipeline cannot be translated, or nothing is that fast.
    """
    seconds = number("seconds", seconds)
    each_instance("examples", examples, tuple, "Pass pairs of calls: [({...}, {...}), ...].")
    if not examples or any(len(pair) != 2 for pair in examples):
        raise InputError(
            "Nothing can be measured without pairs of calls. Give at least one: examples=[(call of "
            "the first, call of the second)]."
        )
    for pipe in (first, second):
        family_of(pipe)
    if "image" in inspect.signature(first.__call__).parameters and not all(
        "image" in call for call, _ in examples
    ):
        raise InputError(
            f"{type(first).__name__} begins with a picture, and its examples have none. The order "
            "is first stage, second stage; or give its calls an image."
        )
    for pipe, calls in zip((first, second), zip(*examples, strict=True), strict=True):
        each_instance("Calls of examples", calls, Mapping, "Pass dicts: {'prompt': 'a fox'}.")
        for call in calls:
            bound(pipe, {**call, "image": None} if pipe is second else call)
    with measuring(first, second):
        one, other, measured = _best(first, second, seconds, examples, plans)
    return Cascade(
        pipeline.accelerate(first, one.plan),
        pipeline.accelerate(second, other.plan),
        one.seconds + other.seconds,
        math.hypot(one.error, other.error),
        measured,
    )


def _best(
    first: Any,
    second: Any,
    seconds: float,
    examples: Sequence[tuple[Call, Call]],
    plans: tuple[Sequence[Plan], Sequence[Plan]],
) -> tuple[Option, Option, float]:
    """The pair for `asymflow.accelerate`, and what it was measured to change together."""
    stages = tuple(_Stage.of(pipe) for pipe in (first, second))
    small, large = stages
    first_calls, second_calls = ([pair[k] for pair in examples] for k in (0, 1))
    tried = tuple(list(given) or stage.ladder() for given, stage in zip(plans, stages, strict=True))
    _log.info(
        "Measuring both stages once, which takes %d estimates of the first and %d of the second.",
        len(examples) * (FINE + sum(len(plan.steps) for plan in tried[0])),
        len(examples) * ((len(tried[0]) + 1) * FINE + sum(len(plan.steps) for plan in tried[1])),
    )
    seen, _ = small.make(small.limit, first_calls)
    limit, _ = large.make(large.limit, second_calls, seen)
    options: tuple[list[Option], list[Option]] = ([], [])
    for plan in tried[0]:
        made, cost = small.make(plan, first_calls)
        shown, _ = large.make(large.limit, second_calls, made)
        options[0].append(Option(plan, cost, float(rms(shown, limit).mean())))
    for plan in tried[1]:
        made, cost = large.make(plan, second_calls, seen)
        options[1].append(Option(plan, cost, float(rms(made, limit).mean())))
    one, other = choose(*options, seconds)
    made, _ = small.make(one.plan, first_calls)
    made, _ = large.make(other.plan, second_calls, made)
    return one, other, float(rms(made, limit).mean())


def choose(
    first: Sequence[Option], second: Sequence[Option], seconds: float
) -> tuple[Option, Option]:
    """The pair with the least error within a budget that both share.

    Raises:
        InputError: no pair is within it.
    """
    pairs = list(product(first, second))
    possible = [(a, b) for a, b in pairs if a.seconds + b.seconds <= seconds]
    if not possible:
        least = min(a.seconds + b.seconds for a, b in pairs)
        raise InputError(
            f"Both stages take {least:.3g} seconds at least, and the budget is {seconds:g}. Raise "
            "it, or give plans of fewer steps."
        )
    return min(possible, key=lambda pair: math.hypot(pair[0].error, pair[1].error))


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """A call of a stage, and the seed of its noise."""

    inputs: Call
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """A pipeline as it is measured."""

    pictures: Pictures
    limit: Plan

    @classmethod
    def of(cls, pipe: Any) -> _Stage:
        family = family_of(pipe)
        limit = plan_of(refined(family.convention(pipe), FINE), name="limit")
        return cls(Pictures(copy_of(pipe), family), limit)

    def ladder(self) -> list[Plan]:
        """Plans of the pipeline's own spacing."""
        convention = self.pictures.family.convention(self.pictures.pipe)
        counts = [n for n in STEPS if convention.most is None or n <= convention.most]
        return [
            plan_of(convention.times(n), solver="corrected2", name=f"{n} steps")
            for n in counts or [convention.most or STEPS[0]]
        ]

    def make(
        self, plan: Plan, calls: Sequence[Call], images: Tensor | None = None
    ) -> tuple[Tensor, float]:
        """Pictures [b, c, h, w] of a plan, and the median of seconds per picture.

        Args:
            images: [b, c, h, w] of the stage before.
        """
        samples = [
            _Sample(call if images is None else {**call, "image": images[i : i + 1]}, i)
            for i, call in enumerate(calls)
        ]
        made = self.pictures.planned(plan, samples)
        return made, statistics.median(self.pictures.seconds)
