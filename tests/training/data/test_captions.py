"""Names, articles, plurals and captions."""

from __future__ import annotations

import re

import numpy as np
import pytest

from asymflow.models.embedded.styles import STYLES
from asymflow.models.embedded.words import noun, nouns, plain_name, with_article
from asymflow.training.data.captions import caption
from asymflow.training.data.colours import COLOURS, main_colours
from asymflow.training.data.manifest import Entry


def entry(name: str, style: str = "noto") -> Entry:
    return Entry(
        index=0, key="0", slug="", style=style, name=name, keywords=(), group="animals-nature",
        subgroup="", weight=1.0, split="train", flip_ok=True, licence="MIT", package="",
        version="",
    )  # fmt: skip


def captions(entry: Entry, *, style: bool, background: str | None = None) -> list[str]:
    rng = np.random.default_rng(0)
    return [caption(entry, rng, style=style, background=background) for _ in range(400)]


@pytest.mark.parametrize(
    ("text", "single"),
    [
        ("fox", "a fox"), ("owl", "an owl"), ("unicorn", "a unicorn"), ("eagle", "an eagle"),
        ("hourglass", "an hourglass"), ("one-piece swimsuit", "a one-piece swimsuit"),
        ("ufo", "a ufo"), ("x-ray", "an x-ray"), ("bus", "a bus"), ("compass", "a compass"),
        ("french fries", "french fries"), ("grapes", "grapes"), ("bread", "bread"),
        ("slice of bread", "a slice of bread"), ("pair of scissors", "a pair of scissors"),
        ("santa claus", "santa claus"), ("flag of france", "the flag of france"),
        ("tears of joy", "tears of joy"), ("orange background", "an orange background"),
        ("no smoking", "no smoking"), ("octopus", "an octopus"), ("rhinoceros", "a rhinoceros"),
    ],
)  # fmt: skip
def test_articles(text: str, single: str) -> None:
    assert noun(text).single == single


@pytest.mark.parametrize(
    ("text", "plural"),
    [
        ("fox", "foxes"), ("cat", "cats"), ("butterfly", "butterflies"), ("monkey", "monkeys"),
        ("mouse", "mice"), ("sheep", "sheep"), ("white fish", "white fish"), ("bus", "buses"),
        ("maple leaf", "maple leaves"), ("slice of pizza", "slices of pizza"),
        ("face with tears of joy", "faces with tears of joy"), ("tomato", "tomatoes"),
        ("plane taking off", "planes taking off"), ("church", "churches"), ("box", "boxes"),
        ("grapes", None), ("bread", None), ("santa claus", None), ("pair of scissors", None),
        ("bow and arrow", None), ("tears of joy", None), ("flag of france", None),
    ],
)  # fmt: skip
def test_plurals(text: str, plural: str | None) -> None:
    assert noun(text).plural == plural


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Man’s shoe", "man's shoe"), ("flag: France", "flag of france"),
        ("man: bald", "bald man"), ("woman: curly hair", "woman with curly hair"),
        ("person: beard", "bearded person"), ("keycap: 7", "keycap 7"),
        ("family: man, woman, girl", "family with a man, a woman and a girl"),
        ("kiss: woman, man", "woman and a man kissing"),
        ("Japanese “reserved” button", "japanese reserved button"),
        ("man running: facing right", "man running facing right"),
    ],
)  # fmt: skip
def test_plain_names(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize(
    ("name", "everyday"),
    [
        ("face with tears of joy", "laughing face"), ("hot beverage", "coffee"),
        ("automobile", "car"), ("person swimming", "swimmer"), ("woman astronaut", "astronaut"),
        ("man walking", "walking man"), ("flag: Japan", "japan flag"), ("cat face", "cat"),
    ],
)  # fmt: skip
def test_everyday_names(name: str, everyday: str) -> None:
    assert everyday in [choice.bare for choice in nouns(name)]


def test_caption_names_the_thing() -> None:
    seen = set[str]()
    for text in captions(entry("hot beverage"), style=False):
        names = [choice.bare for choice in nouns("hot beverage") if choice.bare in text.lower()]
        assert names, text
        seen.update(names)
    assert seen == {choice.bare for choice in nouns("hot beverage")}


@pytest.mark.parametrize("style", [style.id for style in STYLES])
def test_style_is_named_exactly_when_asked(style: str) -> None:
    names = next(s.names for s in STYLES if s.id == style)
    pattern = re.compile("|".join(names) + "|3d" * (style == "fluent-3d"), re.IGNORECASE)
    for text in captions(entry("owl", style), style=True):
        assert pattern.search(text), text
    for text in captions(entry("owl", style), style=False):
        assert not pattern.search(text), text


@pytest.mark.parametrize("background", ["orange", "light blue", "red to white gradient"])
def test_background_is_named(background: str) -> None:
    for text in captions(entry("owl"), style=True, background=background):
        assert background in text.lower(), text
        assert " a orange" not in text
        assert "transparent" not in text


def test_transparency_is_seldom_mentioned() -> None:
    texts = captions(entry("owl"), style=False)
    said = sum("transparent" in text or "no background" in text for text in texts)
    assert 2 <= said <= 40


@pytest.mark.parametrize("name", ["owl", "french fries", "locked", "flag: France", "fox"])
def test_captions_are_tidy(name: str) -> None:
    for style in STYLES:
        for text in captions(entry(name, style.id), style=True, background="blue"):
            assert text == text.strip()
            assert "  " not in text
            assert "{" not in text
            assert not re.search(r"\ba a\b|\ba an\b|\ba (owl|french fries|locked)\b", text), text


def test_phrases_that_name_no_thing_take_no_article() -> None:
    texts = [text for s in STYLES for text in captions(entry("dashing away", s.id), style=True)]
    assert not [text for text in texts if re.search(r"\b(of|an?|the|in) dashing", text.lower())]
    assert any("dashing away" in text.lower() for text in texts)


def test_captions_vary_and_repeat_with_the_seed() -> None:
    first = captions(entry("fox"), style=True)
    assert first == captions(entry("fox"), style=True)
    assert len(set(first)) > 60


def test_every_caption_takes_the_same_draws() -> None:
    states: set[str] = set()
    for name, style, background in (("fox", True, None), ("locked", False, "blue")):
        rng = np.random.default_rng(5)
        caption(entry(name), rng, style=style, background=background)
        states.add(str(rng.bit_generator.state))
    assert len(states) == 1


def test_own_colour_is_said_now_and_then() -> None:
    rng = np.random.default_rng(0)
    car = [
        caption(entry("bus"), rng, style=False, background=None, colour="orange")
        for _ in range(500)
    ]
    said = [text for text in car if "orange" in text.lower()]
    assert 20 < len(said) < 120
    assert any("an orange" in text for text in said)
    apple = [
        caption(entry("red apple"), rng, style=False, background=None, colour="green")
        for _ in range(300)
    ]
    assert not any("green red" in text for text in apple)


def test_main_colours_of_plain_discs() -> None:
    names = {c.name: c.rgb for c in COLOURS}
    wanted = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey",
              "white", "black"]  # fmt: skip
    images = np.zeros((len(wanted) + 1, 8, 8, 4), np.uint8)
    for image, name in zip(images, wanted, strict=False):
        image[2:6, 2:6] = (*names[name], 255)
    images[-1, :, :4] = (*names["red"], 255)
    images[-1, :, 4:] = (*names["blue"], 255)
    assert main_colours(images) == [*wanted, None]


def test_with_article() -> None:
    assert with_article("orange to white gradient") == "an orange to white gradient"
    assert with_article("blue sky") == "a blue sky"
