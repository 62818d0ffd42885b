"""`asymflow.accelerate`: a pipeline that makes the steps of a plan, otherwise the same pipeline."""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from asymflow.core.checks import as_path, each_instance, whole
from asymflow.core.errors import InputError
from asymflow.core.types import Plan
from asymflow.integrations.diffusers import auto, hub
from asymflow.integrations.diffusers.hub import FOLDER
from asymflow.integrations.diffusers.kept import Shelf
from asymflow.integrations.diffusers.measuring import measuring
from asymflow.integrations.diffusers.runs import run
from asymflow.integrations.diffusers.uses import use_of
from asymflow.models.diffusers.families import family_of
from asymflow.models.diffusers.own import DEFAULT, ORIGINAL, default, default_steps, original
from asymflow.models.diffusers.pipelines import (
    Call,
    Family,
    adapt,
    description_of,
    flat,
    name_of,
    unwrapped,
)
from asymflow.planning import binding
from asymflow.planning.journal import Journal
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
        told: what was said of how the plan fits the model.
    """

    base: Any
    family: Family
    plan: Plan | None
    told: set[str] = field(default_factory=set[str])


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
            where the model has no folder that can be written to. If that is interrupted, the next
            try resumes. "default" is there at once: a better solver on the pipeline's own grid, of
            which nothing is known on these weights. "original" is the pipeline's own schedule. Or
            a plan, a plan file, the name of one beside the model, in its folder or on the hub it
            was loaded from, or a repository with one, "owner/name".
        steps: of "auto", where that is not fast enough: the best plan for the price of so many full
            estimates (two passes of the network where it is guided). What it keeps is in the plan.
        examples: arguments that the pipeline is called with while it is measured, all of the size
            and guidance that it will be used with. By default a few prompts, or none.
        family: how an unknown pipeline calls its network.
        folder: of the model; by default the one that the pipeline was loaded from.

    A plan that was measured on other weights of the same kind, such as those that this model was
    tuned from, runs, and a warning says so; `plan="auto"` measures one for these weights. It is
    compared again at every call, since weights, network and scheduler can be replaced.

    Raises:
        MissingExtra: diffusers is not installed.
        InputError: the pipeline cannot be translated, the plan was made for another kind of model,
            or `steps` are asked of a plan that has its own.
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
        case "default":
            found = default(base, family)
        case "original":
            original(base, family, default_steps(base))
            found = None
        case str():
            found = _checked(_named(plan, base, folder), base, family)
        case _:  # pyright: ignore[reportUnnecessaryComparison]: whoever calls may not check types
            raise InputError(
                f"plan={plan!r} is no plan. Pass an asymflow.Plan, the path of a plan file, "
                f"{AUTO!r}, {DEFAULT!r}, {ORIGINAL!r}, or the name of a plan."
            )
    known = Acceleration(base, family, found)
    if found is not None:
        _match(found, base, family, known.told)
    return _revived(type(base), {**vars(base), "_asymflow": known})


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
    use = use_of(base, family, calls, steps, given=bool(examples))
    shelf = Shelf(description_of(base, family), name_of(base, family), use, folder)
    kept = shelf.find()
    if kept is not None:
        return kept
    with measuring(base):
        kept = shelf.find()  # by another thread, meanwhile
        if kept is not None:
            return kept
        journal = Journal(shelf.unfinished(base.dtype, base.device))
        with journal.kept_on_interruption(_log.warning):
            plan = auto.make(base, family, adapt(base, family), calls, steps, journal)
        plan = shelf.keep(plan)
        journal.remove()
    return plan


def _checked(plan: Plan, base: Any, family: Family) -> Plan:
    """The plan, if it can run and is for models of this kind."""
    for step in plan.steps:
        if step.tier.pool_factor not in (1, *family.factors):
            raise InputError(
                f"Plan {plan.name!r} asks for tier {step.tier.name!r}, a picture pooled by "
                f"{step.tier.pool_factor}, and {type(base).__name__} is not declared to have "
                "learnt that. Make a plan for it with plan='auto', or declare Family(factors=...)."
            )
        if step.tier.tiles is not None:
            raise InputError(
                f"Plan {plan.name!r} asks for tier {step.tier.name!r}, tiles of "
                f"{step.tier.tiles} pixels, and pipelines are shown whole pictures only. Make a "
                "plan for it with plan='auto'."
            )
        if step.tier.late:
            raise InputError(
                f"Plan {plan.name!r} asks for tier {step.tier.name!r}, the fast part of a network, "
                "and networks of pipelines are asked as a whole. Make a plan for it with "
                "plan='auto'."
            )
    if plan.binding is not None or plan.evidence is None:
        return plan
    # Version 0.1: the name stands for weights, schedule and noise together.
    name, made = name_of(base, family), plan.evidence.made.get("adapter")
    if made != name:
        raise InputError(
            f"Plan {plan.name!r} was made for {made}, and this model is {name}: its weights, its "
            "schedule or its scale of noise differ. Make one for it with plan='auto', or drop what "
            "was measured and try it anyway: Plan(plan.name, plan.steps)."
        )
    return plan


def _match(plan: Plan, pipe: Any, family: Family, told: set[str]) -> None:
    """Refuse a plan for another kind of model; say once on which weights it was measured.

    Args:
        told: what was said already.
    """
    if plan.binding is None and plan.requires is None:
        return
    found = binding.match(plan, description_of(pipe, family))
    if found.level == "other":
        raise InputError(
            f"Plan {plan.name!r} {found.line}. Make one for it with plan='auto', or drop what it "
            "is bound to and try it anyway: Plan(plan.name, plan.steps)."
        )
    if found.line and found.line not in told:
        told.add(found.line)
        _log.warning(
            "Plan %r %s: errors that were measured may differ here.", plan.name, found.line
        )


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
        f"{', '.join([AUTO, DEFAULT, ORIGINAL, *names])}, or give the path of a plan file or a "
        "repository with a plan, 'owner/name'."
    )


def _home(pipe: Any) -> Path | None:
    """The folder that a pipeline was loaded from."""
    path = getattr(pipe, "name_or_path", None)
    return Path(path) if path and Path(path).is_dir() else None


def _offloaded(pipe: Any, family: Family) -> bool:
    """Whether weights of the network are nowhere between calls, as with sequential offloading."""
    network = unwrapped(getattr(pipe, family.network))
    return any(parameter.is_meta for parameter in network.parameters())


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
        elif not _offloaded(self, known.family):
            # Weights, network and scheduler may have been replaced meanwhile.
            _match(plan, self, known.family, known.told)
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
