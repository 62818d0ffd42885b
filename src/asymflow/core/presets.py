"""What is used where nobody asked for anything else. Every default number lives here.

The help pages quote these numbers, so nothing heavy is imported before a plan is made.
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
"""Times between which guidance helps, at 64 px: `python -m benchmarks guidance`. Below, when the
layout stands, what it adds is further from real pictures, and takes a second pass."""
IMAGE_STRENGTH = 0.6
"""Of image-to-image: keeps the layout, changes the rendering."""
MASK_STRENGTH = 1.0
"""Of inpainting: what the mask covers is made anew."""
MAX_STEPS = 256
"""More steps change no pixel by a level, and a JPEG header has no room to record them."""


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
    """Where pictures of (height, width) are guided, in t: as much visible noise as `at_64`."""
    factor = math.sqrt(size[0] * size[1]) / 64
    low, high = (factor * t / (factor * t + (1 - t)) for t in at_64)
    return low, high


DEFAULT = Grid()
GRIDS = {"default": DEFAULT}
"""Plans that are known by a name."""
