"""Which kept and given plans a pipeline takes: those for its weights, its settings and its use."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import asymflow
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.statistics import Interval
from asymflow.core.types import Evidence, Plan
from asymflow.integrations.diffusers import auto
from asymflow.integrations.diffusers.uses import digest_of, sampler_of
from asymflow.models.diffusers.pipelines import name_of
from asymflow.models.diffusers.prx import FAMILY
from asymflow.planning.plan_files import load_plan, save_plan
from tests.helpers import draw

from .conftest import seeded, shaken

diffusers: Any = pytest.importorskip("diffusers")

Make = Callable[..., Any]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Plan]:
    """Plans that were measured, in place of minutes of measuring."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made: list[Plan] = []

    def make(
        pipe: Any, family: Any, adapter: Any, calls: Sequence[Any], steps: int | None, *_: object
    ) -> Plan:
        evidence = Evidence(
            {"adapter": adapter.name, **auto.conditions(pipe, family, calls[0])},
            (1.0,) * 4,
            1.0,
            (),
            None,
            Interval(0, 0, 0),
            None,
            1,
        )
        made.append(Plan(f"number {len(made)}", plan_of(uniform(4)).steps, evidence))
        return made[-1]

    monkeypatch.setattr(auto, "make", make)
    return made


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [
        each.getMessage()
        for each in caplog.records
        if each.levelno >= logging.WARNING and each.name == "asymflow"
    ]
    caplog.clear()
    return found


def with_scheduler(pipe: Any, scheduler: Any) -> Any:
    changed = copy.copy(pipe)
    vars(changed)["scheduler"] = scheduler
    return changed


# What a plan is bound to.


