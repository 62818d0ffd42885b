"""scripts/train-behind: one process, held and let go on, started again after it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "train-behind"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="an installed package has no scripts")


@pytest.fixture
def state(tmp_path: Path) -> Generator[Path]:
    """A state folder whose clone has stubs in place of a trained model's hours."""
    home = tmp_path / "train-v2"
    clone = home / "clone"
    programs = {
        "scripts/setup": "exit 0",
        ".venv/bin/asymflow": 'echo "$$ $*" >>"$CALLS"; while :; do sleep 0.05; done',
        ".venv/bin/python": 'echo "the curve of $3"',
    }
    for name, text in programs.items():
        path = clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "build.json").write_text("{}")
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "stubs")):
        subprocess.run(("git", *command), cwd=clone, check=True)
    yield tmp_path
    if (home / "pid").exists():
        call(tmp_path, "--stop")


def call(state: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"ASYMFLOW_STATE": str(state), "CALLS": str(state / "calls")}
    done = subprocess.run(
        (SCRIPT, *arguments), env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def pid(state: Path) -> int:
    return int((state / "train-v2" / "pid").read_text())


def calls(state: Path) -> list[str]:
    return (state / "calls").read_text().splitlines()


def condition(process: int) -> str:
    done = subprocess.run(
        ("ps", "-o", "state=", "-p", str(process)), capture_output=True, text=True, check=False
    )
    return done.stdout.strip()[:1]


def test_it_starts_once_and_says_where_it_is(state: Path) -> None:
    first = call(state)
    assert f"v2 is running as process {pid(state)}, from commit" in first
    assert f"the curve of {state}/train-v2/run" in first
    again = call(state)
    assert f"running as process {pid(state)}" in again
    [started] = calls(state)
    assert started.startswith(f"{pid(state)} train v2 --data {state}/data --out {state}/train-v2")


def test_it_can_be_held_and_let_go_on(state: Path) -> None:
    call(state)
    assert "paused as process" in call(state, "--pause")
    assert condition(pid(state)) == "T"
    assert "paused as process" in call(state)
    assert "running as process" in call(state, "--continue")
    assert condition(pid(state)) in "SR"


def test_killed_or_stopped_it_starts_again(state: Path) -> None:
    call(state)
    killed = pid(state)
    os.kill(killed, signal.SIGKILL)
    call(state)
    assert pid(state) != killed
    assert "v2 is stopped" in call(state, "--stop")
    assert condition(pid(state)) in ("", "Z")
    call(state)
    assert len(calls(state)) == 3


def test_a_process_that_only_took_the_number_over_is_left_alone(state: Path) -> None:
    call(state)
    call(state, "--stop")
    with subprocess.Popen(("sleep", "60")) as other:
        (state / "train-v2" / "pid").write_text(str(other.pid))
        assert "v2 is stopped" in call(state, "--stop")
        assert other.poll() is None
        other.kill()


def test_before_the_first_start_there_is_nothing_to_hold(tmp_path: Path) -> None:
    for option in ("--pause", "--continue", "--stop"):
        assert "v2 has not been started here" in call(tmp_path, option)


def test_an_unknown_option_starts_nothing(state: Path) -> None:
    done = subprocess.run(
        (SCRIPT, "--help-me"),
        env=os.environ | {"ASYMFLOW_STATE": str(state)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "not --help-me" in done.stderr
    assert not (state / "calls").exists()
