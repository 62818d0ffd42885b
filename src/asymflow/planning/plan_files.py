"""Plans and profiles as files that read back to exactly the same numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from asymflow.core.checks import as_path, instance
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.statistics import Interval
from asymflow.core.types import (
    ACTIONS,
    SOLVERS,
    Evidence,
    Plan,
    Profile,
    Rule,
    Step,
    Tier,
)
from asymflow.io.files import replacing, write_text
from asymflow.io.json_reader import Fields, parse

FORMAT = "asymflow plan"
SCHEMA = 1
PROFILE_SCHEMA = 3
"""Schema 1 had the move weights of `multistep2`; schema 2 had no saturation."""
PROFILE_FORMAT = "asymflow profile"
_ARRAYS = {
    "amplification": "amplification",
    "defect": "local_error",
    "weight": "weight",
    "drift": "drift",
}
"""Keys in files, those of version 0.1, by field of `Profile`."""
MAX_BYTES = 4_000_000
"""A plan of 256 steps takes 40 kB."""


def save_plan(plan: Plan, path: Path | str) -> None:
    """Write a plan atomically.

    Raises:
        OSError: the folder is not writable or the disk is full.
    """
    instance("plan", plan, Plan, "The order is plan, path.")
    write_text(as_path("path", path), json.dumps(plan_to_json(plan), indent=1) + "\n")


def load_plan(path: Path | str) -> Plan:
    """Read a plan that `save_plan` wrote.

    Raises:
        FileFormatError: the file is missing, damaged, of another kind or of another schema.
    """
    path = as_path("path", path)
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
    data: dict[str, Any] = {
        "format": FORMAT,
        "schema": SCHEMA,
        "name": plan.name,
        "steps": [
            {
                "t": step.t,
                "s": step.s,
                "solver": step.solver,
                "tier": _tier_to_json(step.tier),
            }
            for step in plan.steps
        ],
    }
    if plan.adaptive:
        data["adaptive"] = [_rule_to_json(rule) for rule in plan.adaptive]
    if plan.evidence is not None:
        data["evidence"] = _evidence_to_json(plan.evidence)
    return data


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
    rules = [
        _rule(Fields(item, f"{where}: rule {i}"))
        for i, item in enumerate(fields.items("adaptive") if "adaptive" in fields else ())
    ]
    evidence = None
    if "evidence" in fields:
        evidence = _evidence(fields.fields("evidence"), len(steps))
    fields.finish()
    try:
        return Plan(name, tuple(steps), evidence, tuple(rules))
    except InputError as error:
        raise FileFormatError(f"{where} is not a plan that can run. {error}") from error


def plan_hash(plan: Plan) -> str:
    """SHA-256 of what a plan does: steps and rules. Renaming or measuring it changes no picture."""
    data = plan_to_json(plan)
    del data["name"]
    data.pop("evidence", None)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    return asdict(evidence) | {
        "made": dict(evidence.made),
        "cost_ms": list(evidence.cost_ms),
        "shares": list(evidence.shares),
    }


def _evidence(fields: Fields, steps: int) -> Evidence:
    def numbers(key: str) -> tuple[float, ...]:
        values = tuple(fields.numbers(key))
        if len(values) not in ((steps,) if key == "cost_ms" else (0, steps)):
            fields.refuse(f"has {len(values)} {key} for {steps} steps")
        return values

    evidence = Evidence(
        made=fields.texts("made"),
        cost_ms=numbers("cost_ms"),
        full_ms=fields.number("full_ms"),
        shares=numbers("shares"),
        predicted=None if fields.absent("predicted") else fields.number("predicted"),
        rms=_interval(fields.fields("rms")),
        distance=None if fields.absent("distance") else _interval(fields.fields("distance")),
        pictures=fields.integer("pictures"),
    )
    fields.finish()
    if not evidence.full_ms > 0:
        fields.refuse(f"has full_ms = {evidence.full_ms}, which must be positive")
    return evidence


def _interval(fields: Fields) -> Interval:
    interval = Interval(fields.number("value"), fields.number("low"), fields.number("high"))
    fields.finish()
    return interval


def _tier_to_json(tier: Tier) -> dict[str, Any]:
    """Default values are omitted, so that plans older than a field keep their hash."""
    data: dict[str, Any] = {"name": tier.name, "guided": tier.guided}
    if tier.pool_factor != 1:
        data["shrink"] = tier.pool_factor
    if tier.cached:
        data["carried"] = True
    if tier.sequential_cfg:
        data["in_turn"] = True
    return data


def _rule_to_json(rule: Rule) -> dict[str, Any]:
    return {"step": rule.step, "action": rule.action, "surprise": rule.prediction_residual}


def _tier(fields: Fields) -> Tier:
    name, guided = fields.text("name"), fields.boolean("guided")
    pool_factor = fields.integer("shrink") if "shrink" in fields else 1
    cached = fields.boolean("carried") if "carried" in fields else False
    sequential_cfg = fields.boolean("in_turn") if "in_turn" in fields else False
    fields.finish()
    return Tier(name, guided, pool_factor, cached, sequential_cfg)


def _step(fields: Fields) -> Step:
    t, s, solver = fields.number("t"), fields.number("s"), fields.choice("solver", SOLVERS)
    of_tier = fields.fields("tier")
    fields.finish()
    try:
        return Step(t, s, _tier(of_tier), solver)
    except InputError as error:
        raise FileFormatError(f"{fields.where} cannot be made. {error}") from error


def _rule(fields: Fields) -> Rule:
    step, action = fields.integer("step"), fields.choice("action", ACTIONS)
    prediction_residual = fields.number("surprise")
    fields.finish()
    try:
        return Rule(step, action, prediction_residual)
    except InputError as error:
        raise FileFormatError(f"{fields.where} cannot be followed. {error}") from error


def save_profile(profile: Profile, path: Path | str) -> None:
    """Write a profile atomically: a safetensors file whose header holds the rest as JSON.

    Raises:
        OSError: the folder is not writable or the disk is full.
    """
    instance("profile", profile, Profile, "The order is profile, path.")
    path = as_path("path", path)
    data = {
        "format": PROFILE_FORMAT,
        "schema": PROFILE_SCHEMA,
        "times": profile.times,
        "tiers": [_tier_to_json(tier) for tier in profile.tiers],
        "cost_ms": profile.cost_ms,
        "macs": profile.macs,
        "peak_bytes": profile.peak_bytes,
        "saturation": profile.saturation,
        "made": dict(profile.made),
    }
    arrays = {
        name: np.ascontiguousarray(getattr(profile, field)) for name, field in _ARRAYS.items()
    }
    with replacing(path) as file:
        file.write(serialize(arrays, {"profile": json.dumps(data)}))


def load_profile(path: Path | str) -> Profile:
    """Read a profile that `save_profile` wrote.

    Raises:
        FileFormatError: the file is missing, damaged, of another kind or of another schema.
    """
    path = as_path("path", path)
    try:
        with safe_open(path, "np") as file:
            header = cast("dict[str, str]", file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FileFormatError(f"Cannot read the profile {path}: {error}.") from error
    if "profile" not in header or set(arrays) != set(_ARRAYS):
        raise FileFormatError(f"{path} is no profile. Make one with `asymflow profile`.")
    fields = Fields(parse(header["profile"], str(path)), str(path))
    fields.expect(PROFILE_FORMAT, PROFILE_SCHEMA, "Pass a file that `asymflow profile` wrote")
    tiers: list[Tier] = []
    for i, item in enumerate(fields.items("tiers")):
        try:
            tiers.append(_tier(Fields(item, f"{path}: tier {i}")))
        except InputError as error:
            raise FileFormatError(f"{path}: tier {i} cannot be asked. {error}") from error
    profile = Profile(
        times=tuple(fields.numbers("times")),
        tiers=tuple(tiers),
        cost_ms=tuple(fields.numbers("cost_ms")),
        macs=tuple(int(each) for each in fields.numbers("macs")),
        peak_bytes=tuple(int(each) for each in fields.numbers("peak_bytes")),
        saturation=fields.number("saturation"),
        made=fields.texts("made"),
        **{_ARRAYS[name]: array for name, array in arrays.items()},
    )
    fields.finish()
    i, k = len(profile.times), len(profile.tiers)
    shapes = {
        "amplification": (i,),
        "defect": (k, i, i, i),
        "weight": (i, i, i),
        "drift": (k, i, i),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            fields.refuse(f"has {name} of shape {arrays[name].shape}, not {shape}")
    if profile.saturation <= 0:
        fields.refuse(f"has a saturation of {profile.saturation:g}, which is not positive")
    return profile
