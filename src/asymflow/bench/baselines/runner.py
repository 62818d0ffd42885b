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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asymflow.bench import metrics
from asymflow.bench.baselines.cache import ResultCache, Samples, load_samples, save_samples
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
    Sampler,
    adaptive,
    baselines,
    caches,
    gits,
    library,
    planned,
)
from asymflow.bench.caching import Counted
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
    store = ResultCache(adapter, out / "cache" if out is not None else None, size)

    low, _ = presets.guidance_interval((size, size))
    search = Search(adapter, seen, entries, size)
    searched, scheduled = best_grids(search, budget, store, on_progress)
    samplers = (
        planned(reference_plan(size), REFERENCE, REFERENCE),
        *baselines(),
        *scheduled,
        *(gits(profile, n, low) for n in budget.gits_steps if profile),
        *caches(size, budget),
        *(adaptive(threshold, low) for threshold in budget.skip),
        *(planned(plan, f"asymflow {key}", "asymflow") for key, plan in plans.items()),
    )
    samples = _sample_interleaved(samplers, adapter, requests, budget, store, on_progress)

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
        results.append(
            SamplerResult(
                name=sampler.name,
                family=sampler.family,
                settings=sampler.settings,
                forwards=float(made.rows.mean()),
                whole=float(made.whole.mean()),
                macs=made.macs,
                ms=Quartiles.of((1000 * made.seconds).tolist()),
                speedup=Quartiles.of(ratios.tolist()),
                peak_bytes=made.peak_bytes,
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
            "guided_from": low,
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
            entries,
            real,
            {name: each.pictures for name, each in samples.items()},
            out / "sheet.png",
        )
        write_text(out / "baselines.json", report.to_json())
    return report


def _sample_interleaved(
    samplers: Sequence[Sampler],
    adapter: EmbeddedAdapter,
    requests: Sequence[Request],
    budget: Budget,
    store: ResultCache,
    on_progress: Progress,
) -> dict[str, Samples]:
    """Samples of every configuration, by its name."""
    paths = {
        each.name: store.path("npz", [each.family, dict(each.settings)], requests)
        for each in samplers
    }
    assert len(paths) == len(samplers), "names of configurations are unique"
    samples = {
        name: found for name, path in paths.items() if (found := load_samples(path)) is not None
    }
    total = len(samplers) * len(requests)
    for end in range(1, len(requests) + 1):
        # Alternate the order: later configurations run on a hotter machine.
        for sampler in samplers if end % 2 else reversed(samplers):
            previous = samples.get(sampler.name)
            if previous is None or len(previous.seconds) < end:
                samples[sampler.name] = _next_sample(previous, sampler, adapter, requests, budget)
                if end % budget.save_every == 0 or end == len(requests):
                    save_samples(paths[sampler.name], samples[sampler.name])
            done = sum(len(each.seconds) for each in samples.values())
            on_progress(f"generating: {sampler.name}", done, total)
    return samples


def _next_sample(
    previous: Samples | None,
    sampler: Sampler,
    adapter: EmbeddedAdapter,
    requests: Sequence[Request],
    budget: Budget,
) -> Samples:
    """The previous samples and one more."""
    if previous is None:
        calls = [partial(_generate, sampler, adapter, request) for request in requests]
        none = np.zeros(0, np.int64)
        previous = Samples(
            pictures=np.zeros((0, *requests[0].size, 4), np.float16),
            seconds=np.zeros(0),
            rows=none,
            whole=none,
            macs=statistics.fmean(costs.work(call).macs for call in calls[: budget.counted]),
            peak_bytes=costs.peak_bytes(calls[0]),
        )
    request = requests[len(previous.seconds)]
    found: list[tuple[NDArray[np.float32], Counted]] = []
    seconds = costs.seconds(lambda: found.append(_generate(sampler, adapter, request)))
    picture, counted = found[0]
    return replace(
        previous,
        pictures=np.concatenate([previous.pictures, picture[None].astype(np.float16)]),
        seconds=np.append(previous.seconds, seconds),
        rows=np.append(previous.rows, counted.rows),
        whole=np.append(previous.whole, counted.whole),
    )


@torch.inference_mode()
def _generate(
    sampler: Sampler, adapter: EmbeddedAdapter, request: Request
) -> tuple[NDArray[np.float32], Counted]:
    """A picture [h, w, 4], and the adapter that counted what it took."""
    counted = sampler.wrap(adapter)
    x_0 = sampler.walk(counted, request)
    return adapter.to_picture(x_0[0]), counted


# The best grid of every scheduler.


# Pictures of the table.
