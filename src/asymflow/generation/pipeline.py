"""From a generation spec to pictures: load the model, run the plan, keep the record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import cast

import torch

from asymflow._version import __version__
from asymflow.core import devices, engine, presets, schedules
from asymflow.core.adapter import Adapter, CardedAdapter, Described, UsesReferences, unwrapped
from asymflow.core.batcher import is_out_of_memory
from asymflow.core.card import Card, Carded, ShipsPlans, Style
from asymflow.core.errors import InputError
from asymflow.core.transforms import bare, pooled, truncated, with_pool_factors
from asymflow.core.types import Picture, Plan, Request
from asymflow.generation import metadata, styles, words
from asymflow.generation.metadata import Record
from asymflow.generation.pixels import from_rgba, to_rgba
from asymflow.generation.spec import GenerationSpec, PlanChoice
from asymflow.io import images
from asymflow.models import loading
from asymflow.models.embedded import former
from asymflow.models.loading import EMBEDDED
from asymflow.planning import binding
from asymflow.planning.shelf import DEFAULT, NAMES, USUAL, Shelf

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


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A loaded model.

    Attributes:
        adapter: of `asymflow.load`.
        card: what it is asked with.
        shelf: its plans.
        seconds: that loading took.
        ref: what it was loaded by; None for the embedded model.
    """

    adapter: CardedAdapter
    card: Card
    shelf: Shelf
    dtype: str
    device: str
    seconds: float
    ref: str | None = None

    @property
    def weights(self) -> str:
        """Hash of the weights."""
        return self.shelf.model.weights

    @property
    def embedded(self) -> bool:
        """Whether it is the model that comes with asymflow."""
        return self.ref in (None, EMBEDDED)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One picture to generate: the engine's request, and the record for its file."""

    request: Request
    record: Record


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedImage:
    """A finished picture and its share of the seconds of its batch."""

    job: Job
    picture: Picture
    seconds: float


def load(
    ref: str | None = None,
    *,
    dtype: str | None = None,
    device: str | None = None,
    needs: str | None = None,
    **options: object,
) -> Model:
    """Load a model, by default the one shipped with the package.

    Args:
        ref: as `asymflow.load` takes it.
        dtype: by default the fastest one of the device.
        device: by default a GPU if there is one.
        needs: hash that the weights must have.
        options: further ones of `asymflow.load`.

    Raises:
        InputError: no such model or device, or the weights differ from those of a repeated picture.
        FileFormatError: the file is not a model.
    """
    started = time.perf_counter()
    where = devices.choose(device)
    kind = devices.fast_dtype(where) if dtype is None else getattr(torch, dtype)
    adapter: Adapter = loading.load(ref or EMBEDDED, device=where, dtype=kind, **options)
    name = str(kind).removeprefix("torch.")
    model = of(adapter, dtype=name, device=where.type, ref=ref)
    if needs is not None and needs != model.weights:
        raise InputError(
            f"That picture was made with the weights {needs[:12]}, and these are "
            f"{model.weights[:12]}. "
            f"{former.recovery(needs) or 'Pass the model it was made with as --model REF.'}"
        )
    return replace(model, seconds=time.perf_counter() - started)


def of(adapter: Adapter, *, dtype: str, device: str, ref: str | None = None) -> Model:
    """A model in memory.

    Raises:
        InputError: it has no card, or no description that plans can be bound to.
    """
    if not isinstance(adapter, Carded) or not isinstance(adapter, Described):
        missing = "card" if not isinstance(adapter, Carded) else "description"
        raise InputError(
            f"The model {adapter.name} has no {missing}, so it is not known what it is asked with. "
            f"Add the property `{missing}` to its adapter, see asymflow.core.card."
        )
    path = None if ref is None else Path(ref).expanduser()
    beside = path if path is not None and path.is_dir() else None
    carded = cast("CardedAdapter", adapter)
    shelf = Shelf(carded.description, beside)
    return Model(carded, carded.card, shelf, dtype, device, 0.0, ref)


