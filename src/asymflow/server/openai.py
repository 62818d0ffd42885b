"""The Images API of OpenAI, `/v1`: clients made for it work unchanged.

Extra request fields (`seed`, `style`, `negative_prompt`, `plan`, `guidance_scale`, `strength`,
`reference`) give access to our own parameters, and responses have the values used in `asymflow`.
When a client disconnects, its pictures are cancelled.

`model` chooses among the models of the server; names of OpenAI's models mean the first one. For a
model of classes the prompt is the name or the number of a class, and a model that is asked with
nothing ignores it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar, TypeVarTuple

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.datastructures import UploadFile
from starlette.types import Receive, Scope, Send

from asymflow.core.card import Card
from asymflow.core.errors import InputError
from asymflow.generation import styles
from asymflow.generation.spec import MAX_PROMPT, cut_text
from asymflow.server import media, openapi_schema, requests, streams, views, waiting
from asymflow.server.asked import by_card, quality
from asymflow.server.clients import Client
from asymflow.server.jobs import Job, Look
from asymflow.server.lineup import About, Served
from asymflow.server.openai_schema import MOOD, PLANS, QUALITIES, WITHOUT_EFFECT, ImageRequest
from asymflow.server.openai_sizes import check_sizes, sizes, usage
from asymflow.server.problems import ApiError
from asymflow.server.schemas import JobRequest
from asymflow.server.security import RESULTS
from asymflow.server.state import Calls, Here, Studio, about_of, caller_of
from asymflow.server.store import PictureRow, Store

router = APIRouter(prefix="/v1", tags=["openai"])

T = TypeVar("T")
Args = TypeVarTuple("Args")

_THEIRS = ("gpt-image", "chatgpt-image", "dall-e")
"""Names of OpenAI's models begin so."""
_IMAGE = ("image", "image[]")
_MASK = ("mask", "mask[]")
_ALONE = {
    "image": "Send the picture that is to be changed alone, or put them together into one picture "
    "first.",
    "mask": "Put them together into one mask first.",
}


@dataclass(frozen=True, slots=True)
class _Order:
    """A parsed call.

    Attributes:
        size: (height, width) of the files.
        drawn: (height, width) that the model generates.
        served: the model.
        transparent: whether files keep transparency.
        call: "image_generation" or "image_edit", as in the names of events.
        by_url: whether pictures are returned as URLs.
        cut: characters of fields that were too long: "sent" and "taken".
        mask: the part of a mask to repaint, "transparent" or "white"; None without one.
        ignored: names of unknown fields.
    """

    served: Served
    about: About
    request: ImageRequest
    quality: str
    size: tuple[int, int]
    drawn: tuple[int, int]
    transparent: bool
    tokens: Mapping[str, Any]
    call: str
    base: str
    by_url: bool
    cut: Mapping[str, Mapping[str, int]]
    mask: str | None
    ignored: Sequence[str]

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that report deviations from the request."""
        headers: dict[str, str] = {}
        if self.ignored:
            names = (re.sub(r"[^\w.-]", "?", name, flags=re.ASCII)[:40] for name in self.ignored)
            headers["X-Asymflow-Ignored"] = ", ".join(list(names)[:20])
        if self.cut:
            headers["X-Asymflow-Cut"] = ", ".join(self.cut)
        if self.mask == "white":
            headers["X-Asymflow-Mask"] = self.mask
        return headers

    @property
    def settings(self) -> dict[str, str]:
        """Effective values of the settings that all pictures share."""
        return {
            "background": "transparent" if self.transparent else "opaque",
            "output_format": self.request.output_format,
            "quality": QUALITIES.get(self.quality, "medium"),
            "size": f"{self.size[1]}x{self.size[0]}",
        }


@router.get("/models")
def list_models(studio: Here) -> dict[str, Any]:
    """The models of this server, the default first."""
    models = studio.manager.models.values()
    return {"object": "list", "data": [_model_json(served) for served in models]}


@router.get("/models/{id}")
def get_model(studio: Here, id: str) -> dict[str, Any]:
    """A model by its id."""
    found = studio.manager.models.get(id)
    if found is None:
        raise _no_model(studio, id)
    return _model_json(found)


@router.post("/images/generations", responses=openapi_schema.IMAGES)
async def generate(
    call: Request,
    studio: Here,
    client: Calls,
    request: ImageRequest,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Make pictures from words, or of a class."""
    served, about = await about_of(studio, _id(studio, request.model))
    order = _order(studio, call, served, about, request, "image_generation", None)
    job = await run_in_threadpool(_submit, studio, order, client, idempotency_key)
    return await _answer(call, studio, order, job)


