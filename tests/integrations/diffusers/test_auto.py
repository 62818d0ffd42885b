"""plan="auto" on a network whose answers are exact: measured once, faster, as faithful, kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import asymflow
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.statistics import Interval
from asymflow.core.types import Evidence, Plan
from asymflow.integrations.diffusers import auto, comparison, original
from asymflow.models.diffusers.conventions import Flow
from asymflow.models.diffusers.families import UNCONDITIONAL
from asymflow.models.diffusers.own import refined
from asymflow.planning import plan_files, proof, selection

from .conftest import measured_with

diffusers: Any = pytest.importorskip("diffusers")

Make = Callable[..., Any]
SIDE = 4
QUICK = {"CALIBRATION": 3, "FRESH": 4}


class GaussianNet(diffusers.ModelMixin, diffusers.ConfigMixin):
    """What a UNet2DModel is asked, answered exactly for pixels N(mean, std^2)."""

    config_name = "config.json"

    @diffusers.configuration_utils.register_to_config
    def __init__(self, seed: int = 0, sample_size: int = SIDE, in_channels: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shape = (in_channels, sample_size, sample_size)
        mean = 0.5 * torch.randn(shape, generator=generator)
        std = torch.rand(shape, generator=generator) ** 3 + 0.02
        self.mean = torch.nn.Parameter(mean, requires_grad=False)
        self.std = torch.nn.Parameter(std, requires_grad=False)
        self.squares = diffusers.DDPMScheduler().alphas_cumprod.double()
        self.asked: list[int] = []
        self.stop_at: int | None = None

    def forward(
        self, sample: Tensor, timestep: Any, class_labels: None = None, return_dict: bool = True
    ) -> Any:
        self.asked.append(len(sample))
        if len(self.asked) == self.stop_at:
            raise Stopped
        tau = torch.as_tensor(timestep).double().reshape(-1)
        low = tau.floor().long().clamp(max=len(self.squares) - 2)
        below, above = (torch.logit(self.squares[low + i]) / 2 for i in (0, 1))
        lam = torch.lerp(below, above, tau - low)
        alpha, sigma = (torch.sigmoid(sign * 2 * lam).sqrt().view(-1, 1, 1, 1) for sign in (1, -1))
        noise = sigma * (sample - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2)
        noise = noise.to(sample)
        return diffusers.models.unets.unet_2d.UNet2DOutput(noise) if return_dict else (noise,)


def pipeline(seed: int = 0, kind: str = "DDIM") -> Any:
    scheduler = getattr(diffusers, f"{kind}Scheduler")(clip_sample=False)
    pipe = getattr(diffusers, f"{kind}Pipeline")(GaussianNet(seed), scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    measured_with(monkeypatch, **QUICK)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose plan was measured."""
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        measured_with(patch, **QUICK)
        asymflow.accelerate(pipeline(), folder=folder)
    return folder


def test_the_plan_is_cheaper_and_as_near_to_the_limit(kept: Path) -> None:
    plan = plan_files.load_plan(kept / "asymflow" / "plan.json")
    assert len(plan.steps) <= 20  # instead of 50
    evidence = plan.evidence
    assert evidence is not None
    assert evidence.made["original"] == "DDIMScheduler, 50 steps"
    assert evidence.rms.low <= float(evidence.made["original_rms"].split()[0])
    assert evidence.pictures == 4
    # Measured again, with pictures and a reference of our own.
    pipe = pipeline()
    fast = asymflow.accelerate(pipe, plan)
    fine = asymflow.accelerate(pipe, "original")

    def state(made: Any, seed: int, **call: Any) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 2 * made(generator=generator, output_type="pt", **call).images - 1

    errors = {"fast": 0.0, "original": 0.0}
    for seed in range(50, 54):
        limit = state(fine, seed, num_inference_steps=500)
        errors["fast"] += float((state(fast, seed) - limit).square().mean().sqrt()) / 4
        errors["original"] += float((state(pipe, seed) - limit).square().mean().sqrt()) / 4
    assert errors["fast"] < 1.1 * errors["original"]
    assert errors["fast"] == pytest.approx(evidence.rms.value, rel=0.35)


