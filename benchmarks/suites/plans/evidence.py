"""Does what plan files say hold? The plans that come with the model, on pictures of other seeds.

    python -m benchmarks plans evidence --dtype bfloat16

writes evidence.json: the mean difference to the reference, beside that of the file with its 95%
interval. Prompts and seeds are none that a plan was profiled, chosen or measured by.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from asymflow.bench import protocol
from asymflow.bench.evaluators import by_reference
from asymflow.core import presets
from asymflow.core.types import Plan
from asymflow.generation import pipeline
from asymflow.models.embedded import plans
from asymflow.planning import calibration
from benchmarks import results

QUICK = {"pictures": 2, "work": results.QUICK / "plans"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--work", type=Path, default=Path("runs/plans"))
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the weights"
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    model = pipeline.load(None, dtype=given.dtype, device=None)
    ran: dict[str, Plan] = {}
    report: dict[str, Any] = {"adapter": model.adapter.name, "pictures": given.pictures}
    for side in plans.SIDES:
        size = (side, side)
        requests = calibration.requests(
            model.adapter.card, size, presets.GUIDANCE, given.pictures, protocol.EVIDENCE_CHECKED
        )
        evaluator = by_reference(model, requests, given.work)
        for name in plans.NAMES:
            plan = ran[f"{name}-{side}"] = plans.load(name, size)
            evidence = plan.evidence
            assert evidence is not None, "plans that come with asymflow were measured"
            errors = evaluator.errors(plan)
            found = {
                "stated": evidence.rms.value,
                "interval": [evidence.rms.low, evidence.rms.high],
                "found": float(errors.mean()),
                "inside": evidence.rms.low <= float(errors.mean()) <= evidence.rms.high,
            }
            report[f"{name}-{side}"] = found
            print(f"{name}-{side}", json.dumps(found), flush=True)
    out = given.out or results.folder_of(model.adapter.name)
    return results.save(out / "evidence.json", report, **results.on(model, ran))
