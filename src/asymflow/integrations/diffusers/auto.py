"""Automatic plans for pipelines: as accurate as their own sampler, and cheaper.

The error of the pipeline's own sampler against the limit of many steps is measured, and the
cheapest plan with no larger error is chosen (`asymflow.planning.selection`). A profile of the
network proposes plans. They are compared on pictures that the network makes in batches, with
prompts encoded once; what is chosen is proved on others, by the pipeline itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.core.statistics import mean_interval
from asymflow.core.types import Evidence, Plan, Profile, Request
from asymflow.integrations.diffusers.comparison import (
    Own,
    distances,
    fitting,
    own_sampler,
    seconds_of,
)
from asymflow.integrations.diffusers.measuring import Pictures, as_pictures
from asymflow.integrations.diffusers.original import Baseline
from asymflow.integrations.diffusers.proposals import proposals
from asymflow.integrations.diffusers.task import CANDIDATES, COARSER, FINE, Task
from asymflow.models.diffusers.own import default_steps
from asymflow.models.diffusers.pipelines import (
    Call,
    Family,
    PipelineAdapter,
    bound,
    guidance,
    listen,
)
from asymflow.planning import profiler, selection
from asymflow.planning.effort import QUICK
from asymflow.planning.encoded import Encoded
from asymflow.planning.journal import Journal
from asymflow.planning.proof import Errors, Limit, Proof
from asymflow.planning.proposals import Fits
from asymflow.planning.replay import small
from asymflow.planning.selection import Search, evenly, known_to, limit_plan
from asymflow.planning.verifier import Evaluator

CALIBRATION, FRESH = 4, 16
"""Pictures to profile on and to choose a plan by, and to measure what it keeps beside the
pipeline's own sampler. These are the least numbers: every example serves equally often."""
GROWTH = profiler.Growth(pictures=2, times=4, moves=8)
"""How the growth of errors is measured. Less exactly than for a profile that is kept, since plans
are compared by running them."""
SOLVER = "corrected2"
"""Of the profile's reference, which is the limit that plans are compared with."""
FEW = 2
"""Pictures that limits are compared on."""
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


def make(
    pipe: Any,
    family: Family,
    adapter: PipelineAdapter,
    examples: Sequence[Call],
    steps: int | None = None,
    journal: Journal | None = None,
) -> Plan:
    """The plan and its evidence.

    Where no plan is cheaper it is the pipeline's own schedule, or as many steps of something else.

    Args:
        pipe: the pipeline.
        family: how it calls its network.
        adapter: of the pipeline's network.
        examples: calls of the pipeline.
        steps: in the place of that search, the price of the plan in full estimates.
        journal: keeps what was measured until the plan is made, so that an interrupted search
            resumes.
    """
    baseline, pictures = Baseline.of(pipe), Pictures(pipe, family)
    convention = adapter.convention
    if steps is not None:
        convention.times(steps)  # refuses what no schedule has, before anything is measured
    scale = guidance(bound(pipe, examples[0]))
    height, width = listen(pipe, family, examples[0]).z.shape[-2:]
    passes = 2 if scale != 1 else 1
    expected = {
        name: passes * count
        for name, count in _expected(baseline.steps, steps, len(examples)).items()
    }
    _log.info(
        "Measuring %s once, which takes about %d forward passes: as many as %d of its pictures.",
        type(pipe).__name__,
        sum(expected.values()),
        math.ceil(sum(expected.values()) / (passes * default_steps(pipe))),
    )
    journal = Journal(None) if journal is None else journal
    with pictures.counting(expected) as counted:
        network = replace(adapter, pipe=counted, ask=getattr(counted, family.network))
        request = Request({}, (height, width), 0, scale)
        task = Task.of(baseline, pictures, Encoded(network), convention, examples, request, journal)
        with pictures.stage("profile"):
            measured, ends = _profiled(task)
        chosen = task.requests(CALIBRATION, 0)
        with pictures.stage("limit"):
            if not task.alone:  # the network alone leads elsewhere
                ends = task.states("limit", task.limits[-1], chosen)
            limit = Limit.of(ends, 0.0)
        judge = task.judge("errors", chosen, limit)
        with pictures.stage("own"):
            own = own_sampler(task, judge)

        fits = Fits(
            task.adapter,
            lambda count: task.requests(count, 4000),
            measured,
            (0.0, 1.0),
            task.times,
            journal,
        )

        def kinds(count: int) -> dict[str, Plan]:
            found = proposals(measured, count, convention)
            return found | fits.at(count) if task.alone else found

        search = Search(judge, kinds)
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


