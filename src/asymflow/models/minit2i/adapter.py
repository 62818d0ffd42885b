"""MiniT2I: text-to-image transformers on pixels (https://github.com/Hope7Happiness/minit2i-torch).

Published checkpoints are supported unchanged. Guidance is against the estimate for no prompt; there
are no negative prompts. Velocities are divided by max(t, `floor`), as in its sampler. With the
steps of `plan`, the adapter reproduces the official sampler from the same noise to 1e-4 (a test).

Tiers are full, conditional, and sequentially guided. There is no low-resolution tier, because the
position embedding is specific to one size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Sizes
from asymflow.core.checks import as_path
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.requests import refuse_others
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import Picture, Plan, Request, Solver
from asymflow.io.json_reader import Fields, parse
from asymflow.models.hashing import digest_of, identity_of
from asymflow.models.minit2i import checkpoint
from asymflow.models.minit2i.network import SHAPES, MiniT2IModel
from asymflow.models.minit2i.text import load_text_encoder

Prompts = Callable[[str], Tensor]
"""Features [1, l, d] of a prompt of l tokens."""

STEPS = 100
"""Of the official sampler."""
FLOOR = 0.05
"""Of the official sampler."""
GUIDANCE = {"B/16": 2.5, "L/16": 6.0}
"""Scales that the authors recommend for general use."""

_FEW = 30
"""Steps of the default plan. A solver of second order is as near to the limit in fewer steps than
one of first order."""
_LAST = 0.05
"""Time of the last estimate of the default plan. The network was hardly trained below it: its
times were logit-normal, with mean 0.8 and standard deviation 0.8."""
_LATE = 0.1
"""Time below which the default plan does without guidance, which hardly changes the picture."""

_CALIBRATION = (
    "A red fox asleep on a mossy log in a misty forest.",
    "A bowl of ramen with a soft-boiled egg, seen from above.",
    "An old fishing boat on a calm lake at sunrise, in the style of an oil painting.",
    "A small robot waters plants on a balcony in a crowded city.",
    "Portrait of an elderly woman with silver hair and a blue scarf, soft window light.",
    "Three green apples and a glass of water on a wooden table.",
    "A snow-covered mountain village at night, with warm lights in the windows.",
    "An isometric drawing of a tiny bookshop with a striped awning.",
)

_WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class MiniT2IAdapter:
    """Pictures from prompts; inputs are {"prompt": text}, or none for the unconditional model.

    The state is float32; the network may run in another dtype.

    Attributes:
        prompts: the text encoder.
        digest: hash of the weights and all settings of the estimates.
        floor: minimum t in divisions of a velocity; 0 leaves estimates of x_0 unchanged.
    """

    model: MiniT2IModel
    prompts: Prompts
    digest: str
    floor: float = FLOOR

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise InputError(f"A floor of {self.floor} is not in [0, 1). MiniT2I's is {FLOOR}.")

    @property
    def name(self) -> str:
        return f"minit2i:{self.digest[:12]}"

    @property
    def description(self) -> ModelDescription:
        """What plans have to know of the model."""
        identity = identity_of(self.model)
        return ModelDescription(
            family="minit2i",
            weights=identity.weights,
            parameterisation="x_0",
            guidance="cfg",
            noise_scale=self.model.config.noise_scale,
            fingerprint=identity.fingerprint,
            settings={"floor": f"{self.floor:g}"},
        )

    @property
    def card(self) -> Card:
        """What the model is asked with, and what it can make."""
        config = self.model.config
        shape = config.width, config.depth, config.patch
        known = {(each.width, each.depth, each.patch): name for name, each in SHAPES.items()}
        variant = known.get(shape)
        return Card(
            title="MiniT2I" if variant is None else f"MiniT2I-{variant}",
            asks="prompt",
            sizes=Sizes.only(*self.size),
            channels=self.channels,
            guidance=GUIDANCE[variant or "B/16"],
            guided=True,
            guidance_interval=(_LATE, 1.0),
            calibration=tuple({"prompt": prompt} for prompt in _CALIBRATION),
            tiers=("conditional",),
            steps=STEPS,
            licence="MIT",
            source="https://huggingface.co/MiniT2I/MiniT2I",
        )

    def default_plan(self, size: tuple[int, int]) -> Plan:
        """Fewer steps of a better solver, down to the last estimate that the floor leaves alone."""
        last = max(self.floor, _LAST)
        times = (*(1 - (1 - last) * (1 - t) for t in uniform(_FEW - 1)), 0.0)
        return plan_of(times, solver="corrected2", guidance_interval=(_LATE, 1.0), name="default")

    def own_plan(self, size: tuple[int, int]) -> Plan:
        """The official sampler."""
        return plan()

    @property
    def channels(self) -> int:
        return self.model.config.channels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of pictures, the only size that the network supports."""
        return self.model.config.size, self.model.config.size

    @property
    def template(self) -> Tensor:
        return torch.empty(0, dtype=torch.float32, device=self._weight.device)

    @property
    def batch(self) -> int | None:
        # CPU kernels choose their summation order by the number of rows: see the protocol.
        return 1 if self._weight.device.type == "cpu" else None

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return ()

    def check(self, request: Request) -> None:
        if request.size != self.size:
            height, width = request.size
            side = self.model.config.size
            raise InputError(
                f"Size {width}x{height} is not possible: this network's positions are those of "
                f"{side}x{side} pixels. Request that size, and resize the picture."
            )
        prompt = request.inputs.get("prompt", "")
        if not isinstance(prompt, str):
            raise InputError(f"prompt={prompt!r} is no text. Give words, or leave it out.")
        if negative := request.inputs.get("negative"):
            raise InputError(
                f"negative={negative!r} is not possible: MiniT2I has no negative prompts, and is "
                "guided against the picture of no prompt. Leave it out."
            )
        refuse_others(request, ("prompt",), "MiniT2I")

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        prompts = [request.inputs.get("prompt") for request in requests]
        # One by one, so that no prompt depends on its neighbours.
        texts = {prompt: self._text(prompt) for prompt in {*prompts, None}}
        cond = torch.cat([texts[prompt] for prompt in prompts])
        return {"text": cond}, {"text": torch.cat([texts[None]] * len(prompts))}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.model(x_t, t, context["text"], floor=self.floor)

    def to_state(self, picture: Picture) -> Tensor:
        state = torch.from_numpy(picture).movedim(-1, 0).to(self.template) * 2 - 1
        return state / self.model.config.noise_scale

    def to_picture(self, x_0: Tensor) -> Picture:
        picture = ((x_0.float() * self.model.config.noise_scale + 1) / 2).clamp(0, 1)
        return np.ascontiguousarray(picture.movedim(0, -1).cpu().numpy())

    @property
    def _weight(self) -> Tensor:
        return self.model.transformer.head.weight

    def _text(self, prompt: str | None) -> Tensor:
        """The text [1, n, width] of a prompt, or of none."""
        none = self._weight.new_zeros(1, 0, self.model.config.text_width)
        return self.model.transformer.encode(none if prompt is None else self.prompts(prompt))


