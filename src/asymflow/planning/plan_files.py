"""Plans and profiles as files that read back to exactly the same numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from asymflow.core.checks import as_path, instance
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import Plan, Profile, Tier
from asymflow.io.files import replacing, write_text
from asymflow.io.json_reader import Fields, parse
from asymflow.planning.binding import binding_of
from asymflow.planning.plan_json import SCHEMA as SCHEMA
from asymflow.planning.plan_json import plan_and_rules_from_json, tier_of_schema_1, tier_to_schema_1
from asymflow.planning.plan_json import plan_from_json as plan_from_json
from asymflow.planning.plan_json import plan_hash as plan_hash
from asymflow.planning.plan_json import plan_to_json as plan_to_json

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
    return plan_from_json(parse(_read(path), str(path)), str(path))


def migrate_plan(path: Path | str) -> Path | None:
    """Rewrite a plan of an earlier schema, and keep the old file beside it.

    Evidence that names a model becomes the plan's binding. What the plan does stays the same, and
    so does its hash, but for rules, which are left out.

    Returns:
        Where the old file is kept; None for a file that has this schema and no rules, which is not
        changed.

    Raises:
        FileFormatError: the file is not a plan.
        InputError: another file has the name that the old one would be kept under.
        OSError: the folder is not writable or the disk is full.
    """
    path = as_path("path", path)
    old = _read(path)
    data = parse(old, str(path))
    plan, rules = plan_and_rules_from_json(data, str(path))
    schema = cast("dict[str, int]", data)["schema"]
    if schema == SCHEMA and not rules:
        return None
    kept = path.with_name(f"{path.stem}.schema-{schema}{path.suffix}")
    if kept.exists() and kept.read_bytes() != old:
        raise InputError(
            f"{path} would be kept as {kept}, and that is another file. Move it away first."
        )
    with replacing(kept) as file:
        file.write(old)
    save_plan(replace(plan, binding=binding_of(plan)), path)
    return kept


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FileFormatError(f"Cannot read the plan {path}: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise FileFormatError(f"{path} is larger than {MAX_BYTES} bytes, so it is not a plan.")
    return data


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
        "tiers": [tier_to_schema_1(tier) for tier in profile.tiers],
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
            tiers.append(tier_of_schema_1(Fields(item, f"{path}: tier {i}")))
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
