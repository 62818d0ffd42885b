"""A server in a process of its own: its files, its log, and how it stops."""

from __future__ import annotations

import io
import json
import logging
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from asymflow.server import logs
from tests.helpers import wait_until

from .conftest import SMALL

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Served:
    """A process that serves."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """The log; every line of it has to be JSON."""
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]


@contextmanager
def served(
    folder: Path, *, seconds: float = 0.0, files: int | None = None, **more: Any
) -> Generator[Served]:
    """A server that is ready.

    Args:
        seconds: that a step of its model takes.
        files: that it may have open.
    """
    log = folder / "log"
    fields = {"data": str(folder / "data"), "burst": 10_000, **more}
    command = [sys.executable, "-m", "tests.server.served", json.dumps(fields), str(seconds)]
    if files is not None:
        command = ["prlimit", f"--nofile={files}", *command]
    with log.open("w") as err:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=err, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url, log.read_text("utf-8")
        wait_until(lambda: httpx.get(f"{url}/ready").status_code == 200)
        yield Served(url, process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def connect(url: str) -> socket.socket:
    parts = httpx.URL(url)
    assert parts.port is not None
    return socket.create_connection((parts.host, parts.port), timeout=20)


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is a program of Linux")
def test_at_the_limit_of_files_others_are_served_and_the_log_stays_small(tmp_path: Path) -> None:
    with served(tmp_path, files=128) as server, ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(suppress(OSError))
            stack.enter_context(connect(server.url))
        for number in range(5):
            _draw(server, f"a fox {number}")
        complaints = [line for line in server.lines() if line["level"] != "info"]
        assert len(complaints) < 50
        assert server.log.stat().st_size < 200_000


def _draw(server: Served, prompt: str) -> None:
    """As an honest client does."""
    with httpx.Client(base_url=server.url, timeout=20) as http:
        assert http.get("/health").status_code == 200
        id = http.post("/api/jobs", json={"prompt": prompt, **SMALL}).json()["id"]
        wait_until(lambda: http.get(f"/api/jobs/{id}").json()["state"] == "done")


def test_the_greeting_of_serve_is_a_line_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "asymflow", "serve", "--port", "0"]
    with log.open("w") as err:
        process = subprocess.Popen([*command, "--data", str(tmp_path / "data")], stderr=err)
    try:
        wait_until(lambda: "http://" in log.read_text("utf-8"))
    finally:
        process.kill()
        process.wait()
    # The last line may have been cut off.
    lines = [json.loads(line) for line in log.read_text("utf-8").split("\n")[:-1]]
    [serving] = [line for line in lines if line["message"] == "serving"]
    assert serving["address"].startswith("http://127.0.0.1:")


COMPLAINTS = """
import logging, threading, warnings
from asymflow.server import logs

logs.set_up(logging.INFO)
logging.getLogger("asyncio").error("the loop complains")
logging.getLogger("some.library").warning("a library complains")
warnings.warn("Python warns")
thread = threading.Thread(target=lambda: 1 / 0, name="a thread")
thread.start()
thread.join()

class Broken:
    def __del__(self):
        raise KeyError("at its end")

Broken()
raise ValueError("nobody caught this")
"""


def test_whoever_complains_does_so_in_json() -> None:
    found = subprocess.run(
        [sys.executable, "-c", COMPLAINTS], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in found.stderr.splitlines()]
    assert [line["level"] for line in lines] == [
        *("error", "warning", "warning", "critical", "error", "critical")
    ]
    assert "Python warns" in lines[2]["message"]
    assert "ZeroDivisionError" in lines[3]["error"]
    assert lines[3]["ended"] == "a thread"
    assert "at its end" in lines[4]["error"]
    assert "nobody caught this" in lines[5]["error"]


def test_what_goes_wrong_again_and_again_is_said_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = io.StringIO()
    handler = logging.StreamHandler(file)
    handler.setFormatter(logs.JsonFormatter())
    handler.addFilter(logs.Sparing())
    logger = logging.Logger("on its own")
    logger.addHandler(handler)

    def fail() -> None:
        logger.error("it failed")

    for _ in range(1000):
        fail()
    assert len(file.getvalue().splitlines()) == 10
    logger.error("something else")
    for _ in range(1000):
        logger.info("all is well")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    fail()
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["message"] for line in lines[9:11]] == ["it failed", "something else"]
    assert len(lines) == 10 + 1 + 1000 + 1
    assert (lines[-1]["message"], lines[-1]["left_out"]) == ("it failed", 990)


def test_made_up_methods_are_one_line_of_the_metrics(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        for number in range(20):
            httpx.request(f"MADE{number}UP", server.url)
        assert "MADE" not in httpx.get(f"{server.url}/metrics").text


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others give memory back themselves")
def test_memory_is_given_back_after_large_pictures(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (3900, 4000), (1, 2, 3, 4)).save(file, "PNG", compress_level=1)
    with served(tmp_path) as server:

        def send(_: int) -> int:
            headers = {"Content-Type": "image/png"}
            url = f"{server.url}/api/uploads"
            return httpx.post(
                url, content=file.getvalue(), headers=headers, timeout=120
            ).status_code

        def held() -> int:
            status = Path(f"/proc/{server.process.pid}/status").read_text("utf-8")
            return int(status.partition("VmRSS:")[2].split()[0]) // 1024

        before = held()
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(send, range(4))) == {201}
        wait_until(lambda: held() < before + 150)
