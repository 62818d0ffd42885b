"""Grids that plans are proposed on, and the plan that needs no measuring."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import asymflow
from asymflow.core import engine
from asymflow.core.schedules import plan_of
from asymflow.core.types import Plan, Request
from asymflow.models.diffusers.conventions import Convention, Flow, blended
from asymflow.models.diffusers.families import UNCONDITIONAL
from asymflow.models.diffusers.own import default_of, refined
from asymflow.models.empirical import EmpiricalAdapter

Make = Callable[..., Any]


@pytest.mark.parametrize("count", [2, 7, 32])
@pytest.mark.parametrize("kind", ["linear", "squaredcos_cap_v2", "flow"])
def test_grids_fall_from_the_most_noise_to_none(unconditional: Make, kind: str, count: int) -> None:
    convention: Convention = (
        Flow(noise=2.0)
        if kind == "flow"
        else UNCONDITIONAL.convention(unconditional(beta_schedule=kind))
    )
    for grid in (blended(convention, count), refined(convention, count)):
        assert grid[0] == pytest.approx(convention.times(4)[0])
        assert grid[-1] == 0
        assert all(s < t for t, s in pairwise(grid))
    assert len(blended(convention, count)) == count + 1


def test_a_blended_grid_is_finer_at_both_ends(unconditional: Make) -> None:
    convention = UNCONDITIONAL.convention(unconditional(beta_schedule="squaredcos_cap_v2"))
    own, found = convention.times(16), blended(convention, 16)
    assert found[0] - found[1] < own[0] - own[1]
    assert found[-2] < own[-2]


@pytest.mark.parametrize("kind", ["linear", "squaredcos_cap_v2", "flow", "shifted flow"])
@pytest.mark.parametrize("own_steps", [20, 25, 50])
def test_the_default_plan_makes_the_pictures_of_many_steps(
    unconditional: Make, kind: str, own_steps: int
) -> None:
    """Where most of few steps go to the last noise, many pictures become others."""
    convention: Convention = {
        "flow": Flow(),
        "shifted flow": Flow(noise=2.0, shift=3.0),
    }.get(kind) or UNCONDITIONAL.convention(unconditional(beta_schedule=kind))
    draw = torch.Generator().manual_seed(0)
    pictures = 2 * torch.rand(16, 3, 4, 4, generator=draw) - 1
    model = EmpiricalAdapter(pictures, torch.zeros(16, dtype=torch.long))
    requests = [Request({}, (4, 4), seed) for seed in range(24)]

    def ends(plan: Plan) -> Tensor:
        return torch.stack([end.x_0 for end in engine.rollout(model, plan, requests)])

    plan = default_of(convention, own_steps, guided=False)
    assert len(plan.steps) <= 0.4 * own_steps
    limit = ends(plan_of(refined(convention, 128), solver="corrected2"))
    # Two of these pictures are about 0.8 from each other.
    assert (ends(plan) - limit).square().mean((1, 2, 3)).sqrt().max() < 0.1


def test_the_default_plan_is_not_guided_near_the_picture(prx: Make, told: dict[str, Any]) -> None:
    fast = asymflow.accelerate(prx(), "default")
    tiers = [(step.t, step.tier.guided) for step in fast.asymflow_plan.steps]
    assert {guided for t, guided in tiers if t < 0.1} == {False}
    assert {guided for t, guided in tiers if t >= 0.1} == {True}
    call = {**told, "use_resolution_binning": False, "guidance_scale": 3.0}
    assert fast(**call, output_type="pt").images.isfinite().all()
