"""Whether what `accelerate(pipe)` says of its plans holds on fresh seeds, on four small networks.

    OMP_NUM_THREADS=1 python -m benchmarks families promises
    OMP_NUM_THREADS=1 python -m benchmarks families promises --against COMMIT

writes promises.json. The networks are those of `small`: two that are trained, an exact posterior
mean, and one with guidance and dynamic thresholding. Each is accelerated in a process of its own,
without a plan that was kept. Passes are counted in rows inside of the network, and are exact.

Plan and own sampler are then compared on `--pictures` seeds that the library has not seen, with a
**limit** that is computed here without asymflow: the multistep method of second order in
log(alpha / sigma), with nodes as dense as those of equal timesteps and of equal log(alpha / sigma)
together. It is compared with half as many moves, which is stated, for every picture. Of the exact
network, the posterior mean itself is integrated, in double precision. Verdicts:

- **stated**: the mean error of the fresh seeds lies in the interval that the plan states, which is
  widened by nothing.
- **overlaps**: the interval of the fresh mean and the stated one have a number in common. Weaker:
  two intervals of the same mean overlap nearly always.
- **kept**: the plan's mean error is at most that of the pipeline's own sampler on the same seeds,
  or one level of a byte. The difference has an interval, of pairs.
- **pictures**: the plan makes another picture of no more seeds than the own sampler does. A picture
  is another when its error is more than half of the median distance between pictures of two seeds.

With `--against`, the library of another commit is measured in the same run, with the same networks.
What was measured is kept in `--work` under names with a hash of the code that it depends on: a run
that was interrupted continues, and `--fresh` measures the library again. Trained networks and their
limits stay with the user's caches. Seconds are those of the machine as it is; compare passes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core.statistics import Interval, bootstrap_interval, rms
from asymflow.io import folders
from benchmarks import results
from benchmarks.suites.families import limits, promised, small
from benchmarks.suites.families.promised import seeds
from benchmarks.suites.families.small import LOAD

BYTE = 2 / 255
"""One level of a byte, in [-1, 1]: differences below are not seen."""
ANOTHER = 0.5
"""Share of the distance between pictures of two seeds from which a picture is another."""
MOVES = {name: 1000 if name == "exact" else 256 for name in LOAD}
"""Of a limit. An estimate of the exact network costs next to nothing."""
HELD = ("kept", "pictures")
"""Verdicts of a plan that does what it promises."""
CODE = Path(__file__).parent
LIMIT_CODE = (CODE / "limits.py", CODE / "small.py")

Errors = NDArray[np.float64]


# --- verdicts ----------------------------------------------------------------------------------


def judge(found: Mapping[str, Any], limit: Mapping[str, Any]) -> dict[str, Any]:
    """What was stated and what fresh seeds show, with verdicts."""
    reference: Tensor = limit["states"].double()
    pairs = np.array(list(combinations(range(len(reference)), 2)))
    apart = float(np.median(rms((reference[pairs[:, 0]] - reference[pairs[:, 1]]).numpy())))
    plan, own = (
        rms((found[name].double() - reference).numpy()) for name in ("states", "own_states")
    )
    stated = Interval(**found["stated_rms"])
    fresh, of_own = _mean(plan), _mean(own)
    changed, own_changed = (int((each > ANOTHER * apart).sum()) for each in (plan, own))
    promise, difference = max(of_own.value, BYTE), _mean(plan - own)
    made = found["made"]
    return {
        "measuring": {key: found[key] for key in ("passes", "seconds", "first_seconds")},
        "plan": {
            key: found[key]
            for key in (
                "steps",
                "solvers",
                "tiers",
                "passes_per_picture",
                "own_passes_per_picture",
            )
        },
        "stated": {
            "rms": asdict(stated),
            "pictures": int(made["pictures"]),
            **{
                key: made.get(key)
                for key in ("original_rms", "median_rms", "worst_rms", "changed", "limit_rms")
            },
            "note": made.get("original_note"),
            "measuring_forwards": made.get("measuring_forwards"),
        },
        "fresh": _summary(plan, fresh, changed),
        "own": _summary(own, of_own, own_changed),
        "default": _default(found, reference, apart),
        "apart": apart,
        "difference": asdict(difference),
        "promise": promise,
        "verdicts": {
            "stated": stated.low <= fresh.value <= stated.high,
            "overlaps": stated.low <= fresh.high and fresh.low <= stated.high,
            "kept": fresh.value <= promise,
            "pictures": changed <= own_changed,
        },
        # Of 64 pictures a mean that is a little above may be chance.
        "broken_beyond_chance": fresh.value > BYTE and difference.low > 0,
    }


def _default(found: Mapping[str, Any], reference: Tensor, apart: float) -> dict[str, Any] | None:
    """The plan that needs no measuring; None of versions that have none."""
    if found["default_states"] is None:
        return None
    errors = rms((found["default_states"].double() - reference).numpy())
    changed = int((errors > ANOTHER * apart).sum())
    passes = found["default_passes_per_picture"]
    return {"passes_per_picture": passes, **_summary(errors, _mean(errors), changed)}


def _summary(errors: Errors, mean: Interval, changed: int) -> dict[str, Any]:
    return {
        "rms": asdict(mean),
        "median": float(np.median(errors)),
        "worst": float(errors.max()),
        "changed": changed,
        "changed_share": changed / len(errors),
        "errors": [round(float(error), 6) for error in errors],
    }


def _mean(values: Errors) -> Interval:
    return bootstrap_interval(values, np.mean)


def compared(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Two versions of the library: `now` over `before`, on the same seeds."""
    pairs = zip(now["fresh"]["errors"], before["fresh"]["errors"], strict=True)
    passes, earlier = (each["measuring"]["passes"] for each in (now, before))
    cost, costed = (each["plan"]["passes_per_picture"] for each in (now, before))
    held, was_held = (all(each["verdicts"][k] for k in HELD) for each in (now, before))
    return {
        "passes_ratio": passes / earlier,
        "seconds_ratio": now["measuring"]["seconds"] / before["measuring"]["seconds"],
        "plan_passes_ratio": cost / costed,
        "difference": asdict(_mean(np.array([one - other for one, other in pairs]))),
        "verdicts": {
            "a_third": 3 * passes <= earlier,
            # A dearer plan than one that broke its promise is no loss.
            "equal_or_better": held and (cost <= costed or not was_held),
        },
    }


