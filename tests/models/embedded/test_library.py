"""From words to drawings: the shipped library, and one that is built here."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from asymflow.core.errors import FileFormatError
from asymflow.models.embedded.library import (
    Library,
    Likeness,
    default_path,
    member,
    shipped,
    style_in,
)
from asymflow.models.embedded.styles import LIBRARY


def found(prompt: str) -> tuple[str, list[str]] | None:
    match = shipped().find(prompt)
    return match and (match.layout, [concept.names[0] for concept in match.concepts])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a fox", ("single", ["fox"])),
        ("A FOX!", ("single", ["fox"])),
        ("🦊 on blue", ("single", ["fox"])),
        ("a fox in noto style", ("single", ["fox"])),
        ("3d render of a robot", ("single", ["robot"])),
        ("a bunch of grapes", ("single", ["grapes"])),
        ("a purple fox", ("single", ["fox"])),
        ("an orange cat", ("single", ["cat"])),
        ("a fire truck", ("single", ["fire engine"])),
        ("a house on fire", ("single", ["house"])),
        ("a birthday cake with candles", ("single", ["birthday cake"])),
        ("a cat left of a dog", ("row", ["cat", "dog"])),
        ("a cat to the right of a dog", ("row", ["dog", "cat"])),
        ("a cat and a dog", ("row", ["cat", "dog"])),
        ("a bird above a house", ("column", ["bird", "house"])),
        ("a sun under a cloud", ("column", ["cloud", "sun"])),
        ("a pear, a banana and a peach", ("row", ["pear", "banana", "peach"])),
        ("a pear between a banana and a peach", ("row", ["banana", "pear", "peach"])),
        ("three rockets", ("several", ["rocket"] * 3)),
        ("a tiny frog in the bottom left corner", ("placed", ["frog"])),
        ("a lighthouse", None),
        ("an algorithm", None),
        ("", None),
        ("the of and 3d", None),
    ],
)
def test_prompts_are_read(prompt: str, expected: tuple[str, list[str]] | None) -> None:
    assert found(prompt) == expected


def test_words_that_are_no_names_are_found_by_what_they_mean() -> None:
    names = [name for concept in shipped().concepts for name in concept.names]
    fox = names.index("fox")

    def meaning(texts: Sequence[str]) -> np.ndarray:
        vectors = np.eye(len(names) + 1, dtype=np.float32)
        known = {name: vectors[i] for i, name in enumerate(names)} | {"reynard": vectors[fox]}
        return np.stack([known.get(text, vectors[-1]) for text in texts])

    library = shipped()
    likeness = Likeness(library, meaning)
    match = library.find("a picture of reynard", likeness)
    assert match is not None
    assert match.concepts[0].names[0] == "fox"
    assert library.find("a picture of nobody", likeness) is None


def test_keywords_need_a_likeness_too() -> None:
    library = Library()

    def nothing(texts: Sequence[str]) -> np.ndarray:
        return np.eye(len(texts), 7000, dtype=np.float32) * (1 if len(texts) > 9 else 0)

    assert any("love" in concept.keywords for concept in library.concepts)
    assert library.find("love", Likeness(library, nothing)) is None


@pytest.mark.parametrize("style", [None, *LIBRARY, "fxemoji"])
def test_the_requested_style_is_never_a_reference(style: str | None) -> None:
    match = shipped().find("a cat and a dog")
    assert match is not None
    drawings, styles = shipped().drawings(match, style, (64, 64), 2)
    assert drawings.shape == (2, 64, 64, 4)
    assert style not in styles
    assert len(set(styles)) == 2
    assert (drawings[..., :3] <= drawings[..., 3:]).all()


@pytest.mark.parametrize(
    ("prompt", "style"),
    [
        ("a fox", None),
        ("a fox, noto style", "noto"),
        ("A fox in Noto Blob style!", "noto-v1"),
        ("3d render of a fox", "fluent-3d"),
        ("a flat fox", "fluent-flat"),
        ("an inflated balloon", None),
    ],
)
def test_styles_are_read_from_words(prompt: str, style: str | None) -> None:
    assert style_in(prompt) == style


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (64, 128), (128, 40)])
def test_drawings_fit_any_canvas(size: tuple[int, int]) -> None:
    for prompt in ("a fox", "two apples", "a cat above a dog", "a fox in the top right corner"):
        match = shipped().find(prompt)
        assert match is not None
        drawings, _ = shipped().drawings(match, "noto", size, 2)
        assert drawings.shape[1:] == (*size, 4)
        ink = drawings[0, ..., 3] > 128
        assert 0.005 < ink.mean() < 0.9


def test_things_lie_where_the_prompt_says() -> None:
    match = shipped().find("a cat left of a rocket")
    assert match is not None
    [both], _ = shipped().drawings(match, None, (64, 64), 1)
    for half, name in ((both[:, :32], "a cat"), (both[:, 32:], "a rocket")):
        alone = shipped().find(name)
        assert alone is not None
        [whole], _ = shipped().drawings(alone, None, (64, 64), 1)

        def colour(pixels: np.ndarray) -> np.ndarray:
            return pixels[pixels[..., 3] > 128][:, :3].mean(axis=0)

        assert np.abs(colour(half) - colour(whole)).max() < 12


def test_the_shipped_file_is_small_credited_and_whole() -> None:
    assert default_path().stat().st_size < 15e6
    with zipfile.ZipFile(default_path()) as archive:
        assert archive.testzip() is None
        index = json.loads(archive.read("concepts.json"))
        names = set(archive.namelist())
    assert set(index["licences"]) == set(LIBRARY)
    assert all(licence["notice"] for licence in index["licences"].values())
    for concept in shipped().concepts:
        assert all(member(style, concept.key) in names for style in concept.styles)


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "other"])
def test_a_file_that_is_no_library_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "library.zip"
    if damage == "text":
        path.write_text("drawings")
    elif damage == "cut":
        path.write_bytes(default_path().read_bytes()[:100_000])
    elif damage == "other":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("concepts.json", '{"format": "something else"}')
    with pytest.raises(FileFormatError, match="library of drawings"):
        Library(path)
