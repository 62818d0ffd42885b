"""Models of diffusers against its own schedulers: states, trajectories, files, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine
from asymflow.core.adapter import Adapter
from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.core.flow import interpolate
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Request
from asymflow.models.diffusers.networks import DiffusersAdapter, adapt, load
from asymflow.models.diffusers.schedule import Schedule
from asymflow.planning import verifier
from tests.helpers import draw

diffusers: Any = pytest.importorskip("diffusers")

PREDICTIONS = ("epsilon", "v_prediction", "sample")
NULL = 2
SIDE = 8


def unet(**changes: Any) -> Any:
    """Three classes, the last of which stands for none; weights as if it had learnt something."""
    torch.manual_seed(0)
    shape = {
        "sample_size": SIDE,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "num_class_embeds": NULL + 1,
    }
    model = diffusers.UNet2DModel(**{**shape, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def ddim(**changes: Any) -> Any:
    return diffusers.DDIMScheduler(**{"clip_sample": False, **changes})


def ddpm(**changes: Any) -> Any:
    return diffusers.DDPMScheduler(**{"clip_sample": False, **changes})


def request(label: int | None = 0, seed: int = 0, scale: float = 1.0, side: int = SIDE) -> Request:
    inputs = {} if label is None else {"label": label}
    return Request(inputs, (side, side), seed, scale)


def time_of(scheduler: Any, timestep: int) -> float:
    square = float(scheduler.alphas_cumprod[timestep].double())
    alpha, sigma = square**0.5, (1 - square) ** 0.5
    return sigma / (alpha + sigma)


class Oracle:
    """A network that knows the answer, and writes down what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer
        self.config = SimpleNamespace(
            in_channels=3,
            num_class_embeds=None,
            class_embed_type=None,
            block_out_channels=(8, 16),
            time_embedding_type="positional",
        )
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.z = self.tau = torch.empty(0)

    def __call__(self, z: Tensor, tau: Tensor, **_: Any) -> tuple[Tensor]:
        self.z, self.tau = z, tau
        return (self.answer,)

    def eval(self) -> Oracle:
        return self

    def requires_grad_(self, _: bool) -> Oracle:
        return self

    def state_dict(self) -> dict[str, Tensor]:
        return {}


def test_it_is_an_adapter_named_after_all_that_estimates_depend_on() -> None:
    adapter = adapt(unet(), ddim(), null=NULL)
    assert isinstance(adapter, Adapter)
    assert (adapter.channels, adapter.classes, adapter.batch) == (3, 3, 1)
    assert adapter.name == f"diffusers:{adapter.weights_hash[:12]}"
    other = unet()
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    names = {
        adapter.name,
        adapt(other, ddim(), null=NULL).name,
        adapt(unet(), ddim(), null=1).name,
        adapt(unet(), ddim(clip_sample=True), null=NULL).name,
        adapt(unet(), ddim(beta_end=0.01), null=NULL).name,
        adapt(unet(), ddim(prediction_type="sample"), null=NULL).name,
    }
    assert len(names) == 6
    assert adapter.name == adapt(unet(), ddpm(), null=NULL).name


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_states_and_answers_are_those_of_diffusers(prediction: str, schedule: str) -> None:
    scheduler = ddpm(prediction_type=prediction, beta_schedule=schedule)
    x_0, eps = draw(0, 1, 3, SIDE, SIDE), draw(1, 1, 3, SIDE, SIDE)
    for timestep in (0, 1, 250, 500, 800, 950):
        tau = torch.tensor([timestep])
        answers = {
            "epsilon": eps,
            "v_prediction": scheduler.get_velocity(x_0, eps, tau),
            "sample": x_0,
        }
        oracle = Oracle(answers[prediction])
        t = time_of(scheduler, timestep)
        x_t = interpolate(x_0, eps, t)
        found = adapt(oracle, scheduler).denoise(x_t, torch.tensor([t]), {})
        assert_close(oracle.z, scheduler.add_noise(x_0, eps, tau), rtol=0, atol=1e-5)
        assert_close(oracle.tau, tau.float(), rtol=0, atol=2e-3)
        # eps is divided by alpha, and rounding with it.
        alpha = float(scheduler.alphas_cumprod[timestep]) ** 0.5
        assert_close(found, x_0, rtol=0, atol=1e-5 if alpha > 0.1 else 1e-6 / alpha)