# --- measuring ---------------------------------------------------------------------------------


@contextmanager
def tree_of(commit: str | None) -> Generator[Path]:
    """The repository at a commit, in a temporary folder; None is this one."""
    if commit is None:
        yield results.ROOT
        return
    git = ("git", "-C", str(results.ROOT), "worktree")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def digest(*places: Path) -> str:
    """Of Python files, and of all that are in folders."""
    found = hashlib.sha256()
    for place in places:
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            found.update(path.relative_to(place.parent).as_posix().encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def measured(name: str, tree: Path, given: argparse.Namespace) -> dict[str, Any]:
    """What `promised` finds with the library in a tree, by a process of its own."""
    library = tree / "src"
    # An absolute path: a relative XDG_CACHE_HOME counts for nothing.
    with tempfile.TemporaryDirectory(dir=given.work.absolute()) as folder:
        out = Path(folder) / "found.pt"
        # Without plans of earlier runs, which are kept with the user's caches.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(library), str(results.ROOT))),
            "XDG_CACHE_HOME": folder,
        }
        command = [sys.executable, "-m", promised.__name__, name, str(given.networks.absolute())]
        command += ["--steps", str(given.steps), "--pictures", str(given.pictures)]
        subprocess.run([*command, "--out", str(out)], env=environment, check=True)
        found = torch.load(out, weights_only=True)
        used = Path(found["asymflow"])
        assert used == (library / "asymflow").absolute(), f"{used} was measured, not {library}"
    return found


