"""`accelerate`: a pipeline that makes the steps of a plan, and is otherwise the same pipeline."""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from asymflow.core.checks import as_path, each_instance, whole
from asymflow.core.errors import InputError
from asymflow.core.types import Plan
from asymflow.integrations.diffusers import auto, hub
from asymflow.integrations.diffusers.families import family_of
from asymflow.integrations.diffusers.hub import FOLDER
from asymflow.integrations.diffusers.measuring import measuring
from asymflow.integrations.diffusers.original import NAME, default_steps, original
from asymflow.integrations.diffusers.runs import run
from asymflow.io import folders
from asymflow.models.diffusers.pipelines import STRENGTH, Call, Family, adapt, bound, flat, name_of
from asymflow.planning.plan_files import load_plan, save_plan

P = TypeVar("P")

AUTO = "auto"

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

_log = logging.getLogger("asymflow")


@dataclass(frozen=True, slots=True, eq=False)
class Acceleration:
    """The additional state of an accelerated pipeline.

    Attributes:
        base: that pipeline.
        plan: None for its own schedule, whose steps every call chooses.
    """

    base: Any
    family: Family
    plan: Plan | None


def accelerate(
    pipe: P,
    plan: Plan | Path | str = AUTO,
    *,
    steps: int | None = None,
    examples: Sequence[Call] = (),
    family: Family | None = None,
    folder: Path | str | None = None,
) -> P:
    """The same pipeline, faster: called in the same way, it makes the steps of a plan.

    What is returned shares all components with `pipe` and is an instance of its class; `pipe`
    itself stays as it was. The number of steps in a call is the plan's, whatever the call says. The
    plan is the attribute `asymflow_plan`: print it for what it does, costs and keeps.

    Args:
        pipe: a pixel-space pipeline of diffusers.
        plan: "auto" measures the model once, for the cheapest plan that comes as near to its limit
            as the pipeline's own sampler, and keeps it beside the model, or in the user's cache
            where the model has no folder that can be written to; "original" is the
            pipeline's own schedule. Or a plan, a plan file, the name of one beside the model, in
            its folder or on the hub it was loaded from, or a repository with one, "owner/name".
        steps: of "auto", where that is not fast enough: the best plan for the price of so many full
            estimates (two passes of the network where it is guided). What it keeps is in the plan.
        examples: arguments that the pipeline is called with while it is measured, all of the size
            and guidance that it will be used with. By default a few prompts, or none.
        family: how an unknown pipeline calls its network.
        folder: of the model; by default the one that the pipeline was loaded from.

    Raises:
        MissingExtra: diffusers is not installed.
        InputError: the pipeline cannot be translated, the plan was made for another model, or
            `steps` are asked of a plan that has its own.
        FileFormatError: a plan file is missing or damaged.
    """
    if steps is not None and (plan != AUTO or whole("steps", steps, -(2**63)) < 2):
        raise InputError(
            f"steps={steps} is not possible with the plan {getattr(plan, 'name', plan)!r}. Give 2 "
            "or more with plan='auto', or leave it out."
        )
    known: Acceleration | None = getattr(pipe, "_asymflow", None)
    base: Any = pipe if known is None else known.base
    family = family_of(base, family if family is not None or known is None else known.family)
    family.convention(base)
    folder = _home(base) if folder is None else as_path("folder", folder)
    each_instance("examples", examples, Mapping, "Pass calls: examples=[{'prompt': 'a fox'}, ...].")
    found: Plan | None
    match plan:
        case Plan():
            found = _checked(plan, base, family)
        case Path():
            found = _checked(load_plan(plan), base, family)
        case "auto":
            price = None if steps is None else whole("steps", steps, 2)
            found = _auto(base, family, examples, folder, price)
        case "original":
            original(base, family, default_steps(base))
            found = None
        case str():
            found = _checked(_named(plan, base, folder), base, family)
        case _:  # pyright: ignore[reportUnnecessaryComparison]: whoever calls may not check types
            raise InputError(
                f"plan={plan!r} is no plan. Pass an asymflow.Plan, the path of a plan file, "
                f"{AUTO!r}, {NAME!r}, or the name of a plan."
            )
    return _revived(type(base), {**vars(base), "_asymflow": Acceleration(base, family, found)})