def test_between_timesteps_the_log_snr_is_linear() -> None:
    schedule = Schedule.of(ddpm().alphas_cumprod)
    lam = schedule.log_snr
    middle = torch.sigmoid(-(0.25 * lam[300] + 0.75 * lam[301]))
    assert schedule.timestep(middle[None]).item() == pytest.approx(300.75, abs=1e-9)
    every = schedule.timestep(torch.sigmoid(-lam))
    assert_close(every, torch.arange(1000.0, dtype=torch.float64), rtol=0, atol=1e-6)
    assert (schedule.timestep(torch.linspace(0, 1, 999)).diff() >= 0).all()


@pytest.mark.parametrize("count", [1, 7, 10, 1000])
def test_candidates_are_the_trailing_grid(count: int) -> None:
    scheduler = ddim(timestep_spacing="trailing")
    schedule = Schedule.of(scheduler.alphas_cumprod)
    scheduler.set_timesteps(count)
    *grid, last = schedule.times(count)
    assert last == 0
    assert grid[0] == pytest.approx(schedule.limits[1], abs=1e-9)
    tau = schedule.timestep(torch.tensor(grid, dtype=torch.float64))
    # diffusers rounds to whole timesteps.
    assert_close(tau, scheduler.timesteps.double(), rtol=0, atol=0.501)
    for wrong in (0, 1001):
        with pytest.raises(InputError, match="Choose 1 to 1000"):
            schedule.times(wrong)


def test_beyond_the_trained_noise_the_state_is_scaled_to_the_limit() -> None:
    scheduler = ddpm()
    schedule = Schedule.of(scheduler.alphas_cumprod)
    low, high = schedule.limits
    assert low == pytest.approx(time_of(scheduler, 0), abs=1e-7)
    assert high == pytest.approx(time_of(scheduler, 999), abs=1e-7)
    t = torch.tensor([1.0, 0.999, 0.5, 0.001, 0.0], dtype=torch.float64)
    alpha, sigma, k = schedule.scaled(t)
    tau = schedule.timestep(t)
    assert tau[:2].tolist() == [999, 999]
    assert tau[3:].tolist() == [0, 0]
    assert_close(k[:2] * t[:2], sigma[:2])  # the noise is what timestep 999 expects
    assert_close(k[3:] * (1 - t[3:]), alpha[3:])  # the signal is what timestep 0 expects
    assert_close((alpha**2 + sigma**2), torch.ones(5, dtype=torch.float64))
    assert (k * t)[2] == pytest.approx(float(sigma[2]))
    assert (k * (1 - t))[2] == pytest.approx(float(alpha[2]))
    edges = torch.tensor([low, high], dtype=torch.float64)
    around = schedule.scaled(edges - 1e-9)[2], schedule.scaled(edges + 1e-9)[2]
    assert_close(*around, rtol=1e-5, atol=0)  # without a jump


