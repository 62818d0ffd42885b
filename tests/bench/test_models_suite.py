"""What the suite of four models demands of pictures, and how it notes what is wrong."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from benchmarks.suites import models
from numpy.typing import NDArray
from PIL import Image

from tests.helpers import draw


def picture(channels: int) -> NDArray[np.float32]:
    noise = np.clip(0.5 + 0.3 * draw(0, 8, 8, channels).numpy(), 0, 1)
    return np.broadcast_to(noise, (8, 8, 3)).astype(np.float32)


def file(of: NDArray[np.float32]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.round(255 * of).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_have_the_size_and_the_colours_of_the_model(channels: int) -> None:
    models.check_pixels(picture(channels), (8, 8), channels)
    with pytest.raises(models.WrongError, match=r"it is \(8, 8, 3\)"):
        models.check_pixels(picture(channels), (8, 16), channels)
    with pytest.raises(models.WrongError, match="one colour"):
        models.check_pixels(0 * picture(channels), (8, 8), channels)
    with pytest.raises(models.WrongError, match="grey" if channels == 1 else "colours"):
        models.check_pixels(picture(channels), (8, 8), 4 - channels)


def test_a_level_of_difference_is_noted(tmp_path: Path) -> None:
    drawn, outcome = tmp_path / "drawn.png", models.Outcome()
    drawn.write_bytes(file(picture(3)))
    other = picture(3).copy()
    other[2, 3, 1] -= 1.01 / 255
    outcome.step("same", partial(models.same_pixels, lambda: drawn.read_bytes(), drawn))
    outcome.step("other", partial(models.same_pixels, lambda: file(other), drawn))
    assert outcome.failed == {"other": "WrongError: the server is off by 1 levels"}
    assert outcome.seconds.keys() == {"same", "other"}


def test_a_command_that_fails_is_noted_with_what_it_said(tmp_path: Path) -> None:
    outcome = models.Outcome()
    outcome.step("generate", partial(models.command, "generate", "--nothing", here=tmp_path))
    assert "status 2: error: No such option: --nothing" in outcome.failed["generate"]
