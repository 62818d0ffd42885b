"""Make the plans that come with asymflow: profile the shipped model, choose, improve, measure.

    python benchmarks/plans.py --side 64 --work runs/plans

Goes on where it was stopped. Budgets are in full estimates: a guided call of the network.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import torch

from asymflow import plans, presets, profiler, store, verifier
from asymflow.cli import generation, planning

BUDGETS = {"draft": 3.0, "fast": 5.0, "balanced": 8.0, "best": 14.0}
ROOT = Path(plans.__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--work", type=Path, default=Path("runs/plans"))
    parser.add_argument("--rollouts", type=int, default=24)
    parser.add_argument("--calibration", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--candidates", type=int, default=32)
    parser.add_argument("--out", type=Path, default=ROOT)
    given = parser.parse_args()

    model = generation.load(None, dtype="float32", device=None)
    size = (given.side, given.side)

    def requests(count: int, purpose: int) -> list[planning.Request]:
        return planning.requests(model.adapter.styles, size, presets.GUIDANCE, count, purpose)

    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {what}", flush=True)

    path = given.work / f"profile-{given.side}.safetensors"
    if not path.exists():
        times = profiler.candidates(size, given.candidates)
        store.save_profile(
            profiler.profile(
                model.adapter, requests(given.calibration, planning.PROFILED), times=times
            ),
            path,
        )
    profile = store.load_profile(path)
    planning.check_fits(profile, model.adapter.name)
    say(f"profile: a full estimate takes {profile.cost_ms[0]:.1f} ms")

    chosen = requests(given.calibration, planning.VERIFIED)
    fresh = requests(given.pictures, planning.PROVED)
    judges: list[verifier.Judge] = []
    for name, group in (("chosen", chosen), ("fresh", fresh)):
        what = repr([(each.inputs, each.seed, each.size) for each in group])
        key = hashlib.sha256(f"{model.adapter.name} {what}".encode()).hexdigest()[:12]
        kept = given.work / f"reference-{name}-{key}.pt"
        if not kept.exists():
            torch.save(verifier.Judge.of(model.adapter, group, verifier.rms).reference, kept)
        reference = torch.load(kept, weights_only=True)
        judges.append(verifier.Judge(model.adapter, tuple(group), reference, verifier.rms))
        say(f"references of {len(group)} {name} pictures")
    features = planning.perceptual(model)
    for name, full in BUDGETS.items():
        target = given.out / f"{name}-{given.side}.json"
        if target.exists():
            evidence = store.load_plan(target).evidence
            if evidence and evidence.made["adapter"] == model.adapter.name:
                continue
        budget = full * profile.cost_ms[0]
        plan = verifier.best_within(judges[0], profile, budget, name=name, rollouts=given.rollouts)
        plan = verifier.prove(judges[1], plan, profile, features)
        store.save_plan(plan, target)
        say(f"{name}: chosen at {judges[0].error(plan):.4f}\n{plan}")


if __name__ == "__main__":
    main()
