"""Where results lie, and how they are written.

Three kinds of folders, by what a result depends on:

- `results/<weights8>/`: the weights of the embedded model, by the first eight characters of their
  hash. Where several are compared, those that the result is about: the last.
- `results/trained/`: networks that the suite trains itself.
- `results/server/`: the server, the page and the clients, whatever the model draws.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from asymflow.bench import provenance
from asymflow.core.adapter import Adapter
from asymflow.core.types import Plan
from asymflow.generation.pipeline import Model
from asymflow.planning import profiler

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
SERVER, TRAINED = RESULTS / "server", RESULTS / "trained"
QUICK = Path("runs/quick")
"""Where results of `--quick` go, which are none to commit."""
_BEGAN = time.monotonic()


def folder_of(weights: str) -> Path:
    """The folder of what was measured on a model, by its name: "embedded:e11a8aadabb0"."""
    return RESULTS / weights.rpartition(":")[2][:8]


@cache
def shipped() -> str:
    """The name of the model that comes with asymflow."""
    weights = ROOT / "src/asymflow/models/embedded/weights/embedded.safetensors"
    return f"embedded:{hashlib.sha256(weights.read_bytes()).hexdigest()[:12]}"


def save(path: Path, report: Mapping[str, Any], **described: Any) -> dict[str, Any]:
    """Write a result, described by the arguments of `provenance.header`, and return it."""
    header = provenance.header(**described) | {"seconds": round(time.monotonic() - _BEGAN)}
    return provenance.save(path, header, report)


def on(model: Model, plans: Mapping[str, Plan] | None = None) -> dict[str, Any]:
    """Arguments of `save` for what was measured on a model."""
    return on_adapters([model.adapter], plans) | {"dtype": model.dtype}


def on_adapters(
    adapters: Sequence[Adapter], plans: Mapping[str, Plan] | None = None
) -> dict[str, Any]:
    """Arguments of `save` for what was measured on adapters on one device."""
    template = adapters[0].template
    return {
        "weights": [adapter.name for adapter in adapters],
        "plans": plans,
        "dtype": str(template.dtype).removeprefix("torch."),
        "device": profiler.machine(adapters[0])["device"],
    }


def stamp(path: Path, command: str, weights: Sequence[str] = ()) -> dict[str, Any]:
    """Put a header on a result that a program of another language wrote."""
    report = json.loads(path.read_text("utf-8"))
    report.pop(provenance.KEY, None)
    return provenance.save(path, provenance.header(weights=weights) | {"command": command}, report)


def supersede(folder: Path, reason: str) -> list[Path]:
    """Say of all results in a folder that they no longer describe what is shipped."""
    changed: list[Path] = []
    for path in sorted(folder.rglob("*.json")):
        report = json.loads(path.read_text("utf-8"))
        header = report.pop(provenance.KEY)
        if "superseded" not in header:
            provenance.save(path, {**header, "superseded": reason}, report)
            changed.append(path)
    return changed