def test_it_is_measured_once(kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = pipeline()
    seen = pipe.unet.asked
    with caplog.at_level(logging.INFO, "asymflow"):
        fast = asymflow.accelerate(pipe, folder=kept)
    assert seen == []
    assert caplog.messages == []
    assert fast.asymflow_plan == plan_files.load_plan(kept / "asymflow" / "plan.json")
    fast(output_type="np")
    assert len(seen) == len(fast.asymflow_plan.steps)


class Stopped(KeyboardInterrupt):
    """What Ctrl-C raises."""


@pytest.mark.parametrize("price", [None, 4])
def test_an_interrupted_measurement_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, price: int | None
) -> None:
    """Wherever it was stopped: the plan and what it states are those of an undisturbed one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "undisturbed"))
    pipe = pipeline()
    whole = asymflow.accelerate(pipe, steps=price).asymflow_plan
    asked = len(pipe.unet.asked)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "interrupted"))
    unfinished = tmp_path / "interrupted" / "asymflow" / "measuring"
    again = 0
    for part in (0.1, 0.3, 0.6, 0.8, 0.95):
        pipe = pipeline()
        pipe.unet.stop_at = int(part * asked) - again
        with pytest.raises(Stopped):
            asymflow.accelerate(pipe, steps=price)
        again += len(pipe.unet.asked)
        assert list(unfinished.iterdir())
    pipe = pipeline()
    resumed = asymflow.accelerate(pipe, steps=price).asymflow_plan
    again += len(pipe.unet.asked)
    assert resumed.steps == whole.steps
    assert resumed.evidence.rms == whole.evidence.rms
    assert resumed.evidence.made["original_rms"] == whole.evidence.made["original_rms"]
    # Of every stop at most one stage of a few pictures is made twice.
    assert again < 1.6 * asked
    assert list(unfinished.iterdir()) == []


def test_the_default_plan_needs_no_measuring_and_is_nearer_than_as_many_steps() -> None:
    pipe = pipeline()
    fast = asymflow.accelerate(pipe, "default")
    plan = fast.asymflow_plan
    assert pipe.unet.asked == []
    assert plan.evidence is None
    assert plan.name == "default"
    assert len(plan.steps) <= 0.4 * 50

    def state(made: Any, seed: int, **call: Any) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 2 * made(generator=generator, output_type="pt", **call).images - 1

    fine = asymflow.accelerate(pipe, "original")
    errors = {"default": 0.0, "own": 0.0}
    for seed in range(50, 54):
        limit = state(fine, seed, num_inference_steps=500)
        errors["default"] += float((state(fast, seed) - limit).square().mean().sqrt())
        errors["own"] += float((state(pipe, seed) - limit).square().mean().sqrt())
    assert errors["default"] < errors["own"]


def test_a_price_can_be_given_instead(kept: Path) -> None:
    pipe, plans = pipeline(), {}
    for steps in (4, 8):
        fast = asymflow.accelerate(pipe, steps=steps, folder=kept)
        plans[steps] = fast.asymflow_plan
        asked = len(pipe.unet.asked)
        fast(output_type="np")
        assert len(pipe.unet.asked) - asked <= steps
    assert plans[8].evidence.rms.value < plans[4].evidence.rms.value / 1.5
    # Each is measured once, and the plan without a price is none of them.
    asked = len(pipe.unet.asked)
    assert asymflow.accelerate(pipe, steps=4, folder=kept).asymflow_plan == plans[4]
    cheapest = asymflow.accelerate(pipe, folder=kept).asymflow_plan
    assert len(pipe.unet.asked) == asked
    assert "steps" not in cheapest.evidence.made
    for plan, steps in (("auto", 1), (cheapest, 4)):
        with pytest.raises(InputError, match="is not possible"):
            asymflow.accelerate(pipe, plan, steps=steps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_loaded_in_half_precision_is_the_same_model(kept: Path, dtype: torch.dtype) -> None:
    pipe = pipeline()
    pipe.unet.to(dtype)
    seen = pipe.unet.asked
    asymflow.accelerate(pipe, folder=kept)
    assert seen == []


def test_what_it_costs_is_said_before_and_after(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = pipeline(1, "DDPM")
    pipe.set_progress_bar_config(disable=False)
    seen = pipe.unet.asked
    with caplog.at_level(logging.INFO, "asymflow"):
        fast = asymflow.accelerate(pipe)
    before, *_, after, kept = caplog.messages
    assert fast.asymflow_plan.evidence.made["measuring_forwards"] == str(sum(seen))
    assert f"with {sum(seen)} forward passes" in after
    expected = int(before.split(" forward passes")[0].split()[-1])
    assert 0.4 < sum(seen) / expected < 1.5
    assert f"/{expected}" in capsys.readouterr().err
    # The random walk of DDPM leads to no picture that a plan could be compared with.
    assert fast.asymflow_plan.evidence.made["original"] == "DDIMScheduler, 50 steps"
    # It was not loaded from a folder.
    assert kept.startswith("Kept as")
    assert "cache/asymflow/plans/pipeline-" in kept
    seen.clear()
    assert asymflow.accelerate(pipe).asymflow_plan == fast.asymflow_plan
    assert seen == []


def test_a_plan_for_other_weights_is_made_again(kept: Path, tmp_path: Path) -> None:
    plan = plan_files.load_plan(kept / "asymflow" / "plan.json")
    copy = tmp_path / "asymflow" / "plan.json"
    plan_files.save_plan(plan, copy)
    made = asymflow.accelerate(pipeline(2), folder=tmp_path).asymflow_plan
    assert made.evidence.made["adapter"] != plan.evidence.made["adapter"]  # pyright: ignore
    assert plan_files.load_plan(copy) == made


def test_plans_for_several_uses_are_kept_side_by_side(
    prx: Make, told: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def make(pipe: Any, family: Any, adapter: Any, calls: Any, steps: Any, *_: object) -> Plan:
        assert steps is None
        conditions = auto.conditions(pipe, family, calls[0])
        asked.append(conditions["guidance_scale"])
        evidence = Evidence(
            {"adapter": adapter.name, **conditions},
            (1.0,) * 4,
            1.0,
            (),
            None,
            Interval(0, 0, 0),
            None,
            1,
        )
        return Plan(f"for {asked[-1]}", plan_of(uniform(4)).steps, evidence)

    monkeypatch.setattr(auto, "make", make)
    pipe = prx()
    for scale in (3.0, 5.0, 3.0, 5.0):
        call = {**told, "use_resolution_binning": False, "guidance_scale": scale}
        fast = asymflow.accelerate(pipe, examples=[call], folder=tmp_path)
        assert fast.asymflow_plan.name == f"for {scale:g}"
    assert asked == ["3", "5"]
    names = {path.name for path in (tmp_path / "asymflow").iterdir()}
    assert names == {"plan.json", "plan-16x16-5.json"}


def test_where_nothing_can_be_written_only_the_file_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(uniform(4))

    def make(*_: object) -> Plan:
        return plan

    monkeypatch.setattr(auto, "make", make)
    for name in ("asymflow", "cache"):
        (tmp_path / name).write_text("in the way")
    assert asymflow.accelerate(pipeline(), folder=tmp_path).asymflow_plan == plan
    assert "The plan is not kept: cannot write any of" in caplog.text


def test_pipelines_with_an_encoder_have_prompts_to_be_measured_with(prx: Make) -> None:
    pipe = prx()
    vars(pipe)["text_encoder"] = torch.nn.Identity()
    prompts = [call["prompt"] for call in auto.examples_of(pipe, ())]
    assert len(set(prompts)) == len(prompts) >= 4
    assert auto.examples_of(pipe, [{"prompt": "a cat"}]) == ({"prompt": "a cat"},)


def test_without_an_encoder_examples_have_to_be_given(prx: Make, told: dict[str, Any]) -> None:
    pipe = prx()
    with pytest.raises(InputError, match=r"no text encoder.*examples="):
        asymflow.accelerate(pipe)
    with pytest.raises(InputError, match="cannot be called with 'colour'"):
        asymflow.accelerate(pipe, examples=[{"colour": "red"}])


def test_guided_pipelines_are_planned_with_cheaper_tiers(
    prx: Make, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan knows two passes from one, and its numbers are those of the pipeline itself."""
    measured_with(monkeypatch, FINE=40, CANDIDATES=8, CALIBRATION=2)
    monkeypatch.setattr(selection, "COARSER", 1e-9)  # so that the limit is the one below

    def twelve(_: object) -> int:
        return 12

    monkeypatch.setattr(original, "default_steps", twelve)
    pipe = prx()
    call = {**told, "use_resolution_binning": False, "guidance_scale": 3.0}
    fast = asymflow.accelerate(pipe, examples=[call])
    evidence = fast.asymflow_plan.evidence
    assert evidence.made["guidance_scale"] == "3"
    assert evidence.made["size"] == "16x16"
    assert fast.asymflow_plan.forwards < 2 * 12
    grid = refined(Flow(noise=2.0), 40)
    fine = asymflow.accelerate(pipe, plan_of(grid, solver="corrected2"))
    errors: list[float] = []
    for seed in range(2000, 2004):
        states = [
            each(generator=torch.Generator().manual_seed(seed), output_type="pt", **call).images
            for each in (fast, fine)
        ]
        first, second = (state.clamp(-1, 1) for state in states)
        errors.append(float((first - second).square().mean().sqrt()))
    assert_close(sum(errors) / 4, evidence.rms.value, rtol=1e-3, atol=1e-5)


def quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure with fewer pictures, beside eight steps of the pipeline's own sampler."""
    measured_with(monkeypatch, FINE=16, CANDIDATES=6, CALIBRATION=2, FRESH=2)

    def eight(_: object) -> int:
        return 8

    monkeypatch.setattr(original, "default_steps", eight)


def test_a_learned_variance_is_left_out_of_the_comparison(
    deepfloyd: Make, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    quicker(monkeypatch)
    pipe = deepfloyd("DDPMScheduler", variance_type="learned_range", thresholding=True)
    fast = asymflow.accelerate(pipe, examples=[{**told, "guidance_scale": 2.0}])
    assert fast.asymflow_plan.evidence.made["original"] == "DDIMScheduler, 8 steps"
    assert type(pipe.scheduler) is diffusers.DDPMScheduler
    assert fast(**told, output_type="pt").images.isfinite().all()


def test_a_plan_may_be_changed_by_hand(kept: Path) -> None:
    plan = plan_files.load_plan(kept / "asymflow" / "plan.json")
    steps = tuple(replace(step, solver="euler", weights=None) for step in plan.steps)
    accelerated = asymflow.accelerate(pipeline(), Plan("mine", steps))
    assert accelerated.asymflow_plan.name == "mine"


def test_what_clipping_does_to_ddim_is_not_allowed_to_a_plan() -> None:
    """It keeps the noise of what it has cut off, and so leads elsewhere than to the limit."""
    pipe = pipeline(3)
    pipe.scheduler = diffusers.DDIMScheduler(clip_sample=True)
    with torch.no_grad():
        pipe.unet.mean.mul_(2)  # so that many pixels are cut
    fast = asymflow.accelerate(pipe)
    convention = UNCONDITIONAL.convention(pipe)
    tau = torch.arange(980, -1, -20)
    grid = (*convention.time(tau).tolist(), 0.0)
    fine = asymflow.accelerate(pipe, plan_of(refined(convention, 100)))
    fitting = asymflow.accelerate(pipe, plan_of(grid, solver="multistep1"))

    def error(made: Any, seed: int) -> float:
        states = [
            each(generator=torch.Generator().manual_seed(seed), output_type="pt").images
            for each in (made, fine)
        ]
        return float((2 * (states[0] - states[1])).square().mean().sqrt())

    errors = [sum(error(made, seed) for seed in range(4)) for made in (fast, fitting, pipe)]
    assert errors[0] < 1.25 * errors[1] < 0.8 * errors[2]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_better_sampler_is_harder_to_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no plan itself, so there is always one to return."""
    pipe = pipeline(4, "DDPM")
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler()
    plan = asymflow.accelerate(pipe).asymflow_plan
    assert plan.evidence.made["original"] == "DPMSolverMultistepScheduler, 50 steps"
    assert ("No cheaper plan" in caplog.text) == (len(plan.steps) >= 50)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    easier = asymflow.accelerate(pipeline(4, "DDPM")).asymflow_plan
    assert len(plan.steps) > len(easier.steps)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_what_no_picture_file_tells_is_not_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = pipeline(4, "DDPM")
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler()
    plans: list[Plan] = []
    for unseen in (0.0, 0.03):  # the second is far above what this sampler is off by
        for module in (proof, selection, comparison):
            monkeypatch.setattr(module, "UNSEEN", unseen)
        plans.append(asymflow.accelerate(pipe, folder=tmp_path / str(unseen)).asymflow_plan)
    nearest, near = plans
    assert len(near.steps) < len(nearest.steps)
    assert near.evidence is not None
    assert near.evidence.rms.low <= proof.UNSEEN


def test_weights_that_are_not_in_memory_cannot_be_recognised() -> None:
    pipe = pipeline()
    pipe.unet.to("meta")
    with pytest.raises(InputError, match=r"'mean' is on the device 'meta'.*Accelerate it first"):
        asymflow.accelerate(pipe)


class SixPictures(GaussianNet):
    """The posterior mean of six pictures: a small error may make another picture of one."""

    def __init__(self, seed: int = 0, sample_size: int = SIDE, in_channels: int = 3) -> None:
        super().__init__(seed, sample_size, in_channels)
        generator = torch.Generator().manual_seed(seed + 1)
        self.pictures = torch.rand((6, in_channels, sample_size, sample_size), generator=generator)

    def forward(
        self, sample: Tensor, timestep: Any, class_labels: None = None, return_dict: bool = True
    ) -> Any:
        self.asked.append(len(sample))
        if len(self.asked) == self.stop_at:
            raise Stopped
        tau = torch.as_tensor(timestep).double().reshape(-1)
        low = tau.floor().long().clamp(max=len(self.squares) - 2)
        below, above = (torch.logit(self.squares[low + i]) / 2 for i in (0, 1))
        lam = torch.lerp(below, above, tau - low)
        alpha, sigma = (torch.sigmoid(sign * 2 * lam).sqrt().view(-1, 1, 1, 1) for sign in (1, -1))
        known = (2 * self.pictures - 1).double()
        far = (sample.double()[:, None] - alpha[:, None] * known[None]).square().sum((2, 3, 4))
        weight = torch.softmax(-far / (2 * sigma.view(-1, 1) ** 2), 1)
        x_0 = (weight[:, :, None, None, None] * known[None]).sum(1)
        noise = ((sample - alpha * x_0) / sigma).to(sample)
        return diffusers.models.unets.unet_2d.UNet2DOutput(noise) if return_dict else (noise,)


def test_a_plan_that_breaks_its_promise_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or is the pipeline's own schedule."""
    measured_with(monkeypatch, FRESH=16)
    pipe = pipeline()
    pipe.unet = SixPictures()
    plan = asymflow.accelerate(pipe).asymflow_plan
    made = plan.evidence.made
    own = float(made["original_rms"].split()[0])
    assert plan.evidence.rms.value <= max(own, 2 / 255)
    assert made["changed"].endswith("of 16")
    assert float(made["worst_rms"]) >= plan.evidence.rms.value - 1e-4
    assert float(made["limit_rms"]) >= 0
    assert plan.evidence.rms.low >= 0


@pytest.mark.parametrize(
    ("scheduler", "options", "compared"),
    [
        ("EulerAncestralDiscreteScheduler", {}, "EulerDiscreteScheduler"),
        ("KDPM2AncestralDiscreteScheduler", {}, "KDPM2DiscreteScheduler"),
        (
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++"},
            "DPMSolverMultistepScheduler",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
def test_samplers_that_draw_noise_are_compared_without_it(
    scheduler: str, options: dict[str, Any], compared: str
) -> None:
    pipe = pipeline(kind="DDPM")
    pipe.scheduler = getattr(diffusers, scheduler)(**options)
    own = original.Baseline.of(pipe)
    assert type(own.scheduler).__name__ == compared
    assert own.scheduler.config.get("algorithm_type") in (None, "dpmsolver++")
    found = original.draws_noise(pipe, UNCONDITIONAL, {"num_inference_steps": 4})
    assert found
    steady = pipeline(kind="DDPM")
    steady.scheduler = own.scheduler
    assert not original.draws_noise(steady, UNCONDITIONAL, {"num_inference_steps": 4})


def test_a_sampler_that_only_draws_noise_is_no_baseline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipe = pipeline(1, "DDPM")
    pipe.scheduler = diffusers.LCMScheduler(clip_sample=False)
    plan = asymflow.accelerate(pipe).asymflow_plan
    assert "draws noise at every step" in caplog.text
    assert plan.evidence.made["original_note"] == "draws noise at every step"
    assert "original_rms" not in plan.evidence.made


def test_clipping_that_bites_is_said(caplog: pytest.LogCaptureFixture) -> None:
    pipe = pipeline(3)
    pipe.scheduler = diffusers.DDIMScheduler(clip_sample=True, clip_sample_range=0.4)
    plan = asymflow.accelerate(pipe).asymflow_plan
    assert "keeps the noise of values that are clipped" in caplog.text
    assert "from the limit" in plan.evidence.made["original_note"]


def test_prompts_are_encoded_once(
    prx: Make, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many plans are compared: the pipeline itself is called for proofs only."""
    quicker(monkeypatch)
    pipe = prx()
    calls = 0
    own = type(pipe).encode_prompt

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return own(self, *args, **kwargs)

    monkeypatch.setattr(type(pipe), "encode_prompt", counted)
    call = {**told, "use_resolution_binning": False, "guidance_scale": 3.0}
    asymflow.accelerate(pipe, examples=[call])
    # Samples: 2 to profile on, 2 to choose by, 2 for the proof; each is made by the pipeline's own
    # sampler, and the last by the plan.
    assert calls < 30
