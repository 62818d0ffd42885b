"""One translation of diffusers' schedulers: every route gives the x_0 of the scheduler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine
from asymflow.core.adapter import Adapter, begun, clipped_estimate
from asymflow.core.schedules import plan_of
from asymflow.core.types import Request
from asymflow.models import edm
from asymflow.models.diffusers import networks, pipelines
from tests.helpers import draw

diffusers: Any = pytest.importorskip("diffusers")

SIDE, TAU = 8, 600
FAMILY = pipelines.Family(network="unet", state="sample", conditions=(), unit=True)


def unet(classes: int | None = None) -> Any:
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        num_class_embeds=classes,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


CUTS = [
    {"clip_sample": False},
    {"clip_sample": True, "clip_sample_range": 0.3},
    {"clip_sample": False, "thresholding": True, "sample_max_value": 1.5},
    # Thresholding has precedence in diffusers.
    {
        "clip_sample": True,
        "clip_sample_range": 0.3,
        "thresholding": True,
        "dynamic_thresholding_ratio": 0.5,
        "sample_max_value": 1.2,
    },
]


def routes(network: Any, scheduler: Any) -> tuple[Adapter, Adapter]:
    pipe = diffusers.DDPMPipeline(network, scheduler)
    return pipelines.adapt(pipe, FAMILY), networks.adapt(network, scheduler)


def estimate(adapter: Adapter, z: Tensor, t: Tensor, k: float) -> Tensor:
    with torch.no_grad():
        return clipped_estimate(adapter, adapter.denoise(z / k, t, {}))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("cut", CUTS)
def test_both_give_the_estimate_of_the_scheduler(prediction: str, cut: dict[str, Any]) -> None:
    network = unet()
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction, **cut)
    scheduler.set_timesteps(10)
    z = 2 * draw(0, 2, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = scheduler.step(network(z, TAU).sample, TAU, z).pred_original_sample
    square = float(scheduler.alphas_cumprod[TAU].double())
    alpha, sigma = square**0.5, (1 - square) ** 0.5
    t = torch.full((2,), sigma / (alpha + sigma), dtype=torch.float64)
    by_pipeline, by_network = routes(network, scheduler)
    found = estimate(by_pipeline, z, t, alpha + sigma)
    assert torch.equal(found, estimate(by_network, z, t, alpha + sigma))
    assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if cut["clip_sample"] or cut.get("thresholding"):
        whole = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=False)
        uncut = estimate(routes(network, whole)[0], z, t, alpha + sigma)
        assert not torch.allclose(uncut, found, atol=0.05)


def test_both_translate_flows() -> None:
    network, scheduler = unet(), diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    z, u = draw(0, 2, 3, SIDE, SIDE), 0.6
    with torch.no_grad():
        expected = z - u * network(z, 1000 * u).sample
    t = torch.full((2,), u, dtype=torch.float64)
    by_pipeline, by_network = routes(network, scheduler)
    found = estimate(by_pipeline, z, t, 1.0)
    assert torch.equal(found, estimate(by_network, z, t, 1.0))
    assert_close(found, expected, rtol=1e-5, atol=1e-5)
    eps = draw(1, 1, 3, SIDE, SIDE)
    for adapter in (by_pipeline, by_network):
        [frame] = engine.walk(adapter, plan_of((1.0, 0.0)), [Request({}, (SIDE, SIDE), 3)])
        assert frame.x_t.isfinite().all()
        assert torch.equal(begun(adapter, eps, 1.0), eps)


@pytest.mark.parametrize("cut", CUTS[1:])
def test_estimates_are_cut_after_guidance(cut: dict[str, Any]) -> None:
    network, scale = unet(classes=3), 3.0
    scheduler = diffusers.DDPMScheduler(**cut)
    adapter = networks.adapt(network, scheduler, null=2)
    t = 0.5
    [frame] = engine.walk(
        adapter, plan_of((t, 0.0)), [Request({"label": 1}, (SIDE, SIDE), 5, scale)]
    )
    x_t = adapter.begin(engine.noise(5, (1, 3, SIDE, SIDE)), t)
    with torch.no_grad():
        cond, null = (
            adapter.denoise(x_t, torch.tensor([t]), {"label": torch.tensor([label])})
            for label in (1, 2)
        )
    guided = null + scale * (cond - null)
    assert_close(frame.x_0, adapter.clip_estimate(guided), rtol=1e-4, atol=1e-4)
    before = [adapter.clip_estimate(each) for each in (cond, null)]
    assert not torch.allclose(frame.x_0, before[1] + scale * (before[0] - before[1]), atol=0.05)


def test_networks_of_guided_diffusion_are_translated_alike() -> None:
    network = unet()
    scheduler = diffusers.DDPMScheduler(clip_sample=True)

    def net(z: Tensor, tau: Tensor) -> Tensor:
        return network(z, tau).sample

    plain = edm.guided_diffusion(
        net, scheduler.alphas_cumprod, channels=3, clip_denoised=True, name="a"
    )
    z, t = draw(0, 2, 3, SIDE, SIDE), torch.tensor([0.4, 0.7], dtype=torch.float64)
    found = estimate(plain, z, t, 1.0)
    assert torch.equal(found, estimate(routes(network, scheduler)[1], z, t, 1.0))
    assert float(found.abs().max()) == 1
