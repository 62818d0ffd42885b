"""Work that takes long: who waits for it, who does not, and what is not even begun."""

from __future__ import annotations

import asyncio
import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.requests import ClientDisconnect

from asymflow.io import images
from asymflow.io.images import Notes
from asymflow.server import media
from asymflow.server.problems import ApiError
from asymflow.server.settings import Settings
from asymflow.server.workshop import Caller, Workshop
from tests.helpers import wait_until

from .conftest import Running, Serve

PNG = {"Content-Type": "image/png"}


class Gate:
    """Holds a function up until it is opened."""

    def __init__(self, function: Any) -> None:
        self.inside = 0
        self.most = 0
        self._function = function
        self._lock = threading.Lock()
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def __call__(self, *args: Any, **named: Any) -> Any:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self._open.wait(60)
        with self._lock:
            self.inside -= 1
        return self._function(*args, **named)


def png(side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (1, 2, 3)).save(file, "PNG")
    return file.getvalue()


def call(server: Running, name: str, picture: dict[str, Any]) -> httpx.Response:
    """One of the calls that take long."""
    http, patient = server.http, 120.0
    if name == "receive":
        return http.post("/api/uploads", content=png(), headers=PNG, timeout=patient)
    if name == "record_of":
        return http.post("/api/settings", content=png(), headers=PNG, timeout=patient)
    if name == "original":
        return http.get(f"/api/pictures/zip?ids={picture['id']}", timeout=patient)
    return http.get(f"{picture['url']}&scale=9", timeout=patient)


