"""Inpainted pictures of the studio, put back into the picture that they began with."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Response
from PIL import Image

from asymflow.core.errors import InputError
from asymflow.core.types import Picture
from asymflow.generation import metadata
from asymflow.generation.spec import batchable
from asymflow.io import images, restoring
from asymflow.io.images import Format
from asymflow.server import media, openapi_schema
from asymflow.server.problems import ApiError
from asymflow.server.security import IMAGES
from asymflow.server.state import Body, Calling, Calls, Here, Studio, picture_of
from asymflow.server.store import PictureRow

router = APIRouter(prefix="/api", tags=["studio"])


@router.get(
    "/pictures/{id}/restored",
    response_class=Response,
    responses=openapi_schema.files(*media.TYPES.values()),
)
async def restored_picture(
    studio: Here,
    client: Calls,
    caller: Calling,
    id: str,
    format: Format = "png",
    clean: bool = False,
) -> Response:
    """The upload that a picture was painted into, with the painted part.

    All other pixels are those of the upload as the server keeps it: up to 2048 pixels a side. Send
    the original with POST to have it at its own size.
    """
    return await _restored(
        studio, caller, picture_of(studio, client, id), None, format, clean=clean
    )


@router.post(
    "/pictures/{id}/restored",
    response_class=Response,
    responses=openapi_schema.files(*media.TYPES.values()),
    openapi_extra=openapi_schema.takes(*IMAGES),
)
async def restored_original(
    studio: Here,
    client: Calls,
    caller: Calling,
    id: str,
    data: Body,
    format: Format = "png",
    clean: bool = False,
) -> Response:
    """The original that is sent, at its own size, with the painted part of a picture.

    It has to be the file that was uploaded for the picture. All other pixels are its own, bit for
    bit in PNG and WebP. Its EXIF orientation is applied.
    """
    return await _restored(
        studio, caller, picture_of(studio, client, id), data, format, clean=clean
    )


async def _restored(
    studio: Studio,
    caller: Calling,
    row: PictureRow,
    data: bytes | None,
    format: Format,
    *,
    clean: bool,
) -> Response:
    work = partial(_file, studio, row, data, format, clean=clean)
    cost = studio.settings.upload_pixels / 1e6 if data is not None else 4
    return Response(await studio.workshop.do(caller, cost, work), media_type=media.TYPES[format])


def _file(
    studio: Studio, row: PictureRow, data: bytes | None, format: Format, *, clean: bool
) -> bytes:
    store = studio.store
    path = store.picture_path(row.id)
    with media.own(path):
        text = images.read_record(path)
        small = images.read(path)
    assert text is not None, "files of the server have records"
    record = metadata.from_json(text, path.name)
    if record.image is None or record.mask is None:
        raise ApiError(
            409,
            "This picture was not painted into another one, so there is nothing to put it back "
            "into. Begin with a picture and a mask.",
            code="not_inpainted",
        )
    began, mask_file = (
        next(
            (
                file
                for file in (store.upload_path(name), store.picture_path(name))
                if file.is_file()
            ),
            store.upload_path(name),
        )
        for name in (Path(each.path).stem for each in (record.image, record.mask))
    )
    with media.own(mask_file):
        mask = images.read_mask(mask_file)
    with media.own(began):
        kept = images.read_levels(began)
    original = kept if data is None else media.levels(data, studio.settings.upload_pixels)
    if not batchable(kept.shape[:2], original.shape[:2]):
        (a, b), (c, d) = kept.shape[:2], original.shape[:2]
        raise InputError(
            f"The picture that was sent has {d}x{c} pixels, another shape than the one that this "
            f"began with, {b}x{a}. Send the file that was uploaded."
        )
    job = store.job(row.job)
    if job is not None and job.request.get("fit") == "pad":
        small = _unpadded(small, kept.shape[:2])
    pixels = restoring.restored(original, mask, small)
    if format == "jpeg" and pixels.shape[-1] == 4:
        pixels = restoring.laid_on(pixels, (1.0, 1.0, 1.0))
    notes = (
        metadata.mark(composite=True) if clean else metadata.notes(record, in_xmp=format != "png")
    )
    file = io.BytesIO()
    images.save(file, Image.fromarray(pixels), format=format, notes=notes)
    return file.getvalue()


def _unpadded(small: Picture, size: tuple[int, int]) -> Picture:
    """The middle of a picture whose original of (height, width) was padded to its shape."""
    height, width = small.shape[:2]
    scale = min(height / size[0], width / size[1])
    inner = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    return small[top : top + inner[0], left : left + inner[1]]