def test_a_schedule_that_ends_in_pure_noise_is_served_up_to_it() -> None:
    scheduler = ddim(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6
    adapter = adapt(unet(), scheduler)
    x_0 = verifier.rollout(adapter, plan_of(shifted(4, 2.0)), [request()])
    assert x_0.isfinite().all()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_euler_over_its_timesteps_is_ddim(
    prediction: str, spacing: str, clip: bool, schedule: str
) -> None:
    model = unet()
    scheduler = ddim(
        prediction_type=prediction,
        timestep_spacing=spacing,
        clip_sample=clip,
        beta_schedule=schedule,
    )
    scheduler.set_timesteps(10)
    grid = [*(time_of(scheduler, int(tau)) for tau in scheduler.timesteps), 0.0]
    asked = [request(0, 3), request(1, 4)]
    ours = verifier.rollout(adapt(model, scheduler), plan_of(grid, solver="euler"), asked)

    # As pipelines begin, wherever their first timestep is.
    z = torch.stack([engine.noise(each.seed, (3, SIDE, SIDE)) for each in asked])
    with torch.no_grad():
        for tau in scheduler.timesteps:
            answer = model(z, tau, class_labels=torch.tensor([0, 1])).sample
            # What the clipped x_0 leaves as noise: otherwise the two contradict each other.
            z = scheduler.step(answer, tau, z, use_clipped_model_output=True).prev_sample
    assert float(ours.std()) > 0.05
    # The end of the cosine schedule divides by an alpha of 5e-5, and rounding with it.
    assert_close(ours, z, rtol=1e-4, atol=2e-3 * max(1.0, float(z.std())))


def test_guidance_is_that_of_the_answers() -> None:
    model, scheduler, scale = unet(), ddim(), 3.0
    adapter = adapt(model, scheduler, null=NULL)
    t = time_of(scheduler, 600)
    [frame] = engine.walk(adapter, plan_of((t, 0.0)), [request(1, 5, scale)])
    z = engine.noise(5, (1, 3, SIDE, SIDE))
    with torch.no_grad():
        cond, null = (
            model(z, 600, class_labels=torch.tensor([label])).sample for label in (1, NULL)
        )
    square = scheduler.alphas_cumprod[600]
    eps = null + scale * (cond - null)
    assert_close(frame.x_0, (z - (1 - square) ** 0.5 * eps) / square**0.5, rtol=1e-4, atol=1e-4)


def test_a_picture_is_the_same_alone_in_any_batch_and_twice() -> None:
    adapter = adapt(unet(), ddim(), null=NULL)
    plan = plan_of(shifted(4, 2.0), guidance_interval=(0.2, 1.0))
    requests = [request(0, 3, 2.0), request(1, 4), request(0, 5, side=16), request(None, 3)]
    together = engine.run(adapter, plan, requests)
    for batch in ([requests[0]], requests[2:], list(reversed(requests))):
        for result in engine.run(adapter, plan, batch):
            index = next(i for i, each in enumerate(requests) if each is result.request)
            assert np.array_equal(result.picture, together[index].picture)
    assert not np.array_equal(together[0].picture, together[3].picture)


def test_without_classes_nothing_is_told() -> None:
    adapter = adapt(unet(num_class_embeds=None), ddim())
    assert adapter.encode([request(None)]) == ({}, {})
    [result] = engine.run(adapter, plan_of(shifted(3, 2.0)), [request(None)])
    assert result.picture.shape == (SIDE, SIDE, 3)
    assert result.forwards == 3
    with pytest.raises(InputError, match="label=1 is not possible"):
        adapter.check(request(1))


def test_a_learned_variance_is_left_out() -> None:
    adapter = adapt(unet(out_channels=6), ddpm(variance_type="learned_range"))
    x_t = draw(0, 1, 3, SIDE, SIDE)
    assert (
        adapter.denoise(x_t, torch.tensor([0.5]), {"label": torch.tensor([0])}).shape == x_t.shape
    )


def test_pictures_and_states_are_inverse() -> None:
    adapter = adapt(unet(), ddim())
    picture = np.random.default_rng(0).random((SIDE, SIDE, 3), dtype=np.float32)
    assert np.allclose(adapter.to_picture(adapter.to_state(picture)), picture, atol=1e-6)


def test_only_declared_sizes_are_pooled() -> None:
    assert adapt(unet(), ddim()).pool_factors((32, 32)) == ()
    adapter = adapt(unet(), ddim(), pool_factors=(2, 4))
    assert adapter.pool_factors((32, 32)) == (2, 4)
    assert adapter.pool_factors((12, 8)) == (2,)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (request(3), "Label 3 is not a class"),
        (request(-1), "from 0 to 2"),
        (Request({"label": "dog"}, (SIDE, SIDE)), "'dog'"),
        (request(None), "Label None"),
        (request(side=9), "multiples of 2"),
        (request(side=0), "multiples of 2"),
        (request(scale=2.0), "stands for none"),
    ],
)
def test_refusals(wanted: Request, message: str) -> None:
    with pytest.raises(InputError, match=message):
        adapt(unet(), ddim()).check(wanted)


