"""What operators run into: probes, proxies, clocks, logs, and results on pages of others."""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from asymflow.core.errors import InputError
from asymflow.io.images import RECORD_CHUNK
from asymflow.server.queue import FairQueue
from asymflow.server.settings import Settings
from tests.helpers import wait_until

from .conftest import SMALL, Serve, Slow

TOKEN = "0123456789abcdef-secret"
FORWARDED = "X-Forwarded-For"


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def test_probes_may_call_the_server_by_any_name(serve: Serve) -> None:
    server = serve(hosts=("pictures.example.org",))
    probe = {"Host": "10.1.2.3:8000"}
    for path in ("/health", "/ready"):
        assert server.http.get(path, headers=probe).status_code == 200
        head = server.http.head(path, headers=probe)
        assert (head.status_code, head.content) == (200, b"")
    assert server.http.get("/api/info", headers=probe).status_code == 403


def test_events_of_a_long_run_come_before_those_of_the_next(serve: Serve) -> None:
    first = serve()
    manager = first.app.state.studio.manager
    with manager._lock:  # pyright: ignore[reportPrivateUsage]
        manager._next += 50_000_000  # as after a busy year
    first.over(first.ask("a fox")["id"])
    last = manager.last_event()
    first.server.stop()
    wait_until(lambda: manager.closing, within=10, what="the end")
    other = first.app.state.studio.store
    wait_until(lambda: not _open(other), within=20, what="the closed database")
    second = serve()
    second.over(second.ask("an owl")["id"])
    assert second.app.state.studio.manager.changes[0][1].number > last


def _open(store: Any) -> bool:
    try:
        store.free()
        store.job("x")
    except Exception:
        return False
    return True


def test_only_known_proxies_are_believed(serve: Serve) -> None:
    server = serve(burst=3, rate=0.01)
    answers = [
        server.http.post(
            "/api/pictures/none/restore", headers={FORWARDED: f"192.0.2.{i}"}
        ).status_code
        for i in range(5)
    ]
    assert answers == [404, 404, 404, 429, 429]


def test_clients_behind_a_known_proxy_are_told_apart(serve: Serve) -> None:
    server = serve(burst=3, rate=0.01, proxies=("127.0.0.1",))
    answers = [
        server.http.post(
            "/api/pictures/none/restore", headers={FORWARDED: f"192.0.2.{i % 2}"}
        ).status_code
        for i in range(8)
    ]
    assert answers == [404] * 6 + [429] * 2


def test_a_cookie_stays_on_the_way_that_it_came(serve: Serve) -> None:
    server = serve(token=TOKEN, proxies=("127.0.0.1",))
    path = f"{server.url}/?token={TOKEN}"
    secure = httpx.get(path, headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]
    plain = httpx.get(path).headers["set-cookie"]
    assert "Secure" in secure
    assert "Secure" not in plain


