"""Networks as people run them, with other layers, dtypes and hooks: a plan still runs, and says so.

Weights that are stored in another way cannot be recognised as those that a plan was measured on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import asymflow
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Plan
from asymflow.models.diffusers.families import family_of
from asymflow.models.diffusers.pipelines import description_of
from asymflow.planning import binding
from tests import miniatures

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


class Quantised(nn.Module):
    """A linear layer with weights of 8 bits under another name, as libraries for this have."""

    scale: Tensor
    qweight: Tensor

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        super().__init__()
        largest = 127 if dtype == torch.int8 else torch.finfo(dtype).max
        self.register_buffer("scale", layer.weight.abs().max() / largest)
        rows = layer.weight / self.scale
        self.register_buffer("qweight", (rows.round() if dtype == torch.int8 else rows).to(dtype))
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.qweight.to(x.dtype) * self.scale, self.bias)


class LowRank(nn.Module):
    """A linear layer with a LoRA beside it, as PEFT wraps them."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.base_layer = layer
        self.lora_A = nn.Linear(layer.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 0.01 * self.lora_B(self.lora_A(x))


def replaced(network: Any, make: Callable[[Any], nn.Module]) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and not isinstance(module, Quantised | LowRank):
                setattr(module, name, make(child))


CHANGES: dict[str, Callable[[Any], object]] = {
    "int8": lambda network: replaced(network, lambda layer: Quantised(layer, torch.int8)),
    "fp8": lambda network: replaced(network, lambda layer: Quantised(layer, torch.float8_e4m3fn)),
    "layerwise casting": lambda network: network.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    ),
    "lora": lambda network: replaced(network, LowRank),
}
CALL: dict[str, Any] = {
    "prompt": "a red fox", "guidance_scale": 3.0, "use_resolution_binning": False,
    "output_type": "np",
}  # fmt: skip


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Bound to the network as it was."""
    miniatures.without_ftfy(monkeypatch)
    pipe = miniatures.prx_pipeline()
    return binding.bound(plan_of(shifted(4, 2.0)), description_of(pipe, family_of(pipe)))


@pytest.mark.parametrize("change", CHANGES)
def test_a_plan_runs_and_one_line_says_that_weights_differ(
    change: str, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = miniatures.prx_pipeline()
    CHANGES[change](pipe.transformer)
    pipe.transformer.requires_grad_(False)
    assert binding.match(plan, description_of(pipe, family_of(pipe))).level == "compatible"
    with caplog.at_level(logging.WARNING, logger="asymflow"):
        fast = asymflow.accelerate(pipe, plan)
        one, again = (
            fast(**CALL, generator=torch.Generator().manual_seed(1)).images for _ in range(2)
        )
    assert (one == again).all()
    assert one.std() > 0.05
    told = [record for record in caplog.records if "errors that were measured may differ" in
            record.getMessage()]  # fmt: skip
    assert len(told) == 1


def test_bfloat16_is_the_same_model_and_hooks_are_kept(plan: Plan) -> None:
    pipe = miniatures.prx_pipeline()
    pipe.transformer.to(torch.bfloat16)
    pipe.text_encoder.to(torch.bfloat16)
    assert binding.match(plan, description_of(pipe, family_of(pipe))).level == "exact"
    calls: list[str] = []

    def hook(*_: object) -> None:
        calls.append("hook")

    pipe.transformer.blocks[0].register_forward_pre_hook(hook)
    images = asymflow.accelerate(pipe, plan)(**CALL).images
    assert images.std() > 0.05
    assert len(calls) == 4
