"""Grids that plans are proposed on, and the plan that needs no measuring."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

import asymflow
from asymflow.integrations.diffusers.proposals import blended
from asymflow.models.diffusers.conventions import Convention, Flow
from asymflow.models.diffusers.families import UNCONDITIONAL
from asymflow.models.diffusers.own import refined

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


def test_the_default_plan_is_not_guided_near_the_picture(prx: Make, told: dict[str, Any]) -> None:
    fast = asymflow.accelerate(prx(), "default")
    tiers = [(step.t, step.tier.guided) for step in fast.asymflow_plan.steps]
    assert {guided for t, guided in tiers if t < 0.1} == {False}
    assert {guided for t, guided in tiers if t >= 0.1} == {True}
    call = {**told, "use_resolution_binning": False, "guidance_scale": 3.0}
    assert fast(**call, output_type="pt").images.isfinite().all()
