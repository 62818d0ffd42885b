"""Rows to pictures: bits that depend on the row alone, and faults that stay with their row."""

from __future__ import annotations

import io
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asymflow.bulk.manifest import Line
from asymflow.bulk.pictures import Failed, Made, Pictures, Settings
from asymflow.bulk.rows import Row, row_of
from asymflow.cli import main
from asymflow.core.errors import InputError
from asymflow.generation import metadata
from asymflow.generation.resolve import GenerateOptions
from asymflow.io import images
from tests.bulk import models


def row(id: object, **columns: Any) -> Row:
    return row_of(Line(1, {"id": id, "prompt": f"thing {id}", "size": 32, **columns}), texts=False)


def loaded(name: str = models.NAME, rows: int = 4, **defaults: Any) -> Pictures:
    return Pictures.load(
        Settings(name, rows=rows, threads=None, defaults=GenerateOptions(seed=0, **defaults))
    )


def made(pictures: Pictures, rows: list[Row]) -> dict[str, Made]:
    found = list(pictures.make(rows))
    assert all(isinstance(each, Made) for each in found), found
    return {each.row.id: each for each in found if isinstance(each, Made)}


def test_a_picture_does_not_depend_on_its_neighbours_whatever_the_kernels_do(here: Path) -> None:
    together = loaded(f"{models.NAME}-together", steps=3)
    assert together.identity.together == 4
    assert "4 at a time" in together.identity.determinism
    rows = [row(i, size=32 + 32 * (i % 2), guidance=1 + i % 3, steps=2 + i % 2) for i in range(12)]
    alone = {each.id: made(together, [each])[each.id].facts["sha256"] for each in rows}
    for seed in range(3):
        mixed = random.Random(seed).sample(rows, 9)
        for id, one in made(together, mixed).items():
            assert one.facts["sha256"] == alone[id]
    # The model itself does depend on it: without filling, the pictures would differ.
    other = loaded(f"{models.NAME}-together", rows=1, steps=3)
    assert any(made(other, [each])[each.id].facts["sha256"] != alone[each.id] for each in rows)


def test_a_row_that_cannot_be_made_says_nothing_of_the_others(here: Path) -> None:
    pictures = loaded(f"{models.NAME}-together", steps=2)
    rows = [
        row("good"),
        row("raises", prompt="raise"),
        row("no style", style="cubism"),
        row("no size", size=33),
        row("no file", image="missing.png"),
        row("no plan", plan="speedy"),
        row("strength without a picture", strength=0.5),
        row("no guidance", guidance=-1),
        row("bad size", size="large"),
        row("bad seed", seed=-1),
        row("bad text", prompt="a\0b"),
        row("bad background", background="nocolour"),
        row("bad steps", steps=0),
        row("fine"),
    ]
    found = {each.row.id: each for each in pictures.make(rows)}
    assert len(found) == len(rows)
    assert {id for id, each in found.items() if isinstance(each, Made)} == {"good", "fine"}
    for each in found.values():
        if isinstance(each, Failed):
            assert each.error.endswith((".", "much")), each.error
    assert "too much" in str(getattr(found["raises"], "error", ""))


def test_the_file_is_that_of_generate_and_the_hash_that_of_its_pixels(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = main.run(
        "generate fox --model free --size 32 --seed 7 --steps 3 --style noto -o one.png".split()
    )
    assert code == 0
    pictures = loaded(steps=3)
    one = made(pictures, [row("a", prompt="fox", seed=7, style="noto")])["a"]
    with Image.open(io.BytesIO(one.png)) as ours, Image.open("one.png") as theirs:
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
        assert sha256(np.asarray(ours).tobytes()).hexdigest() == one.facts["sha256"]
    path = Path("bulk.png")
    path.write_bytes(one.png)
    texts = [images.read_record(each) for each in (path, Path("one.png"))]
    assert texts[0] is not None
    assert texts[0] == texts[1]
    assert metadata.from_json(texts[0], "bulk.png").seed == 7
    capfd.readouterr()
    assert one.facts["nfe"] == pictures.price(row("a")).nfe == 5  # guidance ends before t = 0


def test_pictures_to_start_from_lie_beside_the_manifest(here: Path) -> None:
    (here / "rows").mkdir()
    Image.new("RGB", (32, 32), "red").save(here / "rows/red.png")
    pictures = Pictures.load(
        Settings(
            models.NAME,
            threads=None,
            defaults=GenerateOptions(seed=0, steps=4),
            folder=here / "rows",
        )
    )
    one = made(pictures, [row("a", image="red.png", strength=0.5), row("b")])
    assert one["a"].facts["nfe"] < one["b"].facts["nfe"]
    assert one["a"].facts["sha256"] != one["b"].facts["sha256"]


def test_settings_that_cannot_be_served_are_refused_at_once(here: Path) -> None:
    with pytest.raises(InputError, match="no plan 'best'"):
        loaded(plan="best")
    with pytest.raises(InputError, match="Unknown dtype"):
        Pictures.load(Settings(models.NAME, dtype="int8", threads=None))


def test_notes_are_given_once(here: Path) -> None:
    pictures = loaded(steps=2)
    made(pictures, [row(i, size=16) for i in range(3)])
    assert len(pictures.notes) == 1
    assert "16x16" in pictures.notes[0]
