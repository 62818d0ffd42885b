"""Automatic plans for pipelines: as accurate as their own sampler, and cheaper.

The error of the pipeline's own sampler against the limit of many steps is measured, and the
cheapest plan with no larger error is chosen. A profile of the network proposes plans; the choice is
made on pictures that the pipeline makes with them, and the evidence is measured on others.
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.core.flow import fine_time
from asymflow.core.schedules import plan_of
from asymflow.core.statistics import mean_interval
from asymflow.core.types import FULL, Evidence, Plan, Profile, Request, Tier
from asymflow.integrations.diffusers.original import Baseline, original
from asymflow.integrations.diffusers.runs import run
from asymflow.models.diffusers.conventions import Convention
from asymflow.models.diffusers.pipelines import (
    Call,
    Family,
    PipelineAdapter,
    bound,
    capture_call,
    copy_of,
    guidance,
    listen,
    quiet,
)
from asymflow.planning import planner
from asymflow.planning.profiler import profile
from asymflow.planning.verifier import corrected, only, rms

CANDIDATES = 24
"""Moves between candidate times."""
FINE = 64
"""Moves of the reference."""
LEAST = 0.005
"""Time below which nothing is seen: levels of a byte are 2 / 255 apart."""
UNSEEN = 2 / 255
"""Root mean square below which a difference is none: one level of a byte. A sampler of many steps
can be nearer to the limit than any picture file tells."""
SHIFTS = (1.0, 0.5, 0.25, 0.125)
"""Of the pipeline's own grid, where others would try it: as it is, and denser near the picture."""
CALIBRATION, CHOSEN, FRESH = 4, 4, 8
"""Pictures to profile on, to choose a plan by, and to measure what it keeps."""

PROMPTS = (
    "a red fox in the snow",
    "a bowl of fruit on a wooden table",
    "portrait of an old sailor, oil painting",
    "a city street at night in the rain",
)
"""Of pipelines that take prompts, when no examples are given."""

_log = logging.getLogger("asymflow")
_ALONE = threading.RLock()


@contextmanager
def measuring(*pipes: Any) -> Generator[None]:
    """While pipelines are measured: one measurement at a time, and networks as they are used.

    Two at once would time each other. Dropout of a network that was left in training would become
    a part of the plan; its modules are put back into training afterwards.
    """
    with _ALONE:
        networks = {part for pipe in pipes for part in pipe.components.values()
                    if isinstance(part, torch.nn.Module)}  # fmt: skip
        training = [part for network in networks for part in network.modules() if part.training]
        for part in training:
            part.training = False
        try:
            yield
        finally:
            for part in training:
                part.training = True


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture: a call of the pipeline, and its seed."""

    call: Call
    seed: int


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


@dataclass(slots=True, eq=False)
class Pictures:
    """Makes pictures with a pipeline, and counts what they cost."""

    pipe: Any
    family: Family
    forwards: int = 0
    seconds: list[float] = field(default_factory=list[float])

    def planned(self, plan: Plan, samples: Sequence[Sample]) -> Tensor:
        """States x_0 [b, c, h, w] of the pictures of a plan."""
        return self._make(partial(run, self.pipe, type(self.pipe), self.family, plan), samples)

    def original(self, baseline: Baseline, samples: Sequence[Sample]) -> Tensor:
        """Those of the pipeline's own sampler, in as many steps as the samples say."""
        pipe = copy_of(self.pipe, scheduler=baseline.scheduler)
        return self._make(lambda arguments: pipe(**arguments), samples)

    def _make(self, call: Callable[[Mapping[str, Any]], Any], samples: Sequence[Sample]) -> Tensor:
        states: list[Tensor] = []
        self.seconds = []
        for sample in samples:
            began = time.perf_counter()
            generator = torch.Generator().manual_seed(sample.seed)
            given = {**sample.call, "generator": generator, "output_type": "pt"}
            made = call(bound(self.pipe, given))
            images: Tensor = made.images.float().cpu()
            if not images.isfinite().all():  # of which clamping would leave something
                images = torch.full_like(images, math.nan)
            self.seconds.append(time.perf_counter() - began)
            states.append((2 * images - 1 if self.family.unit else images).clamp(-1, 1))
        return torch.cat(states)

    @contextmanager
    def counting(self, total: int) -> Generator[Any]:
        """Make the pictures with a copy of the pipeline, which is what is yielded.

        It counts the network's passes per picture on the pipeline's progress bar.
        """
        pipe = self.pipe

        def answer(forward: Callable[..., Any], named: Mapping[str, Any]) -> Tensor:
            rows = len(named[self.family.state])
            self.forwards += rows
            bar.update(rows)
            return forward(**{**named, "return_dict": False})[0]

        counted = capture_call(getattr(pipe, self.family.network), answer)
        self.pipe = copy_of(pipe, **{self.family.network: counted}, **quiet(pipe))
        try:
            with pipe.progress_bar(total=total) as bar:
                yield self.pipe
        finally:
            self.pipe = pipe


