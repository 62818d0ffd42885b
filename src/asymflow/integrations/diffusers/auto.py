"""Automatic plans for pipelines: as accurate as their own sampler, and cheaper.

The error of the pipeline's own sampler against the limit of many steps is measured, and the
cheapest plan with no larger error is chosen (`asymflow.planning.selection`). A profile of the
network proposes plans. They are compared on pictures that the network makes in batches, with
prompts encoded once; what is chosen is proved on others, by the pipeline itself.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asymflow.core.errors import InputError
from asymflow.core.flow import fine_time
from asymflow.core.schedules import plan_of
from asymflow.core.statistics import mean_interval
from asymflow.core.types import FULL, Evidence, Plan, Profile, Request, Tier
from asymflow.integrations.diffusers.measuring import Pictures, Rollouts, Sample
from asymflow.integrations.diffusers.original import Baseline, draws_noise, original
from asymflow.models.diffusers.conventions import Convention
from asymflow.models.diffusers.pipelines import (
    Call,
    Family,
    PipelineAdapter,
    bound,
    copy_of,
    guidance,
    listen,
)
from asymflow.planning import planner, selection
from asymflow.planning.encoded import Encoded
from asymflow.planning.profiler import profile
from asymflow.planning.selection import Limit, Make, Proof, Search, evenly
from asymflow.planning.verifier import corrected, only, rms

CANDIDATES = 24
"""Moves between candidate times."""
FINE = 64
"""Moves of the reference; half as many tell how far that is from the limit."""
LEAST = 0.005
"""Time below which nothing is seen: levels of a byte are 2 / 255 apart."""
SHIFTS = (1.0, 0.5, 0.25, 0.125)
"""Of the pipeline's own grid, where others would try it: as it is, and denser near the picture."""
CALIBRATION, CHOSEN, FRESH = 4, 4, 16
"""Pictures to profile on, to choose a plan by, and to measure what it keeps. The last two are the
least numbers: every example serves equally often."""
LIMITS = 4
"""Pictures that the error of a limit is measured on."""
AGREE = 0.004
"""Root mean square up to which the network alone makes the pictures of the pipeline."""
DEARER = 1.25
"""Largest factor of the price of the next plan that is tried, where a proof fails."""

PROMPTS = (
    "a red fox in the snow",
    "a bowl of fruit on a wooden table",
    "portrait of an old sailor, oil painting",
    "a city street at night in the rain",
)
"""Of pipelines that take prompts, when no examples are given."""

_log = logging.getLogger("asymflow")

Errors = NDArray[np.float64]


def examples_of(pipe: Any, examples: Sequence[Call]) -> tuple[Call, ...]:
    """What to call the pipeline with while it is measured.

    Raises:
        InputError: it cannot be called without saying what for.
    """
    if examples:
        for call in examples:
            bound(pipe, call)
        # Pictures are measured from seeds of our own, and the caller's generators left alone.
        return tuple(
            {name: value for name, value in call.items() if name != "generator"}
            for call in examples
        )
    if "prompt" not in bound(pipe, {}):
        return ({},)
    if getattr(pipe, "text_encoder", None) is None:
        raise InputError(
            f"{type(pipe).__name__} has no text encoder, so there is nothing to measure it with. "
            "Say how you call it: examples=[{'prompt_embeds': ...}, ...]."
        )
    return tuple({"prompt": prompt} for prompt in PROMPTS)


def conditions(pipe: Any, family: Family, call: Call) -> dict[str, str]:
    """What a plan is made for besides the model."""
    height, width = listen(pipe, family, call).z.shape[-2:]
    scale = guidance(bound(pipe, call))
    return {"size": f"{width}x{height}", "guidance_scale": f"{scale:g}"}


