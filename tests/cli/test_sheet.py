"""`asymflow sheet`: every style of every prompt and seed, each as `generate` would draw it."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from tests.fakes import FakeModel

from .conftest import Type


def test_a_sheet_has_a_row_per_prompt_and_seed(model: FakeModel, type_: Type) -> None:
    typed = type_("sheet", "a fox", "a bee", "-n", "2", "--seed", "5", "--steps", "2")
    assert typed.out == "sheet-a-fox-5.png\n"
    with Image.open("sheet-a-fox-5.png") as image:
        said = json.loads(image.info["asymflow"])
        assert "trainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]
        assert image.height > 4 * 128
        assert image.width > 3 * 128
    made = [(each["prompt"], each["style"], each["seed"]) for each in said["pictures"]]
    assert made == [
        (prompt, style, seed)
        for prompt in ("a fox", "a bee")
        for seed in (5, 6)
        for style in model.styles
    ]


def test_a_cell_is_the_picture_that_generate_draws(model: FakeModel, type_: Type) -> None:
    type_("sheet", "a fox", "--seed", "5", "--steps", "2", "-o", "sheet.png")
    type_(
        "generate", "a fox", "--seed", "5", "--steps", "2", "--style", "twemoji",
        "--background", "white", "-o", "fox.png",
    )  # fmt: skip
    with Image.open("sheet.png") as image:
        sheet = np.asarray(image)
    with Image.open("fox.png") as image:
        fox = np.asarray(image).repeat(2, 0).repeat(2, 1).astype(int)
    last = sheet[-134:-6, -134:-6].astype(int)
    assert np.abs(last - fox).max() <= 1


def test_json_lists_prompts_and_styles(model: FakeModel, type_: Type) -> None:
    said = json.loads(type_("sheet", "a fox", "--steps", "1", "--json", "-o", "s.png").out)
    assert said["files"] == ["s.png"]
    assert said["prompts"] == ["a fox"]
    assert said["styles"] == list(model.styles)
    assert "prompt" not in said


def test_wrong_prompts_are_refused(model: FakeModel, type_: Type) -> None:
    typed = type_("sheet", "a fox", "  ")
    assert typed.code == 2
    assert "The prompt is empty" in typed.err
    assert model.loads == 0
