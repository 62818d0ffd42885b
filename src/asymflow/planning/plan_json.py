"""Plans as JSON data, in schema 2; schema 1 is read.

`docs/plan-files.md` defines the fields, and `plan.schema.json` in this folder checks them. What a
file has beyond them is kept; a file that needs more than this version can do lists that under
"required", and is refused.

Plans of version 0.1 could have rules by which single pictures left the steps. They are no longer
run, and a file that has some is read as the plan without them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from asymflow.core.binding import Binding, Requirements
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.fingerprint import ROUNDED, Fingerprint
from asymflow.core.statistics import Interval
from asymflow.core.types import FULL, SOLVERS, Evidence, Plan, Step, Tier
from asymflow.io.json_reader import Fields
from asymflow.planning.binding import binding_of

_log = logging.getLogger("asymflow.planning")

FORMAT = "asymflow plan"
SCHEMA = 2
READ = (1, SCHEMA)
"""Schemas that can be read. The first has no weights, scales, reuse, requirements and binding, and
other names of some fields."""
FEATURES = ("weights", "guidance_scale", "reuse", "tiles", "late")
"""What a file may list as required."""
RESERVED = ("frequency_bands",)
"""Names that a later version will give a meaning: weights of each band of spatial frequency."""

Rules = Sequence[Mapping[str, Any]]
"""The rules of a file, with the names of schema 1."""


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON data. Floats keep every bit: Python writes the shortest text that does."""
    data: dict[str, Any] = {"format": FORMAT, "schema": SCHEMA, "name": plan.name}
    # Of tiers that not every reader of schema 2 knows.
    needed = {
        "tiles": any(step.tier.tiles is not None for step in plan.steps),
        "late": any(step.tier.late for step in plan.steps),
    }
    if any(needed.values()):
        data["required"] = [name for name, needs in needed.items() if needs]
    if plan.requires is not None:
        data["requires"] = _requirements_to_json(plan.requires)
    if plan.binding is not None:
        data["binding"] = _binding_to_json(plan.binding)
    data["steps"] = [_step_to_json(step) for step in plan.steps]
    if plan.evidence is not None:
        data["evidence"] = _evidence_to_json(plan.evidence)
    return _kept(data, plan.extra)


def plan_from_json(data: object, where: str = "the plan") -> Plan:
    """The plan in JSON data; `where` names the file in messages.

    Rules are left out, and so is evidence beside them, which is logged.

    Raises:
        FileFormatError: the data is not a plan, or one that this version cannot run.
    """
    plan, rules = plan_and_rules_from_json(data, where)
    if rules:
        evidence = (
            " Its evidence may be of pictures that left them, and is dropped: `asymflow plan "
            "verify` measures the plan."
        )
        _log.warning(
            "%s has rules for single pictures, which are no longer run: every picture makes all "
            "steps of the plan.%s",
            where,
            evidence if "evidence" in cast("dict[str, Any]", data) else "",
        )
    return plan


def plan_and_rules_from_json(data: object, where: str) -> tuple[Plan, Rules]:
    """As `plan_from_json`, with the rules that are left out, which the hash of the file covers.

    Raises:
        FileFormatError: the data is not a plan, or one that this version cannot run.
    """
    fields = Fields(data, where)
    schema = fields.expect(FORMAT, READ, "Pass a file that asymflow saved as a plan")
    name = fields.text("name")
    if schema > 1:
        _check_features(fields)
    read_step = _step if schema > 1 else _step_of_schema_1
    steps = [
        read_step(Fields(item, f"{where}: step {i}"))
        for i, item in enumerate(fields.items("steps"))
    ]
    residual = "prediction_residual" if schema > 1 else "surprise"
    rules = tuple(
        _rule(Fields(item, f"{where}: rule {i}"), residual)
        for i, item in enumerate(fields.items("adaptive") if "adaptive" in fields else ())
    )
    requires = binding = evidence = None
    if schema > 1 and "requires" in fields:
        requires = _requirements(fields.fields("requires"))
    if schema > 1 and "binding" in fields:
        binding = _binding(fields.fields("binding"))
    if "evidence" in fields:
        evidence = _evidence(fields.fields("evidence"), len(steps), schema)
    extra = fields.rest() if schema > 1 else {}
    fields.finish()
    try:
        plan = Plan(name, tuple(steps), evidence, requires, binding, extra)
    except InputError as error:
        raise FileFormatError(f"{where} is not a plan that can run. {error}") from error
    if rules:  # the evidence may be of pictures that left the steps, and the weights are known
        plan = replace(plan, evidence=None, binding=binding_of(plan))
    return plan, rules


