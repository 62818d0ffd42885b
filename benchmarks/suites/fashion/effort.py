"""What `--effort full` gains over the quick fits of a plan, and what either takes.

    OMP_NUM_THREADS=1 python -m benchmarks fashion effort

At each price a plan is fitted with either effort, and both draw the same fresh pictures. *worth*:
the mean error of the quick one over that of the full one, with an interval from the common seeds;
*share*: the CPU seconds of the quick fits of all prices over those of the full ones, in the same
run. Writes effort.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from asymflow.planning.effort import EFFORTS
from asymflow.planning.proof import rms
from benchmarks import results
from benchmarks.suites.fashion import paired
from benchmarks.suites.fashion.campaign import Table, add_models, each_table, fits


def compared(table: Table, prices: Sequence[int], limit: int) -> dict[str, Any]:
    """Errors with either effort, for each price, and what all prices took."""
    ends = table.drawn(table.limit(limit), table.fresh)
    ways = {name: fits(table) for name in EFFORTS}
    for name, way in ways.items():
        way.effort = EFFORTS[name]
    rows: list[dict[str, Any]] = []
    taken = dict.fromkeys(EFFORTS, 0.0)
    for price in prices:
        errors = {}
        for name, way in ways.items():
            began = time.process_time()
            plan = way.at(price // 2 if table.guided else price)["fitted"]
            taken[name] += time.process_time() - began
            errors[name] = rms(table.drawn(plan, table.fresh), ends)
        worth = paired.ratio_to_best(errors["quick"][None], errors["full"])
        described = {name: paired.described(each) for name, each in errors.items()}
        rows.append({"passes": price, **described, "worth": worth})
        print(f"{table.model.name} {table.scale:g}: {rows[-1]}", flush=True)
    return {"rows": rows, "seconds": taken, "share": taken["quick"] / taken["full"]}


QUICK: dict[str, Any] = {"prices": [4], "pictures": 3, "guidance": [2.0], "limit": 6}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prices", type=int, nargs="+", default=[6, 10, 16])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--limit", type=int, default=50, help="steps of either half of the limit")
    add_models(parser, "jit")


def run(given: argparse.Namespace) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    weights: dict[str, None] = {}
    for table in each_table(given.networks, given, 0, given.pictures):
        tables[table.title] = compared(table, given.prices, given.limit)
        weights[table.model.name] = None
    report = {"pictures": given.pictures, "tables": tables}
    path = given.out / "effort.json"
    return results.save(path, report, weights=[*weights], dtype="float32", device="cpu")
