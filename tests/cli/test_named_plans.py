"""`asymflow plan` without a profile makes the named plans, which other commands find."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asymflow.core.types import Tier
from asymflow.planning import plan_files, profiler
from asymflow.planning.effort import EFFORTS, Effort
from asymflow.planning.shelf import NAMES
from tests.fakes import FakeModel

from .conftest import Type


def test_plans_are_made_and_found_by_name(model: FakeModel, type_: Type, here: Path) -> None:
    typed = type_("plan", "--json")
    assert typed.code == 0, typed.err
    said = json.loads(typed.out)
    assert {*said["plans"], *said["absent"]} == set(NAMES)
    assert "best" in said["plans"]
    for name, path in said["files"].items():
        plan = plan_files.load_plan(Path(path))
        assert plan.name == name
        assert plan.evidence is not None
        assert plan.evidence.made["promise"] == name
    listed = json.loads(type_("models", "embedded", "--json").out)["models"][0]
    assert list(listed["plans"]) == [*said["plans"], "default"]
    drawn = json.loads(type_("generate", "a fox", "--plan", "best", "--json", "-o", "x.png").out)
    assert drawn["plan"]["name"] == "best"
    shown = json.loads(type_("plan", "show", "best", "--json").out)
    assert shown["plan"]["name"] == "best"


def test_a_table_says_what_was_measured_and_why_a_name_is_absent(
    model: FakeModel, type_: Type
) -> None:
    typed = type_("plan")
    assert typed.code == 0
    for word in ("best", "NFE", "RMSE", "0 of 16"):
        assert word in typed.out
    for name in NAMES:
        assert name in typed.out or f"There is no {name}: " in typed.err
    assert "network passes" in typed.err


def test_an_interrupted_measurement_resumes(
    model: FakeModel, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    growth = profiler._growth  # pyright: ignore[reportPrivateUsage]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def prices(_: object, __: object, tiers: Sequence[Tier], *___: object) -> Any:
        cost = tuple(2.0 if tier.guided else 1.0 for tier in tiers)
        return cost, (1,) * len(tiers), (0,) * len(tiers), {}

    # What is tried depends on prices, and so on the clock.
    monkeypatch.setattr(profiler, "_prices", prices)
    monkeypatch.setattr(profiler, "_growth", stop)
    typed = type_("plan")
    assert typed.code == 130
    assert "the next try resumes" in typed.err
    before = model.calls
    monkeypatch.setattr(profiler, "_growth", growth)
    assert type_("plan").code == 0
    again = model.calls - before
    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")
    before = model.calls
    assert type_("plan").code == 0
    assert again < model.calls - before


def test_options_of_a_profile_are_not_those_of_a_model(model: FakeModel, type_: Type) -> None:
    typed = type_("plan", "--budget", "300", "--size", "32")
    assert typed.code == 2
    assert "Leave --size, --guidance and --effort out" in typed.err


def test_a_plan_that_was_not_made_is_missed(model: FakeModel, type_: Type) -> None:
    typed = type_("generate", "a fox", "--plan", "fast", "-o", "x.png")
    assert typed.code == 2
    assert "has no plan 'fast': there is default" in typed.err


def test_more_effort_takes_more_passes_and_an_unknown_one_is_refused(
    model: FakeModel, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Effort(pictures=2, moves=8, first=2, again=1)
    monkeypatch.setitem(EFFORTS, "quick", few)
    monkeypatch.setitem(EFFORTS, "full", replace(few, pictures=8))
    quick, full = (
        json.loads(type_("plan", "--json", "--effort", level).out) for level in ("quick", "full")
    )
    assert quick["passes"] < full["passes"]
    typed = type_("plan", "--effort", "ful")
    assert typed.code == 2
    assert "Unknown effort 'ful'. Did you mean 'full'?" in typed.err
