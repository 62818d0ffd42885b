"""The real ComfyUI, from a checkout, in an environment with its requirements."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Real:
    """ComfyUI on the CPU."""

    def __init__(self, path: Path) -> None:
        if not (path / "comfy/samplers.py").is_file():
            raise SystemExit(
                f"{path} is no checkout of ComfyUI: it has no comfy/samplers.py. Clone "
                "https://github.com/Comfy-Org/ComfyUI, and give its folder."
            )
        if str(path) not in sys.path:
            sys.path.append(str(path))
        own, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
        try:
            self._module("comfy.options").enable_args_parsing()
            self.samplers = self._module("comfy.samplers")
            self.nodes = self._module("comfy_extras.nodes_custom_sampler")
        finally:
            sys.argv = own
        self.path = path
        self.version: str = self._module("comfyui_version").__version__

    @property
    def scales_noise(self) -> bool:
        """Whether it knows scales of noise, as later versions do."""
        sampling = self._module("comfy.model_sampling").ModelSamplingDiscreteFlow
        return hasattr(sampling, "set_noise_scale")

    def has(self, model: str) -> bool:
        """Whether it has a kind of model."""
        return hasattr(self._module("comfy.supported_models"), model)

    @property
    def commit(self) -> str:
        """Of the checkout."""
        command = ["git", "-C", str(self.path), "rev-parse", "--short=12", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip() or "unknown"

    def patcher(self, network: Callable[..., nn.Module], settings: Mapping[str, Any]) -> Any:
        formats = self._module("comfy.latent_formats")
        bases = self._module("comfy.supported_models_base")
        models = self._module("comfy.model_base")
        config = type(
            "Tiny",
            (bases.BASE,),
            {
                "unet_config": {},
                "latent_format": formats.ChromaRadiance,
                "sampling_settings": {**settings},
                "memory_usage_factor": 0.01,
            },
        )({"image_model": "tiny"})
        config.unet_config = {"image_model": "tiny", "dtype": torch.float32}
        model = models.BaseModel(config, models.ModelType.FLOW, unet_model=network)
        device = torch.device("cpu")
        return self._module("comfy.model_patcher").ModelPatcher(model, device, device)

    def sample(self, noise: Any, guider: Any, sampler: Any, sigmas: Tensor, latent: Any) -> Tensor:
        node = self.nodes.SamplerCustomAdvanced
        given = (noise, guider, sampler, sigmas, latent)
        # Of the first interface of nodes, in older versions.
        made = node.execute(*given).result if hasattr(node, "execute") else node().sample(*given)
        return made[0]["samples"]

    def ksampler(
        self,
        model: Any,
        noise: Tensor,
        positive: Any,
        negative: Any,
        latent: Tensor,
        *,
        steps: int,
        cfg: float,
        denoise: float = 1.0,
        callback: Any = None,
    ) -> Tensor:
        return self._module("comfy.sample").sample(
            model,
            noise,
            sampler_name="euler",
            scheduler="simple",
            positive=positive,
            negative=negative,
            latent_image=latent,
            steps=steps,
            cfg=cfg,
            denoise=denoise,
            callback=callback,
            disable_pbar=True,
        )

    def _module(self, name: str) -> Any:
        return importlib.import_module(name)
