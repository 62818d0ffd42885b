"""Conversion of API requests to jobs of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asymflow.core import tiles
from asymflow.core.card import Card
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.transforms import truncated
from asymflow.core.types import Plan, Tier
from asymflow.generation import pipeline
from asymflow.generation.metadata import Source
from asymflow.generation.pipeline import Model
from asymflow.generation.spec import (
    MAX_PROMPT,
    GenerationSpec,
    InputImage,
    PlanChoice,
    Reference,
    check_shapes,
    clean_text,
    random_seed,
)
from asymflow.io import images
from asymflow.server.asked import by_card, scale_of
from asymflow.server.jobs import Inputs
from asymflow.server.lineup import About
from asymflow.server.problems import ApiError, Refusal
from asymflow.server.prompt_matrix import Variant, variants
from asymflow.server.schemas import NO_REFERENCE, Asked, CompletedRequest, JobRequest, Slot
from asymflow.server.settings import COMBINATIONS
from asymflow.server.store import Store


def completed(
    about: About, request: JobRequest, literal: int | None
) -> tuple[CompletedRequest, tuple[Slot, ...]]:
    """The request with all defaults filled in, and its pictures, grouped by combination.

    Args:
        about: the model that it is for.
        request: as sent.
        literal: number of pictures of the prompt, in which braces are no choices.

    Raises:
        InputError: a prompt is empty or invalid text, or there are too many combinations.
        ApiError: the model is asked with something else, or cannot make that.
    """
    seed = random_seed() if request.seed is None else request.seed
    filled = by_card(about, request).model_copy(update={"seed": seed})
    if about.card.asks != "prompt":
        named = "" if filled.label is None else about.card.classes[filled.label]
        count = filled.n if literal is None else literal
        slots = tuple(Slot(label=None, prompt=named, seed=seed + i) for i in range(count))
        return filled, slots
    return filled, tuple(_slots(filled, seed, literal))


def _slots(request: CompletedRequest, seed: int, literal: int | None) -> list[Slot]:
    """The pictures of a prompt."""
    slots: list[Slot] = []
    plain = literal is not None
    styles = request.styles or (None,)
    found = [Variant(request.prompt, None)] if plain else variants(request.prompt, COMBINATIONS)
    if len(found) * len(styles) > COMBINATIONS:
        raise Refusal(
            f"{len(found)} combinations in {len(styles)} styles make {len(found) * len(styles)}, "
            f"more than the {COMBINATIONS} that are made at once. Leave some out.",
            "too_many_combinations",
            count=len(found) * len(styles),
            limit=COMBINATIONS,
        )
    for variant in found:
        prompt = _clean("prompt", variant.prompt)
        if not prompt:
            raise Refusal("The prompt is empty. Say what to draw.", "empty_prompt")
        slots += [
            Slot(label=variant.label, prompt=prompt, seed=seed + i, style=style)
            for style in styles
            for i in range(request.n if literal is None else literal)
        ]
    _clean("negative prompt", request.negative_prompt)
    return slots


def _clean(name: str, text: str) -> str:
    """`clean_text`, with a code for what people do most."""
    try:
        return clean_text(name, text)
    except InputError as error:
        characters = len(" ".join(text.split()))
        if characters <= MAX_PROMPT:
            raise
        raise Refusal(
            str(error), "prompt_too_long", characters=characters, limit=MAX_PROMPT
        ) from error


def plan(model: Model, request: CompletedRequest) -> Plan:
    """The plan of a picture, truncated to its strength."""
    made = pipeline.plan_for(model, _preset(model, request.quality), request.size)
    return truncated(made, request.path)


def chosen_plan(model: Model, quality: str, size: tuple[int, int]) -> Plan:
    """The whole plan of a quality at (height, width)."""
    return pipeline.plan_for(model, _preset(model, quality), size)


def work(plan: Plan, size: tuple[int, int], guidance: float) -> float:
    """The cost of a picture, in passes of the whole network over 64 x 64 pixels."""

    def shown(tier: Tier) -> float:
        if tier.tiles is not None:
            return tiles.pixels(size, tier.tiles)
        return size[0] * size[1] / tier.pool_factor**2

    return sum(step.passes(guided=guidance != 1) * shown(step.tier) / 64**2 for step in plan.steps)


def expected_work(card: Card, request: CompletedRequest) -> float:
    """About the cost of a picture, before the model is loaded and its plan known."""
    pixels = request.size[0] * request.size[1] / 64**2
    passes = 1 if scale_of(card, request) == 1 else 2
    return card.steps * passes * pixels * request.path


def prepare(
    model: Model,
    request: CompletedRequest,
    slot: Slot,
    given: Inputs,
) -> pipeline.Job:
    """One picture to make, from `inputs`.

    Raises:
        InputError: the model cannot serve it, or not from these pictures.
    """
    spec = replace(
        _spec(model, request, slot),
        image=given.image,
        mask=given.mask,
        reference=given.reference,
    )
    [job] = pipeline.jobs(model, spec)
    return job


def _spec(model: Model, request: CompletedRequest, slot: Slot) -> GenerationSpec:
    """One picture, without the pictures to start from."""
    return GenerationSpec(
        prompt=slot.prompt if model.card.asks == "prompt" else "",
        negative=clean_text("negative prompt", request.negative_prompt),
        style=slot.style or request.style,
        size=request.size,
        seed=slot.seed,
        count=1,
        guidance=request.guidance_scale,
        plan=_preset(model, request.quality),
        image=None,
        mask=None,
        strength=request.path,
        background=None,
        model=None,
        needs=None,
        dtype=None,
        device=None,
        label=None if request.label is None else str(request.label),
        languages=() if request.language is None else (request.language,),
    )


def check(model: Model | None, store: Store, request: CompletedRequest, owner: str) -> None:
    """Check whether a request can be served, without reading pixels.

    Args:
        model: if it is loaded; else it checks when the picture's turn comes.
        store: has the pictures to start from.
        request: completed.
        owner: of the request, and of the pictures that it may name.

    Raises:
        InputError: the model cannot serve it.
        ApiError: a picture that it names is gone.
    """
    if model is not None:
        first = Slot(label=None, prompt=request.prompt, seed=0)
        pipeline.check(model, _spec(model, request, first))
    if request.image is not None and not has_upload(store, request.image, owner):
        raise _gone("image", request.image)
    if request.parent is not None and not has_picture(store, request.parent, owner):
        raise _gone("parent", request.parent)
    if request.mask is not None and not has_upload(store, request.mask, owner):
        raise _gone("mask", request.mask)
    named = request.reference
    if named is not None and named != NO_REFERENCE and not has_upload(store, named, owner):
        raise _gone("reference", named)


def inputs(store: Store, request: CompletedRequest) -> Inputs:
    """The pictures of a request.

    The one to start from and the mask are cropped or padded to the requested aspect.

    Raises:
        InputError: one of them cannot be read, or the mask does not fit the picture.
        ApiError: one of them is gone.
    """
    return Inputs(*_begin(store, request), _reference(store, request))


def _begin(store: Store, request: CompletedRequest) -> tuple[InputImage | None, InputImage | None]:
    """The picture to start from and the mask."""
    source = _source(store, request)
    if source is None:
        return None, None
    name, path = source
    pixels = _read(path, images.read)
    image = InputImage(Source(name, images.digest(pixels)), pixels)
    mask = None
    if request.mask is not None:
        if not store.upload_path(request.mask).is_file():
            raise _gone("mask", request.mask)
        pixels = _read(store.upload_path(request.mask), images.read_mask)
        mask = InputImage(Source(f"{request.mask}.png", images.digest(pixels)), pixels)
        check_shapes(image, mask)
    if request.fit == "pad":
        image = InputImage(image.source, _padded(image.pixels, request.size))
        mask = mask and InputImage(mask.source, _padded(mask.pixels, request.size))
    return image, mask


def _reference(store: Store, request: CompletedRequest) -> Reference:
    """What the model looks at."""
    named = request.reference
    if named is None:
        return "library"
    if named == NO_REFERENCE:
        return "none"
    path = store.upload_path(named)
    if not path.is_file():
        raise _gone("reference", named)
    pixels = _read(path, images.read)
    return InputImage(Source(f"{named}.png", images.digest(pixels)), pixels)


def has_upload(store: Store, id: str, owner: str) -> bool:
    """Whether an upload of an owner still exists."""
    row = store.upload(id)
    return row is not None and row.owner == owner and store.upload_path(id).is_file()


def has_picture(store: Store, id: str, owner: str) -> bool:
    """Whether a finished picture of an owner still exists."""
    row = store.picture(id)
    return row is not None and row.owner == owner and store.picture_path(id).is_file()


def _source(store: Store, request: Asked) -> tuple[str, Path] | None:
    """The name and the file of the picture to start from."""
    if request.image is not None:
        name, path = request.image, store.upload_path(request.image)
    elif request.parent is not None:
        name, path = request.parent, store.picture_path(request.parent)
    else:
        return None
    if not path.is_file():
        raise _gone("parent" if request.image is None else "image", name)
    return f"{name}.png", path


def _gone(field: str, id: str) -> ApiError:
    return ApiError(
        404,
        f"There is no picture {id} for `{field}` any more. Send it again.",
        param=field,
        code="not_found",
    )


def _read(path: Path, read: Callable[[Path], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Read one of the server's files; errors do not reveal its folder."""
    try:
        return read(path)
    except FileFormatError as error:
        raise InputError(
            f"The picture {path.stem} is damaged on the server. Send or make it again."
        ) from error


def _preset(model: Model, quality: str | None) -> PlanChoice:
    # Weights of the embedded kind without such a plan use the default one of their family.
    return PlanChoice(preset=quality, lenient=model.embedded)


def _padded(array: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A picture [h, w, 4] or a mask [h, w], centred and padded to the aspect of a size."""
    height, width = array.shape[:2]
    add_h = max(0, round(width * size[0] / size[1]) - height)
    add_w = max(0, round(height * size[1] / size[0]) - width)
    around = [(add_h // 2, add_h - add_h // 2), (add_w // 2, add_w - add_w // 2)]
    return np.pad(array, [*around, (0, 0)][: array.ndim])
