"""What a pipeline does by itself, as a plan, and the plan for it that needs no measuring.

The second claims nothing: what it keeps is not known before it is measured on the weights at hand.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of
from asymflow.core.types import Plan
from asymflow.models.diffusers.conventions import Convention
from asymflow.models.diffusers.pipelines import Family
from asymflow.planning.grids import LEAST

ORIGINAL, DEFAULT = "original", "default"
ENOUGH = 50
"""Steps of a sampler that a plan is compared with, at most: more are hardly seen."""
SHARE = 0.4
"""Of the pipeline's own number of steps. A solver of second order is as near to the limit in fewer
steps than one of first order."""
FEW, EVERY = 8, 3
"""The least number of steps of which some halve the last one, and one of how many does at most.

More of them leave too few for the noise at which the picture takes shape."""
LATE = 0.1
"""Time below which the plan does without guidance, which hardly changes the picture there."""


def original(pipe: Any, family: Family, steps: int) -> Plan:
    """The pipeline's own schedule for a number of steps: Euler's method over its timesteps.

    Raises:
        InputError: its scheduler does something else, that no plan does.
    """
    kind, config = type(pipe.scheduler).__name__, pipe.scheduler.config
    reason = {
        "DDIMScheduler": None
        if config.get("set_alpha_to_one")
        else "stops before all noise is gone (set_alpha_to_one=False)",
        "FlowMatchEulerDiscreteScheduler": "draws noise at every step (stochastic_sampling)"
        if config.get("stochastic_sampling")
        else "chooses its shift at every call (use_dynamic_shifting)"
        if config.get("use_dynamic_shifting")
        else None,
        "DDPMScheduler": "draws noise at every step",
    }.get(kind, "is not Euler's method over a grid")
    if reason is not None:
        raise InputError(
            f"{kind} {reason}, so its pictures are not those of a plan. Call the pipeline as it "
            f"is, or give it {_deterministic(pipe)} or plan='auto'."
        )
    scheduler = type(pipe.scheduler).from_config(config)
    scheduler.set_timesteps(steps)
    if kind == "DDIMScheduler":
        tau = scheduler.timesteps
        if int(tau[0]) >= config["num_train_timesteps"]:
            raise InputError(
                f"{kind} begins {steps} steps at timestep {int(tau[0])}, and its model was trained "
                f"at 0 to {config['num_train_timesteps'] - 1}: steps_offset="
                f"{config.get('steps_offset')} leads beyond them. Ask for fewer steps, or set "
                "steps_offset=0."
            )
        moved = config["num_train_timesteps"] // steps
        if any(tau[:-1] - tau[1:] != moved):
            raise InputError(
                f"{kind} moves by {moved} timesteps at every one of {steps} steps, and asks its "
                f"network elsewhere: at {', '.join(str(int(each)) for each in tau)}. No plan does "
                "that. Choose a number of steps that divides "
                f"{config['num_train_timesteps']}, or timestep_spacing='leading'."
            )
    else:
        tau = scheduler.sigmas[:-1].double() * config["num_train_timesteps"]
    times = family.convention(pipe).time(torch.as_tensor(tau)).tolist()
    return plan_of((*times, 0.0), solver="euler", name=ORIGINAL)


def _deterministic(pipe: Any) -> str:
    """The scheduler of the same family that a plan can be."""
    if type(pipe.scheduler).__name__.startswith("FlowMatch"):
        return "FlowMatchEulerDiscreteScheduler with a fixed shift and no noise"
    found = "DDIMScheduler.from_config(pipe.scheduler.config)"
    if str(pipe.scheduler.config.get("variance_type")).startswith("learned"):
        return f"{found} with register_to_config(variance_type='fixed_small')"
    return found


def default_steps(pipe: Any) -> int:
    """Steps that the pipeline makes by default, or `ENOUGH` if it has to be."""
    default = inspect.signature(pipe.__call__).parameters["num_inference_steps"].default
    return default if isinstance(default, int) else ENOUGH


def default(pipe: Any, family: Family) -> Plan:
    """Our best solver on the pipeline's own grid, in at least two steps."""
    guided = "guidance_scale" in inspect.signature(pipe.__call__).parameters
    return default_of(family.convention(pipe), default_steps(pipe), guided=guided)


def default_of(convention: Convention, steps: int, *, guided: bool) -> Plan:
    """The same, for a network that is used with so many steps."""
    wanted = max(2, round(SHARE * min(steps, ENOUGH)))
    most = wanted // EVERY if wanted >= FEW else 0
    grids = (refined(convention, count, most) for count in range(wanted, 0, -1))
    grid = next(grid for grid in grids if len(grid) - 1 <= wanted)
    interval = (LATE if guided else 0.0, 1.0)
    return plan_of(grid, solver="corrected2", guidance_interval=interval, name=DEFAULT)


def refined(convention: Convention, count: int, halvings: int | None = None) -> tuple[float, ...]:
    """The grid of so many moves, its last one halved down to the least noise that was trained.

    Of fewer moves, where the model was trained at fewer levels of noise. Equal steps of timesteps
    end with a leap over the noise that the finest detail hides behind.

    Args:
        convention: of the model.
        count: of moves before the last one is halved.
        halvings: at most so many; None for as many as it takes.
    """
    most = convention.most
    *nodes, last = convention.times(count if most is None else min(count, most))
    least = max(float(convention.time(torch.zeros(1))), LEAST)
    while nodes[-1] > 2 * least and halvings != 0:
        nodes.append(nodes[-1] / 2)
        halvings = None if halvings is None else halvings - 1
    return (*nodes, last)
