"""Compose scenes of several pictures on one canvas.

A scene is planned (layout and sentence) before it is drawn, so that plans can be tested without
pixels. All colours are premultiplied by alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from asymflow.models.embedded.bitmaps import Pixels, resize
from asymflow.models.embedded.layout import ALONE, PLACES, SMALL, Box, cells_of, column, paste, row
from asymflow.models.embedded.words import Noun, with_article
from asymflow.training.data.captions import finish, name, pick, with_background, with_style
from asymflow.training.data.manifest import Entry

STEP = 8  # every side is a multiple of this many pixels
ASPECTS = ((1, 1), (2, 1), (1, 2), (3, 2), (2, 3))  # width : height
BIG = 1.6  # minimum ratio of sides for "big" and "small" in the caption


@dataclass(frozen=True, slots=True)
class Thing:
    """A picture that can be placed in a scene.

    Attributes:
        ink: bounding box of visible pixels as fractions of the side: (top, left, bottom, right).
        colour: the dominant basic colour, if any.
    """

    entry: Entry
    ink: tuple[float, float, float, float]
    colour: str | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A thing placed so that its visible pixels fill `box`."""

    thing: Thing
    box: Box
    flip: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """A planned scene: things from back to front, and a sentence without style and background."""

    height: int
    width: int
    placed: tuple[Placed, ...]
    sentence: str


def canvas_sizes(resolution: int) -> tuple[tuple[int, int], ...]:
    """Canvas sizes (height, width) for training at `resolution`.

    For each aspect ratio: one whose area is about `resolution` squared, and one whose short
    side is `resolution`.
    """
    sizes: dict[tuple[int, int], None] = {}
    for across, down in ASPECTS:
        ratio = (across / down) ** 0.5
        sizes[_snap(resolution / ratio), _snap(resolution * ratio)] = None
        short = min(across, down)
        sizes[_snap(resolution * down / short), _snap(resolution * across / short)] = None
    return tuple(sizes)


def _snap(length: float) -> int:
    return max(STEP, round(length / STEP) * STEP)


def draw(scene: Scene, picture: Callable[[int, int], Pixels]) -> Pixels:
    """Draw a scene on a transparent canvas, premultiplied uint8 [height, width, 4].

    Args:
        scene: the scene.
        picture: `picture(index, side)` returns a square picture of at least `side` pixels, or the
            largest available.
    """
    canvas = np.zeros((scene.height, scene.width, 4), np.uint8)
    for item in scene.placed:
        top, left, bottom, right = item.thing.ink
        box = item.box
        side = max(box.height / (bottom - top), box.width / (right - left))
        source = picture(item.thing.entry.index, round(side))
        n = source.shape[0]
        ink = source[round(top * n) : round(bottom * n), round(left * n) : round(right * n)]
        drawn = resize(ink[:, ::-1] if item.flip else ink, box.height, box.width)
        paste(canvas, drawn, box.top, box.left)
    return canvas


def plan(rng: np.random.Generator, things: Sequence[Thing], height: int, width: int) -> Scene:
    """Plan a scene of one to four things on a canvas of `height` x `width` pixels.

    Args:
        rng: source of randomness.
        things: candidates of one style, of at least MOST_KINDS concepts.
        height, width: multiples of STEP.
    """
    kinds = _WIDE if width > height else _TALL if height > width else _SQUARE
    placed, sentence = pick(kinds, rng.random())(rng, things, height, width)
    return Scene(height, width, placed, sentence)


def caption(scene: Scene, rng: np.random.Generator, *, style: bool, background: str | None) -> str:
    """A caption of a scene; arguments as in `asymflow.training.data.captions.caption`."""
    u: list[float] = rng.random(5).tolist()
    text = scene.sentence
    if style:
        text = with_style(text, scene.placed[0].thing.entry.style, u[0], u[1])
    return finish(with_background(text, background, u[2], u[3]), u[4])


_Planned = tuple[tuple[Placed, ...], str]
_Kind = Callable[[np.random.Generator, Sequence[Thing], int, int], _Planned]


