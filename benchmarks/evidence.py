"""Does what plan files say hold? The plans that come with the model, on pictures of other seeds.

    python benchmarks/evidence.py --dtype bfloat16

writes evidence.json: the mean difference to the reference, beside that of the file with its 95%
interval. Prompts and seeds are none that a plan was profiled, chosen or measured by.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from asymflow.bench import protocol
from asymflow.bench.judges import by_reference
from asymflow.core import presets
from asymflow.generation import pipeline
from asymflow.io.files import write_text
from asymflow.models.embedded import plans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--work", type=Path, default=Path("runs/plans"))
    given = parser.parse_args()
    model = pipeline.load(None, dtype=given.dtype, device=None)
    report: dict[str, Any] = {"adapter": model.adapter.name, "pictures": given.pictures}
    for side in plans.SIDES:
        size = (side, side)
        requests = protocol.requests(
            model.adapter.styles, size, presets.GUIDANCE, given.pictures, protocol.EVIDENCE_CHECKED
        )
        judge = by_reference(model, requests, given.work)
        for name in plans.NAMES:
            plan = plans.load(name, size)
            evidence = plan.evidence
            assert evidence is not None, "plans that come with asymflow were measured"
            errors = judge.errors(plan)
            found = {
                "stated": evidence.rms.value,
                "interval": [evidence.rms.low, evidence.rms.high],
                "found": float(errors.mean()),
                "inside": evidence.rms.low <= float(errors.mean()) <= evidence.rms.high,
            }
            report[f"{name}-{side}"] = found
            print(f"{name}-{side}", json.dumps(found), flush=True)
    write_text(Path(__file__).with_suffix(".json"), json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
