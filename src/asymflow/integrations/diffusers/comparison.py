"""The pipeline's own sampler, as what a plan is compared with."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of
from asymflow.core.types import Plan, Request
from asymflow.integrations.diffusers.original import clips, draws_noise
from asymflow.integrations.diffusers.task import Task
from asymflow.models.diffusers.own import original
from asymflow.models.diffusers.pipelines import copy_of
from asymflow.planning.proof import UNSEEN, Errors
from asymflow.planning.verifier import Evaluator

_log = logging.getLogger("asymflow")


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """The pipeline's own sampler.

    Attributes:
        plan: the same as a plan, if it is one.
        errors: how far it is from the limit [b]; None where nothing can be compared with it.
        consistent: whether `errors` are those of its grid with the noise that fits clipped
            estimates, which leads nearer to the limit than what the scheduler does.
        note: for the evidence, why that is so.
        seconds: of one of its pictures, the median; None where it makes none.
    """

    plan: Plan | None = None
    errors: Errors | None = None
    consistent: bool = False
    note: str = ""
    seconds: float | None = None


def own_sampler(task: Task, judge: Evaluator) -> Own:
    """The pipeline's own sampler, measured on the pictures that candidates are compared on.

    Where `DDIMScheduler` cuts x_0 it keeps the noise that fits what it has cut off. At no number of
    steps does that lead to the limit, and a plan should not be allowed the same distance. So what
    counts is its grid, with the noise that fits, if that is nearer.
    """
    name, pictures = task.baseline.name, task.pictures
    pipe = copy_of(pictures.pipe, scheduler=task.baseline.scheduler)
    if draws_noise(pipe, pictures.family, task.calls[0]):
        _log.warning(
            "%s draws noise at every step, so its pictures are others each time, and plans are "
            "compared with the limit alone.",
            name,
        )
        return Own(note="draws noise at every step")
    errors = distances(task, task.by_baseline("own", judge))
    if errors is None:
        return Own(note="makes no picture in this pipeline")
    seconds = seconds_of(task, None, judge.requests)
    try:
        plan = original(pipe, pictures.family, task.baseline.steps)
    except InputError:
        return Own(None, errors, seconds=seconds)
    if not clips(pipe.scheduler):
        return Own(plan, errors, seconds=seconds)
    others = judge.errors(fitting(plan))
    if others.mean() >= errors.mean():
        return Own(plan, errors, seconds=seconds)
    if errors.mean() <= max(2 * others.mean(), UNSEEN):
        return Own(plan, others, True, seconds=seconds)
    _log.warning(
        "%s keeps the noise of values that are clipped, and leads elsewhere than the model "
        "does in many steps: its pictures are %.3f from that limit, and %.3f with the noise "
        "that fits. Accelerated pictures are near to the limit, and differ from its own.",
        name,
        errors.mean(),
        others.mean(),
    )
    note = f"keeps the noise of clipped values: {errors.mean():.3f} from the limit"
    return Own(plan, others, True, note, seconds)


def fitting(plan: Plan) -> Plan:
    """The pipeline's own grid with the noise that fits estimates that were clipped."""
    return plan_of(plan.times, solver="multistep1")


_ANY = plan_of((1.0, 0.0), name="baseline")
"""Stands for the baseline, which is no plan, where errors are kept by plan."""


def distances(task: Task, baseline: Evaluator) -> Errors | None:
    """How far the pipeline's own sampler is from the limit [b]; None where it makes no picture."""
    name = task.baseline.name
    try:
        errors = baseline.errors(_ANY)
    except Exception as error:  # whatever a scheduler of another library may raise
        reason = f"{type(error).__name__}: {error}"
    else:
        if np.isfinite(errors).all():
            return errors
        reason = "its pictures are not finite"
    _log.warning(
        "%s makes no picture in this pipeline (%s), so plans are compared with the limit alone.",
        name,
        reason,
    )
    return None


def seconds_of(task: Task, plan: Plan | None, requests: Sequence[Request]) -> float:
    """Median seconds of a picture of the plan, or of the baseline, that were just made.

    Where what they showed was known from before, another one is made.
    """
    if not task.pictures.seconds:
        if plan is None:
            task.pictures.original(task.baseline, requests[:1])
        else:
            task.pictures.planned(plan, requests[:1])
    return statistics.median(task.pictures.seconds)
