"""JiT and AsymFlow-JiT: class-conditional transformers on pixels (arXiv 2511.13720, 2605.12964).

Published checkpoints are supported unchanged. In JiT time runs from noise, 0, to data, 1; in this
package 1 is noise. The sampling settings of the papers are part of the estimates of this adapter:

* guidance is applied in an open interval of t. Outside it the unconditional estimate equals the
  conditional one, so that a guided step equals a conditional one at twice the cost;
* velocities are divided by max(t, `floor`) (`asymflow.models.jit.network.JitModel`).

With the steps of `plan`, the adapter reproduces every step of the official sampler of JiT from the
same noise to 1e-4 (a test).

Tiers are full, conditional, and sequentially guided. There is no low-resolution tier below the size
of training: the position embedding and the noise scale are specific to it. Larger pictures can be
asked for, whole with continued positions, or, as the network was trained, pooled and in tiles.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Sizes, Tiles
from asymflow.core.checks import as_path, number, whole
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.requests import refuse_others
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import CONDITIONAL, FULL, LATE, Picture, Plan, Request, Solver, Step
from asymflow.models import imagenet
from asymflow.models.calls import spread
from asymflow.models.files import tensors
from asymflow.models.hashing import digest_of, identity_of
from asymflow.models.jit import checkpoint
from asymflow.models.jit.network import JitModel

Weights = Literal["ema1", "ema2", "model"]
"""Weights in a checkpoint of the official code: two moving averages, and the last iterate."""

_KEYS: Mapping[Weights, str] = {"ema1": "model_ema1", "ema2": "model_ema2", "model": "model"}

GUIDANCE_INTERVAL = (0.0, 0.9)
"""Default of JiT; [0.1, 1] in its paper, where time is reversed."""
FLOOR = 0.05
"""Default of JiT."""
STEPS = 50
"""Default of both papers, with Heun's method."""
GUIDANCE = 2.9
"""Scale of JiT's README for the model that most people load, JiT-B/16."""
LARGEST = 8
"""Largest side of pictures, in sides of those of training."""
TILED_UNTIL = 0.5
"""Largest t at which the network is shown tiles of a larger picture."""
SHARE = 0.4
"""Of the steps, in the plan that needs no measuring."""
ASYMMETRIC_GUIDANCE_INTERVAL = (0.0, 0.88)
ASYMMETRIC_FLOOR = 0.04

_ROUNDING = 1e-6  # tolerance of times: a node at an end of the interval is outside


