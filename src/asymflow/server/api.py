"""The studio's own API, `/api`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse

from asymflow._version import __version__
from asymflow.core.adapter import UsesReferences, unwrapped
from asymflow.core.card import Card, Style
from asymflow.core.types import Plan
from asymflow.generation import pipeline, styles
from asymflow.generation.metadata import Record, Reference
from asymflow.generation.pipeline import Model
from asymflow.generation.spec import MAX_PROMPT
from asymflow.io import images
from asymflow.io.files import slug
from asymflow.planning.plan_files import plan_hash
from asymflow.server import measuring, media, openapi_schema, requests, streams, views
from asymflow.server.clients import OPERATOR, Client
from asymflow.server.jobs import Job, picture_view
from asymflow.server.lineup import About, Served
from asymflow.server.measuring import Measuring
from asymflow.server.openai_sizes import size_of
from asymflow.server.problems import ApiError
from asymflow.server.prompt_matrix import escaped
from asymflow.server.schemas import CompletedRequest, Favoured, JobRequest, PictureIds
from asymflow.server.security import IMAGES
from asymflow.server.settings import COMBINATIONS, LARGEST, PICTURES, STATIC
from asymflow.server.state import (
    Body,
    Calling,
    Calls,
    Here,
    Operator,
    Studio,
    about_of,
    nothing,
    picture_of,
)
from asymflow.server.store import PictureRow, UploadRow
from asymflow.server.store import Query as Wanted
from asymflow.server.workshop import Caller

router = APIRouter(prefix="/api", tags=["studio"])

_IDEAS = 12
"""Ideas for a model that brings none of its own."""
_QUICK = 256 * 256
"""Pixels up to which a file is converted without queueing, so that thumbnails are fast."""

LastEvent = Annotated[int | None, Header(alias="Last-Event-ID")]
Limit = Annotated[int, Query(ge=1, le=200)]
Switch = Annotated[bool, Query()]


def _wanted(
    q: Annotated[str, Query(max_length=MAX_PROMPT)] = "",
    favourites: Switch = False,
    trash: Switch = False,
) -> Wanted:
    return Wanted(q, favourites, trash)


WantedPictures = Annotated[Wanted, Depends(_wanted)]


@router.get("/info")
async def info(studio: Here, client: Calls, model: str | None = None) -> views.Info:
    """What a model of this server can do, and how long it takes; by default the first one."""
    served, about = await about_of(studio, model)
    return await run_in_threadpool(_info, studio, client, served, about)


def _info(studio: Studio, client: Client, served: Served, about: About) -> views.Info:
    card = about.card
    size = card.sizes.native
    return views.Info(
        version=__version__,
        model=views.ModelName(id=served.id, name=about.name, hash=about.weights),
        models=[_model(each) for each in studio.manager.models.values()],
        card=_card(card),
        styles=[
            views.Style(id=each.id, name=each.name, thumbnail=_thumbnail(each))
            for each in styles.styles_of(card)
        ],
        sizes=[
            views.Size(id=f"{w}x{h}", label=_shape((h, w)), width=w, height=h)
            for h, w in card.sizes.offered()
        ],
        qualities=[
            views.Quality(
                id=name,
                steps=len(plan.steps),
                forwards=pipeline.nfe(card, plan),
                seconds=round(
                    requests.work(plan, size, card.guidance) * served.seconds_per_work, 3
                ),
            )
            for name, plan in about.plans.items()
        ],
        measured=about.measured,
        can_measure=client.owner == OPERATOR and measuring.connected() is not None,
        measurement=None if served.measuring is None else served.measuring.view(),
        default=views.Default(
            quality=about.usual, guidance_scale=card.guidance, size=f"{size[1]}x{size[0]}"
        ),
        limits=views.Limits(
            prompt_characters=MAX_PROMPT,
            pictures=PICTURES,
            combinations=COMBINATIONS,
            upload_bytes=studio.settings.upload_bytes,
            upload_pixels=studio.settings.upload_pixels,
            file_side=LARGEST,
            undo_seconds=studio.settings.undo_seconds,
        ),
        ideas=_ideas(about),
        idea_names={language: dict(own) for language, own in card.idea_names.items()},
        has_token=studio.settings.token is not None or studio.tokens.required,
        user=client.owner,
    )


def _card(card: Card) -> views.Card:
    sizes = card.sizes
    return views.Card(
        title=card.title,
        draws=card.draws,
        flat=card.flat,
        asks=card.asks,
        classes=list(card.classes),
        negative=card.negative,
        image=card.image,
        inpaint=card.inpaint,
        references=card.references,
        alpha=card.alpha,
        guided=card.guided,
        guidance=card.guidance,
        sizes=views.Sizes(
            native=_size(sizes.native),
            offered=[_size(each) for each in sizes.offered()],
            smallest=sizes.smallest,
            largest=sizes.largest,
            multiple=sizes.multiple,
            trained=sizes.trained or (min(sizes.native), max(sizes.native)),
            fixed=sizes.fixed,
        ),
        notes=list(card.notes),
        licence=card.licence,
        source=card.source,
    )


def _size(size: tuple[int, int]) -> views.PixelSize:
    return views.PixelSize(width=size[1], height=size[0])


def _shape(size: tuple[int, int]) -> Literal["square", "landscape", "portrait"]:
    height, width = size
    return "square" if height == width else "landscape" if width > height else "portrait"


def _thumbnail(style: Style) -> str | None:
    """The picture of a style that a model knows by itself, where the page has one."""
    path = f"styles/{style.id}.webp"
    return f"/{path}" if not style.suffix and (STATIC / path).is_file() else None


def _ideas(about: About) -> list[str]:
    """What to ask a model for: prompts, or names of classes."""
    card = about.card
    if card.ideas:
        return list(card.ideas)
    if card.asks == "class":
        classes = (card.classes[int(each["label"])] for each in card.calibration if "label" in each)
        return list(dict.fromkeys(classes))[:_IDEAS]
    prompts = (each.get("prompt") for each in card.calibration)
    return list(dict.fromkeys(str(each) for each in prompts if each))[:_IDEAS]


@router.get("/models")
def list_models(studio: Here) -> views.ServedModels:
    """The models of this server, and whether each is loaded; the first is the default."""
    return views.ServedModels(models=[_model(s) for s in studio.manager.models.values()])


def _model(served: Served) -> views.ServedModel:
    about = served.about
    return views.ServedModel(
        id=served.id,
        title=served.id if about is None else about.card.title,
        asks=None if about is None else about.card.asks,
        state="away" if served.due else served.state,  # a request may choose it again
        loaded=served.model is not None,
        measured=about is not None and about.measured,
        failure=served.failure,
    )


@router.post(
    "/models/{id}/measure",
    status_code=202,
)
async def measure(
    studio: Here, operator: Operator, id: str, size: str | None = None
) -> views.Measurement:
    """Measure plans for a model while no pictures are drawn, at its own or another size, WxH.

    Repeating the call while it runs has no effect. Only the operator may do that.
    """
    del operator
    served = _served(studio, id)
    if measuring.connected() is None:  # before a model is loaded for nothing
        raise ApiError(409, "This server cannot measure models.", code="cannot_measure")
    await about_of(studio, id)
    return studio.manager.measure(served, None if size is None else size_of(size)).view()


@router.get("/models/{id}/measure")
def measurement(studio: Here, id: str) -> views.Measurement:
    """The measurement of a model that runs, or the last one."""
    return _measuring(studio, id).view()


@router.delete(
    "/models/{id}/measure",
    status_code=202,
)
def cancel_measurement(studio: Here, operator: Operator, id: str) -> views.Measurement:
    """Cancel a measurement; what it has found is kept, and the next one continues there."""
    del operator
    found = _measuring(studio, id)
    found.cancel()
    return found.view()


def _served(studio: Studio, id: str) -> Served:
    found = studio.manager.models.get(id)
    if found is None:
        raise nothing("model", id)
    return found


def _measuring(studio: Studio, id: str) -> Measuring:
    found = _served(studio, id).measuring
    if found is None:
        raise ApiError(404, f"The model {id!r} was not measured.", param="id", code="not_found")
    return found


@router.post("/jobs", status_code=202)
async def create_job(
    studio: Here,
    client: Calls,
    request: JobRequest,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> views.Job:
    """Create a job. It runs to its end, with or without subscribers to its events."""
    await about_of(studio, request.model)
    manager = studio.manager
    job = await run_in_threadpool(manager.submit, request, client=client, key=idempotency_key)
    return manager.view(job)


@router.get("/jobs")
def list_jobs(studio: Here, client: Calls, limit: Limit = 20) -> views.Jobs:
    """The newest jobs first, without live ones."""
    return views.Jobs(
        jobs=[studio.manager.view(job) for job in studio.manager.recent(limit, client.owner)]
    )


@router.get("/jobs/{id}")
def get_job(studio: Here, client: Calls, id: str) -> views.Job:
    """One job."""
    return studio.manager.view(_job(studio, client, id))


@router.delete("/jobs/{id}", status_code=202)
def cancel_job(studio: Here, client: Calls, id: str) -> views.Job:
    """Cancel a job; its finished pictures stay. Repeating the call has no effect."""
    job = _job(studio, client, id)
    studio.manager.cancel(job)
    return studio.manager.view(job)


@router.get(
    "/jobs/{id}/events",
    response_class=StreamingResponse,
    responses={**openapi_schema.EVENTS, **openapi_schema.NOTHING},
)
def job_events(
    studio: Here, client: Calls, id: str, last_event_id: LastEvent = None, previews: bool = False
) -> Response:
    """Server-sent events of one job, from its beginning or from after `Last-Event-ID`.

    With `previews` the `preview` of a step is a data URL instead of an address, or null where
    previews would take too much time.
    """
    job = _job(studio, client, id)
    after = -1 if last_event_id is None else last_event_id
    if job.over and not studio.manager.events(job, after):
        return Response(status_code=204)  # so that browsers do not reconnect
    events = streams.job_events(studio.manager, client, job, after, previews=previews)
    return streams.response(events)


@router.get("/events", response_class=StreamingResponse, responses=openapi_schema.ALL_EVENTS)
def all_events(
    studio: Here,
    client: Calls,
    last_event_id: LastEvent = None,
    steps: Switch = False,
    previews: Switch = False,
) -> StreamingResponse:
    """Server-sent events: a job whenever its state has changed.

    With `steps` also all events of the streams of single jobs, with the job's id as `job`, so that
    a page needs one stream only. It begins with the current state, cannot be resumed, and sends a
    `beat` when nothing else happens.
    """
    if steps:
        return streams.response(streams.everything(studio.manager, client, previews=previews))
    return streams.response(streams.changes(studio.manager, client, last_event_id))


@router.get(
    "/jobs/{id}/preview/{slot}",
    response_class=Response,
    responses={**openapi_schema.files("image/webp"), **openapi_schema.NOTHING},
)
def preview(studio: Here, client: Calls, id: str, slot: int) -> Response:
    """The newest preview of a running picture; empty before its first step and after its last."""
    job = _job(studio, client, id)
    if not 0 <= slot < len(job.slots):
        raise nothing("picture", str(slot))
    found = studio.manager.newest(job, slot)
    if found is None:
        return Response(status_code=204)
    data = media.preview(found[1](), composite=job.request.mask is not None)
    return Response(data, media_type="image/webp", headers={"Cache-Control": "no-store"})


@router.post(
    "/uploads",
    status_code=201,
    openapi_extra=openapi_schema.takes(*IMAGES),
)
async def upload(studio: Here, client: Calls, caller: Calling, data: Body) -> views.Upload:
    """Upload a picture to start from or to draw again, or a mask.

    A mask is white where to paint, and black or transparent where to keep.

    Its EXIF orientation is applied, and all metadata is removed.
    """
    await run_in_threadpool(studio.manager.check_disk)
    pixels = studio.settings.upload_pixels
    png, width, height = await studio.workshop.do(caller, 1, media.receive, data, pixels)
    add = studio.store.add_upload
    return _upload_view(await run_in_threadpool(add, png, width, height, client.owner))


@router.get(
    "/uploads/{id}", response_class=FileResponse, responses=openapi_schema.files("image/png")
)
def get_upload(studio: Here, client: Calls, id: str) -> FileResponse:
    """An uploaded picture."""
    row = studio.store.upload(id)
    if row is None or row.owner != client.owner:
        raise nothing("upload", id)
    path = studio.store.upload_path(id)
    with media.own(path):
        return FileResponse(path, media_type="image/png")


@router.get("/pictures")
def list_pictures(
    studio: Here,
    client: Calls,
    wanted: WantedPictures,
    before: Annotated[int | None, Query(ge=0, lt=2**53)] = None,
    limit: Limit = 50,
) -> views.Gallery:
    """The gallery, newest first; pass `next` as `before` for the next page.

    `q` are words that the prompt contains, all of them; `favourites` and `trash` choose these.
    """
    rows = studio.store.gallery(before, limit + 1, wanted, client.owner)
    more = rows[limit - 1].number if len(rows) > limit else None
    return views.Gallery(
        pictures=[picture_view(row) for row in rows[:limit]],
        next=None if more is None else str(more),
    )


@router.get(
    "/pictures/zip", response_class=Response, responses=openapi_schema.files("application/zip")
)
async def zip_pictures(
    studio: Here,
    client: Calls,
    caller: Calling,
    wanted: WantedPictures,
    ids: str | None = None,
    clean: Switch = False,
) -> StreamingResponse:
    """Pictures as PNG files in one zip: those of `ids`, separated by commas, or all that are found.

    They are found as in the gallery. `clean` leaves out prompts and settings, in files and names.
    """
    rows: Iterable[PictureRow] = studio.store.found(wanted, client.owner)
    if ids is not None:
        rows = await run_in_threadpool(_chosen, studio, client, ids)
    packed = media.zipped(_named(studio, rows, clean=clean))
    first = await studio.workshop.do(caller, 1, next, packed, b"")
    return StreamingResponse(
        _pieces(studio, caller, first, packed),
        media_type="application/zip",
        headers={"Content-Disposition": 'attachment; filename="asymflow.zip"'},
    )


def _chosen(studio: Studio, client: Client, ids: str) -> list[PictureRow]:
    """The pictures of these ids, whose files are there."""
    rows = [picture_of(studio, client, id) for id in dict.fromkeys(ids.split(","))]
    for row in rows:
        with media.own(studio.store.picture_path(row.id)):
            pass
    return rows


async def _pieces(
    studio: Studio, caller: Caller, piece: bytes | None, packed: Generator[bytes]
) -> AsyncGenerator[bytes]:
    """The pieces of a zip, each made when its turn has come and the one before was taken."""
    while piece is not None:
        yield piece
        piece = await studio.workshop.do(caller, 1, next, packed, None, patient=True)


def _named(
    studio: Studio, rows: Iterable[PictureRow], *, clean: bool
) -> Generator[tuple[str, Callable[[], bytes]]]:
    """The names of files in a zip, and what reads them."""
    for number, row in enumerate(rows, 1):
        path = studio.store.picture_path(row.id)
        name = f"{number:03d}-{_file_name(row, clean=clean)}.png"
        yield (
            name,
            partial(media.converted, path, "png", clean=True)
            if clean
            else partial(media.original, path),
        )


@router.post("/pictures/delete")
def delete_pictures(studio: Here, client: Calls, request: PictureIds) -> views.ChangedPictures:
    """Delete several pictures at once; `restore` with the same ids brings all of them back."""
    rows = studio.manager.hide(request.ids, client.owner, hidden=True)
    return _changed(request.ids, rows)


@router.post("/pictures/restore")
def restore_pictures(studio: Here, client: Calls, request: PictureIds) -> views.ChangedPictures:
    """Restore several deleted pictures at once."""
    rows = studio.manager.hide(request.ids, client.owner, hidden=False)
    return _changed(request.ids, rows)


@router.post("/pictures/favourite")
def favour_pictures(studio: Here, client: Calls, request: Favoured) -> views.ChangedPictures:
    """Make pictures favourites, or not; favourites are kept however old they are."""
    rows = studio.manager.favour(request.ids, client.owner, favourite=request.favourite)
    return _changed(request.ids, rows)


def _changed(ids: Sequence[str], rows: Sequence[PictureRow]) -> views.ChangedPictures:
    there = {row.id for row in rows}
    return views.ChangedPictures(
        pictures=[picture_view(row) for row in rows],
        missing=[id for id in ids if id not in there],
    )


@router.delete("/trash")
def empty_trash(studio: Here, client: Calls) -> views.Emptied:
    """Delete all deleted pictures for good."""
    return views.Emptied(deleted=studio.manager.empty_trash(client.owner))


@router.get("/pictures/{id}")
def get_picture(studio: Here, client: Calls, id: str) -> views.Picture:
    """One picture, also a hidden one."""
    return picture_view(picture_of(studio, client, id))


@router.get(
    "/pictures/{id}/file",
    response_class=Response,
    responses=openapi_schema.files(*media.TYPES.values()),
)
async def picture_file(
    studio: Here,
    client: Calls,
    caller: Calling,
    id: str,
    format: images.Format = "png",
    scale: Annotated[int, Query(ge=1, le=16)] = 1,
    background: str = "transparent",
    clean: Switch = False,
    download: Switch = False,
) -> Response:
    """The file of a picture.

    `scale` enlarges it (Lanczos), JPEG has a white background, and `clean` leaves out the prompt
    and the settings, also in the name of a download. Every file is marked as AI-generated.
    """
    row = await run_in_threadpool(picture_of, studio, client, id)
    path = studio.store.picture_path(row.id)
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}
    if download:
        name = f"{_file_name(row, clean=clean)}.{media.SUFFIXES[format]}"
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    if format == "png" and scale == 1 and background == "transparent" and not clean:
        with media.own(path):
            return FileResponse(path, media_type=media.TYPES[format], headers=headers)
    height, width = row.facts.height * scale, row.facts.width * scale
    convert = partial(
        media.converted,
        path,
        format,
        background=media.colour(background),
        size=None if scale == 1 else (height, width),
        clean=clean,
    )
    if height * width <= _QUICK:
        data = await run_in_threadpool(convert)
    else:
        data = await studio.workshop.do(caller, height * width / 1e6, convert)
    return Response(data, media_type=media.TYPES[format], headers=headers)


@router.delete("/pictures/{id}")
def delete_picture(studio: Here, client: Calls, id: str, forever: Switch = False) -> views.Picture:
    """Delete a picture.

    It can be restored for `undo_seconds`, or until the disk is nearly full; with `forever` it is
    removed at once.
    """
    row = picture_of(studio, client, id)
    if forever:
        return picture_view(studio.manager.remove([row])[0])
    studio.manager.hide([id], client.owner, hidden=True)
    return picture_view(picture_of(studio, client, id))


@router.post("/pictures/{id}/restore")
def restore_picture(studio: Here, client: Calls, id: str) -> views.Picture:
    """Restore a deleted picture."""
    picture_of(studio, client, id)
    studio.manager.hide([id], client.owner, hidden=False)
    return picture_view(picture_of(studio, client, id))


@router.post(
    "/settings",
    openapi_extra=openapi_schema.takes(*IMAGES),
)
async def settings_of(studio: Here, client: Calls, caller: Calling, data: Body) -> views.Restored:
    """The request that makes a picture again, from the picture's file.

    It is for the model that made the picture, if this server has it. `differs` lists what this
    server cannot repeat: "model", "plan", "image", "mask", "reference" or "size".
    """
    record = await studio.workshop.do(caller, 1, media.record_of, data)
    same = (
        s for s in studio.manager.models.values() if s.about and s.about.weights == record.weights
    )
    served, about = await about_of(studio, next((each.id for each in same), None))
    return await run_in_threadpool(_restored, studio, client.owner, served, about, record)


def _restored(
    studio: Studio, owner: str, served: Served, about: About, record: Record
) -> views.Restored:
    differs: list[views.Differs] = []
    card = about.card
    exact_model = record.weights == about.weights
    if not exact_model:
        differs.append("model")
    quality = _quality(served.model, record.plan, record.size)
    if quality is None:
        differs.append("plan")
    height, width = record.size
    if not card.sizes.possible(record.size):
        differs.append("size")
        height, width = card.sizes.nearest(record.size)
    image = parent = mask = None
    if record.image is not None:
        id = record.image.path.removesuffix(".png")
        image = id if requests.has_upload(studio.store, id, owner) else None
        parent = id if image is None and requests.has_picture(studio.store, id, owner) else None
        if image is None and parent is None:
            differs.append("image")
    if record.mask is not None:
        id = record.mask.path.removesuffix(".png")
        mask = id if requests.has_upload(studio.store, id, owner) and (image or parent) else None
        if mask is None:
            differs.append("mask")
    reference, found = _reference(studio, owner, served, record.reference)
    if not found:
        differs.append("reference")
    starts = image is not None or parent is not None
    label = record.label if record.label in range(len(card.classes)) else None
    request = CompletedRequest(
        model=served.id,
        prompt=escaped(record.drawn or record.prompt) if card.asks == "prompt" else "",
        label=label if card.asks == "class" else None,
        negative_prompt=record.negative if card.negative else "",
        style=record.style
        if record.style in {each.id for each in styles.styles_of(card)}
        else None,
        width=width,
        height=height,
        quality=quality or about.usual,
        n=1,
        seed=record.seed if record.seed < 2**53 else None,
        guidance_scale=record.guidance if card.guided else None,
        image=image,
        parent=parent,
        mask=mask,
        strength=record.strength if starts else None,
        reference=reference,
    )
    return views.Restored(request=request, exact_model=exact_model, differs=differs)


def _reference(
    studio: Studio, owner: str, served: Served, recorded: Reference | None
) -> tuple[str | None, bool]:
    """What a request names for a recorded reference, and whether it is still the same."""
    assert served.about is not None, "callers have looked"
    if recorded is None:
        return None, True
    if not served.about.card.references:
        return None, False
    named = recorded.named
    if recorded.kind == "given":
        there = named is not None and requests.has_upload(studio.store, named, owner)
        return (named if there else None), there
    adapter = None if served.model is None else unwrapped(served.model.adapter)
    if recorded.kind == "library" and isinstance(adapter, UsesReferences):
        return None, recorded.library == adapter.library_digest
    return named, True


def _quality(model: Model | None, plan: Plan, size: tuple[int, int]) -> str | None:
    """The quality that has the steps of this plan."""
    if model is None or not model.card.sizes.possible(size):
        return None
    steps = plan_hash(plan)
    for name in pipeline.plans_of(model, size):
        if plan_hash(requests.chosen_plan(model, name, size)) == steps:
            return name
    return None


def _job(studio: Studio, client: Client, id: str) -> Job:
    job = studio.manager.job(id)
    if job is None or job.client.owner != client.owner:
        raise nothing("job", id)
    return job


def _upload_view(row: UploadRow) -> views.Upload:
    return views.Upload(id=row.id, width=row.width, height=row.height, url=f"/api/uploads/{row.id}")


def _file_name(row: PictureRow, *, clean: bool) -> str:
    """A file name of ASCII letters, valid in headers and file systems."""
    if clean:
        return "asymflow"
    name = slug(row.facts.prompt).encode("ascii", "ignore").decode().strip("-") or "picture"
    return f"{name}-{row.facts.seed}"
