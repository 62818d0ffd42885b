"""Does a plan's predicted error hold? Random plans, predicted and then really run.

    python -m benchmarks predicted_error --profile runs/plans/profile-64.safetensors

writes predicted-error.json and .png: three draws of 40 plans on the profile's lattice, 3 to 16
steps between random candidate times, on pictures that were not profiled. Real and predicted are
root mean squares over pixels and pictures. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asymflow.bench import protocol
from asymflow.bench.evaluators import by_reference
from asymflow.core.types import CONDITIONAL, FULL, Plan, Profile, Step, Tier
from asymflow.generation import pipeline
from asymflow.io.files import write_text
from asymflow.io.plots import new_figure
from asymflow.planning import calibration, plan_files, prediction
from benchmarks import results

KINDS = {"full only": "#2f6f9f", "with carried tiers": "#5f9f4f", "with biased tiers": "#d98c2b"}
COUNT, DRAWS = 40, 3
SHORTEST, LONGEST = 3, 16


@dataclass(frozen=True, slots=True)
class Row:
    """One plan: `predicted` and `real` error, and how often it asks each tier."""

    draw: int
    kind: str
    steps: int
    tiers: Mapping[str, int]
    predicted: float
    real: float


def draw(profile: Profile, seed: int, count: int = COUNT) -> list[tuple[str, Plan]]:
    """(kind, plan) of random plans, in turns of every kind."""
    rng = np.random.default_rng(seed)
    cached = [tier for tier in profile.tiers if tier.cached]
    biased = [tier for tier in profile.tiers if not tier.unreduced]
    cheap = {"full only": [], "with carried tiers": cached, "with biased tiers": cached + biased}
    found: list[tuple[str, Plan]] = []
    while len(found) < count:
        kind = list(KINDS)[len(found) % len(KINDS)]
        moves = int(rng.integers(SHORTEST, LONGEST + 1))
        inner = rng.choice(range(1, len(profile.times) - 1), moves - 1, replace=False)
        tiers = [_pick(rng, cheap[kind]) for _ in range(moves)]
        times = [profile.times[i] for i in (0, *sorted(inner.tolist()), len(profile.times) - 1)]
        low, high = (float(t) for t in profile.made["guidance_interval"].split(":"))
        allowed = [low <= t <= high for t in times[:-1]]
        tiers = [
            tier if guided or not tier.guided else CONDITIONAL
            for tier, guided in zip(tiers, allowed, strict=True)
        ]
        whole: bool | None = None  # whether the last step of the whole network was guided
        for number, (tier, guided) in enumerate(zip(tiers, allowed, strict=True)):
            # There may be nothing to carry from before, and nothing for a late step to reuse.
            if (tier.cached and FULL not in tiers[:number]) or (
                tier.late and (whole is None or (tier.guided and not whole))
            ):
                tiers[number] = FULL if guided else CONDITIONAL
            if tiers[number].whole:
                whole = tiers[number].guided
        wanted = {"full only": True, "with carried tiers": any(tier.cached for tier in tiers)}
        if not wanted.get(kind, any(not tier.unreduced for tier in tiers)):
            continue
        steps = (Step(t, s, tier) for (t, s), tier in zip(pairwise(times), tiers, strict=True))
        plan = Plan(f"random {len(found)}", tuple(steps))
        # Nobody knows the error of a late step after longer than was profiled.
        if math.isfinite(prediction.predict(profile, plan).error):
            found.append((kind, plan))
    return found


def _pick(rng: np.random.Generator, cheap: Sequence[Tier]) -> Tier:
    """Full every other time."""
    return FULL if not cheap or rng.random() < 0.5 else cheap[int(rng.integers(len(cheap)))]


def measure(model: pipeline.Model, profile: Profile, pictures: int, work: Path) -> list[Row]:
    """Roll every plan out; what was measured before is read from `work`."""
    protocol.check_fits(profile, model.adapter.name)
    width, height = (int(side) for side in profile.made["size"].split("x"))
    scale = float(profile.made["guidance_scale"])
    requests = calibration.requests(
        model.adapter.card, (height, width), scale, pictures, calibration.PROVED
    )
    what = repr([(each.inputs, each.seed, each.size, scale) for each in requests])
    key = hashlib.sha256(f"{model.adapter.name} {what}".encode()).hexdigest()[:12]
    judge = by_reference(model, requests, work)
    cache = work / f"predicted-{key}.json"
    known: dict[str, list[float]] = json.loads(cache.read_text()) if cache.exists() else {}
    rows: list[Row] = []
    drawn = [(seed, *each) for seed in range(DRAWS) for each in draw(profile, seed)]
    for seed, kind, plan in drawn:
        name = plan_files.plan_hash(plan)
        if name not in known:
            known[name] = judge.errors(plan).tolist()
            write_text(cache, json.dumps(known))
        names = [step.tier.name for step in plan.steps]
        row = Row(
            seed,
            kind,
            len(plan.steps),
            {tier: names.count(tier) for tier in dict.fromkeys(names)},
            prediction.predict(profile, plan).error,
            float(np.sqrt(np.mean(np.square(known[name])))),
        )
        print(
            f"{row.predicted:.4f} predicted  {row.real:.4f} real  {kind}, {row.tiers}", flush=True
        )
        rows.append(row)
    return rows


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Rank correlation (Spearman), and the quartiles of real over predicted."""
    predicted, real = (np.array([getattr(r, name) for r in rows]) for name in ("predicted", "real"))
    low, median, high = np.quantile(real / predicted, (0.25, 0.5, 0.75))
    return {
        "plans": len(rows),
        "rank_correlation": float(np.corrcoef(_ranks(predicted), _ranks(real))[0, 1]),
        "real_over_predicted": float(median),
        "lower_quartile": float(low),
        "upper_quartile": float(high),
    }


