"""The files of the page, and the codes that it translates."""

from __future__ import annotations

import ast
import gzip
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import asymflow.server as package
from asymflow.server.problems import CODES, ProblemDetail, envelope
from asymflow.server.settings import STATIC

from .conftest import SMALL, Running, Serve

SCRIPT = next(f"/assets/{path.name}" for path in sorted((STATIC / "assets").glob("index-*.js")))


@pytest.fixture
def server(serve: Serve) -> Running:
    return serve()


def fetched(server: Running, path: str, accepts: str, **headers: str) -> tuple[Any, bytes]:
    """The answer, and its bytes as they came."""
    sent = {"Accept-Encoding": accepts, **headers}
    with httpx.stream("GET", f"{server.url}{path}", headers=sent) as answer:
        return answer, b"".join(answer.iter_raw())


def test_texts_are_compressed_for_those_who_take_it(server: Running) -> None:
    plain, whole = fetched(server, SCRIPT, "identity")
    packed, data = fetched(server, SCRIPT, "br;q=1.0, gzip;q=0.8")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) == len(data) < 0.5 * len(whole)
    assert gzip.decompress(data) == whole == (STATIC / SCRIPT[1:]).read_bytes()
    for answer in (plain, packed):
        assert answer.headers["vary"] == "Accept-Encoding"
        assert answer.headers["content-type"] == packed.headers["content-type"]
        assert "immutable" in answer.headers["cache-control"]
    assert "content-encoding" not in fetched(server, SCRIPT, "gzip;q=0")[0].headers


def test_what_is_known_is_not_sent_again(server: Running) -> None:
    first, _ = fetched(server, "/", "gzip")
    assert first.headers["cache-control"] == "no-cache"
    known = {"If-None-Match": first.headers["etag"]}
    again, data = fetched(server, "/", "gzip", **known)
    assert (again.status_code, data, again.headers["vary"]) == (304, b"", "Accept-Encoding")


def test_pictures_and_parts_are_sent_as_they_are(server: Running) -> None:
    picture = next(f"/styles/{path.name}" for path in (STATIC / "styles").glob("*.webp"))
    answer, data = fetched(server, picture, "gzip")
    assert "content-encoding" not in answer.headers
    assert data == (STATIC / picture[1:]).read_bytes()
    part, data = fetched(server, SCRIPT, "gzip", Range="bytes=0-9")
    assert (part.status_code, len(data)) == (206, 10)
    assert "content-encoding" not in part.headers


def test_every_code_is_listed_and_every_listed_one_is_used() -> None:
    used: set[str] = set()
    for path in Path(package.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                used |= {node.value} & set(CODES)
            if isinstance(node, ast.keyword) and node.arg == "code":
                given = ast.unparse(node.value)
                found = [each for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
                if given != "str(first['type'])":  # of pydantic
                    used |= {each.value for each in found if isinstance(each.value, str)}
    assert used == set(CODES)


def test_codes_are_in_the_document(server: Running) -> None:
    described = server.http.get("/openapi.json").json()["info"]["description"]
    assert all(f"`{code}`" in described for code in CODES)


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


def test_problems_say_what_their_message_says(serve: Serve) -> None:
    server = serve(upload_pixels=10_000, upload_bytes=50_000)

    def told(path: str, **more: Any) -> tuple[str, dict[str, Any]]:
        answer = server.http.post(path, **more)
        assert answer.status_code >= 400
        problem = answer.json()["error"]
        for value in problem["values"].values():
            assert all(word in problem["message"] for word in str(value).split()), problem
        return problem["code"], problem["values"]

    def asked(prompt: str, **more: Any) -> tuple[str, dict[str, Any]]:
        return told("/api/jobs", json={"prompt": prompt, **SMALL, **more})

    kind = {"Content-Type": "image/png"}
    assert asked(" ") == ("empty_prompt", {})
    assert asked("{ | }") == ("empty_prompt", {})
    assert asked("a" * 1001) == ("prompt_too_long", {"characters": 1001, "limit": 1000})
    assert asked("{a|b}{a|b}{a|b}{a|b}{a|b}") == (
        "too_many_combinations",
        {"count": 32, "limit": 16},
    )
    assert asked("a", width=33) == ("impossible_size", {"width": 33, "height": 32})
    assert asked("a", style="notto") == ("unknown_style", {"style": "notto"})
    assert asked("a", quality="perfect") == ("unknown_quality", {"quality": "perfect"})
    assert asked("a", image="gone")[0] == "not_found"
    assert told("/api/uploads", content=png(200), headers=kind) == (
        "picture_too_large",
        {"limit": 10_000},
    )
    assert told("/api/uploads", content=b"GIF", headers=kind) == ("unreadable_picture", {})
    assert told("/api/uploads", content=bytes(60_000), headers=kind) == (
        "too_long",
        {"limit": 50_000},
    )
    assert told("/api/settings", content=png(8), headers=kind) == ("no_record", {})
    kinds = {"Content-Type": "image/gif"}
    assert told("/api/uploads", content=b"GIF", headers=kinds)[0] == "unsupported_media_type"


def test_clients_of_openai_are_told_what_they_know() -> None:
    problem = ProblemDetail("It is empty.", code="empty_prompt")
    assert envelope(problem, "/api/jobs")["error"]["code"] == "empty_prompt"
    assert envelope(problem, "/v1/images/generations")["error"]["code"] == "invalid_value"