def plan_hash(plan: Plan, rules: Rules = ()) -> str:
    """SHA-256 of what a plan does: its steps. Renaming or measuring it changes no picture.

    The hash is that of schema 1, with new fields where they are not the default, so that pictures
    of earlier versions keep the hash of their plan.

    Args:
        plan: what it does.
        rules: that its file has, for the hash that version 0.1 gave it.
    """
    data: dict[str, Any] = {
        "format": FORMAT,
        "schema": 1,
        "steps": [_hashed(step) for step in plan.steps],
    }
    if rules:
        data["adaptive"] = list(rules)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _hashed(step: Step) -> dict[str, Any]:
    data = {"t": step.t, "s": step.s, **_solver_to_json(step)}
    if step.reuse:
        data["reuse"] = True
    else:
        data["tier"] = tier_to_schema_1(step.tier)
    if step.guidance_scale is not None:
        data["guidance_scale"] = step.guidance_scale
    return data


def tier_to_schema_1(tier: Tier) -> dict[str, Any]:
    """A tier with the names of plans of schema 1, and of profiles, without default values."""
    data: dict[str, Any] = {"name": tier.name, "guided": tier.guided}
    if tier.pool_factor != 1:
        data["shrink"] = tier.pool_factor
    if tier.cached:
        data["carried"] = True
    if tier.sequential_cfg:
        data["in_turn"] = True
    if tier.tiles is not None:
        data["tiles"] = tier.tiles
    if tier.late:
        data["late"] = True
    return data


def tier_of_schema_1(fields: Fields) -> Tier:
    """The tier in JSON data of `tier_to_schema_1`.

    Raises:
        FileFormatError: the data is no tier.
        InputError: its values contradict each other.
    """
    name, guided = fields.text("name"), fields.boolean("guided")
    pool_factor = fields.integer("shrink") if "shrink" in fields else 1
    cached = fields.boolean("carried") if "carried" in fields else False
    sequential_cfg = fields.boolean("in_turn") if "in_turn" in fields else False
    tiles = fields.integer("tiles") if "tiles" in fields else None
    late = fields.boolean("late") if "late" in fields else False
    fields.finish()
    return Tier(name, guided, pool_factor, cached, sequential_cfg, tiles, late)


def _check_features(fields: Fields) -> None:
    """Refuse a file that needs what this version cannot do."""
    needed = fields.strings("required") if "required" in fields else []
    unknown = [name for name in needed if name not in FEATURES]
    if unknown:
        fields.refuse(
            f"requires {', '.join(map(repr, unknown[:5]))}, and this version of asymflow knows "
            f"{', '.join(FEATURES)} only. Install a newer asymflow, or make the plan without it"
        )


