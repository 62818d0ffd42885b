"""FD at equal passes: fitted plans, the best baselines, and each model's own sampler.

    OMP_NUM_THREADS=1 python -m benchmarks fashion quality --networks jit; --networks unet

Guided pictures of common seeds, judged by features of the judge (`benchmarks.suites.fashion.judge`)
against real ones: FD, KID, class accuracy, precision and recall; and for each the difference of its
FD to that of the model's own sampler, with an interval from the common seeds. The baselines are the
best of `fashion campaign` at each price, read from its result. Writes quality-jit.json,
quality-jit.png and the same of the other network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asymflow.bench import metrics
from asymflow.bench.baselines.methods import METHODS
from asymflow.core.errors import InputError
from asymflow.core.types import Plan, Request
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.planning import plan_files
from asymflow.planning.verifier import rollout
from benchmarks import results
from benchmarks.suites.fashion import data
from benchmarks.suites.fashion.asking import asked, loaded
from benchmarks.suites.fashion.campaign import (
    LOWS,
    TOGETHER,
    Setting,
    Table,
    by_chords,
    fits,
)
from benchmarks.suites.fashion.judge import FIRST, REFERENCE, Features, Judge
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.train import MODELS

SCALE = 2.0
OWN = "own sampler"
Draw = Callable[[Sequence[Request]], Tensor]
"""x_0 [b, c, h, w] of requests."""


def best_of(campaign: Path, title: str, table: Table) -> dict[int, Setting]:
    """The best baseline of every price, as the campaign found it.

    Raises:
        InputError: there is no such result.
    """
    if not campaign.is_file():
        raise InputError(
            f"There is no {campaign}. Make it with `python -m benchmarks fashion campaign`."
        )
    named = {
        str(setting): setting
        for method in METHODS
        for grid in table.grids
        for low in (0.0, *LOWS)
        if (setting := Setting(method, grid, low))
    }
    rows = json.loads(campaign.read_text("utf-8"))["tables"][title]["rows"]
    return {row["passes"]: named[row["baselines"][row["best"]]["setting"]] for row in rows}


def features(draw: Draw, judge: Judge, table: Table, wanted: Sequence[Request]) -> Features:
    """Features [n, d] of the pictures of requests."""
    parts: list[Features] = []
    for begin in range(0, len(wanted), TOGETHER):
        states = draw(wanted[begin : begin + TOGETHER])
        pictures = np.stack([table.model.to_picture(state)[..., 0] for state in states])
        parts.append(judge.features(np.round(pictures * 255).astype(np.uint8)))
    return np.concatenate(parts)


def compared(
    network: str, given: argparse.Namespace, judge: Judge, reference: Features
) -> tuple[dict[str, Any], dict[str, Plan], str]:
    """The rows of a network, its plans, and the name of its weights."""
    model = loaded(given.models / NETWORKS[network].file)
    table = Table.of(model, SCALE, given.chosen, 0)
    table.grids["chords"] = by_chords(table)
    wanted = asked(model, SCALE, FIRST, given.pictures)
    labels = np.array([request.inputs["label"] for request in wanted], np.int64)
    ours, own = fits(table), model.own_plan(model.card.sizes.native)
    plans = {OWN: own} | {
        f"fitted, {price} passes": ours.at(price // 2)["fitted"] for price in given.prices
    }
    title = f"{model.card.title}, guidance {SCALE:g}"
    campaign = best_of(given.campaign / f"campaign-{network}.json", title, table)
    draws: dict[str, tuple[int, Draw]] = {}
    for name, plan in plans.items():
        passes = sum(step.passes(guided=True) for step in plan.steps)
        draws[name] = passes, _by_plan(table, plan)
    for price in given.prices:
        found = table.sampler(campaign[price], price)
        assert found is not None, "the campaign ran it"
        sampler, passes = found
        draws[f"{campaign[price]}, {price} passes"] = passes, _by_sampler(table, sampler)
    rows: list[dict[str, Any]] = []
    known: Features | None = None
    for name, (passes, draw) in draws.items():
        made = features(draw, judge, table, wanted)
        known = made if known is None else known
        more = metrics.fd_difference(made, known, reference)
        scores = asdict(judge.scores(made, labels, reference))
        rows.append({"sampler": name, "passes": passes, **scores, "fd_more": asdict(more)})
        print(f"{title}: {name}, {passes} passes, FD {rows[-1]['fd']}, more {more}", flush=True)
    return {"title": title, "rows": rows}, plans, model.name


def _by_plan(table: Table, plan: Plan) -> Draw:
    return lambda wanted: rollout(table.adapter, plan, wanted)


def _by_sampler(table: Table, sampler: Any) -> Draw:
    return lambda wanted: table.pictures(sampler, wanted)


def _draw(found: Mapping[str, Any], path: Path) -> None:
    """FD against passes."""
    figure = new_figure(6.0, 3.6)
    panel = figure.add_subplot(1, 1, 1)
    kinds = {"fitted": "C1", "own sampler": "C0", "best baseline": "0.5"}
    for kind, colour in kinds.items():
        rows = [row for row in found["rows"] if _kind(row["sampler"]) == kind]
        x, y = [row["passes"] for row in rows], [row["fd"]["value"] for row in rows]
        panel.plot(x, y, "o-", color=colour, label=kind)
    panel.set(xscale="log", title=found["title"], xlabel="network passes", ylabel="FD to real")
    ticks = sorted({row["passes"] for row in found["rows"]})
    panel.set_xticks(ticks, [str(n) for n in ticks])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=130)


def _kind(sampler: str) -> str:
    if sampler == OWN:
        return OWN
    return "fitted" if sampler.startswith("fitted") else "best baseline"


QUICK: dict[str, Any] = {"prices": [4], "pictures": 30, "reference": 100, "chosen": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prices", type=int, nargs="+", default=[6, 10, 16, 24])
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--reference", type=int, default=REFERENCE)
    parser.add_argument("--chosen", type=int, default=16, help="as in `fashion campaign`")
    parser.add_argument("--networks", choices=tuple(NETWORKS), nargs="+", default=["jit", "unet"])
    parser.add_argument("--campaign", type=Path, metavar="DIR", default=results.TRAINED)
    parser.add_argument("--data", type=Path, metavar="DIR", default=data.FOLDER)
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


@torch.inference_mode()
def run(given: argparse.Namespace) -> dict[str, Any]:
    judge = Judge.load(given.models)
    reference = judge.features(data.pictures("networks", given.data)[0][: given.reference])
    saved: dict[str, Any] = {}
    for network in given.networks:
        found, plans, weights = compared(network, given, judge, reference)
        report = {
            "pictures": given.pictures,
            "reference": len(reference),
            **found,
            "files": {name: plan_files.plan_to_json(plan) for name, plan in plans.items()},
        }
        _draw(found, given.out / f"quality-{network}.png")
        path = given.out / f"quality-{network}.json"
        described = {"weights": [weights], "plans": plans, "dtype": "float32", "device": "cpu"}
        saved[network] = results.save(path, report, **described)
    return saved