def _auto(
    base: Any, family: Family, examples: Sequence[Call], folder: Path | None, steps: int | None
) -> Plan:
    """A plan that was kept for this model and use; otherwise a new one, which is kept."""
    if not examples and "image" in inspect.signature(base.__call__).parameters:
        raise InputError(
            f"{type(base).__name__} begins with a picture, so there is nothing to measure it with. "
            "Say how you call it: examples=[{'prompt': ..., 'image': ...}, ...]."
        )
    calls = auto.examples_of(base, examples)
    uses = [{**auto.conditions(base, family, call), **_beginning(base, call)} for call in calls]
    for index, use in enumerate(uses):
        if use != uses[0]:
            raise InputError(
                f"examples[{index}] is called for {_told(use)}, and examples[0] for "
                f"{_told(uses[0])}. A plan is made for one use: give examples that share it, and "
                "make a plan for each."
            )
    begun = {**_beginning(base, calls[0]), "steps": "" if steps is None else str(steps)}
    wanted = {"adapter": name_of(base, family), **auto.conditions(base, family, calls[0]), **begun}
    places = _places(wanted, folder)
    kept = _kept(places, wanted)
    if kept is not None:
        return kept
    with measuring(base):
        kept = _kept(places, wanted)  # by another thread, meanwhile
        if kept is not None:
            return kept
        plan = auto.make(base, family, adapt(base, family), calls, steps)
    if plan.evidence is not None:
        made = {**plan.evidence.made, **{key: value for key, value in begun.items() if value}}
        plan = replace(plan, evidence=replace(plan.evidence, made=made))
    for path in places:
        # A plan for another use of the same weights stays; one for other weights is of no more use.
        if path.exists() and _made_for(load_plan(path), {"adapter": wanted["adapter"]}):
            continue
        try:
            save_plan(plan, path)
        except OSError as error:
            _log.info("Cannot keep the plan as %s (%s).", path, error.strerror)
        else:
            _log.info("Kept as %s.", path)
            return plan
    _log.warning("The plan is not kept: cannot write any of %s.", ", ".join(map(str, places)))
    return plan


def _told(use: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in use.items())


def _kept(places: Sequence[Path], wanted: Mapping[str, str]) -> Plan | None:
    """The plan that was made for this model and use."""
    known = [load_plan(path) for path in places if path.exists()]
    return next((plan for plan in known if _made_for(plan, wanted)), None)


def _beginning(base: Any, call: Call) -> dict[str, str]:
    """What a plan is made for besides, where the pipeline is given a picture to begin with."""
    arguments = bound(base, call)
    if "image" not in arguments:
        return {}
    told = {name: arguments[name] for name in (STRENGTH, "noise_level") if name in arguments}
    return {"pipeline": type(base).__name__, **{name: f"{told[name]:g}" for name in told}}


def _places(wanted: Mapping[str, str], folder: Path | None) -> list[Path]:
    """Where a plan may be kept: beside the model, or else with the user's caches."""
    use = "-".join(value for key, value in wanted.items() if value and key != "adapter")
    own = folders.cache() / "plans" / f"{wanted['adapter'].replace(':', '-')}-{use}.json"
    if folder is None:
        return [own]
    return [folder / FOLDER / "plan.json", folder / FOLDER / f"plan-{use}.json", own]


def _made_for(plan: Plan, wanted: Mapping[str, str]) -> bool:
    made = plan.evidence.made if plan.evidence is not None else {}
    return all(made.get(key, "") == value for key, value in wanted.items())


