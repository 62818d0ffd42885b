"""`asymflow generate --format svg`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asymflow.core.card import Card
from asymflow.io import tracing
from tests.fakes import FakeModel

from .conftest import Type

FOX = ("generate", "a fox", "--steps", "4", "--seed", "7")


def test_a_picture_is_written_as_svg_and_replayed(
    model: FakeModel, type_: Type, here: Path
) -> None:
    assert type_(*FOX, "--format", "svg").out == "a-fox-7.svg\n"
    data = (here / "a-fox-7.svg").read_bytes()
    assert tracing.rendered(data, (64, 64))[32, 32, 3] == 1
    assert b"trainedAlgorithmicMedia" in data
    typed = type_("generate", "--like", "a-fox-7.svg", "-o", "again.svg")
    assert typed.code == 0
    assert (here / "again.svg").read_bytes() == data


def test_models_of_other_pictures_have_no_svg(
    model: FakeModel, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = replace(model.card, flat=False)

    def photographic(self: FakeModel) -> Card:
        return card

    monkeypatch.setattr(FakeModel, "card", property(photographic))
    typed = type_(*FOX, "-o", "fox.svg")
    assert typed.code == 2
    assert "no flat drawings" in typed.err
    assert model.calls == 0


def test_a_sheet_has_no_svg(model: FakeModel, type_: Type) -> None:
    typed = type_("sheet", "a fox", "--format", "svg")
    assert (typed.code, model.loads) == (2, 0)
    assert "--format png" in typed.err
    assert type_(*FOX, "-o", "fox.svg", "--format", "png").code == 2
