"""Plans as what other programs accept, with a list of what these cannot carry.

Each target is a module of its own: what the program takes was read in its source, at the version
that the module names. `asymflow plan export` writes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from asymflow.core.errors import InputError
from asymflow.core.types import Plan
from asymflow.planning.exports import comfyui, pipelines, servers
from asymflow.planning.exports.parts import Export, Line
from asymflow.planning.plan_json import plan_to_json

__all__ = ["TARGETS", "Export", "Line", "export"]


def export(plan: Plan, target: str, *, shift: float | None = None) -> Export:
    """A plan as a program accepts it.

    Args:
        plan: with or without evidence.
        target: one of `TARGETS`.
        shift: of the model's times in ComfyUI, for a plan that switches guidance there.

    Raises:
        InputError: the target is unknown or cannot run models of this kind, or needs a shift.
    """
    if target not in TARGETS:
        close = get_close_matches(target.lower(), TARGETS, 1, 0.5)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise InputError(
            f"Plans cannot be exported to {target!r}. {hint}Choose one of {', '.join(TARGETS)}."
        )
    if shift is not None and target != "comfyui":
        raise InputError(
            f"--shift {shift:g} is for ComfyUI, where it turns times into percents. Drop it."
        )
    if target == "comfyui":
        return comfyui.export(plan, shift)
    return _OTHERS[target](plan)


def _own(plan: Plan) -> Export:
    return Export(plan_to_json(plan), (Line("everything", "yes", "a plan file of schema 2"),))


_OTHERS: Mapping[str, Callable[[Plan], Export]] = {
    "diffusers": pipelines.export,
    "sglang": servers.sglang,
    "vllm-omni": servers.vllm_omni,
    "json": _own,
}
TARGETS = ("comfyui", *_OTHERS)
