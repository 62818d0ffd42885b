"""A plan for the nodes of ComfyUI's own: times, sampler and guidance.

`ManualSigmas` takes the noise levels, `KSamplerSelect` the name of a sampler, and `CFGOverride`
sets the guidance scale within a range of percents. A percent is where a model's own schedule is
after that part of it, which depends on the model's shift:

    sigma = shift q / (1 + (shift - 1) q),   q = 1 - percent

Read in version 0.27.0. Version 0.3.64 has neither `CFGOverride` nor `ManualSigmas`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from asymflow.core.errors import InputError
from asymflow.core.types import Plan
from asymflow.planning.exports.parts import (
    Export,
    Line,
    Path,
    Run,
    elsewhere,
    euler,
    euler_differs,
    flow_path,
    heun_is_own,
    lines,
    numbers,
    off,
)

VERSION = "ComfyUI 0.27.0"
SHIFTS = {
    "Chroma1-Radiance": 1.0,
    "PixelDiT at 1024 px": 4.0,
    "PixelDiT at 512 px": 2.0,
    "PiD": 1.5,
    "HiDream-O1": 3.0,
    "SenseNova-U1": 3.0,
    "Zeta-Chroma": 3.0,
}
"""Shifts of its pixel models, SenseNova-U1 of later versions; ModelSampling nodes change them."""
_PLACES = range(3, 10)
"""Decimals of percents: the widget of the node has three, and a workflow takes more."""


def export(plan: Plan, shift: float | None) -> Export:
    """A plan for ComfyUI.

    Args:
        plan: of a flow.
        shift: of the model there; needed where the plan switches guidance.

    Raises:
        InputError: the plan is for another kind of model, or there is no shift.
    """
    path = flow_path(plan, "ComfyUI")
    switches = [run for run in path.runs if run.scale is not None] if plan.guided else []
    if switches and shift is None:
        known = ", ".join(f"{value:g} for {name}" for name, value in SHIFTS.items())
        raise InputError(
            f"The plan {plan.name!r} switches guidance, and ComfyUI counts that in percents, which "
            f"depend on the shift of the model. Give --shift: {known}; or that of the model's "
            "ModelSampling node."
        )
    if shift is not None and not (math.isfinite(shift) and shift > 0):
        raise InputError(f"--shift {shift} is no shift. Give a positive number, such as 3.")
    sampler, solver = _sampler(path)
    nodes: dict[str, Any] = {
        "ManualSigmas": {"sigmas": ", ".join(map(decimal, path.flow_sigmas))},
        "KSamplerSelect": {"sampler_name": sampler},
        "CFGGuider": {"cfg": path.guidance},
    }
    if shift is not None:
        nodes["CFGOverride"] = [_override(path, run, shift) for run in switches]
    data = path.describe("comfyui", VERSION) | {"shift": shift, "nodes": nodes}
    times = Line("times", "yes", f"{len(path.steps)} sigmas and 0, for ManualSigmas")
    count = len(switches)
    override = f"{count} CFGOverride, in percents of shift {shift:g}" if shift is not None else ""
    guidance = Line("guidance on and off", "yes", f"{override}; cfg 1 skips the second pass")
    if path.heun and len(path.runs) > 1:
        late = f"{override}; it counts for second estimates by their own noise"
        guidance = Line("guidance on and off", "in part", late)
    scales = Line("guidance scale of steps", "yes", f"{override}; rounded to 0.01 there")
    return Export(data, lines(path, times, solver, guidance, scales, guided=True))


def percent(sigma: float, shift: float) -> float:
    """The percent at which a flow's own schedule has this noise."""
    return 1 - sigma / (shift - (shift - 1) * sigma)


def decimal(sigma: float) -> str:
    """A number without an exponent, that reads back to the same float32."""
    return np.format_float_positional(np.float32(sigma), trim="-")


def _override(path: Path, run: Run, shift: float) -> dict[str, Any]:
    """The range of percents in which only the calls of a run are."""
    last = len(path.steps) - 1
    start = 0.0 if run.first == 0 else _border(path.flow_sigmas, run.first, shift)
    end = 1.0 if run.last == last else _border(path.flow_sigmas, run.last + 1, shift)
    return {"cfg": run.scale, "start_percent": start, "end_percent": end}


def _border(sigmas: Sequence[float], call: int, shift: float) -> float:
    """The shortest percent well between a call and the one before it."""
    low, high = (percent(sigmas[i], shift) for i in (call - 1, call))
    margin = (high - low) / 4
    for places in _PLACES:
        found = round((low + high) / 2, places)
        if low + margin <= found <= high - margin:
            return found
    return (low + high) / 2


def _sampler(path: Path) -> tuple[str, Line]:
    """The sampler of the same formula, or the one whose moves are nearest."""
    if heun_is_own(path):
        return "heun", Line("solver", "yes", "heun is the same formula")
    differing = euler_differs(path)
    if not differing:
        return "euler", Line("solver", "yes", "euler is the same formula")
    candidates = {"euler": euler(path), "dpmpp_2m": _second_order(path)}
    name = min(candidates, key=lambda each: off(path, candidates[each]))
    where = elsewhere(path, candidates[name])
    if not where:
        return name, Line("solver", "yes", f"{name} is the same formula")
    return name, Line(
        "solver",
        "no" if len(where) == len(path.steps) else "in part",
        f"{name} is nearest, and moves otherwise after calls {numbers(where)}: on normal data "
        f"{off(path, candidates[name]):.1%} off",
    )


def _second_order(path: Path) -> list[tuple[float, ...]]:
    """The weights of DPM-Solver++(2M) (arXiv 2211.01095) on log sigma, as ComfyUI runs it on flows.

    It takes a line in log u through two estimates, for the state z = k x of the flow.
    """
    sigmas = path.flow_sigmas
    found: list[tuple[float, ...]] = []
    for i, (u, v) in enumerate(pairwise(sigmas)):
        ahead = 0.0
        if i and v > 0:
            ahead = math.log(u / v) / (2 * math.log(sigmas[i - 1] / u))
        rest = 1 - v / u
        before, after = (1 - each + each * path.noise for each in (u, v))
        moves = v / u * before, rest * (1 + ahead), -rest * ahead
        found.append(tuple(each / after for each in moves))
    return found
