"""Small pipelines of every family, as if they had learnt something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Plan, Tier
from asymflow.integrations.diffusers import auto, task
from tests.helpers import draw

diffusers: Any = pytest.importorskip("diffusers")

Make = Callable[..., Any]


CARRIED = Tier("conditional+", guided=False, cached=True)


def mixed(*tiers: Tier) -> Plan:
    """One step per tier."""
    grid = plan_of(shifted(len(tiers), 3.0), solver="corrected2")
    steps = zip(grid.steps, tiers, strict=True)
    return Plan("mixed", tuple(replace(step, tier=tier) for step, tier in steps))


def measured_with(patch: pytest.MonkeyPatch, **values: object) -> None:
    """Let plans be measured with other numbers of pictures, moves and times."""
    for module in (auto, task):
        for name in values.keys() & vars(module).keys():
            patch.setattr(module, name, values[name])


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(network: Any, amount: float) -> Any:
    """Away from the zeros that networks begin with."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


@pytest.fixture
def unconditional() -> Make:
    """A DDIMPipeline, or another one of that kind, of 8 px."""

    def make(kind: str = "DDIMPipeline", scheduler: str = "DDIMScheduler", **options: Any) -> Any:
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
        )
        own = getattr(diffusers, scheduler)(**{"clip_sample": False, **options})
        pipe = getattr(diffusers, kind)(shaken(network, 0.02), own)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture
def prx() -> Make:
    """A PRXPixelPipeline of 16 px without a text encoder."""

    def make(**options: Any) -> Any:
        torch.manual_seed(0)
        network = diffusers.PRXTransformer2DModel(
            in_channels=3,
            patch_size=4,
            context_in_dim=8,
            hidden_size=32,
            num_heads=2,
            depth=2,
            axes_dim=[8, 8],
            bottleneck_size=16,
            resolution_embeds=True,
        )
        own = diffusers.FlowMatchEulerDiscreteScheduler(**options)
        pipe = diffusers.PRXPixelPipeline(
            shaken(network, 0.05), own, None, None, default_sample_size=16
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture
def told() -> dict[str, Any]:
    """How a pipeline without a text encoder is called."""
    return {
        "prompt_embeds": draw(1, 1, 5, 8),
        "negative_prompt_embeds": draw(2, 1, 5, 8),
    }


@pytest.fixture
def deepfloyd() -> Make:
    """An IFPipeline of 16 px, or a later stage, without a text encoder; it learnt a variance."""

    def make(
        scheduler: str = "DDIMScheduler",
        kind: str = "IFPipeline",
        shaking: float = 0.01,
        **options: Any,
    ) -> Any:
        torch.manual_seed(0)
        larger = "SuperResolution" in kind
        network = diffusers.UNet2DConditionModel(
            sample_size=16,
            out_channels=6,
            in_channels=6 if larger else 3,
            class_embed_type="timestep" if larger else None,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            cross_attention_dim=8,
            encoder_hid_dim=8,
            attention_head_dim=4,
            resnet_time_scale_shift="scale_shift",
        )
        own = getattr(diffusers, scheduler)(beta_schedule="squaredcos_cap_v2", **options)
        if scheduler == "DDIMScheduler":  # which the pipeline asks every scheduler for
            own.register_to_config(variance_type="fixed_small")
        noising = {"image_noising_scheduler": diffusers.DDPMScheduler()} if larger else {}
        pipe = getattr(diffusers, kind)(
            tokenizer=None,
            text_encoder=None,
            unet=shaken(network, shaking),
            scheduler=own,
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
            **noising,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture
def given() -> Callable[[str, int], dict[str, Tensor]]:
    """Pictures that a stage of DeepFloyd IF is called with: it, what was there, what to repaint."""

    def make(kind: str, count: int = 1) -> dict[str, Tensor]:
        larger = "SuperResolution" in kind
        original = draw(3, count, 3, 16, 16).clamp(-1, 1)
        call: dict[str, Tensor] = {}
        if kind != "IFPipeline":
            call["image"] = draw(4, count, 3, 8, 8).clamp(-1, 1) if larger else original
        if larger and kind != "IFSuperResolutionPipeline":
            call["original_image"] = original
        if "Inpainting" in kind:
            mask = torch.zeros(count, 1, 16, 16)
            mask[..., 4:12, 6:] = 1
            call["mask_image"] = mask
        return call

    return make


@pytest.fixture
def rows() -> Callable[[Any], list[int]]:
    """Writes down how many rows a network is asked with at every call."""

    def watch(network: Any) -> list[int]:
        seen: list[int] = []

        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(len(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]))

        network.blocks[0].register_forward_pre_hook(hook, with_kwargs=True)
        return seen

    return watch
