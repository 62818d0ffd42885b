"""Bulk jobs: the same pixels in every division, after every end, and what the job itself costs.

    OMP_NUM_THREADS=1 python -m benchmarks bulk

runs `asymflow batch` as users do, and writes bulk.json:

- `division`: rows of the embedded model at 32 px with the plan draft, one thread per process: by
  one process, by two, in four shards, and by `PictureBatch` in batches in a random order. How many
  rows have the same SHA-256 of their pixels in all of them.
- `chaos`: a job of a model that costs nothing is killed in every round, at a moment that the seed
  decides: the command, one of its processes, or all of them. At the end every row has to be there
  once, with the pixels of a job that nobody disturbed, and no file that is not named.
- `resume`: a job with a million finished rows is continued for a few more: seconds and memory.
- `rates`: rows per second where pictures cost nothing: what reading, sending and writing take.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from asymflow.bulk.manifest import Line
from asymflow.bulk.rows import row_of
from asymflow.bulk.store import FULL
from asymflow.integrations.ray import PictureBatch
from benchmarks import results
from benchmarks.suites.server import cpu_name, machine
from tests.bulk import models

SUBJECTS = ("fox", "apple", "boat", "house", "star", "cat", "tree", "cup", "fish", "bell")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "orange", "purple", "brown", "pink")
EXTRA = 100
"""Rows that are left of the finished job."""
KINDS = ("command", "process", "all")

QUICK = {
    "rows": 12,
    "rounds": 2,
    "finished": 3000,
    "free": 500,
    "out": results.QUICK / "bulk.json",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=2000, help="of the embedded model")
    parser.add_argument("--rounds", type=int, default=20, help="of chaos")
    parser.add_argument("--finished", type=int, default=1_000_000, help="rows to resume after")
    parser.add_argument("--free", type=int, default=5000, help="rows that cost nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=results.SERVER / "bulk.json")


def run(given: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bulk-") as folder, offered(Path(folder)):
        place = Path(folder)
        report = {
            "machine": machine(),
            "division": division(place, given.rows, given.seed),
            "chaos": chaos(place, 4 * given.free, given.rounds, given.seed),
            "resume": resume(place, given.finished),
            "rates": rates(place, given.free),
        }
    print(json.dumps(report, indent=1))
    whole = results.save(
        given.out, report, device=f"cpu ({cpu_name()})", weights=[results.shipped()]
    )
    if report["division"]["different"] or any(report["chaos"]["wrong"].values()):
        raise SystemExit(1)
    return whole


@contextmanager
def offered(place: Path) -> Generator[None]:
    """The model that costs nothing, as an installed package of all processes."""
    site = place / "site"
    models.install(site)
    before = os.environ.get("PYTHONPATH")
    own = [str(site), str(results.ROOT), *([before] if before else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(own)
    sys.path.insert(0, str(site))
    try:
        yield
    finally:
        sys.path.remove(str(site))
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def command(manifest: Path, out: Path, *words: object) -> list[str]:
    return [
        *(sys.executable, "-m", "asymflow", "batch", str(manifest), "-o", str(out)),
        *map(str, words),
        "--json",
    ]


def done(*arguments: Any) -> dict[str, Any]:
    """The report of a job that finishes."""
    made = subprocess.run(command(*arguments), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(made.stdout)


def write(path: Path, rows: Iterator[Mapping[str, object]]) -> Path:
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def hashes(out: Path) -> dict[str, str]:
    """The pixels of every row; fails where one is there twice, or files are not as named."""
    found: dict[str, str] = {}
    for path in sorted((out / "data").rglob("metadata.jsonl")):
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        files = {each["file_name"] for each in lines} | {path.name}
        if {each.name for each in path.parent.iterdir()} != files or len(lines) > FULL:
            raise AssertionError(f"{path.parent} does not have the files of its metadata")
        for each in lines:
            if each["id"] in found:
                raise AssertionError(f"{each['id']} is there twice")
            found[each["id"]] = each["sha256"]
    return found


def division(place: Path, count: int, seed: int) -> dict[str, Any]:
    """How many rows have the same pixels however the work is divided."""
    rows = [*drawn(count)]
    manifest = write(place / "division.jsonl", iter(rows))
    usual = ("--plan", "draft", "--threads", 1)
    found: dict[str, dict[str, str]] = {}
    speed: dict[str, float] = {}
    for name, workers in (("one process", 1), ("two processes", 2)):
        out = place / name
        speed[name] = done(manifest, out, *usual, "--workers", workers)["rows_per_second"]
        found[name] = hashes(out)
    for i in range(4):
        done(manifest, place / "shards", *usual, "--workers", 1, "--shard", f"{i}/4")
    found["four shards"] = hashes(place / "shards")
    random.Random(seed).shuffle(rows)
    maker = PictureBatch(plan="draft")
    own: dict[str, str] = {}
    for begin in range(0, count, 50):
        part = rows[begin : begin + 50]
        made = maker({name: np.array([row[name] for row in part]) for name in part[0]})
        own |= zip(made["id"].tolist(), made["sha256"].tolist(), strict=True)
    found["PictureBatch"] = own
    ids = {str(row["id"]) for row in rows}
    same = sum(len({each.get(id) for each in found.values()}) == 1 for id in ids)
    return {
        "rows": count,
        "pictures": {name: len(each) for name, each in found.items()},
        "different pixels among rows": len(set(found["one process"].values())),
        "same": same,
        "different": count - same,
        "rows_per_second": speed,
    }


def drawn(count: int) -> Iterator[dict[str, object]]:
    """Rows of the embedded model."""
    for i in range(count):
        prompt = f"a {COLOURS[i % 10]} {SUBJECTS[i // 10 % 10]}"
        yield {"id": f"row-{i}", "prompt": prompt, "size": 32}


def wrong(expected: Mapping[str, str], found: Mapping[str, str]) -> dict[str, int]:
    """How the pixels of rows that were found differ from those that are expected."""
    return {
        "missing": len(expected.keys() - found.keys()),
        "unknown": len(found.keys() - expected.keys()),
        "other pixels": sum(expected.get(id) != each for id, each in found.items()),
    }


def free_rows(count: int) -> Iterator[Mapping[str, object]]:
    return ({"id": f"row-{i}", "prompt": f"thing {i}", "size": 32, "n": i} for i in range(count))


def chaos(place: Path, count: int, rounds: int, seed: int) -> dict[str, Any]:
    """A job that is killed again and again."""
    usual = ("--model", models.NAME, "--steps", 2, "--workers", 2)
    manifest = write(place / "chaos.jsonl", free_rows(count))
    done(manifest, place / "calm", *usual)
    expected = hashes(place / "calm")
    chance = random.Random(seed)
    out = place / "chaos"
    killed: Counter[str] = Counter()
    progress: list[int] = []
    for number in range(rounds):
        # All that is there is for the rounds that are left: the job is to last to the end.
        part = write(place / "part.jsonl", free_rows(count * (number + 1) // rounds))
        process = subprocess.Popen(
            command(part, out, *usual), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(children(process.pid)) < 2:
            time.sleep(0.02)
        # From its first lines on.
        before = written(out)
        while process.poll() is None and written(out) == before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 1))
        kind = KINDS[number % len(KINDS)]
        own = children(process.pid)
        if process.poll() is None and own:
            killed[kind] += 1
            victims = {
                "command": [process.pid],
                "process": [chance.choice(own)],
                "all": [process.pid, *own],
            }
            for pid in victims[kind]:
                os.kill(pid, signal.SIGKILL)
        else:
            killed["too late"] += 1
        if kind != "process":
            process.kill()
        process.wait()
        while any(alive(pid) for pid in own):
            time.sleep(0.02)
        progress.append(len(finished(out)))
    done(manifest, out, *usual)
    found = hashes(out)
    return {
        "rounds": rounds,
        "rows": count,
        "killed": dict(killed),
        "rows after each round": progress,
        "wrong": wrong(expected, found),
    }


def finished(out: Path) -> Sequence[bytes]:
    """The lines of the output so far."""
    return [
        line
        for path in sorted((out / "data").rglob("metadata.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


def written(out: Path) -> int:
    """Bytes of the lines so far."""
    return sum(path.stat().st_size for path in (out / "data").rglob("metadata.jsonl"))


def children(pid: int) -> list[int]:
    """The processes of a job that make pictures."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"spawn_main" in words:
            found.append(int(path.name))
    return found


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def resume(place: Path, count: int) -> dict[str, Any]:
    """Seconds and memory of a job that continues after so many rows."""
    out = place / "resume"
    usual = ("--model", models.NAME, "--steps", 2, "--workers", 1)
    [first] = free_rows(1)
    done(write(place / "first.jsonl", iter([first])), out, *usual)
    [sample] = finished(out)
    entry = json.loads(sample)
    (out / "data/00000/metadata.jsonl").unlink()
    (out / "data/00000" / entry["file_name"]).unlink()
    rows = free_rows(count)
    for number, part in enumerate(iter(lambda: list(islice(rows, FULL)), [])):
        folder = out / "data" / f"{number:05}"
        folder.mkdir(exist_ok=True)
        lines: list[str] = []
        for data in part:
            row = row_of(Line(1, dict(data)), texts=False)
            name = f"{row.key.hex()}.png"
            (folder / name).touch()
            line = {**entry, **data, "file_name": name, "id": row.id, "row": row.contents}
            lines.append(json.dumps(line) + "\n")
        (folder / "metadata.jsonl").write_text("".join(lines))
    manifest = write(place / "resume.jsonl", free_rows(count + EXTRA))
    began = time.perf_counter()
    with subprocess.Popen(
        command(manifest, out, *usual), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "finished": count,
        "rows": said["rows"],
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mb": round(usage.ru_maxrss / 1000),
        "load_seconds": said["processes"][0]["load_seconds"],
    }


def rates(place: Path, count: int) -> dict[str, Any]:
    """Rows per second of a model that costs nothing."""
    manifest = write(place / "rates.jsonl", free_rows(count))
    found: dict[str, float] = {}
    for output in ("imagefolder", "parquet"):
        for workers in (1, 2):
            name = f"{output}, {workers} process" + "es" * (workers > 1)
            said = done(
                *(manifest, place / name, "--model", models.NAME, "--steps", 1),
                *("--workers", workers, "--format", output),
            )
            found[name] = said["rows_per_second"]
    return {"rows": count, "rows_per_second": found}
