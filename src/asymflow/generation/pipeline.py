"""From a generation spec to pictures: load the model, run the plan, keep the record."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch

from asymflow._version import __version__
from asymflow.core import controller, devices, engine, presets, schedules
from asymflow.core.errors import InputError
from asymflow.core.transforms import bare, pooled, truncated, with_pool_factors
from asymflow.core.types import Picture, Plan, Request
from asymflow.generation import metadata
from asymflow.generation.metadata import Record
from asymflow.generation.spec import GenerationSpec, PlanChoice
from asymflow.io import images
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded import plans
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.models.embedded.styles import STYLES
from asymflow.planning import binding

_log = logging.getLogger("asymflow.generation")

Note = Callable[[str], None]
"""Called with a line that is worth knowing."""


def no_note(line: str) -> None:
    """Says nothing."""


Look = Callable[[], Sequence[Picture]]
Advance = Callable[[int, Look], None]
"""Progress callback: the number of further steps done, and a function for previews."""

_TOGETHER = 16
"""Pictures per batch, if the model supports several per call."""
_SIDES = range(32, 129, 8)
"""Sides to choose from for an input picture without a requested size: the trained ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A loaded model."""

    adapter: EmbeddedAdapter
    dtype: str
    device: str
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One picture to generate: the engine's request, and the record for its file."""

    request: Request
    record: Record


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedImage:
    """A finished picture and its share of the seconds of its batch.

    The record of its job includes the decisions.
    """

    job: Job
    picture: Picture
    seconds: float


def load(
    weights: Path | None, *, dtype: str | None, device: str | None, needs: str | None = None
) -> Model:
    """Load a model file, by default the one shipped with the package.

    Args:
        weights: the file.
        dtype: by default the fastest one of the device.
        device: by default a GPU if there is one.
        needs: SHA-256 that the file must have.

    Raises:
        InputError: no such device, or the weights differ from those of a repeated picture.
        FileFormatError: the file is not a model.
    """
    started = time.perf_counter()
    where = devices.choose(device)
    kind = embedded.fast_dtype(where) if dtype is None else getattr(torch, dtype)
    adapter = embedded.load(weights, device=where, dtype=kind)
    if needs is not None and needs != adapter.weights_hash:
        raise InputError(
            f"That picture was made with the weights {needs[:12]}, and these are "
            f"{adapter.weights_hash[:12]}. Pass the file it was made with as --weights FILE."
        )
    name = str(kind).removeprefix("torch.")
    return Model(adapter, name, where.type, time.perf_counter() - started)


def jobs(model: Model, wanted: GenerationSpec, *, note: Note = _log.warning) -> list[Job]:
    """Make one job per seed.

    Args:
        model: makes the pictures.
        wanted: what to make.
        note: called where the plan was measured on other weights.

    Raises:
        InputError: the model cannot serve the style or the size.
    """
    size = wanted.size or _size(model.adapter, wanted)
    plan = plan_for(model, wanted.plan, size, note=note)
    first = _job(model, wanted, size, plan)
    # Check first, before input pictures are resized to a size that might be refused.
    engine.check(model.adapter, first.request)
    request = _with_inputs(first.request, wanted)
    return [
        Job(replace(request, seed=seed), replace(first.record, seed=seed))
        for seed in range(wanted.seed, wanted.seed + wanted.count)
    ]


def make(model: Model, jobs: Sequence[Job], advance: Advance) -> Generator[GeneratedImage]:
    """Make pictures in order, in batches if the model supports them."""
    together = min(model.adapter.batch or _TOGETHER, _TOGETHER)
    for begin in range(0, len(jobs), together):
        part = jobs[begin : begin + together]
        requests = [job.request for job in part]
        started = time.perf_counter()
        observer = _observer(model.adapter, requests, advance)
        results = engine.run(model.adapter, part[0].record.plan, requests, observer=observer)
        seconds = (time.perf_counter() - started) / len(part)
        for job, result in zip(part, results, strict=True):
            record = replace(job.record, decisions=result.decisions)
            yield GeneratedImage(replace(job, record=record), result.picture, seconds)


