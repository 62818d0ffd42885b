"""How the suites `families` call pipelines, count what networks are asked, and take time."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.suites.families import measuring

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


def test_calls_take_turns_and_ratios_have_intervals() -> None:
    made: list[tuple[str, int]] = []

    def call(name: str, number: int) -> None:
        made.append((name, number))
        time.sleep(0.002 if name == "slow" else 0.001)

    names = ("quick", "slow")
    taken = measuring.by_turns(
        {name: lambda number, name=name: call(name, number) for name in names}, 3
    )
    assert made == [
        *(("slow", 0), ("quick", 0), ("quick", 1), ("slow", 1), ("slow", 2), ("quick", 2)),
    ]
    assert all(each.clock.shape == each.processor.shape == (3,) for each in taken.values())
    assert all((each.clock >= 0.001).all() for each in taken.values())

    found = measuring.ratio(np.array([2.0, 4.0, 9.0]), np.array([1.0, 1.0, 3.0]))
    assert (found.low, found.value, found.high) == (2, 3, 4)
    assert measuring.milliseconds(np.array([0.1, 0.2, 0.4])) == 200


def test_pictures_are_opaque_rgba() -> None:
    pixels = torch.rand(2, 3, 4, 5)
    made = measuring.rgba(pixels)
    assert made.shape == (2, 4, 5, 4)
    assert np.array_equal(made[..., :3], pixels.movedim(1, -1).numpy())
    assert (made[..., 3] == 1).all()
