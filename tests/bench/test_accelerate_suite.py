"""How the suite `families accelerate` calls pipelines and counts what their networks are asked."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

import asymflow
from asymflow.core import schedules
from asymflow.core.types import Plan

diffusers: Any = pytest.importorskip("diffusers")


@pytest.fixture
def subject(tmp_path: Path) -> Any:
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=32,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction", clip_sample=False)
    diffusers.DDPMPipeline(unet=network, scheduler=scheduler).save_pretrained(tmp_path)
    return importlib.import_module("benchmarks.suites.families.accelerate").unet(tmp_path)


def test_schedulers_of_others_run_and_are_counted(subject: Any) -> None:
    accelerate = importlib.import_module("benchmarks.suites.families.accelerate")
    own = subject.pipe.scheduler
    _, kind, options = subject.schedulers[1]
    call = subject.call(subject.pipe, accelerate.scheduler_of(subject, kind, options), 4)
    assert call([1, 2]).shape == (2, 3, 32, 32)
    assert torch.allclose(call([1, 2])[:1], call([1]), atol=1e-4)
    assert subject.passes(call) == 4
    assert subject.pipe.scheduler is own
    assert "forward" not in vars(subject.pipe.unet)


def test_plans_run_and_are_counted(subject: Any) -> None:
    grid = schedules.plan_of([0.99 * t for t in schedules.uniform(3)], name="three")
    pipe = asymflow.accelerate(subject.pipe, Plan("three", grid.steps), family=subject.family)
    call = subject.call(pipe, pipe.scheduler, 1)
    assert call([1]).shape == (1, 3, 32, 32)
    assert subject.passes(call) == 3