@dataclass(frozen=True, slots=True, eq=False)
class _Own:
    """The pipeline's own sampler.

    Attributes:
        plan: the same as a plan, if it is one.
        errors: how far it is from the limit [b]; None where nothing can be compared with it.
        consistent: whether `errors` are those of its grid with the noise that fits clipped
            estimates, which leads nearer to the limit than what the scheduler does.
        note: for the evidence, why that is so.
    """

    plan: Plan | None = None
    errors: Errors | None = None
    consistent: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What a pipeline is measured with.

    Attributes:
        make: makes pictures by plans.
        fine, coarse: plans of the limit.
        calls: examples, as the pipeline is called with them on its own.
    """

    baseline: Baseline
    pictures: Pictures
    make: Make[Sample]
    fine: Plan
    coarse: Plan
    calls: Sequence[Call]

    @classmethod
    def of(
        cls,
        baseline: Baseline,
        pictures: Pictures,
        alone: Rollouts,
        convention: Convention,
        examples: Sequence[Call],
    ) -> _Task:
        # A pipeline that begins with a picture begins at the same noise with plans and on its own.
        calls = [{**each, "num_inference_steps": baseline.steps} for each in examples]
        fine, coarse = (
            plan_of(refined(convention, count), solver="corrected2", name="reference")
            for count in (FINE, FINE // 2)
        )
        probe = plan_of(convention.times(min(2, convention.most or 2)))
        own, others = (each.planned(probe, _samples(calls, 1, 0)) for each in (alone, pictures))
        # The network alone does not know of pictures to begin with, of masks, or of other noise.
        same = float(rms(own, others)[0]) <= AGREE
        make = alone.planned if same else pictures.planned
        return cls(baseline, pictures, make, fine, coarse, calls)

    def samples(self, count: int, seed: int) -> list[Sample]:
        return _samples(self.calls, evenly(count, len(self.calls)), seed)

    def limit(self, samples: Sequence[Sample]) -> Limit:
        return Limit.of(self.make, self.fine, self.coarse, samples, LIMITS)


def make(
    pipe: Any,
    family: Family,
    adapter: PipelineAdapter,
    examples: Sequence[Call],
    steps: int | None = None,
) -> Plan:
    """The plan and its evidence.

    Where no plan is cheaper it is the pipeline's own schedule, or as many steps of something else.

    Args:
        pipe: the pipeline.
        family: how it calls its network.
        adapter: of the pipeline's network.
        examples: calls of the pipeline.
        steps: in the place of that search, the price of the plan in full estimates.
    """
    baseline, pictures = Baseline.of(pipe), Pictures(pipe, family)
    convention = adapter.convention
    if steps is not None:
        convention.times(steps)  # refuses what no schedule has, before anything is measured
    scale = guidance(bound(pipe, examples[0]))
    height, width = listen(pipe, family, examples[0]).z.shape[-2:]
    passes = 2 if scale != 1 else 1
    expected = passes * _estimates(baseline.steps, steps, len(examples))
    _log.info(
        "Measuring %s once, which takes about %d forward passes: as many as %d of its pictures.",
        type(pipe).__name__,
        expected,
        math.ceil(expected / (passes * baseline.steps)),
    )
    with pictures.counting(expected) as counted:
        network = replace(adapter, pipe=counted, ask=getattr(counted, family.network))
        encoded = Encoded(network)
        calibration = [
            Request(each.call, (height, width), each.seed, scale)
            for each in _samples(examples, CALIBRATION, 0)
        ]
        times = refined(convention, CANDIDATES)
        measured = profile(encoded, calibration, times=times, memory=False)
        alone = Rollouts(encoded, (height, width), scale)
        task = _Task.of(baseline, pictures, alone, convention, examples)
        chosen = task.samples(CHOSEN, 1000)
        limit = task.limit(chosen)
        own = _own(task, chosen, limit)

        def kinds(count: int) -> list[Plan]:
            return _proposals(measured, count, convention.times(count))

        search = Search(task.make, kinds, chosen, limit)
        proved = _as_near(task, search, own) if steps is None else _priced(task, search, own, steps)
        plan = proved.plan
        evidence = _evidence(proved, own, baseline, measured)
    made = {**evidence.made, "measuring_forwards": str(pictures.forwards)}
    _log.info(
        "Measured with %d forward passes: %s s per picture instead of %s s; difference to the "
        "limit %s instead of %s.",
        pictures.forwards,
        made["seconds"],
        made.get("original_seconds", "unknown"),
        evidence.rms,
        made.get("original_rms", "an unknown one"),
    )
    return Plan("auto", plan.steps, replace(evidence, made=made))


@dataclass(frozen=True, slots=True, eq=False)
class _Proved:
    """A plan with its proof, and the median seconds of a picture of its own and of the baseline."""

    plan: Plan
    proof: Proof
    seconds: float
    own_seconds: float | None


def _own(task: _Task, chosen: Sequence[Sample], limit: Limit) -> _Own:
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
        return _Own(note="draws noise at every step")
    errors = _distances(task, chosen, limit)
    if errors is None:
        return _Own(note="makes no picture in this pipeline")
    with suppress(InputError):
        plan = original(pipe, pictures.family, task.baseline.steps)
        others = rms(task.make(_fitting(plan), chosen), limit.states)
        if others.mean() >= errors.mean():
            return _Own(plan, errors)
        if errors.mean() <= max(2 * others.mean(), selection.UNSEEN):
            return _Own(plan, others, consistent=True)
        _log.warning(
            "%s keeps the noise of values that are clipped, and leads elsewhere than the model "
            "does in many steps: its pictures are %.3f from that limit, and %.3f with the noise "
            "that fits. Accelerated pictures are near to the limit, and differ from its own.",
            name,
            errors.mean(),
            others.mean(),
        )
        note = f"keeps the noise of clipped values: {errors.mean():.3f} from the limit"
        return _Own(plan, others, consistent=True, note=note)
    return _Own(None, errors)


def _fitting(plan: Plan) -> Plan:
    """The pipeline's own grid with the noise that fits estimates that were clipped."""
    return plan_of(plan.times, solver="multistep1")


