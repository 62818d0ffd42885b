"""The memory that is told before a run is that which the run takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import asymflow
from asymflow.core import engine
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Request
from asymflow.planning import costs, memory
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
