"""All standard samplers against fitted plans, at equal passes.

    OMP_NUM_THREADS=1 python -m benchmarks fashion campaign
    OMP_NUM_THREADS=1 python -m benchmarks fashion campaign --networks embedded --prices 6 10

On the two models of Fashion-MNIST, or on the embedded model, whose prompts are those of its card;
those that are fitted to, chosen by and measured on are others. With and without guidance, at each
number of network passes (a guided estimate takes two): every sampler of
`asymflow.bench.baselines.methods` on every grid and, with guidance, in several guidance intervals,
chosen by successive halving on pictures of their own; then the best of every family and a fitted
plan for as many passes on pictures of fresh seeds, by their distance to the limit of the model.
Writes campaign-jit.json and .png, and the same of other networks.

- The limit has equal steps of the model's own time and of log-SNR together, which no sampler has.
  Its own error is that to another fine solution.
- A baseline with over 1.5 times the error of the best on 16 pictures is measured on no more.
- `ratio`: the error of the best baseline over ours; `band`: bounds for all baselines that hold
  together; `passes`: how many times our passes the best baseline takes for our error.
- Ours are the fits of `asymflow plan --effort full`, which take about as many passes as the choice
  of the baselines' settings.
- Our solvers on the same grids, without fitting, are a row of their own, and no baseline.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asymflow.bench.baselines import times
from asymflow.bench.baselines.methods import METHODS, UNFITTED, Method
from asymflow.bench.baselines.samplers import EVERYWHERE, Interval, Sampler
from asymflow.bench.baselines.times import Grid
from asymflow.bench.caching import Counted
from asymflow.core import engine, schedules
from asymflow.core.adapter import CardedAdapter
from asymflow.core.schedules import EDGE, plan_of, switched
from asymflow.core.types import CARRIED, CONDITIONAL, FULL, Plan, Profile, Request, Solver
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.models.loading import EMBEDDED
from asymflow.planning import grids
from asymflow.planning.effort import FULL as FULL_EFFORT
from asymflow.planning.encoded import Encoded
from asymflow.planning.fitting import Teacher
from asymflow.planning.journal import Journal
from asymflow.planning.proof import rms
from asymflow.planning.proposals import Fits, interval
from asymflow.planning.verifier import rollout
from benchmarks import results
from benchmarks.suites.fashion import paired
from benchmarks.suites.fashion.asking import Together, asked, dense, loaded
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.paired import Array
from benchmarks.suites.fashion.train import MODELS

FITTED, CHOSEN, FRESH = 1000, 2000, 5000
"""First seeds of the pictures that plans are fitted to, settings chosen by, and all measured on."""
LIMIT, OTHER = 100, 220
"""Steps of either half of the limit, and of the other fine solution."""
CHECKED = 8
"""Pictures by which the error of the limit is known."""
LOWS = (0.1, 0.2, 0.3)
"""Times above which alone a sampler is guided, if not wherever the model's own one is."""
QUARTERS = (0.25, 0.5, 0.75)
"""The same where the own one is guided near noise only: parts of its interval that are left out.
What of it fits into few passes differs with the grid."""
KEPT = 12
"""Every round leaves one of so many settings, and at least two, of a family."""
LEAST = 2
CHORDS, CHORD_PICTURES = 100, 4
"""Moves and pictures of the fine solution that one grid is found by."""
FIRST, HOPELESS = 16, 1.5
"""Baselines with so many times the error of the best on the first fresh pictures end there."""
TOGETHER = 16
"""Pictures of one network call: what a processor's cache holds."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A sampler that waits for a price."""

    method: Method
    grid: str
    low: float = 0.0

    def __str__(self) -> str:
        above = f", guided above {self.low:g}" if self.low else ""
        return f"{self.method.name}, {self.grid}{above}"


