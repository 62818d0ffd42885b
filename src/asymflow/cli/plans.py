"""`asymflow plan show`, `verify` and `migrate`: what is in plan files, and what they do here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow._version import __version__
from asymflow.bench import provenance
from asymflow.cli import planning
from asymflow.cli.outputs import require_writable
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.core.errors import InputError
from asymflow.core.types import FULL, Plan, Request
from asymflow.generation import pipeline, resolve
from asymflow.generation.pipeline import Model
from asymflow.io import folders
from asymflow.io.files import key_name
from asymflow.planning import (
    binding,
    calibration,
    distribution,
    plan_files,
    profiler,
    verifier,
)
from asymflow.planning.encoded import Encoded
from asymflow.planning.journal import Journal
from asymflow.planning.prediction import asked_tier

_PART = 16
"""Pictures that are drawn before they are kept."""


def show(text: str, ref: str | None, size: tuple[int, int] | None, *, as_json: bool) -> None:
    """Print a plan: its steps, cost, evidence and binding.

    Args:
        text: a name, or the path of a file.
        ref: the model whose plan that name is of.
        size: (height, width) that a named plan is for.
        as_json: print it as JSON.

    Raises:
        InputError: there is no such plan.
        FileFormatError: the file is not a plan.
    """
    plan = named(text, ref, size)
    digest, unknown = plan_files.plan_hash(plan), dict(_unknown(plan))
    if as_json:
        data = {"plan": plan_files.plan_to_json(plan), "hash": digest, "nfe": plan.forwards}
        print_json(data | {"unknown": unknown})
        return
    print_result(str(plan))
    for line in _provenance(plan):
        print_result(line)
    print_result(f"hash {digest}")
    if unknown:
        print_result(f"kept, and unknown to this version: {', '.join(unknown)}")


def named(text: str, ref: str | None, size: tuple[int, int] | None) -> Plan:
    """A plan by its name, or from a file.

    Raises:
        InputError: there is no such plan.
        FileFormatError: the file is not a plan.
    """
    choice = resolve.plan(resolve.GenerateOptions(plan=text, model=ref))
    if choice.plan is not None:
        return choice.plan
    model = pipeline.load(ref)
    size = size or model.card.sizes.native
    found = None if choice.preset is None else pipeline.named_plan(model, choice.preset, size)
    return found or pipeline.plan_for(model, choice, size, note=print_note)


def _provenance(plan: Plan) -> Iterator[str]:
    """Lines on where a plan is from and what it needs."""
    bound = binding.binding_of(plan)
    yield "bound to no weights: it fits every model" if bound is None else f"bound to {bound}"
    if bound is not None and bound.settings:
        yield f"made with {', '.join(f'{name} {value}' for name, value in bound.settings.items())}"
    if plan.requires is not None:
        needs = plan.requires
        size = None if needs.size is None else f"{needs.size[1]}x{needs.size[0]}"
        named = {
            "parameterisation": needs.parameterisation,
            "noise scale": None if needs.noise_scale is None else f"{needs.noise_scale:g}",
            "shift rule": needs.shift_rule,
            "size": size,
            "guidance": needs.guidance,
            "alpha": None if needs.alpha is None else "yes" if needs.alpha else "no",
        }
        words = [f"{name} {value}" for name, value in named.items() if value is not None]
        yield f"requires {', '.join(words) or 'nothing'}"
    if plan.evidence is None:
        yield "not measured: `asymflow plan verify` measures it"
        return
    made = plan.evidence.made
    keys = ("size", "guidance_scale", "dtype", "device", "torch", "asymflow")
    known = [f"{key.replace('_', ' ')} {made[key]}" for key in keys if key in made]
    if plan.evidence.commit is not None:
        known.append(f"commit {plan.evidence.commit}")
    if known:
        yield f"measured with {', '.join(known)}"
    if plan.evidence.metric is not None:
        yield f"measured by {plan.evidence.metric}"


def _unknown(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Entries of the file that this version does not know, by where they are."""
    parts = {
        "": plan,
        "requires.": plan.requires,
        "binding.": plan.binding,
        "evidence.": plan.evidence,
        **{f"steps[{i}].": step for i, step in enumerate(plan.steps)},
    }
    for where, part in parts.items():
        if part is not None:
            yield from ((f"{where}{key}", value) for key, value in part.extra.items())