def steps(jobs: Sequence[Job]) -> int:
    """Total number of steps of all jobs."""
    return sum(len(truncated(job.record.plan, job.request.strength).steps) for job in jobs)


def forwards(job: Job) -> int:
    """Network passes (NFE) of a job, with the decisions in its record."""
    plan = truncated(job.record.plan, job.request.strength)
    return engine.forwards(controller.taken(plan, job.record.decisions), job.request)


def style_id(name: str | None) -> str | None:
    """The id of a style given by any of its names: "3d" is "fluent-3d"."""
    if name is None:
        return None
    plain = name.strip().lower()
    return next((style.id for style in STYLES if plain in (style.id, *style.names)), plain)


def plan_for(
    model: Model, chosen: PlanChoice, size: tuple[int, int], *, note: Note = _log.warning
) -> Plan:
    """The plan for pictures of (height, width).

    Args:
        model: runs the plan.
        chosen: a plan, the name of one, or a grid.
        size: (height, width).
        note: called where the requested plan was measured on other weights of the same kind.

    Raises:
        InputError: the requested plan was made for another kind of model.
    """
    if chosen.plan is not None:
        _check_binding(model, chosen.plan, size, note)
        return chosen.plan
    if chosen.preset is not None:
        measured = plans.measured(chosen.preset)
        requested = chosen.grid is None
        if requested:
            _check_binding(model, measured, None, note)
        if requested or binding.match(measured, model.adapter.description).level == "exact":
            plan = plans.load(chosen.preset, size)
            return _as_trained(
                with_pool_factors(plan, model.adapter.pool_factors(size)), model, size
            )
    assert chosen.grid is not None, "without a plan or a name there is a grid"
    return _as_trained(chosen.grid.plan(size), model, size)


def reference(model: Model, size: tuple[int, int]) -> Plan:
    """The reference plan for (height, width)."""
    fine = schedules.fine_plan(size, guidance_interval=presets.guidance_interval(size))
    return _as_trained(fine, model, size)


def _as_trained(plan: Plan, model: Model, size: tuple[int, int]) -> Plan:
    """The plan, run at about the largest trained size for larger pictures.

    At full size, the model repeats objects like a mosaic. A plan that was measured at this size
    stays unchanged.
    """
    side = min(size)
    if side <= 1.5 * embedded.NATIVE or plan.evidence is not None:
        return plan
    pool_factors = (1, *model.adapter.pool_factors(size))
    return pooled(
        plan, next((f for f in pool_factors if side <= f * embedded.NATIVE), pool_factors[-1])
    )


def _check_binding(model: Model, plan: Plan, size: tuple[int, int] | None, note: Note) -> None:
    """Raise `InputError` for a plan of another kind of model; note that of other weights."""
    found = binding.match(plan, model.adapter.description, size)
    if found.level == "other":
        raise InputError(
            f"The plan {plan.name!r} {found.line}. Make one for it with `asymflow profile` and "
            "`asymflow plan`, or use --steps."
        )
    if found.line:
        note(
            f"The plan {plan.name!r} {found.line}: errors that were measured may differ here. "
            "`asymflow plan verify` measures them."
        )


def _observer(
    adapter: EmbeddedAdapter, requests: Sequence[Request], advance: Advance
) -> engine.Observer:
    """Reports steps and previews of all pictures."""
    done = [0] * len(requests)
    newest: dict[int, torch.Tensor] = {}

    def look() -> list[Picture]:
        return [engine.pictures(adapter, [requests[i]], newest[i][None])[0] for i in sorted(newest)]

    def observe(frame: engine.Frame) -> None:
        before = sum(done)
        for move, x_0 in zip(frame.moves, frame.x_0, strict=True):
            # Adaptive pictures may skip steps, or split them into two moves.
            done[move.picture] = move.count if move.last else move.index + 1
            newest[move.picture] = x_0
        advance(sum(done) - before, look)

    return observe