@dataclass(eq=False)
class Table:
    """A model with one guidance: its pictures, its limit, and what was spent.

    Attributes:
        counted: counts the network passes of `adapter`.
        chosen, fresh: requests that settings are chosen by, and that all are measured on.
        grids: by name.
        passes, seconds: by part.
    """

    model: CardedAdapter
    scale: float
    counted: Counted
    adapter: Encoded
    chosen: list[Request]
    fresh: list[Request]
    grids: dict[str, Grid]
    passes: Counter[str] = field(default_factory=Counter[str])
    seconds: Counter[str] = field(default_factory=Counter[str])
    ends: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    @classmethod
    def of(cls, model: CardedAdapter, scale: float, chosen: int, fresh: int) -> Table:
        counted = Counted(Together(model))
        own = model.own_plan(model.card.sizes.native)
        wanted = asked(model, scale, CHOSEN, chosen), asked(model, scale, FRESH, fresh)
        return cls(model, scale, counted, Encoded(counted), *wanted, times.named(own))

    @property
    def title(self) -> str:
        guided = f"guidance {self.scale:g}" if self.guided else "unguided"
        return f"{self.model.card.title}, {guided}"

    @property
    def guided(self) -> bool:
        return self.scale != 1

    @property
    def lowest(self) -> float:
        """The time down to which the model's own sampler is guided."""
        return interval(self.model.own_plan(self.model.card.sizes.native))[0]

    @property
    def lows(self) -> tuple[float, ...]:
        """Times above which alone a sampler may be guided."""
        low = self.lowest
        return tuple(low + part * (1 - low) for part in QUARTERS) if low > 0 else LOWS

    def interval(self, low: float) -> Interval | None:
        """Where a sampler that is guided above some time is, within what the network allows."""
        high = self.model.card.guidance_interval[1]
        low = max(low, self.lowest)
        return (low, high - EDGE if high < 1 else high) if self.guided else None

    def fine(self, nodes: Sequence[float], solver: Solver) -> Plan:
        """A plan of many steps."""
        interval = self.interval(0.0) or EVERYWHERE
        allowed = self.model.card.guidance_interval if self.guided else EVERYWHERE
        return plan_of(switched(nodes, allowed), solver=solver, guidance_interval=interval)

    @property
    def dense(self) -> tuple[float, ...]:
        return dense(self.model)

    def limit(self, halves: int) -> Plan:
        """A plan that leads to the limit, by so many steps of either half."""
        return self.fine(limit_times(self.dense, halves), "corrected2")

    def drawn(self, plan: Plan, wanted: Sequence[Request]) -> Tensor:
        """x_0 [b, c, h, w] of requests by a plan."""
        parts = [wanted[i : i + TOGETHER] for i in range(0, len(wanted), TOGETHER)]
        return torch.cat([rollout(self.adapter, plan, part) for part in parts])

    @contextmanager
    def spending(self, part: str) -> Generator[None]:
        rows, began = self.counted.rows, time.process_time()
        yield
        self.passes[part] += self.counted.rows - rows
        self.seconds[part] += round(time.process_time() - began)

    def sampler(self, setting: Setting, price: int) -> tuple[Sampler, int] | None:
        """The sampler of most steps for so many passes, and its passes; None if there is none."""
        interval = self.interval(setting.low)
        times_of = setting.method.dearest(self.grids[setting.grid], price, interval)
        if times_of is None:
            return None
        made = setting.method.make(times_of, interval or EVERYWHERE)
        return made, setting.method.passes(times_of, interval)

    @torch.inference_mode()
    def pictures(self, sampler: Sampler, wanted: Sequence[Request]) -> Tensor:
        """x_0 [b, c, h, w] of requests by a sampler."""
        parts = [wanted[i : i + TOGETHER] for i in range(0, len(wanted), TOGETHER)]
        return torch.cat([sampler.walk(self.adapter, part) for part in parts])

    def errors(self, setting: Setting, price: int, wanted: Sequence[Request]) -> Array:
        """The error of each picture, infinite where it is not finite or there is no such sampler.

        Args:
            setting: of a sampler.
            price: passes.
            wanted: requests that `ends` has the limit of.
        """
        found = self.sampler(setting, price)
        if found is None:
            return np.full(len(wanted), np.inf)
        limit = torch.stack([self.ends[each.seed] for each in wanted])
        error = rms(self.pictures(found[0], wanted), limit)
        return np.where(np.isfinite(error), error, np.inf)


