"""Make the shipped plans: profile the shipped model, search, improve, measure.

    python -m benchmarks plans make --side 64 --work runs/plans
    python -m benchmarks plans make --side 128 --work runs/plans

Resumes after an interruption. Budgets are in full estimates, guided calls of the network.

Plans are selected by their RMSE to the reference, and those in `BY_REAL` by their feature distance
to real pictures of the same concepts, because their budget is too small for the reference.

At 128 px the model draws best at half the side (`benchmarks larger`). The plans there are those of
64 px, enlarged, and the reference is evaluated at half the side, too.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asymflow.bench import protocol
from asymflow.bench.evaluators import by_real, by_reference
from asymflow.core import presets, schedules, transforms
from asymflow.core.types import Plan, Profile, Request
from asymflow.generation import pipeline
from asymflow.models.embedded import plans
from asymflow.planning import binding, calibration, plan_files, profiler, verifier
from asymflow.planning.verifier import Evaluator
from benchmarks import results

REAL_SEED = 7
BUDGETS = {"draft": 2.25, "fast": 3.75, "balanced": 8.0, "best": 12.0}
BY_REAL = ("draft", "fast")
FACTORS = {64: 1, 128: 2}
"""By what the plans of a side are enlarged from those that are chosen here."""
ROOT = Path(plans.__file__).parent


@dataclass(frozen=True, slots=True)
class Workshop:
    """What plans are made from and judged by, kept in a folder.

    Attributes:
        chosen: by the reference, of the pictures that plans are chosen by.
        real: against real pictures, of seen pairs that no benchmark uses.
        fresh: by the reference, of the pictures that plans are measured on.
    """

    model: pipeline.Model
    size: tuple[int, int]
    profile: Profile
    chosen: Evaluator
    real: Evaluator
    fresh: Evaluator
    began: float = field(default_factory=time.monotonic)

    @staticmethod
    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--side", type=int, choices=FACTORS, default=64)
        parser.add_argument("--work", type=Path, default=Path("runs/plans"))
        parser.add_argument("--dtype", default="float32")
        parser.add_argument("--rollouts", type=int, default=40)
        parser.add_argument("--calibration", type=int, default=16)
        parser.add_argument("--pictures", type=int, default=24)
        parser.add_argument("--candidates", type=int, default=32)
        parser.add_argument("--data", type=Path, default=Path("data/emoji"))
        parser.add_argument("--real", type=int, default=64)

    @classmethod
    def of(cls, given: argparse.Namespace) -> Workshop:
        """Measure what is not in the folder yet."""
        model = pipeline.load(None, dtype=given.dtype, device=None)
        size = (given.side, given.side)

        def requests(count: int, purpose: int) -> list[Request]:
            return calibration.requests(model.adapter.card, size, presets.GUIDANCE, count, purpose)

        path = given.work / f"profile-{given.side}.safetensors"
        if not path.exists():
            profiled = requests(given.calibration, calibration.PROFILED)
            found = profiler.profile(
                model.adapter,
                profiled,
                times=schedules.candidates(size, given.candidates),
                guidance_interval=presets.guidance_interval(size),
            )
            plan_files.save_profile(replace(found, made={**found.made, "dtype": model.dtype}), path)
        profile = plan_files.load_profile(path)
        protocol.check_fits(profile, model.adapter.name)
        chosen = by_reference(model, requests(given.calibration, calibration.VERIFIED), given.work)
        fresh = by_reference(model, requests(given.pictures, calibration.PROVED), given.work)
        real = by_real(model, size, given.data, given.real, REAL_SEED)
        return cls(model, size, profile, chosen, real, fresh)

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:7.0f} s  {what}", flush=True)


def choose(given: argparse.Namespace) -> None:
    """Plans for the side that the model was trained for most."""
    shop = Workshop.of(given)
    profile = shop.profile
    shop.say(f"a full estimate takes {profile.cost_ms[0]:.1f} ms")
    features = protocol.perceptual(shop.model)
    known: list[Plan] = []
    for name, full in BUDGETS.items():
        if name not in (given.only or plans.NAMES):
            continue
        target = given.out / f"{name}-{given.side}.json"
        if target.exists():
            made = plan_files.load_plan(target)
            if made.evidence and made.evidence.made["adapter"] == shop.model.adapter.name:
                known.append(made)
                continue
        budget = full * profile.cost_ms[0]
        evaluator, few = (shop.real, 16) if name in BY_REAL else (shop.chosen, 2)
        plan = verifier.best_within(
            evaluator, profile, budget, name=name, known=known, rollouts=given.rollouts, few=few
        )
        plan = verifier.measure_evidence(shop.fresh, plan, profile, features)
        plan = binding.bound(plan, shop.model.adapter.description)
        plan_files.save_plan(plan, target)
        known.append(plan)
        shop.say(f"{name}: chosen at {evaluator.error(plan):.4f}\n{plan}")


def enlarge(given: argparse.Namespace, factor: int) -> None:
    """Plans for larger pictures, evaluated at half the side."""
    model = pipeline.load(None, dtype=given.dtype, device=None)
    size, small = (given.side, given.side), given.side // factor
    chosen = [plan_files.load_plan(given.out / f"{name}-{small}.json") for name in plans.NAMES]
    larger = [transforms.at_larger_size(plan, factor) for plan in chosen]
    tiers = tuple(dict.fromkeys(step.tier for plan in larger for step in plan.steps))
    requests = calibration.requests(
        model.adapter.card, size, presets.GUIDANCE, given.pictures, calibration.PROVED
    )
    # A profile of one move, for its costs; its errors are not used.
    profile = profiler.profile(model.adapter, requests[:1], times=(1.0, 0.0), tiers=tiers)
    made = {**profile.made, "dtype": model.dtype, "reference": f"at 1/{factor} of the side"}
    profile = replace(profile, made=made)
    evaluator = by_reference(model, requests, given.work)
    features = protocol.perceptual(model)
    for plan in larger:
        plan = verifier.measure_evidence(evaluator, plan, profile, features)
        plan = binding.bound(plan, model.adapter.description)
        plan_files.save_plan(plan, given.out / f"{plan.name}-{given.side}.json")
        print(plan, flush=True)


QUICK = {
    "pictures": 4,
    "rollouts": 2,
    "calibration": 4,
    "candidates": 6,
    "work": results.QUICK / "plans",
    "out": results.QUICK / "plans",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    Workshop.options(parser)
    parser.add_argument("--only", action="append", choices=plans.NAMES, help="these; all of them")
    parser.add_argument("--out", type=Path, default=ROOT)


def run(given: argparse.Namespace) -> dict[str, Any]:
    if (factor := FACTORS[given.side]) > 1:
        enlarge(given, factor)
    else:
        choose(given)
    # Plan files say themselves where they come from, in their evidence.
    return {}
