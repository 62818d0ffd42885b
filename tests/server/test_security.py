"""What must not work, and that it does not."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import socket
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from asymflow.core.errors import InputError
from asymflow.generation import metadata
from asymflow.generation.metadata import Source
from asymflow.io.images import RECORD_CHUNK
from asymflow.server import media, security
from asymflow.server.logs import JsonFormatter
from asymflow.server.security import COOKIE, POLICY
from asymflow.server.settings import Settings

from .conftest import SMALL, Running, Serve, Slow

TOKEN = "0123456789abcdef-secret"
PNG = {"Content-Type": "image/png"}


def png(width: int = 8, height: int = 8, **more: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (1, 2, 3)).save(file, "PNG", **more)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A few bytes that declare an enormous picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture
def server(serve: Serve) -> Running:
    return serve()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_name_of_this_machine_is_refused(server: Running, host: str) -> None:
    answer = server.http.get("/api/info", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_host")


def test_own_names_are_taken(server: Running) -> None:
    for host in ("localhost", "127.0.0.1:1", "[::1]:80"):
        assert server.http.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_other_pages_may_neither_write_nor_read(server: Running, headers: dict[str, str]) -> None:
    for method, path in (
        ("POST", "/api/jobs"),
        ("GET", "/api/pictures"),
        ("DELETE", "/api/jobs/x"),
    ):
        answer = server.http.request(method, path, headers=headers, json={"prompt": "a fox"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_origin")
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert server.http.get("/api/jobs").json()["jobs"] == []


def test_the_own_page_may(server: Running) -> None:
    assert server.ask("a fox", headers={"Origin": server.url, "Sec-Fetch-Site": "same-origin"})


def test_forms_of_other_pages_are_no_json(server: Running) -> None:
    body = json.dumps({"prompt": "a fox"}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = server.http.post("/api/jobs", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 415


def test_every_answer_has_the_headers(server: Running) -> None:
    for path in ("/", "/api/info", "/api/nothing", "/health", "/docs"):
        headers = server.http.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
    refused = server.http.get("/", headers={"Host": "evil.example"}).headers
    assert refused["content-security-policy"] == POLICY


def test_off_loopback_a_token_is_needed(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(InputError, match="token"):
            Settings(data=tmp_path, host=host)
    with pytest.raises(InputError, match="guessed"):
        Settings(data=tmp_path, token="short")
    assert Settings(data=tmp_path, host="::1").loopback


def test_a_token_opens_the_server(serve: Serve) -> None:
    server = serve(token=TOKEN)
    with httpx.Client(base_url=server.url) as stranger:
        for path in ("/", "/api/info", "/api/pictures", "/v1/models", "/metrics", "/docs"):
            assert stranger.get(path).status_code == 401
        wrong = {"Authorization": f"Bearer {TOKEN}x"}
        answer = stranger.get("/api/info", headers=wrong)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert stranger.get("/ready").status_code == 200
        assert stranger.get("/?token=nonsense").status_code == 401
        answer = stranger.get(f"/?token={TOKEN}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert TOKEN not in cookie
        assert COOKIE in stranger.cookies
        assert stranger.get("/api/info").status_code == 200
        foreign = stranger.get("/api/info", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403
    assert server.http.get("/api/info").json()["has_token"] is True


def test_bodies_are_limited_before_they_are_read(serve: Serve) -> None:
    server = serve(upload_bytes=10_000)
    answer = server.http.post("/api/uploads", content=bytes(10_001), headers=PNG)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_long")

    def chunks() -> Any:
        for _ in range(20):
            yield bytes(1000)

    answer = server.http.post("/api/uploads", content=chunks(), headers=PNG)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_long")

    def long() -> Any:
        for _ in range(20):
            yield b" " * 100_000

    kind = {"Content-Type": "application/json"}
    answer = server.http.post("/api/jobs", content=long(), headers=kind)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_long")


def test_what_is_no_json_is_told_where(server: Running) -> None:
    kind = {"Content-Type": "application/json"}
    answer = server.http.post("/api/jobs", content=b'{"prompt": ', headers=kind)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "json_invalid", None)
    assert "at character 11" in error["message"]


@pytest.mark.parametrize("side", [9000, 12_000, 60_000])
def test_a_picture_that_declares_too_many_pixels_is_not_decoded(server: Running, side: int) -> None:
    answer = server.http.post("/api/uploads", content=bomb(side, side), headers=PNG)
    assert answer.status_code == 400
    assert "megapixels" in answer.json()["error"]["message"]


def gif() -> bytes:
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "GIF")
    return file.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", gif(), png()[:45]]
)
def test_only_whole_pictures_of_known_kinds_are_taken(server: Running, data: bytes) -> None:
    answer = server.http.post("/api/uploads", content=data, headers=PNG)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert "The picture that was sent" in message
    assert "/tmp" not in message
    svg = {"Content-Type": "image/svg+xml"}
    assert server.http.post("/api/uploads", content=data, headers=svg).status_code in (400, 415)


def test_uploads_lose_everything_but_their_pixels(server: Running) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # a quarter turn
    exif[ExifTags.Base.Make] = "a secret camera"
    file = io.BytesIO()
    Image.new("RGB", (40, 20), (9, 9, 9)).save(file, "JPEG", exif=exif)
    sent = server.http.post(
        "/api/uploads", content=file.getvalue(), headers={"Content-Type": "image/jpeg"}
    ).json()
    assert (sent["width"], sent["height"]) == (20, 40)
    data = server.http.get(sent["url"]).content
    assert b"secret" not in data
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ("PNG", (20, 40))
    assert not image.getexif()


@pytest.mark.parametrize(
    "id", ["..%2f..%2fstudio.sqlite", "..\\..\\studio.sqlite", "a" * 500, "%00"]
)
def test_files_are_found_by_id_only(server: Running, id: str) -> None:
    for path in (f"/api/pictures/{id}/file", f"/api/uploads/{id}", f"/v1/images/results/{id}"):
        answer = server.http.get(path)
        assert answer.status_code == 404
        assert b"SQLite" not in answer.content
    assert server.http.get(f"/assets/{id}").status_code == 404


def test_nothing_is_deleted_or_restored_by_its_name(server: Running, tmp_path: Path) -> None:
    kept = tmp_path / "data" / "studio.sqlite"
    for id in ("..%2fstudio.sqlite", "..%2f..%2fdata%2fstudio", "%2fetc%2fpasswd", "..%5cstudio"):
        for method, path in (
            ("DELETE", f"/api/pictures/{id}"),
            ("POST", f"/api/pictures/{id}/restore"),
            ("DELETE", f"/api/jobs/{id}"),
        ):
            assert server.http.request(method, path).status_code in (404, 405)
    assert kept.exists()


def test_what_a_picture_says_of_its_source_is_no_path_either(server: Running) -> None:
    source = Source("../../../etc/passwd.png", "ab" * 32)
    made = server.over(server.ask("a fox")["id"])["pictures"][0]
    data = server.http.get(made["url"]).content
    record = metadata.from_json(str(Image.open(io.BytesIO(data)).info[RECORD_CHUNK]), "here")
    forged = media.encode(
        np.zeros((32, 32, 4), np.float32), replace(record, image=source, mask=source, strength=0.5)
    )
    answer = server.http.post("/api/settings", content=forged, headers=PNG).json()
    assert {"image", "mask"} <= set(answer["differs"])
    assert (answer["request"]["image"], answer["request"]["parent"]) == (None, None)


def test_names_of_files_that_are_sent_are_used_for_nothing(server: Running, tmp_path: Path) -> None:
    name = '../../../evil.py"><img src=x onerror=alert(1)>.png'
    answer = server.http.post(
        "/v1/images/edits",
        files={"image": (name, png(), "text/html")},
        data={"prompt": "a fox", "quality": "no such quality"},
    )
    assert answer.status_code == 400
    assert "onerror" not in answer.text
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert any(path.parent.name == "uploads" for path in files)
    for path in files:
        assert re.fullmatch(r"[\w-]{22}\.png|studio\.(sqlite(-wal|-shm)?|lock)|reserve", path.name)
    assert not list(tmp_path.rglob("evil*"))


def test_a_page_that_is_also_a_picture_is_only_a_picture(server: Running) -> None:
    script = b"<script>alert(1)</script>"
    info = PngInfo()
    info.add_text("Comment", script.decode())
    data = png(pnginfo=info) + b"<html>" + script
    sent = server.http.post("/api/uploads", content=data, headers=PNG).json()
    served = server.http.get(sent["url"])
    assert b"script" not in served.content
    assert served.headers["content-type"] == "image/png"
    assert served.headers["x-content-type-options"] == "nosniff"


def test_a_prompt_is_neither_a_page_nor_a_header(server: Running) -> None:
    prompt = 'a "fox"\r\nSet-Cookie: x=y; <script>alert(1)</script>'
    [picture] = server.over(server.ask(prompt)["id"])["pictures"]
    answer = server.http.get(f"/api/pictures/{picture['id']}/file?download=1")
    name = answer.headers["content-disposition"]
    assert re.fullmatch(r'attachment; filename="[a-z0-9-]+\.png"', name)
    assert "set-cookie" not in answer.headers
    job = server.http.get(f"/api/jobs/{picture['job']}")
    assert job.headers["content-type"] == "application/json"


def test_addresses_are_not_fetched(server: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/a.png"
        answer = server.http.post(
            "/v1/images/edits", data={"image": url, "prompt": "a fox"}, files={"mask": png()}
        )
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")
        for field in ("image", "mask", "parent", "weights", "model", "plan"):
            body = {"prompt": "a fox", **SMALL, field: url}
            answer = server.http.post("/api/jobs", json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
        with pytest.raises(TimeoutError):
            trap.accept()


def test_the_server_has_no_way_to_run_or_fetch_what_it_is_sent() -> None:
    """No pickle, no code by name, no shell, no client for addresses, no model of others."""
    everywhere = {
        *("pickle", "marshal", "shelve", "importlib", "runpy", "subprocess", "ctypes"),
        *("urllib.request", "http.client", "requests", "httpx", "aiohttp", "diffusers", "zmq"),
    }
    calls = {"eval", "exec", "compile", "__import__", "getattr", "setattr", "system", "popen"}
    # One starts the network's own process, with nothing that was sent: the command is made once,
    # of settings. It and another ask the C library for what Python has no word for.
    starts = {"supervisor.py": {"subprocess", "ctypes"}, "memory.py": {"ctypes"}}
    for path in Path(security.__file__).parent.glob("*.py"):
        forbidden = everywhere - starts.get(path.name, set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert not forbidden & {name.name for name in node.names}, path
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in forbidden, path
            elif isinstance(node, ast.Call):
                called = node.func
                name = called.id if isinstance(called, ast.Name) else ""
                name = called.attr if isinstance(called, ast.Attribute) else name
                if name == "getattr":  # of a name that is written here
                    assert isinstance(node.args[1], ast.Constant), path
                elif name == "compile":
                    assert ast.unparse(called) == "re.compile", path
                else:
                    assert name not in calls, (path, name)
                assert ast.unparse(called) != "torch.load", path
                assert "trust_remote_code" not in {each.arg for each in node.keywords}, path


def test_ids_in_requests_are_no_paths_either(server: Running) -> None:
    for id in ("../../etc/passwd", "http://127.0.0.1/", "x" * 65):
        answer = server.http.post("/api/jobs", json={"prompt": "a fox", "image": id, **SMALL})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")
    unknown = server.http.post("/api/jobs", json={"prompt": "a fox", "image": "x", **SMALL})
    assert "no picture x" in unknown.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "{|}"}, None),
        ({"prompt": "a fox", "n": 5}, "n"),
        ({"prompt": "a fox", "width": 20_000}, "width"),
        ({"prompt": "a fox", "width": 33}, "width"),
        ({"prompt": "a fox", "guidance_scale": "NaN"}, "guidance_scale"),
        ({"prompt": "a fox", "strength": 0}, "strength"),
        ({"prompt": "a fox", "seed": -1}, "seed"),
        ({"prompt": "a fox", "colour": "red"}, "colour"),
        ({"prompt": "a fox\x00"}, None),
        ({"prompt": "{a|b|c|d|e}{a|b|c|d}"}, None),
        ({"prompt": "x" * 1001}, None),
    ],
)
def test_bad_values_are_named(server: Running, body: dict[str, Any], param: str | None) -> None:
    answer = server.http.post("/api/jobs", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


def test_too_many_calls_are_told_when_to_come_again(serve: Serve) -> None:
    server = serve(rate=0.5, burst=3)
    answers = [server.http.post("/api/jobs", json={"prompt": ""}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 429]
    assert answers[3].json()["error"]["type"] == "rate_limit_error"
    assert int(answers[3].headers["retry-after"]) >= 1
    assert server.http.get("/api/info").status_code == 200


def test_prompts_and_tokens_stay_out_of_the_log(serve: Serve, slow: Slow) -> None:
    file = io.StringIO()
    handler = logging.StreamHandler(file)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("asymflow.server")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        server = serve(token=TOKEN)
        server.over(server.ask("a very private prompt")["id"])
        slow.error = ValueError("broken")
        server.over(server.ask("a very private prompt")["id"])
        server.http.get(f"/?token={TOKEN}")
        server.http.post("/v1/images/generations", json={"prompt": "a very private prompt", "n": 0})
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert {"call", "ready", "a picture could not be made"} <= {line["message"] for line in lines}
    assert "private" not in file.getvalue()
    assert TOKEN not in file.getvalue()


def test_one_folder_serves_one_server(server: Running, tmp_path: Path) -> None:
    from asymflow.core.errors import FileFormatError
    from asymflow.server.store import Store

    del server
    with pytest.raises(FileFormatError, match="Another server"):
        Store(tmp_path / "data")
