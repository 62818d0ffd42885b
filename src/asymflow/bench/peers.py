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

import hashlib
import importlib
import json
import platform
import statistics
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow import costs, engine, presets, store, times, verifier
from asymflow.adapter import Adapter
from asymflow.adapters.embedded import EmbeddedAdapter
from asymflow.bench import metrics
from asymflow.bench.caching import BlockCache, Caching, Counted, FirstBlockCache, TaylorCache
from asymflow.bench.features import extract, load_network
from asymflow.bench.metrics import Estimate
from asymflow.bench.pairs import job, pick
from asymflow.bench.quality import (
    gallery_of,
    real_pictures,
    rows_by,
    scores_of,
    sha256_of,
    versions,
)
from asymflow.bench.report import Score
from asymflow.data.dataset import Dataset
from asymflow.data.manifest import Entry
from asymflow.errors import InputError, MissingExtra
from asymflow.estimators import Guided
from asymflow.files import replacing, write_text
from asymflow.profiler import Progress, silent
from asymflow.sheets import sheet
from asymflow.types import CONDITIONAL, Plan, Profile, Request

SCHEMA = 1
BASELINE = "Heun 50"
REFERENCE = "reference"
SHIFTS = (1.0, 2.0, 3.0, 5.0, 8.0)
"""Grids that every scheduler of diffusers may choose from."""
Walk = Callable[[Adapter, Request], Tensor]
"""Runs one request to x_0 [1, c, h, w]."""
Wrap = Callable[[EmbeddedAdapter], Counted]
"""The model as a sampler sees it, made anew for every picture."""

_VERSION = 3  # Part of every cache key: raise it whenever a sampler or a measurement changes.
_STEPS, _GITS_STEPS, _FEW_STEPS = (4, 5, 6, 8, 12, 20), (6, 8, 12), (5, 6, 8)
_SEARCH_PAIRS = 12
_CACHE_STEPS = 20
# In trials on the embedded model at 32 px the usual thresholds did nothing: diffusers' 0.05 for the
# first block and AdaptiveDiffusion's 0.01 skipped no block and no call. TaylorSeer was far off with
# diffusers' 3 calls of warm-up.
_FIRST_BLOCK = (0.2, 0.3)
_TAYLOR, _TAYLOR_WARM_UP = (2, 3), 5
_SKIP = (0.02, 0.05)
_MOST_SKIPS = 4
_KEEP = 8  # pictures after which everything is written to disk
_COUNTED = 4  # pictures whose arithmetic is counted: adaptive samplers differ between pictures
_SHEET_COLUMNS = 8
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """One configuration.

    Attributes:
        name: unique in a table.
        family: rows of one method share it.
        settings: all that defines the pictures; pictures are kept under its hash.
        walk: from a request to x_0, with an adapter as `wrap` made it.
    """

    name: str
    family: str
    settings: Mapping[str, Any]
    walk: Walk
    wrap: Wrap = Counted


@dataclass(frozen=True, slots=True)
class Quartiles:
    """The median over pictures, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True, slots=True)
class Peer:
    """What one configuration takes and what its pictures are worth.

    Attributes:
        forwards: rows of network calls per picture; a guided estimate has two.
        whole: of them, rows that went through every block. Caches skip most blocks of the others.
        macs: multiply-accumulates per picture, mean of the first few.
        ms: wall time of one picture, generated alone.
        speedup: time of `BASELINE` over its time for the same picture.
        peak_bytes: most memory that one picture holds.
        score: against the real pictures, as in `asymflow.bench.quality`.
        to_reference: one minus the cosine of features of its picture and of the reference's.
        rms: of their difference, for pictures in [0, 1]: half of what a plan's evidence says, which
            is measured in [-1, 1] and before clipping.
    """

    name: str
    family: str
    settings: Mapping[str, Any]
    forwards: float
    whole: float
    macs: float
    ms: Quartiles
    speedup: Quartiles
    peak_bytes: int
    score: Score
    to_reference: Estimate
    rms: Estimate


@dataclass(frozen=True, slots=True)
class PeersReport:
    """All configurations, with what is needed to repeat them.

    Attributes:
        searched: per scheduler of diffusers, the root mean square to the reference (in [-1, 1]) of
            every shift that it could choose from.
    """

    name: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    searched: Mapping[str, Mapping[str, float]]
    peers: tuple[Peer, ...]

    def peer(self, name: str) -> Peer:
        """One row; raises `InputError` where there is none of that name."""
        for peer in self.peers:
            if peer.name == name:
                return peer
        raise InputError(
            f"This report has no {name!r}. It has: {', '.join(peer.name for peer in self.peers)}."
        )

    def to_json(self) -> str:
        """The report as one JSON object, with its schema version."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    def __str__(self) -> str:
        size, count = self.settings["size"], self.settings["pairs"]
        lines = [
            f"Samplers on {self.name} at {size} px, {count} pictures each, one at a time "
            "(±: half of the 95% interval; of times and speed-ups: quartiles)",
            "",
            _HEADER,
            *map(_row, self.peers),
            "",
            f"forwards: rows of network calls; whole: rows through every block. {REFERENCE}: "
            "64 guided steps of multistep2.",
            "FD falls as n grows: compare it at equal n. Features are EfficientNet-Lite0's: never "
            "compare with a published FID or KID.",
        ]
        return "\n".join(lines)


