"""Emoji in prompts, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import pytest

from asymflow.models.embedded.emoji import emoji_names, emoji_to_words
from asymflow.training.data.catalogue import Concept, table
from asymflow.training.data.slugs import has_skin_tone, key_of, slug_of


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("🦊", "fox"), ("a 🦊 on blue", "a fox on blue"), ("🦊🐱", "fox cat face"),
        ("👍🏽", "thumbs up"), ("👩‍🚀, twemoji style", "woman astronaut, twemoji style"),
        ("🇫🇷", "flag of france"), ("❤️ and ❤", "red heart and red heart"),
        ("❤️‍🔥!", "heart on fire!"), ("👨🏿‍🦲", "bald man"), ("2 cats #1", "2 cats #1"),
        ("  spaced   out  ", "  spaced   out  "), ("", ""),
    ],
)  # fmt: skip
def test_spell(prompt: str, words: str) -> None:
    assert emoji_to_words(prompt) == words


def test_table_is_complete_and_small() -> None:
    names = emoji_names()
    assert 1800 < len(names) < 2100
    assert names["☕"] == "hot beverage"
    assert not any("\ufe0f" in emoji for emoji in names)
    assert not any(char.isascii() and len(char) == 1 for char in names)
    size = len(
        resources.files("asymflow.models.embedded").joinpath("emoji_names.json").read_bytes()
    )
    assert size < 150_000


def test_table_is_made_from_concepts() -> None:
    concepts = [
        Concept("1f98a", "fox", (), "animals-nature", ""),
        Concept("1f44b-1f3fb", "waving hand: light skin tone", (), "people-body", ""),
        Concept("1f9b0", "red hair", (), "component", ""),
        Concept("1f1e6", "regional indicator A", (), "", ""),
    ]
    assert table({concept.key: concept for concept in concepts}) == {"🦊": "fox"}


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Man’s shoe", "mans-shoe"), ("piñata", "pinata"), ("T-Rex", "t-rex"),
     ("flag: Côte d’Ivoire", "flag-cote-divoire"), ("Mrs. Claus", "mrs-claus")],
)  # fmt: skip
def test_slugs(name: str, slug: str) -> None:
    assert slug_of(name) == slug


def test_keys() -> None:
    assert key_of("1F9D4-200D-2642-FE0F") == "1f9d4-200d-2642"
    assert has_skin_tone("1f44b-1f3fb")
    assert not has_skin_tone("1f3fb")  # the tone itself is an emoji of its own


def test_importing_is_light() -> None:
    script = (
        "import sys, asymflow.training.data, asymflow.models.embedded.styles; "
        "heavy = {'torch', 'PIL', 'numpy', 'rich', 'resvg_py'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
