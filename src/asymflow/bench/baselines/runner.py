"""Samplers of others and ours on one network: same prompts, same seeds, one run.

What is compared, and where it differs from its source:

- Guidance is a setting of the model, and everybody has it where it helps: at the times
  `presets.GUIDED`, the unconditional pass left out elsewhere. But
- **Heun and Euler, 50 steps** are what papers on pixel models report: over the uniform grid with
  guidance in every evaluation. **DDIM** is not run on its own, since it *is* Euler: with a = 1 - t
  and sigma = t its update a_s D + (sigma_s / sigma_t) (x_t - a_t D) is (s/t) x_t + (1 - s/t) D. In
  x_t / (1 - t) over t / (1 - t) it is Euler's method in the textbook sense. A test compares it with
  diffusers' `DDIMScheduler`.
- **UniPC and DPM-Solver++** are diffusers' own classes with `use_flow_sigmas`. The network is asked
  at the exact noise level of the scheduler's state, not at its `timesteps`, which are cut to whole
  thousandths. Every variant gets the best of five grids (`flow_shift`), chosen on other pictures.
- **GITS** (arXiv 2405.11326): the grid that makes the sum of Euler's local errors along a fine
  reference least, by dynamic programming over a profile's candidate times; **iPNDM** over it:
  Adams-Bashforth in the velocity with the coefficients of constant steps, of order 4 after warm-up.
- **First-block cache and TaylorSeer**: `asymflow.bench.caching`, over our default grid.
- **AdaptiveDiffusion** (after arXiv 2410.09873, without its code at hand): the last velocity is
  used again where the third-order difference of the states is small, but never more than four times
  in a row.
- **asymflow**: the plans that are passed in.

Every picture is generated alone, and its wall time from prompt to picture is what is reported.
Configurations take turns, one picture each, since shared machines drift within minutes; a speed-up
is the median over pictures of the time of Heun for the *same* picture over that of the peer.
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
from asymflow.bench.baselines.cache import Shelf, Taken, load_taken, save_taken
from asymflow.bench.baselines.grids import Search, best_grids
from asymflow.bench.baselines.plots import SHEET_COLUMNS, draw_pictures, plot_report
from asymflow.bench.baselines.protocol import (
    FULL,
    Budget,
    pair_requests,
    reference_plan,
)
from asymflow.bench.baselines.report import BASELINE, REFERENCE, Peer, PeersReport, Quartiles
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


def peers(
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
) -> PeersReport:
    """Compare samplers on `pairs` seen pairs, with the prompts and seeds of the quality suite.

    With `out`, writes `peers.json`, `peers.png` and `sheet.png` into that folder, and keeps
    pictures and times under `out/cache`, so that an interrupted run goes on when it is called
    again. Times then come from several sittings: compare them only on one undisturbed machine.

    Args:
        plans: of ours, by name.
        profile: of this model at this size; without it GITS is left out.
        budget: how much of every method is tried.
        provenance: the header of the report, of `asymflow.bench.provenance`.
        cache: a folder for features of real pictures, shared with the quality suite.

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
    keep = Shelf(adapter, out / "cache" if out is not None else None, size)

    low, _ = presets.guidance_interval((size, size))
    search = Search(adapter, seen, entries, size)
    searched, scheduled = best_grids(search, budget, keep, on_progress)
    samplers = (
        planned(reference_plan(size), REFERENCE, REFERENCE),
        *baselines(),
        *scheduled,
        *(gits(profile, n, low) for n in budget.gits_steps if profile),
        *caches(size, budget),
        *(adaptive(threshold, low) for threshold in budget.skip),
        *(planned(plan, f"asymflow {key}", "asymflow") for key, plan in plans.items()),
    )
    taken = _take_turns(samplers, adapter, requests, budget, keep, on_progress)

    features_of = partial(extract, network=network, cache=cache)
    on_progress("features of real pictures", 0, 1)
    gallery = gallery_of(dataset, common, size, features_of)
    made_cache = keep.root / "features" if keep.root is not None else None
    features_of = partial(extract, network=network, cache=made_cache)
    reference = taken[REFERENCE]
    reference_features = features_of(reference.pictures)
    rows: list[Peer] = []
    for number, sampler in enumerate(samplers):
        on_progress("scoring", number, len(samplers))
        mine = taken[sampler.name]
        features = features_of(mine.pictures)
        score, *_ = scores_of("generated", entries, features, split="seen", gallery=gallery)
        to_reference = metrics.cosine_distance(features, reference_features)
        rms = metrics.rms(mine.pictures, reference.pictures)
        ratios = taken[BASELINE].seconds / mine.seconds
        rows.append(
            Peer(
                name=sampler.name,
                family=sampler.family,
                settings=sampler.settings,
                forwards=float(mine.rows.mean()),
                whole=float(mine.whole.mean()),
                macs=mine.macs,
                ms=Quartiles.of((1000 * mine.seconds).tolist()),
                speedup=Quartiles.of(ratios.tolist()),
                peak_bytes=mine.peak_bytes,
                score=score,
                to_reference=mean_interval(to_reference),
                rms=mean_interval(rms),
            )
        )
    on_progress("scoring", len(samplers), len(samplers))
    report = PeersReport(
        provenance=dict(provenance or {}),
        name=adapter.name,
        settings={
            "size": size,
            "pairs": len(entries),
            "guidance": presets.GUIDANCE,
            "guided_from": low,
            "quick": budget.quick,
            **keep.machine,
        },
        versions=versions(),
        hashes={
            "weights": adapter.weights_hash,
            "feature weights": network.digest,
            "manifest": sha256_of((dataset_root / "manifest.jsonl").read_bytes()),
            "jobs": jobs,
        },
        searched=searched,
        peers=tuple(rows),
    )
    if out is not None:
        plot_report(report, out / "peers.png")
        real = real_pictures(dataset, entries[:SHEET_COLUMNS], size)
        draw_pictures(
            entries, real, {name: each.pictures for name, each in taken.items()}, out / "sheet.png"
        )
        write_text(out / "peers.json", report.to_json())
    return report


