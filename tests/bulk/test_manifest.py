"""Manifests: what they may look like, and that every damage is told, at its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asymflow.bulk import manifest as manifests
from asymflow.bulk.feed import Bad, Feed, Shard
from asymflow.bulk.rows import Columns, Row
from asymflow.core.errors import AsymflowError, FileFormatError, InputError

ROWS = [{"id": "a", "prompt": "fox", "seed": 3}, {"id": "b", "prompt": "über", "seed": 4}]


def fed(
    name: Path | str, done: dict[bytes, int] | None = None, shard: Shard | None = None
) -> tuple[list[Row], list[Bad]]:
    bad: list[Bad] = []
    feed = Feed(
        manifests.manifest(str(name)),
        {} if done is None else done,
        Columns(),
        shard=shard,
        limit=None,
        bad=bad.append,
    )
    rows: list[Row] = []
    while not feed.exhausted:
        rows += feed.chunk(4) or ()
    return sorted(rows, key=lambda row: row.line), bad


@pytest.fixture(params=["jsonl", "ndjson", "csv", "parquet"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"rows.{request.param}"
    if request.param == "csv":
        path.write_text("id,prompt,seed\na,fox,3\nb,über,4\n", "utf-8")
    elif request.param == "parquet":
        arrow = request.getfixturevalue("arrow")
        arrow.parquet.write_table(arrow.Table.from_pylist(ROWS), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_the_same_rows_in_every_form(written: Path) -> None:
    rows, bad = fed(written)
    assert not bad
    assert [(row.id, dict(row.asked)) for row in rows] == [
        ("a", {"prompt": "fox", "seed": 3}),
        ("b", {"prompt": "über", "seed": 4}),
    ]
    assert manifests.manifest(str(written)).count() == 2


def test_empty_lines_a_mark_of_the_byte_order_and_a_last_line_without_an_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1, "prompt": "x"}\n\n  \n{"id": 2, "prompt": "y"}')
    rows, bad = fed(path)
    assert ([row.id for row in rows], bad) == (["1", "2"], [])
    assert [row.line for row in rows] == [1, 4]


def test_quoted_cells_have_commas_and_ends_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('id,prompt,note\na,"one, two\nthree",\nb,four,x\n')
    rows, bad = fed(path)
    assert not bad
    assert [dict(row.asked) for row in rows] == [{"prompt": "one, two\nthree"}, {"prompt": "four"}]
    assert [dict(row.travels) for row in rows] == [{}, {"note": "x"}]


LINES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"fox\n", "not a JSON file"),
    "half a line": (b'{"id": "a", "pro\n', "not a JSON file"),
    "a list": (b"[1, 2]\n", "list, and not a JSON object"),
    "a text": (b'"fox"\n', "str, and not a JSON object"),
    "NaN": (b'{"id": "a", "guidance": NaN}\n', "NaN is not a JSON number"),
    "Infinity": (b'{"id": "a", "score": Infinity}\n', "Infinity is not a JSON number"),
    "invalid UTF-8": (b'{"id": "a", "prompt": "\xff"}\n', "not UTF-8: byte 23"),
    "UTF-16": ('{"id": "a"}'.encode("utf-16-le") + b"\n", "not a JSON file"),
    "half of a pair": (b'{"id": "a", "prompt": "\\ud800"}\n', "surrogate"),
    "NUL bytes": (b"\0\0\0\n", "not a JSON file"),
    "deep nesting": (b"[" * 100_000 + b"\n", "not a JSON file"),
    "an id of another type": (b'{"id": [1], "prompt": "x"}\n', "The id is [1]"),
    "an id that is true": (b'{"id": true, "prompt": "x"}\n', "The id is True"),
    "a fraction as an id": (b'{"id": 1.5, "prompt": "x"}\n', "The id is 1.5"),
    "an empty id": (b'{"id": "", "prompt": "x"}\n', "from 1 to 1000"),
    "a long id": (json.dumps({"id": "x" * 1001}).encode() + b"\n", "from 1 to 1000"),
    "a prompt that is a number": (b'{"id": "a", "prompt": 3}\n', "must be a text"),
    "a seed that is a text": (b'{"id": "a", "seed": "3"}\n', "must be a whole number"),
    "a seed with a fraction": (b'{"id": "a", "seed": 3.5}\n', "must be a whole number"),
    "guidance that is true": (b'{"id": "a", "guidance": true}\n', "must be a number"),
    "guidance beyond floats": (b'{"id": "a", "guidance": 1' + b"0" * 400 + b"}\n", "must be a num"),
    "a size that is a list": (b'{"id": "a", "size": [64, 64]}\n', "must be a text"),
    "a large integer": (b'{"id": "a", "score": 1' + b"0" * 30 + b"}\n", "more than 64 bits"),
    "transparent, as a text": (b'{"id": "a", "transparent": "no"}\n', "must be a true or false"),
    "two columns of one name": (
        b'{"id": "a", "sha256": "x", "manifest_sha256": "y"}\n',
        "Rename one of them",
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_is_told_and_those_around_it_are_rows(name: str, tmp_path: Path) -> None:
    line, said = LINES[name]
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"id": "before"}\n' + line + b'{"id": "after"}\n')
    rows, bad = fed(path)
    assert [row.id for row in rows] == ["before", "after"]
    [one] = bad
    assert one.line == 2
    assert said in one.error
    assert len(one.error) < 400


CELLS: dict[str, tuple[bytes, str]] = {
    "too few cells": (b"a\n", "1 cells, and the header 2"),
    "too many cells": (b"a,b,c\n", "3 cells, and the header 2"),
    "invalid UTF-8": (b"a,\xff\n", "not UTF-8"),
    "a seed that is no number": (b"a,three\n", "must be a whole number"),
    "a seed that is nan": (b"a,nan\n", "must be a whole number"),
    "a cell of 2 MB": (b'a,"' + b"x" * 2_000_000 + b'"\n', "field larger"),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_bad_line_of_csv(name: str, tmp_path: Path) -> None:
    line, said = CELLS[name]
    path = tmp_path / "m.csv"
    path.write_bytes(b"id,seed\nbefore,1\n" + line + b"after,2\n")
    rows, bad = fed(path)
    assert [row.id for row in rows] == ["before", "after"]
    [one] = bad
    assert said in one.error


def _directory(path: Path) -> None:
    path.mkdir()


def _damaged_parquet(path: Path) -> None:
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    pq.write_table(pa.Table.from_pylist(ROWS * 1000), path)
    path.write_bytes(path.read_bytes()[:-100])


FILES: dict[str, tuple[str, Callable[[Path], object], type[AsymflowError], str]] = {
    "a folder": ("m.jsonl", _directory, InputError, "is a folder"),
    "nothing": ("m.jsonl", lambda path: None, InputError, "There is no manifest"),
    "another kind": ("m.xml", lambda path: path.write_text("<a/>"), InputError, "ends in .xml"),
    "a truncated Parquet": ("m.parquet", _damaged_parquet, FileFormatError, "damaged"),
    "an empty Parquet": ("m.parquet", lambda path: path.touch(), FileFormatError, "damaged"),
    "text as Parquet": (
        "m.parquet",
        lambda path: path.write_text("id,prompt\n"),
        FileFormatError,
        "not a Parquet file",
    ),
    "an empty CSV": ("m.csv", lambda path: path.touch(), FileFormatError, "without a name"),
    "a column twice": ("m.csv", lambda path: path.write_text("id,id\n"), FileFormatError, "twice"),
    "a column without a name": (
        "m.csv",
        lambda path: path.write_text("id,,prompt\n"),
        FileFormatError,
        "without a name",
    ),
    "a header that is no text": (
        "m.csv",
        lambda path: path.write_bytes(b"id,\xff\n"),
        FileFormatError,
        "no header",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_manifest_is_refused(name: str, tmp_path: Path) -> None:
    file, make, kind, said = FILES[name]
    if file.endswith(".parquet"):
        pytest.importorskip("pyarrow.parquet")
    path = tmp_path / file
    make(path)
    with pytest.raises(kind, match=said):
        manifests.manifest(str(path))


def test_parquet_that_is_damaged_in_the_middle_says_after_which_row(
    arrow: Any, tmp_path: Path
) -> None:
    path = tmp_path / "m.parquet"
    rows = [{"id": str(i), "prompt": f"{i} " + "x" * 100} for i in range(20_000)]
    table = arrow.Table.from_pylist(rows)
    arrow.parquet.write_table(table, path, row_group_size=5000, compression="none")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200_000] = b"\xff" * 200_000
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="damaged after row"):
        fed(path)


def test_a_prompt_of_10_mb_and_a_line_of_20_mb(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with path.open("wb") as file:
        for size in (10_000_000, 20_000_000):
            file.write(b'{"id": "%d", "prompt": "' % size + b"x" * size + b'"}\n')
        file.write(b'{"id": "after", "prompt": "y"}\n')
    rows, bad = fed(path)
    assert [row.id for row in rows] == ["after"]
    assert [one.line for one in bad] == [1, 2]
    assert "10000000 characters" in bad[0].error
    assert "16 MB" in bad[1].error


def test_ids_that_are_there_twice_and_columns_of_two_types(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines = [
        {"id": "a", "score": 1.5},
        {"id": "a", "score": 2.5},
        {"id": "b", "score": "high"},
        {"id": "c", "score": 3},
        {"score": 4},
        {"score": 4},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows, bad = fed(path)
    assert [row.travels for row in rows] == [{"score": 1.5}, {"score": 3.0}, {"score": 4.0}]
    assert [type(row.travels["score"]) for row in rows] == [float, float, float]
    assert [(one.line, one.id) for one in bad] == [(2, "a"), (3, "b"), (6, rows[2].id)]
    assert "on an earlier line" in bad[0].error
    assert "is a text here" in bad[1].error


def test_shards_share_all_lines_and_have_none_in_common(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("".join(f'{{"id": {i}, "prompt": "x"}}\nbad {i}\n' for i in range(300)))
    parts = [fed(path, shard=Shard(i, 3)) for i in range(3)]
    ids = [row.id for rows, _ in parts for row in rows]
    assert sorted(ids, key=int) == [str(i) for i in range(300)]
    assert sorted(one.line for _, bad in parts for one in bad) == list(range(2, 601, 2))
    assert all(70 < len(rows) < 130 for rows, _ in parts)


def test_rows_that_share_calls_come_together(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(
        "".join(json.dumps({"id": i, "size": 32 + 32 * (i % 2)}) + "\n" for i in range(64))
    )
    feed = Feed(
        manifests.manifest(str(path)), {}, Columns(), shard=None, limit=None, bad=lambda bad: None
    )
    chunks: list[list[str]] = []
    while not feed.exhausted:
        if rows := feed.chunk(8):
            chunks.append([row.asked["size"] for row in rows])
    assert sorted(chunks) == [["32"] * 8] * 4 + [["64"] * 8] * 4