def test_schedulers_that_cannot_be_translated_are_refused() -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction")
    with pytest.raises(InputError, match="'flow_prediction', which is not supported"):
        adapt(unet(), scheduler)


def test_models_that_cannot_be_translated_are_refused() -> None:
    with pytest.raises(InputError, match="has no alphas_cumprod and is no flow-matching"):
        adapt(unet(), diffusers.EDMEulerScheduler())
    with pytest.raises(InputError, match="time embedding 'fourier'"):
        adapt(unet(time_embedding_type="fourier"), ddim())
    with pytest.raises(InputError, match="Linear is not supported"):
        adapt(torch.nn.Linear(1, 1), ddim())
    for null in (-1, 3):
        with pytest.raises(InputError, match=f"null={null}"):
            adapt(unet(), ddim(), null=null)
    with pytest.raises(InputError, match="0 classes"):
        adapt(unet(num_class_embeds=None), ddim(), null=0)


def saved(folder: Path, **options: Any) -> Path:
    diffusers.DDPMPipeline(unet=unet(), scheduler=ddpm()).save_pretrained(folder, **options)
    return folder


def test_a_saved_pipeline_comes_back(tmp_path: Path) -> None:
    adapter = load(saved(tmp_path / "whole"), null=NULL)
    assert isinstance(adapter, DiffusersAdapter)
    assert adapter.name == adapt(unet(), ddpm(), null=NULL).name
    plan, asked = plan_of(shifted(3, 2.0)), [request(1, 7, 2.0)]
    first = verifier.rollout(adapter, plan, asked)
    assert torch.equal(first, verifier.rollout(adapt(unet(), ddpm(), null=NULL), plan, asked))
    half = load(tmp_path / "whole", null=NULL, dtype=torch.bfloat16)
    assert half.name == adapter.name
    rough = verifier.rollout(half, plan, asked)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, first)


def test_a_network_beside_its_scheduler_comes_back(tmp_path: Path) -> None:
    unet().save_pretrained(tmp_path)
    ddpm().save_pretrained(tmp_path)
    assert load(tmp_path, null=NULL).name == adapt(unet(), ddpm(), null=NULL).name


def test_incomplete_and_damaged_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"Cannot read .*config\.json"):
        load(tmp_path)
    unet().save_pretrained(tmp_path)
    with pytest.raises(FileFormatError, match=r"scheduler_config\.json"):
        load(tmp_path)
    pickled = saved(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(FileFormatError, match="safetensors"):
        load(pickled)
    damaged = saved(tmp_path / "damaged")
    weights = damaged / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match="damaged"):
        load(damaged)
    (damaged / "unet" / "config.json").write_text("[]")
    with pytest.raises(FileFormatError, match="not the configuration"):
        load(damaged)


def test_pipelines_that_work_on_latents_are_explained(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(FileFormatError, match=r"LDMPipeline with vqvae: .* latents"):
        load(folder)


def test_networks_of_other_kinds_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(FileFormatError, match="UNet2DConditionModel, but only UNet2DModel"):
        load(folder)


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(MissingExtra, match=r"\.\[diffusers\]"):
        load(tmp_path)
