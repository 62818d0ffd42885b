"""Sampling plans of asymflow for the pixel-space models of ComfyUI."""

from __future__ import annotations

import logging

from comfy_api.v0_0_2 import ComfyExtension, io
from typing_extensions import override

from .nodes.apply_plan import ApplyPlan
from .nodes.load_plan import LoadPlan
from .nodes.measure_model import MeasureModel

WEB_DIRECTORY = "./web"
"""Has the help pages."""

logging.getLogger("asymflow").setLevel(logging.INFO)


class AsymflowExtension(ComfyExtension):
    """The nodes of this pack."""

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadPlan, MeasureModel, ApplyPlan]


async def comfy_entrypoint() -> AsymflowExtension:
    """What ComfyUI asks for the nodes."""
    return AsymflowExtension()
