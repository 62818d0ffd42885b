"""Requests as Open WebUI and LibreChat send them, written down from what their sources do: which
fields, in which kind of body, and what they read of the answer."""

from __future__ import annotations

import http.client
import json
import secrets
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from checks import BASE, GREY, LONG, PICTURE, TOKEN, check, decoded, equal, half_is_kept, run

BEARER = {"Authorization": f"Bearer {TOKEN}"}
PART = tuple[str, bytes, str | None, str | None]
"""Name, content, file name and content type of a part of a form."""


def ask(
    path: str, body: bytes | Iterator[bytes], headers: dict[str, str], status: int = 200
) -> Any:
    address = urllib.parse.urlsplit(BASE)
    connection = http.client.HTTPConnection(address.netloc, timeout=120)
    try:
        chunked = not isinstance(body, bytes)
        connection.request("POST", address.path + path, body, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    equal((answer.status, data[:300] if answer.status != status else b""), (status, b""))
    return json.loads(data)


def as_json(path: str, fields: dict[str, Any], status: int = 200) -> Any:
    headers = {**BEARER, "Content-Type": "application/json"}
    return ask(path, json.dumps(fields).encode(), headers, status)


def form(parts: Sequence[PART], boundary: str) -> bytes:
    lines = b""
    for name, content, file, kind in parts:
        head = f'Content-Disposition: form-data; name="{name}"'
        head += "" if file is None else f'; filename="{file}"'
        head += "" if kind is None else f"\r\nContent-Type: {kind}"
        lines += f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"
    return lines + f"--{boundary}--\r\n".encode()


def as_form(path: str, parts: Sequence[PART], *, chunked: bool = False, status: int = 200) -> Any:
    boundary = secrets.token_hex(16)
    headers = {**BEARER, "Content-Type": f"multipart/form-data; boundary={boundary}"}
    body = form(parts, boundary)
    if not chunked:
        return ask(path, body, headers, status)
    headers["Transfer-Encoding"] = "chunked"
    return ask(path, (body[i : i + 1000] for i in range(0, len(body), 1000)), headers, status)


def fetched_with_token(url: str) -> bytes:
    """As Open WebUI does, which sends its token to any address of a picture."""
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=60)
    try:
        connection.request("GET", address.path, headers=BEARER)
        answer = connection.getresponse()
        equal((answer.status, answer.headers["Content-Type"]), (200, "image/png"))
        return answer.read()
    finally:
        connection.close()


# Open WebUI: JSON to generate, a form of aiohttp to edit, whose texts have a type of their own.

TEXT = "text/plain; charset=utf-8"


@check
def open_webui_generates_with_dall_e() -> None:
    answer = as_json(
        "/images/generations",
        {
            "model": "dall-e-2",
            "prompt": "a fox",
            "n": 1,
            "size": "512x512",
            "response_format": "b64_json",
        },
    )
    equal(decoded(answer["data"][0]["b64_json"]).size, (512, 512))


@check
def open_webui_generates_with_gpt_image() -> None:
    answer = as_json(
        "/images/generations?api-version=2025-04-01",
        {"model": "gpt-image-1", "prompt": LONG, "n": 2, "size": "1024x1024"},
    )
    for image in answer["data"]:
        equal("url" in image and bool(image["url"]), False)
        equal(decoded(image["b64_json"]).size, (1024, 1024))


@check
def open_webui_fetches_addresses() -> None:
    answer = as_json(
        "/images/generations",
        {"model": "dall-e-3", "prompt": "a fox", "n": 1, "size": "256x256"},
    )
    equal(fetched_with_token(answer["data"][0]["url"])[1:4], b"PNG")


@check
def open_webui_edits() -> None:
    answer = as_form(
        "/images/edits",
        [
            ("model", b"gpt-image-1", None, TEXT),
            ("prompt", b"a red apple", None, TEXT),
            ("n", b"1", None, TEXT),
            ("size", b"64x64", None, TEXT),
            ("image", PICTURE, "file_name.png", "image/png"),
        ],
    )
    equal(decoded(answer["data"][0]["b64_json"]).size, (64, 64))


@check
def open_webui_edits_a_list_of_one() -> None:
    answer = as_form(
        "/images/edits",
        [
            ("model", b"dall-e-2", None, TEXT),
            ("prompt", b"a red apple", None, TEXT),
            ("response_format", b"b64_json", None, TEXT),
            ("image[]", PICTURE, "file_name.png", "image/png"),
        ],
    )
    decoded(answer["data"][0]["b64_json"])


@check
def open_webui_hears_of_two_pictures() -> None:
    picture = ("image[]", PICTURE, "file_name.png", "image/png")
    text = ("prompt", b"a red apple", None, TEXT)
    answer = as_form("/images/edits", [text, picture, picture], status=400)
    assert "2 files were sent as `image`" in answer["error"]["message"]


# LibreChat: its tool for DALL-E reads an address, that for gpt-image base64. Its edits are a form
# of form-data, whose texts have no type and whose length nobody knows.


@check
def librechat_draws_with_dall_e() -> None:
    answer = as_json(
        "/images/generations",
        {
            "model": "dall-e-3",
            "quality": "standard",
            "style": "vivid",
            "size": "1024x1024",
            "prompt": LONG[:4000],
            "n": 1,
        },
    )
    equal(fetched_with_token(answer["data"][0]["url"])[1:4], b"PNG")


@check
def librechat_draws_with_gpt_image() -> None:
    answer = as_json(
        "/images/generations",
        {
            "model": "gpt-image-1",
            "prompt": "a fox",
            "n": 1,
            "background": "auto",
            "output_format": "webp",
            "output_compression": 100,
            "quality": "auto",
            "size": "auto",
        },
    )
    equal(decoded(answer["data"][0]["b64_json"]).format, "WEBP")


@check
def librechat_edits() -> None:
    answer = as_form(
        "/images/edits",
        [
            ("model", b"gpt-image-1", None, None),
            ("prompt", b"a red apple", None, None),
            ("quality", b"auto", None, None),
            ("size", b"auto", None, None),
            ("image[]", PICTURE, "fox.png", "image/png"),
        ],
        chunked=True,
    )
    equal(decoded(answer["data"][0]["b64_json"]).size, (64, 64))


@check
def fields_that_are_left_empty() -> None:
    answer = as_json(
        "/images/generations",
        {"prompt": "a fox", "quality": "", "size": "", "style": "", "background": "", "seed": -1},
    )
    decoded(answer["data"][0]["b64_json"])


@check
def a_mask_as_of_automatic1111() -> None:
    answer = as_form(
        "/images/edits",
        [
            ("image", PICTURE, "a.png", "image/png"),
            ("mask[]", GREY, "m.png", "image/png"),
            ("prompt", b"a red apple", None, None),
            ("size", b"64x64", None, None),
        ],
    )
    half_is_kept(decoded(answer["data"][0]["b64_json"]))


run()
