"""`asymflow doctor`: check the installation and collect facts for bug reports."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import metadata
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from asymflow._version import __version__
from asymflow.cli.report import print_json
from asymflow.core import devices, engine
from asymflow.core.errors import AsymflowError
from asymflow.core.types import Plan, Request
from asymflow.generation import pipeline
from asymflow.models.loading import EMBEDDED
from asymflow.planning import memory

_SIDE = 1024
_UNITS = ("amx_bf16", "avx512_bf16", "avx512_f", "avx2")


def doctor(ref: str | None, *, as_json: bool) -> bool:
    """Report on the machine, the installation and the model; False if the model is unusable.

    The model makes a picture in two steps.
    """
    found: dict[str, Any] = {
        "asymflow": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in ("torch", "numpy", "pillow")},
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "devices": devices.available(),
        "gflops": {
            f"{device.type} {str(dtype).removeprefix('torch.')}": round(_gflops(device, dtype))
            for device in _devices_to_time()
            for dtype in (torch.float32, torch.bfloat16)
        },
        "extras": _extras(),
        "model": _model(ref),
    }
    if as_json:
        print_json(found)
    else:
        _show(found)
    return "error" not in found["model"]


def _cpu() -> dict[str, Any]:
    known: Mapping[str, Any] = torch.cpu.get_capabilities()
    return {
        "name": known.get("cpu_name", platform.processor()),
        "cores": known.get("num_physical_cores"),
        "units": [unit for unit in _UNITS if known.get(unit)],
    }


def _devices_to_time() -> Iterator[torch.device]:
    yield torch.device("cpu")
    if torch.cuda.is_available():
        yield torch.device("cuda")


def _gflops(device: torch.device, dtype: torch.dtype) -> float:
    """Peak throughput over repeated products of two large matrices."""
    a = torch.randn(_SIDE, _SIDE, device=device).to(dtype)
    out = torch.empty_like(a)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        torch.mm(a, a, out=out)
        out[0, 0].item()  # synchronises with a GPU
        best = min(best, time.perf_counter() - started)
    return 2 * _SIDE**3 / best / 1e9


def _extras() -> dict[str, bool]:
    """Extras, and whether all their packages are installed."""
    try:
        requirements = metadata.requires("asymflow") or []
    except metadata.PackageNotFoundError:  # run from a source tree
        return {}
    extras: dict[str, bool] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        package = re.match(r"[\w.-]+", requirement)
        if extra is not None and package is not None:
            here = package[0] == "asymflow" or _version(package[0]) is not None
            extras[extra[1]] = extras.get(extra[1], True) and here
    return extras


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _model(ref: str | None) -> dict[str, Any]:
    try:
        model = pipeline.load(ref, dtype="float32", device="cpu")
    except AsymflowError as error:
        return {"ref": ref or EMBEDDED, "error": str(error)}
    card, plan = model.card, pipeline.default_plan(model, model.card.sizes.native)
    request = Request(card.calibration[0], card.sizes.native, 0, card.guidance)
    started = time.perf_counter()
    [made] = engine.run(model.adapter, Plan("two steps", _shortened(plan).steps), [request])
    found: dict[str, Any] = {
        "ref": ref or EMBEDDED,
        "name": model.adapter.name,
        "title": card.title,
        "sha256": model.weights,
        "asked with": card.asks,
        "size": f"{card.sizes.native[1]}x{card.sizes.native[0]}",
        "two steps": f"{time.perf_counter() - started:.2f} s",
        "memory": str(memory.needed(model.adapter, request)),
        "plans": list(pipeline.plans_of(model, card.sizes.native)),
        "styles": [style.id for style in card.styles],
    }
    if not np.isfinite(made.picture).all():
        found["error"] = (
            "Its pictures are not finite: the weights are damaged, or this precision overflows. "
            "Fetch them again."
        )
    return found


def _shortened(plan: Plan) -> Plan:
    """A plan of two moves with the first estimates of another."""
    first = plan.steps[0]
    middle = plan.times[len(plan.times) // 2]
    step = replace(first, s=middle, solver="euler", weights=None)
    return Plan(plan.name, (step, replace(step, t=middle, s=0.0)))


def _show(found: Mapping[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    cpu, model = found["cpu"], found["model"]
    rates = (f"{name} {rate:,}" for name, rate in found["gflops"].items())
    rows = {
        "asymflow": found["asymflow"],
        "Python": f"{found['python']} on {found['platform']}",
        "packages": ", ".join(f"{name} {found[name]}" for name in ("torch", "numpy", "pillow")),
        "processor": f"{cpu['name']}, {cpu['cores']} cores, {', '.join(cpu['units']) or 'plain'}",
        "threads": str(found["threads"]),
        "devices": ", ".join(found["devices"]),
        "GFLOP/s": ", ".join(rates),
        "extras": ", ".join(
            f"{name} {'yes' if here else 'no'}" for name, here in found["extras"].items()
        ),
        "model": model["ref"],
    }
    if "name" in model:
        rows["weights"] = f"{model['title']}, {model['sha256'][:12]}"
        for name in ("asked with", "size", "two steps", "memory"):
            rows[name] = model[name]
        rows["plans"] = ", ".join(model["plans"])
        if model["styles"]:
            rows["styles"] = ", ".join(model["styles"])
    for name, value in rows.items():
        table.add_row(name, value or "unknown")
    console = Console(highlight=False)
    console.print(table)
    if "error" in model:
        console.print(f"[bold red]problem[/] {model['error']}", soft_wrap=True)
    else:
        console.print("[bold green]ready[/] to draw")
