"""The few dataclasses that everything else passes around.

Nothing here imports torch: a plan can be read, printed and checked without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from asymflow.errors import InputError

Picture = NDArray[np.float32]
"""A picture as people have it: [h, w, c] in [0, 1]; RGBA is premultiplied by alpha."""

Solver = Literal["euler", "heun", "multistep1", "multistep2", "multistep3"]
"""How a move uses the estimates of x_0; `multistepN` extrapolates from N of them."""

SOLVERS: tuple[Solver, ...] = ("euler", "heun", "multistep1", "multistep2", "multistep3")


@dataclass(frozen=True, slots=True)
class Tier:
    """An estimator of x_0 with a price: how much network one evaluation uses.

    `guided` asks for classifier-free guidance (two passes); without it only the conditional pass
    runs, and the unconditional one costs nothing.
    """

    name: str
    guided: bool


FULL = Tier("full", guided=True)
CONDITIONAL = Tier("conditional", guided=False)


@dataclass(frozen=True, slots=True)
class Step:
    """One move of the trajectory from time t down to s < t, where 1 is noise and 0 is data."""

    t: float
    s: float
    tier: Tier = FULL
    solver: Solver = "multistep2"

    def __post_init__(self) -> None:
        if not 0.0 <= self.s < self.t <= 1.0:
            raise InputError(
                f"A step from t={self.t} to s={self.s} is not a move: times fall from 1 (noise) "
                "to 0 (data), so that 0 <= s < t <= 1."
            )
        if self.solver not in SOLVERS:
            raise InputError(f"Unknown solver {self.solver!r}. Choose one of {', '.join(SOLVERS)}.")

    @property
    def evaluations(self) -> int:
        """Estimates of x_0 that the move asks for: Heun takes two, except into s = 0."""
        return 2 if self.solver == "heun" and self.s > 0 else 1

    @property
    def forwards(self) -> int:
        """Network passes per picture: a guided estimate takes two."""
        return self.evaluations * (2 if self.tier.guided else 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """A trajectory as data: contiguous steps from `steps[0].t` to 0."""

    name: str
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise InputError(f"Plan {self.name!r} has no steps. A plan needs at least one.")
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if before.s != after.t:
                raise InputError(
                    f"Plan {self.name!r} has a gap: a step ends at t={before.s}, the next begins "
                    f"at t={after.t}. Let every step begin where the last one ends."
                )
        if self.steps[-1].s != 0.0:
            raise InputError(
                f"Plan {self.name!r} ends at t={self.steps[-1].s}, where noise is left. "
                "The last step must end at 0."
            )

    @property
    def times(self) -> tuple[float, ...]:
        """All nodes, falling: the start of every step, then 0."""
        return (*(step.t for step in self.steps), self.steps[-1].s)

    @property
    def forwards(self) -> int:
        """Network passes per picture."""
        return sum(step.forwards for step in self.steps)

    def __str__(self) -> str:
        rows = [f"plan {self.name}: {len(self.steps)} steps, {self.forwards} forwards"]
        rows.append(f"{'step':>4}  {'from t':>7}  {'to t':>7}  {'tier':<12}{'solver':<12}forwards")
        rows += [
            f"{i:>4}  {step.t:>7.4f}  {step.s:>7.4f}  {step.tier.name:<12}{step.solver:<12}"
            f"{step.forwards:>8}"
            for i, step in enumerate(self.steps)
        ]
        return "\n".join(rows)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One picture that somebody wants. A result depends on its own request and plan only.

    Attributes:
        inputs: what the adapter's `encode` understands, e.g. {"prompt": "a fox", "style": "noto"}.
        seed: of the noise this picture starts from.
        size: (height, width) in pixels.
        guidance_scale: weight w of D_null + w (D_cond - D_null); 1 is no guidance.
        image: a picture [h, w, c] in [0, 1] of that size to start from, for image-to-image and
            inpainting.
        strength: how far from `image` to go, in (0, 1]: the trajectory starts at t = strength.
        mask: [h, w] in [0, 1], 1 where `image` is to be repainted and 0 where it is kept.
    """

    inputs: Mapping[str, Any]
    size: tuple[int, int]
    seed: int = 0
    guidance_scale: float = 1.0
    image: Picture | None = None
    strength: float = 1.0
    mask: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A finished picture and what it took."""

    picture: Picture
    request: Request
    plan: Plan
    forwards: int
    seconds: float
    step_seconds: tuple[float, ...] = field(default=())
