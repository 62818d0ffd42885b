"""`asymflow bench`: run the suites of `asymflow.bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from asymflow.bench import pairs, provenance
from asymflow.bench import speed as speeds
from asymflow.bench.quality import quality as measure
from asymflow.cli import planning
from asymflow.cli.options import DATASET
from asymflow.cli.outputs import require_writable
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.core import engine, presets
from asymflow.core.adapter import Adapter
from asymflow.core.errors import InputError
from asymflow.core.types import Plan, Profile, Request
from asymflow.generation import pipeline, resolve
from asymflow.generation.resolve import GenerateOptions
from asymflow.generation.spec import GenerationSpec
from asymflow.io import folders
from asymflow.io.files import write_text
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.planning import plan_files, profiler
from asymflow.planning.shelf import NAMES

if TYPE_CHECKING:
    from asymflow.bench.baselines.limit_report import LimitReport
    from asymflow.bench.baselines.report import BaselinesReport

_PAIRS, _BASELINE_PAIRS, _QUICK_PAIRS, _FEWEST_PAIRS = 512, 192, 32, 24
_PICTURES, _QUICK_PICTURES = 64, 16
_SIDE, _SIDES = 64, (32, 64, 128)
_APPLE = "a red apple"
_REPEATS, _QUICK_REPEATS = 20, 5


def quality(
    data: Path,
    out: Path | None,
    size: int,
    *,
    quick: bool,
    references: bool,
    options: GenerateOptions,
    ref: str | None,
    dtype: str,
    device: str | None,
    as_json: bool,
) -> None:
    """Run the quality suite on a plan and print the report.

    Raises:
        InputError: no references are asked for of a model that has none to leave out.
        FileFormatError: the dataset or the weights are invalid.
        MissingExtra: the feature network is not installed.
    """
    model = _embedded(ref, dtype, device)
    if not references and not model.card.references:
        raise InputError(
            f"The model {model.adapter.name} does not use references, so there are none to leave "
            "out. Drop --no-references."
        )
    plan = pipeline.plan_for(model, resolve.plan(options), (size, size), note=print_note)
    without: Mapping[str, Any] = {} if references else {"reference": None}

    def generate(jobs: Sequence[pairs.Job], side: int) -> NDArray[np.float32]:
        requests = [
            Request(
                {"prompt": prompt, "style": style, **without}, (side, side), seed, presets.GUIDANCE
            )
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
            **({} if references else {"references": "none"}),
        },
        provenance=_header(model, {plan.name: plan}),
        out=out,
        cache=folders.cache() / "features",
        progress=sys.stderr.isatty(),
    )
    print_result(report.to_json().rstrip() if as_json else str(report))


def baselines(
    data: Path | None,
    out: Path | None,
    size: tuple[int, int] | None,
    *,
    pictures: int | None,
    profile: Path | None,
    quick: bool,
    ref: str | None,
    dtype: str,
    device: str | None,
    as_json: bool,
) -> None:
    """Compare plans of a model with baselines and print the table.

    The judges are the drawings of a dataset, if one is given or if the model is of the embedded
    kind and there is one; and else the limit of the model.

    Raises:
        InputError: a dataset is given for another kind of model; or the plans or the profile were
            made for other weights.
        FileFormatError: the dataset, the profile or the weights cannot be used.
        MissingExtra: diffusers or the feature network is not installed.
    """
    if out is not None:
        require_writable(out / "baselines.json", "Choose another place with --out.")
    profiled = None if profile is None else plan_files.load_profile(profile)
    if data is not None:
        model = _embedded(ref, dtype, device)
    else:
        model = pipeline.load(ref, dtype=dtype, device=device)
        if isinstance(model.adapter, EmbeddedAdapter):
            if DATASET.is_dir():
                data = DATASET
            else:
                print_note(
                    f"There is no dataset in {DATASET}: samplers are compared with the limit of "
                    "the model. `asymflow data build` makes it."
                )
    try:
        if data is None:
            found = _by_limit(model, out, size, pictures, profiled, quick=quick)
        else:
            found = _by_dataset(model, data, out, size, pictures, profiled, quick=quick)
    except KeyboardInterrupt:
        if out is not None:
            print_note(f"Pictures are kept in {out / 'cache'}: the same command resumes.")
        raise
    print_result(found.to_json().rstrip() if as_json else str(found))


def _by_limit(
    model: pipeline.Model,
    out: Path | None,
    size: tuple[int, int] | None,
    pictures: int | None,
    profile: Profile | None,
    *,
    quick: bool,
) -> LimitReport:
    from asymflow.bench.baselines import limit
    from asymflow.bench.baselines.protocol import FULL, QUICK

    size = size or model.card.sizes.native
    with planning.progress() as report:
        return limit.compare(
            model,
            size,
            pictures=pictures or (_QUICK_PICTURES if quick else _PICTURES),
            profile=profile,
            budget=QUICK if quick else FULL,
            provenance=_header(model, pipeline.plans_of(model, size)),
            out=out,
            on_progress=report,
        )


def _by_dataset(
    model: pipeline.Model,
    data: Path,
    out: Path | None,
    size: tuple[int, int] | None,
    pairs: int | None,
    profile: Profile | None,
    *,
    quick: bool,
) -> BaselinesReport:
    from asymflow.bench.baselines import runner
    from asymflow.bench.baselines.protocol import FULL, QUICK

    side, other = size or (_SIDE, _SIDE)
    if side != other or side not in _SIDES:
        raise InputError(
            f"The drawings of the dataset are squares of {', '.join(map(str, _SIDES))} pixels, and "
            f"{other}x{side} is none of them. Choose another --size."
        )
    if pairs is not None and pairs < _FEWEST_PAIRS:
        raise InputError(
            f"{pairs} pairs are too few to compare with drawings. Ask for --pairs {_FEWEST_PAIRS} "
            "or more."
        )
    shipped = {
        name: pipeline.plan_for(
            model, resolve.plan(GenerateOptions(plan=name)), (side, side), note=print_note
        )
        for name in NAMES
    }
    with planning.progress() as report:
        return runner.compare(
            _as_embedded(model),
            shipped,
            data,
            size=side,
            pairs=pairs or (_QUICK_PAIRS if quick else _BASELINE_PAIRS),
            profile=profile,
            budget=QUICK if quick else FULL,
            provenance=_header(model, shipped),
            out=out,
            cache=folders.cache() / "features",
            on_progress=report,
        )


def strip(options: GenerateOptions, output: Path) -> None:
    """Generate one picture and write its timeline.

    Raises:
        InputError: the request is invalid, or the file cannot be written.
    """
    from asymflow.bench.plan_report.timeline import strip as draw

    require_writable(output, "Choose another place with -o.")
    model, wanted = _one_picture(options)
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
    other = None
    if against is not None:
        other = resolve.plan(GenerateOptions(plan=against, model=options.model))
    model, wanted = _one_picture(options)
    [job] = pipeline.jobs(model, wanted, note=pipeline.no_note)
    size, record = job.request.size, job.record
    found = cost.account(
        model.adapter,
        pipeline.plan_for(model, wanted.plan, size, note=print_note),
        job.request,
        pipeline.reference(model, size),
        None if other is None else pipeline.plan_for(model, other, size, note=print_note),
        subject=model.card.words(job.request.inputs),
    )
    if output.suffix.lower() == ".png":
        poster(found, output)
        print_result(str(output))
        return
    made = {
        "model": record.model,
        "size": f"{size[1]}x{size[0]}",
        **({"style": record.style or "as prompted"} if model.card.asks == "prompt" else {}),
        "seed": str(record.seed),
        "guidance": f"{record.guidance:g}",
        **profiler.machine(model.adapter),
    }
    write_text(output, page(found, made))
    print_result(str(output))


def _one_picture(options: GenerateOptions) -> tuple[pipeline.Model, GenerationSpec]:
    """The model, and what to draw with it: if nothing is said, something that it knows.

    Raises:
        InputError: the request is invalid.
        FileFormatError: a plan or the weights cannot be used.
    """
    unsaid = options.prompt is None and options.label is None
    if unsaid and options.model in (None, resolve.EMBEDDED):
        options = replace(options, prompt=_APPLE)
    wanted = resolve.spec(options, "png")
    model = pipeline.load(wanted.model, dtype=wanted.dtype, device=wanted.device)
    if unsaid and model.card.asks == "prompt":
        wanted = replace(wanted, prompt=_APPLE)
    elif unsaid and model.card.asks == "class":
        wanted = replace(wanted, label=str(model.card.calibration[0]["label"]))
    return model, wanted


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
        f"a picture of {engine.forwards(plan, request)} forwards takes {overhead.a_ms:.0f} ms, "
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
    guided = request.guidance_scale != 1
    calls = [
        both if step.guides(guided=guided) else one
        for step in plan.steps
        for _ in range(step.evaluations)
    ]
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
