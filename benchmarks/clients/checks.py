"""What the programs of all clients share: checks that print how they went, and pictures."""

from __future__ import annotations

import base64
import io
import json
import os
import traceback
import urllib.request
from collections.abc import Callable

from PIL import Image

URL = os.environ["SERVER"]
TOKEN = os.environ["TOKEN"]
BASE = f"{URL}/v1"
GREEN = (0, 200, 0)
LONG = "a red fox who sleeps in the snow, " * 200
"""7,000 characters, as a language model may write them."""

_checks: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Let `run` call a function, whose name says what is checked."""
    _checks.append(function)
    return function


def run() -> None:
    """Make all checks, and print a line of JSON for each."""
    for function in _checks:
        error = None
        try:
            function()
        except Exception:
            error = traceback.format_exc()[-1500:]
        name = function.__name__.replace("_", " ")
        print(json.dumps({"check": name, "error": error}), flush=True)


def equal(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{found!r} is not {wanted!r}")


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


Colour = float | tuple[int, ...]
PICTURE = png(Image.new("RGB", (64, 64), GREEN))


def mask(mode: str, keep: Colour, paint: Colour) -> bytes:
    """A mask whose right half is to be made anew."""
    image = Image.new(mode, (64, 64), keep)
    image.paste(paint, (32, 0, 64, 64))
    return png(image)


ALPHA = mask("RGBA", (0, 0, 0, 255), (0, 0, 0, 0))
GREY = mask("L", 0, 255)
OPAQUE = mask("RGBA", (0, 0, 0, 255), (255, 255, 255, 255))


def decoded(text: str | None) -> Image.Image:
    """A picture that came as base64."""
    assert text, "there is no b64_json"
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


def fetched(url: str | None) -> Image.Image:
    """A picture that came as an address, which needs no token."""
    assert url, "there is no url"
    with urllib.request.urlopen(url, timeout=60) as answer:
        image = Image.open(io.BytesIO(answer.read()))
    image.load()
    return image


def half_is_kept(image: Image.Image) -> None:
    """Only what the mask shows has changed."""
    pixels = image.convert("RGB")
    left = pixels.crop((0, 0, 32, 64)).getcolors()
    equal([colour for _, colour in left or []], [GREEN])
    right = pixels.crop((32, 0, 64, 64)).getcolors(maxcolors=4096)
    assert right is None or len(right) > 1, "nothing was made anew"