def jobs(model: Model, wanted: GenerationSpec, *, note: Note = _log.warning) -> list[Job]:
    """Make one job per seed.

    Args:
        model: makes the pictures.
        wanted: what to make.
        note: called where the plan was measured on other weights, and where the size is not one of
            training.

    Raises:
        InputError: the model cannot serve the prompt, the class, the style or the size.
    """
    size = wanted.size or _size(model.card, wanted)
    if not model.card.sizes.as_trained(size) and model.card.sizes.possible(size):
        (height, width), (h, w) = size, model.card.sizes.native
        note(
            f"{width}x{height} is not a size that this model was trained on: {w}x{h} is. Pictures "
            "may be worse, and nothing that was measured holds for them."
        )
    plan = plan_for(model, wanted.plan, size, note=note)
    first = _job(model, wanted, size, plan)
    # Check first, before input pictures are resized to a size that might be refused.
    engine.check(model.adapter, first.request)
    request = _with_inputs(model.card, first.request, wanted)
    return [
        Job(replace(request, seed=seed), replace(first.record, seed=seed))
        for seed in range(wanted.seed, wanted.seed + wanted.count)
    ]


def check(model: Model, wanted: GenerationSpec) -> None:
    """Check whether pictures can be made, without making a plan or reading pixels.

    Raises:
        InputError: the model cannot serve the prompt, the class, the style or the size.
    """
    size = wanted.size or model.card.sizes.native
    request, _, _ = _request(model, wanted, size, drawn(model, wanted))
    engine.check(model.adapter, request)


def make(model: Model, jobs: Sequence[Job], advance: Advance) -> Generator[GeneratedImage]:
    """Make pictures in order, in batches if the model supports them.

    Raises:
        InputError: memory is exhausted.
    """
    together = min(model.adapter.batch or _TOGETHER, _TOGETHER)
    for begin in range(0, len(jobs), together):
        part = jobs[begin : begin + together]
        requests = [job.request for job in part]
        started = time.perf_counter()
        observer = _observer(model.adapter, requests, advance)
        try:
            results = engine.run(model.adapter, part[0].record.plan, requests, observer=observer)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(_no_memory(model, requests)) from error
        seconds = (time.perf_counter() - started) / len(part)
        for job, result in zip(part, results, strict=True):
            yield GeneratedImage(job, to_rgba(result.picture), seconds)


def _no_memory(model: Model, requests: Sequence[Request]) -> str:
    height, width = requests[0].size
    what = f"{len(requests)} pictures" if len(requests) > 1 else "A picture"
    fewer = "fewer pictures (-n), " if len(requests) > 1 else ""
    half = "" if model.dtype == "bfloat16" else ", or half precision (--dtype bfloat16)"
    return (
        f"{what} of {width}x{height} did not fit into the memory of {model.device}, beside the "
        f"weights of {model.card.title}. Ask for {fewer}a smaller size{half}."
    )


def background(model: Model, record: Record) -> images.Colour | None:
    """The colour that a picture is laid on in its file; None for a transparent one."""
    # A picture without transparency is the same on any background, and needs no alpha in its file.
    name = record.background or (None if model.card.alpha else "white")
    return None if name is None else images.colour(name)


def steps(jobs: Sequence[Job]) -> int:
    """Total number of steps of all jobs."""
    return sum(len(truncated(job.record.plan, job.request.strength).steps) for job in jobs)


def forwards(job: Job) -> int:
    """Network passes (NFE) of a job."""
    return engine.forwards(truncated(job.record.plan, job.request.strength), job.request)


