"""The output on disk: whatever the moment of an end, nothing finished is lost and nothing half."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asymflow.bulk.job import Output
from asymflow.bulk.manifest import Line
from asymflow.bulk.rows import FACTS, Columns, Row, row_of
from asymflow.bulk.store import Store, contents_of, locked
from asymflow.core.errors import FileFormatError, InputError

from .conftest import entries

FACT = {
    name: 1 if kind == "int64" else 0.5 if kind == "float64" else name
    for name, kind in FACTS.items()
    if name not in ("id", "row")
}


def row(number: int) -> Row:
    return row_of(
        Line(number, {"id": f"é {number}", "prompt": "x\u2028y", "n": number}), texts=False
    )


def png(number: int) -> bytes:
    return b"picture %d" % number * 50


def store(out: Path, output: Output = "imagefolder", *, repair: bool = True) -> Store:
    made = Store(out / "data", out / "errors.jsonl", output, Columns())
    made.open(repair=repair)
    return made


def fill(made: Store, numbers: range) -> None:
    for number in numbers:
        made.add(row(number), png(number), FACT)


def close(made: Store) -> None:
    made.finish()
    made.close()


def test_pictures_lie_in_folders_of_a_thousand_beside_their_lines(tmp_path: Path) -> None:
    made = store(tmp_path)
    fill(made, range(2005))
    close(made)
    folders = sorted((tmp_path / "data").iterdir())
    assert [folder.name for folder in folders] == ["00000", "00001", "00002"]
    assert [len(list(folder.iterdir())) for folder in folders] == [1001, 1001, 6]
    found = entries(tmp_path)
    assert [each["id"] for each in found] == [f"é {i}" for i in range(2005)]
    assert found[7]["prompt"] == "x\u2028y"
    name = tmp_path / "data/00002" / found[2004]["file_name"]
    assert name.read_bytes() == png(2004)
    again = store(tmp_path)
    assert len(again.done) == 2005
    assert again.done[row(9).key] == contents_of(row(9))
    fill(again, range(2005, 2007))
    close(again)
    assert len(list((tmp_path / "data/00002").iterdir())) == 8


def test_what_is_not_committed_was_never_there(tmp_path: Path) -> None:
    made = store(tmp_path)
    fill(made, range(10))
    made.commit()
    fill(made, range(10, 20))
    made.close()  # and the process ends
    names = [each.name for each in (tmp_path / "data/00000").iterdir()]
    assert sum(name.startswith(".") for name in names) == 10
    again = store(tmp_path)
    assert len(again.done) == 10
    assert len(entries(tmp_path)) == 10
    fill(again, range(10, 20))
    close(again)
    assert len(entries(tmp_path)) == 20


def test_the_last_line_cut_at_any_byte_is_removed_with_its_picture(tmp_path: Path) -> None:
    made = store(tmp_path / "whole")
    fill(made, range(3))
    close(made)
    path = tmp_path / "whole/data/00000/metadata.jsonl"
    data = path.read_bytes()
    last = data.rindex(b"\n", 0, -1) + 1
    for cut in [*range(last, len(data), 7), len(data) - 1]:
        copy = tmp_path / f"cut at {cut}"
        shutil.copytree(tmp_path / "whole", copy)
        (copy / "data/00000/metadata.jsonl").write_bytes(data[:cut])
        looked = store(copy, repair=False)
        assert len(looked.done) == 2
        assert (copy / "data/00000/metadata.jsonl").stat().st_size == cut
        again = store(copy)
        assert set(again.done) == {row(0).key, row(1).key}
        fill(again, range(2, 3))
        close(again)
        assert [each["id"] for each in entries(copy)] == ["é 0", "é 1", "é 2"]
        assert (copy / "data/00000/metadata.jsonl").read_bytes() == data


def test_a_tail_of_zeros_after_a_loss_of_power_is_removed(tmp_path: Path) -> None:
    made = store(tmp_path)
    fill(made, range(3))
    close(made)
    path = tmp_path / "data/00000/metadata.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:-40] + bytes(40))
    assert len(store(tmp_path).done) == 2
    assert len(entries(tmp_path)) == 2


def test_damage_elsewhere_is_told_with_its_place(tmp_path: Path) -> None:
    made = store(tmp_path)
    fill(made, range(1001))
    close(made)
    path = tmp_path / "data/00000/metadata.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"row"', b'"sow"', 1))
    with pytest.raises(FileFormatError, match=r"00000/metadata\.jsonl is damaged at byte 0"):
        store(tmp_path)
    path.write_bytes(data)
    picture = next((tmp_path / "data/00000").glob("*.png"))
    picture.unlink()
    with pytest.raises(FileFormatError, match=f"00000 has no {picture.name}"):
        store(tmp_path)
    shutil.rmtree(tmp_path / "data/00000")
    assert len(store(tmp_path).done) == 1


def test_files_of_parquet_have_pictures_and_columns_with_types(arrow: Any, tmp_path: Path) -> None:
    made = store(tmp_path, "parquet")
    fill(made, range(1003))
    close(made)
    files = sorted((tmp_path / "data").glob("*.parquet"))
    assert [path.name for path in files] == ["00000.parquet", "00001.parquet"]
    assert not list((tmp_path / "data/.open").iterdir())
    table = arrow.parquet.read_table(files[0])
    assert table.num_rows == 1000
    assert table.schema.equals(arrow.parquet.read_schema(files[1]))
    types = {field.name: str(field.type) for field in table.schema}
    assert types["n"] == types["nfe"] == "int64"
    assert types["prompt"] == "string"
    last = arrow.parquet.read_table(files[1]).to_pylist()[-1]
    assert last["image"]["bytes"] == png(1002)
    assert (last["id"], last["n"], last["seconds"]) == ("é 1002", 1002, 0.5)
    again = store(tmp_path, "parquet")
    assert len(again.done) == 1003
    assert again.columns.kinds["n"] == "whole number"


def test_a_file_of_parquet_that_is_not_full_goes_on_after_an_end(
    arrow: Any, tmp_path: Path
) -> None:
    made = store(tmp_path, "parquet")
    fill(made, range(10))
    made.commit()
    made.close()
    assert not list((tmp_path / "data").glob("*.parquet"))
    (tmp_path / "data/.00000.parquet.half").touch()
    again = store(tmp_path, "parquet")
    assert len(again.done) == 10
    fill(again, range(10, 15))
    close(again)
    assert arrow.parquet.read_table(tmp_path / "data/00000.parquet").num_rows == 15
    assert not list((tmp_path / "data").glob(".*half"))


def test_a_folder_whose_file_of_parquet_is_written_is_not_read_again(
    arrow: Any, tmp_path: Path
) -> None:
    made = store(tmp_path, "parquet")
    fill(made, range(5))
    made.commit()
    shutil.copytree(tmp_path / "data/.open", tmp_path / "before")
    close(made)
    shutil.copytree(tmp_path / "before", tmp_path / "data/.open", dirs_exist_ok=True)
    assert len(store(tmp_path, "parquet").done) == 5
    assert not list((tmp_path / "data/.open").iterdir())


def test_a_damaged_file_of_parquet_is_named(arrow: Any, tmp_path: Path) -> None:
    made = store(tmp_path, "parquet")
    fill(made, range(5))
    close(made)
    path = tmp_path / "data/00000.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FileFormatError, match=r"00000\.parquet is damaged"):
        store(tmp_path, "parquet")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if (
        not sys.platform.startswith("linux")
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("only root may mount a small disk, on Linux")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # pyarrow closes files late


@pytest.mark.parametrize("output", ["imagefolder", "parquet"])
def test_a_full_disk_stops_and_what_was_finished_stays(
    small: Path, output: Output, request: pytest.FixtureRequest
) -> None:
    pq = request.getfixturevalue("arrow").parquet if output == "parquet" else None
    made = store(small, output)
    large = hashlib.sha256(b"x").digest() * 500

    def write() -> None:
        for number in range(1000):
            made.add(row(number), large, FACT)
            if number % 5 == 4:
                made.commit()
        made.finish()

    with pytest.raises(InputError, match=r"No space left on device.*the same command continues"):
        write()
    made.commit()  # as after any end
    made.close()
    safe = made.safe
    assert 10 < safe < 80
    subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
    again = store(small, output)
    assert len(again.done) == safe
    for number in range(80):
        if row(number).key not in again.done:
            again.add(row(number), large, FACT)
    close(again)
    if pq is None:
        found = {each["id"] for each in entries(small)}
    else:
        found = set(pq.read_table(small / "data/00000.parquet")["id"].to_pylist())
    assert found == {f"é {i}" for i in range(80)}


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(InputError, match=f"Cannot write to {tmp_path}"):
        store(tmp_path)


def test_one_process_writes_a_place(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from asymflow.bulk.store import locked\n"
        f"with locked(Path({str(tmp_path)!r}), 'batch'): pass"
    )
    with locked(tmp_path, "batch"):
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "Another process writes to" in other.stderr
        with locked(tmp_path, "shard-00001-of-00002"):
            pass
    with locked(tmp_path, "batch"):
        assert list(tmp_path.iterdir())


def test_what_failed_is_a_line_and_is_forgotten_when_it_is_tried_again(tmp_path: Path) -> None:
    made = store(tmp_path)
    made.failed({"line": 3, "id": None, "error": "é\n"})
    made.close()
    assert json.loads((tmp_path / "errors.jsonl").read_text("utf-8"))["error"] == "é\n"
    store(tmp_path).close()
    assert not (tmp_path / "errors.jsonl").exists()