def _ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return values.argsort().argsort()


def plot(rows: Sequence[Row], title: str) -> Any:
    """A figure of one panel."""
    figure = new_figure(5.6, 5.2)
    panel(figure.add_subplot(), rows, title)
    return figure


def panel(axes: Any, rows: Sequence[Row], title: str) -> None:
    """Predicted against real, both logarithmic; on the line they are equal."""
    ends = [f(getattr(r, n) for r in rows for n in ("predicted", "real")) for f in (min, max)]
    ends = [ends[0] * 0.85, ends[1] * 1.15]
    axes.plot(ends, ends, color="#999999", linewidth=1, zorder=0)
    for kind, colour in KINDS.items():
        own = [row for row in rows if row.kind == kind]
        found = summary(own)
        axes.scatter(
            [row.predicted for row in own],
            [row.real for row in own],
            s=[14 + 5 * row.steps for row in own],
            color=colour,
            alpha=0.8,
            edgecolors="white",
            label=f"{kind}: rank correlation {found['rank_correlation']:.2f}",
        )
    axes.set(
        xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal", title=title,
        xlabel="predicted difference to the reference", ylabel="real difference, by rollouts",
    )  # fmt: skip
    axes.grid(alpha=0.25, which="both")
    axes.tick_params(which="minor", labelbottom=False, labelleft=False)
    axes.legend(frameon=False, title="larger dots: more steps", alignment="left", fontsize=9)


QUICK = {"pictures": 2, "work": results.QUICK / "plans"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", type=Path, default=Path("runs/plans/profile-64.safetensors"))
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--work", type=Path, default=Path("runs/plans"))
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    profile = plan_files.load_profile(given.profile)
    model = pipeline.load(None, dtype="float32", device=None)
    rows = measure(model, profile, given.pictures, given.work)
    groups = {"all": rows} | {kind: [r for r in rows if r.kind == kind] for kind in KINDS}
    groups |= {f"draw {seed}": [r for r in rows if r.draw == seed] for seed in range(DRAWS)}
    found = {name: summary(group) for name, group in groups.items()}
    for name, each in found.items():
        print(name, {key: round(value, 3) for key, value in each.items()})
    report = {
        "profile": dict(profile.made),
        "pictures": given.pictures,
        "summary": found,
        "plans": [asdict(row) for row in rows],
    }
    here = (given.out or results.folder_of(model.adapter.name)) / "predicted-error"
    whole = results.save(here.with_suffix(".json"), report, **results.on(model))
    title = f"{len(rows)} random plans, {profile.made['size']}, {given.pictures} fresh pictures"
    plot(rows, title).savefig(here.with_suffix(".png"), dpi=120)
    return whole
