"""What was painted, in the original picture at its own size."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asymflow.core.errors import InputError
from asymflow.io import images, restoring


def photo(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Noise, whose every pixel differs from its neighbours."""
    made = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    if channels == 4:
        made[..., 3] = 255
    return made


def spot(height: int, width: int) -> NDArray[np.float32]:
    """A mask that is 1 in a rectangle."""
    mask = np.zeros((height, width), np.float32)
    mask[height // 4 : height // 2, width // 2 : 3 * width // 4] = 1
    return mask


def plain(height: int, width: int, *colour: float) -> NDArray[np.float32]:
    return np.broadcast_to(np.array(colour, np.float32), (height, width, 4)).copy()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("small", [(64, 64), (48, 64), (64, 48)])
@pytest.mark.parametrize("scale", [1, 4])
def test_only_what_was_painted_is_new(channels: int, small: tuple[int, int], scale: int) -> None:
    original, mask = photo(300, 400, channels), spot(300 // scale, 400 // scale)
    found = restoring.restored(original, mask, plain(*small, 0, 1, 0, 1))
    assert (found.shape, found.dtype) == (original.shape, np.uint8)
    painted = np.kron(mask, np.ones((scale, scale))) > 0
    assert (found[~painted] == original[~painted]).all()
    # The middle of the spot is the new picture, where the cropped one reaches.
    assert found[112, 230, :3].tolist() == [0, 255, 0]


def test_the_edge_is_soft_on_the_inside() -> None:
    original = np.zeros((640, 640, 3), np.uint8)
    mask = np.zeros((640, 640), np.float32)
    mask[:, 320:] = 1
    row = restoring.restored(original, mask, plain(64, 64, 1, 1, 1, 1))[300, :, 0].astype(int)
    assert (row[:320] == 0).all()
    assert (np.diff(row) >= 0).all()
    assert row[320] < 60 < row[323] < 255
    assert (row[330:] == 255).all()


def test_greys_of_a_mask_blend() -> None:
    original, mask = np.zeros((640, 640, 3), np.uint8), np.full((640, 640), 0.5, np.float32)
    found = restoring.restored(original, mask, plain(64, 64, 1, 1, 1, 1))
    assert np.abs(found.astype(int) - 128).max() <= 1


def test_the_new_part_lies_where_the_small_picture_has_it() -> None:
    """A wide original of which the model saw the middle square."""
    original = np.zeros((400, 800, 3), np.uint8)
    small = plain(64, 64, 0, 0, 0, 1)
    small[16:32, 48:64] = 1  # rows 100 to 200, columns 500 to 600 of the original
    found = restoring.restored(original, np.ones((400, 800), np.float32), small)
    assert found[150, 550].tolist() == [255, 255, 255]
    assert found[150, 480].tolist() == found[250, 550].tolist() == [0, 0, 0]
    rows, columns = np.nonzero(found[..., 0] > 127)
    assert np.abs(np.array([rows.min(), rows.max() + 1]) - [100, 200]).max() <= 2
    assert np.abs(np.array([columns.min(), columns.max() + 1]) - [500, 600]).max() <= 4


def test_transparency_is_painted_into_drawings_and_not_into_photographs() -> None:
    mask, nothing = np.ones((128, 128), np.float32), plain(64, 64, 0, 0, 0, 0)
    opaque = photo(128, 128, 4)
    assert (restoring.restored(opaque, mask, nothing) == opaque).all()
    drawing = opaque.copy()
    drawing[:5, :, 3] = 0
    assert restoring.restored(drawing, mask, nothing)[64, 64, 3] == 0


def test_an_empty_mask_changes_nothing_and_another_shape_is_refused() -> None:
    original, small = photo(100, 100), plain(64, 64, 1, 1, 1, 1)
    assert (restoring.restored(original, np.zeros((50, 50), np.float32), small) == original).all()
    with pytest.raises(InputError, match="do not lie on each other"):
        restoring.restored(original, np.ones((50, 100), np.float32), small)


def test_a_drawing_on_a_colour_keeps_its_opaque_pixels() -> None:
    drawing = photo(20, 20, 4)
    drawing[:10, :, 3] = 0
    laid = restoring.laid_on(drawing, images.colour("#102030"))
    assert (laid[10:] == drawing[10:, :, :3]).all()
    assert (laid[:10] == (16, 32, 48)).all()
