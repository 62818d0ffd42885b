"""Compare samplers on any model, by the paired distance to the model's own limit.

Where there are no real pictures to compare with, the judge of a sampler is where the model leads in
many steps: from the same noise, for the same class or prompt. A sampler can be no better than that,
and how near it comes says nothing about the model.

- The limit is guided where the model's own sampler guides, and so are all standard samplers, as
  people run them. Plans of asymflow may guide in a shorter interval of t: what that changes counts
  as their error. The row `limit, guided from ... to ...` shows how much it is.
- The **own sampler** is that of the model's authors (`own_plan`), and over some of its nodes.
- **Euler** (which is DDIM: `baselines.runner`), **Heun**, **UniPC** and **DPM-Solver++**, the last
  two by diffusers, **DEIS** and **iPNDM**, each on the best of all grids of `baselines.times`. The
  choice is made on pictures that are not in the table, the better half of grids going into the next
  round. A quick run leaves out DEIS, iPNDM, DPM-Solver++ 2S and the newer grids.
- **For a model that is guided everywhere** each of them is also tried with guidance only above some
  time, and as many more steps as the same passes allow. Its row has the steps of the sampler that
  is guided everywhere.
- **GITS** needs a profile; **AdaptiveDiffusion** is left out of a quick run. The block caches are
  made for the embedded network.

Every picture is generated alone, and configurations are interleaved, as in `baselines.runner`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asymflow.bench import metrics
from asymflow.bench.baselines import samplers as make
from asymflow.bench.baselines.cache import ResultCache
from asymflow.bench.baselines.grids import Search, best_grids
from asymflow.bench.baselines.limit_report import LIMIT, LimitReport, LimitResult
from asymflow.bench.baselines.methods import METHODS, UNFITTED, Method
from asymflow.bench.baselines.plots import (
    SHEET_COLUMNS,
    Panel,
    Point,
    draw_panels,
    draw_pictures,
)
from asymflow.bench.baselines.protocol import FULL, Budget
from asymflow.bench.baselines.report import Quartiles
from asymflow.bench.baselines.samplers import EVERYWHERE, Interval, Sampler
from asymflow.bench.baselines.sampling import sample_interleaved
from asymflow.bench.baselines.times import Grid, named
from asymflow.bench.features import extract, load_network
from asymflow.bench.protocol import check_fits
from asymflow.bench.provenance import versions
from asymflow.core import schedules
from asymflow.core.errors import InputError, MissingExtra
from asymflow.core.statistics import mean_interval, share_bound
from asymflow.core.types import Plan, Profile, Request
from asymflow.generation import pipeline
from asymflow.generation.pixels import to_rgba
from asymflow.io.files import write_text
from asymflow.io.plots import new_figure
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.planning import calibration, verifier
from asymflow.planning.encoded import Encoded
from asymflow.planning.profiler import Progress, no_progress
from asymflow.planning.proof import Limit, Proof

NO_CACHES = (
    "Caching methods are left out: they change the blocks of the embedded network, and this is "
    "another one."
)
NO_FEATURES = "Feature distances are left out; they need the extra `bench`: pip install '.[bench]'."
INTERVALS = (0.1, 0.2, 0.3)
"""Times above which alone a sampler is guided, for as many passes as one that is everywhere."""
QUICK_GRIDS = (
    "uniform", "shifted 2", "shifted 3", "shifted 5", "shifted 8", "karras", "own"
)  # fmt: skip


def compare(
    model: pipeline.Model,
    size: tuple[int, int],
    *,
    pictures: int = 64,
    profile: Profile | None = None,
    budget: Budget = FULL,
    provenance: Mapping[str, Any] | None = None,
    out: Path | None = None,
    on_progress: Progress = no_progress,
) -> LimitReport:
    """Compare the plans of a model with its own sampler and standard ones.

    Args:
        model: any model with a card.
        size: (height, width) of pictures.
        pictures: of each sampler, with the inputs that no plan is chosen by.
        profile: a profile of this model at this size; without it GITS is omitted.
        budget: numbers of steps of every method.
        provenance: the header of the report, from `asymflow.bench.provenance`.
        out: write `baselines.json`, `baselines.png` and `sheet.png` to this folder, and cache
            pictures and times in `out/cache` so that an interrupted run can be resumed.
        on_progress: called before every picture.

    Raises:
        InputError: fewer than two pictures; the model does not make this size; the profile is for
            another model or size; or the limit is not finite.
        MissingExtra: diffusers or (with `out`) matplotlib is not installed.
    """
    if pictures < 2:
        raise InputError(f"{pictures} pictures have no spread. Ask for at least 2.")
    make.library()
    if out is not None:
        new_figure(1, 1)  # raises before anything is generated
    card, adapter = model.card, model.adapter
    if profile is not None:
        check_fits(profile, adapter.name, size)
    requests, others = (
        calibration.requests(card, size, card.guidance, count, purpose)
        for count, purpose in (
            (pictures, calibration.PROVED),
            (budget.rounds[-1], calibration.VERIFIED),
        )
    )
    adapter.check(requests[0])
    own = adapter.own_plan(size)
    guided = _own_interval(model, own, size)
    fine = pipeline.reference(model, size, guided)
    # Block caches need the network itself, whose prompts are read in no time.
    encoded = adapter if isinstance(adapter, EmbeddedAdapter) else Encoded(adapter)
    store = ResultCache(adapter, model.dtype, out / "cache" if out is not None else None)

    search = Search(encoded, fine, others)
    everywhere = card.guided and guided == EVERYWHERE
    candidates = _standard(own, guided, everywhere, budget)
    searched, standard = best_grids(search, candidates, budget.rounds, store, on_progress)
    samplers = (
        make.planned(fine, LIMIT, LIMIT),
        *_with_less_guidance(model, size, guided),
        *_own(own, budget.steps),
        *standard,
        *(make.gits(profile, n, guided) for n in budget.gits_steps if profile),
        *(make.adaptive(each, guided) for each in budget.skip if not budget.quick),
        *(
            make.caches(adapter, size, budget)
            if isinstance(adapter, EmbeddedAdapter) and not budget.quick
            else ()
        ),
        *_plans(model, size, guided),
    )
    samples = sample_interleaved(samplers, encoded, requests, store, budget.save_every, on_progress)

    on_progress("scoring", 0, 1)
    ends = samples[LIMIT].pictures
    limit = Limit.of(_tensor(ends), _off(encoded, fine, requests, ends))
    distance = _feature_distance(ends)
    results: list[LimitResult] = []
    first = samples[_own_name(samplers)].seconds
    for sampler in samplers:
        made = samples[sampler.name]
        proof = Proof(metrics.rms(made.pictures, ends), None, limit)
        results.append(
            LimitResult(
                name=sampler.name,
                family=sampler.family,
                settings=sampler.settings,
                forwards=float(made.rows.mean()),
                ms=Quartiles.of((1000 * made.seconds).tolist()),
                speedup=Quartiles.of((first / made.seconds).tolist()),
                rms=proof.mean,
                worst=float(proof.errors.max()),
                changed=proof.changed,
                changed_at_most=share_bound(proof.changed, pictures),
                to_limit=None if distance is None else mean_interval(distance(made.pictures)),
            )
        )
    on_progress("scoring", 1, 1)
    embedded = isinstance(adapter, EmbeddedAdapter)
    report = LimitReport(
        provenance=dict(provenance or {}),
        title=card.title,
        name=adapter.name,
        settings={
            "size": f"{size[1]}x{size[0]}",
            "pictures": pictures,
            "rounds": list(budget.rounds),
            "guidance": card.guidance,
            "guided": list(guided),
            "quick": budget.quick,
            **store.machine,
        },
        versions=versions(),
        limit_rms=limit.error,
        apart=limit.apart,
        searched=searched,
        results=tuple(results),
        notes=(
            *(() if embedded else (NO_CACHES,)),
            *(() if distance is not None else (NO_FEATURES,)),
        ),
    )
    if out is not None:
        _plot(report, out / "baselines.png")
        labels = [
            card.words(request.inputs) or f"seed {request.seed}"
            for request in requests[:SHEET_COLUMNS]
        ]
        rows = {name: each.pictures for name, each in samples.items()}
        draw_pictures(labels, rows, out / "sheet.png")
        write_text(out / "baselines.json", report.to_json())
    return report


def _own_interval(model: pipeline.Model, own: Plan, size: tuple[int, int]) -> Interval:
    """The interval of t in which the model's own sampler guides."""
    if not model.card.guided or all(step.tier.guided for step in own.steps):
        return EVERYWHERE
    return pipeline.guidance_interval(model, size)