def test_plans_are_bound_to_the_model(unconditional: Make, measured: list[Plan]) -> None:
    plan = asymflow.accelerate(unconditional(clip_sample=True)).asymflow_plan
    assert plan.binding.family == "UNet2DModel"
    assert len(plan.binding.weights) == 64
    assert plan.evidence.weights == plan.binding.weights
    assert plan.binding.settings["clip"] == "1"
    assert (plan.requires.parameterisation, plan.requires.guidance) == ("eps", "none")
    assert plan.evidence.made["sampler"].startswith("DDIMScheduler:")


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("first", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("second", [torch.float32, torch.float16, torch.bfloat16])
def test_in_any_precision_it_is_the_same_model(
    unconditional: Make,
    measured: list[Plan],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    folder: bool,
    first: torch.dtype,
    second: torch.dtype,
) -> None:
    unconditional().save_pretrained(tmp_path / "model")
    pipes = [
        diffusers.DDIMPipeline.from_pretrained(tmp_path / "model", dtype=dtype)
        for dtype in (first, second)
    ]
    if not folder:
        for pipe in pipes:
            pipe.register_to_config(_name_or_path="")
    one, other = (asymflow.accelerate(pipe).asymflow_plan for pipe in pipes)
    assert len(measured) == 1
    assert other == one
    path = tmp_path / "plan.json"
    save_plan(one, path)
    fast = asymflow.accelerate(pipes[1], path)
    fast(output_type="pt")
    assert warnings(caplog) == []


def test_a_state_dict_is_as_good_as_a_folder(unconditional: Make, measured: list[Plan]) -> None:
    first, second = unconditional(), unconditional()
    state = {name: value.half() for name, value in first.unet.state_dict().items()}
    second.unet.half()
    second.unet.load_state_dict(state, assign=True)
    assert asymflow.accelerate(first).asymflow_plan == asymflow.accelerate(second).asymflow_plan
    assert len(measured) == 1


# Kept plans.


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_plan_is_measured_once_per_use(
    unconditional: Make, measured: list[Plan], tmp_path: Path
) -> None:
    pipe = unconditional()

    def scheduler(kind: str = "DDIMScheduler", **changes: Any) -> Any:
        return getattr(diffusers, kind)(**{"clip_sample": False, **changes})

    multistep = diffusers.DPMSolverMultistepScheduler
    variants = [
        scheduler(),
        scheduler(clip_sample=True),
        scheduler(clip_sample=True, clip_sample_range=0.3),
        scheduler(thresholding=True),
        scheduler(thresholding=True, dynamic_thresholding_ratio=0.9),
        scheduler(beta_end=0.01),
        scheduler(timestep_spacing="trailing"),
        scheduler("DDPMScheduler"),
        multistep(),
        multistep(algorithm_type="sde-dpmsolver++"),
    ]
    plans = [
        asymflow.accelerate(with_scheduler(pipe, each), folder=tmp_path).asymflow_plan
        for each in variants
    ]
    assert len(measured) == len(variants)
    again = [
        asymflow.accelerate(with_scheduler(pipe, each), folder=tmp_path).asymflow_plan
        for each in reversed(variants)
    ]
    assert len(measured) == len(variants)
    assert [each.name for each in again] == [each.name for each in reversed(plans)]


def test_other_examples_are_another_use(
    prx: Make,
    told: dict[str, Any],
    measured: list[Plan],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = prx()
    first = {**told, "use_resolution_binning": False, "guidance_scale": 3.0}
    second = {**first, "prompt_embeds": draw(7, 1, 5, 8)}
    for _ in range(2):
        for number, call in enumerate((first, second)):
            fast = asymflow.accelerate(pipe, examples=[call], folder=tmp_path)
            assert fast.asymflow_plan.name == f"number {number}"
    assert len(measured) == 2
    assert warnings(caplog) == []
    # Who does not say what for takes what there is, and is told.
    third = {**first, "prompt_embeds": draw(8, 1, 5, 8)}

    def defaults(pipe: Any, examples: Sequence[Any]) -> tuple[dict[str, Any]]:
        return (third,)

    monkeypatch.setattr(auto, "examples_of", defaults)
    fast = asymflow.accelerate(pipe, folder=tmp_path)
    assert fast.asymflow_plan.name == "number 0"
    [line] = warnings(caplog)
    assert "plan.json was measured with examples that were given then" in line
    assert len(measured) == 2


def test_another_declaration_of_the_pipeline_is_another_model(
    prx: Make, told: dict[str, Any], measured: list[Plan], tmp_path: Path
) -> None:
    pipe, call = prx(), {**told, "use_resolution_binning": False}
    for floor in (0.05, 0.1, 0.05, 0.1):
        family = replace(FAMILY, floor=floor)
        asymflow.accelerate(pipe, examples=[call], family=family, folder=tmp_path)
    assert len(measured) == 2


def test_tuned_weights_are_measured_again(
    unconditional: Make, measured: list[Plan], tmp_path: Path
) -> None:
    pipe = unconditional()
    asymflow.accelerate(pipe, folder=tmp_path)
    with torch.no_grad():
        next(pipe.unet.parameters()).add_(1e-3)
    asymflow.accelerate(pipe, folder=tmp_path)
    assert len(measured) == 2
    # The plan for the old weights was of no more use.
    assert [path.name for path in (tmp_path / "asymflow").iterdir()] == ["plan.json"]


# Given plans.


def test_a_plan_of_other_weights_runs_and_says_so_once(
    unconditional: Make, measured: list[Plan], caplog: pytest.LogCaptureFixture
) -> None:
    plan = asymflow.accelerate(unconditional()).asymflow_plan
    other = unconditional()
    shaken(other.unet, 1e-3)
    fast = asymflow.accelerate(other, plan)
    for _ in range(2):
        fast(output_type="np")
    [line] = warnings(caplog)
    assert f"was measured on {plan.binding}, and this model is UNet2DModel:" in line


@pytest.mark.parametrize(
    ("options", "named"),
    [({"clip_sample": True}, "clip none, and it is 1 here"), ({"beta_end": 0.01}, "schedule ")],
)
def test_a_plan_of_other_settings_runs_and_says_so(
    unconditional: Make,
    measured: list[Plan],
    caplog: pytest.LogCaptureFixture,
    options: Mapping[str, Any],
    named: str,
) -> None:
    plan = asymflow.accelerate(unconditional()).asymflow_plan
    asymflow.accelerate(unconditional(**options), plan)
    [line] = warnings(caplog)
    assert "was measured on this model with" in line
    assert named in line


def test_a_plan_for_another_kind_of_model_is_refused(
    unconditional: Make, deepfloyd: Make, measured: list[Plan]
) -> None:
    plan = asymflow.accelerate(unconditional()).asymflow_plan
    with pytest.raises(InputError, match=r"UNet2DModel:.*this model is UNet2DConditionModel:"):
        asymflow.accelerate(deepfloyd(), plan)
    with pytest.raises(InputError, match="needs parameterisation = 'eps'"):
        asymflow.accelerate(unconditional(prediction_type="v_prediction"), plan)
    bare = asymflow.accelerate(
        unconditional(prediction_type="v_prediction"), Plan(plan.name, plan.steps)
    )
    assert bare(output_type="np").images.shape == (1, 8, 8, 3)


# Afterwards.


def test_what_is_replaced_after_accelerating_is_noticed(
    unconditional: Make, measured: list[Plan], caplog: pytest.LogCaptureFixture
) -> None:
    pipe = unconditional()
    fast = asymflow.accelerate(pipe)
    own = fast.scheduler
    fast.scheduler = diffusers.DDIMScheduler(clip_sample=False, prediction_type="v_prediction")
    with pytest.raises(InputError, match="needs parameterisation = 'eps'"):
        fast(output_type="np")
    fast.scheduler = own
    fast(output_type="np")
    assert warnings(caplog) == []
    with torch.no_grad():
        next(fast.unet.parameters()).add_(1e-3)
    for _ in range(2):
        fast(output_type="np")
    assert len(warnings(caplog)) == 1
    fast.unet = shaken(copy.deepcopy(fast.unet), 0.01)
    for _ in range(2):
        fast(output_type="np")
    assert len(warnings(caplog)) == 1


def test_a_plan_that_is_bound_makes_the_same_pictures(
    unconditional: Make, measured: list[Plan]
) -> None:
    fast = asymflow.accelerate(unconditional())
    bare = asymflow.accelerate(unconditional(), plan_of(uniform(4)))
    first, second = (each(generator=seeded(), output_type="np").images for each in (fast, bare))
    assert np.array_equal(first, second)


# Files of version 0.1.


def test_plans_of_version_0_1_are_taken_as_before(
    unconditional: Make, measured: list[Plan], tmp_path: Path
) -> None:
    pipe, path = unconditional(), tmp_path / "asymflow" / "plan.json"
    plan = asymflow.accelerate(pipe, folder=tmp_path).asymflow_plan
    made = {
        name: value
        for name, value in plan.evidence.made.items()
        if name not in ("sampler", "examples")
    }
    evidence = replace(plan.evidence, made=made, weights=None)
    save_plan(replace(plan, evidence=evidence, binding=None, requires=None), path)
    measured.clear()
    taken = asymflow.accelerate(pipe, folder=tmp_path).asymflow_plan
    assert (taken, taken.binding) == (plan, None)
    assert asymflow.accelerate(pipe, path).asymflow_plan == plan
    assert measured == []
    other = unconditional()
    shaken(other.unet, 1e-3)
    family = asymflow.accelerate(other, plan_of(uniform(2)))._asymflow.family
    assert made["adapter"] == name_of(pipe, family) != name_of(other, family)
    with pytest.raises(InputError, match=r"made for pipeline:.* and this model is pipeline:"):
        asymflow.accelerate(other, path)
    assert load_plan(path).binding is None


# Digests.


def test_options_of_a_scheduler_that_are_defaults_do_not_count() -> None:
    plain = diffusers.DDIMScheduler()
    assert sampler_of(plain) == sampler_of(diffusers.DDIMScheduler(beta_start=0.0001))
    assert sampler_of(plain) == sampler_of(diffusers.DDIMScheduler.from_config(plain.config))
    others = [
        diffusers.DDIMScheduler(timestep_spacing="trailing"),
        diffusers.DDIMScheduler(trained_betas=np.linspace(1e-4, 0.02, 1000)),
        diffusers.DDIMScheduler(trained_betas=np.linspace(1e-4, 0.03, 1000)),
        diffusers.DDPMScheduler(),
    ]
    assert len({sampler_of(each) for each in (plain, *others)}) == 5


def test_calls_are_told_from_others() -> None:
    from PIL import Image

    picture = Image.new("RGB", (4, 4))
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    calls: list[Sequence[Mapping[str, Any]]] = [
        [{}],
        [{}, {}],
        [{"prompt": "a fox"}],
        [{"prompt": ["a fox"]}],
        [{"prompt": "a fox"}, {"prompt": "a cat"}],
        [{"prompt": "a cat"}, {"prompt": "a fox"}],
        [{"image": picture}],
        [{"image": red}],
        [{"image": draw(0, 2, 3)}],
        [{"image": draw(0, 3, 2)}],
        [{"image": draw(1, 2, 3).numpy()}],
        [{"eta": 1}],
        [{"eta": None}],
    ]
    assert len({digest_of(each) for each in calls}) == len(calls)
    assert digest_of([{"a": 1, "b": picture}]) == digest_of([{"b": picture.copy(), "a": 1}])
    assert digest_of([{"x": object()}]) == digest_of([{"x": object()}])
