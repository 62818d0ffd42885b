"""What a picture file says about how it was made."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from asymflow.core import presets
from asymflow.core.errors import FileFormatError
from asymflow.core.presets import Grid
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import Decision, Rule
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
RULES = (Rule(1, "skip", 0.25), Rule(2, "insert", 0.5))
ADAPTIVE = replace(
    RECORD,
    plan=replace(plan_of(uniform(5)), adaptive=RULES),
    decisions=(Decision(1, "skip", 1 / 7), Decision(3, "insert", 0.75)),
)
PLAIN = replace(RECORD, negative="", style=None, image=None, grid=None, background=None)


@pytest.mark.parametrize("record", [RECORD, ADAPTIVE, PLAIN], ids=["full", "adaptive", "plain"])
@pytest.mark.parametrize("in_xmp", [True, False])
def test_a_record_keeps_every_bit(record: Record, in_xmp: bool) -> None:
    notes = metadata.notes(record, in_xmp=in_xmp)
    assert metadata.from_json(notes.record, "x") == record
    found = images.record_in_xmp(notes.xmp)
    assert (found is not None) == in_xmp
    assert found is None or metadata.from_json(found, "x") == record


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
