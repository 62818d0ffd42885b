"""The node Apply plan: a MODEL that every KSampler samples by a plan."""

from __future__ import annotations

import logging
from typing import Any

from comfy.patcher_extension import WrappersMP
from comfy_api.v0_0_2 import io

from asymflow.core.errors import InputError

from . import plans
from .sampling import begun_at, is_planned, sampler_of, sigmas_of

KEY = "asymflow_plan"
_log = logging.getLogger("asymflow")


class ApplyPlan(io.ComfyNode):
    """Patches a MODEL, so that existing graphs run a plan."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AsymflowApplyPlan",
            display_name="Apply plan to KSampler (asymflow)",
            category="sampling/asymflow",
            description=(
                "Whatever samples this model makes the steps of a plan, in place of the sampler, "
                "scheduler and number of steps that are chosen there. Seed, cfg and denoise stay."
            ),
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("plan", options=plans.choices(), tooltip=plans.TOOLTIP),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, plan: str, **_: Any) -> str:
        """Run again when another plan may be found."""
        return plans.fingerprint(plan)

    @classmethod
    def execute(cls, model: Any, plan: str) -> io.NodeOutput:
        """Put the plan on a copy of the model."""
        patched = model.clone()
        patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _planned(plan))
        return io.NodeOutput(patched)


def _planned(choice: str) -> Any:
    """A wrapper of `CFGGuider.outer_sample` that replaces sampler and sigmas."""

    def sample(
        executor: Any,
        noise: Any,
        latent_image: Any,
        sampler: Any,
        sigmas: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if is_planned(sampler):  # of Load plan, for the same model
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        if float(sigmas[-1]) > 0:
            raise InputError(
                f"This sampler ends at sigma {float(sigmas[-1]):.3g}, where noise is left, and a "
                "plan ends at 0. Let it end at its last step (end_at_step 10000, "
                "return_with_leftover_noise disable), or sample here without Apply plan."
            )
        guider = executor.class_obj
        height, width = latent_image.shape[-2:]
        cfg = float(getattr(guider, "cfg", 1.0))
        found = plans.find(guider.model_patcher, choice, (height, width), cfg)
        cut = begun_at(found.plan, float(sigmas[0]))
        _log.info(
            "%d steps of plan %r in place of %d of the sampler.",
            len(cut.steps),
            cut.name,
            len(sigmas) - 1,
        )
        planned = sigmas_of(cut).to(sigmas)
        return executor(noise, latent_image, sampler_of(cut), planned, *args, **kwargs)

    return sample
