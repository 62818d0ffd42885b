"""Unequal compute over the trajectory of unmodified pixel-space diffusion models.

    import asymflow
    from asymflow import presets

    model = asymflow.load()
    request = asymflow.Request({"prompt": "a fox"}, size=(64, 64), guidance_scale=presets.GUIDANCE)
    [result] = asymflow.run(model, presets.DEFAULT.plan(request.size), [request])

Names are loaded when they are first used: importing asymflow takes no time and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asymflow.acceleration.pipeline import accelerate
    from asymflow.acceleration.scheduler import AsymFlowScheduler
    from asymflow.adapter import Adapter, Denoiser
    from asymflow.adapters.loading import load
    from asymflow.engine import Frame, run, walk
    from asymflow.errors import AsymflowError, FileFormatError, InputError, MissingExtra
    from asymflow.planner import front, plan, predict
    from asymflow.profiler import profile
    from asymflow.store import load_plan, load_profile, save_plan, save_profile
    from asymflow.times import plan_of
    from asymflow.types import (
        CONDITIONAL,
        FULL,
        Evidence,
        Plan,
        Profile,
        Request,
        Result,
        Step,
        Tier,
    )

__version__ = "0.1.0"

__all__ = [
    "CONDITIONAL",
    "FULL",
    "Adapter",
    "AsymFlowScheduler",
    "AsymflowError",
    "Denoiser",
    "Evidence",
    "FileFormatError",
    "Frame",
    "InputError",
    "MissingExtra",
    "Plan",
    "Profile",
    "Request",
    "Result",
    "Step",
    "Tier",
    "accelerate",
    "front",
    "load",
    "load_plan",
    "load_profile",
    "plan",
    "plan_of",
    "predict",
    "profile",
    "run",
    "save_plan",
    "save_profile",
    "walk",
]

_NAMES = {
    "acceleration.pipeline": ("accelerate",),
    "acceleration.scheduler": ("AsymFlowScheduler",),
    "adapter": ("Adapter", "Denoiser"),
    "adapters.loading": ("load",),
    "engine": ("Frame", "run", "walk"),
    "errors": ("AsymflowError", "FileFormatError", "InputError", "MissingExtra"),
    "planner": ("front", "plan", "predict"),
    "profiler": ("profile",),
    "store": ("load_plan", "load_profile", "save_plan", "save_profile"),
    "times": ("plan_of",),
    "types": (
        "CONDITIONAL",
        "FULL",
        "Evidence",
        "Plan",
        "Profile",
        "Request",
        "Result",
        "Step",
        "Tier",
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # else a type checker would take every misspelt name for one of these

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
