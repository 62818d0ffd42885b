"""What a request asks of a model, by its card: defaults filled in, or why it cannot be made."""

from __future__ import annotations

from asymflow.core.card import Card
from asymflow.core.errors import InputError
from asymflow.generation import pipeline, styles
from asymflow.planning.shelf import DEFAULT, NAMES
from asymflow.server.lineup import About
from asymflow.server.problems import ApiError
from asymflow.server.schemas import NO_REFERENCE, Asked, CompletedRequest, JobRequest


def by_card(about: About, request: JobRequest) -> CompletedRequest:
    """The request with its class, size and quality as the model knows them.

    Raises:
        ApiError: the model is asked with something else, or cannot make that.
    """
    card = about.card
    label = _label(card, request)
    height, width = card.sizes.native
    height, width = request.height or height, request.width or width
    if not card.sizes.possible((height, width)):
        raise _refused(
            "width",
            pipeline.no_size(card, (height, width)),
            "impossible_size",
            width=width,
            height=height,
        )
    for style in (request.style, *request.styles):
        if style is None or styles.style_of(card, style) is not None:
            continue
        known = ", ".join(each.id for each in styles.styles_of(card))
        field = "styles" if request.styles else "style"
        raise _refused(
            field,
            f"Unknown style {style[:64]!r}. Styles: {known}."
            if known
            else f"{card.title} knows no styles. Leave `{field}` out.",
            "unknown_style",
            style=style[:64],
        )
    if request.negative_prompt and not card.negative:
        raise _refused(
            "negative_prompt",
            f"{card.title} knows no negative prompt. Leave `negative_prompt` out.",
            "not_supported",
        )
    if request.guidance_scale not in (None, 1.0) and not card.guided:
        raise _refused(
            "guidance_scale",
            f"{card.title} has no guidance. Leave `guidance_scale` out.",
            "not_supported",
        )
    if request.starts and not card.image:
        field = "image" if request.image is not None else "parent"
        message = f"{card.title} cannot begin with a picture. Leave `{field}` out."
        raise _refused(field, message, "not_supported")
    if request.mask is not None and not card.inpaint:
        message = f"{card.title} cannot repaint a part of a picture. Leave it out."
        raise _refused("mask", message, "not_supported")
    if request.reference not in (None, NO_REFERENCE) and not card.references:
        raise _refused(
            "reference",
            f"{card.title} looks at no references. Leave `reference` out, or choose a model whose "
            "card has them.",
            "no_references",
        )
    filled = {
        "label": label,
        "width": width,
        "height": height,
        "quality": quality(about, request.quality),
    }
    return CompletedRequest.model_validate(request.model_dump() | filled)


def quality(about: About, wanted: str | None) -> str:
    """The name of a plan of the model, by default its usual one.

    Raises:
        ApiError: it has no plan of that name.
    """
    if wanted is None:
        return about.usual
    if wanted in about.plans or (about.embedded and wanted in (*NAMES, DEFAULT)):
        return wanted
    known = ", ".join(about.plans)
    unmeasured = "" if about.measured else " Others come into being when the model is measured."
    raise _refused(
        "quality",
        f"{about.card.title} has no plan {wanted[:40]!r}: there is {known}.{unmeasured}",
        "unknown_quality",
        quality=wanted[:40],
    )


def scale_of(card: Card, request: Asked) -> float:
    """The effective guidance scale."""
    return card.guidance if request.guidance_scale is None else request.guidance_scale


def _label(card: Card, request: JobRequest) -> int | None:
    """The class that is asked for, after what the model is asked with was checked."""
    if card.asks != "class" and request.label is not None:
        instead = "Give a `prompt`." if card.asks == "prompt" else "Leave `label` out."
        raise _refused("label", f"{card.title} knows no classes. {instead}", "not_supported")
    if card.asks == "prompt":
        if not request.prompt.strip():
            raise _refused("prompt", "The prompt is empty. Say what to draw.", "empty_prompt")
        return None
    if request.prompt.strip():
        instead = (
            f"Give one of its {len(card.classes)} classes as `label`, by number or name."
            if card.asks == "class"
            else "Leave `prompt` out."
        )
        message = f"{card.title} cannot be asked with a prompt. {instead}"
        raise _refused("prompt", message, "not_supported")
    if card.asks == "nothing":
        return None
    if request.label is None:
        raise _refused(
            "label",
            f"There is no class. Give one of the {len(card.classes)} of {card.title} as `label`, "
            "by number or name.",
            "no_class",
            classes=len(card.classes),
        )
    try:
        return card.label_of(str(request.label))
    except InputError as error:
        raise _refused("label", str(error), "unknown_class") from error


def _refused(param: str, message: str, code: str, **values: str | int) -> ApiError:
    return ApiError(400, message, param=param, code=code, values=values)
