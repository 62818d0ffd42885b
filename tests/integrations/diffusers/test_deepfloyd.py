"""The stages of DeepFloyd IF: pictures to begin with, to keep a part of, and to make larger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import asymflow
from asymflow.core import engine
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, shifted, uniform
from asymflow.core.statistics import Interval
from asymflow.core.types import CONDITIONAL, FULL, Evidence, Plan, Request
from asymflow.integrations.diffusers import auto
from asymflow.models.diffusers.families import FAMILIES
from asymflow.models.diffusers.pipelines import Family, PipelineAdapter, adapt
from asymflow.planning import profiler, verifier

from .conftest import CARRIED, mixed, seeded

diffusers: Any = pytest.importorskip("diffusers")

Make = Callable[..., Any]
InputImage = Callable[..., dict[str, Tensor]]

STAGES = [name for name in FAMILIES if name.startswith("IF")]
BEGINNING = [name for name in STAGES if "Img2Img" in name or "Inpainting" in name]
LARGER = [name for name in STAGES if "SuperResolution" in name]


def picture(pipe: Any, **call: Any) -> Tensor:
    return pipe(**{"generator": seeded(), "output_type": "pt", **call}).images


def test_all_stages_that_diffusers_has_are_known() -> None:
    offered = {name for name in dir(diffusers) if name.startswith("IF")}
    assert {name for name in offered if name.endswith("Pipeline")} == set(STAGES)


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize(("guidance", "count"), [(1.0, 1), (3.0, 2)])
def test_the_original_plan_makes_the_original_picture(
    deepfloyd: Make, told: dict[str, Any], given: InputImage, kind: str, guidance: float, count: int
) -> None:
    pipe = deepfloyd(kind=kind, thresholding=True, sample_max_value=1.5)
    call = {name: value.expand(count, -1, -1) for name, value in told.items()}
    call |= {**given(kind, count), "guidance_scale": guidance, "num_inference_steps": 10}
    own = picture(pipe, **call)
    assert float(own.std()) > 0.05
    found = picture(asymflow.accelerate(pipe, "original"), **call)
    assert_close(found, own, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", BEGINNING)
@pytest.mark.parametrize("strength", [0.3, 0.55, 1.0])
def test_the_original_plan_begins_where_the_pipeline_does(
    deepfloyd: Make, told: dict[str, Any], given: InputImage, kind: str, strength: float
) -> None:
    pipe = deepfloyd(kind=kind)
    call = {**told, **given(kind), "strength": strength, "num_inference_steps": 10}
    found = picture(asymflow.accelerate(pipe, "original"), **call)
    assert_close(found, picture(pipe, **call), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", BEGINNING)
def test_strength_is_the_same_noise_whatever_the_grid(
    deepfloyd: Make, told: dict[str, Any], given: InputImage, kind: str
) -> None:
    """As a part of the number of steps it would move with the grid."""
    pipe = deepfloyd(kind=kind)
    call = {**told, **given(kind), "strength": 0.5, "num_inference_steps": 20}
    begun: list[float] = []

    def hook(_: Any, args: tuple[Any, ...], kwargs: Any) -> None:
        begun.append(float(args[1]))

    for plan in ("original", plan_of(uniform(6)), plan_of(shifted(9, 4.0))):
        accelerated = asymflow.accelerate(pipe, plan)
        handle = accelerated.unet.register_forward_pre_hook(hook, with_kwargs=True)
        first = len(begun)
        picture(accelerated, **call)
        handle.remove()
        assert len(begun) > first + 1
        del begun[first + 1 :]
    assert begun == pytest.approx([450.0] * 3, abs=1e-2)


@pytest.mark.parametrize("kind", STAGES)
def test_passes_that_a_plan_leaves_out_are_not_made(
    deepfloyd: Make, told: dict[str, Any], given: InputImage, kind: str
) -> None:
    accelerated = asymflow.accelerate(deepfloyd(kind=kind), mixed(FULL, CONDITIONAL, FULL, CARRIED))
    seen: list[int] = []

    def hook(_: Any, args: tuple[Tensor, ...]) -> None:
        seen.append(len(args[0]))

    accelerated.unet.conv_in.register_forward_pre_hook(hook)
    heard: list[int] = []

    def callback(step: int, tau: Tensor, z: Tensor) -> None:
        heard.append(step)

    # Its own schedule begins with all of the noise, and so does the plan.
    whole: dict[str, Any] = {"num_inference_steps": 1000}
    whole |= {"strength": 1.0} if kind in BEGINNING else {}
    made = picture(accelerated, **told, **given(kind), **whole, callback=callback)
    assert seen == [2, 1, 2, 1]
    assert heard == [0, 1, 2, 3]
    assert bool(made.isfinite().all())
    seen.clear()
    picture(accelerated, **told, **given(kind), **whole, guidance_scale=1.0)
    assert seen == [1] * 4


@pytest.mark.parametrize("kind", LARGER)
@pytest.mark.parametrize(
    "plan", [plan_of(uniform(4)), mixed(CONDITIONAL, FULL, CARRIED, FULL)], ids=["full", "mixed"]
)
def test_what_is_shown_beside_the_state_is_told_to_the_engine(
    deepfloyd: Make, told: dict[str, Any], given: InputImage, kind: str, plan: Plan
) -> None:
    """A picture and its noise, which the pipeline draws after the state, from the same seed."""
    pipe = deepfloyd(kind=kind, clip_sample=False, prediction_type="v_prediction")
    inputs: dict[str, Any] = {**told, **given(kind), "noise_level": 40}
    adapter = adapt(pipe, FAMILIES[kind])
    request = Request(inputs, (16, 16), 3, guidance_scale=3.0)
    cond, _ = adapter.encode([request])
    assert cond["beside"].shape == (1, 3, 16, 16)
    assert cond["class_labels"].tolist() == [40]
    if kind != "IFSuperResolutionPipeline":
        return  # these begin with a picture, not with noise
    expected = verifier.rollout(adapter, plan, [request])
    found = picture(asymflow.accelerate(pipe, plan), **inputs, guidance_scale=3.0)
    assert_close(found, expected, rtol=0, atol=5e-5)
    other = picture(asymflow.accelerate(pipe, plan), **{**inputs, "noise_level": 900})
    assert not torch.allclose(other, expected, atol=1e-3)


@pytest.mark.parametrize("kind", BEGINNING)
def test_pixels_that_a_mask_keeps_are_kept(
    deepfloyd: Make, told: dict[str, Any], given: InputImage, kind: str
) -> None:
    call = given(kind)
    if "mask_image" not in call:
        return
    accelerated = asymflow.accelerate(deepfloyd(kind=kind), mixed(FULL, CARRIED, FULL, CARRIED))
    found = picture(accelerated, **told, **call)
    original = call["original_image" if "original_image" in call else "image"]
    kept = (call["mask_image"] == 0).expand_as(found)
    assert torch.equal(found[kept], original[kept])
    assert not torch.allclose(found[~kept], original[~kept], atol=0.1)


def test_files_and_half_precision(
    deepfloyd: Make, told: dict[str, Any], given: InputImage, tmp_path: Any
) -> None:
    kind = "IFInpaintingSuperResolutionPipeline"
    accelerated = asymflow.accelerate(deepfloyd(kind=kind), mixed(FULL, CARRIED, CONDITIONAL))
    accelerated.to(torch.bfloat16)
    half = {name: value.to(torch.bfloat16) for name, value in told.items()}
    made = accelerated(**half, **given(kind), generator=seeded(), output_type="np").images
    assert made.shape == (1, 16, 16, 3)
    assert np.isfinite(made).all()


def test_sizes_are_those_of_the_picture(deepfloyd: Make, told: dict[str, Any]) -> None:
    pipe = deepfloyd(kind="IFImg2ImgPipeline")
    wide = torch.zeros(1, 3, 16, 32)
    made = picture(asymflow.accelerate(pipe, mixed(FULL, CARRIED)), **told, image=wide)
    assert made.shape == wide.shape
    adapter = adapt(pipe, FAMILIES["IFImg2ImgPipeline"])
    with pytest.raises(InputError, match=r"Size 16x16 .* 'image', IFImg2ImgPipeline makes 32x16"):
        engine.run(adapter, plan_of(uniform(2)), [Request({**told, "image": wide}, (16, 16))])


@pytest.mark.parametrize("strength", [0.0, 0.04, 1.5])
def test_strengths_that_leave_no_step_are_refused(
    deepfloyd: Make, told: dict[str, Any], given: InputImage, strength: float
) -> None:
    kind = "IFImg2ImgPipeline"
    accelerated = asymflow.accelerate(deepfloyd(kind=kind), plan_of(uniform(4)))
    call = {**told, **given(kind), "num_inference_steps": 20}
    with pytest.raises(InputError, match=rf"strength={strength} leaves no step of 20"):
        picture(accelerated, **call, strength=strength)


def test_a_picture_beside_the_state_cannot_be_pooled() -> None:
    with pytest.raises(InputError, match="cannot be pooled by 2"):
        Family(network="unet", beside=True, factors=(2,))


def test_measured_plans_are_for_what_they_begin_with(
    deepfloyd: Make,
    told: dict[str, Any],
    given: InputImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same weights, asked to do something else, have a plan of their own."""
    asked: list[str] = []

    def make(
        pipe: Any, family: Family, adapter: PipelineAdapter, calls: Any, steps: Any, *_: object
    ) -> Plan:
        assert steps is None
        asked.append(type(pipe).__name__)
        made = {"adapter": adapter.name, **auto.conditions(pipe, family, calls[0])}
        evidence = Evidence(made, (1.0,) * 4, 1.0, (), None, Interval(0, 0, 0), None, 1)
        return Plan(str(len(asked)), plan_of(uniform(4)).steps, evidence)

    monkeypatch.setattr(auto, "make", make)
    found: list[str] = []
    for kind, changes in (
        ("IFSuperResolutionPipeline", {}),
        ("IFInpaintingSuperResolutionPipeline", {}),
        ("IFInpaintingSuperResolutionPipeline", {"strength": 0.4}),
        ("IFSuperResolutionPipeline", {"noise_level": 20}),
        ("IFInpaintingSuperResolutionPipeline", {}),
    ):
        call = {**told, **given(kind), **changes}
        fast = asymflow.accelerate(deepfloyd(kind=kind), examples=[call], folder=tmp_path)
        found.append(fast.asymflow_plan.name)
    assert found == ["1", "2", "3", "4", "2"]


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(uniform(5), solver="multistep2"),
        mixed(FULL, CARRIED, FULL),
        mixed(CONDITIONAL, FULL, CARRIED),
    ],
    ids=["full", "carried", "conditional"],
)
def test_the_engine_cuts_what_guidance_has_combined(
    deepfloyd: Make, told: dict[str, Any], plan: Plan
) -> None:
    """As the pipeline's scheduler does, which never sees either pass alone."""
    options = {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9}
    pipe = deepfloyd(prediction_type="v_prediction", **options)
    adapter = adapt(pipe, FAMILIES["IFPipeline"])
    request = Request(told, (16, 16), 3, guidance_scale=6.0)
    expected = picture(asymflow.accelerate(pipe, plan), **told, guidance_scale=6.0)
    assert_close(verifier.rollout(adapter, plan, [request]), expected, rtol=0, atol=5e-5)
    bare = adapt(
        deepfloyd(prediction_type="v_prediction", clip_sample=False), FAMILIES["IFPipeline"]
    )
    assert not torch.allclose(verifier.rollout(bare, plan, [request]), expected, atol=1e-2)


def test_profiles_are_of_what_is_run(deepfloyd: Make, told: dict[str, Any]) -> None:
    """Full estimates, those without guidance and carried ones are all within the range."""
    options = {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9}
    adapter = adapt(deepfloyd(**options), FAMILIES["IFPipeline"])
    request = Request(told, (16, 16), 3, guidance_scale=6.0)
    times = adapter.convention.times(3)
    answers = profiler.reference(adapter, [request], times, (FULL, CONDITIONAL, CARRIED))
    for tier in (FULL, CONDITIONAL):
        assert all(float(x_0.abs().max()) <= 1 for x_0 in answers.estimates(tier))
    assert max(float(memory.x_0.abs().max()) for memory in answers.memories) > 1
