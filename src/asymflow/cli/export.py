"""`asymflow plan export`: a plan as another program accepts it, and what is lost on the way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from asymflow.cli import plans
from asymflow.cli.outputs import require_writable
from asymflow.cli.report import print_note, print_result
from asymflow.core.errors import InputError
from asymflow.core.types import Plan
from asymflow.generation import pipeline
from asymflow.io.files import write_text
from asymflow.planning import binding
from asymflow.planning.exports import Line, export


def write(
    text: str,
    ref: str | None,
    size: tuple[int, int] | None,
    *,
    target: str,
    shift: float | None,
    output: Path | None,
) -> None:
    """Write a plan for another program, and say of every part whether it is carried.

    Args:
        text: a name, or the path of a file.
        ref: the model whose plan that name is of, or that the file is for.
        size: (height, width) that a named plan is for.
        target: the program.
        shift: of the model there, see `export`.
        output: by default standard output, with the table on standard error.

    Raises:
        InputError: there is no such plan, or the program cannot have it.
        FileFormatError: the file is not a plan.
    """
    if output is not None:
        require_writable(output, "Choose another place with -o.")
    plan = plans.named(text, ref, size)
    if ref is not None:
        plan = _for_model(plan, ref, size)
    found = export(plan, target, shift=shift)
    data = dict(found.data)
    if target != "json":
        data["carried"] = [
            {"part": line.part, "carried": line.carried, "how": line.how} for line in found.lines
        ]
    body = json.dumps(data, indent=1, allow_nan=False) + "\n"
    if output is None:
        print_result(body.rstrip("\n"))
        for row in table(found.lines):
            print_note(row)
        return
    write_text(output, body)
    for row in table(found.lines):
        print_result(row)
    print_note(f"Written to {output}.")


def table(lines: Sequence[Line]) -> list[str]:
    """What became of each part, as rows of text."""
    width = max(len(line.part) for line in lines)
    return [f"{line.part:<{width}}  {line.carried:<7}  {line.how}" for line in lines]


def _for_model(plan: Plan, ref: str, size: tuple[int, int] | None) -> Plan:
    """The plan with what the model is, where it does not say that itself.

    Raises:
        InputError: the plan is for another kind of model.
    """
    described = pipeline.load(ref).adapter.description
    found = binding.match(plan, described, size)
    if found.level == "other":
        raise InputError(f"The plan {plan.name!r} {found.line}. Leave --model out, or change it.")
    if plan.requires is not None and binding.binding_of(plan) is not None:
        return plan
    return replace(plan, requires=described.requirements, binding=described.binding)
