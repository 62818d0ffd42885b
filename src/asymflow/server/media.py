"""Conversion of uploaded pictures, and of pictures to files.

A picture of 16 megapixels takes 256 MB while it is read: large conversions run in an
`asymflow.server.workshop`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import Picture
from asymflow.generation import metadata
from asymflow.generation.metadata import Record
from asymflow.io import images
from asymflow.io.images import Colour, Format, Notes
from asymflow.server.problems import ApiError, Refusal

T = TypeVar("T")

TYPES: dict[Format, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
SUFFIXES: dict[Format, str] = {"png": "png", "webp": "webp", "jpeg": "jpg"}
_KEPT_SIDE = 2048
"""Maximal side of a stored upload, as large as what models draw."""


def receive(data: bytes, max_pixels: int) -> tuple[bytes, int, int]:
    """Convert an uploaded picture to a PNG file: its bytes, width and height.

    Its EXIF orientation is applied, it is reduced if it is very large, and metadata is removed.

    Raises:
        InputError: it is not a PNG, JPEG or WebP picture, damaged, or too large.
    """
    return _kept(_decoded(data, partial(images.read, max_pixels=max_pixels)))


def receive_mask(data: bytes, max_pixels: int) -> tuple[bytes, int, int, bool]:
    """Convert a mask of either convention to one that is white where to paint.

    Returns:
        As `receive`, and whether it was white there before.

    Raises:
        InputError: as `receive`, or it is unclear where to paint.
    """
    mask, white = _decoded(data, partial(images.read_any_mask, max_pixels=max_pixels))
    grey = (mask * 255).round() / np.float32(255)
    return *_kept(np.stack((grey, grey, grey, np.ones_like(grey)), axis=-1)), white


def receive_opaque_mask(
    data: bytes, max_pixels: int, *, invert: bool = False
) -> tuple[bytes, int, int]:
    """Convert a mask of the web UI's convention: white or opaque where to paint.

    Args:
        data: of the file.
        max_pixels: as `receive`.
        invert: paint the rest.

    Raises:
        InputError: as `receive`, or nothing would be painted.
    """
    picture = _decoded(data, partial(images.read, max_pixels=max_pixels))
    alpha = picture[..., 3]
    grey = alpha if alpha.min() < 1 else picture[..., :3].mean(axis=-1)
    grey = (((1 - grey) if invert else grey) * 255).round() / np.float32(255)
    if grey.max() < 0.5:
        raise InputError(
            "The mask selects nothing, so nothing would be made anew. Make it white, on black, "
            "where something is to change; inpainting_mask_invert says the other way round."
        )
    return _kept(np.stack((grey, grey, grey, np.ones_like(grey)), axis=-1))


def _kept(picture: Picture) -> tuple[bytes, int, int]:
    height, width = picture.shape[:2]
    if (side := max(height, width)) > _KEPT_SIDE:
        height, width = (max(1, round(s * _KEPT_SIDE / side)) for s in (height, width))
        picture = images.fit(picture, (height, width))
    return _png(Image.fromarray(images.to_bytes(picture))), width, height


def levels(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """The levels of a picture that was sent, upright: RGB or straight RGBA [h, w, 3 or 4].

    Raises:
        InputError: as `receive`.
    """
    return _decoded(data, partial(images.read_levels, max_pixels=max_pixels))


def record_of(data: bytes) -> Record:
    """Read the record of an uploaded picture file.

    Raises:
        InputError: it has none, or is not a picture.
        FileFormatError: its record is damaged.
    """
    text = _decoded(data, images.read_record)
    if text is None:
        raise Refusal(
            "This picture does not say how it was made: it is not from asymflow, or another "
            "program removed that. Use the file as it was saved.",
            "no_record",
        )
    return metadata.from_json(text, "the picture")


def encode(picture: Picture, record: Record, *, alpha: bool = True) -> bytes:
    """The PNG file of a finished picture with all metadata; without `alpha`, of an opaque one."""
    background = None if alpha else (1.0, 1.0, 1.0)
    return _file(picture, "png", metadata.notes(record, in_xmp=False), background, None, None)


def converted(
    path: Path,
    format: Format,
    *,
    background: Colour | None = None,
    size: tuple[int, int] | None = None,
    clean: bool = False,
    quality: int | None = None,
) -> bytes:
    """Convert a finished picture to another file, always marked as AI-generated.

    Args:
        path: its PNG file.
        format: of the new file.
        background: an opaque colour, or None to keep transparency.
        size: (height, width) to enlarge it to, by Lanczos.
        clean: leave out the prompt and the settings.
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
            # Copy the pixels: multiplying by alpha and dividing again would round them.
            file = io.BytesIO()
            with Image.open(path) as image:
                images.save(file, image, format=format, notes=notes, quality=quality)
            return file.getvalue()
        picture = images.read(path)
    return _file(picture, format, notes, background, size, quality)


def original(path: Path) -> bytes:
    """The PNG file of a finished picture as it is stored.

    Raises:
        ApiError: as `own`.
    """
    with own(path):
        return path.read_bytes()


@contextmanager
def own(path: Path) -> Generator[None]:
    """Convert errors of the server's own files to API errors that do not reveal their folder.

    Raises:
        ApiError: the file is gone, or damaged.
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
    """The file of an unfinished picture, with the AI-generated mark as its only metadata."""
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
    """A preview as a small WebP file; since it can be saved, it is marked as AI-generated."""
    file = io.BytesIO()
    xmp = metadata.mark(composite=composite).xmp.encode()
    image = Image.fromarray(images.to_bytes(picture))
    image.save(file, "WEBP", quality=80, method=0, xmp=xmp)
    return file.getvalue()


def colour(text: str) -> Colour | None:
    """Parse a background of the API; None for a transparent one."""
    return None if text == "transparent" else images.colour(text)


def zipped(files: Iterable[tuple[str, Callable[[], bytes]]]) -> Generator[bytes]:
    """A zip of files, in pieces, stored without further compression.

    Files that are gone or damaged by the time that they are read are listed in `missing.txt`.

    Args:
        files: names, and what reads them.
    """
    pieces = _Pieces()
    missing: list[str] = []
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as archive:
        for name, read in files:
            try:
                data = read()
            except ApiError:
                missing.append(name)
                continue
            archive.writestr(name, data)
            yield pieces.taken()
        if missing:
            archive.writestr("missing.txt", "\n".join(missing))
    yield pieces.taken()


class _Pieces(io.RawIOBase):
    """A file that is written only, and taken away in pieces."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._data += data
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last time."""
        taken, self._data = bytes(self._data), bytearray()
        return taken


def _decoded(data: bytes, read: Callable[[Path], T]) -> T:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        try:
            return read(path)
        except FileFormatError as error:
            if isinstance(error.__cause__, MemoryError):
                raise ApiError(
                    503,
                    "There is not enough memory to read this picture now. Try again in a moment, "
                    "or send a smaller one.",
                    code="out_of_memory",
                    retry_after=5,
                ) from error
            raise _named(error, path) from error


def _named(error: FileFormatError, path: Path) -> Refusal:
    message = str(error).replace(str(path), "The picture that was sent")
    if isinstance(error, images.TooManyPixels):
        return Refusal(message, "picture_too_large", limit=error.limit)
    return Refusal(message, "unreadable_picture")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=4)  # faster than the default, and hardly larger
    return file.getvalue()
