"""Pictures that come in, and files that go out.

A picture of 16 megapixels takes 256 MB while it is read: servers do what is large in a
`asymflow.studio.workshop`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from asymflow import pictures, provenance
from asymflow.errors import FileFormatError, InputError
from asymflow.pictures import Colour, Format, Notes
from asymflow.provenance import Record
from asymflow.types import Picture

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
    picture = _decoded(data, max_pixels)
    height, width = picture.shape[:2]
    if (side := max(height, width)) > _KEPT_SIDE:
        height, width = (max(1, round(s * _KEPT_SIDE / side)) for s in (height, width))
        picture = pictures.fit(picture, (height, width))
    return _png(Image.fromarray(pictures.to_bytes(picture))), width, height


def mask_from_alpha(data: bytes, max_pixels: int) -> bytes:
    """A mask as OpenAI has it, transparent where to paint, as ours: white there.

    Raises:
        InputError: as `receive`.
    """
    alpha = _decoded(data, max_pixels)[..., 3]
    return _png(Image.fromarray(((1 - alpha) * 255).round().astype(np.uint8)))


def record_of(data: bytes) -> Record:
    """How a picture file that somebody dropped was made.

    Raises:
        FileFormatError: it does not say, or is no picture.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        try:
            text = pictures.read_record(path)
        except FileFormatError as error:
            raise _named(error, path) from error
    if text is None:
        raise FileFormatError(
            "This picture does not say how it was made: it is not from asymflow, or another "
            "program removed that. Use the file as it was saved."
        )
    return provenance.from_json(text, "the picture")


def encode(picture: Picture, record: Record) -> bytes:
    """The PNG file of a finished picture, transparent, with all that is known of it."""
    return _file(picture, "png", provenance.notes(record, in_xmp=False), None, None, None)


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
        FileFormatError: the file is damaged.
    """
    text = pictures.read_record(path)
    if text is None:
        raise FileFormatError(f"{path.name} has lost its record. Draw the picture again.")
    record = provenance.from_json(text, path.name)
    if clean:
        notes = provenance.mark(composite=record.mask is not None)
    else:
        notes = provenance.notes(record, in_xmp=format != "png")
    if background is None and size is None and format != "jpeg":
        # The very same pixels: to multiply by alpha and to divide again would round them.
        file = io.BytesIO()
        with Image.open(path) as image:
            pictures.save(file, image, format=format, notes=notes, quality=quality)
        return file.getvalue()
    return _file(pictures.read(path), format, notes, background, size, quality)


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
    notes = provenance.mark(composite=composite)
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
        picture = pictures.fit(picture, size)
    pictures.write(
        file, picture, format=format, background=background, notes=notes, quality=quality
    )
    return file.getvalue()


def preview(picture: Picture, *, composite: bool) -> bytes:
    """A look at a picture that is being made, as a small WebP file; it can be saved, so it says
    that a machine made it."""
    file = io.BytesIO()
    xmp = provenance.mark(composite=composite).xmp.encode()
    image = Image.fromarray(pictures.to_bytes(picture))
    image.save(file, "WEBP", quality=80, method=0, xmp=xmp)
    return file.getvalue()


def colour(text: str) -> Colour | None:
    """A background as the API says it; None for a transparent one."""
    return None if text == "transparent" else pictures.colour(text)


def zipped(files: Sequence[tuple[str, Path]]) -> bytes:
    """A zip of pictures, which are compressed as they are."""
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            archive.write(path, name)
    return result.getvalue()


def _decoded(data: bytes, max_pixels: int) -> NDArray[np.float32]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        try:
            return pictures.read(path, max_pixels)
        except FileFormatError as error:
            raise _named(error, path) from error


def _named(error: FileFormatError, path: Path) -> InputError:
    return InputError(str(error).replace(str(path), "The picture that was sent"))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
