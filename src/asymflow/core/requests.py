"""What an adapter and a plan can serve, checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from asymflow.core import tiles
from asymflow.core.adapter import Adapter, remembers, splits
from asymflow.core.card import Card
from asymflow.core.checks import each_instance, instance
from asymflow.core.errors import InputError
from asymflow.core.types import Plan, Request, Step, Tier


def check_types(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> None:
    """Raise `InputError` if an argument has the wrong type, perhaps because of their order."""
    order = "The order is adapter, plan, requests."
    instance("adapter", adapter, Adapter, f"Pass what asymflow.load() returns. {order}")
    instance("plan", plan, Plan, f"Make one with asymflow.plan_of, or load one. {order}")
    each_instance("requests", requests, Request, f"Pass [asymflow.Request(...), ...]. {order}")


def check(adapter: Adapter, request: Request) -> None:
    """Raise `InputError` when a request cannot be served by this adapter."""
    adapter.check(request)
    if not 0 <= request.seed < 2**63:
        raise InputError(f"Seed {request.seed} is out of range. Choose one from 0 to 2**63 - 1.")
    if not math.isfinite(request.guidance_scale):
        raise InputError(f"Guidance scale {request.guidance_scale} must be a finite number.")
    if not 0 < request.strength <= 1:
        raise InputError(
            f"Strength {request.strength} is not in (0, 1]. 1 repaints everything; smaller values "
            "stay closer to the image."
        )
    if request.image is None and (request.mask is not None or request.strength != 1):
        raise InputError("A mask or a strength below 1 needs an image to start from. Give `image`.")
    for name, array, shape in (
        ("image", request.image, (*request.size, adapter.channels)),
        ("mask", request.mask, request.size),
    ):
        if array is None:
            continue
        if array.shape != shape:
            raise InputError(
                f"The {name} has shape {array.shape}, but this request needs {shape}. "
                f"Convert the {name}, or ask for its size."
            )
        if not ((array >= 0) & (array <= 1)).all():
            raise InputError(
                f"The {name} has values outside [0, 1], or not a number. Divide bytes by 255."
            )


def refuse_others(request: Request, taken: Collection[str], title: str) -> None:
    """Check that a model is asked with inputs that it takes: others would do nothing.

    None and an empty text ask for nothing, and are fine for every model.

    Args:
        request: to a model.
        taken: names of its inputs.
        title: of the model, for the message.

    Raises:
        InputError: there is another input.
    """
    for name, value in request.inputs.items():
        if name in taken or value is None or (isinstance(value, str) and not value):
            continue
        shown = f"{value!r:.40}" if isinstance(value, str | int | float) else type(value).__name__
        known = " and ".join(map(repr, taken)) or "nothing"
        raise InputError(
            f"{name}={shown} is not possible: {title} is asked with {known}. Leave {name!r} out."
        )


def check_plan(adapter: Adapter, plan: Plan, size: tuple[int, int]) -> None:
    """Raise `InputError` when the model has no tier that the plan uses, at (height, width)."""
    possible = (1, *adapter.pool_factors(size))
    for step in plan.steps:
        if step.tier.pool_factor not in possible:
            height, width = size
            raise InputError(
                f"The plan {plan.name!r} asks for tier {step.tier.name!r}, a picture pooled by "
                f"{step.tier.pool_factor}, and this model cannot do that at {width}x{height}. Use "
                "a plan made for this size, or the default one."
            )
    for step in plan.steps:
        if (reason := tiles_refused(adapter, step, size)) is not None:
            raise InputError(
                f"The plan {plan.name!r} asks for tier {step.tier.name!r} at t={step.t:g}, tiles "
                f"of {step.tier.tiles} pixels, and {reason}. Use a plan made for this model and "
                "size, or the default one."
            )
        if (reason := late_refused(adapter, step.tier)) is not None:
            raise InputError(
                f"The plan {plan.name!r} asks for tier {step.tier.name!r} at t={step.t:g}, the "
                f"fast part of the network only, and {reason}. Use a plan made for this model, or "
                "the default one."
            )


def late_refused(adapter: Adapter, tier: Tier) -> str | None:
    """Why a late tier is not possible; None if it is, and for other tiers."""
    return "this model's is known as a whole" if tier.late and not splits(adapter) else None


def tiles_refused(adapter: Adapter, step: Step, size: tuple[int, int]) -> str | None:
    """Why the tiles of a step are not possible for pictures of (height, width); None if they are.

    A step without tiles, and a picture that fits into one, are.
    """
    side = step.tier.tiles
    if side is None or tiles.fits(size, side):
        return None
    card: Card | None = getattr(adapter, "card", None)
    if card is None or card.tiles is None:
        return "this model is not declared to estimate pictures by tiles"
    if side != card.tiles.side:
        return f"this model is shown tiles of {card.tiles.side} pixels only"
    if step.t > card.tiles.until:
        return f"this model is shown tiles up to t={card.tiles.until:g} only"
    if remembers(adapter):
        return "this model reuses parts of its last answer, which is that to another tile"
    height, width = size
    factor = tiles.whole_factor(size, side)
    if factor is None or not card.sizes.possible((height // factor, width // factor)):
        return f"{width}x{height} pixels cannot be pooled to a picture that this model can make"
    if not card.sizes.possible(tiles.shape(size, side)):
        return f"{width}x{height} pixels have no such tiles that this model can make"
    return None
