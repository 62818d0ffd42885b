"""The preview in the terminal."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asymflow.cli import screen

RED, BLUE, CLEAR = (255, 0, 0, 255), (0, 0, 255, 255), (9, 9, 9, 0)


def pixels(*rows: tuple[tuple[int, int, int, int], ...]) -> NDArray[np.uint8]:
    return np.array(rows, np.uint8)


def test_two_pixels_share_a_character() -> None:
    text = screen.half_blocks(pixels((RED, RED, CLEAR, CLEAR), (BLUE, CLEAR, BLUE, CLEAR)))
    assert text.plain == "▀▀▄ \n"
    assert [str(span.style) for span in text.spans] == [
        "#ff0000 on #0000ff",
        "#ff0000",
        "#0000ff",
    ]


def test_an_odd_last_row_stands_on_nothing() -> None:
    assert screen.half_blocks(pixels((RED,), (RED,), (BLUE,))).plain == "▀\n▀\n"


@pytest.mark.parametrize(
    ("side", "columns", "rows", "expected"),
    [(64, 100, 40, (64, 64)), (128, 100, 40, (80, 80)), (64, 40, 40, (40, 40))],
)
def test_a_large_picture_is_made_to_fit(
    side: int, columns: int, rows: int, expected: tuple[int, int]
) -> None:
    picture = np.ones((side, side, 4), np.float32)
    assert screen.strip([picture], columns, rows).shape[:2] == expected


def test_as_many_pictures_as_fit_stand_side_by_side() -> None:
    picture = np.ones((32, 32, 4), np.float32)
    assert screen.strip([picture] * 5, 100, 40).shape[:2] == (32, 96)


def test_nothing_is_drawn_where_there_is_no_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    with screen.screen(2, preview=True) as advance:
        advance(1, lambda: pytest.fail("nobody looks"))
    assert capfd.readouterr() == ("", "")
