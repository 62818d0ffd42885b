"""`asymflow batch`: every row once, and the same pixels however the work is divided or ended."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from asymflow.bulk.manifest import Line
from asymflow.bulk.pictures import Made, Pictures, Settings
from asymflow.bulk.rows import row_of
from asymflow.cli import main
from asymflow.generation.resolve import GenerateOptions
from tests.helpers import wait_until

from .conftest import Type, Typed, entries, errors, hashes, some, started, write


def children(pid: int) -> list[int]:
    """The processes that another one started and that make pictures."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"spawn_main" in command:
            found.append(int(path.name))
    return found


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def gone(pids: Iterable[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def ids(rows: Iterable[dict[str, Any]]) -> set[str]:
    return {str(row["id"]) for row in rows}


@pytest.mark.slow
def test_one_process_two_and_shards_make_the_same_pixels(batch: Type, here: Path) -> None:
    rows = some(40)
    for i, row in enumerate(rows):
        row["size"] = 32 + 16 * (i % 3)
        row["tag"] = i
    write(here / "m.jsonl", rows)
    one = batch("m.jsonl", "-o", "one", "--steps", 3)
    assert (one.code, one.json["rows"]) == (0, {"made": 40, "skipped": 0, "failed": 0})
    assert batch("m.jsonl", "-o", "two", "--steps", 3, workers=2).code == 0
    for i in range(3):
        assert batch("m.jsonl", "-o", "parts", "--steps", 3, "--shard", f"{i}/3").code == 0
    expected = hashes(here / "one")
    assert set(expected) == ids(rows)
    assert len(set(expected.values())) == 40
    assert hashes(here / "two") == hashes(here / "parts") == expected
    pictures = Pictures.load(
        Settings("free", threads=None, defaults=GenerateOptions(steps=3, seed=0))
    )
    made = pictures.make([row_of(Line(1, row), texts=False) for row in random.sample(rows, 40)])
    assert {e.row.id: e.facts["sha256"] for e in made if isinstance(e, Made)} == expected
    assert {each["tag"] for each in entries(here / "one")} == set(range(40))


def test_models_that_take_several_make_the_same_pixels_in_every_division(
    batch: Type, here: Path
) -> None:
    write(here / "m.jsonl", some(30))
    for out, words in (("one", ()), ("part", ("--shard", "0/1")), ("limit", ("--limit", 11))):
        typed = batch(
            "m.jsonl", "-o", out, "--steps", 2, "--rows", 4, *words, model="free-together"
        )
        assert typed.code == 0
    batch("m.jsonl", "-o", "limit", "--steps", 2, "--rows", 4, model="free-together")
    assert hashes(here / "one") == hashes(here / "part") == hashes(here / "limit")


def test_the_same_command_continues_and_makes_nothing_twice(batch: Type, here: Path) -> None:
    write(here / "m.jsonl", some(20))
    command = ("m.jsonl", "-o", "out", "--steps", 2)
    assert batch(*command, "--limit", 8).json["rows"] == {"made": 8, "skipped": 0, "failed": 0}
    first = hashes(here / "out")
    write(here / "m.jsonl", some(25))
    assert batch(*command).json["rows"] == {"made": 17, "skipped": 8, "failed": 0}
    assert first.items() <= hashes(here / "out").items()
    assert batch(*command).json["rows"] == {"made": 0, "skipped": 25, "failed": 0}
    rows = some(25)
    rows[3]["prompt"] = "something else"
    write(here / "m.jsonl", rows)
    typed = batch(*command)
    assert (typed.code, typed.json["rows"]["failed"]) == (1, 1)
    assert "is not as it was" in errors(here / "out")[0]["error"]


def test_failed_rows_are_told_and_tried_again(batch: Type, here: Path) -> None:
    rows = [*some(3), {"id": "no file", "prompt": "x", "image": "red.png", "size": 32}]
    rows += [{"id": "no style", "prompt": "x", "style": "cubism"}]
    write(here / "m.jsonl", rows)
    typed = batch("m.jsonl", "-o", "out", "--steps", 2)
    assert typed.code == 1
    assert typed.json["errors"] == "out/errors.jsonl"
    assert {each["id"] for each in errors(here / "out")} == {"no file", "no style"}
    main.run("generate red --model free --size 32 --steps 2 -o red.png".split())
    typed = batch("m.jsonl", "-o", "out", "--steps", 2)
    assert typed.out.count("red.png") == 1  # the picture of generate
    assert {each["id"] for each in errors(here / "out")} == {"no style"}
    assert len(entries(here / "out")) == 4


def test_too_many_errors_end_a_job(batch: Type, here: Path) -> None:
    write(here / "m.jsonl", [{"id": i, "prompt": "x", "seed": "y"} for i in range(1000)])
    typed = batch("m.jsonl", "-o", "out", "--max-errors", 5)
    assert (typed.code, typed.json["ended"]) == (1, "too many errors")
    assert 5 < len(errors(here / "out")) < 1000


@pytest.mark.slow
def test_another_job_is_refused_and_says_what_differs(batch: Type, here: Path) -> None:
    write(here / "m.jsonl", some(2))
    usual = {"--steps": 2, "--dtype": "float32"}

    def typed(*more: object, **changed: object) -> Typed:
        options = usual | {f"--{name}": value for name, value in changed.items()}
        return batch("m.jsonl", "-o", "out", *chain(*options.items()), *more)

    assert typed().code == 0
    before = (here / "out/job.json").read_text()
    for name, value, said in (
        ("steps", 3, "the plan was"),
        ("guidance", 2, '"guidance": "2.0"'),
        ("dtype", "bfloat16", "dtype was float32 and is bfloat16"),
        ("format", "parquet", "the form of the output was imagefolder"),
        ("shard", "0/2", "the number of shards was None and is 2"),
        ("threads", 2, "--allow-mixed"),
    ):
        refused = typed(**{name: value})
        assert (refused.code, said in refused.err) == (2, True), refused.err
    assert typed("--allow-mixed", threads=2).code == 0
    assert (here / "out/job.json").read_text() == before
    assert len(entries(here / "out")) == 2


def test_a_folder_that_is_no_job_is_left_alone(batch: Type, here: Path) -> None:
    write(here / "m.jsonl", some(2))
    (here / "out").mkdir()
    (here / "out/thesis.txt").write_text("precious")
    typed = batch("m.jsonl", "-o", "out")
    assert typed.code == 2
    assert "holds thesis.txt and no job.json" in typed.err
    assert names(here / "out") == ["thesis.txt"]
    typed = batch("m.jsonl", "-o", "m.jsonl")
    assert (typed.code, "is a file" in typed.err) == (2, True)


def test_a_dry_run_predicts_and_writes_nothing(batch: Type, here: Path) -> None:
    rows = some(30)
    for row in rows[:10]:
        row["size"] = 64
    write(here / "m.jsonl", [*rows, {"id": "x", "prompt": "y", "style": "cubism"}])
    typed = batch("m.jsonl", "-o", "out", "--steps", 2, "--dry-run")
    found = typed.json
    assert typed.code == 1
    assert found["rows"] == {"left": 30, "skipped": 0, "failed": 1}
    assert [kind["rows"] for kind in found["kinds"]] == [20, 10]
    assert found["nfe"] == sum(kind["rows"] * kind["nfe"] for kind in found["kinds"])
    seconds = sum(kind["rows"] * kind["seconds"] for kind in found["kinds"])
    assert found["hours"] == pytest.approx(seconds / 3600, abs=1e-4)
    assert names(here) == ["m.jsonl"]
    batch("m.jsonl", "-o", "out", "--steps", 2, "--limit", 12)
    again = batch("m.jsonl", "-o", "out", "--steps", 2, "--dry-run").json
    assert again["rows"] == {"left": 18, "skipped": 12, "failed": 1}


def test_a_row_that_takes_its_process_with_it_twice_is_left_out(batch: Type, here: Path) -> None:
    rows = some(12)
    rows[4]["prompt"] = "kill"
    rows[7]["prompt"] = f"once {here / 'marker'}"
    write(here / "m.jsonl", rows)
    typed = batch("m.jsonl", "-o", "out", "--steps", 2, workers=2)
    assert typed.code == 1
    assert typed.json["lost_processes"] == 3
    [failed] = errors(here / "out")
    assert failed["id"] == "row 4"
    assert "SIGKILL" in failed["error"]
    assert set(hashes(here / "out")) == ids(rows) - {"row 4"}


def test_a_model_that_cannot_be_loaded_is_an_error_of_the_command(batch: Type, here: Path) -> None:
    write(here / "m.jsonl", some(2))
    typed = batch("m.jsonl", "-o", "out", model="./nothing.safetensors")
    assert typed.code == 2
    assert "There is no file or folder" in typed.err
    assert not (here / "out/job.json").exists()


def test_rows_of_a_stream_are_made_as_they_come(here: Path) -> None:
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "asymflow", "batch", "-", "-o", "out", "--model", "free"),
            *("--steps", "2", "--workers", "1", "--json"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        for i in range(3):
            process.stdin.write(json.dumps({"id": i, "prompt": "x", "size": 32}) + "\n")
            process.stdin.flush()
            wait_until(lambda i=i: len(list((here / "out").rglob("[!.]*.png"))) == i + 1)
        process.stdin.close()
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["rows"]["made"] == 3
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_made(number: signal.Signals, here: Path) -> None:
    write(here / "m.jsonl", some(200, prompt="slow"))
    with started("m.jsonl", "-o", "out", "--steps", 2, "--workers", 2) as process:
        wait_until(lambda: list((here / "out").rglob("[!.]*.png")))
        processes = children(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == "out/data\n"
    assert f"stopped: {number.name}; the same command continues" in err
    made = len(entries(here / "out"))
    assert 0 < made < 200
    assert f"{made} made" in err
    wait_until(partial(gone, processes))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
@pytest.mark.slow
def test_kill_9_at_random_moments_loses_and_repeats_nothing(batch: Type, here: Path) -> None:
    rows = some(150)
    write(here / "m.jsonl", rows)
    command = ("m.jsonl", "-o", "out", "--steps", 2)
    chance = random.Random(0)
    for round in range(3):
        with started(*command, "--workers", 2) as process:
            wait_until(lambda: (here / "out/data").exists() or process.poll() is not None)
            processes = wait_until(lambda: children(process.pid) or process.poll() is not None)
            time.sleep(chance.uniform(0, 0.4))
            if isinstance(processes, list) and round == 1:
                os.kill(chance.choice(processes), signal.SIGKILL)
                process.communicate(timeout=60)
                assert process.returncode == 0
            else:
                process.kill()
            process.communicate()
        if isinstance(processes, list):
            wait_until(partial(gone, processes))
    assert batch(*command).code == 0
    assert set(hashes(here / "out")) == ids(rows)
    assert batch("m.jsonl", "-o", "whole", "--steps", 2).code == 0
    assert hashes(here / "out") == hashes(here / "whole")


def test_parquet_comes_and_goes(arrow: Any, batch: Type, here: Path) -> None:
    arrow.parquet.write_table(arrow.Table.from_pylist(some(7, tag=1.5)), here / "m.parquet")
    typed = batch("m.parquet", "-o", "out", "--steps", 2, "--format", "parquet")
    assert typed.code == 0
    table = arrow.parquet.read_table(here / "out/data/00000.parquet").to_pylist()
    assert {row["id"] for row in table} == ids(some(7))
    assert batch("m.parquet", "-o", "other", "--steps", 2).code == 0
    assert {row["id"]: row["sha256"] for row in table} == hashes(here / "other")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("m.jsonl",), "--output"),
        (("none.jsonl", "-o", "out"), "There is no manifest"),
        (("m.jsonl", "-o", "out", "--shard", "3/3"), "is no shard"),
        (("m.jsonl", "-o", "out", "--shard", "x"), "is no shard"),
        (("m.jsonl", "-o", "out", "--format", "tar"), "Unknown format"),
        (("m.jsonl", "-o", "out", "--plan", "speedy"), "no plan called"),
        (("m.jsonl", "-o", "out", "--plan", "fast", "--steps", 3), "already decides"),
        (("m.jsonl", "-o", "out", "--size", "large"), "is not a size"),
        (("m.jsonl", "-o", "out", "--device", "abacus"), "cannot be used"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    words: tuple[object, ...], said: str, batch: Type, here: Path
) -> None:
    write(here / "m.jsonl", some(1))
    typed = batch(*words)
    assert (typed.code, said in typed.err) == (2, True), typed.err
    assert names(here) == ["m.jsonl"]
