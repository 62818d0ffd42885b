"""Damaged pictures, to every call that takes one. ASYMFLOW_FUZZ says how many."""

from __future__ import annotations

import io
import os

from PIL import Image

from .conftest import Running, Serve
from .damage import damaged

COUNT = int(os.environ.get("ASYMFLOW_FUZZ", "400"))


def sent(server: Running, number: int, data: bytes, whole: bytes) -> tuple[int, str]:
    """The status and the message that a damaged picture is answered with."""
    if number % 8 < 2:
        names = ("image", "mask") if number % 8 else ("mask", "image")
        answer = server.http.post(
            "/v1/images/edits",
            files=dict(zip(names, (data, whole), strict=True)),
            data={"prompt": "a fox", "quality": "no such quality"},
        )
    else:
        path = "/api/settings" if number % 8 == 2 else "/api/uploads"
        answer = server.http.post(path, content=data, headers={"Content-Type": "image/png"})
    return answer.status_code, "" if answer.is_success else answer.json()["error"]["message"]


def test_no_damaged_picture_breaks_the_server(serve: Serve) -> None:
    server = serve(burst=COUNT + 100)
    file = io.BytesIO()
    Image.new("RGBA", (24, 17), (200, 30, 30, 255)).save(file, "PNG")
    taken = 0
    for number, data in enumerate(damaged(COUNT)):
        status, message = sent(server, number, data, file.getvalue())
        assert status in (200, 201, 400), (number, status, message)
        assert "/tmp" not in message
        assert "Traceback" not in message
        taken += status < 400
    # Some damage does no harm, but most of it is found.
    assert 0 < taken < COUNT / 2
    assert server.http.get("/ready").status_code == 200
    store = server.app.state.studio.store
    for (id,) in store._db.execute("SELECT id FROM uploads").fetchall():
        with Image.open(store.upload_path(id)) as image:
            image.load()
            assert image.format == "PNG"
            assert not image.info
