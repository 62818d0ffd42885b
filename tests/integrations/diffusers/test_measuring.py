"""What can be run can be planned, and planning leaves everything as it was found."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import asymflow
from asymflow import InputError
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import Plan, Request
from asymflow.integrations.diffusers import cascade, original
from asymflow.models.diffusers.families import UNCONDITIONAL
from asymflow.models.diffusers.pipelines import Family, adapt
from asymflow.planning.profiler import profile

from .conftest import measured_with, mixed, seeded

diffusers: Any = pytest.importorskip("diffusers")

Make = Callable[..., Any]
PLAN = plan_of(uniform(3), solver="corrected2")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    measured_with(monkeypatch, CALIBRATION=2, FRESH=2, CANDIDATES=4, FINE=8)
    monkeypatch.setattr(original, "ENOUGH", 6)


def draw(pipe: Any, **call: Any) -> Tensor:
    return pipe(generator=seeded(), output_type="pt", **call).images


# Pipelines that run.


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"beta_schedule": "sigmoid"}, 6),
        ({"num_train_timesteps": 5}, 5),
        ({"num_train_timesteps": 2}, 2),
    ],
)
def test_any_schedule_of_ddpm_can_be_planned(
    unconditional: Make, options: dict[str, Any], steps: int
) -> None:
    pipe = unconditional("DDPMPipeline", "DDPMScheduler", **options)
    fast = asymflow.accelerate(pipe, steps=2)
    evidence = fast.asymflow_plan.evidence
    assert evidence.made["original"] == f"DDIMScheduler, {steps} steps"
    assert evidence.rms.value >= 0
    assert draw(fast).isfinite().all()


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("rescale", [False, True])
def test_ddpm_is_compared_with_ddim_on_the_same_noise(
    unconditional: Make, schedule: str, rescale: bool
) -> None:
    options = {"beta_schedule": schedule, "rescale_betas_zero_snr": rescale}
    pipe = unconditional("DDPMPipeline", "DDPMScheduler", **options)
    own = original.Baseline.of(pipe).scheduler
    ddim = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    assert torch.equal(own.alphas_cumprod, ddim.alphas_cumprod)


def test_a_learned_variance_can_be_planned(unconditional: Make) -> None:
    pipe = unconditional("DDPMPipeline", "DDPMScheduler", variance_type="learned_range")
    torch.manual_seed(0)
    pipe.unet = type(pipe.unet).from_config(pipe.unet.config, out_channels=6).eval()
    fast = asymflow.accelerate(pipe, steps=2)
    assert float(fast.asymflow_plan.evidence.made["original_rms"].split()[0]) < 2
    assert draw(fast).shape == (1, 3, 8, 8)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("scheduler", "compared"),
    [("UniPCMultistep", "UniPCMultistep"), ("EulerAncestralDiscrete", "EulerDiscrete")],
)
def test_other_schedulers_of_a_learned_variance_can_be_planned(
    deepfloyd: Make, told: dict[str, Any], scheduler: str, compared: str
) -> None:
    pipe = deepfloyd("DDPMScheduler", variance_type="learned_range")
    kind = getattr(diffusers, f"{scheduler}Scheduler")
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    fast = asymflow.accelerate(pipe, steps=2, examples=[{**told, "guidance_scale": 2.0}])
    assert fast.asymflow_plan.evidence.made["original"] == f"{compared}Scheduler, 6 steps"


def test_a_sampler_that_fails_is_left_out_of_the_comparison(
    unconditional: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = unconditional()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr(diffusers.DDIMScheduler, "step", broken)
    plan = asymflow.accelerate(pipe, steps=2).asymflow_plan
    assert "DDIMScheduler, 6 steps makes no picture in this pipeline (Runt" in caplog.text
    assert "original" not in plan.evidence.made


def test_cascades_of_few_timesteps(deepfloyd: Make, told: dict[str, Any]) -> None:
    one, other = (
        deepfloyd(kind=kind, num_train_timesteps=5)
        for kind in ("IFPipeline", "IFSuperResolutionPipeline")
    )
    call = {**told, "guidance_scale": 1.0}
    examples = [(call, {**call, "noise_level": 2})]
    made = cascade.accelerate(one, other, 1e6, examples=examples)
    assert {len(each.asymflow_plan.steps) for each in (made.first, made.second)} == {5}


# As it was found.


@pytest.mark.parametrize("draws", [True, False])
def test_random_numbers_and_training_are_as_before(
    unconditional: Make, monkeypatch: pytest.MonkeyPatch, draws: bool
) -> None:
    """Also where the pipeline takes no generator, and draws from everybody's."""
    pipe = unconditional()
    if not draws:
        kind = type(pipe)

        class Unseeded(kind):  # pyright: ignore[reportGeneralTypeIssues, reportUntypedBaseClass]
            def __call__(self, num_inference_steps: int = 6, output_type: str = "pil") -> Any:
                return super().__call__(
                    num_inference_steps=num_inference_steps, output_type=output_type
                )

        pipe = Unseeded(pipe.unet, pipe.scheduler)
        pipe.set_progress_bar_config(disable=True)
        torch.manual_seed(7)
        before = torch.get_rng_state()
        adapt(pipe, UNCONDITIONAL).encode([Request({}, (8, 8))])
        assert torch.equal(torch.get_rng_state(), before)
        return
    mine = seeded(11)
    pipe.unet.train()
    pipe.unet.mid_block.eval()
    modes = [each.training for each in pipe.unet.modules()]
    torch.manual_seed(7)
    before = torch.get_rng_state(), mine.get_state()
    asymflow.accelerate(pipe, steps=2, examples=[{"generator": mine}])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(mine.get_state(), before[1])
    assert [each.training for each in pipe.unet.modules()] == modes


