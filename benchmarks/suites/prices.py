"""What a plan makes of a bulk job: pictures of an hour of a core, and core-hours of many pictures.

    OMP_NUM_THREADS=1 python -m benchmarks prices

asks `asymflow batch --dry-run` for the price of a row of the embedded model at 64 px with every
plan, in turns, and writes prices.json. The fastest of several turns counts, since others measure
what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.suites.bulk import command, write
from benchmarks.suites.server import cpu_name, machine

PLANS = ("draft", "fast", "balanced", "best", "default")
QUICK = {"turns": 1, "plans": ["draft"], "out": results.QUICK / "prices.json"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--plans", nargs="+", default=[*PLANS])
    parser.add_argument("--out", type=Path)


def run(given: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="prices-") as folder:
        place = Path(folder)
        manifest = write(place / "rows.jsonl", iter([{"prompt": "a red fox", "size": 64}]))
        for _ in range(given.turns):
            for plan in given.plans:
                words = ("--plan", plan, "--threads", 1, "--workers", 1, "--dry-run")
                made = subprocess.run(
                    command(manifest, place / "out", *words),
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                [kind] = json.loads(made.stdout)["kinds"]
                row = found.setdefault(plan, {"nfe": kind["nfe"], "seconds": kind["seconds"]})
                row["seconds"] = min(row["seconds"], kind["seconds"])
    for row in found.values():
        row["pictures_per_core_hour"] = round(3600 / row["seconds"])
        row["core_hours_per_million"] = round(1e6 * row["seconds"] / 3600, 1)
    print(json.dumps(found, indent=1))
    report = {"machine": machine(), "turns": given.turns, "plans": found}
    out = given.out or results.folder_of(results.shipped()) / "prices.json"
    return results.save(out, report, device=f"cpu ({cpu_name()})", weights=[results.shipped()])
