"""`asymflow bench`: the model on the suites of `asymflow.bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asymflow.bench import pairs, provenance
from asymflow.bench import speed as speeds
from asymflow.bench.quality import quality as measure
from asymflow.cli import planning, resolve
from asymflow.cli.outputs import require_writable
from asymflow.cli.report import say, say_json
from asymflow.cli.resolve import GenerateOptions
from asymflow.core import engine, presets
from asymflow.core.errors import InputError
from asymflow.core.types import Plan, Request
from asymflow.generation import pipeline
from asymflow.io import folders
from asymflow.io.files import write_text
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded import plans
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.planning import plan_files, profiler

_PAIRS, _PEERS_PAIRS, _FEW_PAIRS = 512, 192, 32
_REPEATS, _FEW_REPEATS = 20, 5


def quality(
    data: Path,
    out: Path | None,
    size: int,
    *,
    quick: bool,
    asked: GenerateOptions,
    weights: Path | None,
    dtype: str,
    device: str | None,
    as_json: bool,
) -> None:
    """Run the quality suite on the plan that is asked for and print its report.

    Raises:
        FileFormatError: the dataset or the weights cannot be used.
        MissingExtra: the feature network is not installed.
    """
    model = pipeline.load(weights, dtype=dtype, device=device)
    plan = pipeline.plan_for(model, resolve.plan(asked), (size, size))

    def generate(jobs: Sequence[pairs.Job], side: int) -> NDArray[np.float32]:
        requests = [
            Request({"prompt": prompt, "style": style}, (side, side), seed, presets.GUIDANCE)
            for prompt, style, seed in jobs
        ]
        return np.stack([made.picture for made in engine.run(model.adapter, plan, requests)])

    report = measure(
        generate,
        data,
        name=model.adapter.name,
        size=size,
        pairs=_FEW_PAIRS if quick else _PAIRS,
        config={
            "weights": model.adapter.weights_hash,
            "dtype": model.dtype,
            "device": model.device,
            "guidance": presets.GUIDANCE,
            "plan": plan.name,
            "plan_hash": plan_files.plan_hash(plan),
        },
        provenance=_header(model, {plan.name: plan}),
        out=out,
        cache=folders.cache() / "features",
        progress=sys.stderr.isatty(),
    )
    say(report.to_json().rstrip() if as_json else str(report))


def peers(
    data: Path,
    out: Path | None,
    size: int,
    *,
    pairs: int | None,
    profile: Path | None,
    quick: bool,
    weights: Path | None,
    dtype: str,
    device: str | None,
    as_json: bool,
) -> None:
    """Compare the plans that come with the model with other samplers, and print the table.

    Raises:
        InputError: the plans or the profile were made for other weights.
        FileFormatError: the dataset, the profile or the weights cannot be used.
        MissingExtra: diffusers or the feature network is not installed.
    """
    from asymflow.bench.baselines import runner
    from asymflow.bench.baselines.protocol import FULL, QUICK

    model = pipeline.load(weights, dtype=dtype, device=device)
    asked = {name: resolve.plan(GenerateOptions(plan=name)) for name in plans.NAMES}
    ours = {name: pipeline.plan_for(model, each, (size, size)) for name, each in asked.items()}
    with planning.progress() as report:
        found = runner.peers(
            model.adapter,
            ours,
            data,
            size=size,
            pairs=pairs or (_FEW_PAIRS if quick else _PEERS_PAIRS),
            profile=None if profile is None else plan_files.load_profile(profile),
            budget=QUICK if quick else FULL,
            provenance=_header(model, ours),
            out=out,
            cache=folders.cache() / "features",
            on_progress=report,
        )
    say(found.to_json() if as_json else str(found))


def strip(asked: GenerateOptions, output: Path) -> None:
    """Draw one picture and write how it came about.

    Raises:
        InputError: the request makes no sense, or the file cannot be written.
    """
    from asymflow.bench.plan_report.timeline import strip as draw

    require_writable(output, "Choose another place with -o.")
    wanted = resolve.spec(asked, "png")
    model = pipeline.load(wanted.weights, dtype=wanted.dtype, device=wanted.device)
    [job] = pipeline.jobs(model, wanted)
    draw(model.adapter, job.record.plan, job.request, output)
    say(str(output))


def plan(asked: GenerateOptions, against: str | None, output: Path) -> None:
    """Draw one picture with a plan, with another one and with the reference, and write a page.

    Raises:
        InputError: the request makes no sense, or the file cannot be written.
        FileFormatError: a plan or the weights cannot be used.
        MissingExtra: a PNG is asked for, and matplotlib is not installed.
    """
    from asymflow.bench.page import page
    from asymflow.bench.plan_report import cost
    from asymflow.bench.plan_report.poster import poster

    if output.suffix.lower() not in (".html", ".png"):
        raise InputError(
            f"{output.name} ends in {output.suffix!r}, and a plan is explained as a page or a "
            "picture. Choose a name that ends in .html or .png."
        )
    require_writable(output, "Choose another place with -o.")
    wanted = resolve.spec(asked, "png")
    other = None if against is None else resolve.plan(GenerateOptions(plan=against))
    model = pipeline.load(wanted.weights, dtype=wanted.dtype, device=wanted.device)
    [job] = pipeline.jobs(model, wanted)
    size, record = job.request.size, job.record
    found = cost.account(
        model.adapter,
        pipeline.plan_for(model, wanted.plan, size),
        job.request,
        pipeline.reference(model, size),
        None if other is None else pipeline.plan_for(model, other, size),
    )
    if output.suffix.lower() == ".png":
        poster(found, output)
        say(str(output))
        return
    made = {
        "model": record.model,
        "size": f"{size[1]}x{size[0]}",
        "style": record.style or "as prompted",
        "seed": str(record.seed),
        "guidance": f"{record.guidance:g}",
        **profiler.machine(model.adapter),
    }
    write_text(output, page(found, made))
    say(str(output))


def speed(*, quick: bool, weights: Path | None, device: str | None, as_json: bool) -> None:
    """Measure a picture against its bare network calls, and those against bare products.

    Raises:
        FileFormatError: the weights cannot be used.
    """
    repeats = _FEW_REPEATS if quick else _REPEATS
    model = pipeline.load(weights, dtype="float32", device=device)
    size = embedded.DEFAULT_SIZE
    plan = presets.DEFAULT.plan(size)
    request = Request({"prompt": "a fox"}, size, guidance_scale=presets.GUIDANCE)
    overhead = speeds.ratio(
        lambda: engine.run(model.adapter, plan, [request]),
        _bare_calls(model.adapter, plan, request),
        repeats=repeats,
    )

    def build(batch: int, dtype: torch.dtype) -> Callable[[], object]:
        name = str(dtype).removeprefix("torch.")
        adapter = pipeline.load(weights, dtype=name, device=device).adapter
        return _call(adapter, request, batch)

    table = speeds.efficiency_grid(
        build, batches=(8, 2), repeats=repeats, device=model.adapter.template.device
    )
    if as_json:
        efficiency = [{"rows": rows} | asdict(each) for (rows, _), each in table.items()]
        say_json(
            {
                provenance.KEY: _header(model, {plan.name: plan}),
                "model": model.adapter.name,
                "engine": asdict(overhead),
                "forward": efficiency,
            }
        )
        return
    say(
        f"a picture of {plan.forwards} forwards takes {overhead.a_ms:.0f} ms, "
        f"{overhead.median.value:.3f} times its bare network calls "
        f"({overhead.median.low:.3f} to {overhead.median.high:.3f})"
    )
    for (rows, _), each in table.items():
        say(
            f"a network call of {rows} pictures in {each.dtype} takes {each.forward_ms:.1f} ms: "
            f"{each.forward_gflops:.0f} GFLOP/s, {each.share.value:.0%} of bare matrix products "
            f"({each.share.low:.0%} to {each.share.high:.0%})"
        )


def _header(model: pipeline.Model, ran: Mapping[str, Plan]) -> dict[str, Any]:
    """Where what is measured now comes from."""
    return provenance.header(
        weights=[model.adapter.name],
        plans=ran,
        dtype=model.dtype,
        device=profiler.machine(model.adapter)["device"],
    )


def _bare_calls(adapter: EmbeddedAdapter, plan: Plan, request: Request) -> Callable[[], object]:
    """The network calls of a picture and nothing else."""
    both, one = _call(adapter, request, 2), _call(adapter, request, 1)
    calls = [both if step.tier.guided else one for step in plan.steps]
    return lambda: [call() for call in calls]


def _call(adapter: EmbeddedAdapter, request: Request, batch: int) -> Callable[[], object]:
    """One network call of `batch` rows."""
    context, _ = adapter.encode([request] * batch)
    x_t = torch.randn(batch, adapter.channels, *request.size).to(adapter.template)
    t = torch.full((batch,), 0.5).to(adapter.template)

    def call() -> object:
        with torch.inference_mode():
            return adapter.denoise(x_t, t, context)

    return call
