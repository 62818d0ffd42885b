"""Whether a plan may run on a model: at one of three levels.

exact        the same weights and settings, in whatever precision: what was measured holds
compatible   other weights or settings of the same kind: it runs, and what was measured may not hold
other        another kind of model: refused
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

from asymflow.core.binding import SHORTEST_HASH, Binding, ModelDescription, Requirements
from asymflow.core.types import Plan

Level = Literal["exact", "compatible", "other"]


@dataclass(frozen=True, slots=True)
class Match:
    """The level of a plan for a model.

    Attributes:
        level: of the plan.
        line: why, in one sentence; empty where there is nothing to say.
    """

    level: Level
    line: str = ""


def binding_of(plan: Plan) -> Binding | None:
    """What a plan is bound to; in files of version 0.1, by the name of the adapter in its evidence.

    None for a plan that was measured on no model.
    """
    if plan.binding is not None or plan.evidence is None:
        return plan.binding
    family, _, weights = plan.evidence.made.get("adapter", "").partition(":")
    return Binding(family, weights or None) if family else None


def match(plan: Plan, model: ModelDescription, size: tuple[int, int] | None = None) -> Match:
    """The level of a plan for a model, and for pictures of (height, width) if given."""
    bound = binding_of(plan)
    if bound is not None and bound.family != model.family:
        return Match("other", f"was made for {bound}, and this model is {model}")
    if plan.requires is not None:
        missing = _missing(plan.requires, model, size)
        if missing is not None:
            return Match("other", missing)
    if bound is None:
        return Match("compatible")
    if bound.weights is None:
        return Match("compatible", f"was made for all models of the kind {bound.family!r}")
    measured = "made for" if plan.evidence is None else "measured on"
    if not same_weights(bound, model):
        return Match("compatible", f"was {measured} {bound}, and this model is {model}")
    changed = _changed(bound, model)
    if changed is not None:
        return Match("compatible", f"was {measured} this model with {changed}")
    return Match("exact")


def bound(plan: Plan, model: ModelDescription) -> Plan:
    """The plan, measured on a model: bound to its weights, with the needs that it has of others."""
    evidence = plan.evidence and replace(plan.evidence, weights=model.weights)
    size = None if plan.requires is None else plan.requires.size
    requires = replace(model.requirements, size=size)
    return replace(plan, evidence=evidence, binding=model.binding, requires=requires)


def same_weights(bound: Binding, model: ModelDescription) -> bool:
    """Whether a plan was measured on the weights of a model, in whatever precision.

    The families are not compared.
    """
    weights = bound.weights or ""
    same = model.weights.startswith(weights) or weights.startswith(model.weights)
    if len(weights) >= SHORTEST_HASH and same:
        return True
    one, other = bound.fingerprint, model.fingerprint
    return one is not None and other is not None and one.matches(other)


def _changed(bound: Binding, model: ModelDescription) -> str | None:
    """The first setting that is another one than when a plan was measured, in words."""
    if bound.settings is None:
        return None
    for name in sorted({*bound.settings, *model.settings}):
        was, now = (each.get(name, "none") for each in (bound.settings, model.settings))
        if was != now:
            return f"{name} {was}, and it is {now} here"
    return None


def _missing(
    requires: Requirements, model: ModelDescription, size: tuple[int, int] | None
) -> str | None:
    """The first thing that a plan needs and does not get, as a sentence about the plan."""
    for each in fields(requires):
        wanted = getattr(requires, each.name)
        if each.name in ("size", "extra") or wanted is None:
            continue
        found = getattr(model, each.name)
        same = (
            math.isclose(wanted, found, rel_tol=1e-6)
            if isinstance(wanted, float)
            else wanted == found
        )
        if not same:
            return f"needs {each.name} = {wanted!r}, and this model ({model}) has {found!r}"
    if size is not None and requires.size is not None and size != requires.size:
        (height, width), (h, w) = requires.size, size
        return f"is for pictures of {width}x{height}, and these are {w}x{h}"
    return None
