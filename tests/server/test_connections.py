"""Clients that are slow, silent, greedy or many, and the others meanwhile."""

from __future__ import annotations

import io
import logging
import re
import socket
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.helpers import wait_until

from .conftest import SMALL, Running, Serve, Slow

HOST = "Host: 127.0.0.1\r\n"
SHORT: dict[str, Any] = {
    "head_seconds": 0.4,
    "body_seconds": 0.4,
    "body_pace": 1000,
    "answer_seconds": 0.4,
}
"""Limits that a test can wait for."""


def post(path: str, kind: str, length: int) -> bytes:
    """The head of a call with a body."""
    return (
        f"POST {path} HTTP/1.1\r\n{HOST}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\n{HOST}\r\n".encode()


def answered(found: socket.socket) -> bytes:
    """The next answer, head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += found.recv(1)
    length = re.search(rb"content-length: (\d+)", data.lower())
    assert length is not None
    end = len(data) + int(length[1])
    while len(data) < end:
        data += found.recv(end - len(data))
    return data


def rest(found: socket.socket) -> bytes:
    """What comes until the server hangs up."""
    parts: list[bytes] = []
    with suppress(ConnectionError):
        while part := found.recv(65_536):
            parts.append(part)
    return b"".join(parts)


@contextmanager
def dripping(found: socket.socket, data: bytes, seconds: float) -> Generator[None]:
    """Send something again and again, until the server hangs up or the context is left."""
    over = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            while not over.wait(seconds):
                found.sendall(data)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"GET /heal", b"HTTP/1.1 408"),
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: 1\r\n", b"HTTP/1.1 408"),
    ],
)
def test_a_request_that_does_not_begin_or_end_is_given_up(
    serve: Serve, sent: bytes, status: bytes
) -> None:
    server = serve(**SHORT)
    with server.connect(sent) as slow:
        assert rest(slow)[: len(status) or None] == status


def test_headers_that_drip_are_given_up(serve: Serve) -> None:
    server = serve(**SHORT)
    head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with server.connect(head) as slow, dripping(slow, b"X-A: 1\r\n", 0.05):
        assert rest(slow)[:12] in (b"HTTP/1.1 408", b"")


def test_a_second_request_has_the_same_limit(serve: Serve) -> None:
    server = serve(**SHORT)
    with server.connect(get("/health")) as slow:
        assert answered(slow).startswith(b"HTTP/1.1 200")
        with dripping(slow, b"G", 0.05):
            rest(slow)  # comes to its end


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/uploads", "image/png"),
        ("/api/settings", "image/png"),
        ("/api/jobs", "application/json"),
        ("/v1/images/generations", "application/json"),
        ("/v1/images/edits", "multipart/form-data; boundary=x"),
    ],
)
@pytest.mark.parametrize("drips", [False, True])
def test_a_body_that_does_not_come_is_given_up(
    serve: Serve, path: str, kind: str, drips: bool
) -> None:
    server = serve(**SHORT)
    with ExitStack() as stack:
        slow = stack.enter_context(server.connect(post(path, kind, 900_000)))
        if drips:
            if path.endswith("edits"):
                slow.sendall(b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n')
            stack.enter_context(dripping(slow, b" ", 0.05))
        answer = answered(slow)
        assert answer.startswith(b"HTTP/1.1 408"), answer
        assert b"too_slow" in answer


def test_a_slow_but_honest_body_is_taken(serve: Serve) -> None:
    server = serve(**SHORT)
    body = b'{"prompt": "a fox", "width": 32, "height": 32, "quality": "draft"}'
    began = time.monotonic()
    with server.connect(post("/api/jobs", "application/json", len(body) + 1600)) as phone:
        for _ in range(16):
            phone.sendall(b" " * 100)
            time.sleep(0.05)  # a slow network, twice as fast as it has to be
        phone.sendall(body)
        assert answered(phone).startswith(b"HTTP/1.1 202")
    assert time.monotonic() - began > 1.5 * SHORT["body_seconds"]


def test_the_rest_of_a_refused_body_must_come_too(serve: Serve) -> None:
    server = serve(**SHORT)
    with (
        server.connect(post("/api/jobs", "application/json", 50_000_000)) as slow,
        dripping(slow, b" ", 0.05),
    ):
        assert rest(slow).startswith(b"HTTP/1.1 413")


def noise(side: int) -> bytes:
    """A picture that does not compress."""
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def uploaded(server: Running, data: bytes) -> str:
    kind = {"Content-Type": "image/png"}
    found: str = server.http.post("/api/uploads", content=data, headers=kind).json()["url"]
    return found


def test_an_answer_that_nobody_reads_is_given_up(serve: Serve) -> None:
    server = serve(**SHORT)
    url = uploaded(server, noise(1024))
    idle = server.connections
    with ExitStack() as stack:
        for path in (url, url, "/api/events"):
            stack.enter_context(server.connect(get(path) * 200, buffer=4096))
        wait_until(lambda: server.connections >= idle + 2)
        wait_until(lambda: server.connections <= idle + 1)  # but that of the events, which are few


def test_a_slow_but_honest_reader_gets_its_answer(serve: Serve) -> None:
    server = serve(**SHORT)
    url = uploaded(server, noise(1024))
    whole = server.http.get(url).content
    got = 0
    with server.connect(get(url), buffer=65_536) as phone:
        began = time.monotonic()
        while got < len(whole):
            part = phone.recv(150_000)
            assert part, "the server hung up"
            got += len(part)
            if time.monotonic() - began < 3 * SHORT["answer_seconds"]:
                time.sleep(0.05)  # a slow network


def test_what_waits_to_be_read_is_bounded(serve: Serve) -> None:
    server = serve(answer_space=500_000)
    size = len(server.http.get("/openapi.json").content)
    idle, count = server.connections, 4 + 1_000_000 // size
    with ExitStack() as stack:
        for _ in range(count):
            # As many as fill what the kernel holds, and then one that the server has to.
            stack.enter_context(server.connect(get("/openapi.json") * 200, buffer=4096))
        assert httpx.get(f"{server.url}/health").status_code == 200  # after all of them
        wait_until(lambda: server.connections <= idle + 500_000 // size + 1)


@pytest.mark.usefixtures("wordless")
def test_long_answers_have_no_limit(serve: Serve, slow: Slow) -> None:
    """Whoever waits for a picture, or listens, says nothing for longer than all the limits."""
    server = serve(**SHORT, keep_alive_seconds=1)
    slow.gate.clear()
    body = {"prompt": "a fox", "size": "32x32", "quality": "low"}
    answers: list[httpx.Response] = []

    def call() -> None:
        answers.append(httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=30))

    caller = threading.Thread(target=call)
    caller.start()
    with server.connect(get("/api/events")) as listener:
        time.sleep(4 * SHORT["answer_seconds"])  # nobody says anything meanwhile
        slow.gate.set()
        caller.join(20)
        assert answers[0].status_code == 200
        job = server.ask("a fox")["id"]
        told = b""
        while job.encode() not in told:
            told += listener.recv(65_536)


PNG = {"Content-Type": "image/png"}


def test_who_only_announces_takes_no_room(serve: Serve) -> None:
    server = serve()
    head = post("/v1/images/edits", "multipart/form-data; boundary=x", 100_000_000)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(server.connect(head))
        wait_until(lambda: server.connections >= 4)
        answer = server.http.post("/api/uploads", content=bytes(2_000_000), headers=PNG)
        assert answer.status_code == 400, answer.text  # no picture, but it was read
        assert server.ask("a fox")["id"]


def test_who_sends_most_gives_way(serve: Serve) -> None:
    server = serve(body_space=1_000_000, upload_bytes=900_000)
    head = post("/api/uploads", "image/png", 800_000)
    with server.connect(head + bytes(700_000)) as greedy:
        # Until that has arrived, there is room.
        answers: list[int] = []
        wait_until(lambda: _refused(server, greedy, answers))
        assert answered(greedy).startswith(b"HTTP/1.1 503")
        assert set(answers) == {400}  # no pictures, but all of them were read
    # With nobody else there, as much is taken as before.
    answer = server.http.post("/api/uploads", content=bytes(800_000), headers=PNG)
    assert answer.status_code == 400
    assert "picture" in answer.json()["error"]["message"]


def _refused(server: Running, greedy: socket.socket, answers: list[int]) -> bool:
    answers.append(
        server.http.post("/api/uploads", content=bytes(400_000), headers=PNG).status_code
    )
    greedy.settimeout(0.2)
    try:
        return bool(greedy.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        greedy.settimeout(20)


def test_silent_connections_make_room(serve: Serve) -> None:
    server = serve(connections=12)
    with ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(server.connect())
        wait_until(lambda: server.connections <= 13)
        for _ in range(3):
            with httpx.Client(base_url=server.url) as honest:
                assert honest.get("/health").status_code == 200
                body = {"prompt": "a fox", **SMALL}
                assert honest.post("/api/jobs", json=body).status_code == 202


def test_calls_that_are_answered_leave_room_for_others(serve: Serve) -> None:
    server = serve(connections=12)
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(server.connect(get("/api/events")))
        wait_until(lambda: server.connections >= 6)
        answer = httpx.get(f"{server.url}/api/events")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_busy")
        assert answer.headers["retry-after"] == "1"
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert httpx.get(f"{server.url}/ready").status_code == 200


def test_hanging_up_is_no_error_of_the_server(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    idle = server.connections
    kinds = (
        ("/api/uploads", "image/png"),
        ("/api/settings", "image/png"),
        ("/api/jobs", "application/json"),
        ("/v1/images/generations", "application/json"),
        ("/v1/images/edits", "multipart/form-data; boundary=x"),
    )
    with caplog.at_level(logging.WARNING):
        for path, kind in kinds:
            with server.connect(post(path, kind, 900_000) + b"--x"):
                wait_until(lambda: server.connections > idle)
            wait_until(lambda: server.connections <= idle)
        server.server.stop()
        wait_until(lambda: server.connections == 0)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
