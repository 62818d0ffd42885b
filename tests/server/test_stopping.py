"""What a signal ends, and what it lets come to its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.helpers import wait_until

from .conftest import SMALL
from .test_process import Served, served

SIGNALS = [signal.SIGTERM, signal.SIGINT]
BODY = {"prompt": "a fox", "size": "32x32", "quality": "low"}


@contextmanager
def calling(server: Served, *, stream: bool = False) -> Generator[list[httpx.Response]]:
    """A call of /v1 whose picture is being made; its answer is there when the context is left."""
    answers: list[httpx.Response] = []

    def call() -> None:
        path = f"{server.url}/v1/images/generations"
        answers.append(httpx.post(path, json={**BODY, "stream": stream}, timeout=60))

    thread = threading.Thread(target=call)
    thread.start()
    wait_until(lambda: "asymflow_wait_seconds_count 1.0" in httpx.get(f"{server.url}/metrics").text)
    yield answers
    thread.join(60)


def test_a_stop_lets_calls_be_answered_and_takes_no_others(tmp_path: Path) -> None:
    with served(tmp_path, seconds=0.4, drain_seconds=30.0) as server:
        with calling(server) as answers, httpx.Client(base_url=server.url) as http:
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: http.get("/ready").status_code == 503)
            assert http.get("/ready").json() == {"status": "stopping"}
            assert httpx.get(f"{server.url}/health").status_code == 200  # a new connection
            for path, body in (("/api/jobs", SMALL), ("/v1/images/generations", BODY)):
                refused = http.post(path, json={"prompt": "late", **body})
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
                assert refused.json()["error"]["code"] == "stopping"
        assert answers[0].status_code == 200
        assert answers[0].json()["data"]
        assert server.process.wait(20) == -signal.SIGTERM
    server.lines()  # all of them JSON


def test_a_stop_with_nothing_to_do_is_at_once(tmp_path: Path) -> None:
    with served(tmp_path, drain_seconds=600.0) as server:
        with httpx.stream("GET", f"{server.url}/api/events") as listening:
            server.process.send_signal(signal.SIGINT)
            listening.read()
        assert server.process.wait(20) == 0


def test_notice_is_given_before_the_listener_closes(tmp_path: Path) -> None:
    with served(tmp_path, notice_seconds=1.0) as server:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        assert httpx.get(f"{server.url}/ready").json() == {"status": "stopping"}
        assert server.process.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_made_in_time_is_told_or_kept(tmp_path: Path, stream: bool) -> None:
    with served(tmp_path, seconds=1.0, drain_seconds=0.5) as server:
        with calling(server, stream=stream) as answers:
            job = httpx.post(f"{server.url}/api/jobs", json={"prompt": "kept", **SMALL}).json()
            server.process.send_signal(signal.SIGTERM)
        assert "The server is stopping" in answers[0].text
        if not stream:
            assert (answers[0].status_code, answers[0].headers["retry-after"]) == (503, "5")
            assert answers[0].json()["error"]["code"] == "stopping"
        server.process.wait(20)
    with served(tmp_path) as server:
        wait_until(
            lambda: httpx.get(f"{server.url}/api/jobs/{job['id']}").json()["state"] == "done"
        )


@pytest.mark.parametrize("sent", SIGNALS)
def test_a_second_signal_ends_at_once(tmp_path: Path, sent: signal.Signals) -> None:
    with served(tmp_path, seconds=30.0, drain_seconds=600.0) as server:
        job = httpx.post(f"{server.url}/api/jobs", json={"prompt": "a fox", **SMALL}).json()
        url = f"{server.url}/api/jobs/{job['id']}"
        wait_until(lambda: httpx.get(url).json()["state"] == "running")
        server.process.send_signal(sent)
        wait_until(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        server.process.send_signal(sent)
        assert server.process.wait(20) == -sent


def test_a_step_that_does_not_end_does_not_hold_the_process(tmp_path: Path) -> None:
    with served(tmp_path, seconds=600.0, drain_seconds=0.2) as server:
        job = httpx.post(f"{server.url}/api/jobs", json={"prompt": "a fox", **SMALL}).json()
        url = f"{server.url}/api/jobs/{job['id']}"
        wait_until(lambda: httpx.get(url).json()["state"] == "running")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 1
        assert "did not stop in time" in server.lines()[-1]["message"]