def plan_for(
    model: Model, chosen: PlanChoice, size: tuple[int, int], *, note: Note = _log.warning
) -> Plan:
    """The plan for pictures of (height, width).

    Args:
        model: runs the plan.
        chosen: a plan, the name of one, or a grid.
        size: (height, width).
        note: called where the requested plan was measured on other weights of the same kind, or
            where there is none of that name and another one serves.

    Raises:
        InputError: the requested plan was made for another kind of model, or does not exist.
    """
    if chosen.plan is not None:
        _check_binding(model, chosen.plan, size, note)
        return chosen.plan
    if chosen.grid is not None and chosen.preset is None:
        return _as_trained(chosen.grid.plan(size), model, size)
    name = chosen.preset or USUAL
    asked = chosen.preset is not None and not chosen.lenient
    plan = None if name == DEFAULT else named_plan(model, name, size)
    if plan is not None and not asked and not _exact(model, plan):
        plan = None
    if plan is None:
        if asked and name != DEFAULT:
            raise InputError(_no_plan(model, name, size))
        return _as_trained(default_plan(model, size), model, size)
    _check_binding(model, plan, None, note)
    plan = with_pool_factors(plan, model.adapter.pool_factors(size))
    return _as_trained(plan, model, size)


def named_plan(model: Model, name: str, size: tuple[int, int]) -> Plan | None:
    """A measured plan by its name: one that was kept, or one that the model brings."""
    kept = model.shelf.find(name, size)
    adapter = unwrapped(model.adapter)
    if kept is not None or not isinstance(adapter, ShipsPlans):
        return kept
    return adapter.shipped_plan(name, size)


def plans_of(model: Model, size: tuple[int, int]) -> dict[str, Plan]:
    """All plans that were measured on these weights, from the fastest on, and the default."""
    found = {name: named_plan(model, name, size) for name in NAMES}
    here = [name for name, plan in found.items() if plan is not None and _exact(model, plan)]
    return {
        name: plan_for(model, PlanChoice(preset=name), size, note=no_note)
        for name in (*here, DEFAULT)
    }


def usual_plan(model: Model, size: tuple[int, int]) -> str:
    """The name of the plan for those who do not choose."""
    found = plans_of(model, size)
    return USUAL if USUAL in found else next(reversed(found))


def _exact(model: Model, plan: Plan) -> bool:
    return binding.match(plan, model.shelf.model).level == "exact"


def nfe(card: Card, plan: Plan) -> int:
    """Network passes of a picture by a plan, with the model's own guidance scale."""
    return sum(step.passes(guided=card.guidance != 1) for step in plan.steps)


def default_plan(model: Model, size: tuple[int, int]) -> Plan:
    """The plan of the family, which needs no measuring."""
    return model.adapter.default_plan(size)


def guidance_interval(model: Model, size: tuple[int, int]) -> tuple[float, float]:
    """(low, high) in t in which guidance is worth its pass, for pictures of (height, width)."""
    interval = model.card.guidance_interval
    if model.shelf.model.shift_rule is None:
        return interval
    return presets.guidance_interval(size, interval)


def reference(
    model: Model, size: tuple[int, int], guided: tuple[float, float] | None = None
) -> Plan:
    """The reference plan for (height, width), guided in an interval of t, by default the model's.

    Its pictures are the limit that the model leads to in many steps.
    """
    interval = guidance_interval(model, size) if guided is None else guided
    fine = schedules.fine_plan(size, guidance_interval=interval)
    return _as_trained(fine, model, size)


def _no_plan(model: Model, name: str, size: tuple[int, int]) -> str:
    known = ", ".join(plans_of(model, size))
    how = "" if model.ref is None else f" --model {model.ref}"
    return (
        f"The model {model.adapter.name} has no plan {name!r}: there is {known}. Make it with "
        f"`asymflow plan{how}`, which measures the model, or use another."
    )


def _as_trained(plan: Plan, model: Model, size: tuple[int, int]) -> Plan:
    """The plan, run at about the largest trained size for larger pictures, if the model can.

    At full size, a model repeats objects like a mosaic. A plan that was measured at this size
    stays unchanged.
    """
    side, native = min(size), min(model.card.sizes.native)
    factors = model.adapter.pool_factors(size)
    if side <= 1.5 * native or plan.evidence is not None or not factors:
        return plan
    return pooled(plan, next((f for f in (1, *factors) if side <= f * native), factors[-1]))


