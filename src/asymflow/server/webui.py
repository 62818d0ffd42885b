"""The API of AUTOMATIC1111's web UI, `/sdapi/v1`: SillyTavern, Open WebUI and others know it.

Steps choose the plan nearest in passes of the network, and samplers are the plans by their names.
`info` of an answer says what was done in another way than asked for. Each client has a choice of
model of its own, and sees and interrupts its own pictures only.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from PIL import Image

from asymflow._version import __version__
from asymflow.core.errors import FileFormatError, InputError
from asymflow.generation import metadata, styles
from asymflow.server import media, waiting
from asymflow.server.clients import Client
from asymflow.server.jobs import Job, Look
from asymflow.server.lineup import Served
from asymflow.server.openai_sizes import check_sizes
from asymflow.server.problems import WEBUI, ApiError, Refusal
from asymflow.server.state import Calling, Calls, Here, Studio, about_of
from asymflow.server.store import PictureRow
from asymflow.server.webui_order import AUTOMATIC, Order, Upload, order_of
from asymflow.server.webui_schema import Img2Img, Options, PngInfo, Txt2Img, echoed
from asymflow.server.webui_sessions import Drawing, Sessions
from asymflow.server.workshop import Caller

# Clients know this API by heart, and its errors have a shape of their own: it is not in our schema.
router = APIRouter(prefix=f"{WEBUI}v1", tags=["webui"], include_in_schema=False)

NOTHING: Mapping[str, Any] = {
    "loras": [],
    "hypernetworks": [],
    "latent-upscale-modes": [],
    "sd-vae": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "script-info": [],
    "extensions": [],
    "scripts": {"txt2img": [], "img2img": []},
    "embeddings": {"loaded": {}, "skipped": {}},
    "cmd-flags": {"api": True},
    "upscalers": [
        {
            "name": "None",
            "model_name": None,
            "model_path": None,
            "model_url": None,
            "scale": 1.0,
        }
    ],
    "schedulers": [
        {
            "name": "automatic",
            "label": "Automatic",
            "aliases": None,
            "default_rho": -1.0,
            "need_inner_model": False,
        }
    ],
}
"""Answers that are the same for every model, most of them to what clients ask on connecting."""


def _sessions_of(call: Request) -> Sessions:
    found: Sessions = call.app.state.sessions
    return found


Known = Annotated[Sessions, Depends(_sessions_of)]


@router.post("/txt2img")
async def txt2img(
    call: Request, studio: Here, sessions: Known, client: Calls, request: Txt2Img
) -> JSONResponse:
    """Make pictures from words, or of a class."""
    served, about = await about_of(studio, _model(studio, sessions, client, request))
    order = order_of(served, about, request, None)
    return await _drawn(call, studio, sessions, client, request, order)


@router.post("/img2img")
async def img2img(
    call: Request,
    studio: Here,
    sessions: Known,
    client: Calls,
    caller: Calling,
    request: Img2Img,
) -> JSONResponse:
    """Make pictures from a picture, all of it or where a mask is white."""
    served, about = await about_of(studio, _model(studio, sessions, client, request))
    card = about.card
    if not card.image or (request.mask is not None and not card.inpaint):
        what = "repaint a part of a picture" if card.image else "begin with a picture"
        raise ApiError(400, f"{card.title} cannot {what}.", code="invalid_value")
    start = await _upload(studio, client, caller, request)
    order = order_of(served, about, request, start)
    return await _drawn(call, studio, sessions, client, request, order)


@router.get("/progress")
async def progress(
    studio: Here, sessions: Known, client: Calls, skip_current_image: bool = False
) -> dict[str, Any]:
    """How far the pictures of this client are, with a preview of the current one."""
    found = sessions.current(client.session)
    if found is None:
        loading = _chosen(studio, sessions, client).state == "loading"
        return _progress(0.0, 0.0, _state("loading the model", 1) if loading else _state("", 0))
    job = found.job
    told = studio.manager.view(job)
    slot = min((i for i in range(len(job.slots)) if i not in job.pictures), default=0)
    state = _state(
        job.id,
        len(job.slots),
        job_no=len(job.pictures),
        interrupted=found.interrupted,
        step=job.done.get(slot, 0),
        steps=job.steps,
        created=job.created,
    )
    newest = None if skip_current_image else studio.manager.newest(job, slot)
    image = None
    if newest is not None:
        masked = job.request.mask is not None
        image = await run_in_threadpool(_preview, newest[1], masked)
    share = min(max(told.progress, 0.01), 1.0)
    return _progress(share, told.eta_seconds or 0.0, state, image)


@router.post("/interrupt")
async def interrupt(studio: Here, sessions: Known, client: Calls) -> dict[str, Any]:
    """End the current pictures of this client; their call answers with what there is."""
    sessions.interrupt(studio.manager, client.session)
    return {}


@router.post("/skip")
async def skip(studio: Here, sessions: Known, client: Calls) -> None:
    """As `interrupt`."""
    sessions.interrupt(studio.manager, client.session)


@router.get("/options")
async def options(studio: Here, sessions: Known, client: Calls) -> dict[str, Any]:
    """The settings that mean something here."""
    served = _chosen(studio, sessions, client)
    return {
        "sd_model_checkpoint": served.id,
        "sd_checkpoint_hash": None if served.about is None else served.about.weights,
        "sd_vae": "None",
        "samples_format": "png",
        "CLIP_stop_at_last_layers": 1,
        "show_progress_every_n_steps": 1,
        "live_previews_enable": True,
    }


@router.post("/options")
async def set_options(
    studio: Here, sessions: Known, client: Calls, request: Options
) -> dict[str, Any]:
    """Choose the model of this client; other settings are ignored."""
    if request.sd_model_checkpoint is not None:
        id = _known(studio, request.sd_model_checkpoint)
        sessions.choose(client.session, id)
        studio.manager.ask(studio.manager.served(id))
    return {}


@router.get("/sd-models")
def models(studio: Here) -> list[dict[str, Any]]:
    """The models of the server, the default first."""
    return [_checkpoint(served) for served in studio.manager.models.values()]


@router.get("/samplers")
async def samplers(studio: Here, sessions: Known, client: Calls) -> list[dict[str, Any]]:
    """The plans of the model of this client."""
    _, about = await about_of(studio, _chosen(studio, sessions, client).id)
    names = (AUTOMATIC, *about.plans)
    return [{"name": name, "aliases": [], "options": {}} for name in names]


@router.get("/prompt-styles")
async def prompt_styles(studio: Here, sessions: Known, client: Calls) -> list[dict[str, Any]]:
    """The styles of the model of this client."""
    _, about = await about_of(studio, _chosen(studio, sessions, client).id)
    return [
        {"name": style.id, "prompt": style.suffix, "negative_prompt": ""}
        for style in styles.styles_of(about.card)
    ]


@router.get("/memory")
def memory() -> dict[str, Any]:
    """Nothing about memory, in the shape that clients read."""
    unknown = {"error": "asymflow does not say; see /metrics"}
    return {"ram": unknown, "cuda": unknown}


@router.post("/png-info")
async def png_info(studio: Here, caller: Calling, request: PngInfo) -> dict[str, Any]:
    """The parameters that a picture of ours was made with."""
    data = _decoded("image", request.image, studio.settings.upload_bytes)
    try:
        record = await studio.workshop.do(caller, 1, media.record_of, data)
    except FileFormatError:
        return {"info": "", "items": {}, "parameters": {}}
    except Refusal as refusal:
        if refusal.problem.code != "no_record":
            raise
        return {"info": "", "items": {}, "parameters": {}}
    text = metadata.parameters(record)
    settings = {"Prompt": record.prompt, "Negative prompt": record.negative}
    settings |= metadata.settings(record)
    return {"info": text, "items": {"parameters": text}, "parameters": settings}


@router.post("/refresh-checkpoints")
@router.post("/refresh-loras")
@router.post("/refresh-vae")
def refresh() -> None:
    """There is nothing to search for again."""


@router.get("/{name}")
def the_same_for_all(name: str) -> Any:
    """What every model answers."""
    if name not in NOTHING:
        raise ApiError(404, "Not Found", code="not_found")
    return NOTHING[name]


def _chosen(studio: Studio, sessions: Sessions, client: Client) -> Served:
    """The model of a client; the first one until it has chosen."""
    return studio.manager.served(sessions.chosen(client.session))


def _model(studio: Studio, sessions: Sessions, client: Client, request: Txt2Img) -> str | None:
    """The id of the model that a call is for."""
    wanted = request.override_settings.get("sd_model_checkpoint")
    if isinstance(wanted, str) and wanted:
        return _known(studio, wanted)
    return sessions.chosen(client.session)


def _known(studio: Studio, wanted: str) -> str:
    """The id of a model by its title; a server of a single model is not particular.

    Raises:
        ApiError: there is no such model.
    """
    found = studio.manager.models
    if wanted in found:
        return wanted
    if len(found) == 1:
        return next(iter(found))
    known = ", ".join(map(repr, found))
    message = f"There is no model {wanted[:64]!r} here: there is {known}."
    raise ApiError(404, message, param="sd_model_checkpoint", code="model_not_found")


def _checkpoint(served: Served) -> dict[str, Any]:
    weights = None if served.about is None else served.about.weights
    return {
        "title": served.id,
        "model_name": served.id,
        "hash": weights and weights[:10],
        "sha256": weights,
        "filename": served.id,
        "config": None,
    }


async def _upload(studio: Studio, client: Client, caller: Caller, request: Img2Img) -> Upload:
    """Store the pictures that a call begins with."""
    if len(request.init_images) > 1:
        raise ApiError(
            400,
            f"{len(request.init_images)} init_images were sent, and a call begins with one: none "
            "of them was used. Send a call for each.",
            param="init_images",
            code="invalid_value",
        )
    most, pixels = studio.settings.upload_bytes, studio.settings.upload_pixels
    data = _decoded("init_images", request.init_images[0], most)
    await run_in_threadpool(studio.manager.check_disk)
    png, width, height = await studio.workshop.do(caller, 1, media.receive, data, pixels)
    image = await run_in_threadpool(studio.store.add_upload, png, width, height, client.owner)
    if request.mask is None:
        return Upload(image.id, (height, width), None)
    data = _decoded("mask", request.mask, most)
    png, *size = await studio.workshop.do(
        caller, 1, _mask, data, pixels, request.inpainting_mask_invert
    )
    check_sizes((width, height), (size[0], size[1]))
    mask = await run_in_threadpool(studio.store.add_upload, png, size[0], size[1], client.owner)
    return Upload(image.id, (height, width), mask.id)


def _mask(data: bytes, pixels: int, invert: bool) -> tuple[bytes, int, int]:
    try:
        return media.receive_opaque_mask(data, pixels, invert=invert)
    except InputError as error:
        raise ApiError(400, str(error), param="mask", code="invalid_mask") from error


def _decoded(field: str, text: str, most: int) -> bytes:
    """The bytes of a picture in base64, with or without `data:image/png;base64,` before it.

    Raises:
        ApiError: it is an address or no base64, or too large.
    """
    if text.startswith(("http://", "https://")):
        message = f"{field}: no address is ever fetched. Send the picture itself, in base64."
        raise ApiError(400, message, param=field, code="invalid_value")
    body = text.partition(",")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"{field} is not in base64: {error}. Send the bytes of a file in it."
        raise ApiError(400, message, param=field, code="invalid_value") from error
    if len(data) > most:
        message = f"{field} has more than the {most} bytes that are taken. Send a smaller one."
        raise ApiError(413, message, param=field, code="too_long")
    return data


async def _drawn(
    call: Request,
    studio: Studio,
    sessions: Sessions,
    client: Client,
    request: Txt2Img,
    order: Order,
) -> JSONResponse:
    """The answer with pictures, when they are finished or interrupted.

    Raises:
        ApiError: they cannot be made.
    """

    def submit() -> Job:
        return studio.manager.submit(order.job, client=client, kind="api", literal=order.count)

    job = await run_in_threadpool(submit)
    with sessions.drawing(client.session, job) as drawing:
        await waiting.over(call, studio.manager, job)
    if job.state != "done" and not drawing.interrupted:
        raise waiting.failure(job)
    images = await run_in_threadpool(_images, studio, drawing) if request.send_images else []
    info = json.dumps(await run_in_threadpool(_info, studio, order, request, drawing))
    return JSONResponse({"images": images, "parameters": echoed(request), "info": info})


def _images(studio: Studio, drawing: Drawing) -> list[str]:
    """The pictures in base64; of those that were interrupted, what there was."""
    job, found = drawing.job, list[str]()
    for slot in range(len(job.slots)):
        if slot in job.pictures:
            path = studio.store.picture_path(job.pictures[slot].id)
            found.append(base64.b64encode(media.converted(path, "png")).decode())
        elif slot in drawing.previews:
            found.append(_preview(drawing.previews[slot], job.request.mask is not None))
    return found


def _preview(look: Look, masked: bool) -> str:
    return base64.b64encode(media.marked(look(), "png", composite=masked)).decode()


def _info(studio: Studio, order: Order, request: Txt2Img, drawing: Drawing) -> dict[str, Any]:
    """What was used, as the web UI says it, and what was done in another way than asked for."""
    job = drawing.job
    asked = job.request
    rows = [job.pictures[slot] for slot in sorted(job.pictures)]
    texts = [_parameters(studio, row) for row in rows]
    seeds = [slot.seed for slot in job.slots]
    guidance = order.about.card.guidance if asked.guidance_scale is None else asked.guidance_scale
    return {
        "prompt": request.prompt,
        "all_prompts": [slot.prompt for slot in job.slots],
        "negative_prompt": asked.negative_prompt,
        "all_negative_prompts": [asked.negative_prompt] * len(seeds),
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": seeds[0],
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": asked.width,
        "height": asked.height,
        "sampler_name": asked.quality,
        "cfg_scale": guidance,
        "steps": len(order.plan.steps),
        "batch_size": request.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": order.served.id,
        "sd_model_hash": order.about.weights[:10],
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": asked.strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [] if asked.style is None else [asked.style],
        "job_timestamp": _stamp(job.created),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": f"asymflow {__version__}",
        "asymflow": {
            "plan": asked.quality,
            "notes": list(order.notes),
            "interrupted": drawing.interrupted,
            "pictures": [
                row.facts.model_dump(include={"seed", "forwards", "seconds"}) for row in rows
            ],
        },
    }


def _parameters(studio: Studio, row: PictureRow) -> str:
    """The parameters as in the file of a picture."""
    with (
        media.own(studio.store.picture_path(row.id)),
        Image.open(studio.store.picture_path(row.id)) as image,
    ):
        return str(image.info.get("parameters", ""))


def _progress(
    share: float, eta: float, state: Mapping[str, Any], image: str | None = None
) -> dict[str, Any]:
    return {
        "progress": share,
        "eta_relative": eta,
        "state": state,
        "current_image": image,
        "textinfo": None,
    }


def _state(
    job: str,
    count: int,
    *,
    job_no: int = 0,
    interrupted: bool = False,
    step: int = 0,
    steps: int = 0,
    created: float | None = None,
) -> dict[str, Any]:
    return {
        "skipped": False,
        "interrupted": interrupted,
        "stopping_generation": False,
        "job": job,
        "job_count": count,
        "job_timestamp": _stamp(time.time() if created is None else created),
        "job_no": job_no,
        "sampling_step": step,
        "sampling_steps": steps,
    }


def _stamp(seconds: float) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(seconds))
