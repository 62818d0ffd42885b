"""The header of results: complete, true, and possible without git."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from asymflow.bench import provenance
from asymflow.core import schedules
from asymflow.planning.plan_files import plan_hash

PLAN = schedules.plan_of(schedules.uniform(4))


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ("git", *identity, "-C", str(folder), *arguments),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / provenance.RESULTS).mkdir(parents=True)
    git(folder, "init", "--quiet")
    for name in ("ours.py", f"{provenance.RESULTS}/old.json"):
        (folder / name).write_text("1\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "All")
    return folder


def test_a_header_is_complete_and_reads_back(tmp_path: Path) -> None:
    header = provenance.header(
        weights=["embedded:e11a8aadabb0"], plans={"four": PLAN}, dtype="float32", device="cpu"
    )
    assert tuple(header) == tuple(provenance.FIELDS)
    assert provenance.problems(header) == []
    assert header["plans"] == {"four": plan_hash(PLAN)[:12]}
    assert header["versions"]["torch"][0].isdigit()
    path = tmp_path / "result.json"
    written = provenance.save(path, header, {"rows": [1]})
    assert json.loads(path.read_text()) == written == {"provenance": header, "rows": [1]}


def test_a_commit_is_that_of_the_file_and_dirty_says_what_differs(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    ours = repository / "ours.py"
    assert provenance.checkout(ours) == (head, False)
    (repository / provenance.RESULTS / "old.json").write_text("2\n")
    assert provenance.checkout(ours) == (head, False)
    ours.write_text("2\n")
    assert provenance.checkout(ours) == (head, True)


def test_a_package_below_another_repository_is_not_of_its_commit(repository: Path) -> None:
    installed = repository / "lib" / "ours.py"
    installed.parent.mkdir()
    installed.touch()
    assert provenance.checkout(installed) == (None, None)


def test_without_git_the_commit_is_null(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.checkout(repository / "ours.py") == (None, None)
    header = provenance.header()
    assert header["commit"] is None
    assert provenance.problems(header) == []


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (["/a/.venv/bin/asymflow", "bench", "speed"], "asymflow bench speed"),
        (["/a/asymflow/__main__.py", "bench"], "python -m asymflow bench"),
        (["/a/benchmarks/__main__.py", "plans", "a b"], "python -m benchmarks plans 'a b'"),
        (["/a/scripts/docs.py", "--check"], "python docs.py --check"),
    ],
)
def test_the_command_is_what_was_typed(argv: list[str], typed: str) -> None:
    assert provenance.command(argv) == typed


def test_problems_name_every_field() -> None:
    header = provenance.header()
    for name in provenance.FIELDS:
        missing = {key: value for key, value in header.items() if key != name}
        assert provenance.problems(missing) == [f"{name} is missing"]
    assert provenance.problems(None) == ["there is no header"]
    assert provenance.problems({**header, "colour": "red"}) == ["colour is unknown"]
    assert provenance.problems({**header, "threads": "1"}) == ["threads is '1', not of type int"]


def test_only_a_recovered_header_may_not_know_what_it_is_of() -> None:
    unknown = dict.fromkeys(provenance.FIELDS) | {"date": "2026-11-26T09:14:14+00:00"}
    assert provenance.problems({**unknown, "recovered": True}) == []
    wrong = provenance.problems(unknown)
    assert [each.split()[0] for each in wrong] == ["command", "weights", "plans", "versions"]
    undated = {**unknown, "date": None, "recovered": True}
    assert provenance.problems(undated) == ["date is None, not of type str"]


def test_threads_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert provenance.header()["threads"] == 7
    assert provenance.header(threads=2)["threads"] == 2
