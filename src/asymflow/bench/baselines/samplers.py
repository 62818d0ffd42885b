"""Baseline samplers and caches, each from requests to x_0."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench.baselines.protocol import Budget
from asymflow.bench.baselines.report import BASELINE
from asymflow.bench.baselines.times import cheapest, thinned
from asymflow.bench.caching import BlockCache, Caching, Counted, FirstBlockCache, TaylorCache
from asymflow.core import engine, presets, schedules
from asymflow.core.adapter import Adapter, begun, clipped_estimate
from asymflow.core.errors import MissingExtra
from asymflow.core.estimators import Guided
from asymflow.core.types import CONDITIONAL, FULL, Plan, Profile, Request, Solver, Step
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.planning import plan_files, verifier

SHIFTS = (1.0, 2.0, 3.0, 5.0, 8.0)
"""Candidate values of `flow_shift` for every scheduler of diffusers."""
Walk = Callable[[Adapter, Sequence[Request]], Tensor]
"""Runs requests of one size to x_0 [b, c, h, w]."""
Wrap = Callable[[Adapter], Counted]
"""Wraps the model for a sampler, once per picture."""
Interval = tuple[float, float]
"""(low, high) in t in which guidance is applied."""
EVERYWHERE: Interval = (0.0, 1.0)
TAYLOR_WARM_UP = 5
"""Network calls. On the embedded model TaylorSeer is inaccurate with diffusers' default of 3."""
_MAX_SKIPS = 4
_ALMOST_ONE, _ALMOST_ZERO = 1 - 1e-6, 1e-4
Slope = Literal["velocity", "noise"]
Variable = Literal["t", "rho", "log rho"]
_FAR, _NODES = 40.0, 64
"""Length in log rho after which nothing is left of rho, and nodes of a Gauss quadrature over it."""
_OTHER_NOISE = 2**40
"""Added to a seed, so that a sampler's own noise is another than that it begins with."""
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
        walk: from requests to x_0, with an adapter returned by `wrap`.
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

    def walk(adapter: Adapter, requests: Sequence[Request]) -> Tensor:
        return verifier.rollout(adapter, plan, requests)

    settings = {"plan": plan_files.plan_hash(plan), "steps": len(plan.steps), **settings}
    return Sampler(name, family, settings, walk, wrap)


def baselines() -> tuple[Sampler, ...]:
    """Heun and Euler over 50 uniform steps, guided everywhere."""
    grid = schedules.uniform(50)
    return (
        planned(schedules.plan_of(grid, solver="heun"), BASELINE, "baseline"),
        planned(schedules.plan_of(grid, solver="euler"), "Euler 50", "baseline"),
    )


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


def over(solver: Solver, grid: Sequence[float], guided: Interval = EVERYWHERE) -> Sampler:
    """One of our solvers over a grid."""
    plan = guided_in(schedules.plan_of(grid, solver=solver), guided)
    name = {"euler": "Euler (DDIM)", "heun": "Heun"}.get(solver, solver)
    return planned(plan, f"{name}, {len(plan.steps)} steps", name, grid=list(plan.times))


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


def singlestep(order: int, grid: Sequence[float], guided: Interval = EVERYWHERE) -> Sampler:
    """diffusers' DPM-Solver++, singlestep: every estimate counts as a step, and is at a node."""
    return _scheduled(
        "DPMSolverSinglestepScheduler",
        {"solver_order": order, "algorithm_type": "dpmsolver++", "lower_order_final": True},
        f"DPM-Solver++ {order}S",
        "DPM-Solver++",
        len(grid) - 1,
        1.0,
        guided,
        grid,
    )


def dpm_sde(grid: Sequence[float], guided: Interval = EVERYWHERE) -> Sampler:
    """diffusers' DPM-Solver++ 2M SDE. It leads elsewhere than the limit: judge distributions."""
    return _scheduled(
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
        "DPM-Solver++ 2M SDE",
        "DPM-Solver++ SDE",
        len(grid) - 1,
        1.0,
        guided,
        grid,
        noisy=True,
    )


