"""Baseline samplers and caches, each from a request to x_0."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench.baselines.protocol import Budget
from asymflow.bench.baselines.report import BASELINE
from asymflow.bench.caching import BlockCache, Caching, Counted, FirstBlockCache, TaylorCache
from asymflow.core import engine, presets, schedules
from asymflow.core.adapter import Adapter, begun, clipped_estimate
from asymflow.core.errors import InputError, MissingExtra
from asymflow.core.estimators import Guided
from asymflow.core.types import CONDITIONAL, FULL, Plan, Profile, Request, Solver, Step
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.planning import plan_files, verifier

SHIFTS = (1.0, 2.0, 3.0, 5.0, 8.0)
"""Candidate values of `flow_shift` for every scheduler of diffusers."""
Walk = Callable[[Adapter, Request], Tensor]
"""Runs one request to x_0 [1, c, h, w]."""
Wrap = Callable[[Adapter], Counted]
"""Wraps the model for a sampler, once per picture."""
Interval = tuple[float, float]
"""(low, high) in t in which guidance is applied."""
EVERYWHERE: Interval = (0.0, 1.0)
TAYLOR_WARM_UP = 5
"""Network calls. On the embedded model TaylorSeer is inaccurate with diffusers' default of 3."""
_MAX_SKIPS = 4
_ALMOST_ONE = 1 - 1e-6
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """One configuration.

    Attributes:
        name: unique in a table.
        family: shared by the configurations of one method.
        settings: everything that defines the pictures; its hash is their cache key.
        walk: from a request to x_0, with an adapter returned by `wrap`.
    """

    name: str
    family: str
    settings: Mapping[str, Any]
    walk: Walk
    wrap: Wrap = Counted


def planned(
    plan: Plan,
    name: str,
    family: str,
    wrap: Wrap = Counted,
    **settings: Any,
) -> Sampler:
    """A plan run by the engine."""

    def walk(adapter: Adapter, request: Request) -> Tensor:
        return verifier.rollout(adapter, plan, [request])

    settings = {"plan": plan_files.plan_hash(plan), "steps": len(plan.steps), **settings}
    return Sampler(name, family, settings, walk, wrap)


def baselines() -> tuple[Sampler, ...]:
    """Heun and Euler over 50 uniform steps, guided everywhere."""
    grid = schedules.uniform(50)
    return (
        planned(schedules.plan_of(grid, solver="heun"), BASELINE, "baseline"),
        planned(schedules.plan_of(grid, solver="euler"), "Euler 50", "baseline"),
    )


def thinned(plan: Plan, steps: int) -> Plan:
    """A plan of so many steps over nodes of another plan, which are spread evenly by number."""
    whole = len(plan.steps)
    nodes = [round(whole * i / steps) for i in range(steps + 1)]
    made: list[Step] = []
    for begin, end in pairwise(nodes):
        merged = plan.steps[begin:end]
        kind = next((step for step in merged if step.tier.guided), merged[0])
        made.append(kind.moved(merged[0].t, merged[-1].s))
    return Plan(plan.name, tuple(made))


def guided_in(plan: Plan, interval: Interval) -> Plan:
    """A plan of one tier that is guided where an evaluation of a step is in the interval."""
    low, high = interval

    def guided(step: Step) -> bool:
        ends = (step.t, step.s) if step.evaluations > 1 else (step.t,)
        return any(low <= t <= high for t in ends)

    steps = (replace(step, tier=FULL if guided(step) else CONDITIONAL) for step in plan.steps)
    return Plan(plan.name, tuple(steps))


def own(plan: Plan, evaluations: int | None = None) -> Sampler:
    """The model's own sampler, perhaps over some of its nodes only."""
    if evaluations is not None:
        plan = thinned(plan, _steps_of(plan.steps[0].solver, evaluations))
    return planned(plan, f"own sampler, {len(plan.steps)} steps", "own sampler")


def on_grid(
    solver: Solver, evaluations: int, grid: Callable[[int], Sequence[float]], interval: Interval
) -> Sampler:
    """One of our solvers over a grid of n steps, for at most so many evaluations."""
    steps = _steps_of(solver, evaluations)
    plan = guided_in(schedules.plan_of(grid(steps), solver=solver), interval)
    name = {"euler": "Euler (DDIM)", "heun": "Heun"}.get(solver, solver)
    return planned(plan, f"{name}, {steps} steps", name, grid=list(plan.times))


def _steps_of(solver: Solver, evaluations: int) -> int:
    """The most steps for so many evaluations; Heun's method takes two, except into t = 0."""
    return (evaluations + 1) // 2 if solver == "heun" else evaluations


