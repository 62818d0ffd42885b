"""What `asymflow.accelerate` says of one small network, what that took, and what it then draws.

    python -m benchmarks.suites.families.promised NAME FOLDER --steps N --pictures N --out FILE

The child process of `families promises`. It runs with any version of asymflow that `PYTHONPATH`
finds first, so of asymflow it uses `accelerate(pipe)` and the attributes of a plan and its evidence
only. `FILE` is a dictionary of `torch.save`: measurements, and the pictures of the plan and of the
pipeline's own sampler for the same seeds.
"""

from __future__ import annotations

import argparse
import inspect
import threading
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
PATIENCE = 3600.0
"""Seconds that a plan may be measured for."""
BEHIND = {"wait": False}
"""How versions of asymflow that can measure behind a first plan are asked to; others know none."""


def seeds(count: int) -> range:
    """Of pictures that no plan was chosen or proved by."""
    return range(FIRST_SEED, FIRST_SEED + count)


@contextmanager
def rows_of(module: nn.Module) -> Generator[Counter[int]]:
    """Count the rows that a module has answered, for every thread by its number."""
    rows = Counter[int]()

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        rows[threading.get_ident()] += len(output)

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
    """The accelerated pipeline once its plan is measured, and what that took.

    `first_seconds` is when the pipeline had drawn its first picture, where it could do so before
    its plan was measured; otherwise None.
    """
    known = inspect.signature(asymflow.accelerate).parameters
    behind: dict[str, Any] = BEHIND if BEHIND.keys() <= known.keys() else {}
    with rows_of(small.counted) as rows:
        began = time.perf_counter()
        pipe: Any = asymflow.accelerate(small.pipe, examples=small.examples, **behind)
        first_seconds, drawing = None, 0
        if not _measured(pipe):
            before = rows[threading.get_ident()]
            drawn(small, pipe, 1)
            first_seconds = time.perf_counter() - began
            drawing = rows[threading.get_ident()] - before  # which is no part of the measurement
        while not _measured(pipe):
            if time.perf_counter() - began > PATIENCE:
                raise TimeoutError(f"the plan was not measured within {PATIENCE:g} s")
            time.sleep(0.01)
        seconds = time.perf_counter() - began
    passes = rows.total() - drawing
    assert passes, "the plan was kept by an earlier run"
    return pipe, {"passes": passes, "seconds": seconds, "first_seconds": first_seconds}


def _measured(pipe: Any) -> bool:
    return pipe.asymflow_plan is not None and pipe.asymflow_plan.evidence is not None


def measure(small: Small, pictures: int) -> dict[str, Any]:
    """All of it."""
    pipe, took = accelerated(small)
    plan = pipe.asymflow_plan
    passes: dict[str, int] = {}
    states: dict[str, Tensor] = {}
    for name, made_by in (("plan", pipe), ("own", small.pipe)):
        with rows_of(small.counted) as rows:
            states[name] = drawn(small, made_by, pictures)
        whole, rest = divmod(rows.total(), pictures)
        assert rest == 0, "every picture takes as many passes"
        passes[name] = whole
    return {
        **took,
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
