"""A light convolutional encoder and decoder around the trunk, for local detail.

A transformer on patches of 8 x 8 px gets the layout right and details wrong: every patch is decoded
separately, which is visible as a grid and as mottled colours. Here convolutions at 1/2 and 1/4 of
the side encode the input and decode the output, as the outer levels of a U-Net around the trunk.
They support all sizes of the trunk.

What is left of the noise at small t is in single pixels, and convolutions with fixed weights cannot
cancel it to the accuracy that is visible: how much of a pixel is noise depends on t, and on whether
there is an edge. With `gates` the output has terms that say just that: gains of the condition on
the input and on `local`, the deviation of a pixel from its neighbours, and a gain of every pixel
on the latter.

Feature maps are [b, h, w, c] throughout: LayerNorm and Linear want the channels last, and so do the
fast kernels of convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGEST = 2.0
"""Gain of a pixel. Without a limit the network would be of second order in its input, and a step
outside what it was trained on could grow without end."""


@dataclass(frozen=True, slots=True)
class DetailConfig:
    """The configuration of a `Detail`.

    Attributes:
        half, quarter: channels of the feature maps at 1/2 and at 1/4 of the side.
        gates: whether input and deviations from neighbours are in the output by gains.
    """

    half: int = 64
    quarter: int = 128
    gates: bool = False


def fold(x: Tensor) -> Tensor:
    """2 x 2 blocks into channels: [b, h, w, c] to [b, h/2, w/2, 4 c]."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, h // 2, w // 2, 4 * c)


def unfold(x: Tensor) -> Tensor:
    """Inverse of `fold`: [b, h, w, 4 c] to [b, 2 h, 2 w, c]."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, 2 * h, 2 * w, c // 4)


class Conv(nn.Conv2d):
    """A 3 x 3 convolution of [b, h, w, i] to [b, h, w, o]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.weight.data = self.weight.data.to(memory_format=torch.channels_last)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Residual(nn.Module):
    """Two convolutions beside a skip, shifted and scaled by the condition (FiLM)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.channels = channels
        self.film = nn.Linear(condition, 2 * channels)
        self.first = Conv(channels, channels)
        self.second = Conv(channels, channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)
        with torch.no_grad():  # a small gain, since with zero Muon's first updates would be noise
            self.second.weight.mul_(0.2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [b, h, w, channels], condition [b, width]."""
        shift, scale = self.film(condition)[:, None, None].chunk(2, dim=-1)
        h = torch.addcmul(shift, F.layer_norm(x, (self.channels,)), 1 + scale)
        return x + self.second(F.silu(self.first(h)))


class Detail(nn.Module):
    """Convolutions before and after a trunk whose tokens are patches of 8 x 8 px.

    Args:
        config: channels of the feature maps.
        inputs: input channels: the noisy picture and the references.
        outputs: output channels.
        width: of the trunk's tokens, and of its condition.
    """

    def __init__(self, config: DetailConfig, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        half, quarter = config.half, config.quarter
        self.read = Conv(4 * (inputs + outputs * config.gates), half)
        self.to_quarter = nn.Linear(4 * half, quarter)
        self.quarter_in = Residual(quarter, width)
        self.to_tokens = nn.Linear(4 * quarter, width)
        self.from_tokens = nn.Linear(width, 4 * quarter)
        self.quarter_out = Residual(quarter, width)
        self.from_quarter = nn.Linear(quarter, 4 * half)
        self.half_out = Residual(half, width)
        self.draw = Conv(half, 4 * outputs * (1 + config.gates))
        self.gains = nn.Linear(width, 2 * outputs) if config.gates else None
        nn.init.normal_(self.to_tokens.weight, std=0.02)
        assert self.draw.bias is not None
        zeros = [self.to_tokens.bias, self.draw.weight, self.draw.bias]
        for zero in zeros if self.gains is None else [*zeros, *self.gains.parameters()]:
            nn.init.zeros_(zero)

    def encode(
        self, x: Tensor, local: Tensor | None, condition: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Compute the input of the trunk and the skip features of the decoder.

        Args:
            x: [b, inputs, h, w], sides multiples of 8.
            local: with gates, the deviations from neighbours [b, outputs, h, w].
            condition: [b, width].

        Returns:
            Tokens [b, (h/8)(w/8), width], and features at 1/2 and at 1/4 of the side.
        """
        x = x if local is None else torch.cat((x, local), dim=1)
        half = self.read(fold(x.permute(0, 2, 3, 1)))
        quarter = self.quarter_in(self.to_quarter(fold(F.silu(half))), condition)
        tokens = self.to_tokens(fold(F.silu(quarter)))
        return tokens.flatten(1, 2), (half, quarter)

    def decode(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        features: tuple[Tensor, Tensor],
        x: Tensor,
        local: Tensor | None,
        condition: Tensor,
    ) -> Tensor:
        """A picture [b, outputs, h, w] from the trunk's tokens [b, rows columns, width].

        `x` has the noisy picture [b, outputs, h, w] without references; `local` is as in `encode`.
        """
        half, quarter = features
        h = self.from_tokens(tokens.unflatten(1, grid))
        h = self.quarter_out(unfold(h) + quarter, condition)
        h = self.half_out(unfold(self.from_quarter(h)) + half, condition)
        drawn = unfold(self.draw(F.silu(h))).permute(0, 3, 1, 2)
        if self.gains is None or local is None:
            return drawn
        of_x, of_local = self.gains(condition)[:, :, None, None].chunk(2, dim=1)
        drawn, gate = drawn.chunk(2, dim=1)
        gate = _LARGEST * torch.tanh(gate / _LARGEST)
        return drawn + of_x * x + (of_local + gate) * local
