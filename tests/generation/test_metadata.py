"""What a picture file says about how it was made."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from asymflow.core import presets
from asymflow.core.errors import FileFormatError
from asymflow.core.presets import Grid
from asymflow.core.schedules import plan_of, uniform
from asymflow.generation import metadata
from asymflow.generation.metadata import Record, Source
from asymflow.io import images

GRID = Grid(steps=5, solver="heun", guidance_interval=(0.2, 0.8), shift=1.7)
RECORD = Record(
    prompt='a <b>fox</b> & "friends" 🦊',
    negative="dögs",
    style="noto",
    seed=2**63 - 1,
    size=(48, 64),
    guidance=1 / 3,
    plan=GRID.plan((48, 64)),
    grid=GRID,
    model="embedded:abcdef",
    weights="f0" * 32,
    dtype="float32",
    device="cpu",
    image=Source("in/photo.png", "1" * 64),
    mask=None,
    strength=0.1,
    background="#ffd700",
    versions={"asymflow": "1", "torch": "2"},
)
PLAIN = replace(RECORD, negative="", style=None, image=None, grid=None, background=None)


@pytest.mark.parametrize("record", [RECORD, PLAIN], ids=["full", "plain"])
@pytest.mark.parametrize("in_xmp", [True, False])
def test_a_record_keeps_every_bit(record: Record, in_xmp: bool) -> None:
    notes = metadata.notes(record, in_xmp=in_xmp)
    assert metadata.from_json(notes.record, "x") == record
    found = images.record_in_xmp(notes.xmp)
    assert (found is not None) == in_xmp
    assert found is None or metadata.from_json(found, "x") == record


def ruled() -> dict[str, Any]:
    """A record whose plan has rules, with the hash that version 0.1 gave it."""
    data = metadata.to_json(replace(RECORD, plan=plan_of(uniform(5))))
    data["plan"]["adaptive"] = [
        {"step": 1, "action": "skip", "prediction_residual": 0.25},
        {"step": 2, "action": "insert", "prediction_residual": 0.5},
    ]
    data["plan_hash"] = "f8c4487acf8413ae38f14d8a8370d79b3eb6f73719c2807f6b2b04ea44dd1240"
    return data


LEFT = {
    "decisions": [
        {"step": 1, "action": "skip", "surprise": 1 / 7},
        {"step": 3, "action": "insert", "surprise": 0.75},
    ]
}


@pytest.mark.parametrize(
    ("left", "times"),
    [({}, (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)), (LEFT, (1.0, 0.8, 0.4, 0.3, 0.2, 0.0))],
    ids=["followed", "left"],
)
def test_a_picture_of_a_plan_with_rules_has_the_steps_that_it_made(
    left: dict[str, Any], times: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    found = metadata.from_json(json.dumps(ruled() | left), "fox.png")
    assert found.plan.times == pytest.approx(times)
    assert found == replace(RECORD, plan=found.plan)
    assert [line.partition(",")[0] for line in caplog.messages] == [
        "fox.png was made by a plan with rules for single pictures"
    ]
    # What is written of it has neither rules nor decisions, and nothing more to say.
    assert metadata.from_json(metadata.notes(found, in_xmp=False).record, "fox.png") == found
    assert len(caplog.messages) == 1


def test_changed_rules_are_noticed() -> None:
    data = ruled()
    data["plan"]["adaptive"][0]["prediction_residual"] = 0.26
    with pytest.raises(FileFormatError, match="changed after the picture was made"):
        metadata.from_json(json.dumps(data), "fox.png")
    del data["plan"]["adaptive"]
    with pytest.raises(FileFormatError, match="changed after the picture was made"):
        metadata.from_json(json.dumps(data), "fox.png")


def test_the_line_for_other_tools() -> None:
    prompt, negative, settings = metadata.parameters(RECORD).split("\n")
    assert prompt == RECORD.prompt
    assert negative == "Negative prompt: dögs"
    values = dict(part.split(": ") for part in settings.split(", "))
    assert values.pop("Version").startswith("asymflow ")
    assert values == {
        "Steps": "5",
        "Sampler": "heun",
        "CFG scale": "0.333333",
        "Seed": str(2**63 - 1),
        "Size": "64x48",
        "Model hash": "f0f0f0f0f0",
        "Model": "embedded",
        "Style": "noto",
        "Denoising strength": "0.1",
    }
    assert len(metadata.parameters(PLAIN).split("\n")) == 2


def test_what_was_looked_at_is_one_value_of_that_line() -> None:
    shown = metadata.Reference("library", ("fox, noto", 'a "cat", noto'), "ab")
    record = replace(PLAIN, reference=shown)
    line = metadata.parameters(record).splitlines()[-1]
    said = re.search(r'Reference: ("(?:[^"\\]|\\.)*")', line)
    assert said is not None
    assert (
        json.loads(said[1]) == metadata.settings(record)["Reference"] == 'fox, noto; a "cat", noto'
    )


def test_the_packet_is_xml_with_the_mark() -> None:
    root = ElementTree.fromstring(metadata.notes(RECORD, in_xmp=True).xmp.encode())
    namespace = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
    [kind] = root.iter(f"{namespace}DigitalSourceType")
    assert kind.text == ("http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
    [record] = root.iter("{urn:asymflow:}record")
    assert record.text is not None
    assert metadata.from_json(record.text, "x") == RECORD


def test_the_longest_record_fits_into_a_jpeg_header() -> None:
    long = replace(
        RECORD,
        prompt="🦊" * 1000,
        negative="🦊" * 1000,
        plan=Grid(steps=presets.MAX_STEPS).plan((64, 64)),
    )
    assert len(metadata.notes(long, in_xmp=True).xmp.encode()) < 65_000


def test_a_sheet_lists_its_pictures() -> None:
    other = replace(RECORD, prompt="a bee", seed=2)
    said = json.loads(metadata.sheet_notes([RECORD, other]).record)
    assert [each["prompt"] for each in said["pictures"]] == [RECORD.prompt, "a bee"]
    with pytest.raises(FileFormatError, match="sheet"):
        metadata.from_json(json.dumps(said), "sheet.png")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema": 99}, "schema 99"),
        ({"seed": "7"}, "has seed = '7', which must be a whole number"),
        ({"seed": 1.5}, "must be a whole number"),
        ({"prompt": None}, "must be a text"),
        ({"plan": None}, "plan is not a JSON object"),
        ({"plan_hash": "0"}, "changed after the picture was made"),
        ({"image": {"path": "x"}}, "image has no sha256"),
        ({"versions": {"torch": 2}}, "versions has torch = 2"),
        ({"grid": {**metadata.to_json(RECORD)["grid"], "steps": 0}}, "0 steps"),
        ({"grid": {**metadata.to_json(RECORD)["grid"], "solver": "x"}}, "unknown solver"),
        ({"extra": 1}, "unknown entries: extra"),
    ],
)
def test_a_damaged_record_is_refused(change: dict[str, Any], complaint: str) -> None:
    data = metadata.to_json(RECORD) | change
    with pytest.raises(FileFormatError, match=complaint):
        metadata.from_json(json.dumps(data), "fox.png")
