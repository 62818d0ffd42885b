"""What the shipped model costs beside one that came before it: passes, pictures, memory, files.

    OMP_NUM_THREADS=1 python -m benchmarks versions FORMER

Two model files in one run, asked in turns, so that what else the machine does meets both. A pass
is one network call at 64 px, a picture is drawn by one grid with guidance, and a command is
`asymflow generate` in a process of its own, which also tells its peak memory. Writes versions.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from asymflow.bench.speed import ratio
from asymflow.core import engine, presets
from asymflow.core.types import Request
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded.adapter import EmbeddedAdapter, default_weights
from asymflow.models.embedded.library import default_path
from asymflow.planning.costs import Call
from benchmarks import results
from benchmarks.suites.server import cpu_name, machine

SIDE, PROMPT = 64, "a red fox"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
QUICK = {"repeats": 3, "out": results.QUICK / "versions.json"}

# The kernel's own peak: that of `getrusage` begins with what the parent had before the exec.
CHILD = """
import pathlib, re, runpy, sys, time
begun = time.perf_counter()
sys.argv = sys.argv[1:]
try:
    runpy.run_module("asymflow", run_name="__main__")
except SystemExit as end:
    if end.code:
        raise
status = pathlib.Path("/proc/self/status").read_text()
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024
print(time.perf_counter() - begun, peak, file=sys.stderr)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("former", type=Path, help="an earlier model file")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)


def run(given: argparse.Namespace) -> dict[str, Any]:
    paths = (default_weights(), given.former)
    report: dict[str, Any] = {"machine": machine(), "side": SIDE}
    loaded: list[EmbeddedAdapter] = []
    for name, dtype in DTYPES.items():
        loaded = [embedded.load(path, dtype=dtype) for path in paths]
        report[name] = {
            "pass of 1": compared([one_pass(each, 1) for each in loaded], given.repeats),
            "pass of 2": compared([one_pass(each, 2) for each in loaded], given.repeats),
            "picture": compared([one_picture(each) for each in loaded], given.repeats),
        }
        print(json.dumps(report[name], indent=1), flush=True)
    report["command"] = commands(paths, given.repeats)
    report["files"] = {
        "shipped_mb": round(paths[0].stat().st_size / 1e6, 1),
        "former_mb": round(paths[1].stat().st_size / 1e6, 1),
        "library_mb": round(default_path().stat().st_size / 1e6, 1),
    }
    return results.save(
        given.out or results.folder_of(results.shipped()) / "versions.json",
        report,
        device=f"cpu ({cpu_name()})",
        weights=[adapter.name for adapter in reversed(loaded)],
    )


def request(adapter: EmbeddedAdapter) -> Request:
    return Request({"prompt": PROMPT}, (SIDE, SIDE), 1, adapter.card.guidance)


def compared(calls: Sequence[Call], repeats: int) -> dict[str, Any]:
    """Time of the shipped one over that of the former, in turns."""
    found = ratio(*calls, repeats=repeats)
    middle = found.median
    return {
        "over former": [round(x, 3) for x in (middle.value, middle.low, middle.high)],
        "shipped_ms": round(found.a_ms, 2),
        "former_ms": round(found.b_ms, 2),
    }


def one_pass(adapter: EmbeddedAdapter, rows: int) -> Call:
    context, _ = adapter.encode([request(adapter)] * rows)
    noise = torch.Generator().manual_seed(1)
    x_t = torch.randn(rows, adapter.channels, SIDE, SIDE, generator=noise)
    t = torch.full((rows,), 0.7)

    @torch.inference_mode()
    def call() -> None:
        adapter.denoise(x_t, t, context)

    return call


def one_picture(adapter: EmbeddedAdapter) -> Call:
    plan = presets.Grid().plan((SIDE, SIDE))
    return lambda: engine.run(adapter, plan, [request(adapter)])


def commands(paths: tuple[Path, Path], repeats: int) -> dict[str, Any]:
    """Seconds and peak bytes of a whole `asymflow generate`, of a grid that both have."""
    seconds: dict[Path, list[float]] = {path: [] for path in paths}
    peaks: dict[Path, list[float]] = {path: [] for path in paths}
    with tempfile.TemporaryDirectory(prefix="versions-") as folder:
        for _ in range(max(3, repeats // 4)):
            for path in paths:
                words = ["asymflow", "generate", PROMPT, "--model", str(path), "--plan", "default"]
                out = ["--seed", "1", "-o", f"{folder}/{len(seconds[path])}-{path.parent.name}.png"]
                made = subprocess.run(
                    [sys.executable, "-c", CHILD, *words, *out],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                took, peak = made.stderr.split()[-2:]
                seconds[path].append(float(took))
                peaks[path].append(float(peak))
    return {
        label: {
            "seconds": round(statistics.median(seconds[path]), 2),
            "peak_mb": round(statistics.median(peaks[path]) / 1e6),
        }
        for label, path in zip(("shipped", "former"), paths, strict=True)
    }
