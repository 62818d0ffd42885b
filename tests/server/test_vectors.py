"""Pictures of the studio as SVG, and rendered from that."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from asymflow.core.card import Card
from tests.fakes import FakeModel

from .conftest import Running, Serve


def test_a_picture_has_an_svg_and_is_rendered_from_it(studio: Running) -> None:
    job = studio.over(studio.ask("a red apple", seed=1)["id"])
    [picture] = job["pictures"]
    address = f"/api/pictures/{picture['id']}"
    svg = studio.http.get(f"{address}/svg")
    assert svg.headers["content-type"] == "image/svg+xml"
    assert "a red apple" in svg.text
    assert "a red apple" not in studio.http.get(f"{address}/svg?clean=true").text
    for format, mode in (("png", "RGBA"), ("webp", "RGBA"), ("jpeg", "RGB")):
        answer = studio.http.get(f"{address}/rendered?format={format}")
        with Image.open(io.BytesIO(answer.content)) as image:
            assert (image.size, image.mode) == ((1024, 1024), mode), format
        assert answer.headers["content-type"] == f"image/{format}"
    drawn = np.asarray(Image.open(io.BytesIO(studio.http.get(f"{address}/rendered").content)))
    assert drawn[0, 0, 3] == 0  # transparent, as the picture
    assert ((drawn[..., 3] > 0) & (drawn[..., 3] < 255)).mean() < 0.02  # sharp edges


def test_what_is_no_flat_drawing_has_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    card = replace(FakeModel().card, flat=False)

    def photographic(self: FakeModel) -> Card:
        return card

    monkeypatch.setattr(FakeModel, "card", property(photographic))
    server = serve()
    [picture] = server.over(server.ask()["id"])["pictures"]
    for path in ("svg", "rendered"):
        answer = server.http.get(f"/api/pictures/{picture['id']}/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_flat")
    assert server.http.get("/api/pictures/none/svg").status_code == 404