def _job(model: Model, wanted: GenerationSpec, size: tuple[int, int], plan: Plan) -> Job:
    inputs: dict[str, object] = {"prompt": wanted.prompt, "negative": wanted.negative}
    style = style_id(wanted.style)
    if style is not None:
        inputs["style"] = style
    if wanted.reference != "library":
        inputs["reference"] = None if wanted.reference == "none" else wanted.reference.pixels
    request = Request(inputs, size, wanted.seed, wanted.guidance)
    record = Record(
        prompt=wanted.prompt,
        negative=wanted.negative,
        style=style,
        seed=wanted.seed,
        size=size,
        guidance=wanted.guidance,
        plan=bare(plan),
        grid=None if plan.name == wanted.plan.preset else wanted.plan.grid,
        model=model.adapter.name,
        weights=model.adapter.weights_hash,
        dtype=model.dtype,
        device=model.device,
        image=wanted.image and wanted.image.source,
        mask=wanted.mask and wanted.mask.source,
        strength=wanted.strength,
        background=wanted.background,
        versions={"asymflow": __version__, "torch": torch.__version__},
        reference=_reference(model.adapter, wanted, request),
    )
    return Job(request, record)


def _reference(
    adapter: EmbeddedAdapter, wanted: GenerationSpec, request: Request
) -> metadata.Reference | None:
    """The references of the picture, for its record.

    Raises:
        InputError: a reference was given to a model without references, or the library has
            changed since the repeated picture was made.
    """
    if not adapter.references:
        if wanted.reference not in ("library", "none"):
            raise InputError(
                f"The model {adapter.name} does not use references. Drop --reference, or use "
                "--image to start from a picture."
            )
        return None
    if wanted.reference == "none":
        return metadata.Reference("none")
    if wanted.reference != "library":
        return metadata.Reference("given", source=wanted.reference.source)
    library = adapter.library
    found = metadata.Reference(
        "library", adapter.find_references(request)[1], None if library is None else library.digest
    )
    if wanted.recorded_reference is not None and wanted.recorded_reference != found:
        was, now = (
            "; ".join(each.shown) or "nothing" for each in (wanted.recorded_reference, found)
        )
        raise InputError(
            f"That picture was drawn from {was}, of another library of drawings; this one has "
            f"{now}. Use the version of asymflow that made it, or give --reference."
        )
    return found


def _with_inputs(request: Request, wanted: GenerationSpec) -> Request:
    if wanted.image is None:
        return request
    mask = None
    if wanted.mask is not None:
        mask = images.fit(wanted.mask.pixels, request.size)
        if wanted.mask.pixels.any() and not mask.any():
            height, width = request.size
            raise InputError(
                f"All that the mask shows is cut off where the picture is cropped to "
                f"{width}x{height}, so nothing would be made anew. Ask for a size of the "
                "picture's own shape."
            )
    image = images.fit(wanted.image.pixels, request.size)
    return replace(request, image=image, strength=wanted.strength, mask=mask)


def _size(adapter: EmbeddedAdapter, wanted: GenerationSpec) -> tuple[int, int]:
    """The model's own size; with an input picture, the nearest trained size."""
    if wanted.image is None:
        return embedded.DEFAULT_SIZE
    height, width = wanted.image.size

    def distance(size: tuple[int, int]) -> float:
        aspect = math.log(size[0] * width / (size[1] * height))
        return 4 * abs(aspect) + abs(math.log(size[0] * size[1] / (height * width)))

    for size in sorted(product(_SIDES, _SIDES), key=distance):
        with suppress(InputError):
            adapter.check(Request({}, size))
            return size
    return embedded.DEFAULT_SIZE
