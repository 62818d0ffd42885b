"""Exported plans in pipelines and schedulers of diffusers that know nothing of asymflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import asymflow
from asymflow import AsymFlowScheduler
from asymflow.core import engine
from asymflow.core.binding import Requirements
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Request
from asymflow.models.diffusers.families import UNCONDITIONAL, family_of
from asymflow.models.diffusers.pipelines import adapt
from asymflow.planning.binding import bound
from asymflow.planning.exports import export
from asymflow.planning.plan_json import plan_from_json

from .conftest import seeded

diffusers: Any = pytest.importorskip("diffusers")

Make = Callable[..., Any]


def test_timesteps_of_a_flow_make_the_picture_of_the_engine(
    prx: Make, told: dict[str, Any]
) -> None:
    """The noise of this pipeline has twice the usual scale, which is in the times of its plans."""
    pipe = prx(shift=3.0)  # which would move the timesteps, had the export no scheduler
    plan = plan_of(shifted(6, 4.0), solver="euler", name="even")
    plan = bound(plan, adapt(pipe, family_of(pipe)).description)
    call = {**told, "guidance_scale": 3.0, "output_type": "pt", "use_resolution_binning": False}
    fast = asymflow.accelerate(pipe, plan)(generator=seeded(), **call).images
    found = export(plan, "diffusers").data
    kind = getattr(diffusers, found["scheduler"]["_class_name"])
    pipe.scheduler = kind.from_config(found["scheduler"])
    there = pipe(generator=seeded(), timesteps=found["timesteps"], **call).images
    assert_close(there, fast, rtol=0, atol=1e-5)
    # The same list, as servers pass it to such a pipeline.
    request = export(plan, "sglang").data["request"]
    served = pipe(generator=seeded(), **request["diffusers_kwargs"], **call).images
    assert torch.equal(served, there)


def test_every_formula_is_in_the_scheduler_of_the_export(prx: Make, told: dict[str, Any]) -> None:
    pipe = prx()
    plan = plan_of(shifted(5, 4.0), solver="corrected2")
    plan = bound(plan, adapt(pipe, family_of(pipe)).description)
    call = {**told, "guidance_scale": 3.0, "output_type": "pt", "use_resolution_binning": False}
    fast = asymflow.accelerate(pipe, plan)(generator=seeded(), **call).images
    found = export(plan, "diffusers").data["asymflow_scheduler"]
    pipe.scheduler = AsymFlowScheduler.from_config(
        pipe.scheduler.config, plan=plan_from_json(found["plan"]), noise=found["noise"]
    )
    assert torch.equal(pipe(generator=seeded(), **call).images, fast)


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of its scheduler
def test_sigmas_of_discrete_timesteps_make_the_picture_of_the_engine(unconditional: Make) -> None:
    pipe = unconditional("DDPMPipeline", "DDPMScheduler")
    plan = plan_of([0.99 * t for t in shifted(6, 2.0)], solver="euler")
    plan = replace(plan, requires=Requirements(parameterisation="eps"))
    [result] = engine.run(adapt(pipe, UNCONDITIONAL), plan, [Request({}, (8, 8), 3)])
    found = export(plan, "diffusers").data
    kind = getattr(diffusers, found["scheduler"]["_class_name"])
    scheduler = kind.from_config({**pipe.scheduler.config, **found["scheduler"]})
    scheduler.set_timesteps(sigmas=found["sigmas"])
    alpha = 1 / (1 + found["sigmas"][0] ** 2) ** 0.5
    x = torch.randn(1, 3, 8, 8, generator=seeded()) / alpha
    for t in scheduler.timesteps:
        with torch.no_grad():
            eps = pipe.unet(scheduler.scale_model_input(x, t), t).sample
        x = scheduler.step(eps, t, x).prev_sample
    # Its timesteps are interpolated in float32.
    picture = (x[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(picture, result.picture, rtol=0, atol=2e-3)


@pytest.mark.parametrize("count", [1, 2, 7, 10, 49])
def test_a_guider_is_on_where_the_plan_has_guidance(count: int) -> None:
    for low, high in ((0.0, 1.0), (0.0, 0.7), (0.4, 1.0), (0.3, 0.8)):
        plan = plan_of(shifted(count, 2.0), solver="euler", guidance_interval=(low, high))
        config = export(plan, "diffusers").data["guider"]
        wanted = [step.tier.guided for step in plan.steps]
        if config is None:
            assert not any(wanted)
            continue
        guider = diffusers.ClassifierFreeGuidance(
            guidance_scale=3.0, start=config["start"], stop=config["stop"]
        )
        on: list[bool] = []
        for step in range(count):
            guider.set_state(step=step, num_inference_steps=count, timestep=torch.tensor(0))
            on.append(guider.num_conditions == 2)
        assert on == wanted
