"""What /openapi.json says, against what the server does."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from asymflow.generation import pipeline
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.server.settings import Settings

from .conftest import SMALL, Running, Slow, running

importlib.import_module("schemathesis.specs.openapi.schemas")
"""Which schemathesis loads late. pytest parses it then, and Python before 3.11.8 must not parse
while another thread (the server's) writes a traceback."""

PROMISES = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


FRAMING = frozenset("connection content-length expect host te transfer-encoding upgrade".split())
"""Headers that say where a request ends. Nonsense in them is no call of the API: it is answered by
uvicorn, in plain text, before there is a request."""


def usage(*about: object) -> dict[str, int]:
    """The slow model has no words to count."""
    return {"total_tokens": len(about)}


def nothing_found(*about: object) -> tuple[()]:
    """A measurement that is over at once."""
    del about
    return ()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    data = tmp_path_factory.mktemp("contract")
    adapter = cast("EmbeddedAdapter", Slow())
    limits: dict[str, Any] = {"burst": 100_000, "queue": 100_000, "queue_of_one": 100_000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asymflow.server.openai.usage", usage)
        patch.setattr("asymflow.server.measuring.connected", lambda: nothing_found)
        with running(
            Settings(data=data, port=0, **limits),
            lambda: pipeline.of(adapter, dtype="float32", device="cpu"),
        ) as found:
            yield found


@pytest.fixture(scope="module")
def schema(server: Running) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_no_call_breaks_the_server_or_its_promises(
    server: Running, schema: Any, subtests: pytest.Subtests
) -> None:
    for found in schema.exclude(path="/api/events").get_all_operations():  # which never ends
        operation = found.ok()

        kinds = st.sampled_from(GenerationMode)
        cases = kinds.flatmap(lambda kind, of=operation: of.as_strategy(generation_mode=kind))

        @given(cases)
        @settings(
            max_examples=20,
            derandomize=True,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
        )
        def check(case: schemathesis.Case[Any]) -> None:
            for name in [name for name in case.headers if name.lower() in FRAMING]:
                del case.headers[name]
            case.call_and_validate(base_url=server.url, timeout=60, checks=PROMISES)

        with subtests.test(operation.label):
            check()


def test_the_document_knows_every_answer(server: Running, schema: Any) -> None:
    """Of calls that succeed, which no guessed id does."""
    job = server.over(server.ask("a {red|blue} fox")["id"])
    picture = job["pictures"][0]
    png = server.http.get(picture["url"]).content
    kind = {"Content-Type": "image/png"}
    upload = server.http.post("/api/uploads", content=png, headers=kind)
    image = upload.json()["id"]
    painting = server.over(server.ask(image=image, mask=image)["id"])["pictures"][0]
    painted = f"/api/pictures/{painting['id']}"
    form = {"prompt": "a fox", "size": "32x32", "quality": "low", "response_format": "url"}
    edit = server.http.post("/v1/images/edits", files={"image": png}, data=form)
    called = {
        ("GET", "/api/info"): server.http.get("/api/info"),
        ("GET", "/api/words"): server.http.get("/api/words?prompt=a%20fox&language=de"),
        ("GET", "/api/models"): server.http.get("/api/models"),
        ("POST", "/api/models/{id}/measure"): server.http.post("/api/models/asymflow/measure"),
        ("GET", "/api/models/{id}/measure"): server.http.get("/api/models/asymflow/measure"),
        ("DELETE", "/api/models/{id}/measure"): server.http.delete("/api/models/asymflow/measure"),
        ("POST", "/api/jobs"): server.http.post("/api/jobs", json={"prompt": "a fox", **SMALL}),
        ("GET", "/api/jobs"): server.http.get("/api/jobs"),
        ("GET", "/api/jobs/{id}"): server.http.get(f"/api/jobs/{job['id']}"),
        ("DELETE", "/api/jobs/{id}"): server.http.delete(f"/api/jobs/{job['id']}"),
        ("GET", "/api/jobs/{id}/events"): server.http.get(f"/api/jobs/{job['id']}/events"),
        ("GET", "/api/jobs/{id}/preview/{slot}"): server.http.get(
            f"/api/jobs/{job['id']}/preview/0"
        ),
        ("POST", "/api/uploads"): upload,
        ("GET", "/api/uploads/{id}"): server.http.get(upload.json()["url"]),
        ("GET", "/api/pictures"): server.http.get("/api/pictures"),
        ("GET", "/api/pictures/zip"): server.http.get(f"/api/pictures/zip?ids={picture['id']}"),
        ("GET", "/api/pictures/{id}"): server.http.get(f"/api/pictures/{picture['id']}"),
        ("GET", "/api/pictures/{id}/svg"): server.http.get(f"/api/pictures/{picture['id']}/svg"),
        ("GET", "/api/pictures/{id}/rendered"): server.http.get(
            f"/api/pictures/{picture['id']}/rendered?side=32"
        ),
        ("GET", "/api/pictures/{id}/restored"): server.http.get(f"{painted}/restored"),
        ("POST", "/api/pictures/{id}/restored"): server.http.post(
            f"{painted}/restored", content=png, headers=kind
        ),
        ("GET", "/api/pictures/{id}/file"): server.http.get(picture["thumbnail"]),
        ("POST", "/api/settings"): server.http.post("/api/settings", content=png, headers=kind),
        ("DELETE", "/api/pictures/{id}"): server.http.delete(f"/api/pictures/{picture['id']}"),
        ("POST", "/api/pictures/{id}/restore"): server.http.post(
            f"/api/pictures/{picture['id']}/restore", json={}
        ),
        **{
            ("POST", f"/api/pictures/{what}"): server.http.post(
                f"/api/pictures/{what}", json={"ids": [picture["id"], "gone"]}
            )
            for what in ("favourite", "delete", "restore")
        },
        ("DELETE", "/api/trash"): server.http.delete("/api/trash"),
        ("GET", "/v1/models"): server.http.get("/v1/models"),
        ("GET", "/v1/models/{id}"): server.http.get("/v1/models/asymflow"),
        ("POST", "/v1/images/generations"): server.http.post("/v1/images/generations", json=form),
        ("POST", "/v1/images/edits"): edit,
        ("GET", "/v1/images/results/{name}"): server.http.get(edit.json()["data"][0]["url"]),
        ("GET", "/health"): server.http.get("/health"),
        ("GET", "/ready"): server.http.get("/ready"),
        ("GET", "/metrics"): server.http.get("/metrics"),
    }
    for (method, path), answer in called.items():
        assert answer.is_success, (method, path, answer.text)
        operation = schema[path][method]
        case = operation.Case(path_parameters={"id": "x", "slot": 0, "name": "x"})
        answer.request.read()
        case.validate_response(
            answer,
            checks=PROMISES,
        )
    documented = {
        (method.upper(), path)
        for path, calls in schema.raw_schema["paths"].items()
        for method in calls
    }
    assert documented - set(called) == {("GET", "/api/events")}