def make(
    pipe: Any,
    family: Family,
    adapter: PipelineAdapter,
    examples: Sequence[Call],
    steps: int | None = None,
) -> Plan:
    """The plan and its evidence.

    Where none is cheaper it is the pipeline's own schedule, or as many steps of something else.

    Args:
        adapter: of the pipeline's network.
        examples: calls of the pipeline.
        steps: in the place of that search, the price of the plan in full estimates.
    """
    baseline, pictures = Baseline.of(pipe), Pictures(pipe, family)
    grid = adapter.convention.times
    if steps is not None:
        grid(steps)  # refuses what no schedule has, before anything is measured
    scale = guidance(bound(pipe, examples[0]))
    height, width = listen(pipe, family, examples[0]).z.shape[-2:]
    passes = 2 if scale != 1 else 1
    expected = passes * _estimates(baseline.steps, steps)
    _log.info(
        "Measuring %s once, which takes about %d forward passes: as many as %d of its pictures.",
        type(pipe).__name__,
        expected,
        math.ceil(expected / (passes * baseline.steps)),
    )
    requests = [
        Request(each.call, (height, width), each.seed, scale)
        for each in _samples(examples, CALIBRATION, 0)
    ]
    # A pipeline that begins with a picture begins at the same noise with plans and on its own.
    batchable = [{**each, "num_inference_steps": baseline.steps} for each in examples]
    chosen, fresh = _samples(batchable, CHOSEN, 1000), _samples(batchable, FRESH, 2000)
    fine = plan_of(refined(adapter.convention, FINE), name="reference")
    with pictures.counting(expected) as counted:
        adapter = replace(adapter, pipe=counted, ask=getattr(counted, family.network))
        measured = profile(
            adapter, requests, times=refined(adapter.convention, CANDIDATES), memory=False
        )
        limit = _limit(pictures, fine, chosen)

        def best(steps: int) -> tuple[Plan, NDArray[np.float64]]:
            plans = _proposals(measured, steps, grid(steps))
            reached = [rms(pictures.planned(each, chosen), limit) for each in plans]
            index = int(np.argmin([np.nan_to_num(each.mean(), nan=np.inf) for each in reached]))
            return plans[index], reached[index]

        if steps is None:
            own, errors = _own(pictures, baseline, chosen, limit)
            plan = _cheapest(best, baseline.steps, own, errors)
            if plan is None:
                _log.warning("No cheaper plan comes as near to the limit as %s.", baseline.name)
                plan, _ = best(baseline.steps)
        else:
            plan, _ = best(steps)
        evidence = _prove(pictures, plan, fine, baseline, fresh, measured)
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


def _cheapest(
    best: Callable[[int], tuple[Plan, NDArray[np.float64]]],
    most: int,
    own: Plan | None,
    errors: NDArray[np.float64],
) -> Plan | None:
    """The best plan of the fewest steps below `most` that is no further from the limit than `own`.

    `own` if there is none.
    """
    plan, few, many = own, 2, most - 1
    while few <= many:
        steps = (few + many) // 2
        found, reached = best(steps)
        if _no_further(reached, errors):
            plan, many = found, steps - 1
        else:
            few = steps + 1
    return plan


def _own(
    pictures: Pictures, baseline: Baseline, samples: Sequence[Sample], limit: Tensor
) -> tuple[Plan | None, NDArray[np.float64]]:
    """The pipeline's own sampler as a plan, if it is one, and how far it is from the limit [b].

    Where `DDIMScheduler` cuts x_0 it keeps the noise that fits what it has cut off. At no number of
    steps does that lead to the limit, and a plan should not be allowed the same distance. So what
    counts is its grid, with the noise that fits, if that is nearer.
    """
    errors = _distances(pictures, baseline, samples, limit)
    if errors is None:
        return None, np.zeros(len(samples))  # within `UNSEEN` of the limit, then
    with suppress(InputError):
        pipe = copy_of(pictures.pipe, scheduler=baseline.scheduler)
        own = original(pipe, pictures.family, baseline.steps)
        consistent = plan_of(own.times, solver="multistep1")
        others = rms(Pictures(pipe, pictures.family).planned(consistent, samples), limit)
        return own, min(errors, others, key=np.mean)
    return None, errors


