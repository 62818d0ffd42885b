"""What a call of AUTOMATIC1111's API asks of a model of ours, and what is done in its place.

Its clients know steps and samplers, sizes of 512 pixels and negative prompts, whatever the model
is. So nothing is refused that has a nearest equivalent: the order has notes on all of those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asymflow.core.card import Card
from asymflow.core.errors import InputError
from asymflow.core.types import Plan
from asymflow.generation import styles
from asymflow.generation.spec import MAX_PROMPT, cut_text
from asymflow.planning.shelf import DEFAULT
from asymflow.server.lineup import About, Served
from asymflow.server.problems import ApiError
from asymflow.server.schemas import JobRequest
from asymflow.server.webui_schema import Img2Img, Txt2Img

AUTOMATIC = "Automatic"
"""The sampler that leaves the choice of the plan to the number of steps."""
_PAD = 2
"""`resize_mode` of pictures that are padded to the shape."""


@dataclass(frozen=True, slots=True)
class Upload:
    """Pictures that a call begins with, as uploads: their ids, and (height, width) of the first."""

    image: str
    size: tuple[int, int]
    mask: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """A parsed call.

    Attributes:
        count: number of pictures.
        plan: as measured at the native size; `job` has its name.
        notes: what was done in another way than asked for.
    """

    served: Served
    about: About
    job: JobRequest
    count: int
    plan: Plan
    notes: Sequence[str]


def order_of(served: Served, about: About, request: Txt2Img, start: Upload | None) -> Order:
    """The pictures that a call asks for.

    Raises:
        ApiError: the model is of classes and the prompt names none of them.
    """
    card, notes = about.card, list[str]()
    name = _plan(about, request, notes)
    height, width = _size(card, request, start, notes)
    job = JobRequest(
        model=served.id,
        prompt=_text("prompt", request.prompt, notes) if card.asks == "prompt" else "",
        label=_class(card, request.prompt) if card.asks == "class" else None,
        negative_prompt=_negative(card, request, notes),
        style=_style(card, request.styles, notes),
        width=width,
        height=height,
        quality=name,
        seed=None if request.seed < 0 else request.seed,
        guidance_scale=_scale(card, request, notes),
        image=None if start is None else start.image,
        mask=None if start is None else start.mask,
        strength=request.denoising_strength if isinstance(request, Img2Img) else None,
        fit="pad" if isinstance(request, Img2Img) and request.resize_mode == _PAD else "crop",
    )
    plan = about.plans.get(name) or next(iter(about.plans.values()))
    return Order(served, about, job, request.count, plan, notes)


def passes(plan: Plan, *, guided: bool) -> int:
    """Network passes of a picture."""
    return sum(step.passes(guided=guided) for step in plan.steps)


def nearest(plans: Mapping[str, Plan], wanted: int, *, guided: bool) -> str:
    """The plan with the number of passes nearest to that; of two, the one with more."""

    def distance(name: str) -> tuple[int, int]:
        found = passes(plans[name], guided=guided)
        return abs(found - wanted), -found

    return min(plans, key=distance)


def _plan(about: About, request: Txt2Img, notes: list[str]) -> str:
    """The plan that the sampler names, or the one nearest to the steps."""
    named = request.sampler.strip().lower()
    if named in about.plans:
        return named
    if request.sampler and named != AUTOMATIC.lower():
        notes.append(
            f"sampler {request.sampler[:64]!r}: a plan has its own; the samplers are "
            f"{', '.join((AUTOMATIC, *about.plans))}"
        )
    if request.steps is None:
        return about.usual
    scale = about.card.guidance if request.cfg_scale is None else request.cfg_scale
    guided = about.card.guided and scale != 1
    wanted = request.steps * (2 if guided else 1)
    # Of measured plans, if there are some: of the default one it is not known what it draws.
    plans = {
        name: plan for name, plan in about.plans.items() if name != DEFAULT or not about.measured
    }
    name = nearest(plans, wanted, guided=guided)
    found = passes(about.plans[name], guided=guided)
    if found != wanted:
        notes.append(
            f"steps {request.steps}: {wanted} passes of the network; the plan {name!r} is nearest, "
            f"with {found}"
        )
    return name


def _size(card: Card, request: Txt2Img, start: Upload | None, notes: list[str]) -> tuple[int, int]:
    """(height, width) that is drawn."""
    known = card.sizes
    if request.width is None and request.height is None:
        return known.native if start is None else known.nearest(start.size)
    height = request.height or request.width or known.native[0]
    width = request.width or height
    if known.possible((height, width)) and known.as_trained((height, width)):
        return height, width
    found = known.nearest((height, width))
    notes.append(f"size {width}x{height}: drawn at {found[1]}x{found[0]}, the nearest good size")
    return found


def _scale(card: Card, request: Txt2Img, notes: list[str]) -> float | None:
    if card.guided or request.cfg_scale in (None, 1.0):
        return request.cfg_scale
    notes.append(f"cfg_scale {request.cfg_scale:g}: {card.title} has no guidance")
    return None


def _negative(card: Card, request: Txt2Img, notes: list[str]) -> str:
    if card.negative or not request.negative_prompt.strip():
        return _text("negative_prompt", request.negative_prompt, notes) if card.negative else ""
    notes.append(f"negative_prompt: {card.title} knows none")
    return ""


def _text(field: str, text: str, notes: list[str]) -> str:
    if len(text) <= MAX_PROMPT:
        return text
    cut = cut_text(text)
    if cut != " ".join(text.split()):
        notes.append(f"{field}: cut from {len(text)} to {len(cut)} characters")
    return cut


def _style(card: Card, wanted: Sequence[str], notes: list[str]) -> str | None:
    """The first style that is known."""
    found = [styles.style_of(card, name) for name in wanted]
    known = [style.id for style in found if style is not None]
    strange = [name for name, style in zip(wanted, found, strict=True) if style is None]
    if strange:
        notes.append(f"styles {', '.join(repr(name[:64]) for name in strange[:8])}: unknown")
    if len(known) > 1:
        notes.append(f"styles: {known[0]!r} is used, and one only")
    return known[0] if known else None


def _class(card: Card, prompt: str) -> int:
    try:
        return card.label_of(prompt)
    except InputError as error:
        raise ApiError(400, str(error), param="prompt", code="invalid_value") from error