def limit_times(dense: Sequence[float], count: int) -> tuple[float, ...]:
    """So many equal steps of the model's own time and of log-SNR together."""
    own = grids.resampled(dense, count)
    both = sorted({*own, *schedules.log_snr(count, start=times.FIRST, last=0.002)}, reverse=True)
    apart = [t for t, s in pairwise(both) if t - s > 1e-5]
    return (*(t for t in apart if t <= own[0]), 0.0)


def limits(table: Table) -> dict[str, float]:
    """Find the limit of all pictures; return its own error."""
    fine = table.limit(LIMIT)
    wanted = [*table.chosen, *table.fresh]
    found = table.drawn(fine, wanted)
    table.ends |= {each.seed: x_0 for each, x_0 in zip(wanted, found, strict=True)}
    few = table.fresh[:CHECKED]
    other = table.fine(grids.blended(table.dense, OTHER), "multistep3")
    known = torch.stack([table.ends[each.seed] for each in few])
    return {
        "moves": len(fine.steps),
        **paired.described(rms(rollout(table.adapter, other, few), known)),
    }


def by_chords(table: Table) -> Grid:
    """The grid of the least sum of Euler's errors along a fine solution, as that of GITS."""
    fine = table.fine(grids.blended(table.dense, CHORDS), "corrected2")
    few = table.chosen[:CHORD_PICTURES]
    teacher = Teacher.of(table.adapter, few, fine)
    states = torch.cat([teacher.states, teacher.ends[None]]).numpy()
    known = (*teacher.times, 0.0)
    error = times.chord_errors(known, states, teacher.estimates.numpy())
    return lambda n: tuple(known[node] for node in times.cheapest(error, n))


def choose(table: Table, price: int, rounds: Sequence[int]) -> dict[str, list[Setting]]:
    """The settings that are left of each family after all rounds, the best first."""
    left: dict[str, list[Setting]] = {}
    for method in METHODS:
        if not method.noisy:
            lows = (0.0, *table.lows) if table.guided else (0.0,)
            settings = [Setting(method, grid, low) for grid in table.grids for low in lows]
            left.setdefault(method.family, []).extend(settings)
    for count in rounds:
        for family, settings in left.items():
            few = table.chosen[:count]
            measured = {each: float(table.errors(each, price, few).mean()) for each in settings}
            settings.sort(key=lambda each: measured[each])
            left[family] = settings[: max(LEAST, math.ceil(len(settings) / KEPT))]
    return left


def fits(table: Table, kind: type[Fits] = Fits) -> Fits:
    """Fitted plans as a search makes them, whose prices are network passes."""
    tiers, passes = ((FULL, CONDITIONAL, CARRIED), (2, 1, 1)) if table.guided else ((FULL,), (1,))
    unmeasured = np.zeros(0, np.float32)
    priced = Profile(
        times=table.dense,
        tiers=tiers,
        cost_ms=passes,
        macs=passes,
        peak_bytes=passes,
        amplification=unmeasured,
        saturation=0.0,
        local_error=unmeasured,
        weight=unmeasured,
        drift=unmeasured,
        made={},
    )
    own = table.model.own_plan(table.model.card.sizes.native)
    return kind(
        table.adapter,
        partial(asked, table.model, table.scale, FITTED),
        priced,
        interval(own) if table.guided else EVERYWHERE,
        table.dense,
        Journal(None),
        FULL_EFFORT,
    )