def _beside(rng: np.random.Generator, things: Sequence[Thing], height: int, width: int) -> _Planned:
    """Two things, left and right."""
    first, second = _draw(rng, things, 2)
    left, right, sizes = _pair(rng, first, second, height, width, across=True)
    a, b = _name(rng, first, sizes[0]), _name(rng, second, sizes[1])
    text = pick(
        (
            f"{a} left of {b}", f"{a} to the left of {b}", f"{a} on the left of {b}",
            f"{b} right of {a}", f"{b} to the right of {a}", f"{b} on the right of {a}",
            f"{a} on the left and {b} on the right", f"{a} next to {b}", f"{a} beside {b}",
            f"{a} and {b}", f"{a} and {b}", f"{b} and {a}",
        ),
        rng.random(),
    )  # fmt: skip
    return (left, right), text


def _stacked(
    rng: np.random.Generator, things: Sequence[Thing], height: int, width: int
) -> _Planned:
    """Two things, one above the other."""
    first, second = _draw(rng, things, 2)
    upper, lower, sizes = _pair(rng, first, second, height, width, across=False)
    a, b = _name(rng, first, sizes[0]), _name(rng, second, sizes[1])
    text = pick(
        (
            f"{a} above {b}", f"{a} above {b}", f"{a} over {b}", f"{b} below {a}",
            f"{b} under {a}", f"{b} underneath {a}", f"{a} on top of {b}",
            f"{a} at the top and {b} at the bottom", f"{a} and {b}",
        ),
        rng.random(),
    )  # fmt: skip
    return (upper, lower), text


def _several(
    rng: np.random.Generator, things: Sequence[Thing], height: int, width: int
) -> _Planned:
    """Two to four of the same thing; a single one if it has no plural."""
    (thing,) = _draw(rng, things, 1)
    chosen = _noun(rng, thing)
    if chosen.plural is None:
        return _alone(rng, (thing,), height, width)
    count = pick((2, 2, 2, 3, 3, 4), rng.random())
    cells = cells_of(count, height, width)
    scale = 0.72 + 0.2 * rng.random()
    flip = thing.entry.flip_ok and rng.random() < 0.3
    placed = tuple(_fit(rng, thing, cell, scale, flip=flip) for cell in cells)
    number = {2: "two", 3: "three", 4: "four"}[count]
    digits = rng.random() < 0.15
    return placed, f"{count if digits else number} {chosen.plural}"


def _three(rng: np.random.Generator, things: Sequence[Thing], height: int, width: int) -> _Planned:
    """Three things in a row or a column."""
    chosen = _draw(rng, things, 3)
    across = width > height or (width == height and rng.random() < 0.7)
    cells = row(3, height, width) if across else column(3, height, width)
    scale = 0.8 + 0.15 * rng.random()
    placed = tuple(
        _fit(rng, thing, cell, scale, flip=_flip(rng, thing))
        for thing, cell in zip(chosen, cells, strict=True)
    )
    a, b, c = (_name(rng, thing, "") for thing in chosen)
    if across:
        forms = (f"{a}, {b} and {c}", f"{a}, {b} and {c} in a row", f"{a}, {b}, and {c}",
                 f"{b} between {a} and {c}")  # fmt: skip
    else:
        forms = (f"{a} above {b} above {c}", f"{a}, {b} and {c} from top to bottom",
                 f"{a}, {b} and {c} stacked")  # fmt: skip
    return placed, pick(forms, rng.random())


def _alone(rng: np.random.Generator, things: Sequence[Thing], height: int, width: int) -> _Planned:
    """One thing, off centre or small."""
    (thing,) = _draw(rng, things, 1)
    down, across = int(rng.integers(3)), int(rng.integers(3))
    tiny = rng.random() < 0.4
    side = min(height, width) * (SMALL if tiny else ALONE) * (0.9 + 0.2 * rng.random())
    box_height, box_width = _shape(thing, side, height, width)
    slack = 0.06 * rng.random()
    top = round((height - box_height) * (slack, 0.5, 1 - slack)[down])
    left = round((width - box_width) * (slack, 0.5, 1 - slack)[across])
    box = Box(top, left, box_height, box_width)
    what = _name(rng, thing, "small" if tiny else "")
    where = pick(PLACES[down][across], rng.random())
    return (Placed(thing, box, _flip(rng, thing)),), f"{what} {where}"


