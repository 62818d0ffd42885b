"""What /openapi.json says beyond the types of endpoints: failures, files, forms and events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from asymflow.io.images import Format
from asymflow.server.problems import ProblemDetail
from asymflow.server.views import Changed, JobEvents, Said


class Failure(BaseModel):
    """The response to a failed call."""

    error: ProblemDetail


class Image(BaseModel):
    """A picture as base64, or as a URL that is valid for an hour."""

    b64_json: str | None = None
    url: str | None = None


class Images(BaseModel):
    """The response of OpenAI's calls; `asymflow` has the values used."""

    created: int
    data: list[Image]
    background: Literal["transparent", "opaque"]
    output_format: Format
    quality: Literal["low", "medium", "high"]
    size: str
    usage: dict[str, Any]
    asymflow: dict[str, Any]


class Health(BaseModel):
    """Whether a server can be used."""

    status: Literal["ok", "ready", "loading", "restarting", "stopping", "failed"]


_REF = "#/components/schemas/{model}"


def _event(name: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An event on the wire, whose data are of a schema."""
    text: dict[str, Any] = {"type": "string", "contentMediaType": "application/json"}
    if data is not None:
        text["contentSchema"] = data
    kind: dict[str, Any] = {"type": "string"}
    if name:
        kind["const"] = name
    return {
        "type": "object",
        "properties": {"id": {"type": "string"}, "event": kind, "data": text},
        "required": ["data"],
    }


def _ref(kind: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=kind.__name__)}


def _streamed(item: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    content = {"text/event-stream": {"itemSchema": item}}
    return {200: {"description": "Events, as they happen.", "content": content}}


_SAID: Mapping[str, type[Said]] = {
    kind.event: kind
    for field in JobEvents.model_fields.values()
    if isinstance(kind := field.annotation, type) and issubclass(kind, Said)
}
_OF_JOB = {"type": "object", "properties": {"job": {"type": "string"}}, "required": ["job"]}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

FAILURES: dict[int | str, dict[str, Any]] = {
    "default": {"model": Failure, "description": "Why it did not work."}
}
EVENTS = _streamed({"oneOf": [_event(name, _ref(kind)) for name, kind in _SAID.items()]})
"""The stream of one job."""
ALL_EVENTS = _streamed(
    {
        "oneOf": [
            _event("beat", {"type": "object"}),
            _event("job", _ref(Changed)),
            *(_event(n, {"allOf": [_OF_JOB, _ref(kind)]}) for n, kind in _SAID.items()),
        ]
    }
)
"""The stream of all jobs; events of one have its id."""
IMAGES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Images,
        "description": "The pictures; with `stream`, events as they happen.",
        "content": _streamed(_event(""))[200]["content"],
    },
}
NOTHING: dict[int | str, dict[str, Any]] = {204: {"description": "No content."}}


def answers(model: object, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """A JSON response of a schema."""
    return {status: {"model": model}}


def files(*types: str) -> dict[int | str, dict[str, Any]]:
    """A response with a file of one of these media types."""
    return {200: {"description": "The file.", "content": dict.fromkeys(types, _BINARY)}}


def takes(*types: str) -> dict[str, Any]:
    """A request body with a file of one of these media types."""
    return {"requestBody": {"required": True, "content": dict.fromkeys(types, _BINARY)}}


def takes_form(pictures: Mapping[str, str], fields: str) -> dict[str, Any]:
    """A request body with a form.

    Args:
        pictures: description of every file; the first one is required.
        fields: the model that describes everything else.
    """
    sent = {
        name: {"type": "string", "format": "binary", "description": what}
        for name, what in pictures.items()
    }
    form = {
        "allOf": [
            {"type": "object", "properties": sent, "required": list(sent)[:1]},
            {"$ref": f"#/components/schemas/{fields}"},
        ]
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document of an application, with the schemas that only events have."""
    _, found = models_json_schema(
        [(JobEvents, "serialization"), (Changed, "serialization")], ref_template=_REF
    )
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = dict(sorted({**found["$defs"], **schemas}.items()))
    return document
