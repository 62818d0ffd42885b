"""Whether the stand-in of the tests has the interface of the real ComfyUI: names and arguments."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.integrations.comfyui import standin

ELSEWHERE = {
    "comfy.model_patcher.ModelPatcher": standin.Patcher,
    "comfy.model_sampling.ModelSamplingDiscreteFlow": standin.Sampling,
    "comfy.patcher_extension.WrapperExecutor": standin.Executor,
    "comfy.latent_formats.LatentFormat": standin.LatentFormat,
}
"""What the pack gets from ComfyUI without importing it."""
OWN = {
    "ModelPatcher.__init__", "ModelSamplingDiscreteFlow.__init__", "WrapperExecutor.__init__",
    "LatentFormat.__init__", "CFGGuider.__call__", "WrapperExecutor.__call__",
}  # fmt: skip
"""Of the stand-in, made by nobody but it, or called as ComfyUI itself does."""


def differences() -> list[str]:
    """What a real ComfyUI, which can be imported, has otherwise than the stand-in."""
    found: list[str] = []
    for module, values in standin.modules(Path("/")).items():
        real = importlib.import_module(module)
        for name, ours in vars(values).items():
            if name.startswith("__") or inspect.ismodule(ours):
                continue
            if not hasattr(real, name):
                found.append(f"{module} has no {name}")
            else:
                found += _compared(f"{module}.{name}", ours, getattr(real, name))
    for place, ours in ELSEWHERE.items():
        module, _, name = place.rpartition(".")
        found += _compared(name, ours, getattr(importlib.import_module(module), name))
    return found


def _compared(name: str, ours: Any, real: Any) -> Iterator[str]:
    if isinstance(ours, SimpleNamespace):
        for key, value in vars(ours).items():
            if not hasattr(real, key):
                yield f"{name} has no {key}"
            else:
                yield from _compared(f"{name}.{key}", value, getattr(real, key))
    elif inspect.isclass(ours):
        for key, value in vars(ours).items():
            public = not key.startswith("_") or key == "__init__"
            if not public or f"{real.__name__}.{key}" in OWN:
                continue
            if not hasattr(real, key) and key not in getattr(real, "__annotations__", {}):
                yield f"{name} has no {key}"
            elif inspect.isroutine(value) and (inspect.isclass(real) or key != "__init__"):
                yield from _arguments(f"{name}.{key}", getattr(ours, key), getattr(real, key))
    elif inspect.isroutine(ours):
        yield from _arguments(name, ours, real)
    elif isinstance(ours, str) and "/" not in ours and ours != real:
        yield f"{name} is {real!r}, not {ours!r}"


def _arguments(name: str, ours: Any, real: Any) -> Iterator[str]:
    """Arguments of the stand-in that ComfyUI has not, or in another order, and needs besides."""
    if name.split(".")[-1] in ("Input", "Output"):
        return  # classes of ports, whose options are checked as nodes are defined
    known, wanted = (inspect.signature(each).parameters for each in (real, ours))
    if any(each.kind is each.VAR_POSITIONAL for each in known.values()):
        return
    fixed = [key for key, each in wanted.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    order = [key for key in known if key in fixed]
    if order != fixed:
        yield f"{name} takes {', '.join(known)}, and the stand-in {', '.join(fixed)}"
    needed = [
        key
        for key, each in known.items()
        if each.default is each.empty
        and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        and key not in wanted
    ]
    if needed:
        yield f"{name} needs {', '.join(needed)} too"