def _checked(plan: Plan, base: Any, family: Family) -> Plan:
    """The plan, if it can run and was not measured on another model."""
    for step in plan.steps:
        if step.tier.pool_factor not in (1, *family.factors):
            raise InputError(
                f"Plan {plan.name!r} asks for tier {step.tier.name!r}, a picture pooled by "
                f"{step.tier.pool_factor}, and {type(base).__name__} is not declared to have "
                "learnt that. Make a plan for it with plan='auto', or declare Family(factors=...)."
            )
    if plan.evidence is None:
        return plan
    name, made = name_of(base, family), plan.evidence.made.get("adapter")
    if made != name:
        raise InputError(
            f"Plan {plan.name!r} was made for {made}, and this model is {name}: its weights, its "
            "schedule or its scale of noise differ. Make one for it with plan='auto', or drop what "
            "was measured and try it anyway: Plan(plan.name, plan.steps)."
        )
    return plan


def _named(plan: str, base: Any, folder: Path | None) -> Plan:
    """A plan file, a plan beside the model by its name, or that of a repository."""
    if Path(plan).suffix == ".json":
        return load_plan(Path(plan))
    if _REPOSITORY.fullmatch(plan):
        return hub.pull(plan)
    beside = None if folder is None else folder / FOLDER
    if beside is not None and (beside / f"{plan}.json").exists():
        return load_plan(beside / f"{plan}.json")
    origin = str(getattr(base, "name_or_path", None))
    if folder is None and _REPOSITORY.fullmatch(origin):
        return hub.pull(origin, name=plan)
    names = sorted(path.stem for path in beside.glob("*.json")) if beside is not None else []
    raise InputError(
        f"There is no plan called {plan!r} beside this model. Choose one of "
        f"{', '.join([AUTO, NAME, *names])}, or give the path of a plan file or a repository with "
        "a plan, 'owner/name'."
    )


def _home(pipe: Any) -> Path | None:
    """The folder that a pipeline was loaded from."""
    path = getattr(pipe, "name_or_path", None)
    return Path(path) if path and Path(path).is_dir() else None


@cache
def _subclass(kind: type[Any]) -> type[Any]:
    """The pipeline's class with another `__call__`, under its name: files say what they always did.

    A class of its own, since `pipe(...)` looks `__call__` up there and not in the instance.
    """
    own = kind.__call__

    @functools.wraps(own)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = known_of(self)
        if known is None:
            return own(self, *args, **kwargs)
        mine = functools.partial(own, self)
        arguments = flat(inspect.signature(mine).bind(*args, **kwargs))
        plan = known.plan
        if plan is None:
            plan = original(self, known.family, arguments["num_inference_steps"])
        return run(self, kind, known.family, plan, arguments)

    def save_pretrained(self: Any, save_directory: str | Path, **kwargs: Any) -> None:
        kind.save_pretrained(self, save_directory, **kwargs)
        if (plan := plan_of(self)) is not None:
            save_plan(plan, Path(save_directory) / FOLDER / "plan.json")

    def known_of(self: Any) -> Acceleration | None:
        # None where the class itself was called, as in `type(fast)(**fast.components)`: that is a
        # pipeline as it would be without us.
        return vars(self).get("_asymflow")

    def plan_of(self: Any) -> Plan | None:
        known = known_of(self)
        return None if known is None else known.plan

    def reduced(self: Any) -> Any:
        return _revived, (kind, vars(self))

    body = {
        "__call__": call,
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "save_pretrained": functools.wraps(kind.save_pretrained)(save_pretrained),
        "__reduce__": reduced,
        "asymflow_plan": property(plan_of),
    }
    return type(kind.__name__, (kind,), body)


def _revived(kind: type[Any], state: Mapping[str, Any]) -> Any:
    """An accelerated pipeline with such attributes, made or read again from a pickle."""
    made: Any = object.__new__(_subclass(kind))
    vars(made).update(state)
    return made
