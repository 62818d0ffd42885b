"""Plans as files: JSON that reads back to exactly the same numbers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from asymflow.errors import FileFormatError, InputError
from asymflow.fields import Fields, parse
from asymflow.files import write_text
from asymflow.types import SOLVERS, Plan, Step, Tier

FORMAT = "asymflow plan"
SCHEMA = 1
MAX_BYTES = 4_000_000
"""A plan of 256 steps takes 40 kB."""


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan atomically.

    Raises:
        OSError: the folder is not writable or the disk is full.
    """
    write_text(path, json.dumps(plan_to_json(plan), indent=1) + "\n")


def load_plan(path: Path) -> Plan:
    """Read a plan that `save_plan` wrote.

    Raises:
        FileFormatError: the file is missing, damaged, of another kind or of another schema.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FileFormatError(f"Cannot read the plan {path}: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise FileFormatError(f"{path} is larger than {MAX_BYTES} bytes, so it is not a plan.")
    return plan_from_json(parse(data, str(path)), str(path))


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON data. Floats keep every bit: Python writes the shortest text that does."""
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "name": plan.name,
        "steps": [
            {
                "t": step.t,
                "s": step.s,
                "solver": step.solver,
                "tier": {"name": step.tier.name, "guided": step.tier.guided},
            }
            for step in plan.steps
        ],
    }


def plan_from_json(data: object, where: str = "the plan") -> Plan:
    """The plan in JSON data; `where` names the file in messages.

    Raises:
        FileFormatError: the data is not a plan, or one that this version cannot run.
    """
    fields = Fields(data, where)
    fields.expect(FORMAT, SCHEMA, "Pass a file that asymflow saved as a plan")
    name = fields.text("name")
    steps = [
        _step(Fields(item, f"{where}: step {i}")) for i, item in enumerate(fields.items("steps"))
    ]
    fields.finish()
    try:
        return Plan(name, tuple(steps))
    except InputError as error:
        raise FileFormatError(f"{where} is not a plan that can run. {error}") from error


def plan_hash(plan: Plan) -> str:
    """SHA-256 of what a plan does. Its name does not count: renaming changes no picture."""
    data = plan_to_json(plan)
    del data["name"]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _step(fields: Fields) -> Step:
    t, s, solver = fields.number("t"), fields.number("s"), fields.choice("solver", SOLVERS)
    of_tier = fields.fields("tier")
    tier = Tier(of_tier.text("name"), of_tier.boolean("guided"))
    of_tier.finish()
    fields.finish()
    try:
        return Step(t, s, tier, solver)
    except InputError as error:
        raise FileFormatError(f"{fields.where} cannot be made. {error}") from error
