"""Estimates by tiles: memory and time as pictures grow, seams, errors, and plans within a limit.

    python -m benchmarks tiled
    python -m benchmarks tiled --errors

The first writes tiled.json and tiled.png, the second tiled-errors.json. Two models: the small JiT
of `fashion train`, at up to eight times its trained side of 32 px, and the embedded model of 64 px,
at up to 2048 px.

*Whole* is the conditional estimate of the whole picture, *pooled* that of the picture at the
trained side, enlarged, and *tiled* the tier `tiled conditional`. The working memory of the network
is the largest peak of its calls; the total has the states at full size beside it. Seconds are of
one estimate.

Errors are of estimates from pictures with noise: pictures that the model draws at its trained
side, enlarged by a cubic kernel. Both networks leave edges between their patches, and borders of
tiles lie on these. So seam energy is the mean square of differences between neighbouring pixels
where a tile begins or ends, or its weight does, over that at other edges of patches nearby, divided
by the same ratio for the picture without noise.

At last a small profile is measured at four times the trained side, and a plan is searched within
less memory than an estimate of the whole picture takes.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from asymflow.core import engine, schedules, tiles
from asymflow.core.adapter import Adapter, CardedAdapter, Context, Wrapped
from asymflow.core.estimators import Guided, estimate
from asymflow.core.flow import interpolate
from asymflow.core.transforms import pooled
from asymflow.core.types import CONDITIONAL, Plan, Request, Step, Tier, tiled_tiers
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.models import loading
from asymflow.models.embedded import adapter as embedded
from asymflow.planning import calibration, costs, memory, planner, profiler, verifier
from asymflow.planning.profiler import Growth
from benchmarks import results
from benchmarks.results import ROOT

JIT = ROOT / "benchmarks/models/fashion-jit.safetensors"
SIDES = {"jit": (64, 128, 256), "embedded": (128, 256, 512, 1024, 2048)}
WHOLE = {"jit": 256, "embedded": 512}
"""The largest side at which whole pictures are estimated."""
TIMES = (0.05, 0.1, 0.2, 0.3, 0.5)
FACTOR = 4
"""Sides, in trained ones, at which errors are measured and plans are made."""
CANDIDATES = {
    "jit": (1.0, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.0),
    "embedded": (1.0, 0.5, 0.2, 0.0),
}
STEPS, LATE = 16, 0.3
"""Of pictures in the sheet, and the time from which they are estimated by tiles."""
BESIDE = 16
"""Pixels around borders of tiles whose edges of patches these are compared with."""
PATCHES = 8
"""Along a tile of both networks."""
BUDGET = 8
"""Passes of a planned picture."""

QUICK = {"models": ["jit"], "most": 64, "pictures": 1, "candidates": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(SIDES), choices=list(SIDES))
    parser.add_argument("--errors", action="store_true", help="measure errors and seams only")
    parser.add_argument("--most", type=int, default=2048, help="largest side")
    parser.add_argument("--pictures", type=int, default=4, help="of errors and seams")
    parser.add_argument("--candidates", type=int, default=99, help="times of profiles, at most")
    parser.add_argument("--out", type=Path, default=results.TRAINED)


@torch.inference_mode()
def run(given: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {}
    loaded = {name: _loaded(name) for name in given.models}
    described = results.on_adapters(list(loaded.values()))
    if given.errors:
        for name, adapter in loaded.items():
            native = [_native(adapter, seed) for seed in range(given.pictures)]
            report[name] = _errors(adapter, native)
            print(json.dumps({name: report[name]}), flush=True)
        return results.save(given.out / "tiled-errors.json", report, **described)
    rows: list[list[tuple[str, Any]]] = []
    for name, adapter in loaded.items():
        side = adapter.card.sizes.native[0]
        sides = [each for each in SIDES[name] if each <= given.most]
        factor = min(FACTOR, given.most // side)
        growth = [_grown(adapter, each, whole=each <= WHOLE[name]) for each in sides]
        found = report[name] = {
            "trained": side,
            "until": _tiles(adapter).until,
            "growth": growth,
            "exponents": _exponents(growth),
            "planned": _planned(adapter, factor, CANDIDATES[name], given.candidates),
        }
        print(json.dumps({name: found}), flush=True)
        rows.append(_drawn(adapter, factor))
    report["models"] = {name: adapter.name for name, adapter in loaded.items()}
    with replacing(given.out / "tiled.png") as file:
        _sheet(rows).savefig(file, format="png", dpi=120)
    return results.save(given.out / "tiled.json", report, **described)


def _loaded(name: str) -> CardedAdapter:
    found = embedded.load() if name == "embedded" else loading.load(str(JIT))
    return cast("CardedAdapter", found)


def _tiles(adapter: CardedAdapter) -> Any:
    assert adapter.card.tiles is not None, "both models are shown tiles"
    return adapter.card.tiles


def _request(adapter: CardedAdapter, side: int, seed: int = 0, scale: float = 1.0) -> Request:
    inputs = adapter.card.calibration
    return Request(inputs[seed % len(inputs)], (side, side), seed, scale)


def _native(adapter: CardedAdapter, seed: int) -> Tensor:
    """x_0 [1, c, h, w] of a picture that the model draws at its trained side."""
    side = adapter.card.sizes.native[0]
    request = _request(adapter, side, seed, adapter.card.guidance)
    [end] = engine.rollout(adapter, adapter.default_plan((side, side)), [request])
    return end.x_0[None].clamp(-2, 2)


class _Probed(Wrapped):
    """An adapter whose network is called once for every shape of states, and measured."""

    def __init__(self, inner: Adapter) -> None:
        super().__init__(inner)
        self.peaks: dict[tuple[int, ...], int] = {}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        if tuple(x_t.shape) not in self.peaks:
            call = lambda: self.inner.denoise(x_t, t, context)  # noqa: E731
            self.peaks[tuple(x_t.shape)] = costs.peak_bytes(call)
        return x_t


def _tiers(adapter: CardedAdapter, side: int, *, whole: bool) -> dict[str, Tier]:
    own = _tiles(adapter).side
    found = {
        "pooled": Tier("pooled", guided=False, pool_factor=side // own),
        "tiled": tiled_tiers(own)[1],
    }
    return {"whole": CONDITIONAL, **found} if whole else found


def _grown(adapter: CardedAdapter, side: int, *, whole: bool) -> dict[str, Any]:
    """Seconds and peak bytes of one estimate of a picture of side x side pixels, by tier."""
    request = _request(adapter, side)
    scale = torch.ones(1)
    x_t = engine.noise(0, (1, adapter.channels, side, side))
    t = torch.full((1,), 0.3)
    found: dict[str, Any] = {"side": side, "state_bytes": x_t.nbytes}
    contexts = adapter.encode([request])
    model = Guided.of(adapter, *contexts, scale)
    probed = _Probed(adapter)
    asked = Guided.of(probed, *contexts, scale)
    for name, tier in _tiers(adapter, side, whole=whole).items():
        probed.peaks.clear()
        estimate(asked, tier, x_t, t, None)
        call = lambda: estimate(model, tier, x_t, t, None)  # noqa: B023, E731
        found[name] = {
            "seconds": min(costs.seconds(call) for _ in range(3 if side <= 256 else 1)),
            "peak_bytes": costs.peak_bytes(call),
            "working_bytes": max(probed.peaks.values()),
        }
        found[name]["states"] = (
            found[name]["peak_bytes"] - found[name]["working_bytes"]
        ) / x_t.nbytes
    found["tiles"] = tiles.count((side, side), _tiles(adapter).side)
    return found


def _exponents(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Powers of the number of pixels that seconds and bytes grow with, by least squares."""
    found: dict[str, dict[str, float]] = {}
    for name in ("whole", "pooled", "tiled"):
        known = [row for row in rows if name in row]
        if len(known) < 2:
            continue
        pixels = np.log([row["side"] ** 2 for row in known])
        found[name] = {
            what: float(np.polyfit(pixels, np.log([row[name][what] for row in known]), 1)[0])
            for what in ("seconds", "peak_bytes", "working_bytes")
        }
    return found


