"""A plan for pipelines of diffusers: timesteps or sigmas, a scheduler, and a guider.

A pipeline passes `timesteps` or `sigmas` of its call to its scheduler. Two schedulers run Euler's
method over given noise levels: `FlowMatchEulerDiscreteScheduler` on flows (with shift 1, or it
would move them), and `EulerDiscreteScheduler` on variance-preserving models. Every other formula
needs `asymflow.AsymFlowScheduler`. No pixel pipeline turns guidance off; the guiders of modular
pipelines do, by parts of the steps.
"""

from __future__ import annotations

from typing import Any

from asymflow.core.errors import InputError
from asymflow.core.types import Plan
from asymflow.planning.exports.parts import (
    Export,
    Line,
    Path,
    euler_differs,
    lines,
    numbers,
)
from asymflow.planning.plan_json import plan_to_json

VERSION = "diffusers 0.42.1"
TIMESTEPS = 1000
"""The timestep of a flow at u = 1."""


def export(plan: Plan) -> Export:
    """A plan for a pipeline.

    Raises:
        InputError: diffusers has no pipeline for such models.
    """
    path = Path.of(plan)
    if path.kind == "ve":
        raise InputError(
            f"The plan {plan.name!r} is for the noise levels of EDM, and diffusers has no pixel "
            "pipeline of such a model. Export it to json."
        )
    times, body = _flow(path) if path.kind == "flow" else _discrete(path)
    full = all(step.tier.full for step in path.steps)
    body["asymflow_scheduler"] = {"noise": path.noise, "plan": plan_to_json(plan)} if full else None
    body["guider"] = _guider(path)
    differing = euler_differs(path)
    if not differing:
        solver = Line("solver", "yes", f"{body['scheduler']['_class_name']} is Euler's method")
    else:
        own = "AsymFlowScheduler has it" if full else "asymflow.accelerate has it"
        solver = Line("solver", "no", f"Euler's method after calls {numbers(differing)}; {own}")
    guidance = Line(
        "guidance on and off",
        "in part" if body["guider"] else "no",
        "a guider for modular pipelines; the others guide every step"
        if body["guider"]
        else "pipelines guide every step, and a guider knows one range only",
    )
    scales = Line("guidance scale of steps", "no", "a pipeline has one guidance_scale")
    if path.own_scale is not None:
        body["call"]["guidance_scale"] = path.own_scale
        if all(run.scale in (1, path.own_scale) for run in path.runs):
            scales = Line("guidance scale of steps", "yes", "guidance_scale of the call")
    data = path.describe("diffusers", VERSION) | body
    return Export(data, lines(path, times, solver, guidance, scales, guided=True))


def _flow(path: Path) -> tuple[Line, dict[str, Any]]:
    sigmas = path.flow_sigmas[:-1]
    scheduler = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": TIMESTEPS,
        "shift": 1.0,
        "use_dynamic_shifting": False,
    }
    call = {"num_inference_steps": len(sigmas)}
    times = Line("times", "yes", "timesteps or sigmas of the call, with this scheduler")
    return times, {
        "scheduler": scheduler,
        "call": call,
        "timesteps": [TIMESTEPS * each for each in sigmas],
        "sigmas": list(sigmas),
    }


def _discrete(path: Path) -> tuple[Line, dict[str, Any]]:
    scheduler = {"_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "zero"}
    sigmas = None if path.times[0] == 1 else [t / (1 - t) for t in path.times]
    times = Line("times", "yes", "sigmas for set_timesteps, the last one 0")
    if sigmas is None:
        times = Line("times", "no", "the plan begins at t = 1, beyond the noise of any schedule")
    return times, {
        "scheduler": scheduler,
        "call": {"num_inference_steps": len(path.steps)},
        "timesteps": None,
        "sigmas": sigmas,
    }


def _guider(path: Path) -> dict[str, Any] | None:
    """The guider that has guidance in the calls of the plan; None if none has."""
    if not path.plan.guided or path.window is None:
        return None
    first, last = path.window
    count = len(path.steps)
    # It rounds start * count down: aim at the middle, so that no rounding misses.
    return {
        "_class_name": "ClassifierFreeGuidance",
        "guidance_scale": path.own_scale,
        "start": 0.0 if first == 0 else (first + 0.5) / count,
        "stop": 1.0 if last == count - 1 else (last + 1.5) / count,
    }
