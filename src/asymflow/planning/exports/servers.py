"""A plan for servers: the fields that their requests accept.

Neither runs given times with a pixel model of its own. Both pass a list of them to a pipeline of
diffusers (SGLang's `diffusers_kwargs`; vLLM-Omni's `timesteps` of the sampling parameters, from
Python), whose scheduler must have shift 1. Their own SenseNova-U1 takes a shift and an interval of
guidance, counted from 0 for noise: in `extra_params` of vLLM-Omni, and not in requests of SGLang.
"""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from asymflow.core.types import Plan
from asymflow.planning.exports.parts import (
    Export,
    Line,
    Path,
    euler_differs,
    flow_path,
    lines,
    numbers,
)
from asymflow.planning.exports.pipelines import TIMESTEPS

SGLANG = "SGLang 0.5.23"
VLLM_OMNI = "vLLM-Omni 0.30.0"
_SAME = 1e-3
"""Noise levels that differ by less are the same times."""


def sglang(plan: Plan) -> Export:
    """A plan for `/v1/images/generations` of SGLang.

    Raises:
        InputError: the plan is not for a flow.
    """
    path = flow_path(plan, "SGLang")
    request = _request(path)
    request["diffusers_kwargs"] = {"timesteps": _timesteps(path)}
    data = path.describe("sglang", SGLANG) | {"request": request}
    times = Line("times", "in part", "diffusers_kwargs, with the diffusers backend and shift 1")
    guidance = Line("guidance on and off", "no", "requests have one guidance_scale for all steps")
    return Export(data, lines(path, times, _solver(path), guidance, _scales(path), guided=False))


def vllm_omni(plan: Plan) -> Export:
    """A plan for `/v1/images/generations` of vLLM-Omni, and for its sampling parameters in Python.

    Raises:
        InputError: the plan is not for a flow.
    """
    path = flow_path(plan, "vLLM-Omni")
    shift, off = _shift(path)
    request = _request(path)
    extra: dict[str, Any] = {"timestep_shift": shift}
    if plan.guided and path.window is not None:
        extra["cfg_interval"] = _interval(path, path.window)
    if path.own_scale is not None:
        extra["cfg_scale"] = path.own_scale
    request["extra_params"] = extra
    params = {**_request(path), "timesteps": _timesteps(path)}
    data = path.describe("vllm-omni", VLLM_OMNI) | {"request": request, "sampling_params": params}
    times = Line(
        "times",
        "in part",
        "timesteps of sampling_params, with the diffusers adapter and shift 1; in requests the "
        + (f"shift {shift:g} is the same" if off < _SAME else f"nearest shift, {shift:.3g}: off")
        + ("" if off < _SAME else f" by up to {off:.2g}"),
    )
    guidance = Line(
        "guidance on and off",
        "no" if path.window is None else "in part",
        "cfg_interval knows one range only"
        if path.window is None
        else "cfg_interval of extra_params, for SenseNova-U1",
    )
    return Export(data, lines(path, times, _solver(path), guidance, _scales(path), guided=True))


def _request(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"num_inference_steps": len(path.steps)}
    if path.own_scale is not None:
        found["guidance_scale"] = path.own_scale
    return found


def _timesteps(path: Path) -> list[float]:
    return [TIMESTEPS * each for each in path.flow_sigmas[:-1]]


def _solver(path: Path) -> Line:
    differing = euler_differs(path)
    if not differing:
        return Line("solver", "yes", "Euler's method")
    return Line("solver", "no", f"Euler's method after calls {numbers(differing)}")


def _scales(path: Path) -> Line:
    same = path.own_scale is not None and all(r.scale in (1, path.own_scale) for r in path.runs)
    carried = "yes" if same else "no"
    return Line("guidance scale of steps", carried, "requests have one guidance_scale")


def _shift(path: Path) -> tuple[float, float]:
    """The shift whose grid is nearest to the plan's times, and the largest difference."""
    sigmas, count = path.flow_sigmas, len(path.steps)
    even = [1 - i / count for i in range(count)]
    inner = [
        (u / (1 - u)) * ((1 - q) / q)
        for u, q in zip(sigmas[1:-1], even[1:], strict=True)
        if 0 < u < 1
    ]
    shift = round(median(inner), 9) if inner else 1.0
    shifted = [shift * q / (1 + (shift - 1) * q) for q in even]
    return shift, max(abs(u - v) for u, v in zip(sigmas[:-1], shifted, strict=True))


def _interval(path: Path, window: tuple[int, int]) -> list[float]:
    """The interval of guidance in 1 - u, with its ends between calls."""
    clean = [1 - u for u in path.flow_sigmas]
    first, last = window
    low = 0.0 if first == 0 else math.fsum(clean[first - 1 : first + 1]) / 2
    high = 1.0 if last == len(path.steps) - 1 else math.fsum(clean[last : last + 2]) / 2
    return [low, high]
