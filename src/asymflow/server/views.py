"""The studio's API as it is answered: models of responses and of events.

They are the only description of it: endpoints return them, /openapi.json is made from them, and
from that the types of the page (`web/src/lib/contract.ts`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from asymflow.server.problems import ProblemDetail
from asymflow.server.schemas import CompletedRequest, Slot

Asks = Literal["prompt", "class", "nothing"]
State = Literal["queued", "running", "done", "failed", "cancelled"]
Loading = Literal["away", "loading", "ready", "leaving", "failed"]
"""Whether a model is loaded. One that leaves finishes its pictures, and takes no more."""


class View(BaseModel):
    """Base of responses, which always have all of their fields."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class Step(View):
    """A step of a picture, with its time in milliseconds; `t` falls from 1, noise, to 0."""

    t: float
    tier: str
    shrink: int
    guided: bool
    ms: float


class Facts(View):
    """The content and settings of a picture, as they are stored.

    `label` has the choices of its prompt, and `class_label` the number of its class. `drawn` is
    what the model was asked with, where that is not the prompt. `reference` is the upload that it
    was drawn from, or "none"; null for drawings of the library, and for models without references.
    Pictures of earlier versions may lack what has a default here.
    """

    label: str | None = None
    prompt: str
    drawn: str | None = None
    negative_prompt: str = ""
    style: str | None = None
    width: int
    height: int
    seed: int
    quality: str = ""
    guidance_scale: float = 1.0
    plan: str = ""
    class_label: int | None = None
    model: str | None = None
    reference: str | None = None
    seconds: float
    forwards: int
    steps: tuple[Step, ...] = ()


class Picture(Facts):
    """A finished picture; `created` in seconds since 1970."""

    id: str
    job: str
    slot: int
    created: float
    url: str
    thumbnail: str
    favourite: bool
    deleted: bool


class Job(View):
    """A job; `position` counts the jobs before it while it waits.

    `loading` says that its model is being loaded.
    """

    id: str
    state: State
    created: float
    started: float | None
    finished: float | None
    request: CompletedRequest
    position: int | None
    loading: bool
    eta_seconds: float | None
    progress: float
    pictures: tuple[Picture, ...]
    slots: tuple[Slot, ...]
    error: ProblemDetail | None
    seconds: float | None
    forwards: int | None


class ServedModel(View):
    """A model of the server; its title and what it asks for are known since it was loaded first."""

    id: str
    title: str
    asks: Asks | None
    state: Loading
    loaded: bool
    measured: bool
    failure: str | None


class ServedModels(View):
    """The default first."""

    models: list[ServedModel]


class PixelSize(View):
    """In pixels."""

    width: int
    height: int


class Sizes(View):
    """The sizes of a model; sides are multiples of `multiple`, unless only `native` is possible.

    `trained` has the smallest and the largest side that it was trained on.
    """

    native: PixelSize
    offered: list[PixelSize]
    smallest: int
    largest: int
    multiple: int
    trained: tuple[int, int]
    fixed: bool


class Card(View):
    """What a model is asked with, and what it can make; `classes` are named by number.

    `draws` says in a sentence what it draws, and `flat` that it draws flat shapes.
    """

    title: str
    draws: str
    flat: bool
    asks: Asks
    classes: list[str]
    negative: bool
    image: bool
    inpaint: bool
    references: bool
    alpha: bool
    guided: bool
    guidance: float
    sizes: Sizes
    notes: list[str]
    licence: str | None
    source: str | None


class Measurement(View):
    """A measurement of a model, and the names of the plans that it has made so far."""

    state: Literal["running", "done", "failed", "cancelled"]
    size: str
    progress: float
    eta_seconds: float | None
    plans: list[str]
    error: str | None


class ModelName(View):
    """A model: its id in requests, the name of its adapter, and the hash of its weights."""

    id: str
    name: str
    hash: str


class Style(View):
    """A style; one that consists of words added to the prompt has no thumbnail."""

    id: str
    name: str
    thumbnail: str | None