def _errors(adapter: CardedAdapter, native: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Root mean square errors of estimates, and seam energies, by time."""
    side = native[0].shape[-1] * FACTOR
    rows: list[dict[str, Any]] = []
    for t in TIMES:
        squares: dict[str, list[float]] = {}
        seams: dict[str, list[tuple[float, float]]] = {}
        for seed, small in enumerate(native):
            x_0 = functional.interpolate(small, scale_factor=FACTOR, mode="bicubic")
            seams.setdefault("x_0", []).append(_seam(adapter, x_0))
            x_t = interpolate(x_0, engine.noise(100 + seed, tuple(x_0.shape)), t)
            contexts = adapter.encode([_request(adapter, side, seed)])
            model = Guided.of(adapter, *contexts, torch.ones(1))
            for name, tier in _tiers(adapter, side, whole=True).items():
                found, _ = estimate(model, tier, x_t, torch.full((1,), t), None)
                squares.setdefault(name, []).append(float((found - x_0).square().mean()))
                seams.setdefault(name, []).append(_seam(adapter, found))
        ratios = {name: float(np.divide(*np.mean(each, axis=0))) for name, each in seams.items()}
        ratios = {name: each / ratios["x_0"] for name, each in ratios.items() if name != "x_0"}
        rms = {name: math.sqrt(np.mean(each)) for name, each in squares.items()}
        rows.append({"t": t, "rms": rms, "seam": ratios})
    return rows


def _seam(adapter: CardedAdapter, x_0: Tensor) -> tuple[float, float]:
    """Mean squares of differences across borders of tiles, and across other edges nearby."""
    side, patch = _tiles(adapter).side, _tiles(adapter).side // PATCHES
    border: list[Tensor] = []
    inner: list[Tensor] = []
    for dim in (-2, -1):
        square = x_0.diff(dim=dim).square().mean((0, 1, -3 - dim))
        marked = torch.zeros(len(square), dtype=torch.bool)
        length = x_0.shape[dim]
        pairs = zip(tiles.begins(length, side), tiles.weights(length, side), strict=True)
        for begin, weight in pairs:
            used = torch.nonzero(weight).flatten()
            places = {begin, begin + len(weight), begin + int(used[0]), begin + int(used[-1]) + 1}
            marked[[place - 1 for place in places if 0 < place < length]] = True
        around = functional.max_pool1d(marked[None].float(), 2 * BESIDE + 1, 1, BESIDE)[0].bool()
        edges = torch.arange(1, length) % patch == 0
        assert edges[marked].all(), "borders of tiles are edges of patches"
        border.append(square[marked])
        inner.append(square[around & edges & ~marked])
    return float(torch.cat(border).mean()), float(torch.cat(inner).mean())


def _planned(
    adapter: CardedAdapter, factor: int, times: Sequence[float], most: int
) -> dict[str, Any]:
    """A plan within less memory than that of whole pictures, and what it takes and does."""
    side = adapter.card.sizes.native[0] * factor
    keep = np.linspace(0, len(times) - 1, min(most + 1, len(times))).round().astype(int)
    scale = adapter.card.guidance
    [request] = calibration.requests(adapter.card, (side, side), scale, 1, calibration.PROFILED)
    profile, ends = profiler.measure(
        adapter,
        [request],
        times=[times[i] for i in keep],
        repeats=1,
        growth=Growth(pictures=1, times=1, moves=4),
    )
    peaks = dict(zip([tier.name for tier in profile.tiers], profile.peak_bytes, strict=True))
    limit = min(each for each in (peaks["full"], peaks["conditional"])) - 1
    judge = verifier.Evaluator(adapter, (request,), ends)
    found: dict[str, Any] = {"side": side, "peak_bytes": peaks, "limit": limit, "plans": {}}
    for name, allowed in (("any memory", None), ("within the limit", limit)):
        plan = planner.plan(profile, budget=BUDGET, cost="forwards", max_bytes=allowed)
        found["plans"][name] = _account(adapter, profile, plan, judge, request)
    tiled = [tier for tier in profile.tiers if tier.tiles is not None]
    small = next(t for t in profile.tiers if t.pool_factor == factor and not t.cached)
    late = Plan(
        "tiled", (Step(1.0, 0.5, small), Step(0.5, 0.2, tiled[0]), Step(0.2, 0.0, tiled[1]))
    )
    found["plans"]["pooled, then tiled"] = _account(adapter, profile, late, judge, request)
    return found


def _account(
    adapter: CardedAdapter,
    profile: Any,
    plan: Plan,
    judge: verifier.Evaluator,
    request: Request,
) -> dict[str, Any]:
    return {
        "tiers": [step.tier.name for step in plan.steps],
        "times": plan.times,
        "rms": judge.error(plan),
        "estimated_bytes": memory.of_plan(profile, plan),
        "measured_bytes": costs.peak_bytes(lambda: engine.rollout(adapter, plan, [request])),
    }


def _drawn(adapter: CardedAdapter, factor: int) -> list[tuple[str, Any]]:
    """One picture in three ways: whole, pooled, and pooled, then by tiles."""
    side = adapter.card.sizes.native[0] * factor
    request = _request(adapter, side, 0, adapter.card.guidance)
    whole = schedules.plan_of(
        schedules.shifted(STEPS, 1.0),
        guidance_interval=adapter.card.guidance_interval,
        name="whole",
    )
    coarse = pooled(whole, factor)
    guided, plain = tiled_tiers(_tiles(adapter).side)
    late = (
        step
        if step.t > LATE
        else Step(step.t, step.s, guided if step.tier.guided else plain, step.solver)
        for step in coarse.steps
    )
    plans = {"whole": whole, "pooled": coarse, "pooled, then tiled": Plan("late", tuple(late))}
    found: list[tuple[str, Any]] = []
    for name, plan in plans.items():
        [result] = engine.run(adapter, plan, [request])
        found.append((f"{side} px, {name}", result.picture))
    return found


def _sheet(rows: Sequence[Sequence[tuple[str, Any]]]) -> Any:
    figure = new_figure(12, 4.2 * len(rows))
    for row, pictures in enumerate(rows):
        for column, (title, picture) in enumerate(pictures, 1):
            axes: Any = figure.add_subplot(len(rows), 3, 3 * row + column, title=title)
            shown = picture
            if picture.shape[-1] == 4:  # on white
                shown = (picture[..., :3] + 1 - picture[..., 3:]).clip(0, 1)
            gray = {"cmap": "gray", "vmin": 0, "vmax": 1} if picture.shape[-1] == 1 else {}
            axes.imshow(shown.squeeze(), interpolation="none", **gray)
            axes.axis("off")
    return figure
