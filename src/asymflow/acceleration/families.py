"""Which pipelines are known, and why others are not."""

from __future__ import annotations

import inspect
from typing import Any

from asymflow.adapters import deepfloyd, prx
from asymflow.adapters.pipelines import Family
from asymflow.errors import InputError

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
    if not hasattr(pipe, "components") or not hasattr(pipe, "scheduler"):
        raise InputError(
            f"{type(pipe).__name__} is no pipeline with a scheduler. Pass a diffusers pipeline, "
            "such as DDPMPipeline; a network and its scheduler go to "
            "asymflow.adapters.diffusers.adapt."
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
            "with family=Family(...) of asymflow.adapters.pipelines."
        )
    if getattr(pipe, declared.network, None) is None:
        raise InputError(
            f"{kind} has no component {declared.network!r}, only {', '.join(pipe.components)}. "
            "Name the network in its declaration: Family(network=...)."
        )
    network = getattr(pipe, declared.network)
    classes = network.config.get("num_class_embeds") if hasattr(network, "config") else None
    if classes is not None and not declared.conditions:
        raise InputError(
            f"The network of this {kind} was trained with {classes} classes, and the pipeline "
            "never tells it one, so it cannot run. Use asymflow.adapters.diffusers.adapt with the "
            "network and its scheduler, or declare how a pipeline of yours tells it: "
            "Family(conditions=('class_labels',))."
        )
    if "num_inference_steps" not in inspect.signature(pipe.__call__).parameters:
        raise InputError(
            f"{kind} cannot be called with num_inference_steps, so its steps cannot be a plan's. "
            "Run its network with asymflow.engine instead, through an adapter."
        )
    return declared