class Size(PixelSize):
    """A size to choose."""

    id: str
    label: Literal["square", "landscape", "portrait"]


class Quality(View):
    """A plan to choose, with the estimated seconds of a picture of the native size."""

    id: str
    steps: int
    forwards: int
    seconds: float


class Default(View):
    """What is used for those who do not choose."""

    quality: str
    guidance_scale: float
    size: str


class Limits(View):
    """The limits of the server, in characters, pictures, bytes, pixels and seconds.

    `pictures` are those of one combination of a prompt, and `file_side` is that of a downloaded
    file. A deleted picture can be restored for `undo_seconds`.
    """

    prompt_characters: int
    pictures: int
    combinations: int
    upload_bytes: int
    upload_pixels: int
    file_side: int
    undo_seconds: float


class Info(View):
    """What a model of the server can do, and the limits of the server.

    `measured` says whether the model has plans besides the one of its family, and `measurement`
    is the one that runs, or the last one. `user` is the name of the token of the call, empty for
    the operator and where no token is needed. `idea_names` has what `ideas` are called in other
    languages, by language and idea; an idea without a name there is asked for as it is.
    """

    version: str
    model: ModelName
    models: list[ServedModel]
    card: Card
    styles: list[Style]
    sizes: list[Size]
    qualities: list[Quality]
    measured: bool
    can_measure: bool
    measurement: Measurement | None
    default: Default
    limits: Limits
    ideas: list[str]
    idea_names: dict[str, dict[str, str]]
    has_token: bool
    user: str


class Jobs(View):
    """The newest first."""

    jobs: list[Job]


class Gallery(View):
    """The newest first; pass `next` as `before` for the next page."""

    pictures: list[Picture]
    next: str | None


class ChangedPictures(View):
    """Pictures as they are now, and the ids of those that are not there."""

    pictures: list[Picture]
    missing: list[str]


class Emptied(View):
    """How many pictures were deleted for good."""

    deleted: int


class Upload(View):
    """An uploaded picture; pass `id` as `image`, `mask` or `reference` of a job."""

    id: str
    width: int
    height: int
    url: str


Differs = Literal["model", "plan", "image", "mask", "reference", "size"]


class Restored(View):
    """The request that reproduces a picture, and the parts that this server cannot reproduce."""

    request: CompletedRequest
    exact_model: bool
    differs: list[Differs]


class Said(View):
    """The data of an event."""

    event: ClassVar[str]


class Queued(Said):
    """A job waits; `position` counts the jobs before it."""

    event: ClassVar[str] = "queued"
    position: int | None
    eta_seconds: float | None


class Started(Said):
    """The first picture of a job is being made."""

    event: ClassVar[str] = "started"


class Stepped(Step, Said):
    """A step of a picture is done; `forwards` counts the network passes of this step.

    `preview` is an address or, if that was asked for, a data URL or null.
    """

    event: ClassVar[str] = "step"
    slot: int
    step: int
    steps: int
    forwards: int
    progress: float
    eta_seconds: float | None
    preview: str | None


class Finished(Said):
    """A picture is finished."""

    event: ClassVar[str] = "picture"
    slot: int
    picture: Picture


class Done(Said):
    """All pictures of a job are finished, in so many seconds and network passes."""

    event: ClassVar[str] = "done"
    seconds: float
    forwards: int


class Failed(Said):
    """A job has failed."""

    event: ClassVar[str] = "failed"
    error: ProblemDetail


class Cancelled(Said):
    """A job was cancelled."""

    event: ClassVar[str] = "cancelled"


class Changed(Said):
    """The state of a job has changed."""

    event: ClassVar[str] = "job"
    job: Job


class JobEvents(View):
    """The data of events of a job by their names; the last three end it."""

    queued: Queued
    started: Started
    step: Stepped
    picture: Finished
    done: Done
    failed: Failed
    cancelled: Cancelled


FINAL = frozenset({Done.event, Failed.event, Cancelled.event})