def _distances(
    pictures: Pictures, baseline: Baseline, samples: Sequence[Sample], limit: Tensor
) -> NDArray[np.float64] | None:
    """How far the pipeline's own sampler is from the limit [b]; None where it makes no picture."""
    try:
        made = pictures.original(baseline, samples)
    except Exception as error:  # whatever a scheduler of another library may raise
        reason = f"{type(error).__name__}: {error}"
    else:
        if made.isfinite().all():
            return rms(made, limit)
        reason = "its pictures are not finite"
    _log.warning(
        "%s makes no picture in this pipeline (%s), so plans are compared with the limit alone.",
        baseline.name,
        reason,
    )
    return None


def _limit(pictures: Pictures, fine: Plan, samples: Sequence[Sample]) -> Tensor:
    """Where the model leads.

    Raises:
        InputError: nowhere.
    """
    made = pictures.planned(fine, samples)
    if not made.isfinite().all():
        raise InputError(
            f"{type(pictures.pipe).__name__} makes pictures that are not finite in "
            f"{len(fine.steps)} steps, so no plan can come near to them. Check its weights for "
            "NaN, and its dtype for overflow: float16 is too narrow for some models."
        )
    return made


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


def _estimates(own: int, steps: int | None) -> int:
    """About how many full estimates measuring takes, beside `own` steps."""
    profiling = CALIBRATION * CANDIDATES * 4
    references = FINE * (CHOSEN + FRESH) + own * (2 * CHOSEN + FRESH)
    tried = (own / 3) * math.log2(max(own, 2)) if steps is None else steps
    return round(profiling + references + CHOSEN * 11 * tried)


def _samples(examples: Sequence[Call], count: int, seed: int) -> list[Sample]:
    return [Sample(examples[i % len(examples)], seed + i) for i in range(count)]


def _proposals(measured: Profile, steps: int, grid: Sequence[float]) -> list[Plan]:
    """Plans for the price of so many full estimates: by the profile, and what others would run."""
    budget = 1.0001 * steps * measured.cost_ms[0]
    unreduced = tuple(tier for tier in measured.tiers if tier.unreduced)
    kinds: dict[tuple[Tier, ...], None] = dict.fromkeys((measured.tiers, unreduced, (FULL,)))
    found: dict[tuple[object, ...], Plan] = {}
    for tiers in kinds:
        with suppress(InputError):  # nothing of that kind fits
            plan = planner.plan(only(measured, tiers), budget=budget)
            for each in (plan, corrected(plan)):
                found[each.steps] = each
    for shift in SHIFTS:
        inner = fine_time(torch.tensor(grid[1:], dtype=torch.float64), shift).tolist()
        for solver in ("damped2", "corrected2"):
            plan = plan_of((grid[0], *inner), solver=solver)
            found[plan.steps] = plan
    own = plan_of(grid, solver="multistep2")
    found[own.steps] = own
    return list(found.values())


def _no_further(errors: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether pictures are as near to the limit as others of the same noise, or as `UNSEEN`.

    By more than one standard error, since the best of several plans on a few pictures is not quite
    as good on others.
    """
    further = errors - np.maximum(others, UNSEEN)
    return bool(further.mean() + further.std(ddof=1) / math.sqrt(len(further)) <= 0)


def _prove(
    pictures: Pictures,
    plan: Plan,
    fine: Plan,
    baseline: Baseline,
    fresh: Sequence[Sample],
    measured: Profile,
) -> Evidence:
    """What the plan keeps, on pictures that it was not chosen by."""
    limit = _limit(pictures, fine, fresh)
    before = _distances(pictures, baseline, fresh, limit)
    compared: dict[str, str] = {}
    if before is not None:
        compared = {
            "original": baseline.name,
            "original_seconds": f"{statistics.median(pictures.seconds):.3g}",
            "original_rms": str(mean_interval(before)),
        }
    after = rms(_limit(pictures, plan, fresh), limit)
    known = dict(zip(measured.tiers, measured.cost_ms, strict=True))
    made = {
        **measured.made,
        "pictures": str(len(fresh)),
        "seconds": f"{statistics.median(pictures.seconds):.3g}",
        **compared,
    }
    return Evidence(
        made=made,
        cost_ms=tuple(step.evaluations * known[step.tier] for step in plan.steps),
        full_ms=measured.cost_ms[0],
        shares=(),
        predicted=None,
        rms=mean_interval(after),
        distance=None,
        pictures=len(fresh),
    )
