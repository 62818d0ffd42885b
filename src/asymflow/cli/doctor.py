"""`asymflow doctor`: check the installation and collect facts for bug reports."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from asymflow._version import __version__
from asymflow.cli.report import print_json
from asymflow.core import devices
from asymflow.core.errors import FileFormatError
from asymflow.models.embedded import adapter as embedded

_SIDE = 1024
_UNITS = ("amx_bf16", "avx512_bf16", "avx512_f", "avx2")


def doctor(weights: Path | None, *, as_json: bool) -> bool:
    """Report on the machine, the installation and the model; False if the model is unusable."""
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
        "model": _model(weights),
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


def _model(weights: Path | None) -> dict[str, Any]:
    path = weights or embedded.default_weights()
    try:
        adapter = embedded.load(path)
    except FileFormatError as error:
        return {"file": str(path), "error": str(error)}
    return {
        "file": str(path),
        "sha256": adapter.weights_hash,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "parameters": sum(parameter.numel() for parameter in adapter.model.parameters()),
        "styles": list(adapter.styles),
    }


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
        "model": model["file"],
    }
    if "error" not in model:
        rows["weights"] = f"{model['sha256'][:12]}, {model['megabytes']} MB"
        rows["styles"] = ", ".join(model["styles"])
    for name, value in rows.items():
        table.add_row(name, value or "unknown")
    console = Console(highlight=False)
    console.print(table)
    if "error" in model:
        console.print(f"[bold red]problem[/] {model['error']}", soft_wrap=True)
    else:
        console.print("[bold green]ready[/] to draw")
