"""The node Load plan: SIGMAS, SAMPLER and GUIDER of a plan."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.v0_0_2 import io

from . import plans
from .sampling import begun_at, sampler_of, sigmas_of


class LoadPlan(io.ComfyNode):
    """Finds the plan for a model, and makes what SamplerCustomAdvanced takes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AsymflowLoadPlan",
            display_name="Load plan (asymflow)",
            category="sampling/asymflow",
            description=(
                "A sampling plan for this pixel-space model: which noise levels, which solver, "
                "and where guidance is worth its pass. Connect all three outputs to "
                "SamplerCustomAdvanced."
            ),
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Latent.Input(
                    "latent_image", tooltip="The same as of the sampler: for its size."
                ),
                io.Combo.Input("plan", options=plans.choices(), tooltip=plans.TOOLTIP),
                io.Float.Input(
                    "cfg",
                    default=4.0,
                    min=1.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Guidance scale of the steps that are guided. At 1 none is.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="As of KSampler: below 1 the picture of latent_image is changed.",
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="Not needed with cfg 1 only."
                ),
            ],
            outputs=[
                io.Guider.Output(display_name="GUIDER"),
                io.Sampler.Output(display_name="SAMPLER"),
                io.Sigmas.Output(display_name="SIGMAS"),
                io.String.Output(display_name="text"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, plan: str, **_: Any) -> str:
        """Run again when another plan may be found."""
        return plans.fingerprint(plan)

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        latent_image: Any,
        plan: str,
        cfg: float,
        denoise: float,
        negative: Any = None,
    ) -> io.NodeOutput:
        """Find the plan and make its parts."""
        plans.check_negative(negative, cfg)
        height, width = latent_image["samples"].shape[-2:]
        found = plans.find(model, plan, (height, width), cfg)
        cut = begun_at(found.plan, plans.beginning(model, denoise))
        guider = comfy.samplers.CFGGuider(model)
        conds = {"positive": positive} | ({} if negative is None else {"negative": negative})
        guider.inner_set_conds(conds)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider, sampler_of(cut), sigmas_of(cut), str(found))
