"""Flat drawings as SVG: near to their pixels, small, and well-formed."""

from __future__ import annotations

import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from asymflow.core.errors import MissingExtra
from asymflow.io import images, tracing
from asymflow.io.images import Notes

NONE = Notes("", "", "")
SVG = "{http://www.w3.org/2000/svg}"


def disc(side: int = 64, radius: float = 0.3) -> NDArray[np.float32]:
    """A red disc with a white one inside, and soft edges, on nothing: premultiplied RGBA."""
    y, x = np.mgrid[:side, :side] + 0.5
    distance = np.hypot(y - side / 2, x - side / 2)
    outer = np.clip(radius * side - distance + 0.5, 0, 1)
    inner = np.clip(radius * side / 2 - distance + 0.5, 0, 1)
    picture = np.zeros((side, side, 4), np.float32)
    picture[..., 3] = outer
    picture[..., 0] = outer
    picture[..., 1] = picture[..., 2] = inner
    return picture


@pytest.mark.parametrize("shape", [(64, 64), (128, 128), (64, 96), (16, 16)])
def test_a_drawing_is_traced_closely(shape: tuple[int, int]) -> None:
    height, width = shape
    picture = images.fit(np.pad(disc(), [(0, 0), (0, 64 * width // height - 64), (0, 0)]), shape)
    data = tracing.svg(picture, title="a disc", notes=NONE)
    drawn = tracing.rendered(data, shape)
    assert drawn.shape == (*shape, 4)
    assert np.sqrt(((drawn - picture) ** 2).mean()) < 0.05
    assert len(data) < 20_000


def test_what_is_transparent_stays_so_and_a_background_fills_it() -> None:
    data = tracing.svg(disc(), title="", notes=NONE)
    drawn = tracing.rendered(data, (256, 256))
    assert drawn[0, 0].tolist() == [0, 0, 0, 0]
    assert drawn[128, 60, 3] == 1
    filled = tracing.svg(disc(), title="", notes=NONE, background=(0, 0, 1))
    assert tracing.rendered(filled, (256, 256))[0, 0].tolist() == [0, 0, 1, 1]


def test_edges_are_sharp_at_any_size() -> None:
    drawn = tracing.rendered(tracing.svg(disc(), title="", notes=NONE), (1024, 1024))
    soft = (drawn[..., 3] > 0) & (drawn[..., 3] < 1)
    assert soft.mean() < 0.01  # of the 64 px picture it is a fifth of the disc's edge


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_traced_as_well(seed: int) -> None:
    noise = np.random.default_rng(seed).random((64, 64, 4)).astype(np.float32)
    noise[..., :3] *= noise[..., 3:]
    data = tracing.svg(noise, title="", notes=NONE)
    assert ElementTree.fromstring(data).findall(f"{SVG}path")
    assert all(path.get("d") for path in ElementTree.fromstring(data).iter(f"{SVG}path"))


def test_specks_are_no_shapes() -> None:
    speckled = disc()
    speckled[2, 2] = 1  # one pixel
    speckled[20:24, 2:6] = 1  # and sixteen
    drawn = tracing.rendered(tracing.svg(speckled, title="", notes=NONE), (64, 64))
    assert drawn[2, 2, 3] == 0
    assert drawn[22, 4, 3] > 0.9


@pytest.mark.parametrize("picture", [np.zeros((64, 64, 4), np.float32), np.ones((64, 64, 4))])
def test_empty_and_plain_pictures_have_an_svg(picture: NDArray[np.float32]) -> None:
    data = tracing.svg(picture.astype(np.float32), title="", notes=NONE)
    assert np.abs(tracing.rendered(data, (64, 64)) - picture).max() < 0.01


def test_the_title_and_the_record_survive_as_xml() -> None:
    title, record = 'a <fox> & "friends"', '{"prompt": "a <fox> & \'co\' ]]>"}'
    from xml.sax.saxutils import escape

    xmp = (
        '<?xpacket begin="\ufeff" id="x"?><x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:asymflow="u:">'
        f"<asymflow:record>{escape(record)}</asymflow:record></x:xmpmeta><?xpacket end='r'?>"
    )
    data = tracing.svg(disc(), title=title, notes=Notes("", "", xmp))
    root = ElementTree.fromstring(data)
    assert root.findtext(f"{SVG}title") == title
    assert images.record_in_xmp(data.decode()) == record
    assert tracing.rendered(data, (64, 64))[32, 32, 3] == 1


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vtracer", "resvg_py"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(MissingExtra, match=r"\[svg\]"):
                tracing.require()
    tracing.require()
