"""Captions in the form of user prompts."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import numpy as np

from asymflow.models.embedded.styles import STYLES
from asymflow.models.embedded.words import Noun, noun, nouns, with_article
from asymflow.training.data.manifest import Entry

T = TypeVar("T")

LABEL_SHARE = 0.45  # probability of the CLDR name among several names
COLOUR_SHARE = 0.12  # probability of naming the dominant colour
TRANSPARENT_SHARE = 0.04  # probability of mentioning a transparent background

# {a}: the noun with its article; {n}: without; {s}: a name of the style; {c}: the caption so far;
# {b}: a background. Repetitions are weights.
_PLAIN = ("{n}",) * 9 + ("{a}",) * 9 + (
    "{n} emoji", "{n} emoji", "{n} icon", "{n} sticker", "picture of {a}", "a picture of {a}",
    "an image of {a}", "emoji of {a}", "an emoji of {a}", "icon of {a}", "sticker of {a}",
    "a sticker of {a}", "drawing of {a}", "illustration of {a}", "clip art of {a}",
)  # fmt: skip
_STYLED = (
    "{a}, {s} style", "{a}, {s} style", "{a}, {s} style", "{n}, {s} style", "{n}, {s} style",
    "{a} in {s} style", "{n} in {s} style", "{a} in the {s} style", "{s} {n}", "{s} {n}",
    "{s} {n}", "{s} style {n}", "{a}, {s}", "{n}, {s}", "{s} emoji of {a}", "{s} {n} emoji",
    "{n} {s} emoji", "{n} emoji, {s} style", "{s} icon of {a}", "{s} sticker of {a}",
    "{s} drawing of {a}", "{s} picture of {a}",
)  # fmt: skip
_STYLED_3D = (
    "3d render of {a}", "3d render of {a}", "{a} in 3d", "{n} 3d", "a 3d {n}", "3d {n}",
    "a glossy 3d {n}", "{a}, 3d render",
)  # fmt: skip
_STYLED_FLAT = (
    "a flat {n}", "flat {n}", "flat vector {n}", "flat icon of {a}", "{a}, flat vector",
    "flat illustration of {a}",
)  # fmt: skip
_SCENE_STYLED = (
    "{c}, {s} style",
    "{c}, {s} style",
    "{c} in {s} style",
    "{c}, {s}",
    "{s} style, {c}",
)
_BACKGROUND = (
    "{c} on {b}", "{c} on {b}", "{c} on {b}", "{c} on {b}", "{c} on {ab} background",
    "{c} on {ab} background", "{c}, {b} background", "{c}, {b} background",
    "{c} with {ab} background", "{c} with {b} background", "{c} against {b}",
)  # fmt: skip
_GRADIENT = ("{c} on {ab}", "{c} on {ab}", "{c}, {b} background", "{c} with {ab} background")
_TRANSPARENT = (
    "{c}, transparent background", "{c} on a transparent background", "{c}, no background",
    "{c} with transparent background",
)  # fmt: skip


def caption(
    entry: Entry,
    rng: np.random.Generator,
    *,
    style: bool,
    background: str | None,
    colour: str | None = None,
    insist: bool = False,
) -> str:
    """A caption of one picture.

    Args:
        entry: the picture.
        rng: source of randomness; always advanced by the same amount.
        style: whether to name the style.
        background: noun phrase without article ("light blue", "red to white gradient"), or None if
            transparent.
        colour: the dominant basic colour, mentioned with `COLOUR_SHARE`.
        insist: always mention the colour; requires `can_say_colour`.
    """
    u: list[float] = rng.random(7).tolist()
    if insist:
        chosen = noun(f"{colour} {pick(_colourable(entry.name), u[1]).bare}")
    else:
        chosen = name(entry.name, u[0], u[1], colour)
    forms = _styled(entry.style) if style else _PLAIN
    if not chosen.thing:
        forms = _without_article(forms)
    text = pick(forms, u[2]).format(a=chosen.single, n=chosen.bare, s=style_name(entry.style, u[3]))
    return finish(with_background(text, background, u[4], u[5]), u[6])


def name(label: str, u: float, v: float, colour: str | None, *, things: bool = False) -> Noun:
    """A name of a picture, selected by uniform draws `u` and `v`.

    Args:
        label: CLDR short name of the picture.
        u, v: numbers in [0, 1).
        colour: as in `caption`.
        things: only use names of things; there must be one.
    """
    choices = _things(label) if things else nouns(label)
    says_colour = colour is not None and u < COLOUR_SHARE
    if len(choices) == 1 or v < LABEL_SHARE:
        chosen = choices[0]
    else:
        chosen = pick(choices[1:], (v - LABEL_SHARE) / (1 - LABEL_SHARE))
    if says_colour and chosen in _colourable(label):
        return noun(f"{colour} {chosen.bare}")
    return chosen


def can_say_colour(label: str) -> bool:
    """Whether some name of the picture can be preceded by a colour."""
    return bool(_colourable(label))


def is_nameable(label: str) -> bool:
    """Whether some name of the picture can be used in a caption of several things."""
    return bool(_things(label))


def pick(items: tuple[T, ...], u: float) -> T:
    """The item at fraction `u` in [0, 1)."""
    return items[int(u * len(items))]


def with_background(text: str, background: str | None, u: float, v: float) -> str:
    """Add the background; None is transparent, and rarely mentioned."""
    if background is not None:
        forms = _GRADIENT if background.endswith("gradient") else _BACKGROUND
        return pick(forms, v).format(c=text, b=background, ab=with_article(background))
    return pick(_TRANSPARENT, v).format(c=text) if u < TRANSPARENT_SHARE else text


def with_style(text: str, style: str, u: float, v: float) -> str:
    """Add the style to a caption of several things."""
    return pick(_SCENE_STYLED, u).format(c=text, s=style_name(style, v))


def style_name(style: str, u: float) -> str:
    """A name of a style; its first name has the largest weight."""
    return pick(_names(style), u)


def finish(text: str, u: float) -> str:
    """Vary case and punctuation."""
    if u < 0.06:
        return text + "."
    if u < 0.14:
        return text[0].upper() + text[1:]
    return text


@cache
def _things(label: str) -> tuple[Noun, ...]:
    return tuple(choice for choice in nouns(label) if choice.thing)


@cache
def _colourable(label: str) -> tuple[Noun, ...]:
    return tuple(
        choice for choice in _things(label) if not choice.coloured and " of " not in choice.bare
    )


@cache
def _names(style: str) -> tuple[str, ...]:
    names = next(known.names for known in STYLES if known.id == style)
    return (names[0],) * (len(names) + 1) + names[1:]


@cache
def _styled(style: str) -> tuple[str, ...]:
    if style == "fluent-3d":
        return _STYLED + _STYLED_3D * 2
    if style == "fluent-flat":
        return _STYLED + _STYLED_FLAT * 2
    return _STYLED


@cache
def _without_article(forms: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(form for form in forms if "{a}" not in form and not form.startswith("a "))