_COLUMNS = (
    ("forwards", 9),
    ("whole", 7),
    ("GMAC", 8),
    ("ms", 21),
    ("speed-up", 22),
    ("MB", 7),
    ("KID x1000", 14),
    ("FD", 14),
    ("recall@1 %", 13),
    ("recall@5 %", 13),
    ("to reference", 15),
    ("rms", 15),
)
_NAME = 40
_HEADER = f"{'':{_NAME}}" + "".join(f"{name:>{width}}" for name, width in _COLUMNS)


def _row(peer: Peer) -> str:
    ms, speedup, score = peer.ms, peer.speedup, peer.score
    cells = (
        f"{peer.forwards:.1f}",
        f"{peer.whole:.1f}",
        f"{peer.macs / 1e9:.1f}",
        f"{ms.median:.0f} ({ms.low:.0f}-{ms.high:.0f})",
        f"{speedup.median:.2f} ({speedup.low:.2f}-{speedup.high:.2f})",
        f"{peer.peak_bytes / 1e6:.1f}",
        _plus_minus(score.kid, 1, 1),
        _plus_minus(score.fd, 1, 1),
        _plus_minus(score.recall_1, 100, 1),
        _plus_minus(score.recall_5, 100, 1),
        _plus_minus(peer.to_reference, 1, 4),
        _plus_minus(peer.rms, 1, 4),
    )
    row = f"{peer.name:{_NAME}}"
    for cell, (_, width) in zip(cells, _COLUMNS, strict=True):
        row += f"{cell:>{width}}"
    return row


def _plus_minus(estimate: Estimate, factor: float, digits: int) -> str:
    value = round(factor * estimate.value, digits) + 0.0  # no "-0.0"
    half = factor * (estimate.high - estimate.low) / 2
    return f"{value:.{digits}f} ±{half:.{digits}f}"


# Samplers.


def planned(
    plan: Plan,
    name: str,
    family: str,
    cache: Callable[[], BlockCache] | None = None,
    **settings: Any,
) -> Sampler:
    """A plan, by our engine; with a `cache`, made anew for every picture, by `settings`."""

    def walk(adapter: Adapter, request: Request) -> Tensor:
        return verifier.rollout(adapter, plan, [request])

    settings = {"plan": store.plan_hash(plan), "steps": len(plan.steps), **settings}
    if cache is None:
        return Sampler(name, family, settings, walk)
    return Sampler(name, family, settings, walk, lambda adapter: Caching(adapter, cache()))


def baselines() -> tuple[Sampler, ...]:
    """Heun and Euler over 50 uniform steps, guided everywhere."""
    grid = times.uniform(50)
    return (
        planned(times.plan_of(grid, solver="heun"), BASELINE, "baseline"),
        planned(times.plan_of(grid, solver="euler"), "Euler 50", "baseline"),
    )


def unipc(order: int, steps: int, shift: float, guided_from: float = 0.0) -> Sampler:
    """diffusers' UniPC."""
    return _scheduled(
        "UniPCMultistepScheduler",
        {"solver_order": order},
        f"UniPC-{order}",
        "UniPC",
        steps,
        shift,
        guided_from,
    )


