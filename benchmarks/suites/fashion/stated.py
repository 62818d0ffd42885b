"""Whether plans do on fresh seeds what they state, and whether predictions rank plans.

    OMP_NUM_THREADS=1 python -m benchmarks fashion stated

Of each model the named plans are made, as `asymflow plan --model REF` does, and draw pictures of
seeds that nothing was chosen or proved by; so does the model's own sampler. RMSE, of pictures in
[-1, 1], is that to a limit of more steps than the plans were proved against. Then random plans over
the lattice of a profile are predicted and drawn: does a larger prediction mean a larger error?
Writes stated.json and stated.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core.schedules import switched
from asymflow.core.statistics import mean_interval
from asymflow.core.types import Plan, Profile, Request
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.planning import grids, named, prediction, profiler
from asymflow.planning.calibration import PROFILED, requests
from asymflow.planning.proof import UNSEEN, rms
from asymflow.planning.proposals import interval
from benchmarks import results
from benchmarks.suites import predicted_error
from benchmarks.suites.fashion.asking import loaded
from benchmarks.suites.fashion.campaign import LIMIT, Table
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.train import MODELS

PICTURES = 16
"""That random plans are drawn for."""

Array = NDArray[np.float64]


def seen(table: Table, plan: Plan, wanted: Sequence[Request]) -> Tensor:
    """Pictures [b, c, h, w] in [-1, 1]."""
    states = table.drawn(plan, wanted)
    pictures = [torch.from_numpy(table.model.to_picture(state)) for state in states]
    return torch.stack(pictures).movedim(-1, 1) * 2 - 1


def stated(table: Table, limit: Tensor) -> dict[str, Any]:
    """What every named plan states, and does on the fresh pictures of a table."""
    size = table.model.card.sizes.native
    own = rms(seen(table, table.model.own_plan(size), table.fresh), limit)
    found = named.measure(table.model, guidance=table.scale)
    rows: dict[str, Any] = {}
    for name, plan in found.plans.items():
        assert plan.evidence is not None, "a named plan was proved"
        errors = rms(seen(table, plan, table.fresh), limit)
        fresh, said = mean_interval(errors), plan.evidence.rms
        further = mean_interval(np.maximum(errors, UNSEEN) - np.maximum(own, UNSEEN))
        rows[name] = {
            "passes": sum(step.passes(guided=table.guided) for step in plan.steps),
            "stated": asdict(said),
            "stated_of": plan.evidence.pictures,
            "fresh": asdict(fresh),
            "within": said.low <= fresh.value <= said.high,
            "overlaps": said.low <= fresh.high and fresh.low <= said.high,
            "further_than_own": asdict(further),
        }
        print(f"{table.model.name} {name}: stated {said}, fresh {fresh}", flush=True)
    return {
        "plans": rows,
        "absent": dict(found.absent),
        "own": asdict(mean_interval(own)),
        "passes": found.passes,
    }


def profile(table: Table) -> Profile:
    """As the search for named plans makes it."""
    own = table.model.own_plan(table.model.card.sizes.native)
    grid = grids.ended(grids.resampled(table.dense, named.CANDIDATES))
    card = table.model.card
    wanted = requests(card, card.sizes.native, table.scale, named.CHOSEN, PROFILED)
    found, _ = profiler.measure(
        table.adapter,
        wanted,
        times=switched(grid, interval(own)),
        guidance_interval=interval(own),
        memory=False,
        growth=named.GROWTH,
        solver="corrected2",
    )
    return found


def predicted(table: Table, fine: Plan, count: int) -> list[predicted_error.Row]:
    """Random plans, predicted and drawn, by errors of states, as predictions are."""
    measured, wanted = profile(table), table.fresh[:PICTURES]
    limit = table.drawn(fine, wanted)
    rows: list[predicted_error.Row] = []
    for kind, plan in predicted_error.draw(measured, 0, count):
        errors = rms(table.drawn(plan, wanted), limit)
        names = [step.tier.name for step in plan.steps]
        tiers = {tier: names.count(tier) for tier in dict.fromkeys(names)}
        guess, real = prediction.predict(measured, plan).error, np.sqrt(np.square(errors).mean())
        rows.append(predicted_error.Row(0, kind, len(plan.steps), tiers, guess, float(real)))
    return rows


def _draw(tables: Mapping[str, Sequence[predicted_error.Row]], path: Path) -> None:
    """Predicted against real errors of random plans, one panel for each model."""
    figure = new_figure(5.4 * len(tables), 5.2)
    for place, (title, rows) in enumerate(tables.items()):
        predicted_error.panel(figure.add_subplot(1, len(tables), place + 1), rows, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)


QUICK: dict[str, Any] = {"pictures": 2, "plans": 6, "limit": 6, "networks": ["jit"]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--plans", type=int, default=60, help="random ones")
    parser.add_argument(
        "--limit", type=int, default=LIMIT, help="steps of either half of the limit"
    )
    parser.add_argument("--networks", choices=tuple(NETWORKS), nargs="+", default=["jit", "unet"])
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    drawn: dict[str, Sequence[predicted_error.Row]] = {}
    names: list[str] = []
    networks: list[str] = given.networks
    for network in networks:
        model = loaded(given.models / NETWORKS[network].file)
        scale = model.card.guidance
        table = Table.of(model, scale, 0, given.pictures)
        fine = table.limit(given.limit)
        limit = seen(table, fine, table.fresh)
        rows = drawn[table.title] = predicted(table, fine, given.plans)
        groups = {"all": rows} | {
            kind: [row for row in rows if row.kind == kind] for kind in predicted_error.KINDS
        }
        table_of = {
            **stated(table, limit),
            "limit": {"moves": len(fine.steps)},
            "predictions": {name: predicted_error.summary(each) for name, each in groups.items()},
            "random": [asdict(row) for row in rows],
        }
        tables[table.title] = table_of
        names.append(model.name)
        print(f"{model.name}: {table_of['predictions']}", flush=True)
    _draw(drawn, given.out / "stated.png")
    report = {"pictures": given.pictures, "tables": tables}
    path = given.out / "stated.json"
    return results.save(path, report, weights=names, dtype="float32", device="cpu")
