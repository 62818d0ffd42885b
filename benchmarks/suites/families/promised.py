"""What `asymflow.accelerate` says of one small network, what that took, and what it then draws.

    python -m benchmarks.suites.families.promised NAME FOLDER --steps N --pictures N --out FILE

The child process of `families promises`. It runs with any version of asymflow that `PYTHONPATH`
finds first, so of asymflow it uses `accelerate(pipe)` and the attributes of a plan and its evidence
only. `FILE` is a dictionary of `torch.save`: measurements, and the pictures of the plan and of the
pipeline's own sampler for the same seeds.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import asymflow
from benchmarks.suites.families.small import LOAD, Small

FIRST_SEED = 1_000_000
"""Far above the seeds that plans are chosen and proved on."""
OWN_STEPS = 50
"""Of the pipeline's own sampler: as many as `accelerate` compares with."""
TOGETHER = 16
DEFAULT = "default"
"""The plan that needs no measuring, of versions that have one."""


def seeds(count: int) -> range:
    """Of pictures that no plan was chosen or proved by."""
    return range(FIRST_SEED, FIRST_SEED + count)


@contextmanager
def rows_of(module: nn.Module) -> Generator[Counter[str]]:
    """Count the rows that a module has answered."""
    rows = Counter[str]()

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        rows["all"] += len(output)

    handle = module.register_forward_hook(hook)
    try:
        yield rows
    finally:
        handle.remove()


def drawn(small: Small, pipe: Any, count: int) -> Tensor:
    """Pictures [n, c, h, w] in [-1, 1] of fresh seeds, of as many steps as `OWN_STEPS`.

    A plan has steps of its own.
    """
    found: list[Tensor] = []
    for begin in range(0, count, TOGETHER):
        numbers = range(begin, min(begin + TOGETHER, count))
        generators = [torch.Generator().manual_seed(seeds(count)[number]) for number in numbers]
        call = {**small.call(numbers), "num_inference_steps": OWN_STEPS, "output_type": "pt"}
        images = pipe(**call, generator=generators).images.float()
        found.append((2 * images - 1 if small.unit else images).clamp(-1, 1))
    return torch.cat(found)


def accelerated(small: Small) -> tuple[Any, dict[str, Any]]:
    """The accelerated pipeline, and what measuring its plan took."""
    with rows_of(small.counted) as rows:
        began = time.perf_counter()
        pipe: Any = asymflow.accelerate(small.pipe, examples=small.examples)
        seconds = time.perf_counter() - began
    assert rows.total(), "the plan was kept by an earlier run"
    return pipe, {"passes": rows.total(), "seconds": seconds}


def at_once(small: Small) -> tuple[Any, float] | None:
    """The pipeline with a plan that is not measured, and the seconds until its first picture.

    None of versions of asymflow that have no such plan.
    """
    began = time.perf_counter()
    try:
        pipe: Any = asymflow.accelerate(small.pipe, DEFAULT)
    except asymflow.InputError:
        return None
    drawn(small, pipe, 1)
    return pipe, time.perf_counter() - began


def measure(small: Small, pictures: int) -> dict[str, Any]:
    """All of it."""
    pipe, took = accelerated(small)
    plan = pipe.asymflow_plan
    passes: dict[str, int] = {}
    states: dict[str, Tensor] = {}
    pipes: dict[str, Any] = {"plan": pipe, "own": small.pipe}
    first_seconds = None
    if (ready := at_once(small)) is not None:
        pipes[DEFAULT], first_seconds = ready
    for name, made_by in pipes.items():
        with rows_of(small.counted) as rows:
            states[name] = drawn(small, made_by, pictures)
        whole, rest = divmod(rows.total(), pictures)
        assert rest == 0, "every picture takes as many passes"
        passes[name] = whole
    return {
        **took,
        "first_seconds": first_seconds,
        "asymflow": str(Path(asymflow.__file__).parent),
        "steps": len(plan.steps),
        "solvers": _unique([step.solver for step in plan.steps]),
        "tiers": _unique([step.tier.name for step in plan.steps]),
        "passes_per_picture": passes["plan"],
        "own_passes_per_picture": passes["own"],
        "stated_rms": asdict(plan.evidence.rms),
        "made": {key: str(value) for key, value in plan.evidence.made.items()},
        "states": states["plan"],
        "own_states": states["own"],
        "default_states": states.get(DEFAULT),
        "default_passes_per_picture": passes.get(DEFAULT),
    }


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=LOAD)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--pictures", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.save(measure(LOAD[given.name](given.folder, given.steps), given.pictures), given.out)


if __name__ == "__main__":
    main()
