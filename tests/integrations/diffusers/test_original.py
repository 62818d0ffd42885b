"""The pipeline's own schedule as a plan gives the pipeline's own pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import asymflow
from asymflow.core.errors import InputError
from asymflow.models.diffusers.pipelines import Family

diffusers: Any = pytest.importorskip("diffusers")

Make = Callable[..., Any]


def both(pipe: Any, steps: int, family: Family | None = None, **call: Any) -> tuple[Any, Any]:
    """States of the pipeline itself and of the plan, from the same noise."""
    accelerated = asymflow.accelerate(pipe, "original", family=family)
    first, second = (
        each(
            generator=torch.Generator().manual_seed(3),
            num_inference_steps=steps,
            output_type="pt",
            **call,
        ).images
        for each in (pipe, accelerated)
    )
    assert float(first.std()) > 0.05
    return second, first


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("clip", "spacing"), [(False, "trailing"), (True, "leading")])
def test_ddim(unconditional: Make, prediction: str, clip: bool, spacing: str) -> None:
    pipe = unconditional(prediction_type=prediction, clip_sample=clip, timestep_spacing=spacing)
    assert_close(*both(pipe, 10, batch_size=2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("corrected", [None, False, True])
def test_ddim_with_the_noise_of_clipped_estimates(
    unconditional: Make, corrected: bool | None
) -> None:
    pipe = unconditional(clip_sample=True)
    assert_close(*both(pipe, 10, use_clipped_model_output=corrected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("schedule", ["scaled_linear", "squaredcos_cap_v2"])
def test_ddpm_pipelines_with_a_deterministic_scheduler(unconditional: Make, schedule: str) -> None:
    pipe = unconditional("DDPMPipeline", beta_schedule=schedule)
    assert_close(*both(pipe, 10), rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_prx(prx: Make, told: dict[str, Any], guidance: float, shift: float) -> None:
    call: dict[str, Any] = {**told, "use_resolution_binning": False, "guidance_scale": guidance}
    assert_close(*both(prx(shift=shift), 28, **call), rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("thresholding", [False, True])
def test_deepfloyd(
    deepfloyd: Make, told: dict[str, Any], guidance: float, thresholding: bool
) -> None:
    pipe = deepfloyd(
        thresholding=thresholding, sample_max_value=1.5, dynamic_thresholding_ratio=0.9
    )
    call: dict[str, Any] = {**told, "guidance_scale": guidance}
    assert_close(*both(pipe, 10, **call), rtol=0, atol=1e-4)


def test_every_call_chooses_its_number_of_steps(unconditional: Make) -> None:
    accelerated = asymflow.accelerate(unconditional(), "original")
    asked: list[int] = []

    def hook(*_: object) -> None:
        asked.append(1)

    accelerated.unet.register_forward_pre_hook(hook)
    for steps in (3, 7):
        asked.clear()
        accelerated(num_inference_steps=steps, output_type="np")
        assert len(asked) == steps


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        ("DDPMScheduler", {}, "draws noise at every step"),
        ("DDIMScheduler", {"set_alpha_to_one": False}, "stops before all noise is gone"),
        (
            "DDIMScheduler",
            {"timestep_spacing": "linspace"},
            "asks its network elsewhere: at 999, 979",
        ),
        ("DPMSolverMultistepScheduler", {}, "not Euler's method"),
    ],
)
def test_schedules_that_no_plan_makes_are_refused(
    unconditional: Make, scheduler: str, options: dict[str, Any], message: str
) -> None:
    pipe = unconditional("DDIMPipeline")
    pipe.scheduler = getattr(diffusers, scheduler)(**options)
    with pytest.raises(InputError, match=message):
        asymflow.accelerate(pipe, "original")


def test_a_learned_variance_has_to_go(deepfloyd: Make, told: dict[str, Any]) -> None:
    pipe = deepfloyd("DDPMScheduler", variance_type="learned_range")
    with pytest.raises(InputError, match=r"register_to_config\(variance_type='fixed_small'\)"):
        asymflow.accelerate(pipe, "original")
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.scheduler.register_to_config(variance_type="fixed_small")
    assert_close(*both(pipe, 10, **told), rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", [{"stochastic_sampling": True}, {"use_dynamic_shifting": True}])
def test_flows_that_no_plan_makes_are_refused(prx: Make, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        asymflow.accelerate(prx(**options), "original")
