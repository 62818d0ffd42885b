"""What a card promises (`asymflow.core.card`): that the adapter behaves as it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from asymflow.core import engine
from asymflow.core.adapter import Described, splits
from asymflow.core.card import Asks, Card, Carded, Tiles
from asymflow.core.errors import InputError
from asymflow.core.requests import check_plan
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import (
    CONDITIONAL,
    FULL,
    LATE,
    Plan,
    Request,
    Step,
    Tier,
    part_name,
    tiled_tiers,
)
from asymflow.models.contract.answers import not_refused, refusal
from asymflow.models.contract.report import DoesNotApply, Property
from asymflow.models.contract.subject import Subject

BEGINNING = 0.9
"""Plans begin at this time or above, in noise."""


def card(subject: Subject) -> Iterator[str]:
    """The card agrees with the adapter and with itself."""
    found, adapter = _carded(subject).card, subject.adapter
    if found != _carded(subject).card:
        yield "The card differs from call to call. Derive it from the model."
    if found.asks not in get_args(Asks):
        yield f"asks is {found.asks!r}. Choose one of {', '.join(map(repr, get_args(Asks)))}."
    if found.channels != adapter.channels:
        yield f"The card has {found.channels} channels, and the adapter {adapter.channels}."
    if (found.asks == "class") != bool(found.classes):
        yield (
            f"It asks for {found.asks!r} and has {len(found.classes)} classes. Name the classes "
            "of a model that asks for one, by their numbers if they have no names."
        )
    if not found.calibration:
        yield "It has no calibration inputs. Give some that the model is measured with."
    low, high = found.guidance_interval
    if not 0 <= low <= high <= 1:
        yield f"guidance_interval {(low, high)} is not a part of [0, 1]. Give (low, high) in t."
    if found.guided != subject.guided:
        yield (
            f"guided is {found.guided}, and check "
            f"{'accepts' if subject.guided else 'refuses'} guidance scale {subject.scale:g}. "
            "Correct the one or the other."
        )
    if isinstance(adapter, Described) and adapter.description.alpha != found.alpha:
        yield (
            f"description.alpha is {adapter.description.alpha}, and pictures of "
            f"{found.channels} channels have {'' if found.alpha else 'no '}transparency. Correct "
            "the description."
        )


def sizes(subject: Subject) -> Iterator[str]:
    """Sizes that the card calls possible are accepted, and others refused."""
    card = _carded(subject).card
    known, grain = card.sizes, card.sizes.multiple
    low, high, (height, width) = known.smallest, known.largest, known.native
    for size in dict.fromkeys((known.native, *known.offered())):
        if not known.possible(size):
            yield f"The card offers size {size}, and says that it is not possible. Correct it."
    possible = {known.native, *known.offered(), (low, low), (high, high)}
    beyond = {(low - grain, low), (low, low - grain), (high + grain, high), (high, high + grain)}
    beyond |= {(height + 1, width), (height, width + 1), (height + grain, width)}
    for size in sorted(possible | beyond):
        request = replace(subject.request(0), size=size)
        if not known.possible(size):
            yield from not_refused(subject, request, "Refuse it in check, or widen card.sizes.")
        elif (told := refusal(subject, request)) is not None:
            yield f"Size {size} is possible by the card, and check refuses it: {told}."


def inputs(subject: Subject) -> Iterator[str]:
    """Inputs that the card tells of are accepted, and others refused."""
    card = _carded(subject).card
    given = _inputs(card)
    takes: dict[str, tuple[bool, Any]] = {
        "prompt": (card.asks == "prompt", "a fox"),
        "label": (card.asks == "class", 0),
        "negative": (card.negative, "blurred"),
        "style": (bool(card.styles), card.styles[0].id if card.styles else "any"),
        "reference": (card.references, _picture(subject, 1)),
    }
    for name, (taken, value) in takes.items():
        request = _ask(subject, {**given, name: value})
        told = refusal(subject, request)
        if taken and told is not None:
            yield f"The card says that it takes {name!r}, and {value!r:.20} is refused: {told}."
        elif not taken:
            advice = f"Say on the card that it takes {name!r}, or refuse it: it would do nothing."
            yield from not_refused(subject, request, advice)
    if card.asks == "class":
        last = len(card.classes) - 1
        if (told := refusal(subject, _ask(subject, {"label": last}))) is not None:
            yield f"The card has classes 0 to {last}, and {last} is refused: {told}."
        # One more number may stand for no class.
        for label in (-1, len(card.classes) + 1, "none of them"):
            request = _ask(subject, {"label": label})
            yield from not_refused(subject, request, f"Classes are 0 to {last}.")
    for style in card.styles:
        if (told := refusal(subject, _ask(subject, {**given, "style": style.id}))) is not None:
            yield f"Style {style.id!r} is on the card, and refused: {told}."
    if card.styles:
        request = _ask(subject, {**given, "style": "none of them"})
        yield from not_refused(subject, request, "Styles are those of the card.")


def calibration(subject: Subject) -> Iterator[str]:
    """The model can be measured with the calibration inputs of the card."""
    for given in _carded(subject).card.calibration:
        request = _ask(subject, given)
        if (told := refusal(subject, request)) is not None:
            yield f"Calibration inputs {dict(given)} are refused: {told}. Give others."
            continue
        cond, _ = subject.adapter.encode([request])
        if any(len(value) != 1 for value in cond.values()):
            yield f"Calibration inputs {dict(given)} have a context of other than 1 row."


def images(subject: Subject) -> Iterator[str]:
    """Pictures begin with another one, or are repainted in part, if the card says so."""
    card = _carded(subject).card
    picture = _picture(subject, 2)
    mask = np.zeros(subject.size, np.float32)
    mask[: subject.size[0] // 2] = 1
    first = subject.request(0)
    wanted = (
        ("image", card.image, replace(first, image=picture, strength=0.6)),
        ("inpaint", card.inpaint, replace(first, image=picture, mask=mask)),
    )
    for name, possible, request in wanted:
        if not possible:
            yield from not_refused(subject, request, f"Say {name}=True on the card, or refuse it.")
            continue
        if (told := refusal(subject, request)) is not None:
            yield f"{name} is True on the card, and such a request is refused: {told}."
            continue
        yield from _made(subject, plan_of(uniform(3)), request, f"With {name}")


def plans(subject: Subject) -> Iterator[str]:
    """The plans that the model brings lead from noise to a picture, at every size it offers."""
    adapter = _carded(subject)
    for name in ("default_plan", "own_plan"):
        for size in adapter.card.sizes.offered():
            plan: Plan = getattr(adapter, name)(size)
            if plan.steps[0].t < BEGINNING:
                yield (
                    f"{name}({size}) begins at t = {plan.steps[0].t:g}, where noise is missing. "
                    f"Begin at 1, or where the model's noise begins, above {BEGINNING:g}."
                )
            try:
                check_plan(subject.adapter, plan, size)
            except InputError as error:
                yield f"{name}({size}) cannot run: {error}"
                continue
            if size == adapter.card.sizes.native:
                request = replace(subject.request(0), size=size)
                yield from _made(subject, plan, request, f"{name}({size})")


def tiers(subject: Subject) -> Iterator[str]:
    """The cheaper estimates on the card can be made, and all that can be are on it."""
    card = _carded(subject).card
    factors = subject.adapter.pool_factors(card.sizes.native)
    possible = {
        part_name(factor): Tier(part_name(factor), pool_factor=factor) for factor in factors
    }
    if subject.guided:
        possible["conditional"] = CONDITIONAL
    if splits(subject.adapter):
        possible[LATE.name] = LATE
    for name in card.tiers:
        if name not in possible:
            yield (
                f"Tier {name!r} is on the card, and not possible: guidance is "
                f"{'accepted' if subject.guided else 'refused'}, and pool_factors at "
                f"{card.sizes.native} are {factors}. Drop it, or make it possible."
            )
            continue
        plan = Plan(name, (Step(0.98, 0.5, FULL), Step(0.5, 0.0, possible[name])))
        request = replace(subject.request(0), size=card.sizes.native)
        yield from _made(subject, plan, request, f"Tier {name!r}")
    for name in sorted(possible.keys() - {*card.tiers}):
        yield f"Tier {name!r} is possible, and not on the card. List it, or rule it out."
    if card.tiles is not None:
        yield from _tiled(subject, card, card.tiles)


def _tiled(subject: Subject, card: Card, tiles: Tiles) -> Iterator[str]:
    """What is wrong with tiles, in a picture of twice their side."""
    size = (2 * tiles.side, 2 * tiles.side)
    if not card.sizes.possible(size):
        return  # all pictures fit into a tile
    t = tiles.until / 2
    request = replace(subject.request(0), size=size)
    tier = tiled_tiers(tiles.side)[-1]
    plan = Plan("tiled", (Step(0.98, t, FULL), Step(t, 0.0, tier)))
    try:
        check_plan(subject.adapter, plan, size)
    except InputError as error:
        yield f"The card has tiles, and a plan with them cannot run: {error}"
        return
    yield from _made(subject, plan, request, f"With tiles of {tiles.side} pixels")


def _carded(subject: Subject) -> Carded:
    if not isinstance(subject.adapter, Carded):
        raise DoesNotApply("it has no card")
    return subject.adapter


def _ask(subject: Subject, inputs: Mapping[str, Any]) -> Request:
    return Request(inputs, _carded(subject).card.sizes.native)


def _inputs(card: Card) -> Mapping[str, Any]:
    """The least that the model is asked with."""
    return {"prompt": {"prompt": "a fox"}, "class": {"label": 0}}.get(card.asks, {})


def _picture(subject: Subject, seed: int) -> np.ndarray:
    """A picture whose last channel can be the alpha of the others."""
    shape = (*subject.size, subject.adapter.channels)
    return np.sort(np.random.default_rng(seed).random(shape, dtype=np.float32), -1)


def _made(subject: Subject, plan: Plan, request: Request, what: str) -> Iterator[str]:
    """What is wrong with the picture of a request."""
    [result] = engine.run(subject.adapter, plan, [request])
    if not np.isfinite(result.picture).all():
        yield f"{what}, the picture is not finite. Look at denoise at the times of the plan."


PROPERTIES: tuple[Property, ...] = (card, sizes, inputs, calibration, images, plans, tiers)
