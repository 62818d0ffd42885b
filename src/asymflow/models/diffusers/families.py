"""Supported pipelines, and the errors for others."""

from __future__ import annotations

import inspect
from typing import Any

from asymflow.core.checks import instance
from asymflow.core.errors import InputError
from asymflow.models.diffusers import deepfloyd, prx
from asymflow.models.diffusers.pipelines import Family, unwrapped

UNCONDITIONAL = Family(network="unet", state="sample", conditions=(), unit=True)

FAMILIES = {
    "DDPMPipeline": UNCONDITIONAL,
    "DDIMPipeline": UNCONDITIONAL,
    prx.PIPELINE: prx.FAMILY,
    **deepfloyd.FAMILIES,
}
_AUTOENCODERS = ("vae", "vqvae", "vqgan", "movq")


def family_of(pipe: Any, declared: Family | None = None) -> Family:
    """How a pipeline asks its network: as declared, or as known of its class.

    Raises:
        InputError: it is no pipeline, works on latents, is unknown, or is not as declared.
    """
    if declared is not None:
        instance(
            "family", declared, Family, "Pass asymflow.models.diffusers.pipelines.Family(...)."
        )
    if not hasattr(pipe, "components") or not hasattr(pipe, "scheduler"):
        raise InputError(
            f"{type(pipe).__name__} is no pipeline with a scheduler. Pass a diffusers pipeline, "
            "such as DDPMPipeline, once it is loaded: DDPMPipeline.from_pretrained(...). A network "
            "and its scheduler go to asymflow.models.diffusers.networks.adapt."
        )
    kind = type(pipe).__name__
    latent = [name for name in _AUTOENCODERS if getattr(pipe, name, None) is not None]
    if latent:
        raise InputError(
            f"{kind} works on the latents of its {latent[0]}, and asymflow plans in pixels: it "
            "judges plans by the state itself, and what a difference between latents looks like "
            "is up to the decoder. That would take an adapter that decodes what is compared, and "
            "references made through it. Use a pipeline without an autoencoder."
        )
    if declared is None:
        known = (FAMILIES.get(base.__name__) for base in type(pipe).__mro__)
        declared = next((family for family in known if family is not None), None)
    if declared is None:
        raise InputError(
            f"{kind} is not known: these are {', '.join(FAMILIES)}. Say how it asks its network "
            "with family=Family(...) of asymflow.models.diffusers.pipelines."
        )
    if getattr(pipe, declared.network, None) is None:
        raise InputError(
            f"{kind} has no component {declared.network!r}, only {', '.join(pipe.components)}. "
            "Name the network in its declaration: Family(network=...)."
        )
    network = getattr(pipe, declared.network)
    _check_arguments(network, declared)
    if declared.noise is not None and declared.noise not in pipe.config:
        raise InputError(
            f"{kind} has no setting {declared.noise!r}, only {', '.join(pipe.config)}. Name the "
            "one that says how much noise it begins with, or leave out Family(noise=...)."
        )
    classes = network.config.get("num_class_embeds") if hasattr(network, "config") else None
    if classes is not None and not declared.conditions:
        raise InputError(
            f"The network of this {kind} was trained with {classes} classes, and the pipeline "
            "never tells it one, so it cannot run. Use "
            "asymflow.models.diffusers.networks.adapt with the "
            "network and its scheduler, or declare how a pipeline of yours tells it: "
            "Family(conditions=('class_labels',))."
        )
    if "num_inference_steps" not in inspect.signature(pipe.__call__).parameters:
        raise InputError(
            f"{kind} cannot be called with num_inference_steps, so its steps cannot be a plan's. "
            "Run its network with asymflow.core.engine instead, through an adapter."
        )
    return declared


def _check_arguments(network: Any, declared: Family) -> None:
    """Raise `InputError` where the network has no such arguments."""
    parameters = inspect.signature(type(unwrapped(network)).forward).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    named: dict[str, tuple[str, ...]] = {"state": (declared.state,), "time": (declared.time,)}
    if declared.conditions != Family(declared.network).conditions:  # which many do without
        named["conditions"] = declared.conditions
    for attribute, names in named.items():
        for name in names:
            if name not in parameters:
                raise InputError(
                    f"{type(unwrapped(network)).__name__} has no argument {name!r}, only "
                    f"{', '.join([*parameters][1:])}. Correct Family({attribute}=...)."
                )