def _with_less_guidance(
    model: pipeline.Model, size: tuple[int, int], guided: Interval
) -> tuple[Sampler, ...]:
    """The fine solution with guidance as plans have it, if that is another."""
    interval = pipeline.guidance_interval(model, size)
    if not model.card.guided or interval == guided:
        return ()
    name = f"limit, guided from {interval[0]:.2g} to {interval[1]:.2g}"
    return (make.planned(pipeline.reference(model, size), name, LIMIT),)


def _own(own: Plan, prices: Sequence[int]) -> tuple[Sampler, ...]:
    """The model's own sampler, whole and over some of its nodes."""
    whole = make.own(own)
    fewer = (make.own(own, n) for n in prices if n < sum(step.evaluations for step in own.steps))
    return tuple({each.name: each for each in (whole, *fewer)}.values())


def _own_name(samplers: Sequence[Sampler]) -> str:
    """The name of the model's own sampler with all of its steps."""
    return next(each.name for each in samplers if each.family == "own sampler")


def _standard(
    own: Plan, guided: Interval, everywhere: bool, budget: Budget
) -> list[dict[str, Sampler]]:
    """For every standard sampler and price, its configurations by grid and interval.

    Args:
        own: the model's own sampler.
        guided: where the limit is guided.
        everywhere: whether shorter intervals are tried too.
        budget: prices, and how many samplers and grids.
    """
    found: dict[str, dict[str, Sampler]] = {}
    methods = (
        each
        for each in METHODS
        if not each.noisy and each.family != UNFITTED and (each.quick or not budget.quick)
    )
    lows = INTERVALS if everywhere and not budget.quick else ()
    for method, price in product(methods, budget.steps):
        steps = _steps_of(method, price)
        grids = _grids(own, budget)
        name = f"{method.name}, {steps} steps"
        ways = {grid: method.make(make_grid(steps), guided) for grid, make_grid in grids.items()}
        for (grid, make_grid), low in product(grids.items(), lows):
            passes = method.passes(make_grid(steps), EVERYWHERE)
            if (times := method.dearest(make_grid, passes, (low, 1.0))) is not None:
                sampler = method.make(times, (low, 1.0))
                ways[f"{grid}, guided above {low:g}"] = replace(sampler, name=name)
        found.setdefault(name, ways)
    return list(found.values())


