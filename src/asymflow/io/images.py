"""Reads picture files defensively, and writes them with metadata.

In memory a picture is premultiplied RGBA [h, w, 4] in [0, 1] (`asymflow.core.types.Picture`).
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal
from xml.sax.saxutils import unescape

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo, PngStream

from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import Picture

Format = Literal["png", "webp", "jpeg"]
Mask = NDArray[np.float32]
Colour = tuple[float, float, float]

SUFFIXES: Mapping[str, Format] = MappingProxyType(
    {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
)
MAX_PIXELS = 16_000_000
"""Limit for reading. A file of a few kilobytes can declare billions of pixels."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNK, RECORD_CHUNK, XMP_CHUNK = "parameters", "asymflow", "XML:com.adobe.xmp"


class TooManyPixels(FileFormatError):
    """A picture has more pixels than the limit."""

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is made again from the arguments of Exception, which is the message.
        return type(self), (str(self), self.limit), vars(self)


@dataclass(frozen=True, slots=True)
class Notes:
    """The metadata of a picture file.

    Attributes:
        text: the parameter line of Stable Diffusion tools; or empty.
        record: JSON from which asymflow can make the picture again; or empty.
        xmp: an XMP packet; in other formats than PNG it must include the record.
    """

    text: str
    record: str
    xmp: str


