"""What `asymflow generate` says of prompts, and what it keeps of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asymflow.generation import metadata
from asymflow.io import images

from .conftest import Type

SMALL = ("--size", "32", "--plan", "draft", "--seed", "3")


def record(path: str) -> metadata.Record:
    text = images.read_record(Path(path))
    assert text is not None
    return metadata.from_json(text, path)


def same(a: str, b: str) -> bool:
    with Image.open(a) as one, Image.open(b) as other:
        return np.array_equal(np.asarray(one), np.asarray(other))


def test_a_translation_is_noted_kept_and_replayed(type_: Type) -> None:
    typed = type_("generate", "ein roter Fuchs", *SMALL, "-o", "a.png")
    assert typed.code == 0
    assert "Drawn as: a red fox\n" in typed.err
    assert (record("a.png").prompt, record("a.png").drawn) == ("ein roter Fuchs", "a red fox")
    assert type_("generate", "--like", "a.png", "-o", "b.png").code == 0
    assert type_("generate", "a red fox", *SMALL, "-o", "c.png").code == 0
    assert same("a.png", "b.png")
    assert same("a.png", "c.png")
    assert record("b.png") == record("a.png")
    assert record("c.png").drawn is None
    assert type_("generate", "eine Katze", "--like", "a.png", "-o", "d.png").code == 0
    assert record("d.png").drawn == "a cat"


def test_negative_prompts_are_translated_too_and_recorded_as_asked(type_: Type) -> None:
    assert type_("generate", "ein Apfel", "--negative", "grün", *SMALL, "-o", "a.png").code == 0
    assert type_("generate", "an apple", "--negative", "green", *SMALL, "-o", "b.png").code == 0
    assert record("a.png").negative == record("b.png").negative == "green"
    assert same("a.png", "b.png")
    assert type_("generate", "--like", "a.png", "-o", "c.png").code == 0
    assert record("c.png") == record("a.png")


def test_a_picture_from_before_prompts_were_translated_is_replayed_as_it_was(
    type_: Type, here: Path
) -> None:
    """Its record has no `drawn`, nor a reference: the model was asked with the prompt itself."""
    type_("generate", "ein roter Fuchs", *SMALL, "-o", "a.png")
    data = json.loads(images.read_record(here / "a.png") or "")
    del data["drawn"], data["reference"]
    picture = images.read(here / "a.png")
    with (here / "old.png").open("wb") as file:
        notes = images.Notes("", json.dumps(data), "")
        images.write(file, picture, format="png", notes=notes)
    typed = type_("generate", "--like", "old.png", "-o", "b.png")
    assert typed.code == 0
    assert record("b.png").drawn is None
    assert not same("a.png", "b.png")


def test_a_prompt_without_a_known_word_is_noted(type_: Type) -> None:
    typed = type_("generate", "penguinn", *SMALL)
    assert typed.code == 0
    assert "no word of this prompt" in typed.err
    assert '"penguin"' in typed.err
    assert "no word" not in type_("generate", "a penguin", *SMALL).err


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [({"LANG": "tr_TR.UTF-8"}, "an elephant"), ({"LC_ALL": "C", "LANG": "tr_TR"}, None),
     ({"LC_MESSAGES": "tr", "LANG": "fr_FR"}, "an elephant")],
)  # fmt: skip
def test_the_systems_language_decides(
    type_: Type, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], drawn: str | None
) -> None:
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    assert type_("generate", "fil", *SMALL, "-o", "a.png").code == 0
    if drawn is not None:
        assert record("a.png").drawn == drawn
    else:
        assert record("a.png").drawn != "an elephant"
