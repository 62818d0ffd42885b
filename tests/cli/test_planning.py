"""`asymflow profile` and `asymflow plan`, on a real model too small to draw anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from asymflow.cli import planning
from asymflow.core import engine
from asymflow.core.adapter import Adapter
from asymflow.core.binding import Binding
from asymflow.core.engine import End
from asymflow.core.types import Plan, Request
from asymflow.models.embedded import adapter as embedded
from asymflow.planning import plan_files, prediction, profiler
from asymflow.planning.plan_files import save_plan
from asymflow.planning.prediction import Cost

from .conftest import Type
from .test_real_model import write_model

SMALL = ("--size", "32", "--pictures", "1", "--candidates", "4")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    write_model(path, seed=0)
    return path


@pytest.fixture
def profile(tiny: Path, type_: Type) -> Path:
    typed = type_("profile", *SMALL, "-o", "p.safetensors", "--weights", tiny)
    assert typed.code == 0
    assert typed.out == "p.safetensors\n"
    return Path("p.safetensors")


def test_a_profile_says_what_it_was_measured_on(profile: Path, tiny: Path) -> None:
    found = plan_files.load_profile(profile)
    assert found.made["adapter"] == embedded.load(tiny).name
    assert found.made["size"] == "32x32"
    names = [tier.name for tier in found.tiers]
    assert names == ["full", "full in turn", "conditional", "conditional+"]


def test_without_a_limit_the_front_is_listed(profile: Path, type_: Type) -> None:
    typed = type_("plan", profile, "--front", "front.png")
    assert typed.code == 0
    head, *rows = typed.out.splitlines()
    assert head.split() == ["cost", "error", "steps", "forwards", "tiers"]
    errors = [float(row.split()[1]) for row in rows]
    assert errors == sorted(errors, reverse=True)
    with Image.open("front.png") as image:
        assert image.width > 600
    data = json.loads(type_("plan", profile, "--json").out)
    assert len(data["front"]) == len(rows)


def test_a_budget_gives_a_plan_that_runs(profile: Path, tiny: Path, type_: Type) -> None:
    typed = type_("plan", profile, "--budget", "6", "--cost", "forwards", "-o", "plan.json")
    assert typed.code == 0
    assert "peak memory beyond the weights: " in typed.out
    assert "predicted: " in typed.out
    plan = plan_files.load_plan(Path("plan.json"))
    assert plan.forwards <= 6
    drawn = type_("generate", "a fox", "--plan", "plan.json", "--size", "32", "--weights", tiny)
    assert drawn.code == 0
    assert json.loads(type_("plan", profile, "--error", "9", "--json").out)["steps"]


@pytest.mark.parametrize("cost", ["ms", "macs", "forwards"])
def test_a_budget_may_be_a_part_of_what_heun_costs(cost: Cost, profile: Path, type_: Type) -> None:
    found = plan_files.load_profile(profile)
    full = {"ms": found.cost_ms[0], "macs": found.macs[0], "forwards": 2}[cost]
    assert planning.budget_of("33x", found, cost) == pytest.approx(3 * full)
    assert planning.budget_of(" 49.5× ", found, cost) == pytest.approx(2 * full)
    assert planning.budget_of("7", found, cost) == 7
    words = ("plan", profile, "--cost", cost, "--json", "--budget")
    plan = plan_files.plan_from_json(json.loads(type_(*words, "33X").out))
    assert prediction.price(found, plan, cost=cost) <= 3 * full * (1 + 1e-9)


def test_an_error_gives_the_cheapest_plan_within_it(profile: Path, type_: Type) -> None:
    front = json.loads(type_("plan", profile, "--json", "--cost", "forwards").out)["front"]
    for each in front:
        words = ("plan", profile, "--cost", "forwards", "--error", each["error"] * 1.0001)
        said = type_(*words).out.splitlines()[-1].split()
        # Prices are rounded up in the search, so that a cheaper one than the front's may turn up.
        assert float(said[1]) <= each["cost"]
        assert float(said[-1]) <= each["error"] + 0.0005


def test_an_interrupted_profile_can_be_resumed(
    tiny: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("profile", *SMALL, "-o", "p.safetensors", "--weights", tiny)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(profiler, "_growth", stop)
        typed = type_(*words)
    assert typed.code == 130
    assert "run the same command to resume" in " ".join(typed.err.split())
    partial = Path("p.safetensors.partial")
    assert partial.stat().st_size > 0
    assert not Path("p.safetensors").exists()
    again = type_(*words)
    assert again.code == 0
    assert "Resuming from p.safetensors.partial" in again.err
    assert not partial.exists()
    assert Path("p.safetensors").exists()


def test_a_verified_plan_carries_evidence_and_is_bound_to_its_weights(
    profile: Path, tiny: Path, tmp_path: Path, type_: Type
) -> None:
    words = ("plan", profile, "--budget", "6", "--cost", "forwards", "-o", "plan.json")
    typed = type_(*words, "--verify", "--rollouts", "2", "--pictures", "2", "--weights", tiny)
    assert typed.code == 0
    assert "pictures it was not chosen by" in typed.out
    plan = plan_files.load_plan(Path("plan.json"))
    assert plan.forwards <= 6
    assert plan.evidence is not None
    assert plan.evidence.pictures == 2
    other = tmp_path / "other.safetensors"
    write_model(other, seed=1)
    size = ("--size", "32", "--weights", other)
    drawn = type_("generate", "a fox", "--plan", "plan.json", *size)
    assert drawn.code == 0
    assert "The plan 'planned' was measured on embedded:" in drawn.err
    assert "`asymflow plan verify` measures them." in drawn.err
    own = type_("generate", "a fox", "--plan", "plan.json", "--size", "32", "--weights", tiny)
    assert own.code == 0
    assert "was measured on" not in own.err
    save_plan(replace(plan, binding=Binding("jit", 64 * "0")), Path("jit.json"))
    refused = type_("generate", "a fox", "--plan", "jit.json", *size)
    assert refused.code == 2
    assert "The plan 'planned' was made for jit:000000000000, and this model is" in refused.err
    assert type_(*words, "--verify", "--weights", other).code == 2


def test_an_interrupted_verification_resumes(
    profile: Path, tiny: Path, tmp_path: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ("plan", profile, "--budget", "6", "--cost", "forwards", "--verify", "--json")
    words = (*words, "--rollouts", "4", "--pictures", "2", "--weights", tiny)
    made: list[int] = []
    inner = engine.rollout

    def counting(stop_at: int | None) -> None:
        def rollout(adapter: Adapter, plan: Plan, wanted: Sequence[Request]) -> list[End]:
            made.append(len(wanted))
            if len(made) == stop_at:
                raise KeyboardInterrupt
            return inner(adapter, plan, wanted)

        monkeypatch.setattr(engine, "rollout", rollout)

    counting(40)
    typed = type_(*words)
    assert typed.code == 130
    assert "the next try resumes" in " ".join(typed.err.split())
    stopped = len(made)
    counting(None)
    again = type_(*words)
    assert again.code == 0
    resumed = len(made) - stopped
    made.clear()
    assert not list((tmp_path / "cache" / "asymflow" / "measuring").iterdir())
    whole = type_(*words)
    assert json.loads(whole.out)["steps"] == json.loads(again.out)["steps"]
    assert resumed < len(made) - 35


def test_costs_alone_can_be_measured_again(profile: Path, tiny: Path, type_: Type) -> None:
    before = plan_files.load_profile(profile)
    typed = type_("profile", "--costs-only", "-o", profile, "--weights", tiny)
    assert typed.code == 0
    after = plan_files.load_profile(profile)
    assert (after.local_error == before.local_error).all()
    assert after.made["adapter"] == before.made["adapter"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("plan", "none.safetensors"), "Cannot read the profile none.safetensors"),
        (("plan", "p.safetensors", "--budget", "0.000001"), "No plan fits"),
        (("plan", "p.safetensors", "--budget", "1", "--error", "1"), "one"),
        (("plan", "p.safetensors", "--budget", "ten"), "'ten' is not a budget"),
        (("plan", "p.safetensors", "--budget", "0x"), "'0x' is not a budget"),
        (("plan", "p.safetensors", "--budget", "nan"), "cannot be planned for"),
        (("bench", "plan", "best", "-o", "x.pdf"), "ends in .html or .png"),
        (("plan", "p.safetensors", "-o", "x.json"), "needs a limit"),
        (("plan", "p.safetensors", "--budget", "5", "--cost", "euros"), "Unknown cost 'euros'"),
        (("plan", "p.safetensors", "--verify"), "needs a limit"),
        (("profile", "--size", "33"), "is not a multiple of 8"),
        (("generate", "a fox", "--plan", "quick"), "There is no plan called 'quick'"),
    ],
)
def test_wrong_input_is_refused(
    words: tuple[str, ...], complaint: str, profile: Path, tiny: Path, type_: Type
) -> None:
    weights = ("--weights", tiny) if words[0] != "plan" else ()
    typed = type_(*words, *weights)
    assert typed.code == 2
    assert complaint in typed.err
    assert not Path("x.json").exists()


def test_a_plan_of_the_shipped_model_is_taken_for_other_weights_if_it_is_named(
    tiny: Path, type_: Type
) -> None:
    words = ("sheet", "a fox", "--plan", "fast", "--weights", tiny, "--no-preview")
    assert type_(*words).err.count("The plan 'fast' was measured on embedded:") == 1
    drawn = type_("generate", "a fox", "--plan", "fast", "--weights", tiny)
    assert drawn.code == 0
    assert "The plan 'fast' was measured on embedded:" in drawn.err
    # Nobody asked for a plan: a grid will do.
    drawn = json.loads(type_("generate", "a fox", "--weights", tiny, "--json").out)
    assert drawn["plan"]["name"] == "damped2-30"


def test_a_strip_shows_every_estimate(tiny: Path, type_: Type) -> None:
    words = ("bench", "strip", "a fox", "--size", "32", "--weights", tiny, "-o", "strip.png")
    assert type_(*words).out == "strip.png\n"
    with Image.open("strip.png") as image:
        # The grid takes over for foreign weights: 30 steps and the picture itself.
        assert image.width > 31 * 100


def test_a_plan_is_explained_on_a_page_or_a_picture(tiny: Path, type_: Type) -> None:
    words = ("bench", "plan", "default", "--prompt", "<b>a fox</b>", "--size", "32")
    typed = type_(*words, "--weights", tiny, "-o", "page.html")
    assert typed.out == "page.html\n"
    page = Path("page.html").read_text("utf-8")
    assert "“&lt;b&gt;a fox&lt;/b&gt;”" in page
    assert page.count("<img") == 2 + 30 + 1  # the ends, every estimate, and the picture again
    assert type_(*words, "--weights", tiny, "-o", "page.png").out == "page.png\n"
    with Image.open("page.png") as image:
        assert image.width > 1000
