"""Records that somebody else wrote, or changed: understood or refused, and never anything else."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asymflow.cli import main
from asymflow.core.errors import AsymflowError, FileFormatError, InputError
from asymflow.core.presets import Grid
from asymflow.generation import metadata
from asymflow.generation.metadata import Record, Source
from asymflow.io import images
from asymflow.io.images import Notes
from asymflow.models.embedded import plans
from asymflow.planning.plan_json import plan_and_rules_from_json, plan_hash

RECORD = Record(
    prompt="a fox",
    negative="blue",
    style="noto",
    seed=7,
    size=(48, 64),
    guidance=2.5,
    plan=Grid(steps=4).plan((48, 64)),
    grid=Grid(steps=4),
    model=plans.made_for("draft"),
    weights="f0" * 32,
    dtype="float32",
    device="cpu",
    image=Source("photo.png", "1" * 64),
    mask=None,
    strength=0.5,
    background="#ffd700",
    versions={"asymflow": "1"},
)

Place = tuple[str | int, ...]


def places(value: object, at: Place = ()) -> Iterator[Place]:
    """Where a value can be changed: every entry and every item, at any depth."""
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(cast("dict[str, object]", value).items())
    elif isinstance(value, list):
        inner = list(enumerate(cast("list[object]", value)))
    for key, each in inner:
        yield (*at, key)
        yield from places(each, (*at, key))


WHOLE = metadata.to_json(RECORD)
# As version 0.1 wrote it where the plan had rules.
WHOLE["plan"]["adaptive"] = [{"step": 1, "action": "skip", "prediction_residual": 0.25}]
WHOLE["decisions"] = [{"step": 1, "action": "skip", "surprise": 0.125}]
WHOLE["plan_hash"] = plan_hash(*plan_and_rules_from_json(WHOLE["plan"], "the plan"))
PLACES = sorted(places(WHOLE), key=str)


def changed(place: Place, value: object) -> str:
    """The record with another value at one place, and a hash that is right again."""
    data = copy.deepcopy(WHOLE)
    inner: Any = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with suppress(AsymflowError):  # a plan that is refused, before its hash is compared
        data["plan_hash"] = plan_hash(*plan_and_rules_from_json(data["plan"], "the plan"))
    return json.dumps(data)


odd = st.one_of(
    st.sampled_from([0, -1, 1, 2**31, 2**63, 10**30, 10**400, -(10**400), 1e-320, 1e308, -1e308]),
    st.sampled_from(["", "\0", "\ud800", "\x1b[31m", "\ufffe", "x" * 5000, [], {}, None, True]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)


@given(st.sampled_from(PLACES), odd)
@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
def test_a_changed_record_is_understood_or_refused(place: Place, value: object) -> None:
    try:
        record = metadata.from_json(changed(place, value), "fox.png")
    except FileFormatError as error:
        found = str(error)
        found.encode()  # can be printed and answered
        if len(found) > 1000:
            pytest.fail(f"{len(found)} characters")
        return
    # What is understood can be used, for a file, a plan and another record; or says why not.
    with suppress(InputError):
        assert record.grid is None or record.grid.plan(record.size).steps
    for name in plans.NAMES:
        plans.load(name, record.size)
    notes = metadata.notes(record, in_xmp=True)
    notes.xmp.encode()
    assert metadata.from_json(notes.record, "again") == record


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (("width",), 10**400, "has width = 1000.*, which must be from 1 to 999999"),
        (("height",), 0, "has height = 0, which must be from 1 to 999999"),
        (("height",), -64, "has height = -64"),
        (("seed",), 2**63, "has seed = 9223372036854775808, which must be from 0 to"),
        (("guidance",), 0, "has guidance = 0, which must be positive"),
        (("strength",), 1.5, "has strength = 1.5, which must be above 0 and at most 1"),
        (("prompt",), "\ud800", r"has half of a surrogate pair"),
        (("versions", "asymflow"), "\udfff", "has half of a surrogate pair"),
        (("plan", "steps", 0, "t"), 0, "is not a move"),
    ],
    ids=lambda each: str(each)[:40].encode("ascii", "replace").decode(),
)
def test_a_number_that_cannot_be_names_itself(place: Place, value: object, complaint: str) -> None:
    with pytest.raises(FileFormatError, match=complaint):
        metadata.from_json(changed(place, value), "fox.png")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{" + '"a":{' * 900 + "}" * 901,
        '{"seed": ' + "9" * 5000 + "}",
        "NaN",
        "1e400x",
    ],
)
def test_what_no_reader_can_hold_is_refused(text: str) -> None:
    with pytest.raises(FileFormatError):
        metadata.from_json(text, "fox.png")


def test_entries_without_number_are_not_all_named() -> None:
    crowd = {f"x{i:05d}": 1 for i in range(10_000)}
    with pytest.raises(FileFormatError, match=r"unknown entries: x00000, x00001") as caught:
        metadata.from_json(json.dumps(WHOLE | crowd), "fox.png")
    assert len(str(caught.value)) < 200


@given(st.sampled_from(PLACES), odd)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_record_breaks_the_command_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], place: Place, value: object
) -> None:
    """Of other weights than ours: refused at the latest when these are loaded."""
    file = tmp_path / "fox.png"
    with file.open("wb") as out:
        notes = Notes("", changed(place, value), "")
        images.write(out, np.zeros((8, 8, 4), np.float32), format="png", notes=notes)
    code = main.run(["generate", "--like", str(file), "-o", str(tmp_path / "made.png")])
    said = capfd.readouterr()
    assert code == 2, said.err
    assert "Traceback" not in said.err
