"""Pictures that come in, and files that go out.

A picture of 16 megapixels takes 256 MB while it is read: servers do what is large in a
`asymflow.server.workshop`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from PIL import Image

from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import Picture
from asymflow.generation import metadata
from asymflow.generation.metadata import Record
from asymflow.io import images
from asymflow.io.images import Colour, Format, Notes
from asymflow.server.problems import ApiError

T = TypeVar("T")

TYPES: dict[Format, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
SUFFIXES: dict[Format, str] = {"png": "png", "webp": "webp", "jpeg": "jpg"}
_KEPT_SIDE = 1024
"""Of an upload: more than the model will ever see."""


def receive(data: bytes, max_pixels: int) -> tuple[bytes, int, int]:
    """A picture that was sent, as a PNG file of our own making: its bytes, width and height.

    It is turned as its camera says, made smaller where it is very large, and carries nothing
    but its pixels.

    Raises:
        InputError: it is no PNG, JPEG or WebP picture, damaged, or too large.
    """
    return _kept(_decoded(data, partial(images.read, max_pixels=max_pixels)))


def receive_mask(data: bytes, max_pixels: int) -> tuple[bytes, int, int, bool]:
    """As `receive`, of a mask as other programs have it, which is made white where to paint; and
    whether it was so before.

    Raises:
        InputError: as `receive`, or it does not say where to paint.
    """
    mask, white = _decoded(data, partial(images.read_any_mask, max_pixels=max_pixels))
    grey = (mask * 255).round() / np.float32(255)
    return *_kept(np.stack((grey, grey, grey, np.ones_like(grey)), axis=-1)), white


def _kept(picture: Picture) -> tuple[bytes, int, int]:
    height, width = picture.shape[:2]
    if (side := max(height, width)) > _KEPT_SIDE:
        height, width = (max(1, round(s * _KEPT_SIDE / side)) for s in (height, width))
        picture = images.fit(picture, (height, width))
    return _png(Image.fromarray(images.to_bytes(picture))), width, height


def record_of(data: bytes) -> Record:
    """How a picture file that somebody dropped was made.

    Raises:
        FileFormatError: it does not say, or is no picture.
    """
    text = _decoded(data, images.read_record)
    if text is None:
        raise FileFormatError(
            "This picture does not say how it was made: it is not from asymflow, or another "
            "program removed that. Use the file as it was saved."
        )
    return metadata.from_json(text, "the picture")


def encode(picture: Picture, record: Record) -> bytes:
    """The PNG file of a finished picture, transparent, with all that is known of it."""
    return _file(picture, "png", metadata.notes(record, in_xmp=False), None, None, None)


def converted(
    path: Path,
    format: Format,
    *,
    background: Colour | None = None,
    size: tuple[int, int] | None = None,
    clean: bool = False,
    quality: int | None = None,
) -> bytes:
    """Another file of a finished picture. Every one says that a machine made it.

    Args:
        size: (height, width) to enlarge it to, by Lanczos.
        clean: leaves out the prompt and the settings.
        quality: of JPEG and WebP, 0 to 100.

    Raises:
        ApiError: as `own`.
    """
    with own(path):
        text = images.read_record(path)
        if text is None:
            raise FileFormatError(f"{path.name} has lost its record. Draw the picture again.")
        record = metadata.from_json(text, path.name)
        if clean:
            notes = metadata.mark(composite=record.mask is not None)
        else:
            notes = metadata.notes(record, in_xmp=format != "png")
        if background is None and size is None and format != "jpeg":
            # The very same pixels: to multiply by alpha and to divide again would round them.
            file = io.BytesIO()
            with Image.open(path) as image:
                images.save(file, image, format=format, notes=notes, quality=quality)
            return file.getvalue()
        picture = images.read(path)
    return _file(picture, format, notes, background, size, quality)


@contextmanager
def own(path: Path) -> Generator[None]:
    """What is wrong with a file of the server's own is told by its name, and never where it lies.

    Raises:
        ApiError: it is gone, or damaged.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError(path)
        yield
    except (FileFormatError, FileNotFoundError) as error:
        if path.is_file():
            raise ApiError(
                500,
                f"The file {path.name} is damaged on the server. Delete that picture, and make it "
                "again.",
                code="damaged_file",
            ) from error
        raise ApiError(
            404,
            f"The file {path.name} is gone from the server. Make the picture again, or send it "
            "again.",
            code="not_found",
        ) from error


def marked(
    picture: Picture,
    format: Format,
    *,
    composite: bool,
    background: Colour | None = None,
    size: tuple[int, int] | None = None,
    quality: int | None = None,
) -> bytes:
    """The file of a picture on its way, which says only that a machine made it."""
    notes = metadata.mark(composite=composite)
    return _file(picture, format, notes, background, size, quality)


def _file(
    picture: Picture,
    format: Format,
    notes: Notes,
    background: Colour | None,
    size: tuple[int, int] | None,
    quality: int | None,
) -> bytes:
    if format == "jpeg" and background is None:
        background = (1.0, 1.0, 1.0)
    file = io.BytesIO()
    if size is not None:
        picture = images.fit(picture, size)
    images.write(file, picture, format=format, background=background, notes=notes, quality=quality)
    return file.getvalue()


def preview(picture: Picture, *, composite: bool) -> bytes:
    """A look at a picture that is being made, as a small WebP file; it can be saved, so it says
    that a machine made it."""
    file = io.BytesIO()
    xmp = metadata.mark(composite=composite).xmp.encode()
    image = Image.fromarray(images.to_bytes(picture))
    image.save(file, "WEBP", quality=80, method=0, xmp=xmp)
    return file.getvalue()


def colour(text: str) -> Colour | None:
    """A background as the API says it; None for a transparent one."""
    return None if text == "transparent" else images.colour(text)


def zipped(files: Sequence[tuple[str, Path]]) -> bytes:
    """A zip of pictures, which are compressed as they are.

    Raises:
        ApiError: as `own`.
    """
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            with own(path):
                archive.write(path, name)
    return result.getvalue()


def _decoded(data: bytes, read: Callable[[Path], T]) -> T:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        try:
            return read(path)
        except FileFormatError as error:
            raise _named(error, path) from error


def _named(error: FileFormatError, path: Path) -> InputError:
    return InputError(str(error).replace(str(path), "The picture that was sent"))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=4)  # quicker than the default, and little larger
    return file.getvalue()
