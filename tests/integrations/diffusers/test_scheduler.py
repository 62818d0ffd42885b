"""A plan as a scheduler inside pipelines that know nothing of it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import asymflow
from asymflow import AsymFlowScheduler
from asymflow.core import engine
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.schedules import plan_of, shifted, uniform
from asymflow.core.types import Plan, Request, Solver
from asymflow.integrations.diffusers import hub
from asymflow.models.diffusers.families import UNCONDITIONAL
from asymflow.models.diffusers.pipelines import adapt
from tests.helpers import draw

diffusers: Any = pytest.importorskip("diffusers")

Make = Callable[..., Any]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def within(plan: Plan) -> Plan:
    """Within the noise that a linear schedule was trained on."""
    return plan_of([0.99 * t for t in plan.times], solver=plan.steps[0].solver)


@pytest.mark.parametrize("solver", ["euler", "heun", "multistep1", "multistep3", "corrected2"])
def test_its_pictures_are_those_of_the_engine(unconditional: Make, solver: Solver) -> None:
    pipe = unconditional("DDPMPipeline", "DDPMScheduler", prediction_type="sample")
    plan = within(plan_of(shifted(5, 2.0), solver=solver))
    adapter = adapt(pipe, UNCONDITIONAL)
    [result] = engine.run(adapter, plan, [Request({}, (8, 8), 3)])
    pipe.scheduler = AsymFlowScheduler.of(plan, pipe.scheduler)
    [picture] = pipe(generator=seeded(), output_type="np", num_inference_steps=1000).images
    # A pipeline begins with noise alone, which at t = 0.99 is 0.99995 of the deviation.
    np.testing.assert_allclose(picture, result.picture, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["prx", "deepfloyd"])
def test_it_runs_in_guided_pipelines(
    prx: Make, deepfloyd: Make, told: dict[str, Any], family: str
) -> None:
    if family == "prx":
        pipe, noise, call = prx(), 2.0, {**told, "use_resolution_binning": False}
    else:
        pipe = deepfloyd("DDPMScheduler", variance_type="learned_range", thresholding=True)
        noise, call = 1.0, told
    plan = plan_of(shifted(6, 2.0), solver="corrected2")
    call = {**call, "guidance_scale": 3.0, "output_type": "pt"}
    fast = asymflow.accelerate(pipe, plan)(generator=seeded(), **call).images
    pipe.scheduler = AsymFlowScheduler.of(plan, pipe.scheduler, noise=noise)
    assert torch.equal(pipe(generator=seeded(), num_inference_steps=6, **call).images, fast)


def test_it_is_saved_and_loaded_with_its_pipeline(
    unconditional: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = unconditional("DDPMPipeline", "DDPMScheduler", prediction_type="sample")
    plan = plan_of(shifted(4, 2.0), solver="corrected2", name="mine")
    pipe.scheduler = AsymFlowScheduler.of(plan, pipe.scheduler)
    pipe.save_pretrained(tmp_path)
    loaded = diffusers.DDPMPipeline.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert type(loaded.scheduler) is AsymFlowScheduler
    assert loaded.scheduler.plan == plan
    assert loaded.scheduler.config["prediction_type"] == "sample"
    loaded.set_progress_bar_config(disable=True)
    first, second = (each(generator=seeded(), output_type="pt").images for each in (pipe, loaded))
    assert_close(first, second, rtol=0, atol=1e-5)
    assert "AsymFlowScheduler" not in caplog.text  # no complaint about its configuration
    alone: Any = AsymFlowScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    assert alone.plan == plan
    again = AsymFlowScheduler.of(plan_of(uniform(3)), alone)
    assert len(again.timesteps) == 3
    assert again.config["trained"] == alone.config["trained"]


# As other schedulers of diffusers are made.


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("DDPMScheduler", {"prediction_type": "sample", "thresholding": True}),
        ("DDIMScheduler", {"prediction_type": "v_prediction", "beta_schedule": "scaled_linear"}),
        ("EulerDiscreteScheduler", {"beta_schedule": "squaredcos_cap_v2"}),
        ("DPMSolverMultistepScheduler", {"prediction_type": "sample", "beta_end": 0.01}),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ],
)
@pytest.mark.parametrize("loaded", [True, False])
def test_it_is_made_from_the_configuration_of_another(
    kind: str, settings: dict[str, Any], loaded: bool, tmp_path: Path
) -> None:
    """Whether that was loaded, and has the name of its class, or was just made."""
    trained = getattr(diffusers, kind)(**settings)
    if loaded:
        trained.save_pretrained(tmp_path)
        trained = type(trained).from_pretrained(tmp_path)
    assert ("_class_name" in trained.config) is loaded
    plan = within(plan_of(shifted(4, 2.0)))
    ours = AsymFlowScheduler.from_config(trained.config, plan=plan)
    wanted = AsymFlowScheduler.of(plan, trained)
    assert type(ours) is AsymFlowScheduler
    assert ours.plan == plan
    assert torch.equal(ours.timesteps, wanted.timesteps)
    z, said = draw(0, 1, 3, 4, 4), draw(1, 1, 3, 4, 4)
    for tau in ours.timesteps:
        found, expected = (each.step(said, tau, z, return_dict=False) for each in (ours, wanted))
        assert torch.equal(found[1], expected[1])
        z = found[0]
    back = type(trained).from_config(ours.config)
    assert {name: back.config[name] for name in settings} == settings


def test_a_configuration_can_be_changed_on_the_way(tmp_path: Path) -> None:
    plan = plan_of(uniform(3), name="mine")
    asymflow.save_plan(plan, tmp_path / "plan.json")
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    first = AsymFlowScheduler.from_config(flow.config, plan=tmp_path / "plan.json", noise=2.0)
    assert first.plan.name == "mine"
    assert first.config["noise"] == 2.0
    # Of its own, it has the plan and the noise.
    second = AsymFlowScheduler.from_config(first.config)
    assert second.plan == plan
    assert torch.equal(second.sigmas, first.sigmas)
    third = AsymFlowScheduler.from_config(second.config, plan=plan_of(uniform(5)))
    assert len(third.timesteps) == 5
    assert third.config["noise"] == 2.0
    config = ddim().config
    changed = AsymFlowScheduler.from_config(config, plan=plan, prediction_type="v_prediction")
    assert changed.config["prediction_type"] == "v_prediction"
    again = AsymFlowScheduler.from_config(changed.config, prediction_type="epsilon")
    assert again.config["prediction_type"] == again.config["trained"]["prediction_type"]
    assert again.config["trained"]["prediction_type"] == "epsilon"
    made, unused = AsymFlowScheduler.from_config(
        config, plan=str(tmp_path / "plan.json"), colour="red", return_unused_kwargs=True
    )
    assert made.plan == plan
    assert unused == {"colour": "red"}


def test_another_scheduler_is_loaded_with_a_plan(unconditional: Make, tmp_path: Path) -> None:
    pipe = unconditional("DDPMPipeline", "DDPMScheduler", prediction_type="sample")
    pipe.save_pretrained(tmp_path)
    plan = plan_of(shifted(4, 2.0))
    loaded: Any = AsymFlowScheduler.from_pretrained(tmp_path, subfolder="scheduler", plan=plan)
    assert loaded.plan == plan
    assert loaded.config["prediction_type"] == "sample"
    loaded.save_pretrained(tmp_path / "ours")
    again: Any = AsymFlowScheduler.from_pretrained(tmp_path / "ours")
    assert again.plan == plan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "There is no plan. Pass one"),
        ({"config": None}, "config is a NoneType.*pipe.scheduler.config"),
        ({"plan": "auto"}, r"whole pipeline.*asymflow\.accelerate\(pipe, 'auto'\)"),
        ({"plan": 3}, "plan=3 is no path"),
        ({"config": {}, "plan": plan_of(uniform(2))}, "empty. has no _class_name"),
        ({"config": {"_class_name": "X"}, "plan": plan_of(uniform(2))}, "'X', is unknown"),
        ({"plan": plan_of(uniform(2), guidance_interval=(0.8, 1.0))}, "tier 'conditional'"),
    ],
)
def test_what_no_scheduler_can_be_made_of_is_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        AsymFlowScheduler.from_config(**{"config": ddim().config, **arguments})


def test_a_plan_is_pulled_by_the_name_of_its_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(uniform(3))
    asked: list[str] = []
    monkeypatch.setattr(hub, "pull", lambda name: asked.append(name) or plan)  # pyright: ignore
    made = AsymFlowScheduler.from_config(ddim().config, plan="owner/model-1.5")
    assert made.plan == plan
    assert asked == ["owner/model-1.5"]
    with pytest.raises(FileFormatError, match="Cannot read"):
        AsymFlowScheduler.from_config(ddim().config, plan="plans/none.json")


def test_noise_is_added_as_in_training() -> None:
    x_0, eps, tau = draw(0, 2, 3, 4, 4), draw(1, 2, 3, 4, 4), torch.tensor([700, 20])
    ddpm = diffusers.DDPMScheduler()
    ours = AsymFlowScheduler.of(plan_of(uniform(3)), ddpm)
    assert_close(ours.add_noise(x_0, eps, tau), ddpm.add_noise(x_0, eps, tau), rtol=0, atol=1e-5)
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    ours = AsymFlowScheduler.of(plan_of(uniform(3)), flow, noise=2.0)
    u = (tau / 1000).view(-1, 1, 1, 1)
    assert_close(ours.add_noise(x_0, eps, tau), (1 - u) * x_0 + 2 * u * eps, rtol=0, atol=1e-5)


def test_it_can_begin_with_a_picture(unconditional: Make) -> None:
    """As image-to-image pipelines do: some timesteps are left out, and noise is added."""
    pipe = unconditional("DDPMPipeline", "DDPMScheduler", prediction_type="sample")
    plan = within(plan_of(shifted(6, 2.0)))
    picture = np.random.default_rng(0).random((8, 8, 3), dtype=np.float32)
    strength = plan.times[2]
    adapter = adapt(pipe, UNCONDITIONAL)
    request = Request({}, (8, 8), 3, image=picture, strength=strength)
    [result] = engine.run(adapter, plan, [request])

    for begins in (True, False):
        scheduler = AsymFlowScheduler.of(plan, pipe.scheduler)
        scheduler.set_timesteps(50)
        timesteps = scheduler.timesteps[2:]
        if begins:
            scheduler.set_begin_index(2)
        x_0 = torch.from_numpy(picture).permute(2, 0, 1)[None] * 2 - 1
        z = scheduler.add_noise(x_0, engine.noise(3, (1, 3, 8, 8)), timesteps[:1])
        with torch.no_grad():
            for tau in timesteps:
                said = pipe.unet(scheduler.scale_model_input(z, tau), tau).sample
                z = scheduler.step(said, tau, z, return_dict=False)[0]
        found = (z[0].permute(1, 2, 0).numpy() / 2 + 0.5).clip(0, 1)
        np.testing.assert_allclose(found, result.picture, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("change", "same"), [(0.0, True), (1.0, False)])
def test_a_state_changed_in_between_is_the_one_that_goes_on(change: float, same: bool) -> None:
    """As callbacks do that edit latents."""
    said = draw(1, 1, 3, 4, 4)

    def end(edit: Callable[[Tensor], Tensor]) -> Tensor:
        scheduler = AsymFlowScheduler.of(plan_of(uniform(3), solver="euler"), ddim())
        first, second, _ = scheduler.timesteps
        z = scheduler.step(said, first, draw(0, 1, 3, 4, 4), return_dict=False)[0]
        return scheduler.step(said, second, edit(z), return_dict=False)[0]

    def leave(z: Tensor) -> Tensor:
        return z

    def edit(z: Tensor) -> Tensor:
        return z + change

    assert torch.allclose(end(leave), end(edit), atol=1e-6) == same


@pytest.mark.parametrize("solver", ["multistep2", "corrected2", "heun"])
def test_a_change_arrives_as_it_was_made(solver: Solver) -> None:
    """Though correctors make the move before it again, from where that began."""
    said = draw(1, 1, 3, 4, 4)

    def end(solver: Solver, change: float) -> Tensor:
        """The state at the last node but 0, changed at the second."""
        plan = plan_of(uniform(4), solver=solver)
        scheduler = AsymFlowScheduler.of(plan, ddim())
        z = draw(0, 1, 3, 4, 4)
        for index, tau in enumerate(scheduler.timesteps[:-1]):
            z = z + change if index == (2 if solver == "heun" else 1) else z
            z = scheduler.step(said, tau, z, return_dict=False)[0]
        return z

    moved = end(solver, 1.0) - end(solver, 0.0)
    assert_close(moved, end("euler", 1.0) - end("euler", 0.0), rtol=0, atol=1e-5)
    assert float(moved.min()) > 0.1


def ddim() -> Any:
    return diffusers.DDIMScheduler(clip_sample=False, prediction_type="sample")


def test_nothing_of_a_picture_is_kept() -> None:
    shape = (2, 3, 5, 7)

    def kept() -> int:
        gc.collect()
        tensors = (each for each in gc.get_objects() if issubclass(type(each), Tensor))
        return sum(each.shape == shape for each in tensors)

    scheduler = AsymFlowScheduler.of(plan_of(uniform(4), solver="heun"), ddim())
    z = draw(0, *shape)
    for tau in scheduler.timesteps:
        z = scheduler.step(torch.zeros_like(z), tau, z, return_dict=False)[0]
    del z
    assert kept() == 0


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(InputError, match=r"tier 'conditional'.*asymflow\.accelerate"):
        AsymFlowScheduler.of(plan_of(uniform(3), guidance_interval=(0.5, 1.0)), ddim())
    scheduler = AsymFlowScheduler.of(plan_of(uniform(2)), ddim())
    z = draw(0, 1, 3, 4, 4)
    with pytest.raises(InputError, match=r"Timestep 3 is not one of .*: 999"):
        scheduler.step(z, 3, z)
    for tau in scheduler.timesteps:
        scheduler.step(z, tau, z)
    with pytest.raises(InputError, match=r"All 2 steps .* are made"):
        scheduler.step(z, scheduler.timesteps[-1], z)
    scheduler.set_timesteps()
    scheduler.step(z, scheduler.timesteps[0], z)
    with pytest.raises(InputError, match="'NewScheduler', is unknown"):
        AsymFlowScheduler({}, {"_class_name": "NewScheduler"})
    with pytest.raises(FileFormatError, match="plan"):
        AsymFlowScheduler({}, {"_class_name": "DDIMScheduler"})


# What pipelines look up in a scheduler.


@pytest.mark.parametrize("rescale", [False, True])
def test_it_says_how_the_model_was_trained(rescale: bool) -> None:
    trained = diffusers.DDPMScheduler(rescale_betas_zero_snr=rescale)
    ours: Any = AsymFlowScheduler.of(plan_of(shifted(5, 2.0)), trained)
    assert torch.equal(ours.alphas_cumprod, trained.alphas_cumprod)
    assert torch.equal(ours.betas, trained.betas)
    k = diffusers.EulerDiscreteScheduler.from_config(trained.config, final_sigmas_type="zero")
    squares = np.interp(ours.timesteps, np.arange(1000), torch.logit(k.alphas_cumprod.double()))
    sigmas = torch.exp(torch.from_numpy(-squares / 2))
    assert_close(ours.sigmas[1:-1].double(), sigmas[1:], rtol=1e-4, atol=0)
    assert len(ours.sigmas) == len(ours.timesteps) + 1
    assert ours.sigmas[-1] == 0


def test_flows_have_sigmas_and_no_betas() -> None:
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    flow.set_timesteps(4)
    ours = AsymFlowScheduler.of(plan_of((*flow.sigmas[:-1].tolist(), 0.0)), flow)
    assert_close(ours.sigmas, flow.sigmas, rtol=0, atol=1e-6)
    assert not hasattr(ours, "alphas_cumprod")
    x_0, eps, tau = draw(0, 1, 3, 4, 4), draw(1, 1, 3, 4, 4), flow.timesteps[1:2]
    expected = flow.scale_noise(x_0, tau, eps)
    assert_close(ours.scale_noise(x_0, tau, eps), expected, rtol=0, atol=1e-5)


def test_a_pipeline_that_has_it_can_be_accelerated(unconditional: Make) -> None:
    pipe = unconditional()
    plan = plan_of(uniform(3))
    fast = asymflow.accelerate(pipe, plan)
    pipe.scheduler = AsymFlowScheduler.of(plan_of(uniform(7)), pipe.scheduler)
    again = asymflow.accelerate(pipe, plan)
    pictures = [each(generator=seeded(), output_type="pt").images for each in (fast, again)]
    assert torch.equal(*pictures)


def test_swapped_arguments_are_refused() -> None:
    with pytest.raises(InputError, match=r"plan is a DDIMScheduler.*of\(plan, pipe\.scheduler\)"):
        AsymFlowScheduler.of(ddim(), cast("Any", plan_of(uniform(2))))
    with pytest.raises(InputError, match="scheduler is a str"):
        AsymFlowScheduler.of(plan_of(uniform(2)), "ddim")


def test_timesteps_beyond_those_of_training_are_the_reason(unconditional: Make) -> None:
    pipe = unconditional(steps_offset=1)
    fast = asymflow.accelerate(pipe, "original")
    with pytest.raises(InputError, match=r"at timestep 1000, and .* at 0 to 999.*steps_offset=0"):
        fast(num_inference_steps=1000)
