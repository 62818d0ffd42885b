"""Resolve and validate what pictures are asked with, before a model is loaded.

These are the options of a command line, or the columns of a row, which have their names. Missing
values come from the picture given as `--like`, if any, otherwise from `asymflow.core.presets`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from asymflow.core import presets
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.transforms import bare
from asymflow.core.types import SOLVERS, Plan
from asymflow.generation import inputs, metadata
from asymflow.generation.metadata import Record
from asymflow.generation.spec import (
    GenerationSpec,
    InputImage,
    PlanChoice,
    clean_text,
    guidance_of,
    random_seed,
    seed_of,
)
from asymflow.io import images
from asymflow.io.images import Format
from asymflow.planning import plan_files
from asymflow.planning.effort import EFFORTS, Effort
from asymflow.planning.prediction import Cost
from asymflow.planning.shelf import DEFAULT, NAMES

EMBEDDED = "embedded"
DTYPES = ("float32", "bfloat16", "float16")
MAX_JPEG_PLAN = 40_000
"""Bytes of a plan as JSON; the header of a JPEG has 65,502 for all of a picture's record."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """Options as given; None if absent."""

    prompt: str | None = None
    negative: str | None = None
    style: str | None = None
    size: str | None = None
    seed: int | None = None
    count: int = 1
    steps: int | None = None
    solver: str | None = None
    guidance: float | None = None
    guidance_interval: str | None = None
    plan: str | None = None
    image: Path | None = None
    mask: Path | None = None
    strength: float | None = None
    background: str | None = None
    transparent: bool = False
    reference: str | None = None
    like: Path | None = None
    model: str | None = None
    label: str | None = None
    dtype: str | None = None
    device: str | None = None
    languages: tuple[str, ...] = ()


def spec(
    options: GenerateOptions, format: Format, chosen: PlanChoice | None = None
) -> GenerationSpec:
    """Validate options and fill in missing values.

    Args:
        options: as given.
        format: of the file.
        chosen: what `plan` made of the same options, if that is known.

    Raises:
        InputError: a value is invalid, or two contradict each other.
        FileFormatError: a file cannot be used.
    """
    like = None if options.like is None else _record(options.like)
    count = _count(options.count)
    guidance = _first(options.guidance, like and like.guidance, None)
    guidance = None if guidance is None else guidance_of(guidance)
    negative = _first(options.negative, like and like.negative, "")
    if options.negative and guidance == 1:
        raise InputError(
            "--negative says what to steer away from, and --guidance 1 does not steer. "
            "Raise --guidance or drop --negative."
        )
    image, mask = inputs.find(options.image, options.mask, options.like, like)
    size = size_of(options.size) if options.size is not None else (like and like.size)
    chosen = chosen or plan(options, like)
    if format == "jpeg" and chosen.plan is not None:
        _check_header(chosen.plan)
    return GenerationSpec(
        prompt=_prompt(options, like),
        negative=clean_text("negative prompt", negative),
        style=_first(options.style, like and like.style, None),
        size=size,
        seed=seed_of(_first(options.seed, like and like.seed, random_seed()), count),
        count=count,
        guidance=guidance,
        plan=chosen,
        image=image,
        mask=mask,
        strength=_strength(options, like, image, mask),
        background=_background(options, like, format),
        model=options.model,
        needs=like and like.weights,
        dtype=known_dtype(_first(options.dtype, like and like.dtype, None)),
        device=_first(options.device, like and like.device, None),
        reference=inputs.reference(options.reference, options.like, like),
        recorded_reference=like and _recorded_reference(options, like),
        label=_label(options, like),
        suffix=like and _recorded_suffix(options, like),
        drawn=like and _recorded_prompt(options, like),
        languages=options.languages,
    )


def specs(options: GenerateOptions, prompts: Sequence[str], format: Format) -> list[GenerationSpec]:
    """`spec` for several prompts with the same options."""
    return [spec(replace(options, prompt=prompt), format) for prompt in prompts]


def dtype(name: str | None) -> str:
    """Validate a dtype for measurements; the default is float32.

    Raises:
        InputError: the dtype is unknown.
    """
    return known_dtype(name) or DTYPES[0]


