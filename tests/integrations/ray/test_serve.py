"""The HTTP API as an application of Ray Serve: it shares no disk, and says when it is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asymflow.core.errors import InputError
from asymflow.integrations.ray import serve
from asymflow.integrations.ray.proxy import Lost, middlewares

TOKEN = "x" * 24


@pytest.fixture(scope="module")
def replica() -> Iterator[TestClient]:
    """What a replica serves, without Serve around it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(serve.TOKEN, TOKEN)
        api = serve.Api(serve.Options())
        with TestClient(
            api.__serve_build_asgi_app__(), headers={"Authorization": f"Bearer {TOKEN}"}
        ) as client:
            asyncio.run(api.check_health())
            yield client


def test_a_replica_is_ready_once_it_is_healthy_and_draws(replica: TestClient) -> None:
    assert replica.get("/ready").json() == {"status": "ready"}
    asked = {"prompt": "a fox", "size": "64x64", "quality": "low", "seed": 3}
    made = replica.post("/v1/images/generations", json=asked).json()
    assert set(made["data"][0]) == {"b64_json"}
    again = replica.post("/v1/images/generations", json=asked).json()
    assert made["data"] == again["data"]


def test_what_needs_one_disk_is_not_there(replica: TestClient) -> None:
    for path in ("/", "/api/info", "/sdapi/v1/options"):
        assert replica.get(path).status_code == 404
    asked = {"prompt": "a fox", "size": "64x64", "quality": "low"}
    refused = replica.post("/v1/images/generations", json={**asked, "response_format": "url"})
    assert refused.status_code == 400
    assert "Request b64_json" in refused.json()["error"]["message"]
    usual = replica.post("/v1/images/generations", json={**asked, "model": "dall-e-3"}).json()
    assert set(usual["data"][0]) == {"b64_json"}


def test_a_replica_that_cannot_draw_is_not_healthy(tmp_path: Path) -> None:
    api = serve.Api(serve.Options(models=(str(tmp_path / "nothing"),), open=True))
    with (
        TestClient(api.__serve_build_asgi_app__(), base_url="http://127.0.0.1"),
        pytest.raises(RuntimeError, match="could not be loaded"),
    ):
        asyncio.run(api.check_health())


def test_an_application_that_everybody_could_use_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(serve.TOKEN, raising=False)
    with pytest.raises(InputError, match="Everybody who reaches the proxy"):
        serve.app(serve.Options())


def test_the_application_is_built_from_a_dictionary_as_in_a_config_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: Any = pytest.importorskip("ray.serve._private.api")
    monkeypatch.setenv(serve.TOKEN, TOKEN)
    found = built.call_user_app_builder_with_args_if_necessary(serve.app, {"queue": 3})
    assert type(found).__name__ == "Application"
    with pytest.raises(Exception, match="Extra inputs"):
        built.call_user_app_builder_with_args_if_necessary(serve.app, {"quue": 3})


def answered(app: ASGIApp) -> httpx.Response:
    """The answer of an application, or of a proxy, with the middleware around it."""
    [middleware] = middlewares()
    wrapped = middleware.cls(app, *middleware.args, **middleware.kwargs)
    assert isinstance(wrapped, Lost)
    transport = httpx.ASGITransport(wrapped)

    async def call() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/v1/models")

    return asyncio.run(call())


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise ConnectionError("the replica is gone")


@pytest.mark.parametrize("app", [nothing, raising])
def test_a_call_without_an_answer_says_when_to_try_again(app: ASGIApp) -> None:
    found = answered(app)
    assert found.status_code == 503
    assert found.headers["Retry-After"] == "1"
    assert found.json()["error"]["code"] == "network_lost"


def test_plain_errors_of_the_proxy_become_refusals_and_others_stay() -> None:
    async def plain(request: Request) -> Response:
        return PlainTextResponse("Internal Server Error", 500)

    async def own(request: Request) -> Response:
        return JSONResponse({"error": {}}, 500)

    for endpoint, status, told in ((plain, 503, "1"), (own, 500, None)):
        found = answered(Starlette(routes=[Route("/v1/models", endpoint)]))
        assert (found.status_code, found.headers.get("Retry-After")) == (status, told)


def test_proxies_load_no_torch() -> None:
    code = "import sys, asymflow.integrations.ray.proxy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