def _check_binding(model: Model, plan: Plan, size: tuple[int, int] | None, note: Note) -> None:
    """Raise `InputError` for a plan of another kind of model; note that of other weights."""
    found = binding.match(plan, model.shelf.model, size)
    if found.level == "other":
        raise InputError(
            f"The plan {plan.name!r} {found.line}. Make one for it with `asymflow plan --model "
            "REF`, or use --steps."
        )
    if found.line:
        bound = binding.binding_of(plan)
        where = former.recovery(bound.weights or "") if bound is not None else None
        note(
            f"The plan {plan.name!r} {found.line}: errors that were measured may differ here. "
            f"`asymflow plan verify` measures them.{f' {where}' if where else ''}"
        )


def _observer(adapter: Adapter, requests: Sequence[Request], advance: Advance) -> engine.Observer:
    """Reports steps and previews of all pictures."""
    done = [0] * len(requests)
    newest: dict[int, torch.Tensor] = {}

    def look() -> list[Picture]:
        return [
            to_rgba(engine.pictures(adapter, [requests[i]], newest[i][None])[0])
            for i in sorted(newest)
        ]

    def observe(frame: engine.Frame) -> None:
        before = sum(done)
        for move, x_0 in zip(frame.moves, frame.x_0, strict=True):
            # Steps that reuse estimates are part of the move before them.
            done[move.picture] = move.count if move.last else move.index + 1
            newest[move.picture] = x_0
        advance(sum(done) - before, look)

    return observe


def _request(
    model: Model, wanted: GenerationSpec, size: tuple[int, int], asked: tuple[str, str]
) -> tuple[Request, Style | None, int | None]:
    """The first picture, without input pictures; its style, and its class.

    `asked` has the texts that the model is asked with, see `drawn`.
    """
    card = model.card
    inputs, style, label = _inputs(card, wanted, *asked)
    scale = card.guidance if wanted.guidance is None else wanted.guidance
    if scale != 1 and not card.guided:
        raise InputError(
            f"{card.title} has no guidance, so a scale of {scale:g} is not possible. Leave "
            "--guidance out."
        )
    if not card.sizes.possible(size):
        raise InputError(no_size(card, size))
    return Request(inputs, size, wanted.seed, scale), style, label


def drawn(model: Model, wanted: GenerationSpec) -> tuple[str, str]:
    """What the model is asked with for prompt and negative prompt.

    That is a translation, for one that knows English only; those of a replay are read already.
    """
    if wanted.drawn is not None:
        return wanted.drawn, wanted.negative
    asked = words.understand(model.adapter, wanted.prompt, wanted.languages)
    if not wanted.negative:
        return asked.drawn, ""
    languages = (*((asked.locale,) if asked.locale else ()), *wanted.languages)
    return asked.drawn, words.understand(model.adapter, wanted.negative, languages).drawn


def no_size(card: Card, size: tuple[int, int]) -> str:
    """Why pictures of (height, width) are not possible."""
    sizes = card.sizes
    begin = f"Size {size[1]}x{size[0]} is not possible: {card.title} makes pictures of "
    if sizes.fixed:
        return f"{begin}{sizes.native[1]}x{sizes.native[0]} only. Ask for that size."
    height, width = (
        min(max(round(side / sizes.multiple) * sizes.multiple, sizes.smallest), sizes.largest)
        for side in size
    )
    return (
        f"{begin}{sizes.smallest} to {sizes.largest} pixels a side, in multiples of "
        f"{sizes.multiple}. Try {width}x{height}."
    )


def _job(model: Model, wanted: GenerationSpec, size: tuple[int, int], plan: Plan) -> Job:
    card = model.card
    asked, negative = drawn(model, wanted)
    request, style, label = _request(model, wanted, size, (asked, negative))
    record = Record(
        prompt=card.classes[label] if label is not None else wanted.prompt,
        negative=negative,
        style=None if style is None else style.id,
        seed=wanted.seed,
        size=size,
        guidance=request.guidance_scale,
        plan=bare(plan),
        grid=None if plan.name == wanted.plan.preset else wanted.plan.grid,
        model=model.adapter.name,
        weights=model.weights,
        dtype=model.dtype,
        device=model.device,
        image=wanted.image and wanted.image.source,
        mask=wanted.mask and wanted.mask.source,
        strength=wanted.strength,
        background=wanted.background,
        versions={"asymflow": __version__, "torch": torch.__version__},
        reference=_reference(model, wanted, request),
        label=label,
        suffix=style.suffix or None if style is not None else None,
        drawn=None if asked == wanted.prompt else asked,
    )
    return Job(request, record)


