"""FD at equal passes: fitted plans, the best baselines, and each model's own sampler.

    OMP_NUM_THREADS=1 python -m benchmarks fashion quality --networks jit; --networks unet

Guided pictures of common seeds, judged by features of the judge (`benchmarks.suites.fashion.judge`)
against real ones: FD, KID, class accuracy, precision and recall; and for each the difference of its
FD to that of the model's own sampler, with an interval from the common seeds. The baselines are the
best of `fashion campaign` at each price, read from its result, and samplers that add noise, whose
times are chosen here by the FD of pictures of their own. The U-Net also draws as models of its kind
are published to be drawn: by ancestral sampling at every timestep that it was trained at, fewer
pictures. Writes quality-jit.json, quality-jit.png and the same of the other network.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
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
    TOGETHER,
    Setting,
    Table,
    by_chords,
    fits,
)
from benchmarks.suites.fashion.data import SIDE
from benchmarks.suites.fashion.judge import FIRST, REFERENCE, Features, Judge
from benchmarks.suites.fashion.networks import NETWORKS, NULL, diffusers
from benchmarks.suites.fashion.train import MODELS

SCALE = 2.0
OWN = "own sampler"
ANCESTRAL = "DDPM, every timestep"
GRIDS = ("uniform", "beta", "AYS of SVD")
"""Times that a sampler with noise is tried on."""
CHOSEN = 40_000
"""First seed of the pictures that its times are chosen by."""
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
        for low in (0.0, *table.lows)
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
    title = table.title
    campaign = best_of(given.campaign / f"campaign-{network}.json", title, table)
    draws: dict[str, tuple[int, Draw]] = {}
    for name, plan in plans.items():
        passes = sum(step.passes(guided=True) for step in plan.steps)
        draws[name] = passes, _by_plan(table, plan)
    settings = [(campaign[price], price) for price in given.prices]
    for price in given.noisy:
        settings += [(each, price) for each in noisy(table, price, given.tried, judge, reference)]
    for setting, price in settings:
        chosen = table.sampler(setting, price)
        assert chosen is not None, "it was chosen by what it draws"
        sampler, passes = chosen
        draws[f"{setting}, {price} passes"] = passes, _by_sampler(table, sampler)
    rows: list[dict[str, Any]] = []
    kept: dict[str, Features] = {}
    for name, (passes, draw) in draws.items():
        made = features(draw, judge, table, wanted)
        kept[name] = made
        more = metrics.fd_difference(made, kept[OWN], reference)
        scores = asdict(judge.scores(made, labels, reference))
        rows.append({"sampler": name, "passes": passes, **scores, "fd_more": asdict(more)})
        print(f"{title}: {name}, {passes} passes, FD {rows[-1]['fd']}, more {more}", flush=True)
    found: dict[str, Any] = {"title": title, "rows": rows}
    few = wanted[: given.ancestral]
    if network == "unet" and few:
        pipe = diffusers.DDPMPipeline.from_pretrained(given.models / NETWORKS[network].file)
        made = features(partial(ancestral, pipe), judge, table, few)
        more = {
            name: asdict(metrics.fd_difference(each[: len(few)], made, reference))
            for name, each in kept.items()
        }
        scores = asdict(judge.scores(made, labels[: len(few)], reference))
        found[ANCESTRAL] = {
            "pictures": len(few),
            "passes": 2 * len(pipe.scheduler.timesteps),
            **scores,
            "more": more,
        }
        print(f"{title}: {ANCESTRAL}, {found[ANCESTRAL]}", flush=True)
    return found, plans, model.name


def noisy(
    table: Table, price: int, count: int, judge: Judge, reference: Features
) -> Iterator[Setting]:
    """Samplers that add noise, each on the times of the least FD of so many pictures."""
    wanted = asked(table.model, SCALE, CHOSEN, count)

    def fd(setting: Setting) -> float:
        found = table.sampler(setting, price)
        if found is None:
            return math.inf
        made = features(_by_sampler(table, found[0]), judge, table, wanted)
        return metrics.fd(made, reference).value if np.isfinite(made).all() else math.inf

    for method in METHODS:
        if method.noisy:
            yield min((Setting(method, grid) for grid in GRIDS), key=fd)


@torch.inference_mode()
def ancestral(pipe: Any, wanted: Sequence[Request]) -> Tensor:
    """x_0 [b, c, h, w] by the scheduler that a pipeline was saved with, at every timestep."""
    network, scheduler = pipe.unet.to(memory_format=torch.channels_last), pipe.scheduler
    labels = torch.tensor([request.inputs["label"] for request in wanted])
    null = torch.full_like(labels, NULL)
    sources = [torch.Generator().manual_seed(request.seed) for request in wanted]
    shape = (network.config.in_channels, SIDE, SIDE)
    x_t = torch.stack([torch.randn(shape, generator=source) for source in sources])
    for tau in scheduler.timesteps:
        v = network(torch.cat([x_t, x_t]), tau, torch.cat([labels, null])).sample
        given, free = v.chunk(2)
        guided = free + SCALE * (given - free)
        x_t = scheduler.step(guided, tau, x_t, generator=sources).prev_sample
    return x_t


def _by_plan(table: Table, plan: Plan) -> Draw:
    return lambda wanted: rollout(table.adapter, plan, wanted)


def _by_sampler(table: Table, sampler: Any) -> Draw:
    return lambda wanted: table.pictures(sampler, wanted)


def _draw(found: Mapping[str, Any], path: Path) -> None:
    """FD against passes."""
    figure = new_figure(6.0, 3.6)
    panel = figure.add_subplot(1, 1, 1)
    kinds = {"fitted": "C1", "own sampler": "C0", "best baseline": "0.5", "with noise": "C2"}
    for kind, colour in kinds.items():
        rows = [row for row in found["rows"] if _kind(row["sampler"]) == kind]
        x, y = [row["passes"] for row in rows], [row["fd"]["value"] for row in rows]
        panel.plot(x, y, "o" if kind == "with noise" else "o-", color=colour, label=kind)
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
    if any(sampler.startswith(f"{method.name},") for method in METHODS if method.noisy):
        return "with noise"
    return "fitted" if sampler.startswith("fitted") else "best baseline"


QUICK: dict[str, Any] = {
    "prices": [4],
    "noisy": [4],
    "tried": 8,
    "ancestral": 0,
    "pictures": 30,
    "reference": 100,
    "chosen": 4,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prices", type=int, nargs="+", default=[6, 10, 16, 24])
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--noisy", type=int, nargs="*", default=[10, 24], help="prices of these")
    parser.add_argument("--tried", type=int, default=128, help="pictures that their times take")
    parser.add_argument("--ancestral", type=int, default=100, help="pictures by all timesteps")
    parser.add_argument("--reference", type=int, default=REFERENCE)
    parser.add_argument("--chosen", type=int, default=16, help="as in `fashion campaign`")
    parser.add_argument("--networks", choices=tuple(NETWORKS), nargs="+", default=["jit", "unet"])
    parser.add_argument("--campaign", type=Path, metavar="DIR", default=results.TRAINED)
    parser.add_argument("--data", type=Path, metavar="DIR", default=data.FOLDER)
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


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
