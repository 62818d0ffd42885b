"""What is sent and answered, as /openapi.json tells programs where Python's types do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from asymflow.io.images import Format
from asymflow.server.problems import ProblemDetail
from asymflow.server.schemas import JobRequest, Slot


class Failure(BaseModel):
    """What every failed call is answered."""

    error: ProblemDetail


class Step(BaseModel):
    """What a step of a picture was, and the milliseconds it took; `t` falls from 1, noise, to 0."""

    t: float
    tier: str
    shrink: int
    guided: bool
    skipped: bool
    ms: float


class Picture(BaseModel):
    """A finished picture; `created` in seconds since 1970."""

    id: str
    job: str
    slot: int
    created: float
    label: str | None
    prompt: str
    negative_prompt: str
    style: str | None
    width: int
    height: int
    seed: int
    quality: str
    guidance_scale: float
    plan: str
    seconds: float
    forwards: int
    steps: list[Step]
    url: str
    thumbnail: str
    deleted: bool


class Job(BaseModel):
    """A job; `position` counts the jobs before it while it waits."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    created: float
    started: float | None
    finished: float | None
    request: JobRequest
    position: int | None
    eta_seconds: float | None
    progress: float
    pictures: list[Picture]
    slots: list[Slot]
    error: ProblemDetail | None
    seconds: float | None
    forwards: int | None


class Jobs(BaseModel):
    """The newest first."""

    jobs: list[Job]


class Gallery(BaseModel):
    """The newest first; `next` goes into `before` for more."""

    pictures: list[Picture]
    next: str | None


class Upload(BaseModel):
    """A picture that was sent; `id` goes into `image` or `mask` of a job."""

    id: str
    width: int
    height: int
    url: str


class Restored(BaseModel):
    """The request that makes a picture again, and what this server cannot repeat of it."""

    request: JobRequest
    exact_model: bool
    differs: list[Literal["model", "plan", "image", "mask", "size"]]


class Image(BaseModel):
    """A picture as base64, or where it can be fetched for an hour."""

    b64_json: str | None = None
    url: str | None = None


class Images(BaseModel):
    """What OpenAI's calls answer; `asymflow` tells what was used."""

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


_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

FAILURES: dict[int | str, dict[str, Any]] = {
    "default": {"model": Failure, "description": "Why it did not work."}
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events, as they happen.",
        "content": {"text/event-stream": {"itemSchema": _EVENT}},
    },
}
IMAGES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Images,
        "description": "The pictures; with `stream`, events as they happen.",
        "content": EVENTS[200]["content"],
    },
}
NOTHING: dict[int | str, dict[str, Any]] = {204: {"description": "There is nothing to tell."}}


def answers(model: object, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """JSON of a shape."""
    return {status: {"model": model}}


def files(*types: str) -> dict[int | str, dict[str, Any]]:
    """A file of one of these media types."""
    return {200: {"description": "The file.", "content": dict.fromkeys(types, _BINARY)}}


def takes(*types: str) -> dict[str, Any]:
    """The body is a file of one of these media types."""
    return {"requestBody": {"required": True, "content": dict.fromkeys(types, _BINARY)}}


def takes_form(pictures: Mapping[str, str], fields: str) -> dict[str, Any]:
    """The body is a form.

    Args:
        pictures: what every file is; the first one is needed.
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
