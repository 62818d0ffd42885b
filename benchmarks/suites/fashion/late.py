"""What late steps are worth: fitted plans with and without them, at equal measured time.

    OMP_NUM_THREADS=1 python -m benchmarks fashion late

On the JiT of Fashion-MNIST, whose slow part is the first four of six blocks. Writes late.json and
late.png.

- **Prices** are those of one picture in one run: the fastest of interleaved calls. The embedded
  model that is shipped has no convolutions around its trunk, and so no late tier; the same network
  with them, and random weights, is priced only.
- **Drift**: the error of a late estimate by how far back the slow part was asked, in candidate
  times, along the reference; beside it the local error of one step of first order to the next
  candidate.
- At each price, in full estimates, plans are fitted with quick effort: *without* late steps, *free*
  as by `asymflow plan`, which keeps those that end late if they are nearer to the teacher, and with
  such an end in any case. All draw the same fresh pictures. `error`: to the limit of many steps.
  `ms`: of the whole plan for one picture, the fastest of interleaved runs. `worth`: the mean error
  without over that with, with an interval from the common seeds.
- `seconds`: processor time of the fits at all prices, free over without.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from asymflow.core import engine
from asymflow.core.adapter import Adapter
from asymflow.core.schedules import switched
from asymflow.core.types import FULL, LATE, LATE_CONDITIONAL, Plan, Profile, Request
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded.detail import DetailConfig
from asymflow.models.embedded.network import PictureModel
from asymflow.planning import costs, grids, profiler
from asymflow.planning.effort import QUICK as QUICK_EFFORT
from asymflow.planning.journal import Journal
from asymflow.planning.profiler import AGES, Growth
from asymflow.planning.proof import rms
from asymflow.planning.proposals import ENDS, Fits, Guidance, ending_late, interval
from benchmarks import results
from benchmarks.suites.fashion import paired
from benchmarks.suites.fashion.asking import asked
from benchmarks.suites.fashion.campaign import FITTED, Table, add_models, each_table

PROFILED = 9000
"""First seed of the pictures that drift is measured on."""
CANDIDATES = 32
SHOWN = (0.9, 0.7, 0.5, 0.3, 0.15, 0.05)
"""Times at which drift is listed."""
WAYS = {"last": (1,), "last two": (1, 2)}
"""Ends that plans have in any case."""


@dataclass(frozen=True, slots=True)
class Late(Guidance):
    """Guidance of plans that end late."""

    places: tuple[int, ...] = ()

    def plan(self, times: Sequence[float]) -> Plan:
        made = ending_late(partial(Guidance.plan, self), self.places)(times)
        return Guidance.plan(self, times) if made is None else made


class Ended(Fits):
    """Fits that end late at every price, whether it is better or not."""

    places: tuple[int, ...] = ()

    def kinds(self) -> Iterator[Guidance]:
        # Guidance that is carried needs a step without the slow part's other pass.
        plain = (kind for kind in super().kinds() if kind.every == 1)
        yield from (Late(kind.interval, kind.every, self.places) for kind in plain)


def ways(table: Table, measured: Profile) -> Mapping[str, Fits]:
    """Fits without late steps, with them where they are better, and with them in any case."""

    def made(kind: type[Fits] = Fits, ends: Sequence[Sequence[int]] = ()) -> Fits:
        own = table.model.own_plan(table.model.card.sizes.native)
        return kind(
            table.adapter,
            partial(asked, table.model, table.scale, FITTED),
            measured,
            interval(own) if table.guided else (0.0, 1.0),
            table.dense,
            Journal(None),
            QUICK_EFFORT,
            ends,
        )

    found = {"without": made(), "free": made(ends=ENDS)}
    for name, places in WAYS.items():
        found[name] = type("Ended", (Ended,), {"places": places})(
            *(getattr(found["without"], each) for each in FIELDS)
        )
    return found


FIELDS = ("adapter", "requests", "measured", "guided", "dense", "journal", "effort", "ends")


def priced(table: Table, repeats: int) -> Profile:
    """Prices of single pictures, and drift."""
    model, guided = table.model, table.model.card.guidance_interval if table.guided else (0.0, 1.0)
    times = switched(grids.ended(grids.resampled(table.dense, CANDIDATES)), guided)
    few = asked(model, table.scale, PROFILED, 8)
    growth = Growth(pictures=1, times=2, moves=4)
    found, _ = profiler.measure(
        table.adapter, few, times=times, guidance_interval=guided, memory=False, growth=growth
    )
    return profiler.measure_costs(model, few[0], found, repeats=repeats)


def shares(measured: Profile) -> dict[str, Any]:
    """What the fast part costs, over the whole network."""
    by_name = {tier.name: number for number, tier in enumerate(measured.tiers)}
    rows: dict[str, Any] = {}
    for late, whole in (("late", "full"), ("late conditional", "conditional")):
        if late in by_name and whole in by_name:
            one, other = by_name[late], by_name[whole]
            rows[late] = {
                "ms": measured.cost_ms[one] / measured.cost_ms[other],
                "macs": measured.macs[one] / measured.macs[other],
            }
    full = by_name["full"]
    rows["of a full estimate"] = {
        name: measured.cost_ms[number] / measured.cost_ms[full] for name, number in by_name.items()
    }
    return rows


def drifts(measured: Profile) -> list[dict[str, Any]]:
    """Errors of late estimates by the age of what they reuse."""
    tier = LATE_CONDITIONAL if LATE_CONDITIONAL in measured.tiers else LATE
    late, full = measured.tiers.index(tier), measured.tiers.index(FULL)
    rows: list[dict[str, Any]] = []
    inner = range(max(AGES), len(measured.times) - 1)
    for t in SHOWN:
        i = min(inner, key=lambda i: abs(measured.times[i] - t))
        rows.append(
            {
                "t": measured.times[i],
                "ages": {str(age): float(measured.drift[late, i - age, i]) for age in AGES},
                "euler": float(measured.local_error[full, i, i, i + 1]),
            }
        )
    return rows


def compared(table: Table, prices: Sequence[int], limit: int, repeats: int) -> dict[str, Any]:
    """Errors and times of all ways, for each price."""
    measured = priced(table, repeats)
    fine = table.limit(limit)
    ends = table.drawn(fine, table.fresh)
    fits = ways(table, measured)
    seconds = dict.fromkeys(fits, 0.0)
    rows: list[dict[str, Any]] = []
    for price in prices:
        plans: dict[str, Plan] = {}
        for name, way in fits.items():
            began = time.process_time()
            if found := way.at(price):
                plans[name] = found["fitted"]
            seconds[name] += time.process_time() - began
        errors = {name: rms(table.drawn(plan, table.fresh), ends) for name, plan in plans.items()}
        took = timed(table.model, plans, table.fresh[0], repeats)
        own = errors["without"]
        row = {
            "price": price,
            "ways": {
                name: {
                    "steps": len(plan.steps),
                    "late": sum(step.tier.late for step in plan.steps),
                    "ms": took[name],
                    "time": took[name] / took["without"],
                    "error": paired.described(errors[name]),
                    "worth": paired.ratio_to_best(own[None], errors[name]),
                }
                for name, plan in plans.items()
            },
        }
        rows.append(row)
        print(f"{table.title}: {row}", flush=True)
    return {
        "limit": len(fine.steps),
        "shares": shares(measured),
        "drift": drifts(measured),
        "rows": rows,
        "seconds": {**seconds, "free over without": seconds["free"] / seconds["without"]},
    }


@torch.inference_mode()
def timed(
    model: Adapter, plans: Mapping[str, Plan], request: Request, repeats: int
) -> dict[str, float]:
    """Least milliseconds of plans for one picture."""

    def call(plan: Plan) -> costs.Call:
        return lambda: engine.rollout(model, plan, [request])

    found = costs.fastest([call(plan) for plan in plans.values()], repeats)
    return dict(zip(plans, (1000 * each for each in found), strict=True))


def embedded_shares(repeats: int) -> dict[str, Any]:
    """What the fast part of the embedded network costs, with convolutions and random weights."""
    shipped = embedded.load(packed=False)
    torch.manual_seed(0)
    config = replace(shipped.model.config, detail=DetailConfig())
    network = PictureModel(config).eval().requires_grad_(False)
    network.text.load_state_dict(shipped.model.text.state_dict())
    made = replace(shipped, model=network)
    request = Request({"prompt": "a fox"}, made.card.sizes.native, 0, made.card.guidance)
    measured = profiler.profile(
        made, [request], times=(1.0, 0.5, 0.0), repeats=repeats, memory=False
    )
    return {"shipped": shipped.splits, "random weights": shares(measured)}


def _draw(tables: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Error against measured time, one panel for each guidance; and drift."""
    figure = new_figure(4.6 * (len(tables) + 1), 3.8)
    for number, (title, table) in enumerate(tables.items(), 1):
        panel = figure.add_subplot(1, len(tables) + 1, number)
        for name in ("without", "free", *WAYS):
            found = [row["ways"][name] for row in table["rows"] if name in row["ways"]]
            x, y = ([each["ms"] for each in found], [each["error"]["mean"] for each in found])
            style = {"without": "k-o", "free": "C3--x"}.get(name, "-")
            panel.plot(x, y, style, label=name, ms=5, lw=1.2)
        panel.set(title=title, xlabel="ms of a picture", xscale="log", yscale="log")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
        if number == 1:
            panel.set_ylabel("RMSE to the limit")
    panel = figure.add_subplot(1, len(tables) + 1, len(tables) + 1)
    for row in next(iter(tables.values()))["drift"]:
        ages = [int(each) for each in row["ages"]]
        panel.plot(ages, list(row["ages"].values()), "-o", ms=4, label=f"t = {row['t']:.2f}")
    panel.set(title="late estimates", xlabel="age, in candidate times", ylabel="RMSE")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=130)


QUICK: dict[str, Any] = {
    "prices": [3], "pictures": 2, "guidance": [2.0], "limit": 6, "repeats": 2,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prices", type=int, nargs="+", default=[4, 8, 12], help="in full estimates"
    )
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--limit", type=int, default=50, help="steps of either half of the limit")
    parser.add_argument("--repeats", type=int, default=200, help="of timings")
    add_models(parser, "jit")


def run(given: argparse.Namespace) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    weights: dict[str, None] = {}
    for table in each_table(given.networks, given, 0, given.pictures):
        tables[table.title] = compared(table, given.prices, given.limit, given.repeats)
        weights[table.model.name] = None
    _draw(tables, given.out / "late.png")
    report = {
        "pictures": given.pictures,
        "tables": tables,
        "embedded": embedded_shares(given.repeats),
    }
    path = given.out / "late.json"
    return results.save(path, report, weights=[*weights], dtype="float32", device="cpu")
