"""Finds the plan for a MODEL: kept ones, the default of its family, or a file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import folder_paths

from asymflow.core.errors import InputError
from asymflow.core.requests import check_plan
from asymflow.core.types import Plan
from asymflow.io import folders
from asymflow.planning import binding
from asymflow.planning.plan_files import load_plan
from asymflow.planning.shelf import DEFAULT, NAMES, USUAL, Shelf

from .models import Model, model_of, moved

AUTO = "auto"
FOLDER = "asymflow_plans"
"""Of models/ in ComfyUI, where plan files are put."""
CHOICES = (AUTO, *reversed(NAMES), DEFAULT)
TOOLTIP = (
    "auto: this model's kept plan 'balanced', or 'best', or the default of its kind. best, ..., "
    "draft: kept plans of Measure model. default: needs no measuring. Or a file of "
    f"models/{FOLDER}."
)

_log = logging.getLogger("asymflow")

folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
folder_paths.folder_names_and_paths[FOLDER] = (
    folder_paths.folder_names_and_paths[FOLDER][0],
    {".json"},
)


def choices() -> list[str]:
    """What a node offers: names of plans, and plan files."""
    return [*CHOICES, *folder_paths.get_filename_list(FOLDER)]


@dataclass(frozen=True)
class Found:
    """The plan for a MODEL, and what there is to say of it in one line."""

    plan: Plan
    line: str

    def __str__(self) -> str:
        return f"{self.plan}\n{self.line}"


class _Whole:
    """A model that is shown whole pictures only, at full size, as far as plans are concerned."""

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return ()


def find(patcher: Any, choice: str, size: tuple[int, int], cfg: float) -> Found:
    """The plan of a choice for pictures of (height, width).

    Raises:
        InputError: there is none, it is for another kind of model, or needs what ComfyUI's models
            are not known to do.
        FileFormatError: the file is no plan.
    """
    model = model_of(patcher, size)
    plan = _chosen(model, choice, size, guided=cfg != 1)
    match = binding.match(plan, model.description)
    if match.level == "other":
        raise InputError(
            f"Plan {plan.name!r} {match.line}. Measure this model with the node Measure model, or "
            f"choose {DEFAULT!r}."
        )
    check_plan(_Whole(), plan, size)  # type: ignore[arg-type]
    lines = [match.line] if match.line else []
    wanted = plan.requires.size if plan.requires else None
    if wanted is not None and wanted != size:
        lines.append(f"was measured for {wanted[1]}x{wanted[0]}, and these are {size[1]}x{size[0]}")
    made = plan.evidence.made.get("guidance_scale") if plan.evidence else None
    if made is not None and float(made) != cfg:
        lines.append(f"was measured at cfg {made}, and this is {cfg:g}")
    ran = moved(plan, model)
    exact = match.level == "exact" and not lines
    if not exact:  # what was measured may not hold here
        ran = replace(ran, evidence=None)
    if exact:
        lines = ["was measured on this model"]
    said = "; it ".join(lines) or "is bound to no model"
    line = f"Plan {plan.name!r} {said}."
    family = plan.binding is not None and plan.binding.weights is None
    (_log.info if exact or family else _log.warning)("%s", line)
    return Found(ran, line)


def _chosen(model: Model, choice: str, size: tuple[int, int], *, guided: bool) -> Plan:
    if choice == AUTO:
        names = (USUAL, "best")
        return next(
            (plan for name in names if (plan := kept(model, name, size)) is not None), None
        ) or _default(model, guided=guided)
    if choice == DEFAULT:
        return _default(model, guided=guided)
    if choice in NAMES:
        plan = kept(model, choice, size)
        if plan is None:
            raise InputError(
                f"No plan {choice!r} is kept of this model ({model.description}) in "
                f"{Shelf(model.description).own}. Run the node Measure model once with it, or "
                f"choose {AUTO!r} or {DEFAULT!r}."
            )
        return plan
    path = folder_paths.get_full_path(FOLDER, choice)
    if path is None:
        raise InputError(
            f"There is no plan file {choice!r} in {folder_paths.get_folder_paths(FOLDER)[0]}. Put "
            f"it there and refresh, or choose one of {', '.join(CHOICES)}."
        )
    return load_plan(path)


def kept(model: Model, name: str, size: tuple[int, int]) -> Plan | None:
    """The kept plan of a MODEL, or else of what it was patched from."""
    for description in dict.fromkeys((model.description.weights, model.base.weights)):
        found = Shelf(replace(model.description, weights=description)).find(name, size)
        if found is not None:
            return found
    return None


def _default(model: Model, *, guided: bool) -> Plan:
    plan = model.default_plan(guided=guided)
    family = replace(model.description.binding, weights=None, fingerprint=None)
    return replace(plan, binding=family)


def fingerprint(choice: str) -> str:
    """Changes when another plan may be found: ComfyUI then runs the node again."""
    places = [folders.cache() / "plans", *map(Path, folder_paths.get_folder_paths(FOLDER))]
    seen = [
        (str(path), path.stat().st_mtime_ns)
        for place in places
        for path in sorted(place.glob("**/*.json"))
    ]
    return f"{choice} {hash(tuple(seen))}"


def beginning(patcher: Any, denoise: float) -> float:
    """The sigma at which a KSampler begins for that denoise."""
    if not 0 < denoise <= 1:
        raise InputError(
            f"denoise={denoise} is not in (0, 1]. At 1 nothing is left of the picture."
        )
    return float(patcher.get_model_object("model_sampling").percent_to_sigma(1.0 - denoise))


def check_negative(negative: Any, cfg: float) -> None:
    """Raise `InputError` where guidance has nothing to guide away from."""
    if negative is None and cfg != 1:
        raise InputError(
            f"cfg {cfg:g} guides away from a negative conditioning, and none is connected. Connect "
            "one, of an empty prompt for instance, or set cfg to 1."
        )


def check_whole(conds: Any) -> None:
    """Raise `InputError` where a conditioning is for a part of the picture only."""
    for kind, rows in conds.items():
        for cond in rows or ():
            part = next((name for name in ("area", "mask") if name in cond), None)
            if part is not None:
                raise InputError(
                    f"The {kind} conditioning is for a part of the picture only (it has "
                    f"{'an area' if part == 'area' else 'a mask'}), and plans are made for prompts "
                    "of the whole picture. Remove the node that sets it, or use another sampler "
                    "here."
                )
