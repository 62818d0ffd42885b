"""The sampler that a plan is compared with: the pipeline's own, as far as it draws no noise."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from asymflow.models.diffusers.own import ENOUGH, default_steps
from asymflow.models.diffusers.pipelines import Call, Family, capture_call, copy_of


def clips(scheduler: Any) -> bool:
    """Whether a scheduler cuts estimates of x_0."""
    config = scheduler.config
    return bool(config.get("clip_sample") or config.get("thresholding"))


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """The deterministic sampler that a pipeline has, or that diffusers has for its model."""

    scheduler: Any
    steps: int

    @property
    def name(self) -> str:
        return f"{type(self.scheduler).__name__}, {self.steps} steps"

    @classmethod
    def of(cls, pipe: Any) -> Baseline:
        """At the number of steps that the pipeline makes by default, or `ENOUGH`.

        No more than the model has timesteps, since there would be none to ask it at.
        """
        own, config = pipe.scheduler, pipe.scheduler.config
        if (walked := _deterministic_like(own)) is not None:
            scheduler = walked
        elif type(own).__name__ == "DDPMScheduler":
            ddim: Any = import_module("diffusers").DDIMScheduler
            # Noise levels and not what they are called: it does not know all of DDPM's schedules.
            known = {"trained_betas": own.betas.tolist(), "rescale_betas_zero_snr": False}
            scheduler = ddim.from_config(config, **known)
            # Or some pipelines would hand it a learned variance, which it has no use for.
            scheduler.register_to_config(variance_type="fixed_small")
        else:
            scheduler = copy.deepcopy(own)  # since others may be using it meanwhile
        _without_variance(scheduler)
        steps = min(default_steps(pipe), ENOUGH, int(config["num_train_timesteps"]))
        return cls(scheduler, steps)


_WALKS = {
    "EulerAncestralDiscreteScheduler": "EulerDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler": "KDPM2DiscreteScheduler",
    "DPMSolverSDEScheduler": "DPMSolverMultistepScheduler",
    "CosineDPMSolverMultistepScheduler": "DPMSolverMultistepScheduler",
}
"""Samplers that draw noise at every step, and the one that does the same without."""


def _deterministic_like(scheduler: Any) -> Any | None:
    """The deterministic scheduler of the family of one that draws noise; None if it needs none."""
    kind, config = type(scheduler), scheduler.config
    if kind.__name__ in _WALKS:
        return getattr(import_module("diffusers"), _WALKS[kind.__name__]).from_config(config)
    if str(config.get("algorithm_type")).startswith("sde-"):
        return kind.from_config(config, algorithm_type=config["algorithm_type"][len("sde-") :])
    if config.get("stochastic_sampling"):
        return kind.from_config(config, stochastic_sampling=False)
    return None


class _Enough(Exception):
    """Ends a call of the pipeline at its third network call."""


def draws_noise(pipe: Any, family: Family, call: Call) -> bool:
    """Whether a pipeline draws random numbers between the calls of its network.

    It is called until then, with its scheduler: that takes two passes of the network.
    """
    generator = torch.Generator().manual_seed(0)
    states: list[tuple[Tensor, Tensor]] = []

    def answer(forward: Callable[..., Any], named: Mapping[str, Any]) -> Tensor:
        states.append((generator.get_state(), torch.get_rng_state()))
        if len(states) == 3:  # a scheduler of second order may draw after two
            raise _Enough
        return forward(**{**named, "return_dict": False})[0]

    network = capture_call(getattr(pipe, family.network), answer)
    once = copy_of(pipe, **{family.network: network})
    with torch.random.fork_rng(), suppress(Exception):  # what cannot run is found out elsewhere
        once(**{**call, "generator": generator, "output_type": "pt"})
        states.append((generator.get_state(), torch.get_rng_state()))
    pipe.maybe_free_model_hooks()
    return any(
        not torch.equal(before, after)
        for one, other in pairwise(states)
        for before, after in zip(one, other, strict=True)
    )


def _without_variance(scheduler: Any) -> None:
    """Let it ignore a learned variance, which other pipelines hand to every scheduler."""
    own = scheduler.step

    @functools.wraps(own)
    def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **named: Any) -> Any:
        return own(model_output[:, : sample.shape[1]], timestep, sample, *args, **named)

    scheduler.step = step