def _distances(task: _Task, samples: Sequence[Sample], limit: Limit) -> Errors | None:
    """How far the pipeline's own sampler is from the limit [b]; None where it makes no picture."""
    name = task.baseline.name
    try:
        made = task.pictures.original(task.baseline, samples)
    except Exception as error:  # whatever a scheduler of another library may raise
        reason = f"{type(error).__name__}: {error}"
    else:
        if made.isfinite().all():
            return rms(made, limit.states)
        reason = "its pictures are not finite"
    _log.warning(
        "%s makes no picture in this pipeline (%s), so plans are compared with the limit alone.",
        name,
        reason,
    )
    return None


def _as_near(task: _Task, search: Search[Sample], own: _Own) -> _Proved:
    """The cheapest plan that is as near to the limit as the pipeline's own sampler, proved."""
    most, name = task.baseline.steps, task.baseline.name
    allowed = np.zeros(len(search.samples)) if own.errors is None else own.errors
    prove = _prover(task, own)
    price = search.near(allowed, most)
    while price is not None and price < most:
        found = prove(search.best(price).plan)
        if found.proof.kept:
            return found
        _log.info(
            "%d steps are not as near on other pictures: %s, where %.4f were promised, and %d of "
            "%d pictures became others.",
            price,
            found.proof.mean,
            found.proof.promised,
            found.proof.changed,
            len(found.proof.errors),
        )
        # Errors fall with about the square of the number of steps.
        missed = float(found.proof.errors.mean()) / found.proof.promised
        far = DEARER if found.proof.changed or not missed >= 1 else math.sqrt(missed)
        price = max(price + 1, math.ceil(price * min(far, DEARER)))
    _log.warning("No cheaper plan comes as near to the limit as %s.", name)
    return prove(search.best(most).plan if own.plan is None else own.plan)


def _priced(task: _Task, search: Search[Sample], own: _Own, steps: int) -> _Proved:
    """The best plan of a price, with what it keeps."""
    return _prover(task, own)(search.best(steps).plan)


def _prover(task: _Task, own: _Own) -> Callable[[Plan], _Proved]:
    """Measures plans on pictures that none was chosen by, made by the pipeline itself."""
    fresh = task.samples(FRESH, 2000)
    limit = task.limit(fresh)
    before, seconds = None, None
    if own.errors is not None and (before := _distances(task, fresh, limit)) is not None:
        seconds = statistics.median(task.pictures.seconds)
        if own.consistent and own.plan is not None:
            before = rms(task.make(_fitting(own.plan), fresh), limit.states)

    def prove(plan: Plan) -> _Proved:
        made = task.pictures.planned(plan, fresh)
        proof = Proof(rms(made, limit.states), before, limit)
        return _Proved(plan, proof, statistics.median(task.pictures.seconds), seconds)

    return prove


