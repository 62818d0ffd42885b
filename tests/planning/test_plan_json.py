"""Schema 2 of plan files: round trips, what schema 1 was, and the JSON Schema."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asymflow.core import engine
from asymflow.core.binding import Binding, Requirements
from asymflow.core.errors import FileFormatError
from asymflow.core.fingerprint import ROUNDED, Fingerprint
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.statistics import Interval
from asymflow.core.types import (
    FULL,
    SOLVERS,
    Evidence,
    Plan,
    Request,
    Solver,
    Step,
    Tier,
)
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import plan_json
from asymflow.planning.binding import binding_of
from asymflow.planning.plan_files import load_plan, plan_from_json, plan_hash, plan_to_json

OLD = Path(__file__).parent / "schema-1"
SCHEMA = json.loads(Path(plan_json.__file__).with_name("plan.schema.json").read_text("utf-8"))
VALID = jsonschema_rs.validator_for(SCHEMA)

# Pictures record them, so they must outlive every version.
HASHES = {
    "balanced-128": "f2666597ea160885854f94a49b96147dde873c6f6ae7ef792aee4900934ce760",
    "balanced-64": "007f0649757931acb75345f58ad5372832a42f1d2f4d2182713c58de3b5dcef9",
    "best-128": "052804e8226c81d5610d334d230ce8e46c8d0308dd4b6cd859f03c5cdf97dd79",
    "best-64": "065a707d9b74a147595e6626f833f50f687052bdde816a87e5ccc364fbf3be8d",
    "draft-128": "08c31d93d44225a4ae14cddf8e0e30a87aff347cc160aaf890ce7c27a8df57e9",
    "draft-64": "7c1b95c528f08dc3872181ebc5c5d03c12a628d05ee0be245012822db3b980a2",
    "fast-128": "ff8703fcf61559460a8f307cf3f9511a75d384e2c673b70c522d4843ce1039bc",
    "fast-64": "d108f83621b6dee58cafb3eabe24ef2d338a4ce71042066f6935e5abf2e17725",
    "rules": "6d31c7e0faf3d84d0b824066914e9626cf523a447dd3fc3e06e2f692ba00724b",
}

# All of these are made once. Made anew for every example, they would be validated for every one,
# which takes longer than drawing from them.
texts = st.text(max_size=8)  # without surrogates, which UTF-8 has not
finite = st.floats(-1e6, 1e6)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | finite | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
extras = st.dictionaries(texts.map("new {}".format), values, max_size=2)
intervals = st.builds(Interval, finite, finite, finite)
samples = st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(tuple)
fingerprints = st.builds(Fingerprint, texts) | st.builds(
    Fingerprint, texts, st.sampled_from(ROUNDED), samples
)
flags = st.booleans()
maybe_text, maybe_finite = st.none() | texts, st.none() | finite
facts = st.dictionaries(texts, texts, max_size=2)
sides = st.integers(1, 512)
requirements = st.builds(
    Requirements,
    maybe_text,
    maybe_finite,
    maybe_text,
    st.none() | st.tuples(sides, sides),
    maybe_text,
    st.none() | flags,
    extras,
)
evidences = st.builds(
    Evidence,
    facts,
    st.just(()),  # one for every step, see `all_plans`
    st.floats(1e-3, 1e3),
    st.just(()),
    maybe_finite,
    intervals,
    st.none() | intervals,
    st.integers(1, 99),
    maybe_text,
    maybe_text,
    maybe_text,
    extras,
)
bindings = st.builds(
    Binding,
    texts,
    maybe_text,
    maybe_text,
    st.none() | fingerprints,
    st.none() | facts,
    extras,
)
NAMED: tuple[Solver, ...] = tuple(each for each in SOLVERS if each != "heun")
solvers = st.sampled_from(NAMED)
pool_factors = st.sampled_from([1, 2, 4])
inner_times = st.lists(st.floats(1e-9, 1, exclude_max=True), max_size=6, unique=True)
weights_of = {most: st.lists(finite, min_size=2, max_size=1 + most) for most in range(1, 8)}
maybe_evidence, maybe_requirements = st.none() | evidences, st.none() | requirements
maybe_binding = st.none() | bindings


@st.composite
def some_tiers(draw: st.DrawFn) -> Tier:
    guided, factor = draw(flags), draw(pool_factors)
    if draw(flags) and draw(flags):
        return Tier(draw(texts), guided, late=True)
    cached = draw(flags) and (not guided or factor > 1)
    return Tier(draw(texts), guided, factor, cached, guided and draw(flags))


tiers = some_tiers()


@st.composite
def all_plans(draw: st.DrawFn) -> Plan:
    times = [1.0, *sorted(draw(inner_times), reverse=True), 0.0]
    steps: list[Step] = []
    made = 0
    kept = True  # whether the last step that asked the whole network was guided
    for number, (t, s) in enumerate(pairwise(times)):
        reuse = number > 0 and draw(flags)
        tier = FULL if number == 0 or reuse else draw(tiers)
        if tier.late and not kept:
            tier = replace(tier, guided=False)
        made += not reuse
        weights = None
        if draw(flags):
            weights = tuple(draw(weights_of[min(made, 7)]))
        scale = None
        if draw(flags):
            scale = draw(finite) if tier.guided and not reuse else 1.0
        solver = "damped2" if weights else draw(solvers)
        steps.append(Step(t, s, tier, solver, weights, scale, reuse, draw(extras)))
        if tier.whole and not reuse:
            kept = steps[-1].guides(guided=True)
    evidence = draw(maybe_evidence)
    if evidence is not None:
        evidence = replace(evidence, cost_ms=tuple(map(float, range(len(steps)))))
    return Plan(
        draw(texts),
        tuple(steps),
        evidence,
        draw(maybe_requirements),
        draw(maybe_binding),
        draw(extras),
    )


plans_of_all_kinds = all_plans()


def unknown(plan: Plan) -> list[Any]:
    """All that a file had and this version does not know."""
    parts = (plan, plan.requires, plan.binding, plan.evidence, *plan.steps)
    return [dict(part.extra) for part in parts if part is not None]


@given(plans_of_all_kinds)
def test_a_round_trip_keeps_everything(plan: Plan) -> None:
    data = json.loads(json.dumps(plan_to_json(plan)))
    VALID.validate(data)
    again = plan_from_json(data)
    assert again == plan
    for name in ("evidence", "requires", "binding"):
        assert getattr(again, name) == getattr(plan, name)
    assert unknown(again) == unknown(plan)
    assert plan_to_json(again) == plan_to_json(plan)
    assert plan_hash(again) == plan_hash(plan)


@pytest.mark.parametrize("path", sorted(OLD.glob("*.json")), ids=lambda path: path.stem)
def test_files_of_version_0_1_are_read(path: Path) -> None:
    plan = load_plan(path)
    data = json.loads(path.read_text("utf-8"))
    assert data["schema"] == 1
    for step, old in zip(plan.steps, data["steps"], strict=True):
        assert (step.t, step.s, step.solver) == (old["t"], old["s"], old["solver"])
        tier = old["tier"]
        assert (step.tier.name, step.tier.guided) == (tier["name"], tier["guided"])
        assert step.tier.pool_factor == tier.get("shrink", 1)
        assert step.tier.cached == tier.get("carried", False)
        assert step.tier.sequential_cfg == tier.get("in_turn", False)
    found, rules = plan_json.plan_and_rules_from_json(data, "the plan")
    assert found == plan
    assert plan_hash(plan, rules) == HASHES[path.stem]
    again = plan_from_json(json.loads(json.dumps(plan_to_json(plan))))
    assert again == plan
    assert again.evidence == plan.evidence
    assert plan_hash(again) == plan_hash(plan)


RULES = [
    {"step": 1, "action": "insert", "prediction_residual": 0.5},
    {"step": 0, "action": "skip", "prediction_residual": 1 / 3},
]


def with_rules(data: dict[str, Any], schema: int) -> dict[str, Any]:
    """A plan of that schema with rules, as asymflow wrote them."""
    names = {"prediction_residual": "surprise"} if schema == 1 else {}
    rules = [{names.get(key, key): value for key, value in rule.items()} for rule in RULES]
    return data | {"adaptive": rules}


@pytest.mark.parametrize("schema", plan_json.READ)
def test_rules_are_left_out_which_is_said(schema: int, caplog: pytest.LogCaptureFixture) -> None:
    old = json.loads((OLD / "draft-64.json").read_text("utf-8"))
    data = old if schema == 1 else plan_to_json(load_plan(OLD / "draft-64.json"))
    whole, where = plan_from_json(data), f"rules-{schema}.json"
    assert whole.evidence is not None
    plan = plan_from_json(with_rules(data, schema), where)
    assert plan == whole
    assert plan_hash(plan) == plan_hash(whole)
    # What was measured may be of pictures that left the steps; on which weights stays known.
    assert plan.evidence is None
    assert binding_of(plan) == binding_of(whole)
    assert "adaptive" not in plan_to_json(plan)
    [line] = caplog.messages
    assert line.startswith(f"{where} has rules for single pictures, which are no longer run")
    assert "evidence" in line


def test_nothing_is_said_of_evidence_that_a_plan_with_rules_has_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    load_plan(OLD / "rules.json")
    plan_from_json(with_rules(plan_to_json(plan_of(uniform(3))), 2), "without evidence")
    assert len(caplog.messages) == 2
    assert not any("evidence" in line.removeprefix("without evidence") for line in caplog.messages)


def test_no_rules_leave_everything_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    plan = load_plan(OLD / "draft-64.json")
    again = plan_from_json(plan_to_json(plan) | {"adaptive": []})
    assert (again, again.evidence) == (plan, plan.evidence)
    assert caplog.messages == []


def test_rules_that_are_none_are_refused() -> None:
    data = with_rules(plan_to_json(plan_of(uniform(3))), 2)
    data["adaptive"][1]["action"] = "jump"
    with pytest.raises(FileFormatError, match="rule 1 has the unknown action 'jump'"):
        plan_from_json(data)


def test_a_file_that_needs_its_rules_is_refused() -> None:
    data = with_rules(plan_to_json(plan_of(uniform(3))), 2) | {"required": ["adaptive"]}
    assert not VALID.is_valid(data)
    with pytest.raises(FileFormatError, match="requires 'adaptive'"):
        plan_from_json(data)


def test_schema_1_has_no_new_fields() -> None:
    data = json.loads((OLD / "balanced-64.json").read_text("utf-8"))
    for place, key, value in (
        (data, "binding", {"family": "embedded"}),
        (data["steps"][1], "guidance_scale", 3),
        (data["evidence"], "weights", "0123"),
    ):
        place[key] = value
        with pytest.raises(FileFormatError, match=f"has unknown entries: {key}"):
            plan_from_json(data)
        del place[key]


def test_what_must_be_understood_may_be_listed() -> None:
    data = plan_to_json(plan_of(uniform(2))) | {"required": list(plan_json.FEATURES)}
    VALID.validate(data)
    assert plan_from_json(data) == plan_of(uniform(2), name="unnamed")


def edited(**changes: Any) -> dict[str, Any]:
    data = plan_to_json(plan_of(uniform(3)))
    data["steps"][1] |= changes
    return data


@pytest.mark.parametrize(
    "changes",
    [
        {"solver": "rk4"},
        {"weights": [1, 0]},
        {"reuse": True, "tier": {"name": "full"}},
        {"reuse": True, "solver": "heun"},
        {"t": 2},
        {"tier": {"guided": True}},
        {"tier": {"name": "full", "price": 3}},
        {"guidance_scale": "3"},
        {"frequency_bands": []},
    ],
)
def test_what_the_json_schema_refuses_is_refused(changes: dict[str, Any]) -> None:
    assert not VALID.is_valid(edited(**changes))
    with pytest.raises(FileFormatError):
        plan_from_json(edited(**changes))


@pytest.mark.parametrize(
    ("fingerprint", "by_schema"),
    [
        ({"sample": ""}, True),
        ({"float16": "a", "rounded": "int8", "sample": ""}, True),
        ({"float16": "a", "rounded": "float16"}, True),
        ({"float16": "a", "sample": ""}, True),
        ({"float16": "a", "rounded": "float16", "sample": "?"}, False),
        ({"float16": "a", "rounded": "float16", "sample": "AAAA"}, False),
    ],
)
def test_damaged_fingerprints_are_refused(fingerprint: dict[str, str], by_schema: bool) -> None:
    binding = {"family": "net", "weights": "0" * 64, "fingerprint": fingerprint}
    data = plan_to_json(plan_of(uniform(3))) | {"binding": binding}
    assert VALID.is_valid(data) is not by_schema
    with pytest.raises(FileFormatError, match=r"the plan: binding: fingerprint has"):
        plan_from_json(data)


DOCUMENT = (Path(__file__).parents[2] / "docs" / "plan-files.md").read_text("utf-8")


def test_the_documented_plan_runs() -> None:
    [example] = re.findall(r"^```json\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    VALID.validate(json.loads(example))
    plan = plan_from_json(json.loads(example))
    assert [step.evaluations for step in plan.steps] == [1, 1, 0, 1, 1]
    assert plan.requires == Requirements(parameterisation="x_0", guidance="cfg")
    means = torch.zeros(2, 3, 8, 8)
    [result] = engine.run(
        GaussianAdapter(means, means + 1), plan, [Request({}, (8, 8), guidance_scale=2.0)]
    )
    assert result.forwards == plan.forwards == 7


def test_the_documented_fields_are_those_of_the_json_schema() -> None:
    sections = {
        "The file": SCHEMA,
        "Steps": SCHEMA["$defs"]["step"],
        "Tiers": SCHEMA["$defs"]["tier"],
        "Evidence": SCHEMA["$defs"]["evidence"],
    }
    for heading, definition in sections.items():
        section = re.split(r"^##+ ", DOCUMENT.partition(f"# {heading}\n")[2], flags=re.MULTILINE)
        named = re.findall(r"^\| `(\w+)` \|", section[0], re.MULTILINE)
        assert set(named) == set(definition["properties"]) - set(plan_json.RESERVED), heading
    models = DOCUMENT.partition("## Models\n")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(\w+)` \|", models, re.MULTILINE)
    parts = ("requirements", "binding")
    assert named == [name for part in parts for name in SCHEMA["$defs"][part]["properties"]]


def test_the_json_schema_has_the_names_of_the_code() -> None:
    step = SCHEMA["$defs"]["step"]["properties"]
    assert tuple(step["solver"]["enum"]) == SOLVERS
    assert set(plan_json.RESERVED) <= set(step)
    assert tuple(SCHEMA["properties"]["required"]["items"]["enum"]) == plan_json.FEATURES
    assert SCHEMA["properties"]["schema"]["const"] == plan_json.SCHEMA
    assert SCHEMA["properties"]["format"]["const"] == plan_json.FORMAT