def cost_of(unit: str) -> Cost:
    """Validate the unit of a cost.

    Raises:
        InputError: the unit is unknown.
    """
    found = next((each for each in get_args(Cost) if each == unit), None)
    if found is None:
        raise InputError(f"Unknown cost {unit!r}. {nearest(unit, get_args(Cost))}")
    return found


def effort_of(level: str) -> Effort:
    """What fits of plans may take.

    Raises:
        InputError: the level is unknown.
    """
    if level not in EFFORTS:
        raise InputError(f"Unknown effort {level!r}. {nearest(level, tuple(EFFORTS))}")
    return EFFORTS[level]


def nearest(value: str, choices: Sequence[str]) -> str:
    """A hint for an unknown value: the closest choice and all choices."""
    close = get_close_matches(value.lower(), choices, 1, 0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Choose one of {', '.join(choices)}."


def known_dtype(name: str | None) -> str | None:
    """Validate a dtype for pictures; None for the fastest of the device.

    Raises:
        InputError: the dtype is unknown.
    """
    if name is not None and name not in DTYPES:
        raise InputError(f"Unknown dtype {name!r}. {nearest(name, DTYPES)}")
    return name


def _recorded_reference(options: GenerateOptions, like: Record) -> metadata.Reference | None:
    """The reference drawings that a replay must find again, unless options change them."""
    changed = (options.prompt, options.style, options.reference) != (None, None, None)
    return None if changed else like.reference


def _recorded_suffix(options: GenerateOptions, like: Record) -> str | None:
    """What a style added to the prompt then, unless another one is asked for."""
    return None if options.style is not None else like.suffix


def _recorded_prompt(options: GenerateOptions, like: Record) -> str | None:
    """What a replayed picture was asked with, unless there is another prompt."""
    if options.prompt is not None or like.label is not None:
        return None
    return like.drawn or like.prompt


def _label(options: GenerateOptions, like: Record | None) -> str | None:
    if options.label is not None:
        return options.label
    return None if like is None or like.label is None else str(like.label)


def _first(option: T | None, like: T | None, default: T) -> T:
    if option is not None:
        return option
    return default if like is None else like


def _record(path: Path) -> Record:
    text = _record_of_svg(path) if path.suffix.lower() == ".svg" else images.read_record(path)
    if text is None:
        raise FileFormatError(
            f"{path} does not say how it was made: it is not from asymflow, or another program "
            "removed that. Give a prompt instead of --like."
        )
    return metadata.from_json(text, str(path))


def _record_of_svg(path: Path) -> str | None:
    try:
        return images.record_in_xmp(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"Cannot read the picture {path}: {error}.") from error


def _prompt(options: GenerateOptions, like: Record | None) -> str:
    """The prompt; empty for a model other than the embedded one, whose card is not known yet."""
    prompt = options.prompt
    missing = "There is no prompt." if prompt is None else "The prompt is empty."
    if prompt is None and like is not None:
        prompt = "" if like.label is not None else like.prompt
    prompt = clean_text("prompt", prompt or "")
    needed = options.model in (None, EMBEDDED) and _label(options, like) is None
    if not prompt and needed:
        raise InputError(f'{missing} Say what to draw: asymflow generate "a fox".')
    return prompt


def size_of(text: str) -> tuple[int, int]:
    """Parse a size, "N" or "WxH", to (height, width).

    Raises:
        InputError: the text is not a size.
    """
    found = re.fullmatch(r"(\d{1,6})(?:[xX×](\d{1,6}))?", text.strip())
    if found is None:
        raise InputError(f"{text!r} is not a size. Give pixels, such as 64, or WxH, such as 64x96.")
    width = int(found[1])
    height = int(found[2] or width)
    if not width or not height:
        raise InputError(f"A picture of {width}x{height} has no pixels. Try --size 64.")
    return height, width


def _count(count: int) -> int:
    if count < 1:
        raise InputError(f"-n {count} asks for no picture. Give 1 or more.")
    return count


def plan(options: GenerateOptions, like: Record | None = None) -> PlanChoice:
    """Resolve the plan or the grid.

    Raises:
        InputError: options are invalid or contradict each other.
        FileFormatError: the plan is a file that cannot be used.
    """
    changes = _grid_changes(options)
    if options.plan is not None:
        if changes:
            names = ", ".join("--" + name.replace("_", "-") for name in changes)
            raise InputError(f"--plan already decides {names}. Give the one or the other.")
        if options.plan in presets.GRIDS and options.model in (None, EMBEDDED):
            return PlanChoice(grid=presets.GRIDS[options.plan])  # which a replay can change
        if options.plan == DEFAULT:
            return PlanChoice(preset=DEFAULT)
        if options.plan in NAMES:
            return PlanChoice(preset=options.plan)
        return PlanChoice(_short_enough(load_plan(options.plan)))
    if like is not None and not changes and options.size is None:
        return PlanChoice(_short_enough(like.plan), grid=like.grid)
    base = (like and like.grid) or presets.DEFAULT
    if changes or (like and like.grid):
        return PlanChoice(grid=replace(base, **changes))
    return PlanChoice()


def _grid_changes(options: GenerateOptions) -> Mapping[str, Any]:
    changes: dict[str, Any] = {}
    if options.steps is not None:
        changes["steps"] = options.steps
    if options.solver is not None:
        if options.solver not in SOLVERS:
            raise InputError(
                f"Unknown solver {options.solver!r}. {nearest(options.solver, SOLVERS)}"
            )
        changes["solver"] = options.solver
    if options.guidance_interval is not None:
        changes["guidance_interval"] = _interval(options.guidance_interval)
    return changes


def _interval(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(low), float(high)
    except ValueError:
        raise InputError(
            f"{text!r} is not a guidance interval. Give LOW:HIGH in t, where 1 is noise and 0 is "
            "the picture, such as 0.1:1."
        ) from None


def load_plan(name: str) -> Plan:
    """The plan of a file; a name that is none is answered with those there are."""
    path = Path(name)
    if not path.exists() and not path.suffix and len(path.parts) == 1:
        raise InputError(
            f"There is no plan called {name!r}, and no such file. "
            f"{nearest(name, (*NAMES, DEFAULT))} Or give the path of a plan file."
        )
    return plan_files.load_plan(path)


def _short_enough(plan: Plan) -> Plan:
    if len(plan.steps) > presets.MAX_STEPS:
        raise InputError(
            f"The plan {plan.name!r} has {len(plan.steps)} steps, more than the "
            f"{presets.MAX_STEPS} that a picture can record. Use a shorter one."
        )
    return plan


def _check_header(plan: Plan) -> None:
    """Raise `InputError` for a plan that the header of a JPEG has no room for."""
    length = len(json.dumps(plan_files.plan_to_json(bare(plan))))
    if length > MAX_JPEG_PLAN:
        raise InputError(
            f"The plan {plan.name!r} takes {length} bytes in the record of a picture, and a JPEG "
            f"has room for {MAX_JPEG_PLAN}. Use --format png or webp."
        )


def _strength(
    options: GenerateOptions, like: Record | None, image: InputImage | None, mask: InputImage | None
) -> float:
    if image is None:
        if options.strength is not None:
            raise InputError(
                "--strength says how far to go from a picture. Add --image FILE, or drop it."
            )
        return 1.0
    usual = presets.IMAGE_STRENGTH if mask is None else presets.MASK_STRENGTH
    recorded = like.strength if like is not None and like.image is not None else None
    strength = _first(options.strength, recorded, usual)
    if not 0 < strength <= 1:
        raise InputError(
            f"Strength {strength} is not in (0, 1]. 1 repaints everything; smaller values stay "
            "closer to the picture."
        )
    return strength


def _background(options: GenerateOptions, like: Record | None, format: Format) -> str | None:
    if options.transparent:
        if options.background is not None:
            raise InputError(
                "--transparent and --background contradict each other. Give one of them."
            )
        if format == "jpeg":
            raise InputError("JPEG knows no transparency. Use --format png or webp.")
        return None
    background = _first(options.background, like and like.background, None)
    if background is None and format == "jpeg":
        return "white"
    if background is not None:
        images.colour(background)
    return background
