"""The search finds what trying every path finds, and its errors are those of the definition."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval
from asymflow.core.types import (
    CONDITIONAL,
    FULL,
    SEQUENTIAL_CFG,
    Evidence,
    Plan,
    Profile,
    Solver,
    Step,
    Tier,
)
from asymflow.planning.planner import Candidate, front, plan
from asymflow.planning.prediction import Cost, predict

HALF = Tier("half", pool_factor=2)
HALF_CARRIED = Tier("half+", pool_factor=2, cached=True)
CARRIED = Tier("conditional+", guided=False, cached=True)
TIERS = (FULL, CONDITIONAL, CARRIED, HALF, HALF_CARRIED)


def lattice(
    seed: int,
    size: int = 5,
    tiers: Sequence[Tier] = TIERS,
    prices: Sequence[float] = (6, 3, 4, 1, 2),
) -> Profile:
    """A profile of random moves; longer ones are worse, so that whole fronts of plans pay.

    How much history, biases and ageing matter differs from seed to seed.
    """
    rng = np.random.default_rng(seed)
    gains = rng.choice([0.1, 0.5, 1.5], 3)
    bias, ageing = rng.choice([0.02, 0.4]), rng.choice([0.2, 2])
    times = np.linspace(1, 0, size)
    p, i, j = np.meshgrid(*[np.arange(size)] * 3, indexing="ij")
    length = np.where((p <= i) & (i < j), times[i] - times[j], np.inf)
    order = np.where(p == i, 1.0, rng.choice(gains, length.shape))
    local_error = [
        order * length ** rng.choice([1, 1.5]) * rng.uniform(0.5, 2, length.shape)
        + (0 if tier.unreduced else bias * rng.uniform(0.5, 2) * length)
        for tier in tiers
    ]
    k, node = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    age = np.where(k < node, times[k] - times[node], np.inf)
    drift = [
        ageing * age * rng.uniform(0, 1, age.shape) if tier.cached else np.full(age.shape, np.inf)
        for tier in tiers
    ]
    return Profile(
        times=tuple(times.tolist()),
        tiers=tuple(tiers),
        cost_ms=tuple(prices),
        macs=tuple(int(1000 * price) for price in prices),
        peak_bytes=tuple(int(10 * price) for price in prices),
        amplification=rng.uniform(0.5, 2, size).astype(np.float32),
        saturation=0.5,
        local_error=np.array(local_error, np.float32),
        weight=rng.uniform(0.5, 2, length.shape).astype(np.float32),
        drift=np.array(drift, np.float32),
        made={},
    )


def grown(profile: Profile, error: float, j: int) -> float:
    """An error at a time, as it is at t = 0."""
    a = float(profile.amplification[j])
    return error * (1 + (a - 1) / math.hypot(1, a * error / profile.saturation))


def flat(tiers: Sequence[Tier], prices: Sequence[float], size: int = 4) -> Profile:
    """A profile whose every move is off by 1: tests lower what they are about."""
    profile = lattice(0, size, tiers, prices)
    i = np.arange(size)
    possible = (i[:, None, None] <= i[:, None]) & (i[:, None] < i)
    local_error = np.where(possible, np.float32(1), np.float32(np.inf))
    return replace(
        profile,
        amplification=np.ones_like(profile.amplification),
        local_error=np.broadcast_to(local_error, profile.local_error.shape).copy(),
        weight=np.ones_like(profile.weight),
        drift=np.where(np.isfinite(profile.drift), np.float32(0), profile.drift),
    )


def only_short_moves(profile: Profile) -> Profile:
    """Every time has to be stopped at."""
    i = np.arange(len(profile.times))
    long = i[:, None] + 1 < i
    return replace(profile, local_error=np.where(long, np.float32(np.inf), profile.local_error))


def every_plan(profile: Profile, tiers: Sequence[Tier]) -> Iterator[Plan]:
    """Without those that only write an order-1 step as order 2."""

    def rest(i: int, before: Tier | None, full: bool) -> Iterator[tuple[Step, ...]]:
        if i == len(profile.times) - 1:
            yield ()
        for j in range(i + 1, len(profile.times)):
            for tier in tiers:
                if tier.cached and not full:
                    continue
                related = before is not None and (
                    before == tier or (before.unreduced and tier.unreduced)
                )
                solvers: list[Solver] = ["multistep1", "damped2"] if related else ["multistep1"]
                tails = list(rest(j, tier, full or tier.full))
                for solver in solvers:
                    step = Step(profile.times[i], profile.times[j], tier, solver)
                    yield from ((step, *tail) for tail in tails)

    yield from (Plan("planned", steps) for steps in rest(0, None, False))


def brute_force(
    profile: Profile, cost: Cost = "ms", tiers: Sequence[Tier] | None = None
) -> list[tuple[float, float]]:
    """The front of cost and finite error, cheapest first, from trying everything."""
    tried: list[tuple[float, float]] = []
    for each in every_plan(profile, profile.tiers if tiers is None else tiers):
        prediction = predict(profile, each, cost=cost)
        tried.append((prediction.cost, prediction.error))
    kept: list[tuple[float, float]] = []
    for spent, error in sorted(tried):
        if error < (kept[-1][1] if kept else math.inf):
            kept.append((spent, error))
    return kept


def assert_front(found: Sequence[Candidate], expected: Sequence[tuple[float, float]]) -> None:
    assert [each.cost for each in found] == pytest.approx([spent for spent, _ in expected])
    assert [each.error for each in found] == pytest.approx([error for _, error in expected])


def chain(profile: Profile, *moves: tuple[int, Tier, int]) -> Plan:
    """A plan from (index of the time to move to, tier, order)."""
    starts = [0, *(j for j, _, _ in moves)]
    solvers: tuple[Solver, Solver] = ("multistep1", "damped2")
    return Plan(
        "chain",
        tuple(
            Step(profile.times[i], profile.times[j], tier, solvers[order - 1])
            for i, (j, tier, order) in zip(starts, moves, strict=False)
        ),
    )


# What a path is off by.


def test_full_and_carried_errors_add_in_squares_and_share_a_history() -> None:
    profile = lattice(1)
    steps = chain(profile, (1, FULL, 2), (2, CARRIED, 2), (3, HALF_CARRIED, 2), (4, FULL, 1))
    local_error = profile.local_error
    weight, drift = profile.weight, profile.drift
    older = 1 - profile.times[3] / profile.times[2] - weight[1, 2, 3]
    expected = [
        grown(profile, local_error[0, 0, 0, 1], 1),  # no history yet
        grown(profile, math.hypot(local_error[2, 0, 1, 2], weight[0, 1, 2] * drift[2, 0, 1]), 2),
        # Both estimates were carried, from the same full one.
        math.hypot(
            grown(
                profile, math.hypot(local_error[4, 1, 2, 3], weight[1, 2, 3] * drift[4, 0, 2]), 3
            ),
            grown(profile, older * drift[2, 0, 1], 3),
        ),
        grown(profile, local_error[0, 3, 3, 4], 4),
    ]
    found = predict(profile, steps)
    assert found.errors == pytest.approx(expected)
    assert found.error == pytest.approx(np.linalg.norm(expected))
    assert found.shares == pytest.approx(np.square(expected) / found.error**2)
    assert found.cost == 6 + 4 + 2 + 6
    assert predict(profile, steps, cost="macs").cost == 18000
    assert predict(profile, steps, cost="forwards").cost == 2 + 1 + 2 + 2 == steps.forwards


def test_errors_of_a_biased_stretch_add_up_before_they_are_squared() -> None:
    profile = lattice(2, size=6)
    steps = chain(
        profile,
        (1, HALF, 1),
        (2, HALF, 2),
        (3, CONDITIONAL, 2),  # another bias: neither a history nor a sum in common
        (4, FULL, 2),
        (5, HALF, 2),
    )
    local_error = profile.local_error
    expected = [
        grown(profile, local_error[3, 0, 0, 1], 1),
        grown(profile, local_error[3, 0, 1, 2], 2),
        grown(profile, local_error[1, 2, 2, 3], 3),
        grown(profile, local_error[0, 3, 3, 4], 4),
        grown(profile, local_error[3, 4, 4, 5], 5),
    ]
    found = predict(profile, steps)
    assert found.errors == pytest.approx(expected)
    total = np.linalg.norm([expected[0] + expected[1], *expected[2:]])
    assert found.error == pytest.approx(total)
    assert sum(found.shares) == pytest.approx(1)
    assert found.shares[1] == pytest.approx(expected[1] * sum(expected[:2]) / total**2)


def test_what_is_carried_ages_from_the_last_full_estimate() -> None:
    profile = lattice(3)
    steps = chain(profile, (1, FULL, 1), (2, FULL, 1), (3, HALF, 1), (4, CARRIED, 1))
    aged = profile.weight[3, 3, 4] * profile.drift[2, 1, 3]
    expected = grown(profile, math.hypot(profile.local_error[2, 3, 3, 4], aged), 4)
    assert predict(profile, steps).errors[-1] == pytest.approx(expected)


def test_a_full_move_extrapolates_from_an_estimate_that_was_carried() -> None:
    profile = lattice(3)
    steps = chain(profile, (1, FULL, 1), (2, FULL, 1), (3, CARRIED, 1), (4, FULL, 2))
    older = 1 - profile.times[4] / profile.times[3] - profile.weight[2, 3, 4]
    aged = older * profile.drift[2, 1, 2]
    expected = math.hypot(
        grown(profile, profile.local_error[0, 2, 3, 4], 4), grown(profile, aged, 4)
    )
    assert predict(profile, steps).errors[-1] == pytest.approx(expected)


def test_small_errors_are_amplified_and_large_ones_are_not() -> None:
    profile = replace(flat((FULL,), (1,)), saturation=0.5)
    amplified = replace(profile, amplification=np.full_like(profile.amplification, 4))
    for error, factor in ((1e-4, 4), (0.125, 1 + 3 / 2**0.5), (1e3, 1)):
        found = replace(amplified, local_error=error * profile.local_error)
        assert predict(found, chain(found, (3, FULL, 1))).error == pytest.approx(
            factor * error, rel=1e-3
        )


def test_a_plan_without_any_error_has_no_shares() -> None:
    profile = flat((FULL,), (1,))
    profile = replace(profile, amplification=np.zeros_like(profile.amplification))
    found = predict(profile, chain(profile, (1, FULL, 1), (3, FULL, 1)))
    assert (found.error, found.shares) == (0, (0, 0))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((Step(1.0, 0.3), Step(0.3, 0.0)), r"stops at t=0\.3.* 5 times"),
        ((Step(1.0, 0.0, Tier("tiny", pool_factor=8)),), "'tiny'.*full, conditional"),
        ((Step(1.0, 0.0, FULL, "heun"),), "'heun'.*'damped2'"),
    ],
)
def test_only_what_was_measured_is_predicted(steps: tuple[Step, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict(lattice(0), Plan("foreign", steps))


# The search against trying everything.


@pytest.mark.parametrize("seed", range(24))
def test_the_front_is_that_of_all_paths(seed: int) -> None:
    profile = lattice(seed)
    assert_front(front(profile), brute_force(profile))


@pytest.mark.parametrize("seed", range(100, 104))
@pytest.mark.parametrize(
    "tiers",
    [
        (FULL, CONDITIONAL, HALF),
        (FULL, HALF, HALF_CARRIED),
        (FULL, CARRIED, HALF_CARRIED),
    ],
)
def test_the_front_of_longer_paths(seed: int, tiers: tuple[Tier, ...]) -> None:
    profile = lattice(seed, 6, tiers, (5, 2, 1))
    assert_front(front(profile), brute_force(profile))


@pytest.mark.parametrize("cost", ["ms", "macs", "forwards"])
def test_the_front_in_every_unit(cost: Cost) -> None:
    profile = lattice(5)
    assert_front(front(profile, cost=cost), brute_force(profile, cost))


@pytest.mark.parametrize("seed", range(12))
def test_a_limit_cuts_the_front(seed: int) -> None:
    profile = lattice(seed, 5, (FULL, CONDITIONAL, CARRIED, HALF), (3, 1, 2, 2))
    expected = brute_force(profile)
    for limit in (2, 4, 5, 8):
        with_pool_factors = [(spent, error) for spent, error in expected if spent <= limit]
        assert_front(front(profile, limit=limit), with_pool_factors)
        assert_front(front(profile, limit=limit, ticks=limit), with_pool_factors)
    # Ticks are not spread over what nothing can cost.
    assert_front(front(profile, limit=1e6), expected)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("full", [1, 3])
def test_tiers_of_one_price_are_told_apart(seed: int, full: int) -> None:
    profile = lattice(seed, prices=(full, 1, 1, 1, 1))
    assert_front(front(profile), brute_force(profile))


@pytest.mark.parametrize("seed", range(6))
def test_moves_without_a_measurement_are_not_made(seed: int) -> None:
    profile = lattice(seed)
    banned = np.random.default_rng(seed).random(profile.local_error.shape) < 0.4
    profile = replace(
        profile, local_error=np.where(banned, np.float32(np.inf), profile.local_error)
    )
    assert_front(front(profile), brute_force(profile))


@pytest.mark.parametrize("seed", range(6))
def test_the_best_within_a_budget_and_the_cheapest_within_an_error(seed: int) -> None:
    profile = lattice(seed)
    expected = brute_force(profile)
    for (spent, error), (more, _) in pairwise([*expected, (math.inf, 0.0)]):
        for budget in {spent, min(spent + 0.5, (spent + more) / 2)}:
            with_pool_factors = predict(profile, plan(profile, budget=budget))
            assert (with_pool_factors.cost, with_pool_factors.error) == pytest.approx(
                (spent, error)
            )
        for allowed in (error * 1.0001, error * 1.01):
            cheapest = next(cost for cost, least in expected if least <= allowed)
            assert predict(profile, plan(profile, error=allowed)).cost == pytest.approx(cheapest)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ticks", [1, 7, 40, 128])
def test_prices_that_are_no_whole_ticks_never_break_the_budget(seed: int, ticks: int) -> None:
    rng = np.random.default_rng(seed)
    profile = lattice(seed, prices=(*rng.uniform(4, 7, 1), *rng.uniform(0.05, 3, 4)))
    limit = float(rng.uniform(7, 15))
    found = front(profile, limit=limit, ticks=ticks, name="mine")
    assert all(each.cost <= limit * (1 + 1e-12) for each in found)
    assert all(a.cost < b.cost and a.error > b.error for a, b in pairwise(found))
    exact = brute_force(profile)
    for each in found:
        assert each.plan.name == "mine"
        prediction = predict(profile, each.plan)
        assert (each.cost, each.error) == (prediction.cost, prediction.error)
        least = min(error for spent, error in exact if spent <= each.cost + 1e-9)
        assert each.error >= least * (1 - 1e-9)


def test_small_prices_are_rounded_per_stretch_and_a_price_of_thirds_fits() -> None:
    # Ten moves of a tenth fit in 1, though each alone takes a third of it in ticks.
    profile = only_short_moves(flat((FULL, HALF), (1, 0.1), size=11))
    (found,) = front(profile, limit=1, ticks=3)
    assert len(found.plan.steps) == 10
    # 0.1 + 0.1 + 0.1 is more than 0.3, but nobody means that.
    assert len(plan(only_short_moves(flat((FULL,), (0.1,))), budget=0.3).steps) == 3


def test_the_default_limit_is_24_full_moves() -> None:
    profile = flat((FULL,), (2,), size=40)
    profile.local_error[:] *= np.maximum(
        np.arange(40) - np.arange(40)[:, None], 1
    )  # as long as a move
    found = front(profile)
    assert len(found[-1].plan.steps) == 24
    assert found[-1].cost == 48
    # What only more moves can reach is found all the same.
    assert len(plan(profile, error=math.sqrt(39.5)).steps) == 39


def test_an_error_is_met_with_finer_ticks_than_the_default_ones() -> None:
    profile = lattice(4, 20, (FULL, CARRIED, HALF), (10, 0.437, 0.309))
    coarse, saved = front(profile), 0.0
    for worse, better in list(pairwise(coarse))[::4]:
        error = (worse.error + better.error) / 2
        first = next(each for each in coarse if each.error <= error)
        found = predict(profile, plan(profile, error=error))
        assert found.error <= error
        finer = front(profile, limit=first.cost)
        assert found.cost == min(each.cost for each in (first, *finer) if each.error <= error)
        saved += first.cost - found.cost
    assert saved > 0


def test_memory_leaves_tiers_out_and_carried_ones_with_the_full_one() -> None:
    profile = lattice(7)
    for max_bytes, left in [
        (60, TIERS),
        (40, (CONDITIONAL, HALF)),
        (10, (HALF,)),
    ]:
        expected = brute_force(profile, tiers=left)
        assert_front(front(profile, max_bytes=max_bytes), expected)
    profile = replace(profile, peak_bytes=(30, 10, 40, 10, 20))
    expected = brute_force(profile, tiers=(FULL, CONDITIONAL, HALF, HALF_CARRIED))
    assert_front(front(profile, max_bytes=30), expected)
    allowed = expected[-1][1] * 1.001
    assert CARRIED not in {step.tier for step in plan(profile, error=allowed, max_bytes=30).steps}


def test_memory_is_what_guidance_in_turn_is_chosen_for() -> None:
    # Under the ceiling the full tier is left in turn only, and what is carried from it stays.
    tiers = (FULL, SEQUENTIAL_CFG, CARRIED, HALF)
    profile = lattice(7, 5, tiers, (6, 7, 3, 1))
    profile = replace(profile, peak_bytes=(60, 30, 30, 10))
    profile.local_error[1] = profile.local_error[0]
    assert_front(front(profile), brute_force(profile))
    assert SEQUENTIAL_CFG not in {step.tier for each in front(profile) for step in each.plan.steps}
    found = front(profile, max_bytes=30)
    assert_front(found, brute_force(profile, tiers=tiers[1:]))
    assert FULL not in {step.tier for each in found for step in each.plan.steps}
    assert SEQUENTIAL_CFG in {step.tier for step in found[-1].plan.steps}


# Paths that would pay if the rules were other ones.


def test_a_biased_move_breaks_the_history_of_faithful_ones() -> None:
    # Order 2 is nearly free, and order 1 is off by 1, or by 3 for half moves. If history crossed,
    # [full, half, full] would be off by 1 only; it is by sqrt(1 + 9 + 1).
    profile = only_short_moves(flat((FULL, HALF), (2, 1)))
    p, i = np.meshgrid(np.arange(4), np.arange(4), indexing="ij")
    profile.local_error[:, p < i] *= np.float32(1e-6)
    profile.local_error[1] *= 3
    found = front(profile)
    assert_front(found, brute_force(profile))
    assert [each.cost for each in found] == [3, 6]
    assert [each.error for each in found] == pytest.approx([3, 1], rel=1e-4)


def test_history_does_not_reach_back_over_a_move() -> None:
    # Extrapolating from the estimate at 0 is free at 2, but the move before begins at 1.
    profile = only_short_moves(flat((FULL, HALF), (1, 1)))
    profile.local_error[0, 0, 2, 3] = 0
    (best,) = front(profile)
    assert best.error == pytest.approx(math.sqrt(3))


def test_a_stretch_is_not_split_to_add_in_squares() -> None:
    # Four moves of 0.1 are off by 4 * 0.1 in one stretch; two stretches of 2 would be by 0.28.
    profile = only_short_moves(flat((FULL, HALF), (9, 1), size=5))
    profile.local_error[1] *= np.float32(0.1)
    (best,) = front(profile, limit=4)
    assert best.error == pytest.approx(0.4)


def test_a_full_move_that_splits_a_stretch_can_pay() -> None:
    # One stretch of 4: 0.4. With a full move in between: sqrt(0.2^2 + 0.1^2 + 0.1^2).
    profile = only_short_moves(flat((FULL, HALF), (2, 1), size=5))
    profile.local_error[:] *= np.float32(0.1)
    found = front(profile, limit=5)
    assert [each.cost for each in found] == [4, 5]
    assert [step.tier for step in found[1].plan.steps].count(FULL) == 1
    assert found[1].plan.steps[0].tier == found[1].plan.steps[-1].tier == HALF
    assert found[1].error == pytest.approx(math.sqrt(0.06))


def test_a_later_full_move_can_pay_for_what_is_carried_afterwards() -> None:
    # The same node, spending and history: only where the last full estimate was made differs.
    profile = only_short_moves(flat((FULL, CARRIED), (3, 1), size=5))
    i = np.arange(5)
    profile.local_error[:] *= np.float32(0.1)
    profile.drift[1] = np.where(i[:, None] < i, np.maximum(i - i[:, None] - 1, 0), np.inf)
    found = front(profile)
    assert_front(found, brute_force(profile))
    tiers = [step.tier for step in next(each for each in found if each.cost == 8).plan.steps]
    assert tiers == [FULL, CARRIED, FULL, CARRIED]


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_carried_before_a_full_move(seed: int) -> None:
    # Carried moves are free of error and nearly free, everything else is dear.
    profile = lattice(seed, 6, (FULL, CARRIED, HALF), (5, 1, 2))
    profile.local_error[1] *= np.float32(1e-3)
    for each in front(profile):
        kinds = [step.tier for step in each.plan.steps]
        assert CARRIED not in kinds or kinds.index(FULL) < kinds.index(CARRIED)


# Requests that cannot be met.


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf])
def test_limits_are_positive_numbers(limit: float) -> None:
    with pytest.raises(InputError, match=f"limit of {limit} ms"):
        front(lattice(0), limit=limit)
    with pytest.raises(InputError, match=f"limit of {limit} ms"):
        plan(lattice(0), budget=limit)


def test_a_budget_below_every_step_names_the_cheapest() -> None:
    with pytest.raises(InputError, match=r"fits in 0.5 ms.*'half', takes 1 ms. Raise the budget"):
        plan(lattice(0), budget=0.5)
    with pytest.raises(InputError, match=r"fits in 4 ms.*'full', takes 6 ms"):
        front(lattice(0, tiers=(FULL, CARRIED), prices=(6, 1)), limit=4)
    with pytest.raises(InputError, match=r"fits in 1 forwards.*'half', takes 2 forwards"):
        front(lattice(0, tiers=(FULL, HALF), prices=(6, 1)), limit=1, cost="forwards", max_bytes=10)


def test_a_profile_without_a_way_through_says_so() -> None:
    profile = lattice(0)
    profile.local_error[..., 4] = np.inf
    with pytest.raises(InputError, match=r"finite error.*'half' takes 1 ms.*measure"):
        front(profile)


def test_memory_below_every_tier_names_the_smallest() -> None:
    with pytest.raises(InputError, match=r"in 9 bytes.*'half', needs 10. Raise max_bytes"):
        front(lattice(0), max_bytes=9)
    with pytest.raises(InputError, match=r"in 15 bytes.*'full', needs 60"):
        plan(lattice(0, tiers=(FULL, CARRIED), prices=(6, 1)), error=1, max_bytes=15)


def test_an_error_below_every_plan_states_the_best() -> None:
    profile = lattice(0)
    best = brute_force(profile)[-1][1]
    with pytest.raises(InputError, match=f"error of 1e-09: the best reaches {best:g}"):
        plan(profile, error=1e-9)


@pytest.mark.parametrize("error", [0.0, -1.0, math.nan, math.inf])
def test_errors_to_stay_within_are_positive_numbers(error: float) -> None:
    with pytest.raises(InputError, match=f"error of {error}"):
        plan(lattice(0), error=error)


def test_a_budget_or_an_error_but_not_both() -> None:
    with pytest.raises(InputError, match="budget=None and error=None"):
        plan(lattice(0))
    with pytest.raises(InputError, match=r"budget=3 and error=0\.1"):
        plan(lattice(0), budget=3, error=0.1)


def test_ticks_and_prices_must_count() -> None:
    with pytest.raises(InputError, match="0 ticks"):
        front(lattice(0), ticks=0)
    with pytest.raises(InputError, match=r"'half' costs 0 MACs.*another cost"):
        front(replace(lattice(0), macs=(6, 3, 4, 0, 2)), cost="macs")


def test_errors_too_large_to_square_are_infinite() -> None:
    profile = lattice(0)
    profile.local_error[1:] *= np.float32(1e30)
    assert {step.tier for each in front(profile) for step in each.plan.steps} == {FULL}


def test_planning_does_not_load_torch() -> None:
    code = "import sys, asymflow.planning.planner; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_pass_is_one_where_nothing_is_guided() -> None:
    """So a budget in passes buys twice the estimates there."""
    guided = lattice(0, tiers=(FULL,), prices=(1,))
    plain = replace(guided, made={**guided.made, "guidance_scale": "1"})
    for each, passes in ((guided, 2), (plain, 1)):
        found = plan(each, budget=4, cost="forwards")
        assert predict(each, found, cost="forwards").cost == passes * len(found.steps) <= 4
    assert len(plan(plain, budget=4, cost="forwards").steps) > 2


@pytest.mark.parametrize(("scale", "passes"), [("1", 1), ("3", 2)])
def test_plans_count_the_passes_of_what_they_were_measured_on(scale: str, passes: int) -> None:
    steps = (Step(1.0, 0.5, FULL, "heun"), Step(0.5, 0.0))
    measured = Evidence({"guidance_scale": scale}, (1.0, 1.0), 1.0, (), None,
                        Interval(0, 0, 0), None, 4)  # fmt: skip
    found = Plan("two", steps, measured)
    assert found.forwards == 3 * passes
    first, _, row, *_ = str(found).splitlines()
    assert first == f"plan two: 2 steps, {3 * passes} NFE"
    assert row.split()[5] == ("yes" if passes == 2 else "no")
    assert row.split()[7] == str(2 * passes)
    assert Plan("two", steps).forwards == 6