def _kept(data: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Data, and after it the entries that this version does not know."""
    return data | {key: value for key, value in extra.items() if key not in data}


def _given(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a dataclass that are not None, and the entries that are only kept."""
    found = {name: getattr(value, name) for name in names if getattr(value, name) is not None}
    return _kept(found, value.extra)


def _step_to_json(step: Step) -> dict[str, Any]:
    data: dict[str, Any] = {"t": step.t, "s": step.s, **_solver_to_json(step)}
    if step.reuse:
        data["reuse"] = True
    elif step.tier != FULL:
        data["tier"] = _tier_to_json(step.tier)
    if step.guidance_scale is not None:
        data["guidance_scale"] = None if step.guidance_scale == 1 else step.guidance_scale
    return _kept(data, step.extra)


def _solver_to_json(step: Step) -> dict[str, Any]:
    return {"solver": step.solver} if step.weights is None else {"weights": list(step.weights)}


def _tier_to_json(tier: Tier) -> dict[str, Any]:
    data: dict[str, Any] = {"name": tier.name}
    if not tier.guided:
        data["guided"] = False
    if tier.pool_factor != 1:
        data["pool_factor"] = tier.pool_factor
    if tier.cached:
        data["cached"] = True
    if tier.sequential_cfg:
        data["sequential_cfg"] = True
    if tier.tiles is not None:
        data["tiles"] = tier.tiles
    if tier.late:
        data["late"] = True
    return data


def _step(fields: Fields) -> Step:
    t, s = fields.number("t"), fields.number("s")
    if ("solver" in fields) == ("weights" in fields):
        fields.refuse("must have either a solver or weights")
    weights = tuple(fields.numbers("weights")) if "weights" in fields else None
    solver = fields.choice("solver", SOLVERS) if weights is None else "damped2"
    reuse = fields.boolean("reuse") if "reuse" in fields else False
    of_tier = fields.fields("tier") if "tier" in fields else None
    scale = None
    if "guidance_scale" in fields:
        scale = 1.0 if fields.absent("guidance_scale") else fields.number("guidance_scale")
    for name in RESERVED:
        if name in fields:
            fields.refuse(
                f"has {name!r}, which this version of asymflow cannot do. Install a newer one, or "
                "make the plan without it"
            )
    if reuse and of_tier is not None:
        fields.refuse("reuses estimates, so that it asks no tier. Drop the one or the other")
    try:
        tier = FULL if of_tier is None else _tier(of_tier)
        return Step(t, s, tier, solver, weights, scale, reuse, fields.rest())
    except InputError as error:
        raise FileFormatError(f"{fields.where} cannot be made. {error}") from error


def _tier(fields: Fields) -> Tier:
    def flag(key: str, default: bool) -> bool:
        return fields.boolean(key) if key in fields else default

    name, guided = fields.text("name"), flag("guided", True)
    pool_factor = fields.integer("pool_factor") if "pool_factor" in fields else 1
    cached, sequential_cfg = flag("cached", False), flag("sequential_cfg", False)
    tiles = fields.integer("tiles") if "tiles" in fields else None
    late = flag("late", False)
    fields.finish()
    return Tier(name, guided, pool_factor, cached, sequential_cfg, tiles, late)


def _step_of_schema_1(fields: Fields) -> Step:
    t, s, solver = fields.number("t"), fields.number("s"), fields.choice("solver", SOLVERS)
    of_tier = fields.fields("tier")
    fields.finish()
    try:
        return Step(t, s, tier_of_schema_1(of_tier), solver)
    except InputError as error:
        raise FileFormatError(f"{fields.where} cannot be made. {error}") from error


def _rule(fields: Fields, residual: str) -> dict[str, Any]:
    rule = {
        "step": fields.integer("step"),
        "action": fields.choice("action", ("skip", "insert")),
        "surprise": fields.number(residual),
    }
    fields.finish()
    return rule


def _requirements_to_json(requires: Requirements) -> dict[str, Any]:
    names = ("parameterisation", "noise_scale", "shift_rule", "guidance", "alpha")
    data = _given(requires, names)
    if requires.size is not None:
        data["size"] = {"width": requires.size[1], "height": requires.size[0]}
    return data


def _requirements(fields: Fields) -> Requirements:
    def text(key: str) -> str | None:
        return fields.text(key) if key in fields else None

    size = None
    if "size" in fields:
        of_size = fields.fields("size")
        sides = range(1, 1_000_000)
        width, height = of_size.integer("width", sides), of_size.integer("height", sides)
        size = (height, width)
        of_size.finish()
    return Requirements(
        parameterisation=text("parameterisation"),
        noise_scale=fields.number("noise_scale") if "noise_scale" in fields else None,
        shift_rule=text("shift_rule"),
        size=size,
        guidance=text("guidance"),
        alpha=fields.boolean("alpha") if "alpha" in fields else None,
        extra=fields.rest(),
    )


def _binding_to_json(binding: Binding) -> dict[str, Any]:
    data = _given(binding, ("family", "weights", "name"))
    if binding.fingerprint is not None:
        data["fingerprint"] = _fingerprint_to_json(binding.fingerprint)
    if binding.settings is not None:
        data["settings"] = dict(binding.settings)
    return data


def _binding(fields: Fields) -> Binding:
    family = fields.text("family")
    weights, name = (fields.text(key) if key in fields else None for key in ("weights", "name"))
    of_weights = fields.fields("fingerprint") if "fingerprint" in fields else None
    fingerprint = None if of_weights is None else _fingerprint(of_weights)
    settings = fields.texts("settings") if "settings" in fields else None
    return Binding(family, weights, name, fingerprint, settings, fields.rest())


def _fingerprint_to_json(found: Fingerprint) -> dict[str, Any]:
    data = {"float16": found.float16}
    if found.rounded is not None:
        packed = struct.pack(f"<{len(found.sample)}f", *found.sample)
        data |= {"rounded": found.rounded, "sample": b64encode(packed).decode()}
    return data


def _fingerprint(fields: Fields) -> Fingerprint:
    float16, rounded, raw = fields.text("float16"), None, b""
    if "rounded" in fields:
        rounded, packed = fields.choice("rounded", ROUNDED), fields.text("sample")
        try:
            raw = b64decode(packed, validate=True)
        except ValueError:
            fields.refuse("has a sample that is not in base64")
    fields.finish()
    if len(raw) % 4:
        fields.refuse("has a sample that is not of float32")
    return Fingerprint(float16, rounded, struct.unpack(f"<{len(raw) // 4}f", raw))


def _evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    data: dict[str, Any] = {
        "made": dict(evidence.made),
        "cost_ms": list(evidence.cost_ms),
        "full_ms": evidence.full_ms,
        "shares": list(evidence.shares),
        "predicted": evidence.predicted,
        "rms": _interval_to_json(evidence.rms),
        "distance": None if evidence.distance is None else _interval_to_json(evidence.distance),
        "pictures": evidence.pictures,
    }
    for name, value in _given(evidence, ("metric", "weights", "commit")).items():
        data.setdefault(name, value)
    return data


def _interval_to_json(interval: Interval) -> Mapping[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _evidence(fields: Fields, steps: int, schema: int) -> Evidence:
    def numbers(key: str) -> tuple[float, ...]:
        values = tuple(fields.numbers(key))
        if len(values) not in ((steps,) if key == "cost_ms" else (0, steps)):
            fields.refuse(f"has {len(values)} {key} for {steps} steps")
        return values

    def text(key: str) -> str | None:
        return fields.text(key) if schema > 1 and key in fields else None

    evidence = Evidence(
        made=fields.texts("made"),
        cost_ms=numbers("cost_ms"),
        full_ms=fields.number("full_ms"),
        shares=numbers("shares"),
        predicted=None if fields.absent("predicted") else fields.number("predicted"),
        rms=_interval(fields.fields("rms")),
        distance=None if fields.absent("distance") else _interval(fields.fields("distance")),
        pictures=fields.integer("pictures"),
        metric=text("metric"),
        weights=text("weights"),
        commit=text("commit"),
        extra=fields.rest() if schema > 1 else {},
    )
    fields.finish()
    if not evidence.full_ms > 0:
        fields.refuse(f"has full_ms = {evidence.full_ms}, which must be positive")
    return evidence


def _interval(fields: Fields) -> Interval:
    interval = Interval(fields.number("value"), fields.number("low"), fields.number("high"))
    fields.finish()
    return interval
