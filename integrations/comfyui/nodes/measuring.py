"""A MODEL of ComfyUI as a model of asymflow, while ComfyUI has it loaded for sampling."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.samplers
import numpy as np
import torch
from torch import Tensor

from asymflow._version import __version__
from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Sizes
from asymflow.core.errors import InputError
from asymflow.core.requests import refuse_others
from asymflow.core.types import Picture, Plan, Request
from asymflow.io import folders
from asymflow.io.files import key_name
from asymflow.planning import named
from asymflow.planning.effort import EFFORTS
from asymflow.planning.journal import Journal
from asymflow.planning.named import NamedPlans

from .models import Model

LATE = 0.1
"""Time below which the default plan does without guidance."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model with the conditionings of a graph, asked through ComfyUI's own calls.

    The state is in units of the scale of noise, as `.models` says. States stay in the memory of the
    CPU, and are on the device of the network only while that is asked: a measurement keeps many.
    What a graph does to guided estimates, such as rescaling guidance, is not a part of it.

    Attributes:
        guider: that ComfyUI samples with; it has the conditionings.
        positives: names of its conditional ones.
        negative: name of the unconditional one, if there is one.
        options: of the model, for this run.
    """

    guider: Any
    model: Model
    size: tuple[int, int]
    cfg: float
    positives: tuple[str, ...]
    negative: str | None
    options: Any
    device: torch.device

    @property
    def name(self) -> str:
        return f"{self.model.family.name}:{self.model.description.weights[:12]}"

    @property
    def channels(self) -> int:
        return 3

    @property
    def template(self) -> Tensor:
        return torch.empty(0, dtype=torch.float32)

    @property
    def batch(self) -> int | None:
        return 1  # ComfyUI reserved memory for one picture

    @property
    def description(self) -> ModelDescription:
        return self.model.description

    @property
    def card(self) -> Card:
        return Card(
            title=self.model.family.title,
            asks="prompt",
            sizes=Sizes.only(*self.size),
            guidance=self.cfg,
            guided=self.cfg != 1,
            guidance_interval=(LATE, 1.0),
            calibration=tuple({"prompt": name} for name in self.positives),
            tiers=("conditional",),
            steps=self.model.family.steps,
        )

    def default_plan(self, size: tuple[int, int]) -> Plan:
        return self.model.default_plan(guided=self.cfg != 1)

    def own_plan(self, size: tuple[int, int]) -> Plan:
        return self.model.own_plan()

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return ()

    def check(self, request: Request) -> None:
        if request.size != self.size:
            raise InputError(f"This model is loaded for {self.size}, not for {request.size}.")
        refuse_others(request, ("prompt",), self.model.family.title)

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        rows = [self.positives.index(request.inputs["prompt"]) for request in requests]
        cond = torch.tensor(rows)
        return {"prompt": cond}, {"prompt": torch.full_like(cond, -1)}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        x_0 = torch.empty_like(x_t)
        rows = context["prompt"].tolist()
        for prompt in dict.fromkeys(rows):
            some = [row for row, each in enumerate(rows) if each == prompt]
            name = self.negative if prompt < 0 else self.positives[prompt]
            [found] = comfy.samplers.calc_cond_batch(
                self.guider.inner_model,
                [self.guider.conds[name]],
                (x_t[some] * self.model.noise_scale).to(self.device),
                t[some].to(self.device, torch.float32),
                self.options,
            )
            x_0[some] = found.to(x_0) / self.model.noise_scale
        return x_0

    def to_state(self, picture: Picture) -> Tensor:
        state = torch.from_numpy(picture).movedim(-1, 0).to(self.template) * 2 - 1
        return state / self.model.noise_scale

    def to_picture(self, x_0: Tensor) -> Picture:
        picture = ((x_0.float() * self.model.noise_scale + 1) / 2).clamp(0, 1)
        return np.ascontiguousarray(picture.movedim(0, -1).cpu().numpy())


class Measuring(comfy.samplers.Sampler):
    """A SAMPLER that makes no pictures for the graph, and measures the model meanwhile.

    ComfyUI loads models, applies patches and prepares conditionings for samplers only.
    """

    def __init__(
        self, model: Model, size: tuple[int, int], effort: str, progress: Progress
    ) -> None:
        self.model = model
        self.size = size
        self.effort = EFFORTS[effort]
        self.progress = progress
        self.made: NamedPlans | None = None

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: Any,
        callback: Any,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Measure the model."""
        names = tuple(model_wrap.conds)
        loaded = Loaded(
            model_wrap,
            self.model,
            self.size,
            float(model_wrap.cfg),
            tuple(name for name in names if name != "negative"),
            "negative" if "negative" in names else None,
            extra_args["model_options"],
            noise.device,
        )
        journal = Journal(unfinished(loaded, repr(self.effort)))
        self.made = named.measure(
            loaded,
            self.size,
            loaded.cfg,
            effort=self.effort,
            journal=journal,
            progress=self.progress,
        )
        journal.remove()
        return latent_image


def unfinished(loaded: Loaded, effort: str) -> Any:
    """Folder of what was measured for plans that are not made yet."""
    facts = {
        "model": loaded.name,
        "shift": f"{loaded.model.shift:g}",
        "dtype": str(loaded.guider.inner_model.get_dtype()),
        "device": str(loaded.device),
        "size": f"{loaded.size[1]}x{loaded.size[0]}",
        "guidance_scale": f"{loaded.cfg:g}",
        "prompts": digest_of(loaded.guider.original_conds),
        "asymflow": __version__,
        "job": f"comfyui {effort}",
    }
    return folders.cache() / "measuring" / key_name(facts)


def digest_of(conds: Any) -> str:
    """Tells conditionings from others, by their tensors and numbers."""
    digest: Any = hashlib.sha256()
    _add(digest, conds)
    return digest.hexdigest()[:16]


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(f"{key}=".encode())
            _add(digest, value[key])
    elif isinstance(value, list | tuple):
        for each in value:
            _add(digest, each)
    elif isinstance(value, str | int | float | bool | None):
        digest.update(f"{value!r} ".encode())
    # Of anything else, such as the UUID of a conditioning, there is another one at every run.


STATES = 2300
"""About as many states as a measurement keeps at a time, for its profile and its fits."""


def check_memory(size: tuple[int, int]) -> None:
    """Raise `InputError` where pictures of (height, width) need more memory than there is."""
    needed = STATES * 12 * size[0] * size[1]
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise InputError(
            f"Measuring at {size[1]}x{size[0]} takes about {needed / 1e9:.0f} GB of memory beside "
            f"the model, and {free / 1e9:.0f} GB are free. Measure at a smaller size: plans of "
            "that run at this one too."
        )


def measured_for(plans: NamedPlans, prompts: str, device: torch.device) -> dict[str, Plan]:
    """The plans, with the conditionings and the device of the network in their evidence."""
    where = comfy.model_management.get_torch_device_name(device)
    found: dict[str, Plan] = {}
    for name, plan in plans.plans.items():
        assert plan.evidence is not None, "named plans are proved"
        made = {**plan.evidence.made, "examples": prompts, "host": "ComfyUI"}
        if device.type != "cpu":
            made["device"] = where
        found[name] = replace(plan, evidence=replace(plan.evidence, made=made))
    return found