def dpm(order: int, steps: int, shift: float, guided_from: float = 0.0) -> Sampler:
    """diffusers' DPM-Solver++, multistep."""
    return _scheduled(
        "DPMSolverMultistepScheduler",
        {"solver_order": order, "algorithm_type": "dpmsolver++"},
        f"DPM-Solver++ {order}M",
        "DPM-Solver++",
        steps,
        shift,
        guided_from,
    )


def _scheduled(
    kind: str,
    options: Mapping[str, Any],
    name: str,
    family: str,
    steps: int,
    shift: float,
    guided_from: float,
) -> Sampler:
    diffusers = _diffusers()
    scheduler = getattr(diffusers, kind)(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, **options
    )
    _set_steps(scheduler, steps)
    walk = partial(follow, scheduler=scheduler, steps=steps, guided_from=guided_from)
    name += f", {steps} steps"
    settings = {
        "scheduler": kind,
        **options,
        "steps": steps,
        "flow_shift": shift,
        "guided_from": guided_from,
        "diffusers": diffusers.__version__,
    }
    return Sampler(name, family, settings, walk)


def follow(
    adapter: Adapter, request: Request, *, scheduler: Any, steps: int, guided_from: float = 0.0
) -> Tensor:
    """x_0 by a diffusers scheduler for flow models.

    diffusers begins at noise of level 1 - 1e-6 (UniPC) or 0.999 shifted (DPM-Solver++), and takes
    the pure noise that we start from for it, as its pipelines do.
    """
    model, x_t = _begin(adapter, request)
    _set_steps(scheduler, steps)
    # Otherwise it would look its place up by `timesteps`, which need not be unique.
    scheduler.set_begin_index(0)
    for t, timestep in zip(scheduler.sigmas[:-1].tolist(), scheduler.timesteps, strict=True):
        u = _velocity(model, x_t, t, guided=t >= guided_from)
        x_t = scheduler.step(u, timestep, x_t, return_dict=False)[0]
    return x_t


def _set_steps(scheduler: Any, steps: int) -> None:
    with warnings.catch_warnings():
        # DPM-Solver++ hands a tensor to numpy in a way that numpy 2 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps)


def gits(profile: Profile, steps: int, guided_from: float = 0.0) -> Sampler:
    """iPNDM over the grid of GITS."""
    grid = gits_times(profile, steps)
    settings = {
        "grid": list(grid),
        "steps": steps,
        "order": len(ADAMS_BASHFORTH),
        "guided_from": guided_from,
    }
    walk = partial(ipndm, grid=grid, guided_from=guided_from)
    return Sampler(f"GITS + iPNDM, {steps} steps", "GITS + iPNDM", settings, walk)


def gits_times(profile: Profile, steps: int) -> tuple[float, ...]:
    """The grid [steps + 1] of candidate times with the least sum of Euler's local errors.

    Raises:
        InputError: the profile has fewer moves than `steps`.
    """
    count = len(profile.times)
    if not 1 <= steps < count:
        raise InputError(
            f"A profile of {count} times has no grid of {steps} steps. Choose 1 to {count - 1}, or "
            "profile more times."
        )
    i = np.arange(count)
    # [from, to], inf where it is no move: guided or, outside the interval of guidance, not.
    error = profile.defect[0, i, i].astype(np.float64)
    if CONDITIONAL in profile.tiers:
        outside = np.isinf(error).all(1)
        error[outside] = profile.defect[profile.tiers.index(CONDITIONAL), i, i][outside]
    best = np.where(i == 0, 0.0, np.inf)
    origins: list[NDArray[np.int64]] = []
    for _ in range(steps):
        total = best[:, None] + error
        origins.append(total.argmin(0))
        best = total.min(0)
    nodes = [count - 1]
    for origin in reversed(origins):
        nodes.append(int(origin[nodes[-1]]))
    return tuple(profile.times[node] for node in reversed(nodes))


def ipndm(
    adapter: Adapter, request: Request, *, grid: Sequence[float], guided_from: float = 0.0
) -> Tensor:
    """x_0 by Adams-Bashforth in the velocity, with the coefficients of constant steps."""
    model, x_t = _begin(adapter, request)
    velocities: tuple[Tensor, ...] = ()
    for t, s in pairwise(grid):
        most = len(ADAMS_BASHFORTH)
        newest = _velocity(model, x_t, t, guided=t >= guided_from)
        velocities = (newest, *velocities[: most - 1])
        for weight, u in zip(ADAMS_BASHFORTH[len(velocities) - 1], velocities, strict=True):
            x_t = x_t + (s - t) * weight * u
    return x_t


