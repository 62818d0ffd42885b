"""A model that costs nothing, in the place of the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from asymflow.core import presets
from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Sizes, Style
from asymflow.core.errors import InputError
from asymflow.core.types import Picture, Plan, Request


@dataclass
class FakeModel:
    """Pictures of one colour, which the words decide, under a little of the noise."""

    weights_hash: str = "ab" * 32
    styles: tuple[str, ...] = ("fluent-3d", "noto", "twemoji")
    batch: int | None = 1
    loads: int = 0
    calls: int = 0
    interrupt_at: int | None = None
    dtypes: list[torch.dtype] = field(default_factory=lambda: list[torch.dtype]())

    name = "fake:abab"
    channels = 4
    references = 0

    @property
    def description(self) -> ModelDescription:
        return ModelDescription("fake", self.weights_hash, "x_0", "cfg", alpha=True)

    @property
    def card(self) -> Card:
        return Card(
            title="The fake",
            asks="prompt",
            sizes=Sizes((64, 64), 16, 128, multiple=8, trained=(32, 128)),
            channels=4,
            flat=True,
            styles=tuple(Style(id, id, names=tuple(id.split("-")[1:])) for id in self.styles),
            negative=True,
            guidance=presets.GUIDANCE,
            guided=True,
            guidance_interval=presets.GUIDED,
            calibration=tuple({"prompt": f"thing {i}", "style": "noto"} for i in range(64)),
        )

    def default_plan(self, size: tuple[int, int]) -> Plan:
        return presets.DEFAULT.plan(size)

    def own_plan(self, size: tuple[int, int]) -> Plan:
        return presets.DEFAULT.plan(size)

    @property
    def template(self) -> Tensor:
        return torch.empty(0)

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return tuple(f for f in (2,) if all(side % (8 * f) == 0 for side in size))

    def check(self, request: Request) -> None:
        if any(side % 8 or not 16 <= side <= 128 for side in request.size):
            raise InputError(f"Size {request.size} is not possible. Try 64.")
        if request.inputs.get("style") not in (None, *self.styles):
            raise InputError(f"Unknown style {request.inputs['style']!r}.")

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        cond = [_colour(r.inputs["prompt"], r.inputs.get("style")) for r in requests]
        null = [_colour(r.inputs.get("negative", ""), None) for r in requests]
        return {"colour": torch.stack(cond)}, {"colour": torch.stack(null)}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        return 0.3 * context["colour"][:, :, None, None] + 0.3 * x_t

    def to_state(self, picture: Picture) -> Tensor:
        return torch.from_numpy(picture).permute(2, 0, 1) * 2 - 1

    def to_picture(self, x_0: Tensor) -> Picture:
        picture = ((x_0 + 1) / 2).clamp(0, 1)
        picture[:3] = torch.minimum(picture[:3], picture[3:])
        return np.ascontiguousarray(picture.permute(1, 2, 0).numpy())


def _colour(*words: object) -> Tensor:
    digest = hashlib.sha256(repr(words).encode()).digest()
    return torch.tensor([*digest[:3], 255]).float() / 127.5 - 1  # rather visible


@dataclass
class SplitFake(FakeModel):
    """The fake with a network in two parts: the colour of a picture is slow, its noise fast.

    Attributes:
        parts: what was asked, call by call: "whole" by `denoise`, or "both" or "fast".
    """

    parts: list[str] = field(default_factory=lambda: list[str]())
    splits: bool = True

    @property
    def card(self) -> Card:
        return replace(super().card, tiers=("conditional", "half", "late"))

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.parts.append("whole")
        return self._fast(x_t, t, self._slow(x_t, t, context))

    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        self.parts.append("both" if slow is None else "fast")
        said = self._slow(x_t, t, context) if slow is None else slow["colour"]
        return self._fast(x_t, t, said), {"colour": said}

    def _slow(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """[b, c], of the state, the time and the words."""
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        return 0.3 * context["colour"] + 0.2 * x_t.mean((2, 3)) * t[:, None]

    def _fast(self, x_t: Tensor, t: Tensor, slow: Tensor) -> Tensor:
        return slow[:, :, None, None] + 0.3 * x_t * (1 - 0.5 * t.view(-1, 1, 1, 1))