def compared(
    table: Table, prices: Sequence[int], rounds: Sequence[int], rungs: Sequence[int]
) -> dict[str, Any]:
    """Every family and ours, for each price."""
    with table.spending("limit"):
        error = limits(table)
    fresh, rows = table.fresh, list[dict[str, Any]]()
    limit = torch.stack([table.ends[each.seed] for each in fresh])
    with table.spending("choice"):
        table.grids["chords"] = by_chords(table)
    ours = fits(table)
    ladder: dict[int, Array] = {}
    best: dict[int, Setting] = {}
    own: dict[int, Array] = {}
    for price in prices:
        with table.spending("choice"):
            settings = {family: left[0] for family, left in choose(table, price, rounds).items()}
        with table.spending("proof"):
            measured = proved(table, settings, price)
        with table.spending("fit"):
            plan = ours.at(price // 2 if table.guided else price)["fitted"]
        with table.spending("proof"):
            own[price] = rms(table.drawn(plan, fresh), limit)
        unfitted = measured[UNFITTED]
        others = {
            family: errors
            for family, errors in measured.items()
            if family != UNFITTED and len(errors) == len(fresh)
        }
        name = min(others, key=lambda each: others[each].mean())
        best[price], ladder[price] = settings[name], others[name]
        rows.append(
            {
                "passes": price,
                "ours": {
                    "steps": len(plan.steps),
                    "passes": engine.forwards(plan, fresh[0]),
                    "guided_steps": sum(step.tier.guided for step in plan.steps),
                    **paired.described(own[price]),
                },
                "baselines": {
                    family: _row(table, settings[family], price, errors)
                    for family, errors in measured.items()
                },
                "best": name,
                "ratio": paired.ratio_to_best(np.stack([*others.values()]), own[price]),
                "band": paired.band(others, own[price]),
                "unfitted": paired.ratio_to_best(unfitted[None], own[price]),
            }
        )
        shown = rows[-1]
        print(
            f"{table.model.name} {table.scale:g}, {price} passes: {best[price]} "
            f"{others[name].mean():.5f}, ours {own[price].mean():.5f}, {shown['ratio']}",
            flush=True,
        )
    with table.spending("ladder"):
        _climb(table, ladder, best, min(each.mean() for each in own.values()), rungs)
    for row in rows:
        row["to_reach"] = paired.passes_to_reach(ladder, own[row["passes"]], row["passes"])
    return {
        "limit": error,
        "rows": rows,
        "ladder": {passes: float(ladder[passes].mean()) for passes in sorted(ladder)},
        "spent": {
            part: {"passes": table.passes[part], "seconds": table.seconds[part]}
            for part in table.passes
        },
    }


def proved(table: Table, settings: Mapping[str, Setting], price: int) -> dict[str, Array]:
    """Errors on fresh pictures by family; of hopeless ones on the first of these only."""
    few, rest = table.fresh[:FIRST], table.fresh[FIRST:]
    found = {family: table.errors(each, price, few) for family, each in settings.items()}
    bar = HOPELESS * min(each.mean() for each in found.values())
    for family, errors in found.items():
        if rest and (errors.mean() <= bar or family == UNFITTED):
            more = table.errors(settings[family], price, rest)
            found[family] = np.concatenate([errors, more])
    return found


def _row(table: Table, setting: Setting, price: int, errors: Array) -> dict[str, Any]:
    found = table.sampler(setting, price)
    assert found is not None, "it was chosen"
    sampler, passes = found
    described = {"setting": str(setting), "steps": sampler.settings["steps"], "passes": passes}
    described["pictures"] = len(errors)
    return described | paired.described(errors)


def _climb(
    table: Table,
    ladder: dict[int, Array],
    best: Mapping[int, Setting],
    goal: float,
    rungs: Sequence[int],
) -> None:
    """Measure the best baselines at more prices, until an error is reached.

    At each price it is the best of the next lower and the next higher price that all were compared
    at; the better of both, if they differ.
    """
    for rung in rungs:
        if rung in ladder:
            continue
        below = max((each for each in best if each < rung), default=min(best))
        above = min((each for each in best if each > rung), default=max(best))
        around = dict.fromkeys((best[below], best[above]))
        found = [table.errors(each, rung, table.fresh) for each in around]
        ladder[rung] = min(found, key=lambda each: each.mean())
        if ladder[rung].mean() < 0.9 * goal:
            return


def _draw(tables: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Errors against passes, both logarithmic, one panel for each model and guidance."""
    across = min(2, len(tables))
    down = math.ceil(len(tables) / across)
    figure = new_figure(5.0 * across, 4.0 * down)
    for place, (title, table) in enumerate(tables.items()):
        panel = figure.add_subplot(down, across, place + 1)
        rows = table["rows"]
        prices = [row["passes"] for row in rows]
        for number, family in enumerate(rows[0]["baselines"]):
            errors = [row["baselines"][family]["mean"] for row in rows]
            style = "--" if family == UNFITTED else "-"
            panel.plot(
                prices, errors, f"{style}o", color=f"C{number + 2}", lw=0.9, ms=3, label=family
            )
        ladder = {int(passes): error for passes, error in table["ladder"].items()}
        reached = np.minimum.accumulate(list(ladder.values()))
        panel.plot(list(ladder), reached, color="0.6", lw=5, alpha=0.5, label="best baseline")
        panel.plot(
            prices, [row["ours"]["mean"] for row in rows], "o-", color="C1", lw=3, label="fitted"
        )
        panel.axhline(table["limit"]["mean"], color="0.5", ls=":", lw=1)
        panel.set(xscale="log", yscale="log", title=title, xlabel="network passes")
        least = min([*ladder.values(), *(row["ours"]["mean"] for row in rows)])
        panel.set_ylim(least / 2, 1)
        ticks = sorted({*prices, *(each for each in (32, 48, 64) if each <= max(ladder))})
        panel.set_xticks(ticks, [str(n) for n in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if place % across == 0:
            panel.set_ylabel("RMSE to the limit")
        if place == 0:
            panel.legend(frameon=False, fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=130)


QUICK = {"prices": [4], "pictures": 3, "rounds": [1, 1, 2], "guidance": [2.0], "rungs": [3, 6]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prices", type=int, nargs="+", default=[6, 10, 16, 24])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 6, 16])
    parser.add_argument("--rungs", type=int, nargs="+", default=[4, 8, 13, 20, 32, 44, 64])
    add_models(parser, "jit", "unet")


def add_models(parser: argparse.ArgumentParser, *networks: str) -> None:
    """The options of suites that compare plans on several models with several guidance scales."""
    known = (*NETWORKS, EMBEDDED)
    parser.add_argument(
        "--guidance", type=float, nargs="+", help="default: 1, and that of the model"
    )
    parser.add_argument("--networks", choices=known, nargs="+", default=[*networks])
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


def each_table(
    networks: Sequence[str], given: argparse.Namespace, chosen: int, fresh: int
) -> Generator[Table]:
    """A table of every model and guidance scale that is asked for, with so many pictures."""
    for network in networks:
        model = loaded(EMBEDDED if network == EMBEDDED else given.models / NETWORKS[network].file)
        scales: Sequence[float] = given.guidance or (1.0, model.card.guidance)
        yield from (Table.of(model, scale, chosen, fresh) for scale in scales)


def run(given: argparse.Namespace) -> dict[str, Any]:
    networks: list[str] = given.networks
    saved: dict[str, Any] = {}
    for network in networks:
        saved[network] = _run(network, given)
    return saved


def _run(network: str, given: argparse.Namespace) -> dict[str, Any]:
    tables: dict[str, dict[str, Any]] = {}
    saved: dict[str, Any] = {}
    for table in each_table([network], given, given.rounds[-1], given.pictures):
        tables[table.title] = compared(table, given.prices, given.rounds, given.rungs)
        print(f"{table.title}: {tables[table.title]['spent']}", flush=True)
        # After every table: each of them takes minutes.
        report = {
            "pictures": given.pictures,
            "rounds": given.rounds,
            "effort": asdict(FULL_EFFORT),
            "tables": tables,
        }
        _draw(tables, given.out / f"campaign-{network}.png")
        path = given.out / f"campaign-{network}.json"
        saved = results.save(
            path, report, weights=[table.model.name], dtype="float32", device="cpu"
        )
    return saved
