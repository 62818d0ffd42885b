"""Packed layers answer as plain ones do, and cost the same arithmetic."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from asymflow.models.embedded.packed import PackedLinear, pack
from asymflow.planning import costs

TYPES = [torch.float32]
if torch.ops.mkldnn._is_mkldnn_bf16_supported():
    TYPES.append(torch.bfloat16)


def layers(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 40), nn.Sequential(nn.SiLU(), nn.Linear(40, 8, bias=False)))
    return net.to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 24), (2, 7, 24), (3, 200, 24)])
def test_packed_layers_answer_as_plain_ones(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    plain = layers(dtype)
    packed = copy.deepcopy(plain)
    pack(packed)
    assert sum(isinstance(each, PackedLinear) for each in packed.modules()) == 2
    x = torch.randn(shape, dtype=dtype)
    wanted, found = plain(x), packed(x)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", TYPES)
def test_gradients_pass_through_packed_layers(dtype: torch.dtype) -> None:
    """Of a whole batch: plans are polished by them."""
    plain = layers(dtype)
    packed = copy.deepcopy(plain)
    pack(packed)
    x = torch.randn(2, 7, 24, dtype=dtype, requires_grad=True)
    [wanted], [found] = (torch.autograd.grad(net(x).square().sum(), [x]) for net in (plain, packed))
    assert wanted.abs().min() > 0
    torch.testing.assert_close(found, wanted)


def test_layers_of_other_types_and_devices_stay() -> None:
    for net in (layers(torch.float64), layers(torch.float32).to("meta")):
        pack(net)
        assert not any(isinstance(each, PackedLinear) for each in net.modules())


def test_packed_layers_count_the_same_work() -> None:
    plain = layers(torch.float32)
    packed = copy.deepcopy(plain)
    pack(packed)
    x = torch.randn(2, 7, 24)
    expected = costs.work(lambda: plain(x))
    assert costs.work(lambda: packed(x)) == expected
    assert expected.shapes == ((14, 24, 40), (14, 40, 8))