def _steps_of(method: Method, price: int) -> int:
    """The most steps for so many evaluations."""
    times = method.dearest(schedules.uniform, price, None)
    assert times is not None, "one step is one evaluation"
    return len(times) - 1


def _grids(own: Plan, budget: Budget) -> dict[str, Grid]:
    """Grids by name."""
    found = named(own)
    return {name: found[name] for name in QUICK_GRIDS} if budget.quick else found


def _plans(model: pipeline.Model, size: tuple[int, int], guided: Interval) -> tuple[Sampler, ...]:
    """The plans of the model, and the default one guided as the model's own sampler."""
    plans = pipeline.plans_of(model, size)
    found = [make.planned(plan, f"asymflow {name}", "asymflow") for name, plan in plans.items()]
    default = plans[pipeline.DEFAULT]
    other = make.guided_in(default, guided)
    pooled = any(step.tier.pool_factor > 1 for step in default.steps)
    if model.card.guided and not pooled and other.steps != default.steps:
        words = "everywhere" if guided == EVERYWHERE else f"from {guided[0]:.2g} to {guided[1]:.2g}"
        found.append(make.planned(other, f"asymflow default, guided {words}", "asymflow"))
    return tuple(found)


def _off(adapter: Any, fine: Plan, requests: Sequence[Request], ends: NDArray[np.float16]) -> float:
    """The RMSE that the limit is off by: a third of that of half as many steps.

    As of a solver of second order, whose error falls to a quarter with twice the moves.
    """
    few = requests[: verifier.LIMITS]
    half = verifier.rollout(adapter, verifier.halved(fine), few)
    pictures = np.stack([adapter.to_picture(x_0) for x_0 in half])
    return float(metrics.rms(pictures, ends[: len(few)]).mean()) / 3


def _feature_distance(
    ends: NDArray[np.float16],
) -> Callable[[NDArray[np.float16]], NDArray[np.float64]] | None:
    """One minus the cosine to features of the limit [n]; None without the feature network."""
    try:
        network = load_network()
    except MissingExtra:
        return None

    def features(pictures: NDArray[np.float16]) -> NDArray[np.float32]:
        rgba = [to_rgba(picture.astype(np.float32)) for picture in pictures]
        return extract(np.stack(rgba), network=network)

    known = features(ends)
    return lambda pictures: metrics.cosine_distance(features(pictures), known)


def _tensor(pictures: NDArray[np.float16]) -> torch.Tensor:
    return torch.from_numpy(pictures.astype(np.float32))


def _plot(report: LimitReport, path: Path) -> None:
    """Error against network calls and against seconds."""
    shown = [each for each in report.results if each.rms.value > 0]
    least = min((each.rms.value for each in shown), default=math.inf)

    def points(x: Callable[[LimitResult], tuple[float, float, float]]) -> list[Point]:
        return [
            Point(
                each.name,
                each.family,
                x(each),
                (each.rms.value, max(each.rms.low, least / 10), each.rms.high),
            )
            for each in shown
        ]

    error = "RMSE to the limit of the model"
    panels = (
        Panel(
            "NFE: network calls per picture",
            error,
            points(lambda each: (each.forwards, each.forwards, each.forwards)),
            log=True,
        ),
        Panel(
            "seconds per picture, one at a time",
            error,
            points(lambda each: (each.ms.median / 1e3, each.ms.low / 1e3, each.ms.high / 1e3)),
            log=True,
        ),
    )
    title = f"{report.title} at {report.settings['size']} px"
    draw_panels(panels, path, title=title, named=("own sampler", "asymflow"))