def _inputs(
    card: Card, wanted: GenerationSpec, prompt: str, negative: str
) -> tuple[dict[str, object], Style | None, int | None]:
    """The inputs of a request by the card of the model; its style, and its class.

    Args:
        card: of the model.
        wanted: the pictures.
        prompt, negative: that the model is asked with.

    Raises:
        InputError: the model is asked with something else.
    """
    inputs: dict[str, object] = {}
    style: Style | None = None
    label = None if wanted.label is None else card.label_of(wanted.label)
    if label is not None:
        inputs["label"] = label
    if wanted.prompt and card.asks != "prompt" and label is None:
        raise InputError(_not_by_prompt(card, wanted.prompt))
    if card.asks == "prompt":
        if not wanted.prompt:
            raise InputError('There is no prompt. Say what to draw: asymflow generate "a fox".')
        inputs["prompt"] = prompt
        if wanted.style is not None:
            style = _style(card, wanted)
            if style.suffix:
                inputs["prompt"] = f"{prompt}, {style.suffix}"
            else:
                inputs["style"] = style.id
    elif wanted.style is not None:
        raise InputError(f"{card.title} knows no styles. Leave --style out.")
    if wanted.negative and not card.negative:
        raise InputError(f"{card.title} knows no negative prompt. Leave --negative out.")
    if card.negative:
        inputs["negative"] = negative
    if wanted.image is not None and not card.image:
        raise InputError(f"{card.title} cannot begin with a picture. Leave --image out.")
    if wanted.reference != "library":
        inputs["reference"] = None if wanted.reference == "none" else wanted.reference.pixels
    return inputs, style, label


def _style(card: Card, wanted: GenerationSpec) -> Style:
    assert wanted.style is not None, "callers have looked"
    if wanted.suffix is not None:  # of a repeated picture, whatever the style is now
        return Style(wanted.style, wanted.style, wanted.suffix)
    found = styles.style_of(card, wanted.style)
    if found is not None:
        return found
    known = [each.id for each in styles.styles_of(card)]
    close = get_close_matches(wanted.style, known, 1, 0.4)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise InputError(f"Unknown style {wanted.style!r}. {hint}Styles: {', '.join(known)}.")


def _not_by_prompt(card: Card, prompt: str) -> str:
    if card.asks == "nothing":
        return (
            f"{card.title} cannot be asked with a prompt: it makes pictures like those of its "
            "training. Leave the prompt out."
        )
    try:
        card.label_of(prompt)
    except InputError:
        few = ", ".join(card.classes[:5])
        return (
            f"{card.title} knows classes and no prompts. Choose one of {len(card.classes)} with "
            f"--class: {few}, ..."
        )
    return f"{card.title} knows classes and no prompts. Ask for this one with --class {prompt!r}."


def _reference(model: Model, wanted: GenerationSpec, request: Request) -> metadata.Reference | None:
    """The references of the picture, for its record.

    Raises:
        InputError: a reference was given to a model without references, or the library has
            changed since the repeated picture was made.
    """
    adapter = unwrapped(model.adapter)
    if not model.card.references or not isinstance(adapter, UsesReferences):
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
    found = metadata.Reference(
        "library", adapter.find_references(request)[1], adapter.library_digest
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


def _with_inputs(card: Card, request: Request, wanted: GenerationSpec) -> Request:
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
    image = from_rgba(images.fit(wanted.image.pixels, request.size), card.channels)
    return replace(request, image=image, strength=wanted.strength, mask=mask)


def _size(card: Card, wanted: GenerationSpec) -> tuple[int, int]:
    """The model's own size; with an input picture, the nearest trained size."""
    return card.sizes.native if wanted.image is None else card.sizes.nearest(wanted.image.size)
