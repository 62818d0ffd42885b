"""`asymflow bench`: run the suites of `asymflow.bench`."""

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
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.cli.resolve import GenerateOptions
from asymflow.core import engine, presets
from asymflow.core.adapter import Adapter
from asymflow.core.errors import InputError
from asymflow.core.types import Plan, Request
from asymflow.generation import pipeline
from asymflow.io import folders
from asymflow.io.files import write_text
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.planning import plan_files, profiler
from asymflow.planning.shelf import NAMES

_PAIRS, _BASELINE_PAIRS, _QUICK_PAIRS = 512, 192, 32
_REPEATS, _QUICK_REPEATS = 20, 5


def quality(
    data: Path,
    out: Path | None,
    size: int,
    *,
    quick: bool,
    options: GenerateOptions,
    ref: str | None,
    dtype: str,
    device: str | None,
    as_json: bool,
) -> None:
    """Run the quality suite on a plan and print the report.

    Raises:
        FileFormatError: the dataset or the weights are invalid.
        MissingExtra: the feature network is not installed.
    """
    model = _embedded(ref, dtype, device)
    plan = pipeline.plan_for(model, resolve.plan(options), (size, size), note=print_note)

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
        pairs=_QUICK_PAIRS if quick else _PAIRS,
        config={
            "weights": model.weights,
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
    print_result(report.to_json().rstrip() if as_json else str(report))


def baselines(
    data: Path,
    out: Path | None,
    size: int,
    *,
    pairs: int | None,
    profile: Path | None,
    quick: bool,
    ref: str | None,
    dtype: str,
    device: str | None,
    as_json: bool,
) -> None:
    """Compare the shipped plans with baselines and print the table.

    Raises:
        InputError: the plans or the profile were made for other weights.
        FileFormatError: the dataset, the profile or the weights cannot be used.
        MissingExtra: diffusers or the feature network is not installed.
    """
    from asymflow.bench.baselines import runner
    from asymflow.bench.baselines.protocol import FULL, QUICK

    model = _embedded(ref, dtype, device)
    shipped = {
        name: pipeline.plan_for(
            model, resolve.plan(GenerateOptions(plan=name)), (size, size), note=print_note
        )
        for name in NAMES
    }
    with planning.progress() as report:
        found = runner.compare(
            _as_embedded(model),
            shipped,
            data,
            size=size,
            pairs=pairs or (_QUICK_PAIRS if quick else _BASELINE_PAIRS),
            profile=None if profile is None else plan_files.load_profile(profile),
            budget=QUICK if quick else FULL,
            provenance=_header(model, shipped),
            out=out,
            cache=folders.cache() / "features",
            on_progress=report,
        )
    print_result(found.to_json() if as_json else str(found))


def strip(options: GenerateOptions, output: Path) -> None:
    """Generate one picture and write its timeline.

    Raises:
        InputError: the request is invalid, or the file cannot be written.
    """
    from asymflow.bench.plan_report.timeline import strip as draw

    require_writable(output, "Choose another place with -o.")
    wanted = resolve.spec(options, "png")
    model = pipeline.load(wanted.model, dtype=wanted.dtype, device=wanted.device)
    [job] = pipeline.jobs(model, wanted, note=print_note)
    draw(model.adapter, job.record.plan, job.request, output)
    print_result(str(output))


def plan(options: GenerateOptions, against: str | None, output: Path) -> None:
    """Generate one picture with a plan, another plan and the reference, and write a report.

    Raises:
        InputError: the request is invalid, or the file cannot be written.
        FileFormatError: a plan or the weights cannot be used.
        MissingExtra: the report is a PNG, and matplotlib is not installed.
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
    wanted = resolve.spec(options, "png")
    other = None if against is None else resolve.plan(GenerateOptions(plan=against))
    model = pipeline.load(wanted.model, dtype=wanted.dtype, device=wanted.device)
    [job] = pipeline.jobs(model, wanted, note=pipeline.no_note)
    size, record = job.request.size, job.record
    found = cost.account(
        model.adapter,
        pipeline.plan_for(model, wanted.plan, size, note=print_note),
        job.request,
        pipeline.reference(model, size),
        None if other is None else pipeline.plan_for(model, other, size, note=print_note),
    )
    if output.suffix.lower() == ".png":
        poster(found, output)
        print_result(str(output))
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
    print_result(str(output))


def speed(*, quick: bool, ref: str | None, device: str | None, as_json: bool) -> None:
    """Measure engine overhead over bare network calls, and these against matrix products.

    Raises:
        FileFormatError: the weights cannot be used.
    """
    repeats = _QUICK_REPEATS if quick else _REPEATS
    model = pipeline.load(ref, dtype="float32", device=device)
    card = model.card
    size = card.sizes.native
    plan = pipeline.default_plan(model, size)
    request = Request(card.calibration[0], size, guidance_scale=card.guidance)
    overhead = speeds.ratio(
        lambda: engine.run(model.adapter, plan, [request]),
        _bare_calls(model.adapter, plan, request),
        repeats=repeats,
    )

    def build(batch: int, dtype: torch.dtype) -> Callable[[], object]:
        name = str(dtype).removeprefix("torch.")
        adapter = pipeline.load(ref, dtype=name, device=device).adapter
        return _call(adapter, request, batch)

    table = speeds.efficiency_grid(
        build, batches=(8, 2), repeats=repeats, device=model.adapter.template.device
    )
    if as_json:
        efficiency = [{"rows": rows} | asdict(each) for (rows, _), each in table.items()]
        print_json(
            {
                provenance.KEY: _header(model, {plan.name: plan}),
                "model": model.adapter.name,
                "engine": asdict(overhead),
                "forward": efficiency,
            }
        )
        return
    print_result(
        f"a picture of {plan.forwards} forwards takes {overhead.a_ms:.0f} ms, "
        f"{overhead.median.value:.3f} times its bare network calls "
        f"({overhead.median.low:.3f} to {overhead.median.high:.3f})"
    )
    for (rows, _), each in table.items():
        print_result(
            f"a network call of {rows} pictures in {each.dtype} takes {each.forward_ms:.1f} ms: "
            f"{each.forward_gflops:.0f} GFLOP/s, {each.share.value:.0%} of bare matrix products "
            f"({each.share.low:.0%} to {each.share.high:.0%})"
        )


def _embedded(ref: str | None, dtype: str, device: str | None) -> pipeline.Model:
    """A model of the embedded kind, which can be compared with the drawings of the dataset.

    Raises:
        InputError: it is of another kind.
    """
    model = pipeline.load(ref, dtype=dtype, device=device)
    if model.card.asks != "prompt" or not model.card.styles:
        raise InputError(
            f"{model.card.title} makes other pictures than the drawings of this dataset, so they "
            "cannot be compared. Give weights of the embedded kind."
        )
    return model


def _as_embedded(model: pipeline.Model) -> EmbeddedAdapter:
    if not isinstance(model.adapter, EmbeddedAdapter):
        raise InputError(
            f"{model.card.title} is not of the embedded kind, whose network the caching methods "
            "change. Give weights of that kind."
        )
    return model.adapter


def _header(model: pipeline.Model, plans: Mapping[str, Plan]) -> dict[str, Any]:
    """The provenance of a measurement."""
    return provenance.header(
        weights=[model.adapter.name],
        plans=plans,
        dtype=model.dtype,
        device=profiler.machine(model.adapter)["device"],
    )


def _bare_calls(adapter: Adapter, plan: Plan, request: Request) -> Callable[[], object]:
    """The network calls of a picture, without the engine."""
    both, one = _call(adapter, request, 2), _call(adapter, request, 1)
    calls = [both if step.tier.guided else one for step in plan.steps]
    return lambda: [call() for call in calls]


def _call(adapter: Adapter, request: Request, batch: int) -> Callable[[], object]:
    """One network call of `batch` rows."""
    context, _ = adapter.encode([request] * batch)
    x_t = torch.randn(batch, adapter.channels, *request.size).to(adapter.template)
    t = torch.full((batch,), 0.5).to(adapter.template)

    def call() -> object:
        with torch.inference_mode():
            return adapter.denoise(x_t, t, context)

    return call