@pytest.mark.parametrize("name", ["converted", "receive", "record_of", "original"])
def test_slow_work_leaves_threads_for_everybody_else(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server = serve(slow_waiting=30, slow_waiting_of_one=30)
    [picture] = server.over(server.ask("a fox")["id"])["pictures"]
    gate = Gate(getattr(media, name))
    monkeypatch.setattr(media, name, gate)
    with ThreadPoolExecutor(50) as pool:
        try:
            calls = [pool.submit(call, server, name, picture) for _ in range(50)]
            # All others are in the queue as soon as some are refused.
            wait_until(lambda: sum(each.done() for each in calls) >= 50 - 32 or gate.inside >= 40)
            with httpx.Client(base_url=server.url, timeout=10) as honest:
                for path in ("/health", "/api/jobs", f"{picture['url']}"):
                    assert honest.get(path).status_code == 200
            assert gate.inside == 2
        finally:
            gate.open()
        answers = [each.result() for each in calls]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 18
    assert {answer.headers["retry-after"] for answer in refused} == {"5"}
    assert {answer.json()["error"]["code"] for answer in refused} == {"too_busy"}
    assert {answer.status_code for answer in answers} <= {200, 201, 400, 503}
    assert gate.most == 2


async def _never() -> bool:
    return False


async def _always() -> bool:
    return True


def test_clients_take_turns_and_who_hung_up_is_passed_over(tmp_path: Path) -> None:
    done: list[str] = []
    began, go = threading.Event(), threading.Event()

    def work(name: str) -> str:
        began.set()
        go.wait(20)
        done.append(name)
        return name

    async def main() -> None:
        shop = Workshop(Settings(data=tmp_path, slow_together=1, slow_waiting_of_one=4))
        greedy, honest, gone = Caller("a", _never), Caller("b", _never), Caller("c", _always)

        def ask(caller: Caller, name: str) -> asyncio.Task[str]:
            return asyncio.ensure_future(shop.do(caller, 1.0, work, name))

        tasks = [ask(greedy, f"a{i}") for i in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError):
            await shop.do(greedy, 1.0, work, "one too many")
        patient = asyncio.ensure_future(shop.do(greedy, 1.0, work, "late", patient=True))
        tasks += [ask(honest, "b")]
        left = ask(gone, "c")
        cancelled = ask(honest, "cancelled")
        await asyncio.sleep(0)
        cancelled.cancel()
        go.set()
        assert await asyncio.gather(*tasks) == ["a0", "a1", "a2", "a3", "a4", "b"]
        assert await patient == "late"
        with pytest.raises(ClientDisconnect):
            await left
        assert await shop.do(honest, 1.0, work, "after all") == "after all"

    asyncio.run(main())
    assert done == ["a0", "a1", "b", "a2", "a3", "a4", "late", "after all"]


def test_who_fetches_much_can_still_send(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy all clients may have one address."""
    server = serve(slow_waiting_of_one=4)
    [picture] = server.over(server.ask("a fox")["id"])["pictures"]
    gate = Gate(media.converted)
    monkeypatch.setattr(media, "converted", gate)
    with ThreadPoolExecutor(10) as pool:
        try:
            fetching = [pool.submit(call, server, "converted", picture) for _ in range(10)]
            wait_until(lambda: sum(each.done() for each in fetching) == 4)
            sending = pool.submit(call, server, "receive", picture)
        finally:
            gate.open()
        assert sending.result().status_code == 201
        assert sum(each.result().status_code == 200 for each in fetching) == 6


def chunk(name: bytes, data: bytes) -> bytes:
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def enormous(text: bytes, *, last: bool) -> bytes:
    """A file of a few bytes that declares more pixels than are read, and says how it was made."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 3900, 3900, 8, 2, 0, 0, 0))
    says = chunk(b"tEXt", images.RECORD_CHUNK.encode() + b"\0" + text)
    pixels = chunk(b"IDAT", b"no pixels at all")
    parts = (pixels, says) if last else (says, pixels)
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize("last", [False, True])
def test_settings_are_read_without_pixels(serve: Serve, last: bool) -> None:
    server = serve()
    [picture] = server.over(server.ask("a fox", seed=3)["id"])["pictures"]
    made = Image.open(io.BytesIO(server.http.get(picture["url"]).content))
    record = str(made.info[images.RECORD_CHUNK]).encode("latin-1")
    data = enormous(record, last=last)
    answer = server.http.post("/api/settings", content=data, headers=PNG)
    assert answer.status_code == 200, answer.text
    assert answer.json()["request"]["seed"] == 3


@pytest.mark.parametrize(("format", "kept"), [("jpeg", 0.5), ("webp", 1.0)])
def test_nor_are_they_decoded_in_other_formats(
    tmp_path: Path, format: images.Format, kept: float
) -> None:
    path = tmp_path / "picture"
    xmp = "<asymflow:record>a &lt;record&gt;</asymflow:record>"
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    with path.open("wb") as file:
        images.save(file, Image.fromarray(noise), format=format, notes=Notes("", "", xmp))
    data = bytearray(path.read_bytes())
    if format == "jpeg":
        data = data[: int(len(data) * kept)]
    else:
        start = data.index(b"VP8L") + 100
        data[start : start + 2000] = bytes(2000)
    path.write_bytes(data)
    with pytest.raises(images.FileFormatError):
        images.read(path)
    assert images.read_record(path) == "a <record>"


@given(
    record=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    format=st.sampled_from(["png", "webp", "jpeg"]),
)
def test_a_record_is_found_wherever_it_is_kept(
    tmp_path_factory: pytest.TempPathFactory, record: str, format: images.Format
) -> None:
    path = tmp_path_factory.mktemp("records") / "picture"
    safe = record.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    xmp = f"<asymflow:record>{safe}</asymflow:record>"
    notes = Notes("", record if format == "png" else "", xmp)
    with path.open("wb") as file:
        images.save(file, Image.new("RGB", (4, 4)), format=format, notes=notes)
    assert images.read_record(path) == record


def test_pixels_are_counted_before_they_are_decoded(serve: Serve) -> None:
    server = serve(upload_pixels=1_000_000)
    answer = server.http.post("/api/uploads", content=enormous(b"", last=False), headers=PNG)
    assert answer.status_code == 400
    assert "3900x3900 pixels, more than the 1 megapixels" in answer.json()["error"]["message"]
