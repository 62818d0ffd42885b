"""Protocol of the comparison: prompts, seeds, numbers of steps, and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asymflow.bench.pairs import job
from asymflow.core import presets, schedules
from asymflow.core.types import Plan, Request
from asymflow.training.data.manifest import Entry


@dataclass(frozen=True, slots=True)
class Budget:
    """Configurations to measure of every method.

    Attributes:
        quick: whether this is a reduced set; recorded in the result.
        steps: numbers of steps of diffusers' schedulers; of evaluations, for other solvers.
        rounds: pictures that grids are compared on, round by round, where the model's limit is the
            judge; the better half of them goes into the next round. On a small JiT (1, 4) chose
            the same grids as (4,), and (1, 2, 4) one that was worse by a fifth.
        gits_steps: numbers of steps of GITS.
        cache_steps: number of steps under the caches.
        first_block, taylor, skip: thresholds of the first-block cache, intervals of TaylorSeer and
            thresholds of AdaptiveDiffusion. On the embedded model at 32 px the published defaults
            have no effect: diffusers' 0.05 for the first block and AdaptiveDiffusion's 0.01 skip
            no block and no call.
        counted: pictures whose arithmetic is counted; it varies under adaptive samplers.
        save_every: pictures between writes of the cache.
    """

    quick: bool = False
    steps: tuple[int, ...] = (4, 5, 6, 8, 12, 20)
    rounds: tuple[int, ...] = (1, 8)
    gits_steps: tuple[int, ...] = (6, 8, 12)
    cache_steps: int = 20
    first_block: tuple[float, ...] = (0.2, 0.3)
    taylor: tuple[int, ...] = (2, 3)
    skip: tuple[float, ...] = (0.02, 0.05)
    counted: int = 4
    save_every: int = 8


FULL = Budget()
QUICK = Budget(quick=True, steps=(5, 6, 8), rounds=(1, 4), gits_steps=(5, 6, 8))


def reference_plan(size: int) -> Plan:
    """The reference plan for pictures of `size` x `size` pixels."""
    shape = (size, size)
    return schedules.fine_plan(shape, guidance_interval=presets.guidance_interval(shape))


def pair_requests(entries: Sequence[Entry], seed: int, size: int) -> list[Request]:
    """Requests for pairs of the dataset, with the seeds that `pairs.job` derives from `seed`."""
    jobs = [job(entry, seed) for entry in entries]
    return [
        Request({"prompt": prompt, "style": style}, (size, size), noise, presets.GUIDANCE)
        for prompt, style, noise in jobs
    ]