_SQUARE: tuple[_Kind, ...] = (
    (_beside,) * 4 + (_stacked,) * 4 + (_several,) * 3 + (_alone, _alone, _three)
)
_WIDE: tuple[_Kind, ...] = (
    (_beside,) * 6 + (_stacked,) + (_several,) * 3 + (_alone, _alone) + (_three,) * 3
)
_TALL: tuple[_Kind, ...] = (
    (_beside,) + (_stacked,) * 6 + (_several,) * 3 + (_alone, _alone) + (_three,) * 3
)


def _pair(
    rng: np.random.Generator, first: Thing, second: Thing, height: int, width: int, *, across: bool
) -> tuple[Placed, Placed, tuple[str, str]]:
    """Place two things along one axis, sometimes of unequal size; returns words for the sizes."""
    share = pick((0.5, 0.5, 0.5, 0.68, 0.32), rng.random()) + 0.04 * (rng.random() - 0.5)
    if across:
        cut = round(width * share)
        cells = Box(0, 0, height, cut), Box(0, cut, height, width - cut)
    else:
        cut = round(height * share)
        cells = Box(0, 0, cut, width), Box(cut, 0, height - cut, width)
    scale = 0.8 + 0.18 * rng.random()
    one = _fit(rng, first, cells[0], scale, flip=_flip(rng, first))
    two = _fit(rng, second, cells[1], scale, flip=_flip(rng, second))
    ratio = max(one.box.height, one.box.width) / max(two.box.height, two.box.width)
    u = rng.random()
    big = "big" if u < 0.5 else "large"
    if u < 0.15 or 1 / BIG < ratio < BIG:
        return one, two, ("", "")
    sizes = (big, "small") if ratio > 1 else ("small", big)
    if u > 0.8:  # often only one size is mentioned
        sizes = (sizes[0], "")
    elif u > 0.6:
        sizes = ("", sizes[1])
    return one, two, sizes


def _draw(rng: np.random.Generator, things: Sequence[Thing], count: int) -> list[Thing]:
    """Draw things of `count` distinct concepts."""
    found: dict[str, Thing] = {}
    while len(found) < count:
        thing = things[int(rng.integers(len(things)))]
        found.setdefault(thing.entry.key, thing)
    return list(found.values())


def _fit(rng: np.random.Generator, thing: Thing, cell: Box, scale: float, *, flip: bool) -> Placed:
    """Place a thing at random in a cell, its longer side `scale` times the maximum."""
    side = scale * min(cell.height, cell.width)
    height, width = _shape(thing, side, cell.height, cell.width)
    top = cell.top + round((cell.height - height) * (0.5 + 0.6 * (rng.random() - 0.5)))
    left = cell.left + round((cell.width - width) * (0.5 + 0.6 * (rng.random() - 0.5)))
    return Placed(thing, Box(top, left, height, width), flip)


def _shape(thing: Thing, side: float, max_height: int, max_width: int) -> tuple[int, int]:
    """Height and width of a thing with `side` pixels on its longer side."""
    top, left, bottom, right = thing.ink
    unit = side / max(bottom - top, right - left)
    height = min(max(1, round(unit * (bottom - top))), max_height)
    width = min(max(1, round(unit * (right - left))), max_width)
    return height, width


def _flip(rng: np.random.Generator, thing: Thing) -> bool:
    return thing.entry.flip_ok and rng.random() < 0.5


def _noun(rng: np.random.Generator, thing: Thing) -> Noun:
    return name(thing.entry.name, rng.random(), rng.random(), thing.colour, things=True)


def _name(rng: np.random.Generator, thing: Thing, size: str) -> str:
    """The noun phrase of a thing with its article and optional size: "a small red apple"."""
    chosen = _noun(rng, thing)
    if not size:
        return chosen.single
    if chosen.single == chosen.bare:
        return f"{size} {chosen.bare}"
    return with_article(f"{size} {chosen.bare}")
