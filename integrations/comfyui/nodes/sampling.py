"""The SAMPLER of a plan: it asks what the engine of asymflow asks, and moves as that moves.

Guidance, masks, LoRAs, control nets and whatever else a graph puts on a MODEL are ComfyUI's: each
estimate is made by the guider of the graph, with the guidance scale of the plan's step.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.samplers
import torch
from torch import Tensor
from tqdm.auto import trange

from asymflow.core.calls import Answer, Question
from asymflow.core.compiler import compile_states
from asymflow.core.errors import InputError
from asymflow.core.stages import Stage
from asymflow.core.state import Program, State, advance, question
from asymflow.core.transforms import truncated
from asymflow.core.types import Plan

from .models import noise_scale
from .plans import check_whole

SAME = 1e-5
"""Difference of sigmas that is rounding."""
WHOLE = 2e-3
"""Below the first sigma of a plan, where a schedule begins that means to begin there."""
Options = Mapping[str, Any]


def sampler_of(plan: Plan) -> Any:
    """The SAMPLER that makes the steps of a plan."""
    return comfy.samplers.KSAMPLER(sample_plan, extra_options={"plan": plan})


def is_planned(sampler: Any) -> bool:
    """Whether a SAMPLER makes the steps of a plan."""
    return getattr(sampler, "sampler_function", None) is sample_plan


def sigmas_of(plan: Plan) -> Tensor:
    """The SIGMAS of a plan."""
    return torch.tensor(plan.times, dtype=torch.float32)


def begun_at(plan: Plan, sigma: float) -> Plan:
    """The part of a plan from a noise level on, such as that of a picture to change."""
    return plan if sigma >= plan.steps[0].t - WHOLE else truncated(plan, sigma)


@dataclass(frozen=True)
class Host:
    """What the engine needs of a model whose guidance and clipping are ComfyUI's: nothing."""

    name: str = "comfyui"


@dataclass(frozen=True)
class Network:
    """Makes the estimates of a batch, by the guider of the graph.

    Attributes:
        model: what ComfyUI hands to samplers; it keeps what a mask covers.
        options: arguments of its calls.
        scale: standard deviation of the noise; states of the engine are in its units.
    """

    model: Any
    options: Options
    scale: float

    @property
    def guider(self) -> Any:
        return self.model.inner_model

    def answer(self, asked: Question, stage: Stage) -> Answer:
        """The estimates for a question, at the guidance scale of its step."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        scale = stage.step.guidance_scale if stage.guided else 1.0
        if not (stage.guided and stage.carried_from):
            x_0 = self._estimate(asked, scale, self.options)
            # Already guided: both passes in one, whose guidance term is 0.
            return Answer(x_0, x_0 if stage.guided else None)
        seen: list[Tensor] = []

        def note(args: Options) -> Tensor:
            seen.append(args["denoised"] - args["cond_denoised"])
            return args["denoised"]

        model_options = self.options["model_options"]
        hooks = [*model_options.get("sampler_post_cfg_function", []), note]
        noting = {**model_options, "sampler_post_cfg_function": hooks}
        x_0 = self._estimate(asked, scale, {**self.options, "model_options": noting})
        term = seen[0] / self.scale
        if (mask := self.options.get("denoise_mask")) is not None:
            term = term * mask
        cond = x_0 - term
        return Answer(cond, cond - term / stage.guidance)

    def _estimate(self, asked: Question, scale: float | None, options: Options) -> Tensor:
        with _guided(self.guider, scale):
            x_0 = self.model(asked.x_t * self.scale, asked.t, **options)
        return x_0 / self.scale


@torch.no_grad()
def sample_plan(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Options | None = None,
    callback: Any = None,
    disable: bool | None = None,
    *,
    plan: Plan,
) -> Tensor:
    """Make the steps of a plan for states x [b, c, h, w] at sigmas[0], as a sampler of ComfyUI.

    Raises:
        InputError: the sigmas are not the plan's, or the graph has what a plan was not made for.
    """
    if len(sigmas) < 2:
        return x
    guider = model.inner_model
    plan = _fitting(plan, [float(sigma) for sigma in sigmas])
    scale = noise_scale(guider.inner_model.model_sampling, (x.shape[-2], x.shape[-1]))
    options = extra_args or {}
    _check(guider, plan, options)
    network = Network(model, options, scale)
    cfg = float(guider.cfg) if _plain(guider) else math.e  # any but 1: the guider has its own
    program, state = compile_states(Host(), plan, x / scale, cfg)  # type: ignore[arg-type]
    with trange(len(plan.steps), disable=disable) as bar:
        while not all(program.finished(state)):
            [stage, *_] = program.stages(state)
            state = advance(program, state, network.answer(question(program, state), stage))
            done = _steps_done(program, state, plan)
            if callback is not None and stage.ends_step:
                sigma = sigmas[done - 1]
                seen = {"x": state.x * scale, "denoised": state.x_0 * scale, "i": done - 1}
                callback({**seen, "sigma": sigma, "sigma_hat": sigma})
            bar.update(done - bar.n)
    return state.x * scale


def _steps_done(program: Program, state: State, plan: Plan) -> int:
    """How many steps of the plan are made; those that only reuse estimates have no stage."""
    if all(program.finished(state)):
        return len(plan.steps)
    return program.stages(state)[0].index


def _fitting(plan: Plan, sigmas: list[float]) -> Plan:
    """The part of the plan that the sigmas ask for.

    Raises:
        InputError: they ask for something else.
    """
    cut = begun_at(plan, sigmas[0])
    same = len(cut.times) == len(sigmas) and all(
        abs(t - sigma) <= SAME for t, sigma in zip(cut.times[1:], sigmas[1:], strict=True)
    )
    if not same:
        shown = ", ".join(f"{sigma:.3g}" for sigma in sigmas)
        raise InputError(
            f"These SIGMAS ({shown:.80}) are not those of plan {plan.name!r}, whose steps run from "
            f"{plan.steps[0].t:.3g} to 0. Connect the SIGMAS of Load plan; for a picture to change "
            "give its denoise there, or take the low part of Split Sigmas."
        )
    return cut


def _check(guider: Any, plan: Plan, options: Options) -> None:
    """Raise `InputError` where the graph has what a plan was not made for."""
    check_whole(guider.conds)
    carries = any(step.tier.cached for step in plan.steps)
    if carries and "denoise_mask_function" in options.get("model_options", {}):
        raise InputError(
            f"Plan {plan.name!r} carries guidance from step to step, and differential diffusion "
            "changes the mask between them. Remove Differential Diffusion, or choose another plan."
        )
    if not _plain(guider) and any(
        not step.tier.guided or step.guidance_scale is not None for step in plan.steps
    ):
        raise InputError(
            f"Plan {plan.name!r} has steps without guidance, or with their own, and "
            f"{type(guider).__name__} decides by itself. Use the GUIDER of Load plan, CFGGuider "
            "or BasicGuider."
        )


def _plain(guider: Any) -> bool:
    """Whether a guider guides by its number `cfg`, as ComfyUI's own one."""
    return type(guider).predict_noise is comfy.samplers.CFGGuider.predict_noise


@contextmanager
def _guided(guider: Any, scale: float | None) -> Generator[None]:
    """While estimates are made at another guidance scale; None for the guider's own."""
    if scale is None or not _plain(guider):
        yield
        return
    before = guider.cfg
    guider.cfg = scale
    try:
        yield
    finally:
        guider.cfg = before
