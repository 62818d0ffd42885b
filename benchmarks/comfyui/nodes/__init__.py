"""Nodes for checks only: a small PixelDiT of random weights, and prompts without a text encoder."""

# This file is copied into custom_nodes of a ComfyUI, and so imports nothing of this repository.
# pyright: reportMissingImports=false, reportUnknownParameterType=false, reportUntypedBaseClass=false

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy_api.v0_0_2 import ComfyExtension, io

SHAPE = {
    "num_groups": 2,
    "hidden_size": 48,
    "pixel_attn_hidden_size": 48,
    "pixel_num_groups": 2,
    "patch_depth": 2,
    "pixel_depth": 1,
    "txt_embed_dim": 16,
    "txt_max_length": 8,
}


class SmallPixelDiT(io.ComfyNode):
    """Loads a checkpoint of the shape above."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="ChecksSmallPixelDiT",
            category="checks",
            inputs=[io.String.Input("name")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, name: str) -> Any:
        path = folder_paths.get_full_path_or_raise("diffusion_models", name)
        config = comfy.supported_models.PixelDiTT2I({"image_model": "pixeldit_t2i"})
        config.unet_config = {"image_model": "pixeldit_t2i", "dtype": torch.float32, **SHAPE}
        model = config.get_model({}, "")
        model.load_model_weights(comfy.utils.load_torch_file(path), "")
        device = comfy.model_management.get_torch_device()
        return io.NodeOutput(
            comfy.model_patcher.ModelPatcher(
                model, device, comfy.model_management.unet_offload_device()
            )
        )


class Prompt(io.ComfyNode):
    """A conditioning of random numbers."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="ChecksPrompt",
            category="checks",
            inputs=[io.Int.Input("seed", default=0)],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randn(1, 6, SHAPE["txt_embed_dim"], generator=generator)
        return io.NodeOutput([[tokens, {}]])


class ChecksExtension(ComfyExtension):
    """Both nodes."""

    async def get_node_list(self) -> list[Any]:
        return [SmallPixelDiT, Prompt]


async def comfy_entrypoint() -> ChecksExtension:
    """What ComfyUI asks for the nodes."""
    return ChecksExtension()