def unipc(
    order: int,
    steps: int,
    shift: float = 1.0,
    guided: Interval = EVERYWHERE,
    grid: Sequence[float] | None = None,
) -> Sampler:
    """diffusers' UniPC, over its own grid with a shift or another one."""
    return _scheduled(
        "UniPCMultistepScheduler",
        {"solver_order": order},
        f"UniPC-{order}",
        "UniPC",
        steps,
        shift,
        guided,
        grid,
    )


def dpm(
    order: int,
    steps: int,
    shift: float = 1.0,
    guided: Interval = EVERYWHERE,
    grid: Sequence[float] | None = None,
) -> Sampler:
    """diffusers' DPM-Solver++, multistep, over its own grid with a shift or another one."""
    return _scheduled(
        "DPMSolverMultistepScheduler",
        {"solver_order": order, "algorithm_type": "dpmsolver++"},
        f"DPM-Solver++ {order}M",
        "DPM-Solver++",
        steps,
        shift,
        guided,
        grid,
    )


def _scheduled(
    kind: str,
    options: Mapping[str, Any],
    name: str,
    family: str,
    steps: int,
    shift: float,
    guided: Interval,
    grid: Sequence[float] | None,
) -> Sampler:
    diffusers = library()
    scheduler = getattr(diffusers, kind)(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, **options
    )
    walk = partial(follow, scheduler=scheduler, steps=steps, guided=guided, grid=grid)
    name += f", {steps} steps"
    settings = {
        "scheduler": kind,
        **options,
        "steps": steps,
        **({"flow_shift": shift} if grid is None else {"grid": list(grid)}),
        "guided": list(guided),
        "diffusers": diffusers.__version__,
    }
    return Sampler(name, family, settings, walk)


def follow(
    adapter: Adapter,
    request: Request,
    *,
    scheduler: Any,
    steps: int,
    guided: Interval = EVERYWHERE,
    grid: Sequence[float] | None = None,
) -> Tensor:
    """x_0 by a diffusers scheduler for flow models, perhaps over a grid that it does not know.

    diffusers starts at noise level 1 - 1e-6 (UniPC) or 0.999 shifted (DPM-Solver++); like its
    pipelines, we pass pure noise.
    """
    model, x_t = _begin(adapter, request, 1.0 if grid is None else grid[0])
    _set_steps(scheduler, steps)
    if grid is not None:
        # At exactly 1 the log-SNR, which it steps in, is infinite.
        scheduler.sigmas = torch.tensor([min(t, _ALMOST_ONE) for t in grid])
        scheduler.timesteps = 1000 * scheduler.sigmas[:-1]
    # Otherwise it would search for the step in `timesteps`, which need not be unique.
    scheduler.set_begin_index(0)
    for t, timestep in zip(scheduler.sigmas[:-1].tolist(), scheduler.timesteps, strict=True):
        u = _velocity(model, x_t, t, guided)
        x_t = scheduler.step(u, timestep, x_t, return_dict=False)[0]
    return x_t


def _set_steps(scheduler: Any, steps: int) -> None:
    with warnings.catch_warnings():
        # DPM-Solver++ converts a tensor to numpy in a way that numpy 2 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps)


def gits(profile: Profile, steps: int, guided: Interval = EVERYWHERE) -> Sampler:
    """iPNDM on the grid of GITS."""
    grid = gits_times(profile, steps)
    settings = {
        "grid": list(grid),
        "steps": steps,
        "order": len(ADAMS_BASHFORTH),
        "guided": list(guided),
    }
    walk = partial(ipndm, grid=grid, guided=guided)
    return Sampler(f"GITS + iPNDM, {steps} steps", "GITS + iPNDM", settings, walk)


def gits_times(profile: Profile, steps: int) -> tuple[float, ...]:
    """The grid [steps + 1] of candidate times with the least sum of Euler's local errors.

    Raises:
        InputError: the profile has fewer moves than `steps`.
    """
    count = len(profile.times)
    if not 1 <= steps < count:
        raise InputError(
            f"A profile of {count} times has no grid of {steps} steps. Choose 1 to {count - 1}, or "
            "profile more times."
        )
    i = np.arange(count)
    # [from, to], inf where there is no move: guided, or unguided outside the guidance interval.
    error = profile.local_error[0, i, i].astype(np.float64)
    if CONDITIONAL in profile.tiers:
        outside = np.isinf(error).all(1)
        error[outside] = profile.local_error[profile.tiers.index(CONDITIONAL), i, i][outside]
    best = np.where(i == 0, 0.0, np.inf)
    origins: list[NDArray[np.int64]] = []
    for _ in range(steps):
        total = best[:, None] + error
        origins.append(total.argmin(0))
        best = total.min(0)
    nodes = [count - 1]
    for origin in reversed(origins):
        nodes.append(int(origin[nodes[-1]]))
    return tuple(profile.times[node] for node in reversed(nodes))


