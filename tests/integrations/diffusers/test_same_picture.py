"""One model, one plan, one seed: the same picture from the pipeline, the engine and the command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import asymflow
from asymflow.cli import main
from asymflow.core import engine
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Plan, Request, Solver
from tests import miniatures

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

SEED = 7


@dataclass(frozen=True)
class Way:
    """A model, and how each of the three is asked for the same picture."""

    make: Callable[[], Any]
    inputs: Mapping[str, Any]
    size: tuple[int, int]
    scale: float
    call: Mapping[str, Any]
    words: tuple[str, ...]


WAYS = {
    "ddim": Way(miniatures.ddim_pipeline, {}, (8, 8), 1.0, {}, ()),
    "ddim, clipped": Way(
        partial(miniatures.ddim_pipeline, clip_sample=True), {}, (8, 8), 1.0, {}, ()
    ),
    "prx": Way(
        miniatures.prx_pipeline,
        {"prompt": "a red fox", "negative": "two cats"},
        (16, 24),
        3.5,
        {
            "prompt": "a red fox", "negative_prompt": "two cats", "guidance_scale": 3.5,
            "height": 16, "width": 24, "use_resolution_binning": False,
        },
        ("a red fox", "--negative", "two cats", "--guidance", "3.5", "--size", "24x16"),
    ),
    "prx without guidance": Way(
        miniatures.prx_pipeline,
        {"prompt": "a red fox"},
        (16, 16),
        1.0,
        {"prompt": "a red fox", "guidance_scale": 1.0, "use_resolution_binning": False},
        ("a red fox", "--guidance", "1"),
    ),
    "if": Way(
        miniatures.if_pipeline,
        {"prompt": "a red fox", "negative": "two cats"},
        (16, 16),
        3.0,
        {"prompt": "a red fox", "negative_prompt": "two cats", "guidance_scale": 3.0},
        ("a red fox", "--negative", "two cats", "--guidance", "3"),
    ),
}  # fmt: skip


def plans(model: Any, solver: Solver) -> dict[str, Plan]:
    """Grids from where the model's noise begins; with guidance in a part of them, and all along."""
    most = model.default_plan(model.card.sizes.native).times[0]
    grid = tuple(most * t for t in shifted(5, 2.0))
    return {
        "corrected": plan_of(grid, solver="corrected2", name="corrected"),
        # Of clipped estimates, euler takes other noise in a pipeline, as DDIMScheduler does.
        "part": plan_of(grid, solver=solver, guidance_interval=(0.3, 0.8), name="part"),
    }


@pytest.mark.parametrize("name", WAYS)
def test_the_pipeline_the_engine_and_the_command_agree(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    miniatures.without_ftfy(monkeypatch)
    monkeypatch.chdir(tmp_path)
    way = WAYS[name]
    pipe = way.make()
    pipe.save_pretrained("model")
    model = asymflow.load("./model")
    pictures: list[Any] = []
    for plan in plans(model, "damped2" if "clipped" in name else "euler").values():
        fast = asymflow.accelerate(pipe, plan)
        generator = torch.Generator().manual_seed(SEED)
        [expected] = fast(
            **way.call, num_inference_steps=5, generator=generator, output_type="np"
        ).images
        [result] = engine.run(model, plan, [Request(way.inputs, way.size, SEED, way.scale)])
        np.testing.assert_allclose(result.picture, expected, atol=1e-5, rtol=0)
        assert expected.std() > 0.05
        asymflow.save_plan(plan, Path("plan.json"))
        command = [
            "generate", *way.words, "--model", "./model", "--plan", "plan.json",
            "--seed", str(SEED), "--dtype", "float32", "--device", "cpu", "-o", "x.png",
        ]  # fmt: skip
        assert main.run(command) == 0
        with Image.open("x.png") as image:
            found = np.asarray(image.convert("RGB")) / 255
        np.testing.assert_allclose(found, result.picture, atol=0.5001 / 255, rtol=0)
        pictures.append(expected)
    one, other = pictures
    assert np.abs(one - other).max() > 1e-3  # or any plan would do
