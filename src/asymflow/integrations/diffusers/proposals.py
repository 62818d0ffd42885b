"""Plans that an automatic search tries: by the profile, and what others would run."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch

from asymflow.core.errors import InputError
from asymflow.core.flow import fine_time
from asymflow.core.schedules import plan_of
from asymflow.core.types import FULL, Plan, Profile
from asymflow.models.diffusers.conventions import Convention
from asymflow.models.diffusers.own import LEAST
from asymflow.planning import planner
from asymflow.planning.verifier import corrected, only

SHIFTS = (1.0, 0.5, 0.25, 0.125)
"""Of the pipeline's own grid, where others would try it: as it is, and denser near the picture."""
DENSE = 200
"""Moves that grids are interpolated from."""


def blended(convention: Convention, count: int) -> tuple[float, ...]:
    """A grid of so many moves, as dense as the model's own spacing and as equal log-SNR together.

    The first alone leaps over the noisy end on a cosine schedule, and over the finest detail; the
    second alone has few moves in the middle. The nodes of both in turn would have moves of all
    lengths, which a multistep method is bad at.
    """
    own = convention.times(min(DENSE, convention.most or DENSE))
    least = max(float(convention.time(torch.zeros(1))), LEAST)
    dense = np.array([*(t for t in own if t > least), least])
    seen = np.minimum(dense, 1 - LEAST)  # of pure noise there is no logarithm
    snr = np.log1p(-seen) - np.log(seen)
    share = (np.linspace(0, 1, len(dense)) + (snr - snr[0]) / (snr[-1] - snr[0])) / 2
    nodes = np.interp(np.linspace(0, 1, count), share, dense)
    return (float(dense[0]), *nodes[1:].tolist(), 0.0)


def proposals(measured: Profile, steps: int, convention: Convention) -> dict[str, Plan]:
    """Plans for the price of so many full estimates: by the profile, and what others would run."""
    grid = convention.times(steps)
    budget = 1.0001 * steps * measured.cost_ms[0]
    unreduced = tuple(tier for tier in measured.tiers if tier.unreduced)
    tiers = {"planned": measured.tiers, "planned, unreduced": unreduced, "planned, full": (FULL,)}
    found: dict[str, Plan] = {}
    for name, allowed in tiers.items():
        with suppress(InputError):  # nothing of that kind fits
            plan = planner.plan(only(measured, allowed), budget=budget)
            found |= {name: plan, f"{name}, corrected": corrected(plan)}
    for shift in SHIFTS:
        inner = fine_time(torch.tensor(grid[1:], dtype=torch.float64), shift).tolist()
        for solver in ("damped2", "corrected2"):
            found[f"own grid / {shift}, {solver}"] = plan_of((grid[0], *inner), solver=solver)
    for solver in ("damped2", "corrected2"):
        found[f"blended, {solver}"] = plan_of(blended(convention, steps), solver=solver)
    found["own grid, multistep2"] = plan_of(grid, solver="multistep2")
    # The same plan by another name is not another kind.
    unique = {plan.steps: name for name, plan in reversed(found.items())}
    return {name: plan for name, plan in found.items() if unique[plan.steps] == name}


def predicted(measured: Profile, error: float, most: int) -> int:
    """The number of steps that a plan with such an error is predicted to need, of half of `most`.

    A quarter where none is predicted to be so near.
    """
    with suppress(InputError):
        found = planner.plan(only(measured, (FULL,)), error=error)
        return min(len(found.steps), most // 2)
    return most // 4
