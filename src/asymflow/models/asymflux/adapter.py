"""AsymFLUX.2: FLUX.2 klein, a latent transformer, converted to pixels (arXiv 2605.12964).

The network is diffusers' own `Flux2Transformer2DModel` with patches of 16 x 16 pixels instead of
latents. The published file is an adapter: new layers, two buffers, the subspace of the noise and
the scale of `asymflow.models.subspace`, and LoRA weights for the rest. `load` combines both, and
merges LoRA into the weights, without a library or run-time cost.

The sampling settings of its pipeline are part of the estimates:

* pictures are in Oklab, shifted and scaled (`Colours`);
* the component of guidance parallel to the conditional estimate is removed (`project_guidance`);
* estimates are clipped to the sRGB gamut (`clip_estimate`).

Tested against the formulas on small networks, without the published weights. There is no
low-resolution tier, because the quality of this network below 1024 pixels is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Sizes
from asymflow.core.checks import as_path
from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.core.requests import refuse_others
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Picture, Plan, Request, Solver
from asymflow.models import calls
from asymflow.models.asymflux.oklab import oklab_of, srgb_of
from asymflow.models.hashing import digest_of, identity_of
from asymflow.models.patches import patchify, unpatchify
from asymflow.models.subspace import calibrated, recovered

Prompts = Callable[[Sequence[str]], Tensor]
"""Features [b, l, d] of prompts."""

GUIDANCE = 4.0
STEPS = 38
SHIFT = 17 / 1024
"""Shift of its grid per pixel of the side: 17 at 1024, 34 at 2048."""
SIDE = 1024
"""Of the pictures of training, mostly."""
LATE = 0.1
"""Time below which the default plan does without guidance, which hardly changes the picture."""
_SHARE = 0.4  # of the steps, in the default plan: a solver of second order needs fewer
_PATCHES = 1, 128  # smallest and largest side, in patches


@dataclass(frozen=True, slots=True)
class Colours:
    """The encoding of colours in states: x_0 = (Oklab - mean) / std."""

    mean: tuple[float, float, float] = (0.56, 0.0, 0.01)
    std: float = 0.16

    def state(self, srgb: Tensor) -> Tensor:
        """x_0 [..., 3, h, w] of sRGB [..., 3, h, w] in [0, 1]."""
        return (oklab_of(srgb) - self._mean(srgb)) / self.std

    def srgb(self, x_0: Tensor) -> Tensor:
        """Clipped sRGB [..., 3, h, w] in [0, 1] of x_0 [..., 3, h, w]."""
        return srgb_of(x_0 * self.std + self._mean(x_0))

    def _mean(self, template: Tensor) -> Tensor:
        return torch.tensor(self.mean).to(template)[:, None, None]


@dataclass(frozen=True, slots=True, eq=False)
class AsymFluxAdapter:
    """Pictures from prompts; inputs are "prompt", and optionally "negative".

    The state is float32; the network may run in another dtype.

    Attributes:
        transformer: diffusers' `Flux2Transformer2DModel` with 3 p^2 channels in and out.
        prompts: the text encoder.
        basis: A [r, 3 p^2], orthonormal rows, of patches in the order of
            `asymflow.models.patches.patchify`.
        scale: s, a number [].
        digest: of all weights.
        side: of the pictures of training.
    """

    transformer: Any
    prompts: Prompts
    basis: Tensor
    scale: Tensor
    digest: str
    colours: Colours = Colours()
    side: int = SIDE

    @property
    def name(self) -> str:
        return f"asymflux:{self.digest[:12]}"

    @property
    def description(self) -> ModelDescription:
        """What plans have to know of the model."""
        identity = identity_of(self.transformer, _beside(self.basis, self.scale))
        return ModelDescription(
            family="asymflux",
            weights=identity.weights,
            parameterisation="flow",
            guidance="cfg",
            shift_rule="17 side / 1024",
            fingerprint=identity.fingerprint,
            settings={"colours": f"Oklab, {self.colours.mean}, {self.colours.std:g}"},
        )

    @property
    def card(self) -> Card:
        """What the model is asked with, and what it can make."""
        low, high = (count * self.patch for count in _PATCHES)
        return Card(
            title="AsymFLUX.2 klein",
            asks="prompt",
            sizes=Sizes((self.side, self.side), low, max(high, self.side), self.patch),
            negative=True,
            guidance=GUIDANCE,
            guided=True,
            guidance_interval=(LATE, 1.0),
            calibration=tuple({"prompt": prompt} for prompt in calls.PROMPTS),
            tiers=("conditional",),
            steps=STEPS,
        )

    def default_plan(self, size: tuple[int, int]) -> Plan:
        """Fewer steps of a better solver on the same grid."""
        return plan_of(
            shifted(round(_SHARE * STEPS), _shift(size)),
            solver="corrected2",
            guidance_interval=(LATE, 1.0),
            name="default",
        )

    def own_plan(self, size: tuple[int, int]) -> Plan:
        """The grid of its pipeline."""
        return plan(size)

    @property
    def channels(self) -> int:
        return 3

    @property
    def patch(self) -> int:
        return round((self.basis.shape[1] / 3) ** 0.5)

    @property
    def template(self) -> Tensor:
        return torch.empty(0, dtype=torch.float32, device=self.basis.device)

    @property
    def batch(self) -> int | None:
        # CPU kernels choose their summation order by the number of rows: see the protocol.
        return 1 if self.basis.device.type == "cpu" else None

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return ()

    def check(self, request: Request) -> None:
        low, high = (count * self.patch for count in _PATCHES)
        for side in request.size:
            if side % self.patch or not low <= side <= max(high, self.side):
                height, width = request.size
                nearest = min(max(round(side / self.patch) * self.patch, low), high)
                raise InputError(
                    f"Size {width}x{height} is not possible: {side} is not a multiple of "
                    f"{self.patch} from {low} to {high}. Try {nearest}."
                )
        refuse_others(request, ("prompt", "negative"), "AsymFLUX.2")
        for key in ("prompt", "negative"):
            if not isinstance(request.inputs.get(key, ""), str):
                raise InputError(
                    f"{key}={request.inputs[key]!r} is no text. Give words, or leave it out."
                )

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        cond, null = (
            self.prompts([str(request.inputs.get(key, "")) for request in requests])
            for key in ("prompt", "negative")
        )
        return {"text": cond}, {"text": null}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        height, width = x_t.shape[-2:]
        patches = patchify(x_t, self.patch)
        k, tau = calibrated(t.float(), self.scale)
        dtype = self.transformer.dtype
        v = self.transformer(
            hidden_states=(k[:, None, None] * patches).to(dtype),
            encoder_hidden_states=context["text"].to(dtype),
            timestep=tau.to(dtype),
            img_ids=_places(x_t, height // self.patch, width // self.patch, 1),
            txt_ids=_places(x_t, 1, 1, context["text"].shape[1]),
            return_dict=False,
        )[0]
        x_0 = recovered(patches, v.to(x_t.dtype), t, self.basis.to(x_t), self.scale)
        return unpatchify(x_0, self.patch, height, width)

    def project_guidance(self, estimate: Tensor, guidance: Tensor) -> Tensor:
        """The part of guidance orthogonal to the conditional estimate, both [b, c, h, w]."""
        inner = (guidance * estimate).mean((1, 2, 3), keepdim=True)
        square = estimate.square().mean((1, 2, 3), keepdim=True).clamp(min=1e-6)
        return guidance - inner / square * estimate

    def clip_estimate(self, x_0: Tensor) -> Tensor:
        return self.colours.state(self.colours.srgb(x_0))

    def to_state(self, picture: Picture) -> Tensor:
        return self.colours.state(torch.from_numpy(picture).movedim(-1, 0).to(self.template))

    def to_picture(self, x_0: Tensor) -> Picture:
        return np.ascontiguousarray(self.colours.srgb(x_0.float()).movedim(0, -1).cpu().numpy())


def plan(size: tuple[int, int], steps: int = STEPS, *, solver: Solver = "damped2") -> Plan:
    """The grid of its pipeline for pictures of (height, width), guided everywhere.

    Its shift grows with the side, as all our grids' do.
    """
    grid = shifted(steps, _shift(size))
    return plan_of(grid, solver=solver, name=f"asymflux {steps} {solver}")


def _shift(size: tuple[int, int]) -> float:
    return SHIFT * (size[0] * size[1]) ** 0.5


def load(
    base: Path | str,
    adapter: Path | str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> AsymFluxAdapter:
    """FLUX.2 klein from a folder in diffusers' layout, and the adapter's safetensors file.

    Raises:
        FileFormatError: a file is missing or damaged, or does not fit the other.
        MissingExtra: diffusers is not installed.
    """
    base, adapter = as_path("base", base), as_path("adapter", adapter)
    try:
        library: Any = import_module("diffusers")
    except ImportError as error:
        raise MissingExtra("diffusers", "diffusers") from error
    try:
        transformer = library.Flux2Transformer2DModel.from_pretrained(
            base, subfolder="transformer", dtype=dtype, local_files_only=True
        ).to(device)
        pipe = library.Flux2KleinPipeline.from_pretrained(
            base, transformer=None, vae=None, dtype=dtype, local_files_only=True
        ).to(device)
    except (OSError, ValueError) as error:
        raise FileFormatError(
            f"Cannot read {base}: {error}. Give a folder that holds FLUX.2 klein as diffusers "
            "saves it, with transformer, text_encoder and tokenizer."
        ) from error
    try:
        state = load_file(adapter, device=str(device))
    except (OSError, SafetensorError) as error:
        raise FileFormatError(
            f"Cannot read {adapter}: {error}. Give the safetensors file of the adapter."
        ) from error

    @torch.no_grad()
    def prompts(texts: Sequence[str]) -> Tensor:
        return pipe.encode_prompt(list(texts), device=torch.device(device))[0]

    try:
        return adapt(transformer, state, prompts)
    except FileFormatError as error:
        raise FileFormatError(f"{adapter} does not fit {base}. {error}") from error


def adapt(
    transformer: Any, state: Mapping[str, Tensor], prompts: Prompts, *, side: int = SIDE
) -> AsymFluxAdapter:
    """Apply the tensors of an adapter to a latent transformer in memory, in place.

    Args:
        transformer: diffusers' `Flux2Transformer2DModel`.
        state: named as in the published file: "proj_buffer" [3 p^2, r], "scale_buffer" [], weights
            that replace others, and pairs of "NAME.lora_A.weight" and "NAME.lora_B.weight". On the
            device of the transformer.
        prompts: the text encoder.
        side: of the pictures of training.

    Raises:
        FileFormatError: they do not fit each other.
    """
    own = {name.removeprefix("transformer."): value for name, value in state.items()}
    try:
        basis, scale = own.pop("proj_buffer").float().T.contiguous(), own.pop("scale_buffer")
    except KeyError as error:
        raise FileFormatError(
            f"It has no {error.args[0]!r}, so it is no adapter of AsymFLUX.2."
        ) from None
    pairs = {name for name in own if ".lora_" in name}
    for name in sorted({name.partition(".lora_")[0] for name in pairs}):
        _add(transformer, name, own.get(f"{name}.lora_A.weight"), own.get(f"{name}.lora_B.weight"))
    for name in ("x_embedder", "proj_out"):
        given = own.get(f"{name}.weight")
        if given is not None:
            old: nn.Linear = getattr(transformer, name)
            new = nn.Linear(given.shape[1], given.shape[0], bias=False)
            setattr(transformer, name, new.to(old.weight))
    rest = {name: value for name, value in own.items() if name not in pairs}
    try:
        # Tensors that an adapter does not change are missing.
        _, unknown = transformer.load_state_dict(rest, strict=False)
    except RuntimeError as error:
        raise FileFormatError(f"{str(error).splitlines()[-1].strip()}.") from error
    if unknown:
        raise FileFormatError(f"The network has no {unknown[0]!r}.")
    width = transformer.x_embedder.weight.shape[1], transformer.proj_out.weight.shape[0]
    if width != (basis.shape[1],) * 2 or basis.shape[1] % 3:
        raise FileFormatError(
            f"Its subspace is for patches of {basis.shape[1]} numbers, and the network "
            f"takes {width[0]} and returns {width[1]}."
        )
    transformer.register_to_config(in_channels=width[0], out_channels=width[1])
    transformer.eval().requires_grad_(False)
    scale = scale.float()
    digest = digest_of(transformer, b"asymflux", _beside(basis, scale))
    return AsymFluxAdapter(transformer, prompts, basis, scale, digest, side=side)


def _beside(basis: Tensor, scale: Tensor) -> Mapping[str, Tensor]:
    """Weights of an adapter that are not in the network, as its file calls them."""
    return {"proj_buffer": basis, "scale_buffer": scale}


def _add(transformer: nn.Module, name: str, a: Tensor | None, b: Tensor | None) -> None:
    """Replace the weight W of the linear layer of that name by W + B A."""
    if a is None or b is None:
        raise FileFormatError(f"LoRA of {name!r} is not a pair of lora_A.weight and lora_B.weight.")
    try:
        layer = transformer.get_submodule(name)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear):
        raise FileFormatError(f"The network has no linear layer {name!r}.")
    if (b.shape[0], a.shape[1]) != layer.weight.shape:
        raise FileFormatError(
            f"LoRA of {name!r} is for a layer of {b.shape[0]}x{a.shape[1]}, and it has "
            f"{layer.weight.shape[0]}x{layer.weight.shape[1]}."
        )
    with torch.no_grad():
        layer.weight += (b.float() @ a.float()).to(layer.weight)


def _places(template: Tensor, rows: int, columns: int, words: int) -> Tensor:
    """Positions [rows columns words, 4] of tokens: picture, row, column, word."""
    axes = (torch.arange(n, device=template.device) for n in (1, rows, columns, words))
    return torch.cartesian_prod(*axes)