def _profiled(task: Task) -> tuple[Profile, Tensor]:
    """The profile, and where its reference leads as the pictures of `CALIBRATION` requests."""

    def measure() -> tuple[Profile, Tensor]:
        found, ends = profiler.measure(
            task.adapter,
            task.requests(CALIBRATION, 0),
            times=task.times,
            memory=False,
            growth=GROWTH,
            solver=SOLVER,
            partial=partial,
        )
        return found, as_pictures(ends)

    outputs = CALIBRATION * profiler.FINER * len(task.times)
    few = small(task.adapter, task.request.size, outputs)
    partial = task.journal.path("profile.partial") if few else None

    return task.journal.profile(measure)


@dataclass(frozen=True, slots=True, eq=False)
class _Proved:
    """A plan with its proof, and the median seconds of a picture."""

    plan: Plan
    proof: Proof
    seconds: float


def _as_near(task: Task, search: Search, own: Own) -> _Proved:
    """The cheapest plan that is as near to the limit as the pipeline's own sampler, proved."""
    most, name = task.baseline.steps, task.baseline.name
    allowed = np.zeros(len(search.judge.requests)) if own.errors is None else own.errors
    with task.pictures.stage("search"):
        limits = known_to(search.judge, task.limits, task.reference_moves)
        price = search.near(np.maximum(allowed, limits), most)
    prove = _prover(task, search.judge, own, allowed)
    while price is not None and price < most:
        found = prove(search.best(price))
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
    return prove(search.best(most) if own.plan is None else own.plan)


def _priced(task: Task, search: Search, own: Own, steps: int) -> _Proved:
    """The best plan of a price, with what it keeps."""
    with task.pictures.stage("search"):
        plan = search.best(steps)
    return _prover(task, search.judge, own, search.judge.errors(plan))(plan)


def _prover(task: Task, chosen: Evaluator, own: Own, errors: Errors) -> Callable[[Plan], _Proved]:
    """Measures plans on pictures that none was chosen by, made by the pipeline itself.

    Args:
        chosen: compares plans on other pictures.
        errors: of `chosen`, like those that are about to be measured. The limit need not be much
            nearer.
    """
    fresh = task.requests(FRESH, 2000)
    with task.pictures.stage("fresh limit"):
        plan, off = limit_plan(chosen, task.limits, errors, few=FEW, moves=task.reference_moves)
        limit = Limit.of(task.states(f"fresh-{len(plan.steps)}", plan, fresh), off)
    judge = task.judge("fresh", fresh, limit)
    before = None
    with task.pictures.stage("fresh own"):
        if own.consistent and own.plan is not None:
            before = judge.errors(fitting(own.plan))
        elif own.errors is not None:
            before = distances(task, task.by_baseline("fresh-own", judge))
    proving = task.by_pipeline("proof", judge)

    def prove(plan: Plan) -> _Proved:
        with task.pictures.stage(f"proof of {len(plan.steps)}", proof=0):
            proof = Proof(proving.errors(plan), before, limit)
            return _Proved(plan, proof, seconds_of(task, plan, fresh))

    return prove


def _evidence(found: _Proved, own: Own, baseline: Baseline, measured: Profile) -> Evidence:
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
        **proof.stated,
    }
    if proof.others is not None:
        made["original"] = baseline.name
        made["original_rms"] = str(mean_interval(proof.others))
    if own.seconds is not None:
        made["original_seconds"] = f"{own.seconds:.3g}"
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


def _expected(own: int, steps: int | None, examples: int) -> dict[str, int]:
    """About how many full estimates every stage takes, of a pipeline of `own` steps."""
    chosen, fresh = evenly(CALIBRATION, examples), evenly(FRESH, examples)
    price = max(1, own // 4) if steps is None else steps
    first = 12 * selection.FEW + selection.FINALISTS * (chosen - selection.FEW)
    further = selection.KEPT * selection.FEW + selection.FINALISTS * (chosen - selection.FEW)
    tries = QUICK.first * price
    if steps is None:
        tries = QUICK.first * selection.BEGIN + 3 * price * QUICK.again
    fits = evenly(QUICK.pictures, examples) * (QUICK.moves + tries)
    growth = GROWTH.pictures * GROWTH.times * 2 * (GROWTH.moves or 0)
    return {
        "profile": chosen * CANDIDATES * profiler.FINER + growth,
        "own": own * chosen,
        "search": COARSER[-1] * chosen
        + fits
        + price * (first + (3 * further if steps is None else 0)),
        "fresh limit": FINE * 3 // 4 * fresh + sum(COARSER[:2]) * FEW,
        "fresh own": own * fresh,
        "proof": price * fresh,
    }
