"""One call of a pipeline with another schedule than its own.

The call is made on a copy of the pipeline, which has the plan as its scheduler and shares all else
(`copy_of`). Where the plan has cheaper tiers, the copy's network computes those instead of what
the pipeline requests. All else is the pipeline's own code: its arguments, callbacks, progress bar,
hooks and pictures.

A pipeline that begins with a picture leaves out the first part of its steps. Counted in the steps
of a plan that would be another noise; here it is the noise at which its own schedule would begin,
and the plan is cut there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.core.estimators import Guided, Memory, estimate
from asymflow.core.transforms import truncated
from asymflow.core.types import Plan
from asymflow.integrations.diffusers.scheduler import DrivenScheduler
from asymflow.models.diffusers.pipelines import (
    STRENGTH,
    CapturedCall,
    Family,
    PipelineAdapter,
    capture_call,
    channels_out,
    copy_of,
    guidance,
)


def run(
    pipe: Any, kind: type[Any], family: Family, plan: Plan, arguments: Mapping[str, Any]
) -> Any:
    """What the pipeline returns for these arguments, made by the plan.

    Args:
        kind: the class whose `__call__` is the pipeline's own.

    Raises:
        InputError: the arguments ask for a schedule of their own, or for no step at all.
    """
    for name in ("timesteps", "sigmas"):
        if arguments.get(name) is not None:
            raise InputError(
                f"{name} were passed, and this pipeline makes the steps of plan {plan.name!r}. "
                "Leave them out, or call the pipeline that it was made from."
            )
    changed: dict[str, Any] = {}
    if arguments.get(STRENGTH) is not None:
        steps = int(arguments["num_inference_steps"])
        plan = truncated(plan, _beginning(pipe, family, steps, arguments[STRENGTH]))
        changed[STRENGTH] = 1.0
    scheduler = DrivenScheduler.of(plan, pipe.scheduler, noise=family.noise_of(pipe))
    changed["num_inference_steps"] = len(scheduler.timesteps)
    parts = {
        "scheduler": scheduler,
        family.network: _network(pipe, family, scheduler, guidance(arguments)),
    }
    before = dict(vars(pipe))
    made = copy_of(pipe, **parts)
    images = kind.__call__(made, **{**arguments, **changed})
    # What pipelines record of their last call, such as `guidance_scale`.
    vars(pipe).update(
        (name, value)
        for name, value in vars(made).items()
        if name not in (*parts, "maybe_free_model_hooks") and before.get(name) is not value
    )
    return images


def _beginning(pipe: Any, family: Family, steps: int, strength: float) -> float:
    """The time at which the pipeline's own schedule of so many steps begins with a picture."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    timesteps, _ = copy_of(pipe, scheduler=scheduler).get_timesteps(steps, strength)
    if not 0 < strength <= 1 or not len(timesteps):
        raise InputError(
            f"strength={strength} leaves no step of {steps} to make, or more than all. Choose a "
            f"number above {1 / steps:g}, where the picture hardly changes, and up to 1."
        )
    return float(family.convention(pipe).time(torch.as_tensor(timesteps[:1])))


def _network(pipe: Any, family: Family, scheduler: DrivenScheduler, weight: float) -> Any:
    """The network, computing the tiers of the plan. Where all are full the pipeline does it."""
    plan, guided = scheduler.plan, weight != 1
    network = getattr(pipe, family.network)
    plain = all(
        step.tier.pool_factor == 1
        and (not guided or (step.tier.full and not step.tier.sequential_cfg))
        for step in plan.steps
    )
    if plain:
        return capture_call(network, family.on_time) if family.timed else network
    memory: Memory | None = None

    def answer(forward: Callable[..., Any], named: Mapping[str, Any]) -> Tensor:
        nonlocal memory
        tau = torch.as_tensor(named[family.time]).flatten()[0]
        tier, t = scheduler.due(tau * len(scheduler) if family.normalised else tau)
        captured = CapturedCall.of(family, named, guided)
        x_t = scheduler.state(captured.z)
        rows = x_t.new_full((len(x_t),), 1.0)
        # What the scheduler cuts is the combination of both passes, not each of them.
        adapter = PipelineAdapter(
            pipe, family, plan.name, scheduler.convention, forward, captured.others
        )
        model = Guided.of(adapter, captured.cond, captured.null, rows * weight)
        x_0, memory = estimate(model, tier, x_t, rows * t, memory)
        scheduler.use(x_0)
        # The pipeline combines equal rows to the same, and the scheduler knows better anyway.
        output = captured.z.new_zeros(len(x_0), channels_out(network), *x_0.shape[2:])
        output[:, : x_0.shape[1]] = x_0
        return torch.cat([output, output]) if guided else output

    return capture_call(network, answer)