def _take_turns(
    samplers: Sequence[Sampler],
    adapter: EmbeddedAdapter,
    requests: Sequence[Request],
    budget: Budget,
    keep: Shelf,
    on_progress: Progress,
) -> dict[str, Taken]:
    """Every configuration's pictures, by its name."""
    paths = {
        each.name: keep.path("npz", [each.family, dict(each.settings)], requests)
        for each in samplers
    }
    assert len(paths) == len(samplers), "names tell configurations apart"
    taken = {name: found for name, path in paths.items() if (found := load_taken(path)) is not None}
    total = len(samplers) * len(requests)
    for end in range(1, len(requests) + 1):
        # In an order that alternates: whoever runs later finds a hotter machine.
        for sampler in samplers if end % 2 else reversed(samplers):
            known = taken.get(sampler.name)
            if known is None or len(known.seconds) < end:
                taken[sampler.name] = _more(known, sampler, adapter, requests, budget)
                if end % budget.keep == 0 or end == len(requests):
                    save_taken(paths[sampler.name], taken[sampler.name])
            done = sum(len(each.seconds) for each in taken.values())
            on_progress(f"generating: {sampler.name}", done, total)
    return taken


def _more(
    known: Taken | None,
    sampler: Sampler,
    adapter: EmbeddedAdapter,
    requests: Sequence[Request],
    budget: Budget,
) -> Taken:
    """What is known and the next picture."""
    if known is None:
        calls = [partial(_generate, sampler, adapter, request) for request in requests]
        none = np.zeros(0, np.int64)
        known = Taken(
            pictures=np.zeros((0, *requests[0].size, 4), np.float16),
            seconds=np.zeros(0),
            rows=none,
            whole=none,
            macs=statistics.fmean(costs.work(call).macs for call in calls[: budget.counted]),
            peak_bytes=costs.peak_bytes(calls[0]),
        )
    request = requests[len(known.seconds)]
    found: list[tuple[NDArray[np.float32], Counted]] = []
    seconds = costs.seconds(lambda: found.append(_generate(sampler, adapter, request)))
    picture, counted = found[0]
    return replace(
        known,
        pictures=np.concatenate([known.pictures, picture[None].astype(np.float16)]),
        seconds=np.append(known.seconds, seconds),
        rows=np.append(known.rows, counted.rows),
        whole=np.append(known.whole, counted.whole),
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
