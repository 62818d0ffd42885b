"""Plans that an automatic search tries: by the profile, and what others would run."""

from __future__ import annotations

import torch

from asymflow.core.flow import fine_time
from asymflow.core.schedules import plan_of
from asymflow.core.types import Plan, Profile
from asymflow.models.diffusers.conventions import Convention, blended
from asymflow.planning.proposals import by_profile, distinct

SHIFTS = (1.0, 0.5, 0.25, 0.125)
"""Of the pipeline's own grid, where others would try it: as it is, and denser near the picture."""


def proposals(measured: Profile, steps: int, convention: Convention) -> dict[str, Plan]:
    """Plans for the price of so many full estimates: by the profile, and what others would run."""
    grid = convention.times(steps)
    found = by_profile(measured, steps)
    for shift in SHIFTS:
        inner = fine_time(torch.tensor(grid[1:], dtype=torch.float64), shift).tolist()
        for solver in ("damped2", "corrected2"):
            found[f"own grid / {shift}, {solver}"] = plan_of((grid[0], *inner), solver=solver)
    for solver in ("damped2", "corrected2"):
        found[f"blended, {solver}"] = plan_of(blended(convention, steps), solver=solver)
    found["own grid, multistep2"] = plan_of(grid, solver="multistep2")
    return distinct(found)
