"""Default values. Every default number is defined here.

Help pages quote these numbers, so heavy imports are deferred until a plan is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asymflow.core.errors import InputError

if TYPE_CHECKING:
    from asymflow.core.types import Plan, Solver

GUIDANCE = 5.0
GUIDED = (0.6, 1.0)
"""Times between which guidance helps, at 64 px: `python -m benchmarks guidance`. Below, once the
layout is fixed, guidance moves pictures away from real ones, at the cost of a second pass."""
IMAGE_STRENGTH = 0.6
"""Strength of image-to-image: keeps the layout, changes the rendering."""
MASK_STRENGTH = 1.0
"""Strength of inpainting: what the mask covers is generated from pure noise."""
MAX_STEPS = 256
"""More steps change no pixel by one level, and do not fit in the header of a JPEG."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A plan made without measuring: one solver over a shifted grid.

    Attributes:
        guidance_interval: (low, high) in t at 64 px; steps that begin outside it are not guided.
        shift: towards noise, at 64 px. In larger pictures both are shifted further, so that every
            size spends its steps, and its guidance, at the same visible amount of noise.
    """

    steps: int = 30
    solver: Solver = "damped2"
    guidance_interval: tuple[float, float] = GUIDED
    shift: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise InputError(f"{self.steps} steps are not possible. Choose 1 to {MAX_STEPS}.")
        low, high = self.guidance_interval
        if not 0 <= low <= high <= 1:
            raise InputError(
                f"The guidance interval {low}:{high} is not a part of 0:1. Give two times, the "
                "lower one first: 0:1 guides every step."
            )

    def plan(self, size: tuple[int, int]) -> Plan:
        """The plan for pictures of (height, width).

        Raises:
            InputError: there is no such solver.
        """
        from asymflow.core.schedules import plan_of, shifted

        side = math.sqrt(size[0] * size[1])
        return plan_of(
            shifted(self.steps, self.shift * side / 64),
            solver=self.solver,
            guidance_interval=guidance_interval(size, self.guidance_interval),
            name=f"{self.solver}-{self.steps}",
        )


def guidance_interval(
    size: tuple[int, int], at_64: tuple[float, float] = GUIDED
) -> tuple[float, float]:
    """The guidance interval in t at (height, width), with as much visible noise as `at_64`."""
    factor = math.sqrt(size[0] * size[1]) / 64
    low, high = (factor * t / (factor * t + (1 - t)) for t in at_64)
    return low, high


DEFAULT = Grid()
GRIDS = {"default": DEFAULT}
"""Grids by name."""
