"""The node Measure model: finds and proves the plans of a model, and keeps them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import comfy.model_management
import comfy.samplers
import comfy.utils
import torch
from comfy_api.v0_0_2 import io

from asymflow.core.types import Plan
from asymflow.planning import binding
from asymflow.planning.effort import EFFORTS
from asymflow.planning.named import NamedPlans
from asymflow.planning.shelf import NAMES, Shelf

from . import plans
from .measuring import Measuring, check_memory, digest_of, measured_for
from .models import Model, model_of

MORE = ("positive_2", "positive_3", "positive_4")
_log = logging.getLogger("asymflow")


class MeasureModel(io.ComfyNode):
    """Measures a model once, with the prompts and the size that it is used with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AsymflowMeasureModel",
            display_name="Measure model (asymflow)",
            category="sampling/asymflow",
            description=(
                "Measures this model on your prompts and keeps its plans best, balanced, fast and "
                "draft. That takes some ten thousand network passes, once; if it is interrupted, "
                "the next run resumes. Connect the MODEL to Load plan or Apply plan."
            ),
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Latent.Input("latent_image", tooltip="For the size of the pictures."),
                io.Float.Input("cfg", default=4.0, min=1.0, max=100.0, step=0.1, round=0.01),
                io.Combo.Input(
                    "effort",
                    options=list(EFFORTS),
                    tooltip="full fits plans on more pictures, and takes several times as long.",
                ),
                io.Boolean.Input(
                    "again", default=False, tooltip="Measure even where plans are kept already."
                ),
                io.Conditioning.Input("negative", optional=True),
                *(io.Conditioning.Input(name, optional=True) for name in MORE),
            ],
            outputs=[io.Model.Output(), io.String.Output(display_name="text")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        latent_image: Any,
        cfg: float,
        effort: str,
        again: bool,
        negative: Any = None,
        positive_2: Any = None,
        positive_3: Any = None,
        positive_4: Any = None,
    ) -> io.NodeOutput:
        """Measure the model, unless its plans are kept."""
        plans.check_negative(negative, cfg)
        samples = latent_image["samples"]
        size = (samples.shape[-2], samples.shape[-1])
        described = model_of(model, size)
        described.default_plan(guided=cfg != 1)  # refuses what cannot be planned
        given = (positive, positive_2, positive_3, positive_4)
        conds = {
            name: cond
            for name, cond in zip(("positive", *MORE), given, strict=True)
            if cond is not None
        }
        if negative is not None:
            conds["negative"] = negative
        guider = comfy.samplers.CFGGuider(model)
        guider.inner_set_conds(conds)
        guider.set_cfg(cfg)
        plans.check_whole(guider.original_conds)
        shelf, prompts = Shelf(described.description), digest_of(guider.original_conds)
        known = {} if again else _kept(shelf, described, size, cfg, prompts)
        absent: Mapping[str, str] = {}
        if not known:
            check_memory(size)
            made = _measured(guider, described, size, effort)
            known, absent = measured_for(made, prompts, model.load_device), made.absent
            _keep(shelf, size, known, absent)
        ordered = [str(known[name]) for name in reversed(NAMES) if name in known]
        reasons = [f"There is no plan {name!r}: {why}." for name, why in absent.items()]
        text = [*ordered, f"Kept in {shelf.own}.", *reasons]
        return io.NodeOutput(model, "\n\n".join(text))


def _measured(guider: Any, model: Model, size: tuple[int, int], effort: str) -> NamedPlans:
    """Measure a model, with a progress bar, until the user interrupts it."""
    bar = comfy.utils.ProgressBar(1)

    def progress(activity: str, done: int, expected: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, expected)

    measuring = Measuring(model, size, effort, progress)
    empty = torch.zeros(1, 3, *size)
    guider.sample(empty, empty, measuring, torch.tensor([1.0, 0.0]), disable_pbar=True)
    assert measuring.made is not None, "ComfyUI calls the sampler"
    return measuring.made


def _keep(
    shelf: Shelf, size: tuple[int, int], found: Mapping[str, Plan], absent: Mapping[str, str]
) -> None:
    """Keep plans, and nothing of before under the names of those that there are none of now."""
    for plan in found.values():
        _log.info("Kept as %s.", shelf.keep(plan, size))
    for name, reason in absent.items():
        shelf.forget(name, size)
        _log.info("There is no plan %r: %s.", name, reason)


def _kept(
    shelf: Shelf, model: Model, size: tuple[int, int], cfg: float, prompts: str
) -> dict[str, Plan]:
    """The plans that were measured for just this use."""
    found: dict[str, Plan] = {}
    for name in reversed(NAMES):
        plan = shelf.find(name, size)
        if plan is None or plan.evidence is None:
            continue
        made = plan.evidence.made
        same = float(made["guidance_scale"]) == cfg and made.get("examples") == prompts
        if same and binding.match(plan, model.description, size).level == "exact":
            found[name] = plan
    return found
