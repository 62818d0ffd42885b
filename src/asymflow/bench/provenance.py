"""Provenance of results: the header of every file with measurements.

    {"provenance": {"commit": "5e8db83", "dirty": false, "date": "2026-11-28", ...}, ...}

The header of a result from before this format was reconstructed: "recovered" is true, and unknown
fields are null. "superseded" states why a result no longer describes the shipped version.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asymflow.io.files import write_text
from asymflow.planning.plan_files import plan_hash

if TYPE_CHECKING:
    from asymflow.core.types import Plan

KEY = "provenance"
FIELDS: Mapping[str, type] = {
    "commit": str,
    "dirty": bool,
    "date": str,
    "command": str,
    "weights": list,
    "plans": dict,
    "dtype": str,
    "device": str,
    "threads": int,
    "versions": dict,
}
"""Required fields, in this order."""
OPTIONAL: Mapping[str, type] = {"seconds": int, "recovered": bool, "superseded": str}
_NULLABLE = ("commit", "dirty", "dtype", "device", "threads")
"""Fields that may be null in a header that was not reconstructed."""
PACKAGES = ("asymflow", "torch", "numpy", "pillow", "safetensors", "tokenizers", "diffusers")
RESULTS = "benchmarks/results"
_SHORT = 12


def header(
    *,
    weights: Sequence[str] = (),
    plans: Mapping[str, Plan] | None = None,
    dtype: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    argv: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The header of a measurement by this process.

    Args:
        weights: names of the measured models, such as "embedded:e11a8aadabb0".
        plans: plans of the generated pictures, by name.
        threads: number of threads; by default that of torch in this process.
        argv: the command; by default that of this process.
    """
    commit, dirty = checkout()
    return {
        "commit": commit,
        "dirty": dirty,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(sys.argv if argv is None else argv),
        "weights": list(weights),
        "plans": {name: plan_hash(plan)[:_SHORT] for name, plan in (plans or {}).items()},
        "dtype": dtype,
        "device": device,
        "threads": _threads() if threads is None else threads,
        "versions": versions(),
    }


def save(path: Path, header: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """Write a report with its header as JSON, and return the whole."""
    whole = {KEY: dict(header), **report}
    write_text(path, json.dumps(whole, indent=1) + "\n")
    return whole


def problems(header: object) -> list[str]:
    """Problems of the header of a result; empty if it is valid."""
    if not isinstance(header, Mapping):
        return ["there is no header"]
    found: Mapping[str, Any] = header
    wrong = [f"{name} is missing" for name in FIELDS if name not in found]
    known = {**FIELDS, **OPTIONAL}
    wrong += [f"{name} is unknown" for name in found if name not in known]
    nullable = FIELDS if found.get("recovered") else _NULLABLE
    for name, kind in known.items():
        value = found.get(name)
        if name not in found or (value is None and name in nullable and name != "date"):
            continue
        if type(value) is not kind:
            wrong.append(f"{name} is {value!r}, not of type {kind.__name__}")
    return wrong


def checkout(file: Path = Path(__file__)) -> tuple[str | None, bool | None]:
    """The commit of a source file, and whether the working tree is dirty.

    Both are None without git, or if no repository tracks the file: a package installed below
    another repository does not belong to its commit. Results are excluded from the dirty check,
    because runs write them.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None, None
    commit = _git(file.parent, "rev-parse", "HEAD")
    pathspec = (":(top)", f":(top,exclude){RESULTS}")
    changes = _git(file.parent, "status", "--porcelain", "--untracked-files=no", "--", *pathspec)
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ("git", "-C", str(folder), *arguments), capture_output=True, text=True, check=False
        )
    except OSError:  # there is no git
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def command(argv: Sequence[str]) -> str:
    """The command line from `sys.argv`, without the installation path."""
    program = Path(argv[0])
    if program.name == "__main__.py":
        start = ["python", "-m", program.parent.name]
    elif program.suffix == ".py":
        start = ["python", program.name]
    else:
        start = [program.name]
    return shlex.join([*start, *argv[1:]])


def versions() -> dict[str, str]:
    """Versions of Python, the platform, and the packages that results depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _threads() -> int | None:
    """Number of threads of torch, without importing it."""
    if "torch" in sys.modules:
        import torch

        return torch.get_num_threads()
    number = os.environ.get("OMP_NUM_THREADS", "")
    return int(number) if number.isdecimal() else None
