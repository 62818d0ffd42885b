"""--reference: what a picture is drawn from, said, recorded and repeated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asymflow.bench.quality import Generate
from asymflow.cli import bench
from asymflow.generation import metadata
from asymflow.generation.metadata import Record
from asymflow.io import images
from asymflow.models.embedded.library import shipped
from tests.fakes import FakeModel
from tests.looking import write

from .conftest import Type

DRAW = ("generate", "a fox", "--style", "noto", "--seed", "7", "--size", "32", "--steps", "2")


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that looks at drawings."""
    path = tmp_path_factory.mktemp("model") / "looking.safetensors"
    write(path)
    return path


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def record(path: str) -> Record:
    text = images.read_record(Path(path))
    assert text is not None
    return metadata.from_json(text, path)


def test_references_are_reported_and_recorded(looking: Path, type_: Type) -> None:
    typed = type_(*DRAW, "-o", "fox.png", "--weights", looking)
    assert typed.code == 0
    assert "reference: fox, fluent-flat; fox, twemoji" in typed.err
    found = record("fox.png").reference
    assert found is not None
    assert found.kind == "library"
    assert found.shown == ("fox, fluent-flat", "fox, twemoji")
    assert found.library == shipped().digest
    assert 'Reference: "fox, fluent-flat; fox, twemoji"' in metadata.parameters(record("fox.png"))
    said = json.loads(type_(*DRAW, "-o", "b.png", "--weights", looking, "--json").out)
    assert said["settings"]["reference"] == "fox, fluent-flat; fox, twemoji"


@pytest.mark.parametrize("way", ["library", "none", "given"])
def test_replays_use_the_recorded_reference(
    way: str, looking: Path, here: Path, type_: Type
) -> None:
    Image.new("RGB", (50, 40), "red").save(here / "own.png")
    option = {"library": (), "none": ("--reference", "none"), "given": ("--reference", "own.png")}
    assert type_(*DRAW, *option[way], "-o", "one.png", "--weights", looking).code == 0
    assert type_("generate", "--like", "one.png", "-o", "two.png", "--weights", looking).code == 0
    assert np.array_equal(pixels("one.png"), pixels("two.png"))
    assert record("one.png").reference == record("two.png").reference


def test_the_three_ways_draw_different_pictures(looking: Path, here: Path, type_: Type) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(photo).save(here / "own.png")
    drawn: list[np.ndarray] = []
    for number, option in enumerate(((), ("none",), ("own.png",))):
        words = ("--reference", *option) if option else ()
        assert type_(*DRAW, *words, "-o", f"{number}.png", "--weights", looking).code == 0
        drawn.append(pixels(f"{number}.png"))
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[1], drawn[2])


def test_a_changed_picture_or_library_is_noticed(
    looking: Path, here: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (50, 40), "red").save(here / "own.png")
    type_(*DRAW, "--reference", "own.png", "-o", "own-fox.png", "--weights", looking)
    type_(*DRAW, "-o", "fox.png", "--weights", looking)
    Image.new("RGB", (50, 40), "blue").save(here / "own.png")
    again = type_("generate", "--like", "own-fox.png", "-o", "x.png", "--weights", looking)
    assert again.code == 2
    assert "own.png has changed" in again.err
    assert "--reference" in again.err

    monkeypatch.setattr(shipped(), "digest", "0" * 64)
    again = type_("generate", "--like", "fox.png", "-o", "x.png", "--weights", looking)
    assert again.code == 2
    assert "another library" in again.err
    assert not Path("x.png").exists()
    other = type_(
        "generate", "--like", "fox.png", "--reference", "none", "-o", "y.png", "--weights", looking
    )
    assert other.code == 0


def test_bad_references_are_refused(looking: Path, here: Path, type_: Type) -> None:
    absent = type_(*DRAW, "--reference", "absent.png", "-o", "x.png", "--weights", looking)
    assert absent.code == 2
    assert "absent.png" in absent.err
    (here / "text.png").write_text("no picture")
    text = type_(*DRAW, "--reference", "text.png", "-o", "x.png", "--weights", looking)
    assert text.code == 2
    assert not Path("x.png").exists()


def test_a_model_that_looks_at_nothing_says_so(model: FakeModel, here: Path, type_: Type) -> None:
    Image.new("RGB", (50, 40), "red").save(here / "own.png")
    refused = type_(*DRAW, "--reference", "own.png", "-o", "x.png")
    assert refused.code == 2
    assert "does not use references" in refused.err
    assert "--image" in refused.err
    assert type_(*DRAW, "--reference", "none", "-o", "y.png").code == 0
    assert record("y.png").reference is None


def test_quality_can_be_measured_without_references(
    looking: Path, here: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[np.ndarray] = []
    settings: list[Any] = []

    def quality(generate: Generate, data: Path, **options: Any) -> str:
        settings.append(options["config"])
        drawn.append(generate([("a fox", "noto", 3)], 32))
        return "a table"

    monkeypatch.setattr(bench, "measure", quality)
    command = ("bench", "quality", "--plan", "draft", "--size", "32", "--weights", looking)
    for option in ((), ("--no-references",)):
        assert type_(*command, *option).out == "a table\n"
    assert not np.array_equal(drawn[0], drawn[1])
    assert settings[1] == {**settings[0], "references": "none"}


def test_quality_without_references_needs_a_model_that_has_them(
    model: FakeModel, here: Path, type_: Type
) -> None:
    refused = type_("bench", "quality", "--no-references")
    assert refused.code == 2
    assert "does not use references" in refused.err


def test_records_of_before_are_read(looking: Path, type_: Type) -> None:
    type_(*DRAW, "-o", "fox.png", "--weights", looking)
    data = metadata.to_json(record("fox.png"))
    del data["reference"]
    assert metadata.from_json(json.dumps(data), "x") == replace(record("fox.png"), reference=None)
