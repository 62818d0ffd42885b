"""Request and response schemas for /openapi.json, where Python's types do not suffice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from asymflow.io.images import Format
from asymflow.server.problems import ProblemDetail
from asymflow.server.schemas import JobRequest, Slot


class Failure(BaseModel):
    """The response to a failed call."""

    error: ProblemDetail


class Step(BaseModel):
    """A step of a picture, with its time in milliseconds; `t` falls from 1, noise, to 0."""

    t: float
    tier: str
    shrink: int
    guided: bool
    ms: float


class Picture(BaseModel):
    """A finished picture; `created` in seconds since 1970.

    `label` has the choices of its prompt, and `class_label` the number of its class.
    """

    id: str
    job: str
    slot: int
    created: float
    model: str | None
    label: str | None
    class_label: int | None
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
    """A job; `position` counts the jobs before it while it waits.

    `loading` says that its model is being loaded.
    """

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    created: float
    started: float | None
    finished: float | None
    request: JobRequest
    position: int | None
    loading: bool
    eta_seconds: float | None
    progress: float
    pictures: list[Picture]
    slots: list[Slot]
    error: ProblemDetail | None
    seconds: float | None
    forwards: int | None


class ServedModel(BaseModel):
    """A model of the server; its title and what it asks for are known since it was loaded first."""

    id: str
    title: str
    asks: Literal["prompt", "class", "nothing"] | None
    state: Literal["away", "loading", "ready", "leaving", "failed"]
    loaded: bool
    measured: bool
    failure: str | None


class ServedModels(BaseModel):
    """The default first."""

    models: list[ServedModel]


class PixelSize(BaseModel):
    """In pixels."""

    width: int
    height: int


class CardSizes(BaseModel):
    """The sizes of a model; sides are multiples of `multiple`, unless only `native` is possible."""

    native: PixelSize
    offered: list[PixelSize]
    smallest: int
    largest: int
    multiple: int
    trained: list[int]
    fixed: bool


class ModelCard(BaseModel):
    """What a model is asked with, and what it can make."""

    title: str
    draws: str
    flat: bool
    asks: Literal["prompt", "class", "nothing"]
    classes: list[str]
    negative: bool
    image: bool
    inpaint: bool
    references: bool
    alpha: bool
    guided: bool
    guidance: float
    sizes: CardSizes
    notes: list[str]
    licence: str | None
    source: str | None


class Measurement(BaseModel):
    """A measurement of a model, and the names of the plans that it has made so far."""

    state: Literal["running", "done", "failed", "cancelled"]
    size: str
    progress: float
    eta_seconds: float | None
    plans: list[str]
    error: str | None


class Info(BaseModel):
    """What a model of the server can do, and the limits of the server."""

    version: str
    model: dict[str, str]
    models: list[ServedModel]
    card: ModelCard
    styles: list[dict[str, str | None]]
    sizes: list[dict[str, str | int]]
    qualities: list[dict[str, str | int | float]]
    measured: bool
    can_measure: bool
    measurement: Measurement | None
    default: dict[str, str | float]
    limits: dict[str, int]
    ideas: list[str]
    has_token: bool


class Jobs(BaseModel):
    """The newest first."""

    jobs: list[Job]


class Gallery(BaseModel):
    """The newest first; pass `next` as `before` for the next page."""

    pictures: list[Picture]
    next: str | None


class Upload(BaseModel):
    """An uploaded picture; pass `id` as `image` or `mask` of a job."""

    id: str
    width: int
    height: int
    url: str


class Restored(BaseModel):
    """The request that reproduces a picture, and the parts that this server cannot reproduce."""

    request: JobRequest
    exact_model: bool
    differs: list[Literal["model", "plan", "image", "mask", "size"]]


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