@pytest.mark.usefixtures("wordless")
def test_results_can_be_shown_by_pages_of_others(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(public_url="https://pictures.example.org/draw/")
    body = {"prompt": "a fox", "size": "32x32", "quality": "low", "response_format": "url"}
    made = server.http.post("/v1/images/generations", json=body).json()["data"][0]["url"]
    assert made.startswith("https://pictures.example.org/draw/v1/images/results/")
    path = made.removeprefix("https://pictures.example.org/draw")
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    name = path.rpartition("/")[2]

    def logged() -> list[dict[str, Any]]:
        return [vars(record) for record in caplog.records]

    with caplog.at_level(logging.INFO, "asymflow.server"):
        shown = server.http.get(path, headers=foreign)
        assert server.http.get("/api/pictures", headers=foreign).status_code == 403
        wait_until(lambda: any(each.get("path") == "/v1/images/results/..." for each in logged()))
    assert shown.status_code == 200
    assert shown.headers["cross-origin-resource-policy"] == "cross-origin"
    assert not any(name in str(each) for each in logged() if each["name"].startswith("asymflow"))


def test_an_address_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the address"):
        Settings(data=tmp_path, public_url="pictures.example.org")


@pytest.mark.parametrize(
    "change", [{"guidance": 10**400}, {"strength": 10**400}, {"seed": 10**400}, {"t": 0.0}]
)
def test_strange_numbers_in_a_record_are_refused(serve: Serve, change: dict[str, Any]) -> None:
    server = serve()
    job = server.over(server.ask("a fox")["id"])
    data = server.http.get(job["pictures"][0]["url"]).content
    with Image.open(io.BytesIO(data)) as image:
        record = json.loads(str(image.info[RECORD_CHUNK]))
    for key, value in change.items():
        (record if key in record else record["plan"]["steps"][0])[key] = value
    info, file = PngInfo(), io.BytesIO()
    info.add_text(RECORD_CHUNK, json.dumps(record))
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    kind = {"Content-Type": "image/png"}
    answer = server.http.post("/api/settings", content=file.getvalue(), headers=kind)
    assert answer.status_code == 400, answer.text


def test_a_clock_that_jumps_fails_no_job(
    serve: Serve, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    slow.gate.clear()
    jobs = [server.ask("a fox"), server.ask("an owl")]
    server.started(jobs[0]["id"])
    now = time.time
    for jump in (4000.0, -4000.0):
        monkeypatch.setattr("time.time", lambda jump=jump: now() + jump)
        jobs.append(server.ask("a cat"))
    monkeypatch.undo()
    slow.gate.set()
    assert [server.over(job["id"])["state"] for job in jobs] == ["done"] * 4
    waited = server.http.get("/metrics").text.partition("asymflow_wait_seconds_sum ")[2]
    assert 0 <= float(waited.split()[0]) < 100


def test_too_little_memory_is_not_told_as_damage(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()

    def exhausted(self: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", exhausted)
    kind = {"Content-Type": "image/png"}
    answer = server.http.post("/api/uploads", content=png(), headers=kind)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "out_of_memory")
    assert "retry-after" in answer.headers


def test_calls_that_are_not_there_are_not_there_in_any_form(serve: Serve) -> None:
    server = serve()
    files = {"image": png()}
    assert server.http.post("/v1/images/variations", files=files).status_code == 404
    assert server.http.post("/api/jobs", files=files).status_code == 415


def test_a_call_has_one_end(serve: Serve) -> None:
    server = serve()
    head = (
        "POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    connection: socket.socket = server.connect(head.encode())
    assert b" 400 " in connection.recv(4096).partition(b"\r\n")[0]
    connection.close()


def test_a_fair_queue_forgets_names_that_are_done() -> None:
    queue = FairQueue[int]()
    queue.push(-1, "patient", 1e9)
    queue.push(-2, "patient", 1e9)
    for number in range(1000):
        queue.push(number, f"client {number}", 1.0)
        assert queue.pop(1, lambda item: item >= 0) == [number]
        queue.push(number, "steady", 1.0)
        queue.pop(1, lambda item: item >= 0)
    assert len(queue._finish) < 10  # pyright: ignore[reportPrivateUsage]


def test_an_error_is_logged_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()

    def broken(*about: object, **more: object) -> None:
        raise ValueError("of our own")

    monkeypatch.setattr(server.app.state.studio.store, "gallery", broken)
    with caplog.at_level(logging.ERROR):
        assert server.http.get("/api/pictures").status_code == 500
        time.sleep(0.1)
    assert [record.getMessage() for record in caplog.records] == ["a call failed"]


def test_files_are_as_private_as_the_service_wants(tmp_path: Path) -> None:
    code = (
        "import os; os.umask(0o077)\n"
        "from pathlib import Path\n"
        "from asymflow.io.files import write_text\n"
        f"write_text(Path({str(tmp_path / 'file')!r}), 'x')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_made_up_methods_make_no_metrics(serve: Serve) -> None:
    server = serve()
    for number in range(20):
        server.http.request(f"MADEUP{number}", "/x")
    assert "MADEUP" not in server.http.get("/metrics").text


def test_small_pictures_keep_their_queue_place(serve: Serve, slow: Slow) -> None:
    """Names that a client gives itself do not make more of it."""
    server = serve(queue=10, queue_of_one=4)
    slow.gate.clear()
    server.started(server.ask("running")["id"])
    body = {"prompt": "a fox", **SMALL}
    answers = [
        server.http.post("/api/jobs", json=body, headers={"X-Client": str(i)}).status_code
        for i in range(6)
    ]
    assert answers == [202] * 4 + [429] * 2
