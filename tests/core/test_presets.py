"""Plans that nobody had to measure."""

from __future__ import annotations

from typing import Any

import pytest

from asymflow.core import presets
from asymflow.core.errors import InputError
from asymflow.core.presets import Grid


def test_the_default_is_a_plan_from_noise_to_data() -> None:
    plan = presets.DEFAULT.plan((64, 64))
    assert len(plan.steps) == presets.DEFAULT.steps
    assert (plan.times[0], plan.times[-1]) == (1.0, 0.0)
    low, high = presets.DEFAULT.guidance_interval
    for step in plan.steps:
        assert step.tier.guided == (low <= step.t <= high)


def test_larger_pictures_are_shifted_towards_noise_by_their_side() -> None:
    small, large = Grid().plan((64, 64)), Grid().plan((128, 128))
    for s, t in zip(small.times[1:-1], large.times[1:-1], strict=True):
        assert t / (1 - t) == pytest.approx(2 * s / (1 - s))


def test_guidance_ends_at_the_same_visible_noise_at_every_size() -> None:
    low, high = presets.guidance_interval((128, 128))
    assert low / (1 - low) == pytest.approx(2 * presets.GUIDED[0] / (1 - presets.GUIDED[0]))
    assert high == 1
    for size in ((32, 32), (64, 64), (128, 128)):
        guided = [step.tier.guided for step in Grid().plan(size).steps]
        assert guided == [step.tier.guided for step in Grid().plan((64, 64)).steps]


def test_only_the_area_matters() -> None:
    assert Grid().plan((32, 128)).times == Grid().plan((64, 64)).times


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": presets.MAX_STEPS + 1},
        {"guidance_interval": (0.5, 0.4)},
        {"guidance_interval": (0.0, 1.1)},
        {"guidance_interval": (float("nan"), 1.0)},
    ],
)
def test_impossible_grids(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Grid(**options)


def test_an_unknown_solver_makes_no_plan() -> None:
    with pytest.raises(InputError, match="rk4"):
        Grid(solver="rk4").plan((64, 64))  # pyright: ignore[reportArgumentType]
