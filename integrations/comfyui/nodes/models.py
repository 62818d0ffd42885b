"""What a plan has to know of a MODEL of ComfyUI: kind, weights, noise, shift.

A pixel-space flow model of ComfyUI is asked for x_0 at the state

    x = (1 - sigma) x_0 + sigma s eps

where s is its scale of noise. In units of s that is the path of asymflow at t = sigma. The shift of
its schedule decides where samplers put their steps, and not what the model answers: so the times of
a plan are those of its own shift, and are moved where the model has another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_sampling
import torch

from asymflow.core.binding import ModelDescription
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.transforms import rescaled
from asymflow.core.types import Plan
from asymflow.models.diffusers.conventions import Flow
from asymflow.models.diffusers.own import default_of
from asymflow.models.hashing import sampled_identity

from .families import Family, family_of

NETWORK = "diffusion_model."
"""Begins the names of the network's weights."""


@dataclass(frozen=True)
class Model:
    """A MODEL, for pictures of one size.

    Attributes:
        description: that plans are bound to.
        base: the same without LoRAs and other changes of weights; `description` if there are none.
        noise_scale: standard deviation s of the noise.
        shift: of its schedule: t / (1 - t) in the middle of it.
    """

    family: Family
    description: ModelDescription
    base: ModelDescription
    noise_scale: float
    shift: float
    sampling: Any

    def default_plan(self, *, guided: bool) -> Plan:
        """Fewer steps of a better solver on the model's own schedule; measured on no weights."""
        if self.family.distilled:
            raise InputError(
                f"{self.family.title} was distilled to {self.family.steps} steps, and fewer of a "
                "better solver are none of these. Use it with its own sampler and sigmas."
            )
        return default_of(Flow(shift=self.shift), self.family.steps, guided=guided)

    def own_plan(self) -> Plan:
        """Euler's method on the model's own schedule, in the steps of its template."""
        return plan_of(shifted(self.family.steps, self.shift), solver="euler", name="euler")

    def beginning(self, denoise: float) -> float:
        """The time at which a KSampler begins for that denoise."""
        return float(self.sampling.percent_to_sigma(1.0 - denoise))


def model_of(patcher: Any, size: tuple[int, int]) -> Model:
    """What plans have to know of a MODEL that makes pictures of (height, width).

    Raises:
        InputError: it works on latents, or is no flow model.
    """
    sampling = patcher.get_model_object("model_sampling")
    family = family_of(str(patcher.model.model_config.unet_config.get("image_model", "unknown")))
    _check(patcher, sampling, family)
    scale = noise_scale(sampling, size)
    digest = _patches_digest(patcher.patches)
    weights = _weights(patcher)
    base = _description(family, weights, scale, shift_of(sampling), b"")
    changed = _description(family, weights, scale, shift_of(sampling), digest) if digest else base
    return Model(family, changed, base, scale, shift_of(sampling), sampling)


def noise_scale(sampling: Any, size: tuple[int, int]) -> float:
    """The standard deviation of the noise for pictures of (height, width), which it may depend on.

    What the schedule makes of noise 1 and picture 0 at sigma = 1 is just that.
    """
    ones = torch.ones(1, 3, *size)
    return float(sampling.noise_scaling(torch.ones(1), ones, torch.zeros_like(ones))[0, 0, 0, 0])


def shift_of(sampling: Any) -> float:
    """The shift of a schedule. In the middle of one without a shift t is 1/2."""
    middle = float(sampling.percent_to_sigma(0.5))
    return middle / (1 - middle)


def _check(patcher: Any, sampling: Any, family: Family) -> None:
    latents = patcher.model.latent_format
    ratio = getattr(latents, "spacial_downscale_ratio", 1)
    if latents.latent_channels != 3 or ratio != 1:
        raise InputError(
            f"{family.title} works on latents ({latents.latent_channels} channels, "
            f"{type(latents).__name__}), and asymflow plans in pixels: it judges plans by the "
            "picture itself. Use a pixel-space model, such as Chroma1-Radiance or HiDream-O1-Image."
        )
    if type(sampling).calculate_denoised is not comfy.model_sampling.CONST.calculate_denoised:
        raise InputError(
            f"{family.title} is sampled as {type(sampling).__name__}, which is no flow from noise "
            "to picture (CONST). Remove the node that changed its sampling, such as "
            "ModelSamplingDiscrete, or use a flow model."
        )


def _description(
    family: Family, weights: Mapping[str, torch.Tensor], scale: float, shift: float, patches: bytes
) -> ModelDescription:
    identity = sampled_identity(weights, patches)
    return ModelDescription(
        family=family.name,
        weights=identity.weights,
        parameterisation="flow",
        guidance="cfg",
        noise_scale=round(scale, 6),
        fingerprint=None if patches else identity.fingerprint,
        settings={"shift": f"{shift:.4g}"},
    )


def _weights(patcher: Any) -> dict[str, torch.Tensor]:
    """The network's weights as they were loaded, before any patch.

    Of scaled 8-bit weights, their numbers: those are rounded, and so they are other weights.
    """
    found = patcher.get_key_patches(NETWORK)
    return {
        name.removeprefix(NETWORK): getattr(each[0][0], "_qdata", each[0][0])
        for name, each in found.items()
    }


def _patches_digest(patches: Mapping[str, Any]) -> bytes:
    """Tells changes of weights, such as LoRAs, from others; empty without any."""
    if not patches:
        return b""
    digest: Any = hashlib.sha256()
    for name in sorted(patches, key=str):
        digest.update(f"{name}\n".encode())
        for strength, value, of_model, *_ in patches[name]:
            digest.update(f"{strength} {of_model} ".encode())
            tensors: dict[str, torch.Tensor] = {}
            _collect(value, "", tensors)
            digest.update(sampled_identity(tensors).weights.encode())
    return digest.hexdigest().encode()


def _collect(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> None:
    """All tensors in what ComfyUI patches a weight with."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
    elif isinstance(value, float | int | bool):
        tensors[name] = torch.tensor(float(value))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            _collect(each, f"{name}.{index}", tensors)
    elif hasattr(value, "weights"):
        _collect(value.weights, f"{name}.{type(value).__name__}", tensors)


def moved(plan: Plan, model: Model) -> Plan:
    """A plan for the shift that the model has now."""
    settings = (plan.binding and plan.binding.settings) or {}
    was = float(settings.get("shift", model.shift))
    factor = model.shift / was
    if abs(factor - 1) < 1e-3:
        return plan
    return replace(rescaled(plan, factor), binding=plan.binding, requires=plan.requires)
