"""The node pack in a real ComfyUI: the engine's pictures, the stand-in's interface, a server.

    python -m benchmarks comfyui --comfyui PATH                # 3 minutes on one core
    python -m benchmarks comfyui --comfyui PATH --no-measure

PATH is a checkout of ComfyUI, and this runs in an environment with its requirements and asymflow.

A tiny flow network is sampled by plans of every kind of step, once by the nodes of the pack and
ComfyUI's SamplerCustomAdvanced or KSampler, once by the engine of asymflow: with and without
guidance, with an interval of it, in batches, with a scale of noise, from a picture, with a mask.
So are ComfyUI's own networks of pixel-space models, small and of random weights, by the default
plan, and a patched model is told from the one that it was patched from.
Then the interface of the stand-in that the tests use is compared with that of ComfyUI. At last
ComfyUI is started on the CPU with the pack in custom_nodes, and a small PixelDiT of random weights
is loaded, sampled, interrupted and measured by its HTTP interface. Where ComfyUI has CFGOverride,
plans are drawn beside what it has itself for few steps (`benchmarks.comfyui.beside`). Writes
comfyui-VERSION.json, and fails where anything is not as it should be.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import results

# Before the folders of ComfyUI can be imported from, one of which is called `tests` too.
from benchmarks.comfyui import beside, families, host, interface, levels, parity, server
from benchmarks.comfyui.real import Real
from benchmarks.comfyui.server import WrongError

OLDER = ("latent_shapes", "spacial_downscale_ratio")
"""What the stand-in has, and ComfyUI has not before it had scales of noise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--comfyui",
        type=Path,
        default=os.environ.get("ASYMFLOW_COMFYUI"),
        help="a checkout; by default that of ASYMFLOW_COMFYUI",
    )
    parser.add_argument(
        "--measure",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure a model in the server",
    )
    parser.add_argument(
        "--pack",
        type=Path,
        default=host.PACK,
        help="the folder of nodes in the server, such as an unpacked release",
    )
    parser.add_argument("--pictures", type=int, default=16, help="that plans are compared on")
    parser.add_argument("--out", type=Path, help="a file; by default one of the results")


def run(args: argparse.Namespace) -> None:
    if args.comfyui is None:
        sys.exit("Say where ComfyUI is: --comfyui PATH, or the variable ASYMFLOW_COMFYUI.")
    path: Path = Path(args.comfyui).resolve()
    real = Real(path)
    report: dict[str, Any] = {"comfyui": real.version, "comfyui_commit": real.commit}
    faults: list[str] = []

    apart = parity.differences(real)
    report |= {"tolerance": parity.TOLERANCE, "differences": apart}
    faults += _apart(apart, parity.TOLERANCE)
    small = families.differences(real)
    report |= {"family_tolerance": families.TOLERANCE, "families": small}
    faults += _apart(small, families.TOLERANCE)
    report["levels"] = levels.found(real)
    if report["levels"] != levels.EXPECTED:
        faults.append(f"plans have the levels {report['levels']}, not {levels.EXPECTED}")
    report["interface"] = interface.differences()
    faults += [
        line
        for line in report["interface"]
        if real.scales_noise or not any(name in line for name in OLDER)
    ]
    # ComfyUI checks a schema as it is asked for.
    report["nodes"] = [node.GET_SCHEMA().node_id for node in host.nodes(host.load_pack())]
    if real.has("PixelDiTT2I"):
        try:
            report |= _served(path, args.pack, measure=args.measure)
        except WrongError as error:
            faults.append(str(error))
    if hasattr(real.nodes, "CFGOverride"):
        report["beside"] = beside.found(real, args.pictures)
    report["faults"] = faults
    out = args.out or results.SERVER / f"comfyui-{real.version}.json"
    words = ["benchmarks", "comfyui", "--comfyui", "PATH"]
    words += [] if args.measure else ["--no-measure"]
    words += [] if args.pack == host.PACK else ["--pack", "RELEASE"]
    results.save(out, report, argv=words)
    for name, value in (apart | small).items():
        print(f"{value:.1e}  {name}")
    print(f"{out} for ComfyUI {real.version} ({real.commit})")
    if faults:
        sys.exit("\n".join(faults))


def _apart(found: Mapping[str, float], most: float) -> list[str]:
    """A line for each difference of pictures that is too large, or no number."""
    return [
        f"{name}: the pictures differ by {value:.3g}"
        for name, value in found.items()
        if not value <= most
    ]


def _served(path: Path, pack: Path, *, measure: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as base, server.serving(path, Path(base), pack) as running:
        found: dict[str, Any] = {"server": server.checked(running)}
        if measure:
            found["measured"] = server.measured(running)
    return found