@dataclass(frozen=True, slots=True, eq=False)
class JitAdapter:
    """Class-conditional pictures; inputs are {"label": k}, or none for the unconditional model.

    The state is float32; the network may run in another dtype.

    Attributes:
        digest: hash of the weights and all settings of the estimates.
        guidance_interval: (low, high) in t in which guidance is applied; the ends are excluded,
            except 0 and 1.
        floor: minimum t in divisions of a velocity; 0 leaves estimates of x_0 unchanged, for plans
            with a long last step.
    """

    model: JitModel
    digest: str
    guidance_interval: tuple[float, float]
    floor: float

    def __post_init__(self) -> None:
        low, high = self.guidance_interval
        if not 0 <= low <= high <= 1:
            raise InputError(
                f"The guidance interval ({low}, {high}) is not a part of [0, 1]. "
                "Give two times, the lower one first; 1 is noise. JiT's [0.1, 1] is (0.0, 0.9)."
            )
        if not 0 <= self.floor < 1:
            raise InputError(f"A floor of {self.floor} is not in [0, 1). JiT's is {FLOOR}.")

    @property
    def name(self) -> str:
        return f"jit:{self.digest[:12]}"

    @property
    def description(self) -> ModelDescription:
        """What plans have to know of the model."""
        config, identity = self.model.config, identity_of(self.model)
        low, high = self.guidance_interval
        return ModelDescription(
            family="jit",
            weights=identity.weights,
            parameterisation="x_0" if config.rank is None else "flow",
            guidance="cfg",
            noise_scale=config.noise_scale,
            fingerprint=identity.fingerprint,
            settings={
                "class_start": str(config.class_start),
                "floor": f"{self.floor:g}",
                "guidance_interval": f"{low:g} to {high:g}",
            },
        )

    @property
    def card(self) -> Card:
        """What the model is asked with, and what it can make."""
        config = self.model.config
        asymmetric = config.rank is not None
        return Card(
            title=f"{'AsymFlow-' if asymmetric else ''}JiT, patches of {config.patch}",
            asks="class",
            sizes=Sizes(
                self.size,
                config.size,
                LARGEST * config.size,
                multiple=config.size,
                trained=self.size,
            ),
            channels=config.channels,
            classes=imagenet.names()
            if config.classes == len(imagenet.names())
            else tuple(map(str, range(config.classes))),
            guidance=GUIDANCE,
            guided=True,
            guidance_interval=self.guidance_interval,
            calibration=tuple({"label": label} for label in spread(config.classes)),
            tiers=("conditional", *([LATE.name] if self.splits else [])),
            tiles=Tiles(config.size, TILED_UNTIL),
            steps=STEPS,
        )

    def default_plan(self, size: tuple[int, int]) -> Plan:
        """Our best solver on a part of the steps of the papers."""
        return plan_of(
            uniform(round(SHARE * STEPS)),
            solver="corrected2",
            guidance_interval=self.guidance_interval,
            name="default",
        )

    def own_plan(self, size: tuple[int, int]) -> Plan:
        """The steps of the papers."""
        return plan(STEPS, guidance_interval=self.guidance_interval)

    @property
    def channels(self) -> int:
        return self.model.config.channels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures of training."""
        return self.model.config.size, self.model.config.size

    @property
    def template(self) -> Tensor:
        return torch.empty(0, dtype=torch.float32, device=self._weight.device)

    @property
    def batch(self) -> int | None:
        # CPU kernels choose their summation order by the number of rows: see the protocol.
        return 1 if self._weight.device.type == "cpu" else None

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        # Never below the size of training.
        return tuple(
            f for f in (2, 4, 8) if all(side % (f * self.model.config.size) == 0 for side in size)
        )

    def check(self, request: Request) -> None:
        own = self.model.config.size
        for side in request.size:
            if side % own or not own <= side <= LARGEST * own:
                height, width = request.size
                raise InputError(
                    f"Size {width}x{height} is not possible: this network's positions are those of "
                    f"{own}x{own} pixels, and {side} is not 1 to {LARGEST} times {own}. Request "
                    "such a size, and resize the picture."
                )
        refuse_others(request, ("label",), "JiT")
        self._label(request)

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        device = self._weight.device
        label = torch.tensor([self._label(request) for request in requests]).to(device)
        null = torch.full_like(label, self.model.config.classes)
        # "outside" is the label outside the guidance interval, the same in both contexts.
        return {"label": label, "outside": label}, {"label": null, "outside": label}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.model(x_t, t, self._label_at(t, context), floor=self.floor)

    @property
    def splits(self) -> bool:
        """Whether there are blocks to leave out."""
        return self.model.config.slow > 0

    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        """As `denoise`; the slow part is the first two thirds of the blocks."""
        label, known = self._label_at(t, context), None if slow is None else slow["added"]
        x_0, added = self.model.split(x_t, t, label, known, floor=self.floor)
        return x_0, {"added": added}

    def _label_at(self, t: Tensor, context: Context) -> Tensor:
        """The classes [b] that the network is told at times t [b]."""
        low, high = self.guidance_interval
        above = (t > low + _ROUNDING) | (low == 0)
        below = (t < high - _ROUNDING) | (high == 1)
        return torch.where(above & below, context["label"], context["outside"])

    def to_state(self, picture: Picture) -> Tensor:
        state = torch.from_numpy(picture).movedim(-1, 0).to(self.template) * 2 - 1
        return state / self.model.config.noise_scale

    def to_picture(self, x_0: Tensor) -> Picture:
        picture = ((x_0.float() * self.model.config.noise_scale + 1) / 2).clamp(0, 1)
        return np.ascontiguousarray(picture.movedim(0, -1).cpu().numpy())

    @property
    def _weight(self) -> Tensor:
        return self.model.transformer.head.weight

    def _label(self, request: Request) -> int:
        classes = self.model.config.classes
        label = request.inputs.get("label", classes)
        try:
            return whole("label", label, 0, classes)
        except InputError:
            raise InputError(
                f"Label {label!r} is not a class of this model. Choose an integer from 0 to "
                f"{classes - 1}, or leave it out for a picture of any class."
            ) from None


def plan(
    steps: int = STEPS,
    *,
    guidance_interval: tuple[float, float] = GUIDANCE_INTERVAL,
    solver: Solver = "heun",
) -> Plan:
    """The steps of the papers, uniform in t; conditional outside the guidance interval.

    Heun's method evaluates both ends of a step. A step across the end of the interval is guided,
    and the adapter omits guidance at the end outside; use the same interval for both.
    """
    low, high = guidance_interval

    def guided(t: float) -> bool:
        return (low == 0 or t > low + _ROUNDING) and (high == 1 or t < high - _ROUNDING)

    made: list[Step] = []
    for t, s in pairwise(uniform(steps)):
        ends = (t, s) if solver == "heun" and s > 0 else (t,)
        made.append(Step(t, s, FULL if any(guided(end) for end in ends) else CONDITIONAL, solver))
    return Plan(f"jit {steps} {solver}", tuple(made))


def load(
    path: Path | str,
    *,
    weights: Weights | None = None,
    guidance_interval: tuple[float, float] | None = None,
    floor: float | None = None,
    class_start: int | None = None,
    noise_scale: float | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> JitAdapter:
    """Load a checkpoint of the official code (`checkpoint-last.pth`) or a bare state dict.

    The architecture is derived from the weights, and the settings of training and sampling from the
    arguments that the official code stores in a checkpoint; arguments of this function override
    both. Safetensors are preferred; from `.pt` and `.pth` files only tensors and plain values are
    loaded, and no code is executed.

    Args:
        weights: which weights of a checkpoint to load; by default "ema1", as in the paper. Invalid
            for a bare state dict.
        guidance_interval, floor: see `JitAdapter`; by default the checkpoint's `interval_min`,
            `interval_max` and `t_eps`, or those of the paper. Use the same interval for `plan`.
        class_start, noise_scale: see `models.jit.checkpoint.config_of`; for bare state dicts of
            unpublished networks.

    Raises:
        FileFormatError: the file is missing, damaged or of another kind of model; the message
            lists tensors that are missing, unexpected or of another shape.
    """
    path = as_path("path", path)
    found = tensors(path)
    state = _state_dict(path, found, weights)
    try:
        stored = _Arguments.of(found.get("args"))
        if class_start is None and stored.model is not None:
            class_start = checkpoint.class_start_of(stored.model)
        if noise_scale is None and "proj_buffer" not in state:
            noise_scale = stored.noise_scale
        config = checkpoint.config_of(state, class_start=class_start, noise_scale=noise_scale)
        model = checkpoint.built(config, state)
    except FileFormatError as error:
        raise FileFormatError(f"Cannot read {path}. {error}") from error
    except InputError as error:
        raise InputError(f"Cannot read {path}. {error}") from error
    adapter = adapt(
        model,
        guidance_interval=stored.guidance_interval
        if guidance_interval is None
        else guidance_interval,
        floor=stored.floor if floor is None else floor,
    )
    model.to(device)
    for parameter in model.parameters():  # excludes the position tables and the subspace
        parameter.data = parameter.data.to(dtype)
    return adapter


def adapt(
    model: JitModel,
    *,
    guidance_interval: tuple[float, float] | None = None,
    floor: float | None = None,
) -> JitAdapter:
    """Make an adapter of a network in memory, and freeze its weights.

    Settings default to those of the paper.
    """
    model.eval().requires_grad_(False)
    asymmetric = model.config.rank is not None
    if guidance_interval is None:
        guidance_interval = ASYMMETRIC_GUIDANCE_INTERVAL if asymmetric else GUIDANCE_INTERVAL
    if floor is None:
        floor = ASYMMETRIC_FLOOR if asymmetric else FLOOR
    digest = digest_of(model, repr((model.config, guidance_interval, floor)).encode())
    return JitAdapter(model, digest, guidance_interval, floor)


@dataclass(frozen=True, slots=True)
class _Arguments:
    """Settings stored in a checkpoint of the official code; None if missing."""

    model: str | None = None
    noise_scale: float | None = None
    floor: float | None = None
    guidance_interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, args: object) -> _Arguments:
        """Read the namespace of the command line, if there is one.

        Raises:
            InputError: a value is not a number.
        """
        if not isinstance(args, argparse.Namespace):
            return cls()
        values = vars(args)

        def value(name: str) -> float | None:
            return None if values.get(name) is None else number(f"args.{name}", values[name])

        low, high, model = value("interval_min"), value("interval_max"), values.get("model")
        return cls(
            model=model if isinstance(model, str) else None,
            noise_scale=value("noise_scale"),
            floor=value("t_eps"),
            # In JiT time runs from noise, 0, to data, 1.
            guidance_interval=None if low is None or high is None else (1 - high, 1 - low),
        )


def _state_dict(path: Path, found: Mapping[str, Any], weights: Weights | None) -> dict[str, Tensor]:
    """The selected state dict, without the prefix of the official wrapper."""
    sets = [key for key in _KEYS.values() if isinstance(found.get(key), dict)]
    if sets:
        key = _KEYS[weights or "ema1"]
        if key not in sets:
            raise FileFormatError(
                f"{path} holds no {key!r}, but {', '.join(sets)}. Choose other weights: "
                f"{', '.join(name for name, held in _KEYS.items() if held in sets)}."
            )
        found = found[key]
    elif weights is not None:
        raise FileFormatError(
            f"{path} holds one set of weights, so there is no {weights!r} to choose. "
            "Leave `weights` out."
        )
    state = {
        name.removeprefix("net."): value
        for name, value in found.items()
        if isinstance(value, Tensor)
    }
    if len(state) < len(found):
        others = [name for name, value in found.items() if not isinstance(value, Tensor)]
        raise FileFormatError(
            f"{path} holds {others[0]!r}, which is no tensor, among its weights. Give a "
            "checkpoint of the official code or a bare state dict."
        )
    return state