def read(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a PNG, JPEG or WebP file, with its EXIF orientation applied.

    Raises:
        FileFormatError: it is missing, damaged, of another kind, or has more than `max_pixels`.
    """
    with _opened(path, max_pixels=max_pixels) as image:
        straight = _unit(image, "RGBA")
    straight[..., :3] *= straight[..., 3:]
    return straight


def read_levels(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a file as its own levels, upright: RGB [h, w, 3], or straight RGBA [h, w, 4].

    Raises:
        FileFormatError: as `read`.
    """
    with _opened(path, max_pixels=max_pixels) as image:
        if image.mode.startswith("I"):
            return _quantise(_unit(image, "RGBA"))
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB")).copy()


def read_mask(path: Path) -> Mask:
    """Read a picture as a mask [h, w]: white is 1, black and transparent are 0.

    Raises:
        FileFormatError: as `read`.
    """
    with _opened(path) as image:
        light = _unit(image, "LA")
    return light[..., 0] * light[..., 1]


def read_any_mask(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[Mask, bool]:
    """Read a mask [h, w] of either convention, 1 where to repaint; and whether it had no alpha.

    With alpha, transparent pixels are repainted. Without, white ones, on black.

    Raises:
        FileFormatError: as `read`.
        InputError: the mask is empty, or has colours and no alpha.
    """
    with _opened(path, max_pixels=max_pixels) as image:
        transparent = image.has_transparency_data
        pixels = _unit(image, "RGBA")
        mask = 1 - pixels[..., 3] if transparent else _unit(image, "LA")[..., 0]
    if not transparent and np.ptp(pixels[..., :3], axis=2).max() * 255 > _GROUND:
        raise InputError(
            "The mask has colours and no transparency, so it is unclear what to repaint. "
            "Make that part transparent, or white and everything else black."
        )
    if mask.max() < 0.5:
        raise InputError(
            "The mask has an alpha channel but no transparent pixel, so nothing would be made "
            "anew. Make it transparent where something is to change; a mask in black and white "
            "has to be sent without an alpha channel."
            if transparent
            else "The mask is black all over, so nothing would be made anew. Make it white where "
            "something is to change, or transparent."
        )
    return mask, not transparent


def read_record(path: Path) -> str | None:
    """Read the record that `write` stored, without decoding pixels; None if there is none.

    Raises:
        FileFormatError: the file is missing or of another kind, or the record is damaged.
    """
    with _opened(path, pixels=False) as image:
        notes = _texts(path) if image.format == "PNG" else image.info
    record = notes.get(RECORD_CHUNK)
    if isinstance(record, str):
        return record
    xmp = notes.get("xmp", b"")
    return record_in_xmp(xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp))


def digest(array: NDArray[np.float32]) -> str:
    """SHA-256 of an array's shape and numbers."""
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


_GROUND = 24
"""Tolerance in levels for pixels of the background colour."""
_EDGE = 0.9
"""Minimal share of the edge that has one colour in a picture with a flat background."""


def fit(array: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A picture [h, w, 4] or a mask [h, w] at (height, width): centre cropped, never stretched."""
    height, width = array.shape[:2]
    if (height, width) == size:
        return array
    scale = max(size[0] / height, size[1] / width)
    crop_h, crop_w = size[0] / scale, size[1] / scale
    # Rounding may give an offset slightly below 0.
    left, top = max(0.0, (width - crop_w) / 2), max(0.0, (height - crop_h) / 2)
    box = (left, top, min(left + crop_w, width), min(top + crop_h, height))
    if array.ndim == 2:
        # An average keeps 0 exactly 0; Lanczos would ring into the part to keep.
        return _resize(array, size, box, Image.Resampling.BOX)
    channels = [_resize(array[..., i], size, box, Image.Resampling.LANCZOS) for i in range(4)]
    result = np.stack(channels, axis=-1)
    return np.minimum(result, result[..., 3:])


def cut_out(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Remove the flat background of a picture [h, w, 4], such as a scribble on paper.

    Pixels of the edge's colour that are connected to the edge become transparent. A picture that
    has transparent pixels already, only one colour, or several at its edge, like a photograph,
    stays unchanged.
    """
    if array[..., 3].min() < 1:
        return array
    colours = np.rint(array[..., :3] * 255).astype(np.uint8)
    edge = np.concatenate((colours[0], colours[-1], colours[:, 0], colours[:, -1])).astype(int)
    ground = np.median(edge, axis=0)
    if (np.abs(edge - ground).max(axis=1) <= _GROUND).mean() < _EDGE:
        return array
    near = [np.abs(colours[..., i] - np.float32(ground[i])) <= _GROUND for i in range(3)]
    like = near[0] & near[1] & near[2]
    # A border of one pixel connects parts of the background that an object at the edge separates.
    kept = ~_reached(np.pad(like, 1, constant_values=True))[1:-1, 1:-1]
    return array * kept[..., None].astype(np.float32) if kept.any() else array


def _reached(free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The free pixels [h, w] that are connected to the first one, by sides.

    Runs of free pixels in rows are joined with those that they touch, to the smallest number of a
    part. A flood fill, pixel by pixel, takes many seconds for a large photo of a sheet of paper.
    """
    before = np.pad(free, ((0, 0), (1, 0)))[:, :-1]
    run = np.cumsum(free & ~before, dtype=np.int64).reshape(free.shape) - 1
    both = free[:-1] & free[1:]
    above, below = run[:-1][both], run[1:][both]
    parts = np.arange(run[-1, -1] + 1)
    while True:
        a, b = parts[above], parts[below]
        apart = a != b
        if not apart.any():
            return free & (parts[run] == parts[0])
        above, below = a[apart], b[apart]
        np.minimum.at(parts, np.maximum(above, below), np.minimum(above, below))
        while not np.array_equal(parts, nearer := parts[parts]):
            parts = nearer


def colour(text: str) -> Colour:
    """Parse a CSS colour: a name, #rrggbb or the like.

    Raises:
        InputError: it is not a colour, or not opaque.
    """
    try:
        values = ImageColor.getrgb(text)
    except ValueError as error:
        raise InputError(
            f"{text[:40]!r} is not a colour. Give a CSS name or a hex code, such as white or "
            "'#ffd700'."
        ) from error
    if len(values) == 4 and values[3] != 255:
        raise InputError(f"{text!r} is not opaque. A background needs a colour without alpha.")
    return values[0] / 255, values[1] / 255, values[2] / 255


def to_bytes(picture: Picture, background: Colour | None = None) -> NDArray[np.uint8]:
    """Convert to uint8 [h, w, 4] with straight alpha, or [h, w, 3] on an opaque background.

    A transparent pixel beside a visible one gets its neighbours' colour: otherwise programs that
    enlarge before they multiply by alpha would show a dark fringe.
    """
    rgb, alpha = picture[..., :3], picture[..., 3:]
    if background is not None:
        return _quantise(rgb + (1 - alpha) * np.array(background, np.float32))
    visible = _quantise(alpha) > 0
    straight = np.where(visible, _divided(rgb, alpha), _surroundings(picture, visible))
    return _quantise(np.concatenate((straight, alpha), axis=-1))


def write(
    file: BinaryIO,
    picture: Picture,
    *,
    format: Format,
    background: Colour | None = None,
    notes: Notes,
    quality: int | None = None,
) -> None:
    """Write a picture. WebP is lossless by default, with the same pixels as PNG.

    Args:
        file: to write to.
        picture: premultiplied RGBA.
        format: of the file.
        background: an opaque colour, or None to keep transparency.
        notes: the metadata.
        quality: 0 to 100 of JPEG, and of WebP, which is then lossy.
    """
    image = Image.fromarray(to_bytes(picture, background))
    save(file, image, format=format, notes=notes, quality=quality)


def save(
    file: BinaryIO,
    image: Image.Image,
    *,
    format: Format,
    notes: Notes,
    quality: int | None = None,
) -> None:
    """Write a Pillow image with its notes; `quality` as in `write`."""
    large = image.width * image.height > _PATIENT
    image.save(file, format.upper(), **_options(format, notes, quality, large))


def record_in_xmp(xmp: str) -> str | None:
    """The record in an XMP packet made by `asymflow.generation.metadata`, or None."""
    _, found, rest = xmp.partition("<asymflow:record>")
    return unescape(rest.partition("</asymflow:record>")[0]) if found else None


_PATIENT = 128 * 128
"""Pixels up to which compression is maximal. For larger pictures that would take longer than to
generate them, and save little."""
_LEVEL = 4
"""PNG compression level, from 1 to 9."""
_EFFORT = 20
"""Compression effort of lossless WebP, from 0 to 100."""


def _options(format: Format, notes: Notes, quality: int | None, large: bool) -> dict[str, Any]:
    if format == "png":
        info = PngInfo()
        for chunk, text in ((TEXT_CHUNK, notes.text), (RECORD_CHUNK, notes.record)):
            if text:
                info.add_text(chunk, text)
        info.add_itxt(XMP_CHUNK, notes.xmp)
        return {"pnginfo": info, **({"compress_level": _LEVEL} if large else {"optimize": True})}
    common: dict[str, Any] = {"xmp": notes.xmp.encode()}
    if notes.text:
        common["exif"] = _exif(notes.text)
    if format == "webp":
        if quality is not None:
            return {"quality": quality, **common}
        effort = {"quality": _EFFORT} if large else {}
        return {"lossless": True, "exact": True, **effort, **common}
    return {"quality": 95 if quality is None else quality, "subsampling": 0, **common}


def _exif(text: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode(
        "utf-16-be"
    )
    return exif.tobytes()


@contextmanager
def _opened(
    path: Path, *, pixels: bool = True, max_pixels: int = MAX_PIXELS
) -> Generator[Image.Image]:
    """Open an image with its EXIF orientation applied; decoder errors are `FileFormatError`s."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise FileFormatError(f"Cannot read the picture {path}: it {what}.")
    try:
        with warnings.catch_warnings():
            # Pillow only warns about sizes between its limit and twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=("PNG", "JPEG", "WEBP"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, "far more than") from error
    except UnidentifiedImageError as error:
        raise FileFormatError(
            f"{path} is not a PNG, JPEG or WebP picture, or a damaged one. Convert it to PNG."
        ) from error
    except Exception as error:  # decoders raise all kinds of errors for damaged files
        raise _damaged(path, error) from error
    with image:
        if image.width * image.height > max_pixels:
            raise _too_large(path, f"{image.width}x{image.height} pixels, more than", max_pixels)
        try:
            if pixels:
                image.load()
            yield ImageOps.exif_transpose(image) if pixels else image
        except Exception as error:
            raise _damaged(path, error) from error


def _texts(path: Path) -> Mapping[Any, Any]:
    """The text chunks of a PNG file, including those after its pixels."""
    with path.open("rb") as file, PngStream(file) as stream:
        file.seek(len(_SIGNATURE))
        while True:
            name, start, length = stream.read()
            if name == b"IEND":
                return stream.im_info
            if name in (b"tEXt", b"zTXt", b"iTXt"):
                stream.crc(name, stream.call(name, start, length))
            else:
                file.seek(length + 4, os.SEEK_CUR)


def _too_large(path: Path, how_much: str, most: int = MAX_PIXELS) -> TooManyPixels:
    limit = f"{most // 10**6} megapixels" if most >= 10**6 else f"{most} pixels"
    return TooManyPixels(f"{path} has {how_much} the {limit} that are read. Shrink it.", most)


def _damaged(path: Path, error: Exception) -> FileFormatError:
    return FileFormatError(f"{path} is damaged or cut off: {error}. Get it again.")


def _unit(image: Image.Image, mode: Literal["RGBA", "LA"]) -> NDArray[np.float32]:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to 8
        grey = np.asarray(image).astype(np.float32) / np.float32(65535)
        return np.stack([*[grey] * (len(mode) - 1), np.ones_like(grey)], axis=-1)
    if image.mode not in ("RGBA", "LA"):
        image = image.convert("RGBA")
    return np.asarray(image.convert(mode), np.float32) / np.float32(255)


def _resize(
    channel: NDArray[np.float32],
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    resample: Image.Resampling,
) -> NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(channel))
    resized = image.resize((size[1], size[0]), resample, box=box)
    return np.asarray(resized, np.float32).clip(0, 1)


def _quantise(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def _surroundings(picture: Picture, visible: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Straight colour [h, w, 3] of each pixel's visible neighbours, 0 where it has none."""
    height, width = picture.shape[:2]
    padded = np.pad(picture * visible, ((1, 1), (1, 1), (0, 0)))
    total = np.zeros_like(picture)
    for y in range(3):
        for x in range(3):
            total += padded[y : y + height, x : x + width]
    return _divided(total[..., :3], total[..., 3:])


def _divided(rgb: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Premultiplied colour divided by alpha; black where alpha is invisibly small."""
    return np.divide(rgb, alpha, out=np.zeros_like(rgb), where=alpha > 1e-3)