def once(path: Path, fresh: bool, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an earlier run has made, or is made now, and kept."""
    if path.exists() and not fresh:
        return torch.load(path, weights_only=True)
    found = make()
    torch.save(found, path)
    return found


QUICK = {"pictures": 4, "only": ["exact"]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=list(LOAD), default=list(LOAD))
    parser.add_argument("--against", metavar="COMMIT", help="measure the library there, too")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--steps", type=int, default=small.STEPS, help="of training")
    parser.add_argument("--fresh", action="store_true", help="measure what was measured again")
    parser.add_argument("--networks", type=Path, default=folders.cache() / "benchmarks")
    parser.add_argument("--work", type=Path, default=Path("runs/promises"))
    parser.add_argument("--out", type=Path, default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {what}", flush=True)

    for folder in (given.networks, given.work):
        folder.mkdir(parents=True, exist_ok=True)
    reports: dict[str, Any] = {}
    weights: list[str] = []
    with tree_of(given.against) as earlier:
        trees = {"now": results.ROOT} | ({"before": earlier} if given.against else {})
        for name in given.only:
            one = LOAD[name](given.networks, given.steps)
            asked = f"{name}-{given.steps}-{given.pictures}"
            # Beside the networks, since it is the same for all versions of the library.
            limit = once(
                given.networks / f"{asked}-limit-{MOVES[name]}-{digest(*LIMIT_CODE)}.pt",
                False,
                partial(limits.limit_of, one, seeds(given.pictures), MOVES[name]),
            )
            say(f"{name}: limit, {limit['errors'].mean():.5f} from half as many moves")
            report: dict[str, Any] = {
                "weights": sum(each.numel() for each in one.pipe.unet.parameters()),
                "limit": {
                    "moves": MOVES[name],
                    # To the limit of half as many: more than its error.
                    "difference": float(limit["errors"].mean()),
                    "worst": float(limit["errors"].max()),
                },
            }
            for when, tree in trees.items():
                code = digest(tree / "src" / "asymflow", CODE / "promised.py", CODE / "small.py")
                found = once(
                    given.work / f"{asked}-{code}.pt",
                    given.fresh,
                    partial(measured, name, tree, given),
                )
                report[when] = judge(found, limit)
                say("\n".join([f"{name}, {when}:", *told(report[when])]))
                if when == "now":
                    weights.append(found["made"]["adapter"])
            if "before" in report:
                report["compared"] = compared(report["now"], report["before"])
                say(f"{name}: {report['compared']}")
            reports[name] = report
    result = {
        "pictures": given.pictures,
        "training_steps": given.steps,
        "own_steps": promised.OWN_STEPS,
        "against": given.against,
        "networks": reports,
    }
    return results.save(
        given.out / "promises.json", result, weights=weights, dtype="float32", device="cpu"
    )


def told(report: Mapping[str, Any]) -> list[str]:
    """A report in lines."""
    measuring, plan = report["measuring"], report["plan"]
    stated, fresh, own = (Interval(**report[key]["rms"]) for key in ("stated", "fresh", "own"))
    return [
        f"  {measuring['passes']} passes, {measuring['seconds']:.0f} s; first picture after "
        f"{measuring['first_seconds']} s without",
        f"  {plan['steps']} steps of {', '.join(plan['solvers'])}: {plan['passes_per_picture']} "
        f"passes instead of {plan['own_passes_per_picture']}",
        f"  stated {stated.value:.5f} ({stated.low:.5f} to {stated.high:.5f}), {report['stated']}",
        f"  fresh  {fresh.value:.5f} ({fresh.low:.5f} to {fresh.high:.5f}), worst "
        f"{report['fresh']['worst']:.4f}, {report['fresh']['changed']} others",
        f"  own    {own.value:.5f} ({own.low:.5f} to {own.high:.5f}), worst "
        f"{report['own']['worst']:.4f}, {report['own']['changed']} others",
        *(
            []
            if (default := report["default"]) is None
            else [
                f"  without measuring {default['rms']['value']:.5f}, "
                f"{default['passes_per_picture']} passes"
            ]
        ),
        f"  {report['verdicts']}",
    ]
