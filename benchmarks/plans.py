"""Make the plans that come with asymflow: profile the shipped model, choose, improve, measure.

    python benchmarks/plans.py --side 64 --work runs/plans
    python benchmarks/plans.py --side 128 --work runs/plans

Goes on where it was stopped. Budgets are in full estimates: a guided call of the network.

Plans are chosen by how near their pictures come to the reference, and `BY_REAL` by how near they
come to real pictures of the same things, in features: quick plans have no budget for the reference.

At 128 px the model draws best when it is asked at half the side (`benchmarks/larger.py`). So there
the plans are those of 64 px, enlarged, and what they are measured by is a reference that is asked
at half the side, too.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench import metrics
from asymflow.bench.features import as_unit_float, extract, load_network
from asymflow.bench.pairs import job, pick
from asymflow.bench.quality import real_pictures
from asymflow.cli import planning
from asymflow.core import presets, schedules, transforms
from asymflow.core.types import Plan, Profile, Request
from asymflow.generation import pipeline
from asymflow.models.embedded import plans
from asymflow.planning import plan_files, profiler, verifier
from asymflow.planning.verifier import Evaluator
from asymflow.training.data.dataset import Dataset

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
        chosen: judges by the reference, of the pictures that plans are chosen by.
        real: judges by real pictures, of seen pairs that no benchmark asks for.
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
            return planning.requests(model.adapter.styles, size, presets.GUIDANCE, count, purpose)

        path = given.work / f"profile-{given.side}.safetensors"
        if not path.exists():
            calibration = requests(given.calibration, planning.PROFILED)
            found = profiler.profile(
                model.adapter,
                calibration,
                times=schedules.candidates(size, given.candidates),
                guidance_interval=presets.guidance_interval(size),
            )
            plan_files.save_profile(replace(found, made={**found.made, "dtype": model.dtype}), path)
        profile = plan_files.load_profile(path)
        planning.check_fits(profile, model.adapter.name)
        chosen = kept_judge(model, requests(given.calibration, planning.VERIFIED), given.work)
        fresh = kept_judge(model, requests(given.pictures, planning.PROVED), given.work)
        real = by_real(model, size, given.data, given.real, REAL_SEED)
        return cls(model, size, profile, chosen, real, fresh)

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:7.0f} s  {what}", flush=True)


def kept_judge(model: pipeline.Model, requests: list[Request], work: Path) -> Evaluator:
    """By a reference that is kept in a folder."""
    size = requests[0].size
    fine = pipeline.reference(model, size)
    what = repr([(each.inputs, each.seed, each.size) for each in requests])
    name = f"{model.adapter.name} {model.dtype} {plan_files.plan_hash(fine)} {what}"
    kept = work / f"reference-{hashlib.sha256(name.encode()).hexdigest()[:12]}.pt"
    if not kept.exists():
        work.mkdir(parents=True, exist_ok=True)
        torch.save(verifier.rollout(model.adapter, fine, requests), kept)
    reference = torch.load(kept, weights_only=True)
    guided = presets.guidance_interval(size)
    return Evaluator(model.adapter, tuple(requests), reference, verifier.rms, guided)


def by_real(
    model: pipeline.Model, size: tuple[int, int], data: Path, count: int, seed: int
) -> Evaluator:
    """By features of real pictures of what is asked for, which are other ones for each seed."""
    network = load_network()
    dataset = Dataset(data)
    common = (e for e in dataset.entries if e.weight == 1 and e.split == "train")
    entries = pick(common, count, seed)
    pictures = real_pictures(dataset, entries, size[0])
    wanted = extract(pictures, network=network)
    requests = [
        Request({"prompt": prompt, "style": style}, size, noise, presets.GUIDANCE)
        for prompt, style, noise in (job(entry, seed) for entry in entries)
    ]

    def distance(x: Tensor, y: Tensor) -> NDArray[np.float64]:
        made = np.stack([model.adapter.to_picture(state) for state in x])
        return metrics.cosine_distance(extract(made, network=network), wanted[: len(x)])

    states = [model.adapter.to_state(as_unit_float(picture)) for picture in pictures]
    guided = presets.guidance_interval(size)
    return Evaluator(model.adapter, tuple(requests), torch.stack(states), distance, guided)


def choose(given: argparse.Namespace) -> None:
    """Plans for the side that the model was trained for most."""
    shop = Workshop.of(given)
    profile = shop.profile
    shop.say(f"a full estimate takes {profile.cost_ms[0]:.1f} ms")
    features = planning.perceptual(shop.model)
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
        judge, few = (shop.real, 16) if name in BY_REAL else (shop.chosen, 2)
        plan = verifier.best_within(
            judge, profile, budget, name=name, known=known, rollouts=given.rollouts, few=few
        )
        plan = verifier.measure_evidence(shop.fresh, plan, profile, features)
        plan_files.save_plan(plan, target)
        known.append(plan)
        shop.say(f"{name}: chosen at {judge.error(plan):.4f}\n{plan}")


def enlarge(given: argparse.Namespace, factor: int) -> None:
    """Plans for larger pictures, of which the model is asked small ones."""
    model = pipeline.load(None, dtype=given.dtype, device=None)
    size, small = (given.side, given.side), given.side // factor
    chosen = [plan_files.load_plan(given.out / f"{name}-{small}.json") for name in plans.NAMES]
    larger = [transforms.at_larger_size(plan, factor) for plan in chosen]
    tiers = tuple(dict.fromkeys(step.tier for plan in larger for step in plan.steps))
    styles = model.adapter.styles
    requests = planning.requests(styles, size, presets.GUIDANCE, given.pictures, planning.PROVED)
    # Of one move, for what it says of costs: its errors would be those to the whole reference.
    profile = profiler.profile(model.adapter, requests[:1], times=(1.0, 0.0), tiers=tiers)
    made = {**profile.made, "dtype": model.dtype, "reference": f"at 1/{factor} of the side"}
    profile = replace(profile, made=made)
    judge = kept_judge(model, requests, given.work)
    features = planning.perceptual(model)
    for plan in larger:
        plan = verifier.measure_evidence(judge, plan, profile, features)
        plan_files.save_plan(plan, given.out / f"{plan.name}-{given.side}.json")
        print(plan, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    Workshop.options(parser)
    parser.add_argument("--only", action="append", choices=plans.NAMES, help="these; all of them")
    parser.add_argument("--out", type=Path, default=ROOT)
    given = parser.parse_args()
    if (factor := FACTORS[given.side]) > 1:
        enlarge(given, factor)
    else:
        choose(given)


if __name__ == "__main__":
    main()