def _evidence(found: _Proved, own: _Own, baseline: Baseline, measured: Profile) -> Evidence:
    """What was measured of a plan."""
    plan, proof = found.plan, found.proof
    count = len(proof.errors)
    if not np.isfinite(proof.errors).all():
        raise InputError(
            f"Plan {plan.name!r} of {len(plan.steps)} steps makes pictures that are not finite. "
            "Check the weights of the model for NaN, and its dtype for overflow."
        )
    made = {
        **measured.made,
        "pictures": str(count),
        "seconds": f"{found.seconds:.3g}",
        "median_rms": f"{np.median(proof.errors):.4f}",
        "worst_rms": f"{proof.errors.max():.4f}",
        "changed": f"{proof.changed} of {count}",
        "limit_rms": f"{proof.limit.error:.4f}",
    }
    if proof.others is not None:
        made["original"] = baseline.name
        made["original_rms"] = str(mean_interval(proof.others))
    if found.own_seconds is not None:
        made["original_seconds"] = f"{found.own_seconds:.3g}"
    if own.note:
        made["original_note"] = own.note
    known = dict(zip(measured.tiers, measured.cost_ms, strict=True))
    return Evidence(
        made=made,
        cost_ms=tuple(step.evaluations * known[step.tier] for step in plan.steps),
        full_ms=measured.cost_ms[0],
        shares=(),
        predicted=None,
        rms=proof.mean,
        distance=None,
        pictures=count,
    )


def refined(convention: Convention, count: int) -> tuple[float, ...]:
    """The grid of so many moves, its last one halved down to the least noise that was trained.

    Of fewer moves, where the model was trained at fewer levels of noise. Equal steps of timesteps
    end with a leap over the noise that the finest detail hides behind.
    """
    most = convention.most
    *nodes, last = convention.times(count if most is None else min(count, most))
    least = max(float(convention.time(torch.zeros(1))), LEAST)
    while nodes[-1] > 2 * least:
        nodes.append(nodes[-1] / 2)
    return (*nodes, last)


def _estimates(own: int, steps: int | None, examples: int) -> int:
    """About how many full estimates measuring takes, of a pipeline of `own` steps."""
    chosen, fresh = evenly(CHOSEN, examples), evenly(FRESH, examples)
    profiling = CALIBRATION * CANDIDATES * 4
    limits = FINE * (chosen + fresh) + FINE // 2 * 2 * LIMITS
    tried = selection.FEW * 11 + (chosen - selection.FEW) * selection.KINDS
    price = own / 4 if steps is None else steps
    searched = price * tried * (1 if steps is not None else 4)
    return round(profiling + limits + own * (chosen + fresh) + searched + fresh * price)


def _samples(examples: Sequence[Call], count: int, seed: int) -> list[Sample]:
    return [Sample(examples[i % len(examples)], seed + i) for i in range(count)]


def _proposals(measured: Profile, steps: int, grid: Sequence[float]) -> list[Plan]:
    """Plans for the price of so many full estimates: by the profile, and what others would run."""
    budget = 1.0001 * steps * measured.cost_ms[0]
    unreduced = tuple(tier for tier in measured.tiers if tier.unreduced)
    kinds: dict[tuple[Tier, ...], None] = dict.fromkeys((measured.tiers, unreduced, (FULL,)))
    found: list[Plan] = []
    for tiers in kinds:
        with suppress(InputError):  # nothing of that kind fits
            plan = planner.plan(only(measured, tiers), budget=budget)
            found += [plan, corrected(plan)]
    for shift in SHIFTS:
        inner = fine_time(torch.tensor(grid[1:], dtype=torch.float64), shift).tolist()
        found += [plan_of((grid[0], *inner), solver=each) for each in ("damped2", "corrected2")]
    found.append(plan_of(grid, solver="multistep2"))
    return list({plan.steps: plan for plan in found}.values())
