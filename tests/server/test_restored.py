"""Inpainted pictures of the studio, in the picture that they began with."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .conftest import Running, Serve

KIND = {"Content-Type": "image/png"}


def png(levels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


def levels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def upload(server: Running, made: NDArray[np.uint8]) -> str:
    return server.http.post("/api/uploads", content=png(made), headers=KIND).json()["id"]


def test_the_original_comes_back_with_the_painted_part(serve: Serve) -> None:
    server = serve()
    y, x = np.mgrid[:2400, :3200]
    original = np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8)
    mask = np.zeros((600, 800), np.uint8)
    mask[150:300, 400:600] = 255
    painting = {"image": upload(server, original), "mask": upload(server, mask)}
    [picture] = server.over(server.ask(**painting)["id"])["pictures"]
    address = f"/api/pictures/{picture['id']}/restored"

    sent = server.http.post(address, content=png(original), headers=KIND)
    assert sent.headers["content-type"] == "image/png"
    found = levels(sent.content)
    outside = np.ones((2400, 3200), bool)
    outside[600:1200, 1600:2400] = False
    assert found.shape == original.shape
    assert (found[outside] == original[outside]).all()
    inside = found[700:1100, 1700:2300].astype(int)
    assert np.abs(inside - original[700:1100, 1700:2300]).mean() > 20
    assert b"a red apple" in sent.content
    clean = server.http.post(f"{address}?clean=true", content=png(original), headers=KIND).content
    assert b"a red apple" not in clean
    assert b"compositeWithTrainedAlgorithmicMedia" in clean

    kept = server.http.get(f"/api/uploads/{painting['image']}").content
    ours = levels(server.http.get(address).content)
    assert ours.shape[:2] == levels(kept).shape[:2] == (1536, 2048)
    assert (ours[:300] == levels(kept)[:300]).all()

    other = server.http.post(address, content=png(original[:1000]), headers=KIND)
    assert other.status_code == 400
    assert "another shape" in other.json()["error"]["message"]


def test_a_picture_that_was_not_painted_into_another_is_refused(serve: Serve) -> None:
    server = serve()
    [picture] = server.over(server.ask()["id"])["pictures"]
    answer = server.http.get(f"/api/pictures/{picture['id']}/restored")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_inpainted")
    assert server.http.get("/api/pictures/none/restored").status_code == 404


def test_a_padded_job_is_put_back_where_it_was(serve: Serve) -> None:
    server = serve()
    original = np.full((100, 200, 3), 255, np.uint8)
    mask = np.zeros((100, 200), np.uint8)
    mask[:, :100] = 255
    ids = {"image": upload(server, original), "mask": upload(server, mask)}
    [picture] = server.over(server.ask(**ids, fit="pad")["id"])["pictures"]
    found = levels(server.http.get(f"/api/pictures/{picture['id']}/restored").content)
    assert found.shape[:2] == (100, 200)
    assert (found[:, 100:, :3] == 255).all()
    assert (found[50, :90, :3] != 255).any()
