"""Files that are gone or damaged behind the server's back, and jobs that cannot be made."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from asymflow import server as package
from asymflow.core.errors import InputError
from asymflow.server import requests
from asymflow.server.app import create_app
from asymflow.server.problems import STATUS, ProblemDetail, refused
from asymflow.server.settings import Settings

from .conftest import SMALL, Running, Serve, Slow

PNG = {"Content-Type": "image/png"}
FORM = {"prompt": "a fox", "size": "32x32", "quality": "low"}


def png(mode: str = "RGB", colour: Any = (0, 200, 0)) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (32, 32), colour).save(out, "PNG")
    return out.getvalue()


def files(tmp_path: Path, folder: str) -> list[Path]:
    return sorted((tmp_path / "data" / folder).glob("*.*"))


def upload(server: Running, data: bytes | None = None) -> str:
    answer = server.http.post("/api/uploads", content=data or png(), headers=PNG)
    id: str = answer.json()["id"]
    return id


def check(answer: Any, status: int, tmp_path: Path) -> None:
    """A clear answer that says nothing of the server's folders."""
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert str(tmp_path) not in answer.text
    assert "/data/" not in answer.text


WAYS = [
    "",
    "?format=webp",
    "?format=jpeg",
    "?scale=4",
    "?clean=1",
    "?background=red",
    "?download=1",
]


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_picture_whose_file_is_gone_or_damaged(serve: Serve, tmp_path: Path, damage: str) -> None:
    server = serve()
    [picture] = server.over(server.ask("a fox")["id"])["pictures"]
    other = server.over(server.ask("an owl")["id"])["pictures"][0]
    [path] = [path for path in files(tmp_path, "pictures") if path.stem == picture["id"]]
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:60])
    status = 404 if damage == "gone" else 500
    for way in WAYS:
        as_it_is = way in ("", "?download=1")
        answer = server.http.get(f"/api/pictures/{picture['id']}/file{way}")
        if damage == "damaged" and as_it_is:
            assert answer.content == path.read_bytes()
        else:
            check(answer, status, tmp_path)
    if damage == "gone":
        ids = f"{other['id']},{picture['id']}"
        check(server.http.get(f"/api/pictures/zip?ids={ids}"), 404, tmp_path)
        body = {"prompt": "a fox", **SMALL, "parent": picture["id"]}
        check(server.http.post("/api/jobs", json=body), 404, tmp_path)
    # Others, and what is known of this one, are still there.
    assert server.http.get(other["url"]).status_code == 200
    assert server.http.get(f"/api/pictures/{picture['id']}").status_code == 200
    assert server.http.get("/api/pictures").status_code == 200


@pytest.mark.parametrize("field", ["image", "mask"])
def test_an_upload_whose_file_is_gone(serve: Serve, tmp_path: Path, field: str) -> None:
    server = serve()
    ids = {"image": upload(server), "mask": upload(server, png("L", 255))}
    (tmp_path / "data" / "uploads" / f"{ids[field]}.png").unlink()
    check(server.http.get(f"/api/uploads/{ids[field]}"), 404, tmp_path)
    answer = server.http.post("/api/jobs", json={"prompt": "a fox", **SMALL, **ids})
    check(answer, 404, tmp_path)
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (field, "not_found")


@pytest.mark.parametrize("field", ["image", "mask"])
@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_an_upload_that_goes_while_its_job_waits(
    serve: Serve, slow: Slow, tmp_path: Path, field: str, damage: str
) -> None:
    server = serve()
    ids = {"image": upload(server), "mask": upload(server, png("L", 255))}
    slow.gate.clear()
    server.ask("before")
    job = server.ask("a fox", **ids)
    path = tmp_path / "data" / "uploads" / f"{ids[field]}.png"
    path.unlink() if damage == "gone" else path.write_bytes(b"\x89PNG")
    slow.gate.set()
    failed = server.over(job["id"])
    assert failed["state"] == "failed"
    assert failed["error"]["code"] == ("not_found" if damage == "gone" else "unusable")
    assert str(tmp_path) not in str(failed)


def test_settings_of_a_picture_whose_source_is_gone(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    id = upload(server)
    [picture] = server.over(server.ask("a fox", image=id)["id"])["pictures"]
    data = server.http.get(picture["url"]).content
    found = server.http.post("/api/settings", content=data, headers=PNG).json()
    assert (found["request"]["image"], "image" in found["differs"]) == (id, False)
    (tmp_path / "data" / "uploads" / f"{id}.png").unlink()
    found = server.http.post("/api/settings", content=data, headers=PNG).json()
    assert (found["request"]["image"], "image" in found["differs"]) == (None, True)


@pytest.mark.usefixtures("wordless")
def test_a_result_that_is_gone(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    body = {**FORM, "response_format": "url"}
    url = server.http.post("/v1/images/generations", json=body).json()["data"][0]["url"]
    for path in files(tmp_path, "results"):
        path.unlink()
    check(server.http.get(url), 404, tmp_path)


def test_a_model_that_cannot_be_loaded_names_no_file(tmp_path: Path) -> None:
    secret = tmp_path / "weights.safetensors"

    def load() -> Any:
        raise InputError(f"{secret} is no model.")

    app = create_app(Settings(data=tmp_path / "data", port=0), load)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.post("/api/jobs", json={"prompt": "a fox", **SMALL})
        check(answer, 503, tmp_path)
        assert answer.json()["error"]["code"] == "model_failed"


# Jobs that fail before they are drawn.


@pytest.mark.usefixtures("wordless")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InputError("This picture cannot be used."), 400, "unusable"),
        (ValueError("a secret prompt"), 500, "internal_error"),
    ],
)
def test_what_fails_in_preparing_is_not_to_be_tried_again(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    code: str,
    stream: bool,
) -> None:
    server = serve()

    def prepare(*about: object) -> None:
        raise error

    monkeypatch.setattr(requests, "prepare", prepare)
    answer = server.http.post("/v1/images/generations", json={**FORM, "stream": stream})
    assert "retry-after" not in answer.headers
    assert "secret" not in answer.text
    assert f'"code":"{code}"' in answer.text.replace(": ", ":")
    assert answer.status_code == (200 if stream else status)
    failed = server.over(server.ask("a fox")["id"])
    assert failed["error"]["code"] == code


def codes() -> set[str]:
    """Every code that a problem of a job is given anywhere in the package."""
    found: set[str] = set()
    for path in Path(package.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "ProblemDetail":
                given = [each.value for each in node.keywords if each.arg == "code"]
                found |= {str(each.value) for each in given if isinstance(each, ast.Constant)}
    return found


def test_every_code_of_a_failed_job_has_a_status() -> None:
    of_jobs = codes() - {"invalid_value", "json_invalid"}  # of calls that never became a job
    assert {"unusable", "internal_error", "timeout"} <= of_jobs
    assert of_jobs <= set(STATUS)
    for code, status in STATUS.items():
        answer = refused(ProblemDetail("It failed.", code=code))
        assert (answer.status, answer.problem.code) == (status, code)
        # Only what may do better by itself is to be tried again.
        assert ("Retry-After" in answer.headers) == (status == 503)
    assert refused(ProblemDetail("It failed.")).status == 500
