"""Transformations of plans: another start, size, resolution or memory use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from asymflow.core.checks import positive
from asymflow.core.errors import InputError
from asymflow.core.types import (
    CONDITIONAL,
    FULL,
    SEQUENTIAL_CFG,
    Plan,
    Step,
    Tier,
    part_name,
    whole_tier,
)


def bare(plan: Plan) -> Plan:
    """What a plan does, without what is known of it: evidence, binding, requirements."""
    steps = tuple(replace(step, extra={}) if step.extra else step for step in plan.steps)
    return Plan(plan.name, steps)


def truncated(plan: Plan, start: float) -> Plan:
    """The part of a plan from t = `start` exactly; later nodes stay.

    If less than half of a step would be left, it is merged with the next one: a tiny first step
    costs as much as any other, and a multistep solver would extrapolate far from two estimates
    at almost the same time.

    Explicit weights hold on the whole path that they were made for, and give way to solvers.
    """
    if not 0 < start <= 1:
        raise InputError(f"A plan cannot begin at t={start}. Choose a time in (0, 1].")
    if start >= plan.steps[0].t:
        return plan
    steps = [step for step in plan.steps if step.s < start]
    if len(steps) > 1 and start - steps[0].s < (steps[0].t - steps[0].s) / 2:
        del steps[0]
    first = plan.steps.index(steps[0])
    if steps[0].reuse:  # what it reused was cut off
        asking = next(step for step in reversed(plan.steps[:first]) if not step.reuse)
        steps[0] = replace(asking, s=steps[0].s, weights=None)
    steps = [replace(step, weights=None) for step in steps]
    steps[0] = replace(steps[0], t=start)
    steps = _asked_anew(steps)
    # The full estimate to carry from may have been cut off: then the first carried step is made
    # full.
    first = next((i for i, step in enumerate(steps) if step.tier.full or step.tier.cached), 0)
    if steps[first].tier.cached:
        full = next(step.tier for step in plan.steps if step.tier.full)
        steps[first] = replace(steps[first], tier=full)
    return Plan(plan.name, tuple(steps))


def _asked_anew(steps: Sequence[Step]) -> list[Step]:
    """Steps of a plan's end; late ones before any that asks the whole network do so themselves."""
    found: list[Step] = []
    asked = False
    for step in steps:
        if step.tier.late and not asked:
            step = replace(step, tier=whole_tier(step.tier))
        asked = asked or (step.tier.whole and not step.reuse)
        found.append(step)
    return found


def rescaled(plan: Plan, factor: float) -> Plan:
    """The plan adapted to pictures of `factor` times the side.

    t / (1 - t) is multiplied by the factor, as in `shifted`, so that every step has the same
    visible amount of noise. Evidence is valid for the original size only, and is dropped; so are
    explicit weights, which belong to the original times.
    """
    positive("factor", factor)
    if factor == 1:
        return plan
    nodes = [factor * t / (factor * t + (1 - t)) for t in plan.times]  # exactly 1 at 1
    steps = (step.moved(t, s) for step, (t, s) in zip(plan.steps, pairwise(nodes), strict=True))
    return Plan(plan.name, tuple(steps))


def at_larger_size(plan: Plan, factor: int) -> Plan:
    """The plan for pictures of `factor` times the side, with the network at the original size.

    A pooled state of a large picture is the state of a small one (`core.flow.pool`), at times
    that are moved as in `rescaled`. So the network gets the inputs that it has in the plan, and its
    estimates are enlarged: the pooled picture follows the path of the plan, exactly for order 1.
    `factor` is a power of 2.

    Raises:
        InputError: `factor` is not a power of 2, or the plan carries from full estimates, which an
            enlarged plan does not have, or it has tiles.
    """
    if factor < 1 or factor & (factor - 1):
        raise InputError(f"Plans cannot be enlarged {factor} times. Choose 1, 2, 4 or 8.")
    if factor == 1:
        return plan
    steps: list[Step] = []
    for step in rescaled(plan, factor).steps:
        if step.tier.tiles is not None:
            raise InputError(
                f"Plan {plan.name!r} has tiles of {step.tier.tiles} pixels ({step.tier.name!r}), "
                "and an enlarged plan asks nothing at full size. Give a plan without tiles."
            )
        if step.tier.cached:
            raise InputError(
                f"Plan {plan.name!r} carries from full estimates ({step.tier.name!r}), which are "
                "not made when it is enlarged. Give a plan without tiers that end in +."
            )
        steps.append(replace(step, tier=_smaller(step.tier, factor * step.tier.pool_factor)))
    return Plan(plan.name, tuple(steps))


def with_pool_factors(plan: Plan, pool_factors: Sequence[int]) -> Plan:
    """The plan for a model that can be pooled by the factors in `pool_factors` only.

    Steps with another factor are made at full size.
    """
    possible = (1, *pool_factors)
    if all(step.tier.pool_factor in possible for step in plan.steps):
        return plan

    def large(tier: Tier) -> Tier:
        return CONDITIONAL if not tier.guided else SEQUENTIAL_CFG if tier.sequential_cfg else FULL

    steps = (
        step if step.tier.pool_factor in possible else replace(step, tier=large(step.tier))
        for step in plan.steps
    )
    return Plan(plan.name, tuple(steps))


def pooled(plan: Plan, pool_factor: int) -> Plan:
    """The plan with the network at 1/`pool_factor` of the side, a power of 2.

    For pictures larger than those that a model was trained on: the network runs at a size that it
    was trained for, with a fraction of time and memory, and its estimates are enlarged.

    Raises:
        InputError: `pool_factor` is not a power of 2.
    """
    if pool_factor < 1 or pool_factor & (pool_factor - 1):
        raise InputError(f"Pictures cannot be asked for at 1/{pool_factor}. Choose 1, 2, 4 or 8.")
    if pool_factor == 1:
        return plan
    steps = (replace(step, tier=_smaller(step.tier, pool_factor)) for step in plan.steps)
    return Plan(plan.name, tuple(steps))


def at_lower_resolution(plan: Plan, pool_factor: int) -> Plan:
    """The plan with the network at 1/`pool_factor` of the side, in the last step at twice that.

    Raises:
        InputError: `pool_factor` is not a power of 2.
    """
    if pool_factor == 1:
        return plan
    last = replace(plan.steps[-1], tier=_smaller(plan.steps[-1].tier, pool_factor // 2))
    return Plan(plan.name, (*pooled(plan, pool_factor).steps[:-1], last))


def _smaller(tier: Tier, pool_factor: int) -> Tier:
    """The tier at 1/`pool_factor` of the side, of the whole network and without carrying."""
    name = part_name(pool_factor)
    if not tier.guided:
        return CONDITIONAL if pool_factor == 1 else Tier(f"{name} conditional", False, pool_factor)
    return Tier(
        f"{name} in turn" if tier.sequential_cfg else name,
        pool_factor=pool_factor,
        sequential_cfg=tier.sequential_cfg,
    )


def with_sequential_guidance(plan: Plan) -> Plan:
    """The plan with sequential guidance: the same pictures, in about half of the memory.

    Late steps stay as they are: the fast part of a network takes little memory.
    """
    steps = (
        replace(
            step, tier=replace(step.tier, name=f"{step.tier.name} in turn", sequential_cfg=True)
        )
        if step.tier.guided and not (step.tier.sequential_cfg or step.tier.late)
        else step
        for step in plan.steps
    )
    return Plan(plan.name, tuple(steps))
