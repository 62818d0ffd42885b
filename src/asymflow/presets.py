"""What is used where nobody asked for anything else. Every default number lives here.

The help pages quote these numbers, so nothing heavy is imported before a plan is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asymflow.errors import InputError

if TYPE_CHECKING:
    from asymflow.types import Plan, Solver

GUIDANCE = 3.0
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
        guidance_interval: (low, high) in t; steps that begin outside it are not guided.
        shift: towards noise, at 64 px; larger pictures are shifted further, so that every size
            spends its steps at the same visible amount of noise.
    """

    steps: int = 30
    solver: Solver = "multistep2"
    guidance_interval: tuple[float, float] = (0.1, 1.0)
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
        from asymflow.times import plan_of, shifted

        side = math.sqrt(size[0] * size[1])
        return plan_of(
            shifted(self.steps, self.shift * side / 64),
            solver=self.solver,
            guidance_interval=self.guidance_interval,
            name=f"{self.solver}-{self.steps}",
        )


DEFAULT = Grid()
GRIDS = {"default": DEFAULT}
"""Plans that are known by a name."""
