"""What clients send: text that is none, prompts that are long, fields that are left empty."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Generator
from typing import Any, cast

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from asymflow.generation import pipeline
from asymflow.io import images
from asymflow.io.images import RECORD_CHUNK, Notes
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.server.settings import Settings

from .conftest import SMALL, Running, Slow, running

FORM = {"prompt": "a fox", "size": "32x32", "quality": "low"}
JSON = {"Content-Type": "application/json"}


def usage(*about: object) -> dict[str, int]:
    """The slow model has no words to count."""
    return {"total_tokens": len(about)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    adapter = cast("EmbeddedAdapter", Slow())
    data = tmp_path_factory.mktemp("sent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asymflow.server.openai.usage", usage)
        chosen = Settings(data=data, port=0, burst=100_000, queue=100_000, queue_of_one=100_000)
        with running(chosen, lambda: pipeline.of(adapter, dtype="float32", device="cpu")) as found:
            yield found


def generate(server: Running, **more: Any) -> httpx.Response:
    return server.http.post("/v1/images/generations", json={**FORM, **more})


# Which address or bytes.


@pytest.mark.parametrize(
    ("more", "by_url"),
    [
        ({"model": "dall-e-2"}, True),
        ({"model": "dall-e-3"}, True),
        ({"model": "dall-e-3", "response_format": ""}, True),
        ({"model": "dall-e-3", "response_format": None}, True),
        ({"model": "dall-e-3", "response_format": "b64_json"}, False),
        ({"model": "gpt-image-1"}, False),
        ({"model": "gpt-image-1", "response_format": "url"}, True),
        ({"model": "asymflow"}, False),
        ({"model": ""}, False),
        ({}, False),
    ],
)
def test_pictures_come_as_the_model_that_is_named_has_them(
    server: Running, more: dict[str, Any], by_url: bool
) -> None:
    answer = generate(server, **more)
    assert answer.status_code == 200, answer.text
    [image] = answer.json()["data"]
    assert set(image) == ({"url"} if by_url else {"b64_json"})
    if by_url:
        assert httpx.get(image["url"]).content.startswith(b"\x89PNG")
    assert "x-asymflow-ignored" not in answer.headers


# Fields that are left empty.

EMPTY = (
    "size quality style background output_format response_format negative_prompt plan n seed "
    "guidance_scale strength stream partial_images output_compression fit model user"
).split()


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_field_is_left_to_the_server(server: Running, name: str) -> None:
    answer = generate(server, **{name: ""})
    assert answer.status_code == 200, answer.text
    form = {**FORM, name: ""}
    png = base64.b64decode(generate(server).json()["data"][0]["b64_json"])
    answer = server.http.post("/v1/images/edits", files={"image": png}, data=form)
    assert answer.status_code == 200, answer.text


def test_a_seed_of_minus_one_is_any_seed(server: Running) -> None:
    answers = [generate(server, seed=-1).json(), generate(server, seed="-1").json()]
    seeds = [answer["asymflow"]["pictures"][0]["seed"] for answer in answers]
    assert seeds[0] != seeds[1]
    assert generate(server, seed=-2).status_code == 400


def test_an_empty_prompt_is_no_prompt(server: Running) -> None:
    answer = generate(server, prompt="")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


# Prompts longer than what is read.


def test_a_long_prompt_is_cut_at_a_word_and_that_is_said(server: Running) -> None:
    prompt = "a red fox in the snow " * 300
    answer = generate(server, prompt=prompt, negative_prompt="blue " * 250)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-asymflow-cut"] == "prompt, negative_prompt"
    told = answer.json()["asymflow"]
    assert told["cut"]["prompt"]["sent"] == len(prompt)
    id = told["pictures"][0]["id"]
    picture = server.http.get(f"/api/pictures/{id}").json()
    assert told["cut"]["prompt"]["taken"] == len(picture["prompt"])
    assert 950 < len(picture["prompt"]) <= 1000
    assert prompt.startswith(picture["prompt"] + " ")
    assert picture["negative_prompt"] == ("blue " * 200).strip()


def test_a_long_prompt_is_cut_in_an_edit_and_in_a_stream(server: Running) -> None:
    png = base64.b64decode(generate(server).json()["data"][0]["b64_json"])
    form = {**FORM, "prompt": "fox " * 2000, "stream": "true"}
    answer = server.http.post("/v1/images/edits", files={"image": png}, data=form)
    assert answer.headers["x-asymflow-cut"] == "prompt"
    [data] = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert json.loads(data)["asymflow"]["cut"] == {"prompt": {"sent": 8000, "taken": 999}}


def test_a_prompt_without_spaces_is_not_cut_to_nothing(server: Running) -> None:
    answer = generate(server, prompt="雪 " + "狐" * 5000)
    assert answer.json()["asymflow"]["cut"]["prompt"]["taken"] == 1000


@pytest.mark.parametrize("prompt", ["a fox", "x" * 1000, "a" + " " * 3000 + "fox"])
def test_what_is_read_whole_is_not_called_cut(server: Running, prompt: str) -> None:
    answer = generate(server, prompt=prompt)
    assert answer.status_code == 200
    assert "x-asymflow-cut" not in answer.headers
    assert "cut" not in answer.json()["asymflow"]


def test_the_limits_that_stay_are_told(server: Running) -> None:
    assert generate(server, prompt="x" * 32_001).json()["error"]["param"] == "prompt"
    answer = server.http.post("/api/jobs", json={**SMALL, "prompt": "x" * 1001})
    assert (answer.status_code, "1001 characters" in answer.text) == (400, True)


# Text that is none.

BROKEN = st.sampled_from(
    ["\ud800", "\udfff", "a\ud83dz", "\0", "\x1b[31m", "\x7f", "\ufffe", "\uffff", "\ufdd0", "\r\n"]
)
FIELDS = st.sampled_from(
    "prompt negative_prompt style quality size background output_format response_format plan model "
    "user fit n seed wonder image mask parent".split()
)


def is_whole(answer: httpx.Response) -> None:
    """Made or refused, in an answer that can be read; and so is everything afterwards."""
    assert answer.status_code in (200, 202, 400), (answer.status_code, answer.text)
    answer.content.decode("utf-8")
    if answer.status_code == 400:
        assert answer.json()["error"]["message"]


@given(FIELDS, BROKEN, st.sampled_from(["value", "name", "inside"]))
@example("style", "\ud800", "value")
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_no_text_in_json_breaks_an_answer_or_the_database(
    server: Running, field: str, text: str, where: str
) -> None:
    name, value = {
        "value": (field, text),
        "name": (field + text, "x"),
        "inside": (field, [{"a": text}]),
    }[where]
    for path, body in (("/v1/images/generations", FORM), ("/api/jobs", {"prompt": "a", **SMALL})):
        sent = json.dumps({**body, name: value}).encode()
        is_whole(server.http.post(path, content=sent, headers=JSON))
    assert server.http.get("/api/jobs?limit=200").status_code == 200
    assert server.http.get("/api/pictures?limit=200").status_code == 200


@pytest.mark.parametrize("field", ["style", "negative_prompt", "wonder", "model"])
@pytest.mark.parametrize("path", ["/v1/images/generations", "/api/jobs"])
def test_half_a_pair_is_refused_wherever_it_is(server: Running, path: str, field: str) -> None:
    body = FORM if path.startswith("/v1") else {"prompt": "a fox", **SMALL}
    sent = json.dumps({**body, field: "fox \ud83d"}).encode()
    answer = server.http.post(path, content=sent, headers=JSON)
    assert answer.status_code == 400
    assert r"fox \ud83d" in answer.json()["error"]["message"]
    assert "half of a surrogate pair" in answer.json()["error"]["message"]


def form(name: bytes, value: bytes, charset: str, file: bytes) -> tuple[bytes, dict[str, str]]:
    parts = [
        (b'name="image"; filename="\xff\x00.png"', file),
        (b'name="prompt"', b"a fox"),
        (b'name="size"', b"32x32"),
        (b'name="quality"', b"low"),
        (b'name="' + name + b'"', value),
    ]
    lines = [
        b"--x\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + data + b"\r\n"
        for head, data in parts
    ]
    kind = f"multipart/form-data; boundary=x{charset}"
    return b"".join(lines) + b"--x--\r\n", {"Content-Type": kind}


@given(
    st.one_of(FIELDS.map(str.encode), st.binary(min_size=1, max_size=8)),
    st.one_of(st.just(rb"\ud800"), st.binary(max_size=12)),
    st.sampled_from(
        ["utf-8", "unicode_escape", "utf-7", "utf-16", "idna", "punycode", "undefined"]
    ),
)
@example(b"style", rb"\ud800", "unicode_escape")
@example(b"style", b"\xff\xff", "idna")
@example(b"style", b"x", "undefined")
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_no_text_in_a_form_breaks_an_answer(
    server: Running, name: bytes, value: bytes, charset: str
) -> None:
    png = base64.b64decode(generate(server).json()["data"][0]["b64_json"])
    clean = name.translate(None, b'\r\n"\\') or b"x"
    body, headers = form(clean, value.replace(b"--x", b""), f"; charset={charset}", png)
    is_whole(server.http.post("/v1/images/edits", content=body, headers=headers))


VISIBLE = [*range(0x21, 0x7F), *range(0x80, 0x100)]
"""Bytes that a header may have; with others it is none."""


@given(st.binary(min_size=1, max_size=10))
@example(b"\xed\xa0\x80")
@example(b"\x00")
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_no_text_in_an_address_breaks_an_answer(server: Running, text: bytes) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in text)
    [made] = generate(server).json()["asymflow"]["pictures"]
    for path in (
        f"/api/jobs/{quoted}",
        f"/api/pictures/{quoted}/file",
        f"/api/pictures/zip?ids={quoted}",
        f"/api/pictures/{made['id']}/file?background={quoted}",
        f"/api/pictures?before={quoted}",
        f"/v1/models/{quoted}",
        f"/v1/images/results/{quoted}",
        f"/{quoted}",
    ):
        answer = server.http.get(path)
        assert answer.status_code < 500, (path, answer.text)
        answer.content.decode("utf-8")


@given(st.lists(st.sampled_from(VISIBLE), min_size=1, max_size=20).map(bytes))
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_no_text_in_a_header_breaks_an_answer(server: Running, text: bytes) -> None:
    for name in (b"Idempotency-Key", b"X-Client", b"Last-Event-ID", b"User-Agent"):
        sent = json.dumps({"prompt": "a", **SMALL}).encode()
        headers = [(b"Content-Type", b"application/json"), (name, text)]
        answer = server.http.post("/api/jobs", content=sent, headers=headers)
        assert answer.status_code in (202, 400), answer.text
    assert server.http.get("/api/jobs?limit=200").status_code == 200


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b'{"prompt": "a fox", "seed": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"prompt": "a fox", "style": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": "a fox\xff"}', "decode"),
    ],
    ids=["digits", "depth", "bytes"],
)
@pytest.mark.parametrize("path", ["/v1/images/generations", "/api/jobs"])
def test_json_that_cannot_be_read_says_why(
    server: Running, path: str, body: bytes, cause: str
) -> None:
    answer = server.http.post(path, content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "json_invalid")
    assert cause in answer.json()["error"]["message"]


# Records of pictures.

ODD = (0, -1, 10**30, 10**400, 1e-320, 1e308, "", "\ud800", "\0", None, True, [], {}, 0.5)


def recorded(record: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    notes = Notes("", json.dumps(record), "")
    images.write(file, np.zeros((8, 8, 4), np.float32), format="png", notes=notes)
    return file.getvalue()


def test_no_record_breaks_the_settings_of_a_picture(server: Running) -> None:
    [made] = generate(server).json()["asymflow"]["pictures"]
    png = server.http.get(f"/api/pictures/{made['id']}/file").content
    record: dict[str, Any] = json.loads(Image.open(io.BytesIO(png)).info[RECORD_CHUNK])
    kind = {"Content-Type": "image/png"}
    whole = server.http.post("/api/settings", content=recorded(record), headers=kind)
    assert whole.status_code == 200, whole.text
    understood = 0
    for name in record:
        for value in ODD:
            data = recorded({**record, name: value})
            answer = server.http.post("/api/settings", content=data, headers=kind)
            assert answer.status_code in (200, 400), (name, value, answer.text)
            answer.content.decode()
            understood += answer.status_code == 200
    assert understood > 0
