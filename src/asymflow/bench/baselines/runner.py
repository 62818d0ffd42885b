"""Compare plans with baseline samplers on one network: same prompts, same seeds, one run.

The baselines, and how they differ from their sources:

- Guidance is a setting of the model. All samplers apply it in the same interval of t,
  `presets.GUIDED`, and omit the unconditional pass outside, with one exception:
- **Heun and Euler, 50 steps**, the baselines in papers on pixel-space models: uniform grid,
  guidance in every evaluation. **DDIM** is not listed because it *is* Euler: with a = 1 - t and
  sigma = t, its update a_s D + (sigma_s / sigma_t) (x_t - a_t D) is (s/t) x_t + (1 - s/t) D. In
  x_t / (1 - t) over t / (1 - t) it is Euler's method in the textbook sense. A test compares it with
  diffusers' `DDIMScheduler`.
- **UniPC and DPM-Solver++** are diffusers' own classes with `use_flow_sigmas`. The network is
  evaluated at the exact noise level of the scheduler's state, not at its `timesteps`, which are
  rounded to thousandths. Every variant uses the best of five grids (`flow_shift`), chosen on other
  pictures.
- **GITS** (arXiv 2405.11326): the grid that minimises the sum of Euler's local errors along a fine
  reference, by dynamic programming over a profile's candidate times; **iPNDM** on that grid:
  Adams-Bashforth in the velocity with the coefficients of constant steps, of order 4 after warm-up.
- **First-block cache and TaylorSeer**: `asymflow.bench.caching`, on the default grid.
- **AdaptiveDiffusion** (reimplemented from arXiv 2410.09873): reuses the last velocity where the
  third-order difference of the states is small, at most four times in a row.
- **asymflow**: the given plans.

Every picture is generated alone; times are wall times from prompt to picture. Configurations are
interleaved, one picture each, because shared machines drift within minutes. A speed-up is the
median over pictures of the time of Heun divided by the time of the sampler for the *same* picture.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from asymflow.bench import metrics
from asymflow.bench.baselines.cache import ResultCache, load_value, save_value
from asymflow.bench.baselines.grids import Search, best_grids
from asymflow.bench.baselines.plots import SHEET_COLUMNS, draw_pictures, plot_report
from asymflow.bench.baselines.protocol import (
    FULL,
    Budget,
    pair_requests,
    reference_plan,
)
from asymflow.bench.baselines.report import (
    BASELINE,
    REFERENCE,
    BaselinesReport,
    Quartiles,
    SamplerResult,
)
from asymflow.bench.baselines.samplers import (
    SHIFTS,
    Sampler,
    adaptive,
    baselines,
    caches,
    dpm,
    gits,
    library,
    planned,
    unipc,
)
from asymflow.bench.baselines.sampling import generate, sample_interleaved
from asymflow.bench.features import extract, load_network
from asymflow.bench.pairs import job, pick
from asymflow.bench.protocol import check_fits
from asymflow.bench.provenance import versions
from asymflow.bench.quality import (
    gallery_of,
    real_pictures,
    rows_by,
    scores_of,
    sha256_of,
)
from asymflow.core import engine, presets
from asymflow.core.errors import InputError
from asymflow.core.statistics import mean_interval
from asymflow.core.types import Plan, Profile, Request
from asymflow.io.files import write_text
from asymflow.io.plots import new_figure
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.planning import costs
from asymflow.planning.profiler import Progress, no_progress
from asymflow.training.data.dataset import Dataset
from asymflow.training.data.manifest import Entry

_SEARCH_PAIRS = 12


def compare(
    adapter: EmbeddedAdapter,
    plans: Mapping[str, Plan],
    dataset_root: Path,
    *,
    size: int = 64,
    pairs: int = 192,
    profile: Profile | None = None,
    budget: Budget = FULL,
    provenance: Mapping[str, Any] | None = None,
    out: Path | None = None,
    cache: Path | None = None,
    on_progress: Progress = no_progress,
) -> BaselinesReport:
    """Compare samplers on `pairs` seen pairs, with the prompts and seeds of the quality suite.

    Args:
        plans: plans to compare, by name.
        profile: a profile of this model at this size; without it GITS is omitted.
        budget: numbers of steps and settings of every method.
        provenance: the header of the report, from `asymflow.bench.provenance`.
        out: write `baselines.json`, `baselines.png` and `sheet.png` to this folder, and cache
            pictures and times in `out/cache` so that an interrupted run can be resumed. Times of a
            resumed run come from several sessions: compare them only on one idle machine.
        cache: folder for features of real pictures, shared with the quality suite.

    Raises:
        InputError: the dataset has too few pairs; a plan or the profile is for another model or
            size.
        MissingExtra: diffusers, the feature network or (with `out`) matplotlib is not installed.
    """
    network = load_network()
    library()
    if out is not None:
        new_figure(1, 1)  # raises before anything is generated
    for plan in plans.values():
        engine.check_plan(adapter, plan, (size, size))
    if profile is not None:
        check_fits(profile, adapter.name, (size, size))
    dataset = Dataset(dataset_root)
    common = [entry for entry in dataset.entries if entry.weight == 1]
    seen = [entry for entry in common if entry.split == "train"]
    entries = pick(seen, pairs, 0)
    if max(map(len, rows_by("style", entries).values()), default=0) < 3:
        raise InputError(
            f"pairs={pairs} and this dataset give no style 3 seen pairs, the fewest a "
            "distribution can be compared on: raise `pairs`, or build all styles."
        )
    requests = pair_requests(entries, 0, size)
    jobs = sha256_of(repr([job(entry, 0) for entry in entries]).encode())
    dtype = str(adapter.model.basis.dtype).removeprefix("torch.")
    store = ResultCache(adapter, dtype, out / "cache" if out is not None else None)

    guided = presets.guidance_interval((size, size))
    search = Search(adapter, reference_plan(size), _seen_elsewhere(seen, entries, size))
    candidates = [
        {f"{shift:g}": make(order, steps, shift, guided) for shift in SHIFTS}
        for make in (unipc, dpm)
        for order in (2, 3)
        for steps in budget.steps
    ]
    searched, scheduled = best_grids(
        search, candidates, (len(search.requests),), store, on_progress
    )
    samplers = (
        planned(reference_plan(size), REFERENCE, REFERENCE),
        *baselines(),
        *scheduled,
        *(gits(profile, n, guided) for n in budget.gits_steps if profile),
        *caches(adapter, (size, size), budget),
        *(adaptive(threshold, guided) for threshold in budget.skip),
        *(planned(plan, f"asymflow {key}", "asymflow") for key, plan in plans.items()),
    )
    burdens: dict[str, tuple[float, int]] = {}
    for number, sampler in enumerate(samplers):
        burdens[sampler.name] = _burden(sampler, adapter, requests, budget.counted, store)
        on_progress("counting operations", number + 1, len(samplers))
    samples = sample_interleaved(samplers, adapter, requests, store, budget.save_every, on_progress)

    features_of = partial(extract, network=network, cache=cache)
    on_progress("features of real pictures", 0, 1)
    gallery = gallery_of(dataset, common, size, features_of)
    made_cache = store.root / "features" if store.root is not None else None
    features_of = partial(extract, network=network, cache=made_cache)
    reference = samples[REFERENCE]
    reference_features = features_of(reference.pictures)
    results: list[SamplerResult] = []
    for number, sampler in enumerate(samplers):
        on_progress("scoring", number, len(samplers))
        made = samples[sampler.name]
        features = features_of(made.pictures)
        score, *_ = scores_of("generated", entries, features, split="seen", gallery=gallery)
        to_reference = metrics.cosine_distance(features, reference_features)
        rms = metrics.rms(made.pictures, reference.pictures)
        ratios = samples[BASELINE].seconds / made.seconds
        macs, peak_bytes = burdens[sampler.name]
        results.append(
            SamplerResult(
                name=sampler.name,
                family=sampler.family,
                settings=sampler.settings,
                forwards=float(made.rows.mean()),
                whole=float(made.whole.mean()),
                macs=macs,
                ms=Quartiles.of((1000 * made.seconds).tolist()),
                speedup=Quartiles.of(ratios.tolist()),
                peak_bytes=peak_bytes,
                score=score,
                to_reference=mean_interval(to_reference),
                rms=mean_interval(rms),
            )
        )
    on_progress("scoring", len(samplers), len(samplers))
    report = BaselinesReport(
        provenance=dict(provenance or {}),
        name=adapter.name,
        settings={
            "size": size,
            "pairs": len(entries),
            "guidance": presets.GUIDANCE,
            "guided_from": guided[0],
            "quick": budget.quick,
            **store.machine,
        },
        versions=versions(),
        hashes={
            "weights": adapter.weights_hash,
            "feature weights": network.digest,
            "manifest": sha256_of((dataset_root / "manifest.jsonl").read_bytes()),
            "jobs": jobs,
        },
        searched=searched,
        results=tuple(results),
    )
    if out is not None:
        plot_report(report, out / "baselines.png")
        real = real_pictures(dataset, entries[:SHEET_COLUMNS], size)
        draw_pictures(
            [job(entry, 0)[0] for entry in entries[:SHEET_COLUMNS]],
            {"real": real, **{name: each.pictures for name, each in samples.items()}},
            out / "sheet.png",
        )
        write_text(out / "baselines.json", report.to_json())
    return report


@torch.inference_mode()
def _burden(
    sampler: Sampler,
    adapter: EmbeddedAdapter,
    requests: Sequence[Request],
    counted: int,
    store: ResultCache,
) -> tuple[float, int]:
    """Multiply-accumulates per picture, the mean of the first few, and peak bytes of the first."""
    calls = [partial(generate, sampler, adapter, request) for request in requests[:counted]]
    path = store.path(
        "json", ["burden", sampler.family, dict(sampler.settings)], requests[:counted]
    )
    found: list[Any] | None = load_value(path)
    if found is None:
        macs = statistics.fmean(costs.work(call).macs for call in calls)
        found = [macs, costs.peak_bytes(calls[0])]
        save_value(path, found)
    return float(found[0]), int(found[1])


def _seen_elsewhere(seen: Sequence[Entry], entries: Sequence[Entry], size: int) -> list[Request]:
    """Requests for pairs that are not in the table, to choose grids on."""
    used = {entry.index for entry in entries}
    others = [e for e in pick(seen, len(seen), 1) if e.index not in used]
    if not others:
        raise InputError(
            f"All {len(entries)} seen pairs of the dataset are in the table, and none is "
            "left to choose grids on: lower `pairs`, or build all styles."
        )
    return pair_requests(others[:_SEARCH_PAIRS], 1, size)
