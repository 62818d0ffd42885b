"""Decisions in records of version 0.1, whose plans could have rules by which a picture left them.

Rules are no longer run: such a picture is repeated by the steps that it made, which follow from the
steps of its plan and from what it decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import Plan, Step
from asymflow.io.json_reader import Fields

Action = Literal["skip", "insert"]
"""`skip` merged a step with the next one, and `insert` made a step in two halves."""
_ACTIONS: tuple[Action, ...] = ("skip", "insert")


def read(fields: Fields) -> dict[int, Action]:
    """The action at each step, from the entry `decisions` of a record.

    Raises:
        FileFormatError: it is damaged.
    """
    found: dict[int, Action] = {}
    for i, item in enumerate(fields.items("decisions")):
        one = Fields(item, f"{fields.where}: decision {i}")
        found[one.integer("step")] = one.choice("action", _ACTIONS)
        one.number("surprise")
        one.finish()
    return found


def made(plan: Plan, actions: Mapping[int, Action], where: str) -> Plan:
    """The plan with the steps that a picture made, for its actions at steps of the plan.

    Args:
        plan: of the record.
        actions: by the index of the step.
        where: names the file in messages.

    Raises:
        FileFormatError: the plan has no such steps, or they would be no plan.
    """
    last = len(plan.steps) - 1
    for index, action in actions.items():
        if not 0 <= index <= last or (index == last and action == "skip"):
            raise FileFormatError(
                f"{where} has a decision to {action} at step {index}, and its plan has the steps 0 "
                f"to {last}. The file is damaged: use another copy of it."
            )
    steps: list[Step] = []
    for index, step in enumerate(plan.steps):
        if steps and step.t != steps[-1].s:
            continue  # merged with the one before
        match actions.get(index):
            case None:
                steps.append(step)
            case "skip":
                steps.append(replace(step, s=plan.steps[index + 1].s))
            case "insert":
                middle = (step.t + step.s) / 2
                steps += [replace(step, s=middle), replace(step, t=middle)]
    try:
        return replace(plan, steps=tuple(steps))
    except InputError as error:
        raise FileFormatError(f"{where} has decisions that lead nowhere. {error}") from error
