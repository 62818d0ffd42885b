"""Pictures with something wrong with them, always the same ones."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image
from PIL.PngImagePlugin import PngInfo

Damage = Callable[[random.Random, bytes, bytes], bytes]


def damaged(count: int, seed: int = 0) -> Iterator[bytes]:
    """So many files: whole ones of every kind, of which each is damaged once or several times."""
    chance = random.Random(seed)
    whole = _whole()
    for _ in range(count):
        data = chance.choice(whole)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            data = chance.choice(_DAMAGES)(chance, data, chance.choice(whole))
        yield data


def _whole() -> list[bytes]:
    """Small pictures of every kind that is read, and some that are not."""
    gradient = Image.linear_gradient("L").resize((24, 17))
    colour = Image.merge("RGBA", (gradient, gradient.rotate(180), gradient, gradient))
    text = PngInfo()
    text.add_text("asymflow", '{"version": 1}', zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x>é</x>", zip=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    exif[0x010F] = "camera"
    rgb = colour.convert("RGB")
    return [
        _file(colour, "PNG", pnginfo=text),
        _file(colour.convert("P"), "PNG", transparency=3),
        _file(gradient.convert("I;16"), "PNG"),
        _file(gradient.convert("1"), "PNG"),
        _file(colour.convert("LA"), "PNG", exif=exif),
        _file(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90)]),
        _file(rgb, "JPEG", exif=exif),
        _file(rgb, "JPEG", progressive=True, quality=30),
        _file(rgb.convert("CMYK"), "JPEG"),
        _file(gradient, "JPEG", optimize=True),
        _file(colour, "WEBP", lossless=True),
        _file(rgb, "WEBP", quality=40, exif=exif),
        _file(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)]),
        _file(rgb.convert("P"), "GIF"),
        _file(rgb, "TIFF"),
        b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
    ]


def _file(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _cut(chance: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _flip(chance: random.Random, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 20))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _write(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Numbers that decoders trip over, in the place of others."""
    number = chance.choice((b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0"))
    at = chance.randrange(len(data) + 1)
    return data[:at] + number + data[at + len(number) :]


def _insert(chance: random.Random, data: bytes, other: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.choice((1, 4, 200))) + data[at:]


def _drop(chance: random.Random, data: bytes, other: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + data[at + chance.choice((1, 4, 50)) :]


def _splice(chance: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


def _rechunk(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """A PNG whose chunks are damaged, left out, doubled or moved under right checksums, so that
    the damage gets past them."""
    chunks: list[tuple[bytes, bytes]] = []
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return _flip(chance, data, other)
    number = chance.randrange(len(chunks))
    name, body = chunks[number]
    match chance.randrange(5):
        case 0:
            chunks[number] = name, _flip(chance, body, other)
        case 1:
            chunks[number] = name, _cut(chance, body, other)
        case 2:
            chunks[number] = name, _write(chance, body, other)
        case 3:
            chunks.insert(chance.randrange(len(chunks) + 1), (name, body))
        case _:
            del chunks[number]
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


_DAMAGES: tuple[Damage, ...] = (_cut, _flip, _write, _insert, _drop, _splice, _rechunk, _rechunk)
