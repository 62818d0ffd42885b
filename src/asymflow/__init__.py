"""Make pixel-space diffusion models faster without retraining.

The models stay unmodified; more compute is spent on the sampling steps that matter.

    import asymflow
    from asymflow.core import presets

    model = asymflow.load()
    request = asymflow.Request({"prompt": "a fox"}, size=(64, 64), guidance_scale=presets.GUIDANCE)
    [result] = asymflow.run(model, presets.DEFAULT.plan(request.size), [request])

Names are loaded when they are first used: importing asymflow takes no time and loads no torch. An
import before torch's limits how long torch's threads spin, see `asymflow.core.threads`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asymflow.core.adapter import Adapter, Denoiser
    from asymflow.core.batcher import Frame, Move
    from asymflow.core.engine import run, walk
    from asymflow.core.errors import AsymflowError, FileFormatError, InputError, MissingExtra
    from asymflow.core.schedules import plan_of
    from asymflow.core.types import (
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
    from asymflow.integrations.diffusers.pipeline import accelerate
    from asymflow.integrations.diffusers.scheduler import AsymFlowScheduler
    from asymflow.models.loading import load
    from asymflow.planning.plan_files import load_plan, load_profile, save_plan, save_profile
    from asymflow.planning.planner import front, plan
    from asymflow.planning.prediction import predict
    from asymflow.planning.profiler import profile

from asymflow._version import __version__ as __version__
from asymflow.core.threads import limit_spinning

limit_spinning(os.environ, sys.modules)

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
    "Move",
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
    "core.adapter": ("Adapter", "Denoiser"),
    "core.batcher": ("Frame", "Move"),
    "core.engine": ("run", "walk"),
    "core.errors": ("AsymflowError", "FileFormatError", "InputError", "MissingExtra"),
    "core.schedules": ("plan_of",),
    "core.types": (
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
    "integrations.diffusers.pipeline": ("accelerate",),
    "integrations.diffusers.scheduler": ("AsymFlowScheduler",),
    "models.loading": ("load",),
    "planning.plan_files": ("load_plan", "load_profile", "save_plan", "save_profile"),
    "planning.planner": ("front", "plan"),
    "planning.prediction": ("predict",),
    "planning.profiler": ("profile",),
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
