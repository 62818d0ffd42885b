"""Masks as programs send them: never a picture that comes back unchanged without a word."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from .conftest import Running

SIDE = 32
GREEN = (0, 200, 0)


def file(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def halves(mode: str, left: Any, right: Any, side: int = SIDE) -> Image.Image:
    image = Image.new(mode, (side, side), left)
    image.paste(right, (side // 2, 0, side, side))
    return image


PICTURE = file(Image.new("RGB", (SIDE, SIDE), GREEN))
PALETTE = halves("L", 0, 255).convert("P")
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def edit(server: Running, mask: bytes, name: str = "mask", **more: str) -> httpx.Response:
    return server.http.post(
        "/v1/images/edits",
        files={"image": ("a.png", PICTURE), name: ("m.png", mask)},
        data={"prompt": "a red apple", "size": "32x32", "quality": "low", "seed": "1", **more},
    )


def made(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    data = base64.b64decode(answer.json()["data"][0]["b64_json"])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def keeps_the_left_half_only(answer: httpx.Response) -> bool:
    found = made(answer)
    kept = (found[:, : SIDE // 2] == (*GREEN, 255)).all()
    return bool(kept and (found[:, SIDE // 2 :] != (*GREEN, 255)).any())


@pytest.mark.parametrize(
    "mask",
    [
        file(halves("RGB", BLACK, WHITE)),
        file(halves("L", 0, 255)),
        file(halves("1", 0, 1)),
        file(Image.fromarray(np.asarray(halves("L", 0, 255), np.uint16) * 257)),
        file(PALETTE),
        file(halves("RGB", BLACK, WHITE), "JPEG", quality=95),
        file(halves("L", 0, 255), "JPEG", quality=60),
        file(halves("RGB", BLACK, WHITE), "WEBP", lossless=True),
        file(halves("L", 0, 255, 4 * SIDE)),
    ],
    ids=["RGB", "grey", "1 bit", "16 bit", "palette", "JPEG", "grey JPEG", "WebP", "larger"],
)
def test_a_mask_in_black_and_white_is_white_where_to_paint(studio: Running, mask: bytes) -> None:
    answer = edit(studio, mask)
    assert keeps_the_left_half_only(answer)
    assert answer.headers["x-asymflow-mask"] == "white"
    assert answer.json()["asymflow"]["mask"] == "white"


@pytest.mark.parametrize(
    "mask",
    [
        file(halves("RGBA", (*BLACK, 255), (*WHITE, 0))),
        file(halves("LA", (0, 255), (0, 0))),
        file(PALETTE, transparency=PALETTE.getpixel((SIDE - 1, 0))),
        file(halves("RGB", BLACK, WHITE), transparency=WHITE),
    ],
    ids=["RGBA", "grey and alpha", "palette", "RGB with one transparent colour"],
)
def test_a_mask_with_alpha_is_transparent_where_to_paint(studio: Running, mask: bytes) -> None:
    answer = edit(studio, mask)
    assert keeps_the_left_half_only(answer)
    assert "x-asymflow-mask" not in answer.headers
    assert answer.json()["asymflow"]["mask"] == "transparent"


@pytest.mark.parametrize(
    ("mask", "cause"),
    [
        (halves("RGBA", (*BLACK, 255), (*WHITE, 255)), "no transparent pixel"),
        (halves("RGBA", (*BLACK, 255), (*WHITE, 250)), "no transparent pixel"),
        (halves("LA", (0, 255), (255, 255)), "no transparent pixel"),
        (halves("RGB", BLACK, BLACK), "black all over"),
        (halves("RGB", BLACK, (60, 60, 60)), "black all over"),
        (halves("RGB", BLACK, (255, 0, 120)), "colours and no transparency"),
    ],
)
def test_a_mask_that_shows_nothing_is_refused(
    studio: Running, mask: Image.Image, cause: str
) -> None:
    answer = edit(studio, file(mask))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert cause in error["message"]
    assert (error["param"], error["code"]) == ("mask", "invalid_mask")


def test_a_mask_is_also_found_by_the_name_of_a_list(studio: Running) -> None:
    assert keeps_the_left_half_only(edit(studio, file(halves("L", 0, 255)), "mask[]"))


def test_two_masks_are_refused(studio: Running) -> None:
    mask = ("m.png", file(halves("L", 0, 255)))
    answer = studio.http.post(
        "/v1/images/edits",
        files=[("image", ("a.png", PICTURE)), ("mask", mask), ("mask[]", mask)],
        data={"prompt": "a fox"},
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "mask"
    assert "2 files were sent as `mask`" in answer.json()["error"]["message"]


def test_a_mask_as_text_is_refused(studio: Running) -> None:
    url = "data:image/png;base64," + base64.b64encode(file(halves("L", 0, 255))).decode()
    answer = studio.http.post(
        "/v1/images/edits",
        files={"image": ("a.png", PICTURE)},
        data={"prompt": "a fox", "mask": url},
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "mask")
    assert "sent as text" in answer.json()["error"]["message"]


def test_a_mask_that_was_not_chosen_is_none(studio: Running) -> None:
    """As the form of a browser sends it, with nothing in it."""
    boundary = "x" * 20
    parts = [
        ('name="image"; filename="a.png"', PICTURE),
        ('name="mask"; filename=""', b""),
        ('name="prompt"', b"a fox"),
        ('name="size"', b"32x32"),
        ('name="quality"', b"low"),
    ]
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    answer = studio.http.post(
        "/v1/images/edits",
        content=body + f"--{boundary}--\r\n".encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    assert answer.status_code == 200, answer.text
    assert "mask" not in answer.json()["asymflow"]


def test_a_mask_of_another_shape_is_refused_before_anything_is_made(studio: Running) -> None:
    answer = edit(studio, file(halves("L", 0, 255).resize((48, 32))))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("mask", "invalid_mask")
    assert "The mask has 48x32 pixels and the picture has 32x32" in error["message"]


def test_a_mask_whose_part_is_cropped_away_is_refused(studio: Running) -> None:
    wide = Image.new("L", (96, 32), 0)
    wide.paste(255, (0, 0, 16, 32))
    answer = studio.http.post(
        "/v1/images/edits",
        files={
            "image": ("a.png", file(Image.new("RGB", (96, 32), GREEN))),
            "mask": ("m.png", file(wide)),
        },
        data={"prompt": "a fox", "size": "32x32", "quality": "low"},
    )
    assert answer.status_code == 400
    assert "is cut off where the picture is cropped to 32x32" in answer.json()["error"]["message"]


def test_files_of_unknown_fields_are_named(studio: Running) -> None:
    answer = studio.http.post(
        "/v1/images/edits",
        files={"image": ("a.png", PICTURE), "masks": ("m.png", PICTURE)},
        data={"prompt": "a fox", "size": "32x32", "quality": "low", "image[]": "x"},
    )
    assert answer.status_code == 200
    assert answer.headers["x-asymflow-ignored"] == "image??, masks"


@given(
    st.sampled_from(["RGB", "RGBA", "L", "LA", "1", "P"]),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 255),
)
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_no_mask_is_without_effect_and_without_a_word(
    studio: Running, mode: str, light: int, alpha: int, hole: int
) -> None:
    """It changes the picture, or is refused and says why."""
    colour = {
        "RGB": (light, light, light),
        "RGBA": (light, light, light, alpha),
        "LA": (light, alpha),
    }.get(mode, light)
    shown = {"RGBA": (255, 255, 255, hole), "LA": (255, hole)}.get(mode)
    image = Image.new(mode, (SIDE, SIDE), colour)
    if shown is not None:
        image.paste(shown, (0, 0, SIDE // 2, SIDE))
    answer = edit(studio, file(image))
    if answer.status_code == 400:
        assert answer.json()["error"]["code"] == "invalid_mask"
    else:
        assert (made(answer) != (*GREEN, 255)).any()
