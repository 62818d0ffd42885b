"""Linear layers with weights packed in the layout of the CPU kernels.

oneDNN, which computes PyTorch's products on a CPU, reorders a plain weight into blocks at every
call. For a few hundred rows that is negligible; for the few dozen of a small picture it takes as
long as the product. Here it is done once, when a model is loaded for inference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_ROWS = 128
"""Number of rows that the layout is optimised for: a guided picture of 64 x 64 pixels."""


class _Product(torch.autograd.Function):
    """The kernel's product, with the gradient by its input that PyTorch knows none of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.packed = weight
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:
        [slope] = grad_outputs
        return slope @ ctx.packed.to_dense(), None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class PackedLinear(nn.Module):
    """A linear layer with a weight in the format of its kernel, which cannot be trained."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _ROWS)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _Product.apply(x, self.weight, self.bias)
        return _product(x, self.weight, self.bias)


def pack(module: nn.Module) -> None:
    """Replace all linear layers of a module in place; it cannot be trained or saved afterwards.

    Layers stay unchanged where PyTorch has no such kernel for the device or dtype of a weight.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            if _possible(child.weight):
                setattr(module, name, PackedLinear(child))
        else:
            pack(child)


def _possible(weight: Tensor) -> bool:
    kernels: Any = torch.ops.mkldnn
    wanted = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(kernels, name) for name in wanted):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(kernels._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