def caches(size: int) -> tuple[Sampler, ...]:
    """Block caches over our default grid of 20 steps for a side in pixels."""
    plan = presets.Grid(steps=_CACHE_STEPS).plan((size, size))
    solver = plan.steps[0].solver
    uncached = planned(plan, f"{solver}, {_CACHE_STEPS} steps", "default grid")
    first = (
        planned(
            plan,
            f"first-block cache {threshold:g}, {_CACHE_STEPS} steps",
            "first-block cache",
            partial(FirstBlockCache, threshold),
            first_block=threshold,
        )
        for threshold in _FIRST_BLOCK
    )
    taylor = (
        planned(
            plan,
            f"TaylorSeer 1 of {interval}, {_CACHE_STEPS} steps",
            "TaylorSeer",
            partial(TaylorCache, interval, _TAYLOR_WARM_UP),
            taylor=interval,
            warm_up=_TAYLOR_WARM_UP,
        )
        for interval in _TAYLOR
    )
    return (uncached, *first, *taylor)


def adaptive(threshold: float, guided_from: float = 0.0) -> Sampler:
    """Euler over 50 uniform steps that skips the network where the trajectory is smooth."""
    settings = {
        "grid": "uniform",
        "steps": 50,
        "threshold": threshold,
        "most": _MOST_SKIPS,
        "guided_from": guided_from,
    }
    walk = partial(skip, grid=times.uniform(50), threshold=threshold, guided_from=guided_from)
    return Sampler(f"AdaptiveDiffusion {threshold:g}", "AdaptiveDiffusion", settings, walk)


def skip(
    adapter: Adapter,
    request: Request,
    *,
    grid: Sequence[float],
    threshold: float,
    most: int = _MOST_SKIPS,
    guided_from: float = 0.0,
) -> Tensor:
    """x_0 by Euler's method that uses a velocity again while the states move evenly.

    With d_0, d_1, d_2 the three newest differences of states, newest first, that is where
    |(d_0 + d_2) / 2 - d_1| < threshold |d_1| in the mean of absolute values.

    Args:
        grid: of equal steps, which the differences assume.
        most: skips in a row.
    """
    model, x_t = _begin(adapter, request)
    u, skipped = None, 0
    moves: tuple[Tensor, ...] = ()
    for t, s in pairwise(grid):
        if u is not None and skipped < most and _even(moves, threshold):
            skipped += 1
        else:
            u, skipped = _velocity(model, x_t, t, guided=t >= guided_from), 0
        moves = ((s - t) * u, *moves[:2])
        x_t = x_t + moves[0]
    return x_t


def _even(moves: Sequence[Tensor], threshold: float) -> bool:
    if len(moves) < 3:
        return False
    newest, middle, oldest = moves
    bend = ((newest + oldest) / 2 - middle).abs().mean()
    return float(bend) < threshold * float(middle.abs().mean())


def _begin(adapter: Adapter, request: Request) -> tuple[Guided, Tensor]:
    """The model under the request's guidance, and the noise [1, c, h, w] it starts from."""
    engine.check(adapter, request)
    x_t = engine.noise(request.seed, (adapter.channels, *request.size))[None].to(adapter.like)
    scale = torch.tensor([request.guidance_scale]).to(adapter.like)
    return Guided.of(adapter, *adapter.encode([request]), scale), x_t


def _velocity(model: Guided, x_t: Tensor, t: float, *, guided: bool = True) -> Tensor:
    x_0, _ = model.denoise(x_t, x_t.new_full((1,), t), guided=guided)
    return (x_t - x_0) / t


def _diffusers() -> Any:
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtra("diffusers", "dev") from error


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "train") from error
    return Figure


# The run.


