"""A pipeline of diffusers around a JiT, as its users would write one: the sampler of its paper.

The transformer says x_0 on z = (1 - u) x_0 + u eps. The pipeline makes a velocity of it, with the
paper's floor under u, combines the passes with and without the class, and leaves the step to its
scheduler: by default 50 of Heun's, equal in u.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asymflow.models.diffusers.pipelines import Family
from asymflow.models.jit import adapter as jit
from asymflow.models.jit.network import JitModel

diffusers: Any = importlib.import_module("diffusers")  # whose own types do not describe its calls
configuration: Any = importlib.import_module("diffusers.configuration_utils")
tensors: Any = importlib.import_module("diffusers.utils.torch_utils")

FAMILY = Family(
    network="transformer",
    conditions=("class_labels",),
    normalised=True,
    floor=jit.FLOOR,
    unit=True,
)


class JitTransformer(diffusers.ModelMixin, configuration.ConfigMixin):
    """A `JitModel` with the call of a diffusers transformer; x_0 [b, c, h, w] out."""

    @configuration.register_to_config
    def __init__(
        self, sample_size: int, patch_size: int, in_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        self.model: JitModel | None = None

    @classmethod
    def around(cls, model: JitModel) -> JitTransformer:
        config = model.config
        made = cls(config.size, config.patch, config.channels, config.classes)
        made.model = model
        return made

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        class_labels: Tensor,
        return_dict: bool = True,
    ) -> tuple[Tensor]:
        assert self.model is not None, "it was made around a model"
        return (self.model(hidden_states, timestep.expand(len(hidden_states)), class_labels),)


class JitPipeline(diffusers.DiffusionPipeline):
    """Pictures of classes."""

    def __init__(self, transformer: JitTransformer, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: list[int],
        num_inference_steps: int = 50,
        guidance_scale: float = 2.0,
        generator: Any = None,
        output_type: str = "pil",
    ) -> Any:
        config = self.transformer.config
        shape = (len(class_labels), config.in_channels, config.sample_size, config.sample_size)
        z = tensors.randn_tensor(shape, generator=generator)
        labels = torch.tensor(class_labels)
        guided = guidance_scale > 1
        if guided:
            labels = torch.cat([torch.full_like(labels, config.num_classes), labels])
        self.scheduler.set_timesteps(num_inference_steps)
        for tau in self.progress_bar(self.scheduler.timesteps):
            u = tau / 1000
            both = torch.cat([z, z]) if guided else z
            x_0 = self.transformer(both, u, labels, return_dict=False)[0]
            velocity = (both - x_0) / u.clamp(min=jit.FLOOR)
            if guided:
                null, cond = velocity.chunk(2)
                velocity = null + guidance_scale * (cond - null)
            z = self.scheduler.step(velocity, tau, z, return_dict=False)[0]
        images = (z / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = self.numpy_to_pil(images.permute(0, 2, 3, 1).numpy())
        return diffusers.ImagePipelineOutput(images=images)


def load(path: Path) -> JitPipeline:
    model = jit.load(path, class_start=1).model
    # The scale that a file is taken to have follows from its size; this one was trained with 1.
    model.config = replace(model.config, noise_scale=1.0)
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    return JitPipeline(JitTransformer.around(model), scheduler)
