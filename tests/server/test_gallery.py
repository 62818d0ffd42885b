"""The gallery: search, favourites, the trash, and zips of everything that is found."""

from __future__ import annotations

import io
import sqlite3
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any, cast

import pytest

from asymflow.server import media
from asymflow.server.store import Query, Store, new_id
from asymflow.server.views import Facts

from .conftest import Running, Serve


@pytest.fixture
def server(serve: Serve) -> Running:
    return serve()


def found(server: Running, **query: Any) -> list[str]:
    """The prompts of what a query finds."""
    answer = server.http.get("/api/pictures", params=query)
    answer.raise_for_status()
    return [each["prompt"] for each in answer.json()["pictures"]]


def ids(server: Running, *prompts: str) -> list[str]:
    """Pictures of these prompts, in this order."""
    jobs = [server.over(server.ask(prompt)["id"]) for prompt in prompts]
    return [job["pictures"][0]["id"] for job in jobs]


def test_words_find_prompts_in_any_script_and_page_by_page(server: Running) -> None:
    ids(server, "a red FOX", "ein Fuchs in Grün", "100% fox_trot", "a fox and an Owl")
    assert found(server, q="fox") == ["a fox and an Owl", "100% fox_trot", "a red FOX"]
    assert found(server, q="  OWL  fox ") == ["a fox and an Owl"]
    assert found(server, q="GRÜN") == ["ein Fuchs in Grün"]
    assert found(server, q="0% f") == ["100% fox_trot"]
    assert found(server, q="_") == ["100% fox_trot"]  # no wildcard
    assert found(server, q="'; --") == []
    first = server.http.get("/api/pictures?q=fox&limit=2").json()
    assert len(first["pictures"]) == 2
    rest = server.http.get(f"/api/pictures?q=fox&limit=2&before={first['next']}").json()
    assert [each["prompt"] for each in rest["pictures"]] == ["a red FOX"]
    assert rest["next"] is None


def test_favourites_are_found_and_outlive_the_others(serve: Serve) -> None:
    server = serve(gallery_seconds=100.0)
    fox, owl = ids(server, "a fox", "an owl")
    changed = server.http.post("/api/pictures/favourite", json={"ids": [fox, "nothing"]}).json()
    assert [(each["id"], each["favourite"]) for each in changed["pictures"]] == [(fox, True)]
    assert changed["missing"] == ["nothing"]
    assert found(server, favourites=True) == ["a fox"]
    # Pages that are open now, or are opened later, are told.
    jobs = server.http.get("/api/jobs").json()["jobs"]
    assert [job["pictures"][0]["favourite"] for job in jobs] == [False, True]
    store = server.app.state.studio.store
    store.purge(undo=60, passing=60, uploads=60, gallery=None)
    assert found(server) == ["an owl", "a fox"]
    store.purge(undo=60, passing=60, uploads=60, gallery=0)
    assert found(server) == ["a fox"]
    assert not store.picture_path(owl).exists()
    server.http.post("/api/pictures/favourite", json={"ids": [fox], "favourite": False})
    assert found(server, favourites=True) == []


def test_many_are_deleted_and_come_back_in_one_call(server: Running) -> None:
    made = ids(server, "one", "two", "three", "four")
    gone = server.http.post("/api/pictures/delete", json={"ids": made[:3]}).json()
    assert [each["deleted"] for each in gone["pictures"]] == [True] * 3
    assert found(server) == ["four"]
    assert found(server, trash=True) == ["three", "two", "one"]
    back = server.http.post("/api/pictures/restore", json={"ids": made[:3]}).json()
    assert [each["id"] for each in back["pictures"]] == made[:3]
    assert found(server) == ["four", "three", "two", "one"]
    assert found(server, trash=True) == []


def test_many_are_deleted_together_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    facts = Facts(prompt="a", seed=1, width=8, height=8, seconds=0.1, forwards=2)
    made = [new_id() for _ in range(4)]
    for id in made:
        store.write_picture(id, b"a")
        store.add_picture(id, new_id(), 0, facts, listed=True)

    broken = cast("str", object())  # fails in the midst of them
    with pytest.raises(sqlite3.Error):
        store.hide([*made[:2], broken, made[2]], hidden=True)
    assert [row.id for row in store.gallery(None, 9)] == made[::-1]
    store.close()


def test_the_trash_is_emptied(server: Running) -> None:
    made = ids(server, "one", "two", "three")
    store = server.app.state.studio.store
    server.http.post("/api/pictures/delete", json={"ids": made[:2]})
    assert server.http.delete("/api/trash").json() == {"deleted": 2}
    assert server.http.delete("/api/trash").json() == {"deleted": 0}
    assert [store.picture_path(id).exists() for id in made] == [False, False, True]
    gone = server.http.post("/api/pictures/restore", json={"ids": made}).json()
    assert gone["missing"] == made[:2]
    assert found(server) == ["three"]


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_zip_has_everything_that_is_found(server: Running) -> None:
    fox, _, cub = ids(server, "a fox", "an owl", "a fox cub")
    files = unpacked(server.http.get("/api/pictures/zip?q=fox").content)
    assert len(files) == 2
    originals = [server.http.get(f"/api/pictures/{id}/file").content for id in (cub, fox)]
    assert list(files.values()) == originals
    assert all(name.startswith(("001-a-fox-cub-", "002-a-fox-")) for name in files)
    assert len(unpacked(server.http.get("/api/pictures/zip").content)) == 3
    assert unpacked(server.http.get("/api/pictures/zip?q=nothing").content) == {}


def test_without_settings_neither_files_nor_names_have_any(server: Running) -> None:
    [fox] = ids(server, "a secretive fox")
    seed = str(server.http.get(f"/api/pictures/{fox}").json()["seed"])
    for path in (f"/api/pictures/{fox}/file?clean=1&download=1", "/api/pictures/zip?clean=1"):
        answer = server.http.get(path)
        told = answer.headers["content-disposition"].encode() + answer.content
        assert b"secretive" not in told
        assert seed.encode() not in told
    assert list(unpacked(server.http.get("/api/pictures/zip?clean=1").content)) == [
        "001-asymflow.png"
    ]
    named = server.http.get(f"/api/pictures/{fox}/file?download=1").headers["content-disposition"]
    assert "a-secretive-fox" in named
    assert seed in named


def test_a_file_that_goes_while_a_zip_is_made_is_named(server: Running) -> None:
    made = ids(server, "one", "two", "three")
    server.app.state.studio.store.picture_path(made[1]).unlink()
    files = unpacked(server.http.get("/api/pictures/zip").content)
    assert [name.partition("-")[0] for name in files] == ["001", "003", "missing.txt"]
    assert files["missing.txt"].startswith(b"002-two-")


def test_a_zip_takes_the_memory_of_a_file_and_not_of_all() -> None:
    size, count = 1_000_000, 50

    def file() -> bytes:
        return bytes(size)

    tracemalloc.start()
    total = sum(len(piece) for piece in media.zipped((f"{i}.png", file) for i in range(count)))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > size * count
    assert most < 6 * size


def test_all_pages_of_a_gallery_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    facts = Facts(prompt="a fox", seed=1, width=8, height=8, seconds=0.1, forwards=2)
    made = [new_id() for _ in range(450)]
    for id in made:
        store.write_picture(id, b"a")
        store.add_picture(id, id, 0, facts, listed=True)
    assert [row.id for row in store.found(Query("fox"), "")] == made[::-1]
    store.close()