def verify(
    path: Path,
    model: Model,
    size: tuple[int, int] | None,
    guidance: float | None,
    *,
    pictures: int,
    compared: int = 0,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure a plan on pictures that no plan is chosen by, and bind it to the model's weights.

    Args:
        path: the plan.
        model: measures it.
        size: (height, width); by default that of the evidence.
        guidance: the guidance scale; by default that of the evidence.
        pictures: number of pictures.
        compared: number of pictures that distributions are compared on; 0 for none.
        output: where the plan with its evidence is written, if anywhere.
        as_json: print it as JSON.

    Raises:
        InputError: the plan is for another kind of model, or the file cannot be written.
        FileFormatError: the file is not a plan.
    """
    if output is not None:
        require_writable(output, "Choose another place with -o.")
    plan = plan_files.load_plan(path)
    size = size or _size(plan, model)
    found = binding.match(plan, model.adapter.description, size)
    if found.level == "other":
        raise InputError(
            f"The plan {plan.name!r} {found.line}. Verify it on a model of its kind, given as "
            "--model REF."
        )
    if guidance is None:
        guidance = _guidance(plan, model)
    requests = calibration.requests(
        model.adapter.card, size, guidance, pictures, calibration.PROVED
    )
    model.adapter.check(requests[0])
    if 0 < compared < distribution.LEAST:
        raise InputError(
            f"--distribution {compared} says nothing of a distribution. Give at least "
            f"{distribution.LEAST}, or 0 to leave it out; a few hundred are usual."
        )
    tiers = dict.fromkeys(asked_tier(step) for step in plan.steps if not step.reuse)
    with planning.progress() as report:
        report("measuring costs", 0, 1)
        # A profile of one move, for its costs; its errors are not used.
        costs = profiler.profile(
            model.adapter,
            requests[:1],
            times=(1.0, 0.0),
            tiers=[tier for tier in tiers if tier != FULL],
            memory=False,
        )
        report("measuring costs", 1, 1)
        report("computing references", 0, 1)
        fine = pipeline.reference(model, size)
        reference = verifier.rollout(model.adapter, fine, requests)
        report("computing references", 1, 1)
        judge = verifier.Evaluator(model.adapter, tuple(requests), reference)
        costs = replace(costs, made={**costs.made, "dtype": model.dtype})
        measured = verifier.measure_evidence(
            judge, plan, costs, planning.perceptual(model), reference=fine
        )
        assert measured.evidence is not None
        if compared:
            found = _compared(model, plan, fine, size, guidance, compared, report)
            made = {**measured.evidence.made, **found.stated}
            measured = replace(measured, evidence=replace(measured.evidence, made=made))
    assert measured.evidence is not None
    commit, dirty = provenance.checkout()
    if commit is not None and not dirty:
        measured = replace(measured, evidence=replace(measured.evidence, commit=commit))
    measured = binding.bound(measured, model.adapter.description)
    if output is not None:
        plan_files.save_plan(measured, output)
    if as_json:
        print_json(plan_files.plan_to_json(measured))
    else:
        print_result(str(measured))
    if plan.evidence is not None and not as_json:
        stated = binding.binding_of(plan)
        print_note(
            f"The file states {plan.evidence.rms}, measured on {stated or 'no named model'}."
        )
    if output is not None and not as_json:
        print_note(f"Draw with it: asymflow generate 'a fox' --plan {output}")


def _compared(
    model: Model,
    plan: Plan,
    fine: Plan,
    size: tuple[int, int],
    guidance: float,
    count: int,
    report: planning.Report,
) -> distribution.Comparison:
    """What a plan draws beside what many steps draw; goes on where it was interrupted.

    Pictures of many steps stay in the cache, for the next plan of this model.
    """
    adapter = Encoded(model.adapter)
    wanted = calibration.requests(model.adapter.card, size, guidance, count, calibration.COMPARED)
    facts = {
        "model": model.adapter.name,
        "dtype": model.dtype,
        "device": profiler.machine(model.adapter)["device"],
        "size": f"{size[1]}x{size[0]}",
        "guidance_scale": str(guidance),
        "asymflow": __version__,
        "job": "distribution",
    }

    def drawn(steps: Plan, activity: str) -> tuple[Journal, NDArray[np.float32]]:
        name = key_name(facts | {"plan": plan_files.plan_hash(steps)})
        journal = Journal(folders.cache() / "measuring" / name)

        def made(part: Sequence[Request]) -> Tensor:
            ends = verifier.rollout(adapter, steps, part)
            return torch.from_numpy(np.stack([adapter.to_picture(end) for end in ends]))

        parts: list[Tensor] = []
        with journal.kept_on_interruption(print_note):
            for start in range(0, count, _PART):
                report(activity, start, count)
                part = wanted[start : start + _PART]
                parts.append(journal.states(f"{start}-{len(part)}", partial(made, part)))
            report(activity, count, count)
        return journal, torch.cat(parts).numpy()

    _, many = drawn(fine, "drawing in many steps")
    journal, planned = drawn(plan, "drawing by the plan")
    found = distribution.compare(planned, many)
    journal.remove()
    return found


def _size(plan: Plan, model: Model) -> tuple[int, int]:
    """The size that a plan requires or was measured at; else the model's."""
    if plan.requires is not None and plan.requires.size is not None:
        return plan.requires.size
    if plan.evidence is not None and "size" in plan.evidence.made:
        return resolve.size_of(plan.evidence.made["size"])
    return model.card.sizes.native


def _guidance(plan: Plan, model: Model) -> float:
    """The guidance scale that a plan was measured with; else the default."""
    stated = None if plan.evidence is None else plan.evidence.made.get("guidance_scale")
    try:
        return model.card.guidance if stated is None else float(stated)
    except ValueError:
        raise InputError(
            f"The evidence of plan {plan.name!r} has guidance_scale = {stated!r}, which is no "
            "number. Give --guidance."
        ) from None


def migrate(paths: Sequence[Path]) -> None:
    """Rewrite plan files of earlier schemas in place, each old file kept beside the new one.

    Raises:
        FileFormatError: a file is not a plan; nothing has been changed.
        InputError: another file has the name that an old one is to be kept under.
    """
    for path in paths:
        plan_files.load_plan(path)
    for path in paths:
        kept = plan_files.migrate_plan(path)
        if kept is None:
            print_note(f"{path} has schema {plan_files.SCHEMA} already.")
        else:
            print_result(str(path))
            print_note(f"The old file is kept as {kept}.")