def sa(grid: Sequence[float], guided: Interval = EVERYWHERE) -> Sampler:
    """diffusers' SA-Solver, which adds noise in the middle: judge distributions."""
    # At exactly 0 the log-SNR that it steps in is infinite.
    return _scheduled(
        "SASolverScheduler",
        {"predictor_order": 2, "corrector_order": 2},
        "SA-Solver",
        "SA-Solver",
        len(grid) - 1,
        1.0,
        guided,
        grid,
        noisy=True,
        last=_ALMOST_ZERO,
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
    **following: Any,
) -> Sampler:
    diffusers = library()
    scheduler = getattr(diffusers, kind)(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, **options
    )
    walk = partial(follow, scheduler=scheduler, steps=steps, guided=guided, grid=grid, **following)
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
    requests: Sequence[Request],
    *,
    scheduler: Any,
    steps: int,
    guided: Interval = EVERYWHERE,
    grid: Sequence[float] | None = None,
    noisy: bool = False,
    last: float = 0.0,
) -> Tensor:
    """x_0 by a diffusers scheduler for flow models, perhaps over a grid that it does not know.

    diffusers starts at noise level 1 - 1e-6 (UniPC) or 0.999 shifted (DPM-Solver++); like its
    pipelines, we pass pure noise.

    Args:
        adapter: the model.
        requests: the pictures, of one size.
        scheduler: of diffusers.
        steps: of its own grid.
        guided: where guidance is applied.
        grid: times, falling to 0, in place of its own.
        noisy: whether it adds noise, which is drawn from the seed of each picture.
        last: where it ends, if it cannot end at 0.
    """
    model, x_t = _begin(adapter, requests, 1.0 if grid is None else grid[0])
    _set_steps(scheduler, steps)
    if grid is not None:
        # At exactly 1 the log-SNR, which it steps in, is infinite.
        scheduler.sigmas = torch.tensor([max(min(t, _ALMOST_ONE), last) for t in grid])
        scheduler.timesteps = 1000 * scheduler.sigmas[:-1]
    # Otherwise it would search for the step in `timesteps`, which need not be unique.
    scheduler.set_begin_index(0)
    sources = [torch.Generator().manual_seed(each.seed + _OTHER_NOISE) for each in requests]
    noise = {"generator": sources} if noisy else {}
    for t, timestep in zip(scheduler.sigmas[:-1].tolist(), scheduler.timesteps, strict=True):
        u = _velocity(model, x_t, t, guided)
        x_t = scheduler.step(u, timestep, x_t, return_dict=False, **noise)[0]
    return x_t


def _set_steps(scheduler: Any, steps: int) -> None:
    with warnings.catch_warnings():
        # DPM-Solver++ converts a tensor to numpy in a way that numpy 2 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps)


def gits(profile: Profile, steps: int, guided: Interval = EVERYWHERE) -> Sampler:
    """iPNDM on the grid of GITS."""
    grid = gits_times(profile, steps)
    return ipndm(len(ADAMS_BASHFORTH), grid, guided, family="GITS + iPNDM")


def gits_times(profile: Profile, steps: int) -> tuple[float, ...]:
    """The grid [steps + 1] of candidate times with the least sum of Euler's local errors.

    Raises:
        InputError: the profile has fewer moves than `steps`.
    """
    i = np.arange(len(profile.times))
    # [from, to], inf where there is no move: guided, or unguided outside the guidance interval.
    error = profile.local_error[0, i, i].astype(np.float64)
    if CONDITIONAL in profile.tiers:
        outside = np.isinf(error).all(1)
        error[outside] = profile.local_error[profile.tiers.index(CONDITIONAL), i, i][outside]
    return tuple(profile.times[node] for node in cheapest(error, steps))


def ipndm(
    order: int,
    grid: Sequence[float],
    guided: Interval = EVERYWHERE,
    of: Slope = "velocity",
    family: str = "iPNDM",
) -> Sampler:
    """Adams-Bashforth with the coefficients of equal steps, in the velocity or the noise."""
    name = family if of == "velocity" else f"{family} in the noise"
    return _adams(name, family, grid, guided, order, of, None)


def deis(
    order: int, grid: Sequence[float], guided: Interval = EVERYWHERE, variable: Variable = "t"
) -> Sampler:
    """tAB-DEIS (arXiv 2204.13902): a polynomial through estimates of the noise, integrated exactly.

    Args:
        order: estimates that are used.
        grid: times, falling to 0.
        guided: where guidance is applied.
        variable: that the polynomial is in: t, as published; rho = t / (1 - t) (rhoAB); or its
            logarithm, as in diffusers, whose scheduler cannot end at t = 0.
    """
    suffix = {"t": "", "rho": " in rho", "log rho": " in log rho"}[variable]
    return _adams(f"DEIS-{order}{suffix}", "DEIS", grid, guided, order, "noise", variable)


def _adams(
    name: str,
    family: str,
    grid: Sequence[float],
    guided: Interval,
    order: int,
    of: Slope,
    variable: Variable | None,
) -> Sampler:
    steps = len(grid) - 1
    settings = {
        "grid": list(grid),
        "steps": steps,
        "order": order,
        "of": of,
        "variable": variable,
        "guided": list(guided),
    }
    walk = partial(adams, grid=grid, order=order, of=of, variable=variable, guided=guided)
    return Sampler(f"{name}, {steps} steps", family, settings, walk)


