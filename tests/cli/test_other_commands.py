"""`styles`, `doctor`, and the thin commands around the data, training and the bench."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asymflow.cli import bench, train
from asymflow.core import presets
from asymflow.core.errors import FileFormatError
from asymflow.models import loading
from asymflow.models.embedded.styles import STYLES
from asymflow.training.data import builder
from asymflow.training.loop import Progress
from asymflow.training.recipes import Recipe
from tests.fakes import FakeModel

from .conftest import Type


def test_styles_lists_every_style_and_its_licence(type_: Type) -> None:
    text = type_("styles").out
    for style in STYLES:
        assert style.id in text
        assert style.licence in text
    said = json.loads(type_("styles", "--json").out)
    assert [style["id"] for style in said["styles"]] == [style.id for style in STYLES]


def test_doctor_finds_a_missing_model(type_: Type, here: Path) -> None:
    typed = type_("doctor", "--weights", "gone.safetensors", "--json")
    said = json.loads(typed.out)
    assert typed.code == 1
    assert "gone.safetensors" in said["model"]["error"]
    assert said["threads"] >= 1
    assert said["gflops"]["cpu float32"] > 0
    assert "cpu" in said["devices"]


def test_doctor_says_what_a_bug_report_needs(type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ref: str, **_: object) -> object:
        raise FileFormatError("It is damaged.")

    monkeypatch.setattr(loading, "load", broken)
    typed = type_("doctor")
    assert typed.code == 1
    for word in ("asymflow", "torch", "threads", "GFLOP/s", "problem", "It is damaged."):
        assert word in typed.out


def test_data_build_passes_its_options_on(type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def build(out: Path, **options: Any) -> str:
        asked.update(options, out=out)
        return "built"

    monkeypatch.setattr(builder, "build", build)
    typed = type_("data", "build", "--out", "d", "--style", "noto", "--style", "twemoji")
    assert typed.out == "built\n"
    assert asked == {
        "out": Path("d"),
        "styles": ["noto", "twemoji"],
        "skin_tones": False,
        "workers": None,
        "cache": None,
    }


def test_data_build_refuses_an_unknown_style(type_: Type, here: Path) -> None:
    typed = type_("data", "build", "--style", "crayon")
    assert typed.code == 2
    assert "crayon" in typed.err
    assert list(here.iterdir()) == []


def test_train_runs_a_recipe_and_copies_the_model(
    type_: Type, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(
        recipe: Recipe,
        data: Path,
        out: Path,
        *,
        device: str | None,
        start: Path | None,
        blend: float,
        on_progress: Callable[[Progress], None],
    ) -> Path:
        assert (recipe.name, data, device) == ("smoke", Path("d"), "cpu")
        assert (start, blend) == (Path("old"), 0.5)
        assert (recipe.minutes, recipe.seed) == (0.5, 3)
        on_progress(Progress(1, 0.5, 0.1, 0.7, 1.0, (32, 32), 9.0, saved=True))
        out.mkdir(parents=True)
        (out / "embedded.safetensors").write_bytes(b"weights")
        return out / "embedded.safetensors"

    monkeypatch.setattr(train, "run", run)
    typed = type_(
        *("train", "smoke", "--data", "d", "--device", "cpu", "--minutes", "0.5", "--seed", "3"),
        *("--start", "old", "--blend", "0.5", "--export", "to/m.safetensors"),
    )
    assert typed.code == 0
    assert typed.out == "to/m.safetensors\n"
    assert (here / "to/m.safetensors").read_bytes() == b"weights"
    assert (here / "runs/smoke/embedded.safetensors").exists()


def test_train_refuses_before_it_starts(
    type_: Type, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "run", lambda *_, **__: pytest.fail("training began"))  # pyright: ignore
    for words in (
        ("cpuu",),
        ("smoke", "--export", "/proc/m"),
        ("smoke", "--out", "/proc/run"),
        ("smoke", "--minutes", "0"),
        ("smoke", "--blend", "0.5"),
        ("smoke", "--start", "old", "--blend", "1.5"),
    ):
        typed = type_("train", *words)
        assert typed.code == 2
        assert typed.err.startswith("error: ")
    assert list(here.iterdir()) == []


def test_bench_quality_draws_with_the_defaults(
    model: FakeModel, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    class Report:
        def __str__(self) -> str:
            return "a table"

        def to_json(self) -> str:
            return '{"schema": 1}\n'

    def quality(generate: Any, data: Path, **options: Any) -> Report:
        asked.update(options, data=data)
        made = generate([("a fox", "noto", 3), ("a bee", "noto", 4)], 32)
        assert made.shape == (2, 32, 32, 4)
        assert not np.array_equal(made[0], made[1])
        return Report()

    monkeypatch.setattr(bench, "measure", quality)
    assert type_("bench", "quality", "--data", "d", "--size", "32", "--quick").out == "a table\n"
    assert (asked["data"], asked["size"], asked["progress"]) == (Path("d"), 32, False)
    assert asked["config"]["guidance"] == presets.GUIDANCE
    few = asked["pairs"]
    assert json.loads(type_("bench", "quality", "--json").out) == {"schema": 1}
    assert asked["pairs"] > 4 * few
