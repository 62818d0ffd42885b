"""Rows: ids, seeds and columns that depend on nothing but the row."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asymflow.bulk.manifest import Line
from asymflow.bulk.rows import (
    ASKED,
    WRITTEN,
    Columns,
    Row,
    key_of,
    options,
    row_of,
    seed_of,
    shard_of,
)
from asymflow.core.errors import InputError
from asymflow.generation import resolve
from asymflow.generation.resolve import GenerateOptions

HERE = Path("/rows")


def row(**columns: object) -> Row:
    return row_of(Line(1, columns), texts=False)


names = st.text(min_size=1, max_size=8).filter(lambda name: name not in {*ASKED, *WRITTEN, "id"})
values = st.one_of(
    st.text(max_size=20),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers(), max_size=3),
)


@given(st.dictionaries(names, values, max_size=5), st.integers(1, 1000))
def test_a_row_is_the_same_wherever_its_line_and_its_columns_stand(
    columns: dict[str, Any], line: int
) -> None:
    one = row_of(Line(1, {"prompt": "x", **columns}), texts=False)
    other = row_of(Line(line, {**dict(reversed(columns.items())), "prompt": "x"}), texts=False)
    assert (one.id, one.contents, one.key) == (other.id, other.contents, other.key)
    assert one.asked == other.asked
    assert one.travels == other.travels
    assert pickle.loads(pickle.dumps(one)) == one
    json.dumps(one.travels, allow_nan=False)


@given(st.dictionaries(names, values, min_size=1, max_size=3))
def test_a_row_without_an_id_is_called_by_all_of_its_columns(columns: dict[str, Any]) -> None:
    one = row(prompt="x", **columns)
    assert one.id != row(prompt="y", **columns).id
    for name in columns:
        changed = {**columns, name: json.dumps(columns[name]) + "!"}
        assert row(prompt="x", **changed).id != one.id
        assert row(prompt="x", **changed).contents != one.contents


def test_an_id_is_no_part_of_the_contents() -> None:
    one, other = row(id="a", prompt="x"), row(id="b", prompt="x")
    assert one.contents == other.contents
    assert one.key != other.key
    assert row(id=7).id == row(id="7").id == "7"


def test_seeds_come_from_ids_are_spread_and_can_all_be_changed() -> None:
    asked = {
        id: options(row(id=id, prompt="x"), GenerateOptions(seed=0), HERE).seed
        for id in map(str, range(2000))
    }
    seeds = [seed for seed in asked.values() if seed is not None]
    assert len(set(seeds)) == 2000
    assert min(seeds) < 2**25 < 2**31 < max(seeds) < 2**32
    assert asked["7"] == seed_of("7")
    assert options(row(id="7"), GenerateOptions(seed=1), HERE).seed not in (asked["7"], None)
    assert options(row(id="7", seed=5), GenerateOptions(seed=1), HERE).seed == 5


def test_keys_have_no_pattern_in_shards() -> None:
    counts = [0] * 7
    for i in range(7000):
        counts[shard_of(key_of(f"row-{i:08}"), 7)] += 1
    assert min(counts) > 850


def test_csv_has_numbers_as_texts() -> None:
    cells = {"id": "1", "seed": "3", "guidance": "2.5", "transparent": "no", "size": "32"}
    found = row_of(Line(2, {**cells, "tag": "7"}), texts=True)
    assert found.asked == {"guidance": 2.5, "seed": 3, "size": "32", "transparent": False}
    assert found.travels == {"tag": "7"}


def test_columns_are_the_options_of_generate(tmp_path: Path) -> None:
    found = options(
        row(prompt="x", size=48, style="noto", negative="y", guidance=3, steps=4, background="red"),
        GenerateOptions(plan="draft", style="twemoji", seed=0),
        HERE,
    )
    assert found == GenerateOptions(
        prompt="x",
        size="48",
        style="noto",
        negative="y",
        guidance=3.0,
        steps=4,
        background="red",
        seed=found.seed,
    )
    wanted = resolve.spec(found, "png")
    assert (wanted.size, wanted.style, wanted.guidance) == ((48, 48), "noto", 3.0)
    assert options(row(plan="best"), GenerateOptions(steps=9, seed=0), HERE).steps is None
    assert options(row(image="a.png"), GenerateOptions(), HERE).image == HERE / "a.png"
    assert options(row(reference="none"), GenerateOptions(), HERE).reference == "none"
    assert options(row(**{"class": 7}), GenerateOptions(), HERE).label == "7"


def test_columns_that_the_output_has_get_a_prefix() -> None:
    found = row(prompt="x", sha256="y", nfe=3, image="a.png")
    assert found.travels == {"manifest_nfe": 3, "manifest_sha256": "y"}
    assert found.asked == {"image": "a.png", "prompt": "x"}
    with pytest.raises(InputError, match="Rename one"):
        row(image="a.png", manifest_image="b.png")


def test_a_column_keeps_the_type_of_its_first_row() -> None:
    columns = Columns()
    columns.learn({"a": 1.5, "b": True, "c": "x"})
    fitted = columns.fitted(row(a=2, b=False, c="y", d=4))
    assert fitted.travels == {"a": 2.0, "b": False, "c": "y", "d": 4}
    assert columns.kinds["d"] == "whole number"
    for other in ({"a": "x"}, {"b": 1}, {"c": 1}, {"d": 1.5}, {"d": True}):
        with pytest.raises(InputError, match="Give it one type"):
            columns.fitted(row(**other))
