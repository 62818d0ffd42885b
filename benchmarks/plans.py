"""Make the plans that come with asymflow: profile the shipped model, choose, improve, measure.

    python benchmarks/plans.py --side 64 --work runs/plans

Goes on where it was stopped. Budgets are in full estimates: a guided call of the network.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from asymflow import generation, plans, presets, profiler, store, verifier
from asymflow.cli import planning
from asymflow.types import Profile, Request
from asymflow.verifier import Judge

BUDGETS = {"draft": 3.0, "fast": 5.0, "balanced": 8.0, "best": 14.0}
ROOT = Path(plans.__file__).parent


@dataclass(frozen=True, slots=True)
class Workshop:
    """What plans are made from and judged by, kept in a folder.

    Attributes:
        chosen: judges by the pictures that plans are chosen by.
        fresh: by those that they are measured on.
    """

    model: generation.Model
    size: tuple[int, int]
    profile: Profile
    chosen: Judge
    fresh: Judge
    began: float = field(default_factory=time.monotonic)

    @staticmethod
    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--side", type=int, default=64)
        parser.add_argument("--work", type=Path, default=Path("runs/plans"))
        parser.add_argument("--dtype", default="float32")
        parser.add_argument("--rollouts", type=int, default=24)
        parser.add_argument("--calibration", type=int, default=8)
        parser.add_argument("--pictures", type=int, default=24)
        parser.add_argument("--candidates", type=int, default=32)

    @classmethod
    def of(cls, given: argparse.Namespace) -> Workshop:
        """Measure what is not in the folder yet."""
        model = generation.load(None, dtype=given.dtype, device=None)
        size = (given.side, given.side)

        def requests(count: int, purpose: int) -> list[Request]:
            return planning.requests(model.adapter.styles, size, presets.GUIDANCE, count, purpose)

        path = given.work / f"profile-{given.side}.safetensors"
        if not path.exists():
            calibration = requests(given.calibration, planning.PROFILED)
            times = profiler.candidates(size, given.candidates)
            found = profiler.profile(model.adapter, calibration, times=times)
            store.save_profile(replace(found, made={**found.made, "dtype": model.dtype}), path)
        profile = store.load_profile(path)
        planning.check_fits(profile, model.adapter.name)
        judges = [
            _judge(model, requests(count, purpose), given.work)
            for count, purpose in (
                (given.calibration, planning.VERIFIED),
                (given.pictures, planning.PROVED),
            )
        ]
        return cls(model, size, profile, *judges)

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:7.0f} s  {what}", flush=True)


def _judge(model: generation.Model, requests: list[Request], work: Path) -> Judge:
    """By a reference that is kept in a folder."""
    what = repr([(each.inputs, each.seed, each.size) for each in requests])
    key = hashlib.sha256(f"{model.adapter.name} {model.dtype} {what}".encode()).hexdigest()[:12]
    kept = work / f"reference-{key}.pt"
    if not kept.exists():
        torch.save(Judge.of(model.adapter, requests, verifier.rms).reference, kept)
    reference = torch.load(kept, weights_only=True)
    return Judge(model.adapter, tuple(requests), reference, verifier.rms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    Workshop.options(parser)
    parser.add_argument("--out", type=Path, default=ROOT)
    given = parser.parse_args()
    shop = Workshop.of(given)
    profile = shop.profile
    shop.say(f"a full estimate takes {profile.cost_ms[0]:.1f} ms")
    features = planning.perceptual(shop.model)
    for name, full in BUDGETS.items():
        target = given.out / f"{name}-{given.side}.json"
        if target.exists():
            evidence = store.load_plan(target).evidence
            if evidence and evidence.made["adapter"] == shop.model.adapter.name:
                continue
        budget = full * profile.cost_ms[0]
        plan = verifier.best_within(
            shop.chosen, profile, budget, name=name, rollouts=given.rollouts
        )
        plan = verifier.prove(shop.fresh, plan, profile, features)
        store.save_plan(plan, target)
        shop.say(f"{name}: chosen at {shop.chosen.error(plan):.4f}\n{plan}")


if __name__ == "__main__":
    main()
