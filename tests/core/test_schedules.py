"""Grids fall from noise to data, plans come out as asked, and nothing here needs torch."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asymflow.core import schedules, transforms
from asymflow.core.errors import InputError
from asymflow.core.types import CONDITIONAL, FULL, Plan, Step

Grid = tuple[float, ...]

GRIDS: dict[str, Callable[[int], Grid]] = {
    "uniform": schedules.uniform,
    "shifted": lambda n: schedules.shifted(n, 3.0),
    "logit_normal": lambda n: schedules.logit_normal(n, 0.5, 1.2),
    "karras": schedules.karras,
    "log_snr": schedules.log_snr,
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@given(n=st.integers(1, 300))
def test_grids_fall_in_n_steps_to_exactly_zero(grid: Callable[[int], Grid], n: int) -> None:
    nodes = grid(n)
    assert len(nodes) == n + 1
    assert nodes[-1] == 0.0
    assert nodes[0] <= 1.0
    assert all(t > s for t, s in pairwise(nodes))


@given(st.floats(1e-3, 1e3), st.integers(1, 40))
def test_a_shifted_grid_begins_and_ends_exactly(shift: float, n: int) -> None:
    grid = schedules.shifted(n, shift)
    assert (grid[0], grid[-1]) == (1.0, 0.0)


@pytest.mark.parametrize("name", ["uniform", "shifted", "logit_normal"])
@pytest.mark.parametrize("n", [1, 7, 64])
def test_grids_without_a_largest_noise_level_begin_at_one(name: str, n: int) -> None:
    assert GRIDS[name](n)[0] == 1.0


@given(n=st.integers(2, 60), shift=st.floats(0.05, 20))
def test_shift_multiplies_the_odds(n: int, shift: float) -> None:
    for plain, moved in zip(
        schedules.uniform(n)[1:-1], schedules.shifted(n, shift)[1:-1], strict=True
    ):
        assert moved / (1 - moved) == pytest.approx(shift * plain / (1 - plain), rel=1e-9)


def test_logit_normal_is_uniform_in_its_own_quantiles() -> None:
    grid = schedules.logit_normal(4, mean=-0.8, std=0.5)
    logits = [math.log(t / (1 - t)) for t in grid[1:-1]]
    quartile = 0.6744897501960817
    assert logits == pytest.approx([-0.8 + 0.5 * quartile, -0.8, -0.8 - 0.5 * quartile])


def test_karras_is_the_published_grid() -> None:
    grid = schedules.karras(18, rho=7, sigma_min=0.002, sigma_max=80)
    for i, t in enumerate(grid[:-1]):
        sigma = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        assert t / (1 - t) == pytest.approx(sigma, rel=1e-9)


def test_log_snr_is_evenly_spaced() -> None:
    grid = schedules.log_snr(9, start=0.97, last=0.02)
    assert (grid[0], grid[-2]) == pytest.approx((0.97, 0.02))
    lam = [math.log((1 - t) / t) for t in grid[:-1]]
    gaps = [b - a for a, b in pairwise(lam)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.uniform(0), "0 steps"),
        (lambda: schedules.shifted(4, 0.0), "shift=0.0"),
        (lambda: schedules.shifted(4, math.nan), "shift=nan"),
        (lambda: schedules.shifted(4, 1e300), "do not fall"),
        (lambda: schedules.logit_normal(4, math.inf), "mean=inf"),
        (lambda: schedules.logit_normal(4, 0.0, -1.0), "std=-1.0"),
        (lambda: schedules.logit_normal(4, 1000.0), "do not fall"),
        (lambda: schedules.karras(4, sigma_min=-1.0), "sigma_min=-1.0"),
        (lambda: schedules.karras(4, sigma_min=80.0, sigma_max=0.002), "do not fall"),
        (lambda: schedules.log_snr(4, start=1.0), r"start=1\.0"),
        (lambda: schedules.log_snr(4, last=0.0), r"last=0\.0"),
    ],
)
def test_impossible_grids_say_what_is_wrong(make: Callable[[], Grid], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_guidance_interval_is_closed_and_in_the_time_a_step_starts_at() -> None:
    plan = schedules.plan_of((1.0, 0.75, 0.5, 0.25, 0.0), guidance_interval=(0.5, 0.75), name="mid")
    assert [step.tier for step in plan.steps] == [CONDITIONAL, FULL, FULL, CONDITIONAL]
    assert plan.times == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert plan.forwards == 6
    assert plan.name == "mid"


@given(
    n=st.integers(1, 60),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda ends: (min(ends), max(ends))),
)
def test_nodes_move_to_where_guidance_switches(n: int, ends: tuple[float, float]) -> None:
    grid = schedules.shifted(n, 2.0)
    found = schedules.switched(grid, ends)
    assert len(found) == n + 1
    assert (found[0], found[-1]) == (1.0, 0.0)
    assert all(t > s for t, s in pairwise(found))
    low, high = ends
    if n > 2 and 0.01 < low < high - 2 / n and high < 0.99:
        guided = [
            step
            for step in schedules.plan_of(found, guidance_interval=ends).steps
            if step.tier.guided
        ]
        assert (guided[0].t, guided[-1].s) == pytest.approx((high, low), abs=2e-5)


@pytest.mark.parametrize("interval", [(0.5, 0.4), (-0.1, 1.0), (0.0, 1.1), (math.nan, 1.0)])
def test_bad_guidance_intervals(interval: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="guidance interval"):
        schedules.plan_of(schedules.uniform(2), guidance_interval=interval)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((), "no steps"),
        ((1.0,), "no steps"),
        ((1.0, 0.5), "ends at t=0.5"),
        ((1.0, 0.5, 0.5, 0.0), "not a move"),
        ((1.5, 0.0), "not a move"),
        ((0.0, 1.0), "not a move"),
        ((1.0, math.nan, 0.0), "not a move"),
    ],
)
def test_plans_of_what_is_no_grid(grid: Grid, message: str) -> None:
    with pytest.raises(InputError, match=message):
        schedules.plan_of(grid)


def test_plans_have_no_gaps_and_known_solvers() -> None:
    with pytest.raises(InputError, match="gap"):
        Plan("torn", (Step(1.0, 0.5), Step(0.4, 0.0)))
    with pytest.raises(InputError, match="'rk4'"):
        schedules.plan_of(schedules.uniform(2), solver="rk4")  # pyright: ignore[reportArgumentType]


@given(n=st.integers(1, 40), start=st.floats(1e-6, 1.0))
def test_a_truncated_plan_begins_at_the_start_and_keeps_later_nodes(n: int, start: float) -> None:
    whole = schedules.plan_of(schedules.uniform(n), guidance_interval=(0.2, 0.8), solver="heun")
    part = transforms.truncated(whole, start)
    assert part.times[0] == start
    assert set(part.times[1:]) <= set(whole.times)
    assert part.steps[1:] == whole.steps[len(whole.steps) - len(part.steps) + 1 :]
    if len(part.steps) > 1:
        assert 0.5 - 1e-9 <= (part.steps[0].t - part.steps[0].s) * n <= 1.5 + 1e-9
    assert transforms.truncated(part, start) == part


def test_truncation_keeps_a_node_that_is_the_start_and_leaves_shorter_plans_alone() -> None:
    plan = schedules.plan_of((0.9, 0.6, 0.3, 0.0))
    assert transforms.truncated(plan, 1.0) is plan
    assert transforms.truncated(plan, 0.9) is plan
    assert transforms.truncated(plan, 0.6).times == (0.6, 0.3, 0.0)
    assert transforms.truncated(plan, 0.5).times == (0.5, 0.3, 0.0)
    assert transforms.truncated(plan, 0.35).times == (0.35, 0.0)
    assert transforms.truncated(plan, 0.01).times == (0.01, 0.0)


@pytest.mark.parametrize("start", [0.0, -1.0, 1.1, math.nan])
def test_truncation_outside_the_path(start: float) -> None:
    with pytest.raises(InputError, match="cannot begin"):
        transforms.truncated(schedules.plan_of(schedules.uniform(2)), start)


def test_a_plan_prints_itself() -> None:
    text = str(schedules.plan_of(schedules.uniform(2), name="short"))
    assert text.splitlines()[0] == "plan short: 2 steps, 4 NFE"
    assert len(text.splitlines()) == 4


def test_planning_does_not_load_torch() -> None:
    code = (
        "import sys, asymflow.core.schedules, asymflow.core.types, asymflow.core.errors; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