def peers(
    adapter: EmbeddedAdapter,
    plans: Mapping[str, Plan],
    dataset_root: Path,
    *,
    size: int = 64,
    pairs: int = 192,
    profile: Profile | None = None,
    quick: bool = False,
    out: Path | None = None,
    cache: Path | None = None,
    on_progress: Progress = silent,
) -> PeersReport:
    """Compare samplers on `pairs` seen pairs, with the prompts and seeds of the quality suite.

    With `out`, writes `peers.json`, `peers.png` and `sheet.png` into that folder, and keeps
    pictures and times under `out/cache`, so that an interrupted run goes on when it is called
    again. Times then come from several sittings: compare them only on one undisturbed machine.

    Args:
        plans: of ours, by name.
        profile: of this model at this size; without it GITS is left out.
        quick: peers at 5, 6 and 8 steps only.
        cache: a folder for features of real pictures, shared with the quality suite.

    Raises:
        InputError: the dataset has too few pairs; a plan or the profile is for another model or
            size.
        MissingExtra: diffusers, the feature network or (with `out`) matplotlib is not installed.
    """
    network = load_network()
    _diffusers()
    if out is not None:
        _figure()
    for plan in plans.values():
        engine.check_plan(adapter, plan, (size, size))
    if profile is not None:
        _check_profile(profile, adapter, size)
    dataset = Dataset(dataset_root)
    common = [entry for entry in dataset.entries if entry.weight == 1]
    seen = [entry for entry in common if entry.split == "train"]
    entries = pick(seen, pairs, 0)
    if max(map(len, rows_by("style", entries).values()), default=0) < 3:
        raise InputError(
            f"pairs={pairs} and this dataset give no style 3 seen pairs, the fewest a "
            "distribution can be compared on: raise `pairs`, or build all styles."
        )
    requests = _requests(entries, 0, size)
    jobs = sha256_of(repr([job(entry, 0) for entry in entries]).encode())
    keep = _Shelf(adapter, out / "cache" if out is not None else None, size)

    low, _ = presets.guidance_interval((size, size))
    search = _Search(adapter, seen, entries, size)
    searched, scheduled = _searched(search, quick, keep, on_progress)
    samplers = (
        planned(_fine_plan(size), REFERENCE, REFERENCE),
        *baselines(),
        *scheduled,
        *(gits(profile, n, low) for n in (_FEW_STEPS if quick else _GITS_STEPS) if profile),
        *caches(size),
        *(adaptive(threshold, low) for threshold in _SKIP),
        *(planned(plan, f"asymflow {key}", "asymflow") for key, plan in plans.items()),
    )
    taken = _take_turns(samplers, adapter, requests, keep, on_progress)

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
                to_reference=metrics.mean(to_reference),
                rms=metrics.mean(rms),
            )
        )
    on_progress("scoring", len(samplers), len(samplers))
    report = PeersReport(
        name=adapter.name,
        settings={
            "size": size,
            "pairs": len(entries),
            "guidance": presets.GUIDANCE,
            "guided_from": low,
            "quick": quick,
            **keep.machine,
        },
        versions={**versions(), "diffusers": _diffusers().__version__},
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
        _plot(report, out / "peers.png")
        real = real_pictures(dataset, entries[:_SHEET_COLUMNS], size)
        _draw(
            entries, real, {name: each.pictures for name, each in taken.items()}, out / "sheet.png"
        )
        write_text(out / "peers.json", report.to_json())
    return report


def _fine_plan(size: int) -> Plan:
    shape = (size, size)
    return verifier.fine_plan(shape, guidance_interval=presets.guidance_interval(shape))


def _requests(entries: Sequence[Entry], seed: int, size: int) -> list[Request]:
    jobs = [job(entry, seed) for entry in entries]
    return [
        Request({"prompt": prompt, "style": style}, (size, size), noise, presets.GUIDANCE)
        for prompt, style, noise in jobs
    ]


def _check_profile(profile: Profile, adapter: EmbeddedAdapter, size: int) -> None:
    for key, value in (("adapter", adapter.name), ("size", f"{size}x{size}")):
        if profile.made.get(key) != value:
            raise InputError(
                f"The profile was made for {key} {profile.made.get(key)!r}, and this run is for "
                f"{value!r}. Profile this model at this size, or leave the profile out."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """Pictures of the first k requests by one configuration, and what they took.

    Attributes:
        pictures: [k, h, w, 4] in [0, 1]. float16 is within a sixteenth of a level of 256.
        seconds, rows, whole: per picture [k]; see `Peer`.
    """

    pictures: NDArray[np.float16]
    seconds: NDArray[np.float64]
    rows: NDArray[np.int64]
    whole: NDArray[np.int64]
    macs: float
    peak_bytes: int


@dataclass(frozen=True, eq=False)
class _Shelf:
    """Keeps what has been measured in a folder, or nowhere."""

    adapter: EmbeddedAdapter
    root: Path | None
    size: int

    @cached_property
    def machine(self) -> dict[str, Any]:
        """What times depend on."""
        device = self.adapter.like.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        return {
            "device": f"{device.type} ({name})",
            "dtype": str(self.adapter.model.basis.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def path(self, suffix: str, settings: object, requests: Sequence[Request]) -> Path | None:
        """Where what these settings give for these requests is kept."""
        if self.root is None:
            return None
        asked = [[dict(request.inputs), request.seed] for request in requests]
        common = [_VERSION, self.adapter.weights_hash, self.machine, self.size, presets.GUIDANCE]
        key = json.dumps([common, settings, asked], sort_keys=True)
        return self.root / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.{suffix}"


def _load(path: Path | None) -> Taken | None:
    """What is kept; None where it is absent or damaged, since it can be computed again."""
    if path is None:
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            taken = Taken(
                stored["pictures"],
                stored["seconds"],
                stored["rows"],
                stored["whole"],
                float(stored["macs"]),
                int(stored["peak_bytes"]),
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return taken


def _save(path: Path | None, taken: Taken) -> None:
    if path is not None:
        with replacing(path) as file:
            np.savez(
                file,
                pictures=taken.pictures,
                seconds=taken.seconds,
                rows=taken.rows,
                whole=taken.whole,
                macs=taken.macs,
                peak_bytes=taken.peak_bytes,
            )


def _take_turns(
    samplers: Sequence[Sampler],
    adapter: EmbeddedAdapter,
    requests: Sequence[Request],
    keep: _Shelf,
    on_progress: Progress,
) -> dict[str, Taken]:
    """Every configuration's pictures, by its name."""
    paths = {
        each.name: keep.path("npz", [each.family, dict(each.settings)], requests)
        for each in samplers
    }
    assert len(paths) == len(samplers), "names tell configurations apart"
    taken = {name: found for name, path in paths.items() if (found := _load(path)) is not None}
    total = len(samplers) * len(requests)
    for end in range(1, len(requests) + 1):
        # In an order that alternates: whoever runs later finds a hotter machine.
        for sampler in samplers if end % 2 else reversed(samplers):
            known = taken.get(sampler.name)
            if known is None or len(known.seconds) < end:
                taken[sampler.name] = _more(known, sampler, adapter, requests)
                if end % _KEEP == 0 or end == len(requests):
                    _save(paths[sampler.name], taken[sampler.name])
            done = sum(len(each.seconds) for each in taken.values())
            on_progress(f"generating: {sampler.name}", done, total)
    return taken


def _more(
    known: Taken | None, sampler: Sampler, adapter: EmbeddedAdapter, requests: Sequence[Request]
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
            macs=statistics.fmean(costs.work(call).macs for call in calls[:_COUNTED]),
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


def _searched(
    search: _Search, quick: bool, keep: _Shelf, on_progress: Progress
) -> tuple[dict[str, dict[str, float]], list[Sampler]]:
    """Per scheduler the error of every shift, and the scheduler with the best one."""
    steps = _FEW_STEPS if quick else _STEPS
    low, _ = presets.guidance_interval((search.size, search.size))
    makers = [
        partial(make, order, n, guided_from=low)
        for make in (unipc, dpm)
        for order in (2, 3)
        for n in steps
    ]
    errors: dict[str, dict[str, float]] = {}
    best: list[Sampler] = []
    for number, maker in enumerate(makers):
        found = {shift: maker(shift=shift) for shift in SHIFTS}
        known = {f"{shift:g}": search.error(each, keep) for shift, each in found.items()}
        _, shift = min((known[f"{shift:g}"], shift) for shift in SHIFTS)
        errors[found[shift].name] = known
        best.append(found[shift])
        on_progress("choosing grids for schedulers", number + 1, len(makers))
    return errors, best


@dataclass(frozen=True, eq=False)
class _Search:
    """Judges samplers on other pairs than those of the table.

    Attributes:
        known: errors that have been measured.
    """

    adapter: EmbeddedAdapter
    seen: Sequence[Entry]
    entries: Sequence[Entry]
    size: int
    known: dict[str, float] = field(default_factory=dict[str, float])

    @cached_property
    def requests(self) -> list[Request]:
        taken = {entry.index for entry in self.entries}
        others = [e for e in pick(self.seen, len(self.seen), 1) if e.index not in taken]
        if not others:
            raise InputError(
                f"All {len(self.entries)} seen pairs of the dataset are in the table, and none is "
                "left to choose grids on: lower `pairs`, or build all styles."
            )
        return _requests(others[:_SEARCH_PAIRS], 1, self.size)

    @cached_property
    def reference(self) -> Tensor:
        return verifier.rollout(self.adapter, _fine_plan(self.size), self.requests)

    def error(self, sampler: Sampler, keep: _Shelf) -> float:
        """Mean root mean square of the difference to the reference, in state space."""
        key = json.dumps([sampler.family, dict(sampler.settings)], sort_keys=True)
        if key not in self.known:
            path = keep.path("json", ["error", key], self.requests)
            found = _read_number(path)
            if found is None:
                found = self._measure(sampler)
                if path is not None:
                    write_text(path, json.dumps(found))
            self.known[key] = found
        return self.known[key]

    @torch.inference_mode()
    def _measure(self, sampler: Sampler) -> float:
        x_0 = torch.cat([sampler.walk(self.adapter, request) for request in self.requests])
        return float(verifier.rms(x_0, self.reference).mean())


def _read_number(path: Path | None) -> float | None:
    try:
        return None if path is None else float(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


# Pictures of the table.


def _plot(report: PeersReport, path: Path) -> None:
    """KID and the distance to the reference over milliseconds, a colour per family."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = _figure()(figsize=(13, 6), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    what: tuple[tuple[str, Callable[[Peer], Estimate]], ...] = (
        ("KID x1000 to real pictures", lambda peer: peer.score.kid),
        ("feature distance to the reference", lambda peer: peer.to_reference),
    )
    families = list(dict.fromkeys(peer.family for peer in report.peers))
    for axes, (label, value) in zip(panels, what, strict=True):
        for number, family in enumerate(families):
            rows = [peer for peer in report.peers if peer.family == family]
            ms, found = [peer.ms for peer in rows], [value(peer) for peer in rows]
            ours = family == "asymflow"
            axes.errorbar(
                [each.median for each in ms],
                [each.value for each in found],
                xerr=_arms([each.median for each in ms], ms),
                yerr=_arms([each.value for each in found], found),
                fmt="*" if ours else "o",
                color=f"C{number % 10}",
                markersize=12 if ours else 5,
                markerfacecolor=None if number < 10 else "white",
                elinewidth=0.8,
                label=family,
            )
            if family in ("baseline", "asymflow", REFERENCE):
                for peer, each, estimate in zip(rows, ms, found, strict=True):
                    axes.annotate(
                        peer.name,
                        (each.median, estimate.value),
                        textcoords="offset points",
                        xytext=(6, 6),
                        fontsize=8,
                    )
        axes.set(xlabel="ms per picture, one at a time", ylabel=label, xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(visible=True, which="both", alpha=0.25)
    panels[0].legend(fontsize=8)
    figure.suptitle(f"{report.name} at {report.settings['size']} px")
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")


def _arms(
    middles: Sequence[float], around: Sequence[Quartiles] | Sequence[Estimate]
) -> list[list[float]]:
    """Lengths of error bars to both sides; a bootstrap interval may miss its middle by rounding."""
    pairs = list(zip(middles, around, strict=True))
    return [
        [max(0.0, middle - each.low) for middle, each in pairs],
        [max(0.0, each.high - middle) for middle, each in pairs],
    ]


def _draw(
    entries: Sequence[Entry],
    real: NDArray[np.uint8],
    made: Mapping[str, NDArray[np.float16]],
    path: Path,
) -> None:
    """Real pictures, then a row for each configuration."""
    count = len(real)
    rows: list[Sequence[NDArray[Any]]] = [list(real)]
    rows += [list(pictures[:count].astype(np.float32)) for pictures in made.values()]
    picture = sheet(
        rows,
        row_labels=("real", *made),
        col_labels=[job(entry, 0)[0] for entry in entries[:count]],
        scale=max(1, 64 // real.shape[1]),
    )
    with replacing(path) as file:
        picture.save(file, "PNG")
