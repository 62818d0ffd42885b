"""A process that answers questions: every way in which it can fail, and that it is there again."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load, save
from torch import tensor, zeros

from asymflow.server.supervisor import Lost, Supervised
from tests.helpers import wait_until

pytestmark = pytest.mark.usefixtures("impatient")

CHILD = Path(__file__).with_name("child.py")
QUESTION = save(
    {"x_t": zeros(1, 4, 8, 8), "number": tensor(0), ".colour": tensor([[1.0, 0.0, 0.0, 1.0]])}
)


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    """The folder whose files make children fail."""
    return tmp_path


@pytest.fixture
def process(faults: Path) -> Generator[Supervised[None]]:
    found = watched(faults)
    yield found
    found.close()


def watched(faults: Path, answer: float = 2.0, start: float = 20.0) -> Supervised[None]:
    command = (sys.executable, str(CHILD), str(faults))
    return Supervised(command, lambda: None, answer_seconds=answer, start_seconds=start)


def ask(process: Supervised[None]) -> list[float]:
    answer = load(process.request(lambda memory: QUESTION))
    return answer["x_0"][0, :, 0, 0].tolist()


def pid(process: Supervised[None]) -> int:
    wait_until(lambda: process.live)
    assert process.pid is not None
    return process.pid


ANSWER = pytest.approx([0.3, 0, 0, 0.3])


def test_it_answers_in_the_order_of_the_questions(process: Supervised[None]) -> None:
    def one(number: int) -> float:
        colour = tensor([[float(number), 0, 0, 0]])
        message = {"x_t": zeros(1, 4, 8, 8), "number": tensor(0), ".colour": colour}
        return load(process.request(lambda memory: save(message)))["x_0"][0, 0, 0, 0].item()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(40)))
    assert found == pytest.approx([0.3 * number for number in range(40)])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_one_that_ends_while_idle_is_there_again_before_anybody_asks(
    process: Supervised[None], number: signal.Signals
) -> None:
    first = pid(process)
    os.kill(first, number)
    wait_until(lambda: process.pid not in (first, None))
    assert process.restarts == 1
    assert ask(process) == ANSWER


def test_one_that_is_ended_while_it_answers_says_how(
    process: Supervised[None], faults: Path
) -> None:
    (faults / "hang").touch()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, process)
        wait_until(lambda: process.waiting == 1)
        os.kill(pid(process), signal.SIGKILL)
        with pytest.raises(Lost, match="ended by SIGKILL") as lost:
            asked.result()
    assert not lost.value.memory  # there was enough
    (faults / "hang").unlink()
    assert ask(process) == ANSWER


def test_one_that_ends_itself_says_its_code(process: Supervised[None], faults: Path) -> None:
    (faults / "die").touch()
    with pytest.raises(Lost, match="ended with 4"):
        ask(process)
    (faults / "die").unlink()
    assert ask(process) == ANSWER


def test_one_that_gives_no_answer_is_ended(faults: Path) -> None:
    process = watched(faults, answer=0.6)
    assert ask(process) == ANSWER
    first = pid(process)
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(Lost, match=r"did not respond for 0\.6 seconds"):
        ask(process)
    assert ask(process) == ANSWER
    assert pid(process) != first
    process.close()


def test_one_that_hangs_while_idle_is_noticed(
    faults: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asymflow.server.supervisor._PING", 0.1)
    process = watched(faults, answer=0.6)
    first = pid(process)
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: process.pid not in (first, None))
    assert ask(process) == ANSWER
    process.close()


@pytest.mark.parametrize("fault", ["exit", "mute", "garbage", "closed"])
def test_one_that_cannot_begin_is_tried_again_until_it_can(faults: Path, fault: str) -> None:
    (faults / fault).touch()
    process = watched(faults, start=0.8)
    told: list[int] = []
    process.changed = lambda: told.append(process.restarts)
    wait_until(lambda: len(told) >= 2)  # also while it does not come to one that can answer
    assert told == sorted(set(told))
    assert not process.live
    with pytest.raises(Lost, match="cannot be started"):
        ask(process)
    (faults / fault).unlink()
    wait_until(lambda: process.live)
    assert ask(process) == ANSWER
    process.close()


def _handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


STEPS: dict[str, Any] = {
    "os.pipe": OSError(errno.EMFILE, "Too many open files"),
    "asymflow.server.supervisor.subprocess._fork_exec": OSError(errno.EAGAIN, "Try again"),
    "threading.Thread.start": RuntimeError("can't start new thread"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_start_that_fails_at_any_step_leaves_nothing_and_is_repeated(
    faults: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: int
) -> None:
    process = watched(faults)
    first = pid(process)
    own = _handles()
    calls = 0
    where, _, name = step.rpartition(".")
    holder: Any = {"os": os, "threading.Thread": threading.Thread}.get(where, subprocess)
    real = getattr(holder, name)

    def failing(*given: Any, **named: Any) -> Any:
        nonlocal calls
        if threading.current_thread().name == "asymflow-watcher":
            calls += 1
            # It fails from the call that is asked for on, for three attempts.
            if after < calls <= after + 3:
                raise STEPS[step]
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, failing)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: process.pid not in (first, None))
        assert ask(process) == ANSWER
        while after and process.restarts < 2:  # the later calls are those of later starts
            number = pid(process)
            os.kill(number, signal.SIGKILL)
            wait_until(lambda number=number: process.pid not in (number, None))
            assert ask(process) == ANSWER
    wait_until(lambda: _handles() == own)
    process.close()


def test_closing_ends_it_also_when_it_is_stopped(faults: Path) -> None:
    process = watched(faults)
    number = pid(process)
    os.kill(number, signal.SIGSTOP)
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    assert not process.live
    with pytest.raises(Lost):
        ask(process)


def test_aborting_ends_whoever_waits(faults: Path) -> None:
    process = watched(faults, answer=600)
    pid(process)
    (faults / "hang").touch()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, process)
        wait_until(lambda: process.waiting == 1)
        process.abort()
        with pytest.raises(Lost, match="with the server"):
            asked.result()
    process.close()


def test_a_question_that_cannot_be_written_harms_no_other(process: Supervised[None]) -> None:
    def broken(memory: None) -> bytes:
        raise MemoryError

    with pytest.raises(MemoryError):
        process.request(broken)
    wait_until(lambda: process.restarts == 1)  # what it was told is not known
    assert ask(process) == ANSWER
