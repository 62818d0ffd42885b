"""The memory that is told before a run is that which the run takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import asymflow
from asymflow.core import engine
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import FULL, Plan, Request, Step
from asymflow.planning import costs, memory, profiler
from tests import miniatures


@pytest.mark.parametrize(
    ("make", "inputs"),
    [(miniatures.jit_file, {"label": 3}), (miniatures.edm_file, {"label": 1})],
    ids=["jit", "edm"],
)
def test_it_is_what_a_run_takes(
    make: Callable[[Path], Path], inputs: dict[str, Any], tmp_path: Path
) -> None:
    model: Any = asymflow.load(make(tmp_path))
    plan = plan_of(shifted(4, 1.0))
    for scale in (1.0, 2.0):
        request = Request(inputs, model.card.sizes.native, 0, scale)
        told = memory.needed(model, request)
        taken = costs.peak_bytes(lambda asked=request: engine.run(model, plan, [asked]))
        assert 0.8 * taken < told.call < 1.2 * taken
    network = getattr(model, "model", None) or model.net
    assert told.weights >= 4 * sum(each.numel() for each in network.parameters())
    half: Any = asymflow.load(make(tmp_path), dtype=torch.bfloat16)
    assert memory.weight_bytes(half) < 0.6 * told.weights


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_that_of_a_plan_is_what_it_takes(scale: float, tmp_path: Path) -> None:
    model: Any = asymflow.load(miniatures.jit_file(tmp_path))
    side = 4 * model.card.sizes.native[0]
    request = Request({"label": 3}, (side, side), 0, scale)
    profile = profiler.profile(model, [request], times=(1.0, 0.5, 0.2, 0.0), repeats=1)
    for tier in profile.tiers:
        if tier.cached:
            continue
        late = Step(0.5, 0.0, tier)
        for each in (
            Plan("one tier", (Step(1.0, 0.5, FULL if tier.tiles or tier.late else tier), late)),
            Plan("carried", (Step(1.0, 0.5), Step(0.5, 0.2, FULL), Step(0.2, 0.0, tier))),
        ):
            told = memory.of_plan(profile, each)
            taken = costs.peak_bytes(lambda asked=each: engine.rollout(model, asked, [request]))
            assert told is not None
            assert 0.9 * taken < told < 1.1 * taken
    plan = plan_of(shifted(2, 1.0))
    assert memory.of_plan(replace(profile, peak_bytes=(0,) * len(profile.tiers)), plan) is None
    old = {name: value for name, value in profile.made.items() if name != "state_bytes"}
    assert memory.of_plan(replace(profile, made=old), plan) is None


def test_text_encoders_count_and_shared_weights_count_once(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    pipe = miniatures.prx_pipeline()
    pipe.save_pretrained(tmp_path)
    parts = (pipe.transformer, pipe.text_encoder)
    tensors = {t.data_ptr(): t.nbytes for each in parts for t in each.parameters()}
    buffers = sum(t.nbytes for each in parts for t in each.buffers())
    assert memory.weight_bytes(asymflow.load(tmp_path)) == sum(tensors.values()) + buffers


def test_it_is_said_in_words() -> None:
    assert str(memory.Memory(2_400_000_000, 31_000)) == "2.4 GB of weights, and 31 kB for a call"
