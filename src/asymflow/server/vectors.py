"""Pictures of the studio as SVG, and rendered from that at any size."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response

from asymflow.generation import metadata
from asymflow.io import images, tracing
from asymflow.io.images import Colour, Format
from asymflow.server import media, openapi_schema
from asymflow.server.problems import ApiError
from asymflow.server.state import Calling, Calls, Here, Studio, about_of, picture_of
from asymflow.server.store import PictureRow

router = APIRouter(prefix="/api", tags=["studio"])

SVG = "image/svg+xml"
_SIDE = 1024
"""Of rendered pictures: their longer side, in pixels."""
_HEADERS = {"Cache-Control": "private, max-age=31536000, immutable"}


@router.get("/pictures/{id}/svg", response_class=Response, responses=openapi_schema.files(SVG))
async def picture_svg(
    studio: Here,
    client: Calls,
    caller: Calling,
    id: str,
    background: str = "transparent",
    clean: bool = False,
) -> Response:
    """A picture as SVG, for models whose pictures are flat drawings (`flat` in their card).

    `clean` leaves out the prompt and the settings. The file is marked as AI-generated.
    """
    path = await _traceable(studio, picture_of(studio, client, id))
    data = await studio.workshop.do(
        caller, 1, partial(_svg, path, media.colour(background), clean=clean)
    )
    return Response(data, media_type=SVG, headers=_HEADERS)


@router.get(
    "/pictures/{id}/rendered",
    response_class=Response,
    responses=openapi_schema.files(*media.TYPES.values()),
)
async def rendered_picture(
    studio: Here,
    client: Calls,
    caller: Calling,
    id: str,
    format: Format = "png",
    side: Annotated[int, Query(ge=16, le=4096)] = _SIDE,
    background: str = "transparent",
    clean: bool = False,
) -> Response:
    """A picture rendered from its SVG, sharp at any size; `side` is the longer one, in pixels.

    JPEG has a white background.
    """
    path = await _traceable(studio, picture_of(studio, client, id))
    data = await studio.workshop.do(
        caller,
        1 + side * side / 1e6,
        partial(_rendered, path, format, side, media.colour(background), clean=clean),
    )
    return Response(data, media_type=media.TYPES[format], headers=_HEADERS)


async def _traceable(studio: Studio, row: PictureRow) -> Path:
    """The file of a picture of a model that draws flat drawings.

    Raises:
        ApiError: it is no flat drawing.
    """
    path = studio.store.picture_path(row.id)
    with media.own(path):
        text = images.read_record(path)
    record = None if text is None else metadata.from_json(text, path.name)
    for served in studio.manager.models.values():
        about = served.about or (await about_of(studio, served.id))[1]
        if record is not None and about.name.partition(":")[0] == record.model.partition(":")[0]:
            if about.card.flat:
                return path
            raise ApiError(
                409,
                f"The pictures of {about.card.title} are no flat drawings, which alone have an "
                "SVG. Download it as PNG, WebP or JPEG.",
                code="not_flat",
            )
    raise ApiError(
        409,
        "This picture is from a model that this server does not have, so it is not known whether "
        "it is a flat drawing, which alone have an SVG. Download it as PNG, WebP or JPEG.",
        code="not_flat",
    )


def _svg(path: Path, background: Colour | None, *, clean: bool) -> bytes:
    with media.own(path):
        text = images.read_record(path)
        picture = images.read(path)
    assert text is not None, "files of the server have records"
    record = metadata.from_json(text, path.name)
    notes = (
        metadata.mark(composite=record.mask is not None)
        if clean
        else metadata.notes(record, in_xmp=True)
    )
    title = "" if clean else record.prompt
    return tracing.svg(picture, title=title, notes=notes, background=background)


def _rendered(
    path: Path, format: Format, side: int, background: Colour | None, *, clean: bool
) -> bytes:
    with media.own(path):
        text = images.read_record(path)
        picture = images.read(path)
    assert text is not None, "files of the server have records"
    record = metadata.from_json(text, path.name)
    mark = metadata.mark(composite=record.mask is not None)
    notes = mark if clean else metadata.notes(record, in_xmp=format != "png")
    height, width = (max(1, round(n * side / max(picture.shape[:2]))) for n in picture.shape[:2])
    drawn = tracing.rendered(tracing.svg(picture, title="", notes=mark), (height, width))
    if format == "jpeg" and background is None:
        background = (1.0, 1.0, 1.0)
    file = io.BytesIO()
    images.write(file, drawn, format=format, background=background, notes=notes)
    return file.getvalue()