def plan(steps: int = STEPS, *, solver: Solver = "euler") -> Plan:
    """The steps of the official sampler, uniform in t and guided everywhere."""
    return plan_of(uniform(steps), solver=solver, name=f"minit2i {steps} {solver}")


def load(
    path: Path | str,
    *,
    text_encoder: Path | str | None = None,
    floor: float = FLOOR,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> MiniT2IAdapter:
    """Load a published checkpoint, and the text encoder.

    The architecture is derived from the weights, and the size of pictures and the length of prompts
    from the config.json beside them; without one, they are 512 pixels and 256 tokens.

    Args:
        path: a folder as published, which has the weights in
            "transformer/diffusion_pytorch_model.safetensors", or a safetensors file.
        text_encoder: a folder with FLAN-T5-large, in which "text_encoder" and "tokenizer" may be
            folders; by default that of the weights. It runs in float32, as in the official code.
        floor: see `MiniT2IAdapter`.
        dtype: of the network.

    Raises:
        FileFormatError: a file is missing, damaged or of another kind of model; the message
            lists tensors that are missing, unexpected or of another shape.
        MissingExtra: transformers is not installed.
    """
    path = as_path("path", path)
    file = _weights_file(path)
    root = path if path.is_dir() else path.parent
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise FileFormatError(
            f"Cannot read {file}: {error}. Give the safetensors file of a MiniT2I."
        ) from error
    size, tokens = _stored(file.with_name("config.json"))
    try:
        config = checkpoint.config_of(state, size=size, text_tokens=tokens)
        model = checkpoint.built(config, state)
    except FileFormatError as error:
        raise FileFormatError(f"Cannot read {file}. {error}") from error
    except InputError as error:
        raise InputError(f"Cannot read {file}. {error}") from error
    folder = root if text_encoder is None else as_path("text_encoder", text_encoder)
    if text_encoder is None and not (root / "text_encoder").is_dir():
        raise FileFormatError(
            f"{path} comes without a text encoder: there is no {root / 'text_encoder'}. Give "
            "text_encoder, a folder with FLAN-T5-large (google/flan-t5-large)."
        )
    prompts = load_text_encoder(folder, tokens, device)
    if (width := prompts.encoder.config.d_model) != config.text_width:
        raise FileFormatError(
            f"{folder} does not fit {file}: its features have {width} numbers, and the network "
            f"takes {config.text_width}. Give the text encoder that it was trained with."
        )
    adapter = adapt(model, prompts, floor=floor)
    model.to(device)
    for parameter in model.parameters():  # excludes the position tables
        parameter.data = parameter.data.to(dtype)
    return adapter


def adapt(model: MiniT2IModel, prompts: Prompts, *, floor: float = FLOOR) -> MiniT2IAdapter:
    """Make an adapter of a network in memory, and freeze its weights."""
    model.eval().requires_grad_(False)
    digest = digest_of(model, repr((model.config, floor)).encode())
    return MiniT2IAdapter(model, prompts, digest, floor)


def _weights_file(path: Path) -> Path:
    """The file of the network's weights.

    Raises:
        FileFormatError: there is none.
    """
    if not path.is_dir():
        return path
    for file in (path / "transformer" / _WEIGHTS, path / _WEIGHTS):
        if file.is_file():
            return file
    inner = sorted(each.parent.parent.name for each in path.glob(f"*/transformer/{_WEIGHTS}"))
    hint = f"Give one of its folders: {', '.join(inner)}" if inner else "Give a published folder"
    raise FileFormatError(f"There is no {path / 'transformer' / _WEIGHTS}. {hint}, or a file.")


def _stored(file: Path) -> tuple[int, int]:
    """Size of pictures and tokens of text in the settings beside the weights, or as published."""
    default = SHAPES["B/16"]
    if not file.is_file():
        return default.size, default.text_tokens
    fields = Fields(parse(file.read_bytes(), str(file)), str(file))
    if "prediction" in fields and (prediction := fields.text("prediction")) != "x":
        fields.refuse(f"has prediction {prediction!r}, and only 'x' is supported")
    possible = range(1, 2**16)
    return (
        fields.integer("image_size", possible) if "image_size" in fields else default.size,
        fields.integer("prompt_length", possible)
        if "prompt_length" in fields
        else default.text_tokens,
    )
