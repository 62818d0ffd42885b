"""Plans as files: what is written reads back exactly, and what is not a plan is refused."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import asymflow
from asymflow.core.errors import FileFormatError
from asymflow.core.schedules import plan_of, shifted, uniform
from asymflow.core.statistics import Interval
from asymflow.core.types import (
    FULL,
    SOLVERS,
    Evidence,
    Plan,
    Profile,
    Step,
    Tier,
    cheaper_tiers,
)
from asymflow.planning.plan_files import (
    load_plan,
    load_profile,
    plan_from_json,
    plan_hash,
    plan_to_json,
    save_plan,
    save_profile,
)

PLAN = plan_of(shifted(5, 3.0), solver="multistep3", guidance_interval=(0.3, 0.9), name="mine")


def random_plan(seed: int) -> Plan:
    rng = random.Random(seed)
    times = sorted({rng.random() ** rng.choice([1, 40]) for _ in range(rng.randint(3, 20))})
    steps = [
        Step(t, s, random_tier(rng), rng.choice(SOLVERS)) for s, t in pairwise([0.0, *times[:-1]])
    ]
    steps.append(Step(times[-1], times[-2], FULL))
    return Plan(f"plan ☂ {seed}", tuple(reversed(steps)))


def random_tier(rng: random.Random) -> Tier:
    guided, pool_factor = rng.random() < 0.5, rng.choice([1, 2, 4])
    cached = rng.random() < 0.5 and (not guided or pool_factor > 1)
    sequential_cfg = guided and rng.random() < 0.5
    return Tier(f"tier {rng.random()}", guided, pool_factor, cached, sequential_cfg)


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_keeps_every_bit(seed: int, tmp_path: Path) -> None:
    plan = random_plan(seed)
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan


def test_the_file_is_plain_json_with_a_schema(tmp_path: Path) -> None:
    save_plan(PLAN, tmp_path / "new" / "plan.json")
    data = json.loads((tmp_path / "new" / "plan.json").read_text("utf-8"))
    assert (data["format"], data["schema"], data["name"]) == ("asymflow plan", 2, "mine")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["plan.json"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    save_plan(PLAN, path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_plan(plan_of(uniform(2)), path)
    assert load_plan(path) == PLAN
    assert list(tmp_path.iterdir()) == [path]


def test_the_hash_says_what_a_plan_does() -> None:
    assert plan_hash(replace(PLAN, name="renamed")) == plan_hash(PLAN)
    first = PLAN.steps[0]
    others = [
        replace(first, t=math.nextafter(first.t, 0)),
        replace(first, solver="heun"),
        replace(first, tier=Tier("full", guided=False)),
    ]
    hashes = {plan_hash(replace(PLAN, steps=(step, *PLAN.steps[1:]))) for step in others}
    assert len(hashes - {plan_hash(PLAN)}) == 3


def test_the_hash_never_changes() -> None:
    """Pictures record it, so it must outlive this version."""
    expected = "d653319fceefa4e34d3cf8d33713b4129c5b877e3c24b5617a99c736a8f4df1b"
    assert plan_hash(plan_of(uniform(2), solver="multistep2")) == expected


GONE = object()


def edited(place: tuple[Any, ...], value: object) -> dict[str, Any]:
    """The JSON of a plan, with the value at a place replaced, or gone."""
    data = plan_to_json(PLAN)
    inner: Any = data
    for key in place[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return data


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (("format",), GONE, "its format is None"),
        (("format",), "workflow", "its format is 'workflow'"),
        (("schema",), 3, "has schema 3, and this asymflow reads schema 1 and 2"),
        (("schema",), 2.0, "has schema 2.0"),
        (("schema",), True, "has schema True"),
        (("name",), GONE, "has no name"),
        (("name",), 3, "has name = 3, which must be a text"),
        (("required",), ["telepathy"], "requires 'telepathy', and this version of asymflow knows"),
        (("required",), ["weights", "frequency_bands"], "requires 'frequency_bands'"),
        (("required",), "weights", "must be an array"),
        (("steps",), {}, "must be an array"),
        (("steps",), [], "has no steps"),
        (("steps",), [3], "step 0 is not a JSON object"),
        (("steps", 1), GONE, "has a gap"),
        (("steps", -1), GONE, "noise is left"),
        (("steps", 2, "solver"), "rk4", "step 2 has the unknown solver 'rk4'"),
        (("steps", 2, "t"), "1", "step 2 has t = '1', which must be a number"),
        (("steps", 2, "t"), True, "step 2 has t = True, which must be a number"),
        (("steps", 2, "t"), 0.0, "step 2 cannot be made"),
        (("steps", 2, "t"), 10**400, "step 2 has t = 1000.* finite number"),
        (("steps", 2, "weights"), [1, 0], "step 2 must have either a solver or weights"),
        (("steps", 2, "solver"), GONE, "step 2 must have either a solver or weights"),
        (("steps", 2, "reuse"), 1, "reuse = 1, which must be true or false"),
        (("steps", 0, "reuse"), True, "step 0 reuses estimates, so that it asks no tier"),
        (("steps", 2, "guidance_scale"), "3", "guidance_scale = '3', which must be a number"),
        (("steps", 0, "guidance_scale"), 3, "step 0 cannot be made. .*has no effect"),
        (("steps", 2, "frequency_bands"), [], "step 2 has 'frequency_bands', which this version"),
        (("steps", 0, "tier", "guided"), 1, "guided = 1, which must be true or"),
        (("steps", 0, "tier", "pool_factor"), 2.5, "pool_factor = 2.5, which must be a whole numb"),
        (("steps", 0, "tier", "pool_factor"), 0, "step 0 cannot be made. Tier 'con.*pool_factor=0"),
        (("steps", 0, "tier"), {"name": "full", "cached": True}, "leaves nothing out"),
        (("steps", 0, "tier", "price"), 1, "tier has unknown entries: price"),
        (("requires",), {"size": {"width": 64}}, "requires: size has no height"),
        (("requires",), {"alpha": "yes"}, "alpha = 'yes', which must be true or false"),
        (("binding",), {"weights": "0123"}, "binding has no family"),
    ],
)
def test_what_is_not_a_plan_is_refused(
    place: tuple[Any, ...], value: object, complaint: str
) -> None:
    with pytest.raises(FileFormatError, match=complaint):
        plan_from_json(edited(place, value), "plan.json")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a JSON file"),
        (b"{", "not a JSON file"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe\x00", "not a JSON file"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "not a JSON file"),
        (b" " * 5_000_000, "larger than"),
    ],
)
def test_a_damaged_file_is_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=complaint) as caught:
        load_plan(path)
    assert "plan.json" in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="No such file"):
        load_plan(tmp_path / "plan.json")


def test_plans_need_no_torch() -> None:
    names = "asymflow.planning.plan_files, asymflow.generation.metadata"
    code = f"import {names}, sys; sys.exit('torch' in sys.modules)"
    source = Path(asymflow.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(source)})
    assert done.returncode == 0


EVIDENCE = Evidence(
    made={"adapter": "embedded:0123", "size": "64x64"},
    cost_ms=(9.0, 9.0, 9.0, 4.5, 4.5),
    full_ms=9.0,
    metric="RMSE to 64 steps",
    weights="0123",
    shares=(0.1, 0.2, 0.3, 0.2, 0.2),
    predicted=None,
    rms=Interval(0.1, 0.05, 0.2),
    distance=Interval(0.01, 0.005, 0.02),
    pictures=32,
)


def test_evidence_is_kept_and_changes_no_hash(tmp_path: Path) -> None:
    plan = replace(PLAN, evidence=EVIDENCE)
    save_plan(plan, tmp_path / "plan.json")
    loaded = load_plan(tmp_path / "plan.json")
    assert loaded == plan == PLAN
    assert loaded.evidence == EVIDENCE
    assert plan_hash(loaded) == plan_hash(PLAN)
    for text in ("4.0 full estimates", "0.100 (0.050 to 0.200)", "32 pictures", "30%"):
        assert text in str(loaded)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("cost_ms", [1.0], "has 1 cost_ms for 5 steps"),
        ("cost_ms", [1.0, "2", 3.0, 4.0, 5.0], "cost_ms has 1 = '2', which must be a number"),
        ("full_ms", 0, "must be positive"),
        ("rms", {"value": 1.0}, "has no low"),
        ("made", {"adapter": 1}, "which must be a text"),
        ("metric", 3, "metric = 3, which must be a text"),
    ],
)
def test_evidence_that_does_not_fit_is_refused(key: str, value: object, complaint: str) -> None:
    data = plan_to_json(replace(PLAN, evidence=EVIDENCE))
    data["evidence"][key] = value
    with pytest.raises(FileFormatError, match=complaint):
        plan_from_json(data)


def profile() -> Profile:
    rng = np.random.default_rng(0)
    tiers = (FULL, *cheaper_tiers((2,)))
    i, k = 4, len(tiers)

    def array(*shape: int) -> Any:
        return rng.random(shape).astype(np.float32)

    return Profile(
        times=(1.0, 0.7, 1 / 3, 0.0),
        tiers=tiers,
        cost_ms=tuple(rng.random(k)),
        macs=tuple(range(k)),
        peak_bytes=tuple(range(10, 10 + k)),
        amplification=array(i),
        saturation=0.3,
        local_error=array(k, i, i, i),
        weight=array(i, i, i),
        drift=array(k, i, i),
        made={"adapter": "embedded:0123"},
    )


def test_a_profile_keeps_every_bit(tmp_path: Path) -> None:
    first = profile()
    save_profile(first, tmp_path / "p.safetensors")
    again = load_profile(tmp_path / "p.safetensors")
    for name in ("times", "tiers", "cost_ms", "macs", "peak_bytes", "saturation", "made"):
        assert getattr(again, name) == getattr(first, name)
    for name in ("amplification", "local_error", "weight", "drift"):
        assert np.array_equal(getattr(again, name), getattr(first, name))


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    with pytest.raises(FileFormatError, match="Cannot read the profile"):
        load_profile(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match="Cannot read the profile"):
        load_profile(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(FileFormatError, match="is no profile"):
        load_profile(path)
    save_profile(replace(profile(), times=(1.0, 0.5, 0.0)), path)
    with pytest.raises(FileFormatError, match=r"has amplification of shape \(4,\), not \(3,\)"):
        load_profile(path)
    save_profile(replace(profile(), saturation=0.0), path)
    with pytest.raises(FileFormatError, match="has a saturation of 0, which is not positive"):
        load_profile(path)


def test_a_profile_of_a_tier_that_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_profile(profile(), path)
    whole = path.read_bytes()
    assert b'shrink\\": 2' in whole
    path.write_bytes(whole.replace(b'shrink\\": 2', b'shrink\\": 0'))
    with pytest.raises(FileFormatError, match=r"tier \d cannot be asked\. .*pool_factor=0"):
        load_profile(path)