def ipndm(
    adapter: Adapter, request: Request, *, grid: Sequence[float], guided: Interval = EVERYWHERE
) -> Tensor:
    """x_0 by Adams-Bashforth in the velocity, with the coefficients of constant steps."""
    model, x_t = _begin(adapter, request, grid[0])
    velocities: tuple[Tensor, ...] = ()
    for t, s in pairwise(grid):
        order = len(ADAMS_BASHFORTH)
        newest = _velocity(model, x_t, t, guided)
        velocities = (newest, *velocities[: order - 1])
        for weight, u in zip(ADAMS_BASHFORTH[len(velocities) - 1], velocities, strict=True):
            x_t = x_t + (s - t) * weight * u
    return x_t


def caches(adapter: EmbeddedAdapter, size: tuple[int, int], budget: Budget) -> tuple[Sampler, ...]:
    """Block caches of the embedded model on the default grid for pictures of (height, width)."""
    steps = budget.cache_steps
    plan = presets.Grid(steps=steps).plan(size)

    def cached(make: Callable[[], BlockCache]) -> Wrap:
        return lambda _: Caching(adapter, make())

    solver = plan.steps[0].solver
    uncached = planned(plan, f"{solver}, {steps} steps", "default grid")
    first = (
        planned(
            plan,
            f"first-block cache {threshold:g}, {steps} steps",
            "first-block cache",
            cached(partial(FirstBlockCache, threshold)),
            first_block=threshold,
        )
        for threshold in budget.first_block
    )
    taylor = (
        planned(
            plan,
            f"TaylorSeer 1 of {interval}, {steps} steps",
            "TaylorSeer",
            cached(partial(TaylorCache, interval, TAYLOR_WARM_UP)),
            taylor=interval,
            warm_up=TAYLOR_WARM_UP,
        )
        for interval in budget.taylor
    )
    return (uncached, *first, *taylor)


def adaptive(threshold: float, guided: Interval = EVERYWHERE) -> Sampler:
    """Euler over 50 uniform steps that skips network calls where the trajectory is smooth."""
    settings = {
        "grid": "uniform",
        "steps": 50,
        "threshold": threshold,
        "most": _MAX_SKIPS,
        "guided": list(guided),
    }
    walk = partial(skip, grid=schedules.uniform(50), threshold=threshold, guided=guided)
    return Sampler(f"AdaptiveDiffusion {threshold:g}", "AdaptiveDiffusion", settings, walk)


def skip(
    adapter: Adapter,
    request: Request,
    *,
    grid: Sequence[float],
    threshold: float,
    max_skips: int = _MAX_SKIPS,
    guided: Interval = EVERYWHERE,
) -> Tensor:
    """x_0 by Euler's method that reuses a velocity where the trajectory is smooth.

    With d_0, d_1, d_2 the three newest differences of states, newest first, it is reused where
    |(d_0 + d_2) / 2 - d_1| < threshold |d_1| in the mean of absolute values.

    Args:
        grid: times of equal steps, as the criterion assumes.
        max_skips: maximum number of consecutive skips.
    """
    model, x_t = _begin(adapter, request, grid[0])
    u, skipped = None, 0
    moves: tuple[Tensor, ...] = ()
    for t, s in pairwise(grid):
        if u is not None and skipped < max_skips and _is_smooth(moves, threshold):
            skipped += 1
        else:
            u, skipped = _velocity(model, x_t, t, guided), 0
        moves = ((s - t) * u, *moves[:2])
        x_t = x_t + moves[0]
    return x_t


def _is_smooth(moves: Sequence[Tensor], threshold: float) -> bool:
    if len(moves) < 3:
        return False
    newest, middle, oldest = moves
    bend = ((newest + oldest) / 2 - middle).abs().mean()
    return float(bend) < threshold * float(middle.abs().mean())


def _begin(adapter: Adapter, request: Request, t: float) -> tuple[Guided, Tensor]:
    """The guided model of a request, and its initial state [1, c, h, w] at time t."""
    engine.check(adapter, request)
    eps = engine.noise(request.seed, (adapter.channels, *request.size))[None].to(adapter.template)
    scale = torch.tensor([request.guidance_scale]).to(adapter.template)
    return Guided.of(adapter, *adapter.encode([request]), scale), begun(adapter, eps, t)


def _velocity(model: Guided, x_t: Tensor, t: float, interval: Interval) -> Tensor:
    low, high = interval
    x_0, _ = model.denoise(x_t, x_t.new_full((1,), t), guided=low <= t <= high)
    return (x_t - clipped_estimate(model.adapter, x_0)) / t


def library() -> Any:
    """Import diffusers.

    Raises:
        MissingExtra: diffusers is not installed.
    """
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtra("diffusers", "diffusers") from error