def test_dropout_is_no_part_of_a_plan(unconditional: Make) -> None:
    pipe = unconditional()
    seen: list[bool] = []

    def look(module: torch.nn.Module, _: object) -> None:
        seen.append(module.training)

    pipe.unet.conv_in.register_forward_pre_hook(look)
    pipe.unet.train()
    asymflow.accelerate(pipe, steps=2)
    assert set(seen) == {False}
    assert pipe.unet.training


@pytest.mark.parametrize("whole", [True, False])
def test_what_leads_nowhere_is_not_planned(
    unconditional: Make, tmp_path: Path, whole: bool
) -> None:
    pipe = unconditional()
    with torch.no_grad():
        pipe.unet.conv_out.bias[0] = torch.nan

    def measure() -> object:
        if whole:
            return asymflow.accelerate(pipe, folder=tmp_path)
        return profile(adapt(pipe, UNCONDITIONAL), [Request({}, (8, 8))], times=(1.0, 0.5, 0.0))

    with pytest.raises(InputError, match=r"not finite.*NaN"):
        measure()
    assert list(tmp_path.glob("**/*.json")) == []


def test_planning_writes_nothing_to_the_terminal(
    unconditional: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    """From whichever thread."""
    pipe = unconditional()
    thread = threading.Thread(target=asymflow.accelerate, args=(pipe,), kwargs={"steps": 2})
    thread.start()
    thread.join()
    assert capfd.readouterr() == ("", "")


def test_measuring_memory_writes_nothing_either() -> None:
    program = (
        "import torch; from asymflow.planning import costs; costs.peak_bytes(lambda: torch.ones(9))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=200
    )
    assert (found.stdout, found.stderr) == ("", "")


# Copies.


@pytest.mark.parametrize("how", ["pickle", "torch", "deepcopy", "copy"])
def test_copies_are_accelerated_too(unconditional: Make, how: str) -> None:
    fast = asymflow.accelerate(unconditional(), PLAN)
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    again: Any = {
        "pickle": lambda: pickle.loads(pickle.dumps(fast)),
        "torch": lambda: torch.load(file, weights_only=False),
        "deepcopy": lambda: copy.deepcopy(fast),
        "copy": lambda: copy.copy(fast),
    }[how]()
    assert type(again) is type(fast)
    assert again.asymflow_plan == PLAN
    assert (again.unet is fast.unet) == (how == "copy")
    assert torch.equal(draw(again), draw(fast))


def test_the_class_of_an_accelerated_pipeline_makes_plain_ones(
    unconditional: Make, tmp_path: Path
) -> None:
    pipe = unconditional(prediction_type="sample")
    fast = asymflow.accelerate(pipe, PLAN)
    plain = type(fast)(**fast.components)
    plain.set_progress_bar_config(disable=True)
    assert plain.asymflow_plan is None
    call = {"num_inference_steps": 4}
    assert torch.equal(draw(plain, **call), draw(pipe, **call))
    plain.save_pretrained(tmp_path)
    assert not (tmp_path / "asymflow").exists()
    assert asymflow.accelerate(plain, PLAN).asymflow_plan == PLAN


def test_what_a_pipeline_says_of_its_last_call_is_said(prx: Make, told: dict[str, Any]) -> None:
    fast = asymflow.accelerate(prx(), mixed(*[asymflow.FULL] * 2))
    fast(**told, use_resolution_binning=False, guidance_scale=3.0, output_type="pt")
    assert (fast.guidance_scale, fast.num_timesteps) == (3.0, 2)


# Wrong uses.


def test_wrong_uses_are_refused_before_anything_is_measured(
    unconditional: Make, deepfloyd: Make, told: dict[str, Any]
) -> None:
    pipe, guided = unconditional(), deepfloyd()

    def refused(message: str, pipe: Any = pipe, *plan: Any, **options: Any) -> None:
        asked: list[int] = []

        def look(*_: object) -> None:
            asked.append(1)

        networks = [pipe.unet] if hasattr(pipe, "unet") else []
        hooks = [each.conv_in.register_forward_pre_hook(look) for each in networks]
        with pytest.raises(InputError, match=message):
            asymflow.accelerate(pipe, *plan, **options)
        for hook in hooks:
            hook.remove()
        assert asked == []

    refused("str is no pipeline.*from_pretrained", "google/ddpm-cat-256")
    refused("NoneType is no pipeline", cast("Any", None))
    refused("steps='8'", steps="8")
    refused("steps=8.5", steps=8.5)
    refused("2000 moves do not fit", steps=2000)
    refused("folder=3 is no path", folder=3)
    refused("family is a str", family="unet")
    refused("no argument 'x', only sample", family=Family(network="unet", state="x"))
    refused("no argument 't', only sample", family=Family("unet", state="sample", time="t"))
    refused(
        r"no argument 'prompt'.*conditions=",
        family=Family("unet", state="sample", conditions=("prompt",)),
    )
    refused(
        "no setting 'noise_scale'",
        family=Family("unet", state="sample", conditions=(), noise="noise_scale"),
    )
    refused("examples is a dict, and a list", guided, examples=told)
    refused(r"examples\[0\] is a str", guided, examples=["a fox"])
    larger = {**told, "height": 32, "width": 32}
    refused(r"examples\[1\] is called for size 32x32", guided, examples=[told, larger])
    stronger = {**told, "guidance_scale": 3.0}
    refused(r"guidance_scale 3, and examples\[0\]", guided, examples=[told, stronger])
    torch.manual_seed(0)
    pipe.unet = type(pipe.unet).from_config(pipe.unet.config, num_class_embeds=4)
    for plan in ("auto", PLAN):
        refused(r"4 classes.*diffusers\.networks\.adapt", pipe, plan)


def test_wrong_uses_of_cascades_are_refused(deepfloyd: Make, told: dict[str, Any]) -> None:
    one, other = (deepfloyd(kind=kind) for kind in ("IFPipeline", "IFSuperResolutionPipeline"))
    with pytest.raises(InputError, match="without pairs of calls"):
        cascade.accelerate(one, other, 1.0, examples=[])
    with pytest.raises(InputError, match=r"examples\[0\] is a dict"):
        cascade.accelerate(one, other, 1.0, examples=cast("Any", [told]))
    with pytest.raises(InputError, match=r"begins with a picture.*first stage, second stage"):
        cascade.accelerate(other, one, 1.0, examples=[(told, told)])
    with pytest.raises(InputError, match="seconds='1'"):
        cascade.accelerate(one, other, cast("Any", "1"), examples=[(told, told)])


def test_a_folder_may_be_text(unconditional: Make, tmp_path: Path) -> None:
    fast = asymflow.accelerate(unconditional(), steps=2, folder=str(tmp_path))
    assert (tmp_path / "asymflow" / "plan.json").exists()
    again = asymflow.accelerate(unconditional(), "plan", folder=str(tmp_path))
    assert again.asymflow_plan == fast.asymflow_plan


def test_passes_are_counted_once_where_nothing_is_guided(unconditional: Make) -> None:
    pipe = unconditional()
    fast = asymflow.accelerate(pipe, steps=3)
    plan: Plan = fast.asymflow_plan
    asked: list[int] = []

    def look(*_: object) -> None:
        asked.append(1)

    pipe.unet.conv_in.register_forward_pre_hook(look)
    draw(fast)
    assert plan.forwards == len(asked)
    assert f"{len(plan.steps)} steps, {len(asked)} NFE" in str(plan)