def adams(
    adapter: Adapter,
    requests: Sequence[Request],
    *,
    grid: Sequence[float],
    order: int = len(ADAMS_BASHFORTH),
    of: Slope = "velocity",
    variable: Variable | None = None,
    guided: Interval = EVERYWHERE,
) -> Tensor:
    """x_0 by a polynomial through the newest velocities u or noises eps.

    Without approximation, with rho = t / (1 - t),

        x_s = x_t + integral of u dt
        x_s = (1 - s) (x_t / (1 - t) + integral of eps d rho)

    Args:
        adapter: the model.
        requests: the pictures, of one size.
        grid: times, falling to 0.
        order: values that the polynomial goes through.
        of: what it interpolates.
        variable: that it is a polynomial in; None for the coefficients of equal steps.
        guided: where guidance is applied.
    """
    model, x_t = _begin(adapter, requests, grid[0])
    times: tuple[float, ...] = ()
    values: tuple[Tensor, ...] = ()
    for t, s in pairwise(grid):
        x_0 = _estimate(model, x_t, t, guided)
        # eps = u + x_0.
        newest = (x_t - x_0) / t + (x_0 if of == "noise" else 0)
        values, times = (newest, *values)[:order], (t, *times)[:order]
        x_t = x_0 + s / t * (x_t - x_0)  # with the newest value alone; exact from pure noise too
        for weight, value in zip(older(times, s, of, variable), values[1:], strict=True):
            x_t = x_t + weight * (value - newest)
    return x_t


def older(
    times: Sequence[float], s: float, of: Slope, variable: Variable | None
) -> NDArray[np.float64]:
    """Weights of all values but the newest in a move to s, for values at times, newest first."""
    t = times[0]
    if len(times) == 1 or (s == 0 and variable == "log rho"):  # of which 0 has none
        return np.zeros(len(times) - 1)
    rho = min(t, _ALMOST_ONE) / (1 - min(t, _ALMOST_ONE))
    if variable is None:
        length = s - t if of == "velocity" else s - (1 - s) * rho
        return length * np.array(ADAMS_BASHFORTH[len(times) - 1][1:])
    begin = math.log(rho)
    # Below this there is nothing left to integrate over.
    end = max(math.log(s / (1 - s)), begin - _FAR) if s > 0 else begin - _FAR
    places, weights = np.polynomial.legendre.leggauss(_NODES)
    log_rho = begin + (end - begin) * (places + 1) / 2
    nodes = 1 / (1 + np.exp(-log_rho))
    # dt = t (1 - t) d log rho and d rho = rho d log rho.
    measure = nodes * (1 - nodes) if of == "velocity" else (1 - s) * np.exp(log_rho)
    measure = measure * weights * (end - begin) / 2
    at, known = _in(variable, nodes), _in(variable, np.minimum(times, _ALMOST_ONE))
    lagrange = (
        np.prod([(at - other) / (own - other) for other in np.delete(known, k)], axis=0)
        for k, own in enumerate(known)
    )
    return np.array([float((each * measure).sum()) for each in lagrange])[1:]


def _in(variable: Variable, t: NDArray[np.float64]) -> NDArray[np.float64]:
    if variable == "t":
        return t
    rho = t / (1 - t)
    return rho if variable == "rho" else np.log(rho)


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
    requests: Sequence[Request],
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
    if len(requests) > 1:  # each decides for itself
        alone = partial(
            skip, adapter, grid=grid, threshold=threshold, max_skips=max_skips, guided=guided
        )
        return torch.cat([alone([each]) for each in requests])
    model, x_t = _begin(adapter, requests, grid[0])
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


def _begin(adapter: Adapter, requests: Sequence[Request], t: float) -> tuple[Guided, Tensor]:
    """The guided model of requests, and their initial states [b, c, h, w] at time t."""
    for request in requests:
        engine.check(adapter, request)
    shape = (adapter.channels, *requests[0].size)
    eps = torch.stack([engine.noise(each.seed, shape) for each in requests]).to(adapter.template)
    scale = torch.tensor([each.guidance_scale for each in requests]).to(adapter.template)
    return Guided.of(adapter, *adapter.encode(requests), scale), begun(adapter, eps, t)


def _estimate(model: Guided, x_t: Tensor, t: float, interval: Interval) -> Tensor:
    low, high = interval
    x_0, _ = model.denoise(x_t, x_t.new_full((len(x_t),), t), guided=low <= t <= high)
    return clipped_estimate(model.adapter, x_0)


def _velocity(model: Guided, x_t: Tensor, t: float, interval: Interval) -> Tensor:
    return (x_t - _estimate(model, x_t, t, interval)) / t


def library() -> Any:
    """Import diffusers.

    Raises:
        MissingExtra: diffusers is not installed.
    """
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtra("diffusers", "diffusers") from error
