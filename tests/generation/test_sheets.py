from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from asymflow.core.errors import InputError
from asymflow.generation.sheets import sheet


def solid(*rgba: float, side: int = 8) -> NDArray[np.float32]:
    return np.broadcast_to(np.array(rgba, np.float32), (side, side, 4))


def colours(image: Image.Image) -> set[object]:
    return {colour for _, colour in image.getcolors(1 << 20) or ()}


def test_premultiplied_pictures_are_composited_once() -> None:
    # Half-transparent red: premultiplied 0.5, on white 0.5 + 0.5.
    image = sheet([[solid(0.5, 0, 0, 0.5)]])
    assert colours(image) == {(255, 255, 255), (255, 128, 128)}


def test_bytes_and_floats_look_the_same() -> None:
    x = (np.random.default_rng(0).random((2, 3, 8, 8, 4)) * 255).astype(np.uint8)
    assert sheet(x).tobytes() == sheet(x.astype(np.float64) / 255).tobytes()


def test_order_and_scale() -> None:
    reds = np.linspace(0.1, 0.9, 6).reshape(2, 3)
    images = [[solid(red, 0, 0, 1) for red in row] for row in reds]
    image = sheet(images, scale=3)
    is_red = np.asarray(image)[..., 1] == 0
    assert is_red.sum() == 6 * 24 * 24
    found = np.asarray(image)[..., 0][is_red].reshape(2, 24, 3, 24)
    np.testing.assert_allclose(found[:, 0, :, 0], reds * 255, atol=0.51)


def test_scale_keeps_pixels_sharp() -> None:
    x = np.zeros((2, 2, 4))
    x[0, 0], x[1, 1], x[..., 3] = 1, 1, 1
    assert colours(sheet([[x]], scale=5)) == {(0, 0, 0), (255, 255, 255)}


def test_checker_shows_only_through() -> None:
    clear, opaque = solid(0, 0, 0, 0, side=32), solid(0, 0, 1, 1, side=32)
    assert len(colours(sheet([[clear]], background="checker"))) == 3  # two greys, white margin
    assert colours(sheet([[opaque]], background="checker")) == {(255, 255, 255), (0, 0, 255)}


def test_rows_may_be_shorter_and_pictures_smaller() -> None:
    images = [[solid(0, 0, 0, 1)], [solid(0, 0, 0, 1, side=16), solid(0, 0, 0, 1)]]
    image = sheet(images)
    assert (np.asarray(image)[..., 0] == 0).sum() == 2 * 64 + 256


def test_labels_take_room_and_leave_ink() -> None:
    images = np.ones((2, 3, 32, 32, 4))
    plain = sheet(images)
    assert colours(plain) == {(255, 255, 255)}
    rows = sheet(images, row_labels=["noto", "a rather long style name"])
    columns = sheet(images, col_labels=["8", "16", "32"])
    captions = sheet(images, captions=[["a", "b", "c"], ["", "", ""]])
    assert rows.width > plain.width
    assert rows.height == plain.height
    assert columns.height > plain.height
    assert plain.height < captions.height < sheet(images, captions=[["a"] * 3] * 2).height
    assert all(len(colours(image)) > 1 for image in (rows, columns, captions))


def test_long_captions_stay_in_their_column() -> None:
    images = np.ones((1, 2, 64, 64, 4))
    short = sheet(images, captions=[["", "x"]])
    long = sheet(images, captions=[["woman in motorized wheelchair facing right", "x"]])
    assert long.size == short.size
    right = (64 + 6 + 6, 0, *short.size)
    assert long.crop(right).tobytes() == short.crop(right).tobytes()


def test_accents_and_quotes_are_drawn_plain() -> None:
    images = np.ones((1, 1, 128, 128, 4))
    assert (
        sheet(images, captions=[["piñata\u2019s \u2013 x"]]).tobytes()
        == sheet(images, captions=[["pinata's - x"]]).tobytes()
    )


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    ([], {}, "0 pictures"),
    ([[]], {}, "0 pictures"),
    (np.ones((1, 1, 4, 8, 8)), {}, r"\(4, 8, 8\)"),
    (np.ones((1, 2, 8, 8, 4)), {"col_labels": ["a"]}, "1 column labels for 2 columns"),
    (np.ones((1, 2, 8, 8, 4)), {"row_labels": ["a", "b"]}, "2 row labels for 1 rows"),
    (np.ones((1, 2, 8, 8, 4)), {"captions": [["a"]]}, "one caption per picture"),
]


@pytest.mark.parametrize(("images", "options", "said"), WRONG)
def test_sheet_says_what_is_wrong(images: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        sheet(images, **options)