@router.post(
    "/images/edits",
    responses=openapi_schema.IMAGES,
    openapi_extra=openapi_schema.takes_form(
        {
            "image": "The picture to start from.",
            "mask": "Of the same size, transparent where the picture is made anew. Without any "
            "alpha channel: white there, and black elsewhere.",
        },
        fields="ImageRequest",
    ),
)
async def edit(
    call: Request,
    studio: Here,
    client: Calls,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Make pictures from a picture, all of it or where a mask is transparent."""
    async with _form(call) as (files, texts):
        image = await _read(studio, _one(files, _IMAGE), "image")
        mask = None
        if any(name in _MASK for name, _ in files):
            mask = await _read(studio, _one(files, _MASK), "mask")
    if mask is None and any(texts.get(name) for name in _MASK):
        raise ApiError(
            400,
            "`mask` was sent as text, and a mask is a file: nothing was made. Send its bytes.",
            param="mask",
            code="invalid_value",
        )
    request = ImageRequest.model_validate(texts)
    served, about = await about_of(studio, _id(studio, request.model))
    for possible, field in ((about.card.image, "image"), (about.card.inpaint, "mask")):
        if not possible and (field == "image" or mask is not None):
            doing = "begin with a picture" if field == "image" else "repaint a part of a picture"
            message = f"{about.card.title} cannot {doing}."
            raise ApiError(400, message, param=field, code="invalid_value")
    caller = caller_of(call)
    await run_in_threadpool(studio.manager.check_disk)
    pixels = studio.settings.upload_pixels
    png, width, height = await studio.workshop.do(caller, 1, media.receive, image, pixels)
    upload = await run_in_threadpool(studio.store.add_upload, png, width, height, client.owner)
    mask_id, shown = None, None
    if mask is not None:
        png, *size, white = await studio.workshop.do(caller, 1, _received_mask, mask, pixels)
        check_sizes((width, height), (size[0], size[1]))
        kept = await run_in_threadpool(studio.store.add_upload, png, size[0], size[1], client.owner)
        mask_id, shown = kept.id, "white" if white else "transparent"
    strange = [name for name, _ in files if name not in (*_IMAGE, *_MASK)]
    given = (height, width)
    order = _order(studio, call, served, about, request, "image_edit", given, shown, strange)
    sent = hashlib.sha256(image + b"\0" + (mask or b"")).hexdigest()
    job = await run_in_threadpool(
        _submit, studio, order, client, idempotency_key, upload.id, mask_id, sent
    )
    return await _answer(call, studio, order, job)


@router.get(
    "/images/results/{name}",
    response_class=FileResponse,
    responses=openapi_schema.files(*media.TYPES.values()),
)
def result(studio: Here, name: str) -> FileResponse:
    """A picture that was returned as a URL; it is kept for an hour."""
    path = studio.store.result(name)
    if path is None:
        raise ApiError(404, "There is no such picture any more. Make it again.", code="not_found")
    return FileResponse(path)


def _model_json(served: Served) -> dict[str, Any]:
    return {
        "id": served.id,
        "object": "model",
        "created": 1_764_000_000,
        "owned_by": "asymflow",
        "asymflow": {
            "title": served.id if served.about is None else served.about.card.title,
            "loaded": served.model is not None,
        },
    }


def _id(studio: Studio, wanted: str | None) -> str | None:
    """The id of the model that a call names; None for the first one.

    Clients that know OpenAI's models only name one of those, and a server of a single model is not
    particular.

    Raises:
        ApiError: there is no such model.
    """
    models = studio.manager.models
    if wanted is None or wanted in models:
        return wanted
    if len(models) == 1 or wanted.startswith(_THEIRS):
        return None
    raise _no_model(studio, wanted)


def _no_model(studio: Studio, id: str) -> ApiError:
    known = ", ".join(map(repr, studio.manager.models))
    return ApiError(
        404,
        f"There is no model {id[:64]!r} here: there is {known}.",
        param="model",
        code="model_not_found",
    )


@asynccontextmanager
async def _form(
    call: Request,
) -> AsyncGenerator[tuple[list[tuple[str, UploadFile]], dict[str, str]]]:
    """The files and the texts of a form; empty file fields are ignored."""
    try:
        form = await call.form(max_files=18, max_fields=64)
    except UnicodeError as error:
        raise ApiError(
            400, "The form is not in the charset that it names. Send it as UTF-8.", code="no_text"
        ) from error
    items = form.multi_items()
    files = [(name, each) for name, each in items if isinstance(each, UploadFile)]
    chosen = [(name, file) for name, file in files if file.filename or file.size]
    try:
        yield chosen, {name: each for name, each in items if isinstance(each, str)}
    finally:
        await form.close()


def _one(files: Sequence[tuple[str, UploadFile]], names: Sequence[str]) -> UploadFile:
    """The file of a form in a field of one of these names."""
    found = [file for name, file in files if name in names]
    if len(found) == 1:
        return found[0]
    field = names[0]
    if not found:
        message = f"No file was sent as `{field}`. Send the picture to start from in that field."
    else:
        message = (
            f"{len(found)} files were sent as `{field}`, and this model takes one: none of them "
            f"was used. {_ALONE[field]}"
        )
    raise ApiError(400, message, param=field, code="invalid_value")


async def _read(studio: Studio, file: UploadFile, field: str) -> bytes:
    data = await file.read(studio.settings.upload_bytes + 1)
    if len(data) > studio.settings.upload_bytes:
        raise ApiError(
            413,
            f"A picture has more than the {studio.settings.upload_bytes} bytes that are taken. "
            "Send a smaller one.",
            param=field,
            code="too_long",
        )
    return data


def _received_mask(data: bytes, max_pixels: int) -> tuple[bytes, int, int, bool]:
    try:
        return media.receive_mask(data, max_pixels)
    except InputError as error:
        raise ApiError(400, str(error), param="mask", code="invalid_mask") from error


def _order(
    studio: Studio,
    call: Request,
    served: Served,
    about: About,
    request: ImageRequest,
    kind: str,
    given: tuple[int, int] | None,
    mask: str | None = None,
    strange: Sequence[str] = (),
) -> _Order:
    if request.plan is None and request.quality not in PLANS:
        raise ApiError(
            400,
            f"Unknown quality {request.quality[:40]!r}. Choose one of {', '.join(PLANS)}.",
            param="quality",
            code="invalid_value",
        )
    if request.background == "transparent" and request.output_format == "jpeg":
        raise ApiError(
            400,
            "JPEG knows no transparency. Request png or webp, or an opaque background.",
            param="background",
            code="invalid_value",
        )
    replicated = studio.settings.replicated
    by_url = request.by_url(usual=not replicated)
    if by_url and replicated:
        raise ApiError(
            400,
            "There are several servers here, and a URL may lead to another one. Request b64_json.",
            param="response_format",
            code="invalid_value",
        )
    texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    long = {name: text for name, text in texts.items() if len(text) > MAX_PROMPT}
    short = {name: cut_text(text) for name, text in long.items()}
    request = request.model_copy(update=short)
    cut = {
        name: {"sent": len(text), "taken": len(short[name])}
        for name, text in long.items()
        if len(" ".join(text.split())) > MAX_PROMPT
    }
    size, drawn = sizes(about.card, request.size, given)
    if request.background == "transparent" and not about.card.alpha:
        raise ApiError(
            400,
            f"{about.card.title} draws no transparency. Request an opaque background, or auto.",
            param="background",
            code="invalid_value",
        )
    transparent = about.card.alpha and (
        request.background == "transparent"
        or (request.background == "auto" and request.output_format != "jpeg")
    )
    unread = {"prompt"} if about.card.asks == "nothing" else set[str]()
    return _Order(
        served=served,
        about=about,
        request=request,
        quality=_plan(about, request),
        size=size,
        drawn=drawn,
        transparent=transparent,
        tokens=usage(served, about.card, request, drawn, given is not None),
        call=kind,
        base=(studio.settings.public_url or str(call.base_url)).rstrip("/"),
        by_url=by_url,
        cut=cut,
        mask=mask,
        ignored=sorted({*(request.model_extra or {}), *strange, *unread} - WITHOUT_EFFECT),
    )


def _plan(about: About, request: ImageRequest) -> str:
    """The plan of a quality: the one of that name, or of those that there are the nearest."""
    if request.plan is not None:
        return quality(about, request.plan)
    wanted = PLANS[request.quality]
    if wanted in about.plans or about.embedded:
        return wanted
    if request.quality == "low":
        return next(iter(about.plans))
    return about.usual


def _submit(
    studio: Studio,
    order: _Order,
    client: Client,
    key: str | None,
    image: str | None = None,
    mask: str | None = None,
    sent: str = "",
) -> Job:
    request = order.request
    card = order.about.card
    style = None if request.style in (None, *MOOD) else request.style
    known = styles.style_of(card, style or "")
    job_request = JobRequest(
        model=order.served.id,
        prompt=request.prompt if card.asks == "prompt" else "",
        label=_class(card, request.prompt) if card.asks == "class" else None,
        negative_prompt=request.negative_prompt,
        style=style if known is None else known.id,
        width=order.drawn[1],
        height=order.drawn[0],
        quality=order.quality,
        seed=request.seed,
        guidance_scale=request.guidance_scale,
        image=image,
        mask=mask,
        strength=request.strength if image is not None else None,
        fit=request.fit,
        reference=request.reference,
    )
    model = order.served.model
    steps = card.steps
    if model is not None:
        steps = len(requests.plan(model, by_card(order.about, job_request)).steps)
    return studio.manager.submit(
        job_request,
        client=client,
        kind="api",
        key=key,
        keep=_partial_steps(steps, request.partial_images) if request.stream else frozenset(),
        literal=request.n,
        sent=sent,
    )


def _class(card: Card, prompt: str) -> int:
    """The class that a prompt names.

    Raises:
        ApiError: it is none.
    """
    try:
        return card.label_of(prompt)
    except InputError as error:
        raise ApiError(400, str(error), param="prompt", code="invalid_value") from error


def _partial_steps(steps: int, count: int) -> frozenset[int]:
    """Steps after which a partial picture is sent: evenly spread, and never the last one."""
    found = ((i + 1) * steps // (count + 1) - 1 for i in range(count))
    return frozenset(step for step in found if 0 <= step < steps - 1)


async def _answer(call: Request, studio: Studio, order: _Order, job: Job) -> Response:
    if order.request.stream:
        return _Stream(call, studio, order, job)
    await waiting.over(call, studio.manager, job)
    if job.state != "done":
        raise waiting.failure(job)
    rows = [job.pictures[slot] for slot in range(len(job.slots))]
    data = [await _made(call, studio, order, _item, studio.store, order, row) for row in rows]
    body = {
        "created": int(time.time()),
        "data": data,
        **order.settings,
        "usage": order.tokens,
        "asymflow": _told(order, rows),
    }
    return JSONResponse(body, headers=order.headers)


async def _made(
    call: Request,
    studio: Studio,
    order: _Order,
    function: Callable[[*Args], T],
    *args: *Args,
) -> T:
    """Convert a finished picture to a file: at once, or in the workshop if it is enlarged."""
    if order.size == order.drawn:
        return await run_in_threadpool(function, *args)
    cost = order.size[0] * order.size[1] / 1e6
    return await studio.workshop.do(caller_of(call), cost, function, *args, patient=True)


class _Stream(StreamingResponse):
    """A stream of a job's events; at its end the job is left, even before the first event."""

    def __init__(self, call: Request, studio: Studio, order: _Order, job: Job) -> None:
        headers = {**streams.HEADERS, **order.headers}
        events = _events(call, studio, order, job)
        super().__init__(events, media_type=streams.TYPE, headers=headers)
        self._leave = partial(studio.manager.leave, job)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _events(call: Request, studio: Studio, order: _Order, job: Job) -> AsyncGenerator[bytes]:
    manager = studio.manager
    partials = 0
    try:
        async for event in streams.follow(manager, job, -1):
            if event is None:
                yield streams.KEEP_ALIVE
            elif isinstance(event.data, views.Stepped):
                look = manager.kept(job, event.data.slot, event.data.step)
                if look is not None:
                    data = await _made(call, studio, order, _partial, order, job, look)
                    yield _message(order, "partial_image", data | {"partial_image_index": partials})
                    partials += 1
            elif isinstance(event.data, views.Finished):
                row = job.pictures[event.data.slot]
                data = await _made(call, studio, order, _encoded, studio.store, order, row)
                yield _message(
                    order,
                    "completed",
                    {
                        **_common(order, data),
                        "usage": order.tokens,
                        "asymflow": _told(order, [row]),
                    },
                )
        if job.state != "done":
            raise waiting.failure(job)
    except ApiError as refusal:
        yield streams.message("error", {"error": refusal.problem.as_json()})


def _message(order: _Order, name: str, data: Mapping[str, Any]) -> bytes:
    kind = f"{order.call}.{name}"
    return streams.message(kind, {"type": kind, **data})


def _common(order: _Order, data: bytes) -> dict[str, Any]:
    return {
        "b64_json": base64.b64encode(data).decode(),
        "created_at": int(time.time()),
        **order.settings,
    }


def _partial(order: _Order, job: Job, look: Look) -> dict[str, Any]:
    """A partial picture, also marked as AI-generated."""
    size = None if order.size == order.drawn else order.size
    data = media.marked(
        look(),
        order.request.output_format,
        composite=job.request.mask is not None,
        background=None if order.transparent else (1.0, 1.0, 1.0),
        size=size,
        quality=_compression(order.request),
    )
    return _common(order, data)


def _item(store: Store, order: _Order, row: PictureRow) -> dict[str, Any]:
    data = _encoded(store, order, row)
    if not order.by_url:
        return {"b64_json": base64.b64encode(data).decode()}
    name = store.add_result(data, media.SUFFIXES[order.request.output_format])
    return {"url": f"{order.base}{RESULTS}{name}"}


def _encoded(store: Store, order: _Order, row: PictureRow) -> bytes:
    path = store.picture_path(row.id)
    if order.request.output_format == "png" and order.transparent and order.size == order.drawn:
        return media.original(path)  # what it would be converted to
    return media.converted(
        path,
        order.request.output_format,
        background=None if order.transparent else (1.0, 1.0, 1.0),
        size=None if order.size == order.drawn else order.size,
        quality=_compression(order.request),
    )


def _compression(request: ImageRequest) -> int | None:
    """The quality of lossy formats; None for the best."""
    return None if request.output_compression == 100 else request.output_compression


def _told(order: _Order, rows: list[PictureRow]) -> dict[str, Any]:
    """The values used, to reproduce the pictures."""
    facts = [row.facts for row in rows]
    return {
        "model": order.served.id,
        "plan": order.quality,
        "drawn_size": f"{order.drawn[1]}x{order.drawn[0]}",
        "style": facts[0].style,
        "guidance_scale": facts[0].guidance_scale,
        **({"mask": order.mask} if order.mask else {}),
        **({"cut": order.cut} if order.cut else {}),
        "pictures": [
            {
                "id": row.id,
                "seed": row.facts.seed,
                "forwards": row.facts.forwards,
                "seconds": row.facts.seconds,
            }
            for row in rows
        ],
    }
