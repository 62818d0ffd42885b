"""Jobs as a page sees them: order, events, cancelling, and what outlives the process."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from asymflow.core.types import Plan
from asymflow.generation import decisions, metadata
from asymflow.generation.pipeline import Model
from asymflow.io.images import RECORD_CHUNK, TEXT_CHUNK, XMP_CHUNK
from asymflow.server import app, media, streams
from asymflow.server.schemas import JobRequest, remembered
from asymflow.server.settings import Settings
from asymflow.server.store import JobRow, Store, new_id
from asymflow.server.views import Facts
from tests.helpers import wait_until

from .conftest import SMALL, Running, Serve, Slow, running


def events(server: Running, path: str, after: int | None = None) -> Iterator[tuple[int, str, Any]]:
    """(id, name, data) of server-sent events, until the server ends them."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with server.http.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        number, name = -1, ""
        for line in answer.iter_lines():
            key, _, value = line.partition(": ")
            if key == "id":
                number = int(value)
            elif key == "event":
                name = value
            elif key == "data":
                yield number, name, json.loads(value)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_every_step_is_told_and_the_end(studio: Running) -> None:
    draft = studio.http.get("/api/info").json()["qualities"][0]
    count, forwards = draft["steps"], draft["forwards"]
    job = studio.ask("a {red|blue} apple", seed=5)
    assert [(s["label"], s["prompt"], s["seed"]) for s in job["slots"]] == [
        ("red", "a red apple", 5),
        ("blue", "a blue apple", 5),
    ]
    told = list(events(studio, f"/api/jobs/{job['id']}/events"))
    names = [name for _, name, _ in told]
    assert (names[:2], names[-2:]) == (["queued", "started"], ["picture", "done"])
    # The first picture may be written while the second one has begun.
    assert [name for name in names if name != "picture"][2:-1] == ["step"] * (2 * count)
    assert names.count("picture") == 2
    assert names.index("picture") > 1 + count
    numbers = [number for number, _, _ in told]
    assert numbers == sorted(set(numbers))
    steps = [data for _, name, data in told if name == "step"]
    assert [(s["slot"], s["step"], s["steps"]) for s in steps] == [
        (slot, step, count) for slot in (0, 1) for step in range(count)
    ]
    assert [s["progress"] for s in steps] == pytest.approx(
        [(i + 1) / (2 * count) for i in range(2 * count)], abs=1e-3
    )
    picture = told[-2][2]["picture"]
    assert picture["forwards"] == sum(s["forwards"] for s in steps[count:]) == forwards
    assert told[-1][2]["forwards"] == 2 * forwards
    # A page that was away goes on where it was, and is told when there is nothing left.
    rest = list(events(studio, f"/api/jobs/{job['id']}/events", after=numbers[-3]))
    assert [name for _, name, _ in rest] == ["picture", "done"]
    last = {"Last-Event-ID": str(numbers[-1])}
    assert studio.http.get(f"/api/jobs/{job['id']}/events", headers=last).status_code == 204
    listed = studio.http.get("/api/jobs?limit=1").json()["jobs"]
    assert [each["id"] for each in listed] == [job["id"]]
    assert listed[0]["state"] == "done"


def test_a_file_says_how_it_was_made_or_only_that_a_machine_did(studio: Running) -> None:
    job = studio.over(studio.ask("a green apple", seed=1, style="noto")["id"])
    [picture] = job["pictures"]
    plain = studio.http.get(picture["url"])
    image = Image.open(io.BytesIO(plain.content))
    record = metadata.from_json(image.info[RECORD_CHUNK], "here")
    assert (record.prompt, record.style, record.seed) == ("a green apple", "noto", 1)
    url = f"/api/pictures/{picture['id']}/file"
    clean = studio.http.get(url, params={"clean": 1})
    image = Image.open(io.BytesIO(clean.content))
    assert not {RECORD_CHUNK, TEXT_CHUNK} & set(image.info)
    assert b"apple" not in clean.content
    assert "trainedAlgorithmicMedia" in str(image.info[XMP_CHUNK])
    assert (pixels(clean.content) == pixels(plain.content)).all()
    large = studio.http.get(url, params={"scale": 4, "format": "webp", "download": 1})
    assert pixels(large.content).shape == (128, 128, 4)
    assert large.headers["content-disposition"] == 'attachment; filename="a-green-apple-1.webp"'
    red = studio.http.get(url, params={"format": "jpeg", "background": "#ff0000"})
    assert pixels(red.content)[0, 0, 0] > 200


def test_settings_come_back_from_a_picture(studio: Running) -> None:
    asked = {"seed": 9, "style": "twemoji", "negative_prompt": "blue", "guidance_scale": 2.5}
    job = studio.over(studio.ask("a cat", **asked)["id"])
    data = studio.http.get(job["pictures"][0]["url"]).content
    headers = {"Content-Type": "image/png"}
    found = studio.http.post("/api/settings", content=data, headers=headers).json()
    assert found["exact_model"]
    assert found["differs"] == []
    again = studio.http.post("/api/jobs", json=found["request"]).json()
    [picture] = studio.over(again["id"])["pictures"]
    assert (pixels(studio.http.get(picture["url"]).content) == pixels(data)).all()
    record = metadata.from_json(str(Image.open(io.BytesIO(data)).info[RECORD_CHUNK]), "here")
    strong = media.encode(np.zeros((32, 32, 4), np.float32), replace(record, guidance=150.0))
    answer = studio.http.post("/api/settings", content=strong, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "guidance_scale")
    plain = io.BytesIO()
    Image.new("RGB", (8, 8)).save(plain, "PNG")
    answer = studio.http.post("/api/settings", content=plain.getvalue(), headers=headers)
    assert answer.status_code == 400
    assert "does not say how it was made" in answer.json()["error"]["message"]


def test_settings_come_back_from_a_picture_that_left_its_plan(studio: Running) -> None:
    job = studio.over(studio.ask("a cat")["id"])
    data = studio.http.get(job["pictures"][0]["url"]).content
    record = metadata.from_json(str(Image.open(io.BytesIO(data)).info[RECORD_CHUNK]), "here")

    def restored(plan: Plan) -> dict[str, Any]:
        file = media.encode(np.zeros((32, 32, 4), np.float32), replace(record, plan=plan))
        headers = {"Content-Type": "image/png"}
        return studio.http.post("/api/settings", content=file, headers=headers).json()

    whole, left = restored(record.plan), restored(decisions.made(record.plan, {1: "skip"}, "here"))
    assert (whole["request"]["quality"], whole["differs"]) == ("draft", [])
    assert left["differs"] == ["plan"]


def test_exact_is_accepted_and_changes_nothing(studio: Running) -> None:
    jobs = [
        studio.over(studio.ask("a cat", seed=4, **more)["id"]) for more in ({}, {"exact": True})
    ]
    assert [job["request"]["exact"] for job in jobs] == [False, True]
    files = [studio.http.get(job["pictures"][0]["url"]).content for job in jobs]
    assert (pixels(files[0]) == pixels(files[1])).all()
    kept = remembered(JobRequest, jobs[1]["request"])
    assert kept.model_dump(mode="json") == jobs[1]["request"]
    schemas = studio.http.get("/openapi.json").json()["components"]["schemas"]
    fields = schemas["JobRequest"]["properties"]
    assert [name for name in fields if fields[name].get("deprecated")] == ["exact"]


def test_deleting_can_be_undone_until_it_is_purged(studio: Running) -> None:
    job = studio.over(studio.ask("a dog", n=2)["id"])
    first, second = (picture["id"] for picture in job["pictures"])

    def gallery() -> list[str]:
        return [each["id"] for each in studio.http.get("/api/pictures").json()["pictures"]]

    assert gallery()[:2] == [second, first]
    assert studio.http.delete(f"/api/pictures/{first}").json()["deleted"]
    assert first not in gallery()
    assert not studio.http.post(f"/api/pictures/{first}/restore").json()["deleted"]
    assert first in gallery()
    studio.http.delete(f"/api/pictures/{first}")
    store = studio.app.state.studio.store
    store.purge(undo=60, passing=60, uploads=60)
    assert store.picture_path(first).exists()
    store.purge(undo=0, passing=60, uploads=60)
    assert not store.picture_path(first).exists()
    assert studio.http.get(f"/api/pictures/{first}").status_code == 404
    assert second in gallery()


def test_a_job_tells_that_its_picture_was_deleted(serve: Serve) -> None:
    server = serve()
    job = server.over(server.ask("a fox")["id"])
    [picture] = job["pictures"]

    def deleted() -> list[bool]:
        jobs = [server.job(job["id"]), *server.http.get("/api/jobs").json()["jobs"]]
        return [each["pictures"][0]["deleted"] for each in jobs]

    # Else a page that is opened now would show it again.
    server.http.delete(f"/api/pictures/{picture['id']}")
    assert deleted() == [True, True]
    server.http.post(f"/api/pictures/{picture['id']}/restore")
    assert deleted() == [False, False]
    server.http.delete(f"/api/pictures/{picture['id']}?forever=1")
    assert deleted() == [True, True]
    assert server.http.get(f"/api/pictures/{picture['id']}").status_code == 404


def test_cleaning_leaves_alone_what_is_not_its_own(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    mine = tmp_path / "data" / "results" / "thesis.png"
    mine.write_bytes(b"years of work")
    store = server.app.state.studio.store
    name = store.add_result(b"a picture", "png")
    assert server.http.get(f"/v1/images/results/{name}").content == b"a picture"
    assert server.http.get("/v1/images/results/thesis.png").status_code == 404
    store.purge(undo=-1, passing=-1, uploads=-1)
    assert store.result(name) is None
    assert mine.exists()


def test_a_look_at_a_picture_on_its_way_is_marked_too(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.seconds = 0.1
    job = server.ask("a fox", n=4)
    steps = (data for _, _, data in events(server, f"/api/jobs/{job['id']}/events"))
    preview = next(data["preview"] for data in steps if data.get("preview"))
    image = Image.open(io.BytesIO(server.http.get(preview).content))
    assert (image.format, image.size) == ("WEBP", (32, 32))
    assert b"trainedAlgorithmicMedia" in image.info["xmp"]
    slow.seconds = 0
    server.over(job["id"])
    assert server.http.get(preview).status_code == 204
    assert server.http.get(f"/api/jobs/{job['id']}/preview/4").status_code == 404


@pytest.mark.parametrize("share", [1e-9, 1e9])
def test_looks_come_with_the_steps_as_often_as_they_cost_little(
    serve: Serve, slow: Slow, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(streams, "_PREVIEW_SHARE", share)
    server = serve()
    slow.seconds = 0.1
    job = server.ask("a fox")
    told = list(events(server, f"/api/jobs/{job['id']}/events?previews=true"))
    looks = [data["preview"] for _, name, data in told if name == "step"]
    head, _, data = looks[0].partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert (head, image.size) == ("data:image/webp;base64", (32, 32))
    assert b"trainedAlgorithmicMedia" in image.info["xmp"]
    # After the last one comes the picture.
    assert [look is not None for look in looks[1:]] == [share > 1] * (len(looks) - 2) + [False]
    again = events(server, f"/api/jobs/{job['id']}/events?previews=true")
    assert {data["preview"] for _, name, data in again if name == "step"} == {None}


def test_pictures_are_drawn_while_others_are_written(
    serve: Serve, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    store = server.app.state.studio.store
    write, free = store.write_picture, threading.Event()

    def late(id: str, data: bytes) -> None:
        assert free.wait(20)
        write(id, data)

    monkeypatch.setattr(store, "write_picture", late)
    before = len(slow.drawn)
    jobs = server.ask("a fox"), server.ask("an owl")
    wait_until(lambda: len(slow.drawn) >= before + 2)
    assert slow.drawn[before:] == ["a fox", "an owl"]
    assert server.job(jobs[0]["id"])["state"] == "running"
    server.http.delete(f"/api/jobs/{jobs[0]['id']}")
    free.set()
    assert server.over(jobs[1]["id"])["state"] == "done"
    # What was cancelled meanwhile is not kept.
    assert server.job(jobs[0]["id"])["pictures"] == []
    assert len(list(store.picture_path("any").parent.iterdir())) == 1


def test_the_gallery_is_read_page_by_page(studio: Running) -> None:
    studio.over(studio.ask("a bird", n=4)["id"])
    found: list[str] = []
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"before": cursor}
        page = studio.http.get("/api/pictures", params={"limit": 3, **more}).json()
        found += [each["id"] for each in page["pictures"]]
        cursor = page["next"]
        if cursor is None:
            break
    whole = studio.http.get("/api/pictures", params={"limit": 200}).json()["pictures"]
    assert found == [each["id"] for each in whole]
    assert studio.http.get("/api/pictures", params={"before": 10**30}).status_code == 400


def test_a_zip_holds_the_pictures(studio: Running) -> None:
    job = studio.over(studio.ask("a fish/../..", n=2, seed=3)["id"])
    ids = ",".join(picture["id"] for picture in job["pictures"])
    data = studio.http.get("/api/pictures/zip", params={"ids": ids}).content
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["001-a-fish-3.png", "002-a-fish-4.png"]
        one = studio.http.get(job["pictures"][0]["url"]).content
        assert archive.read("001-a-fish-3.png") == one


def test_a_variation_starts_from_its_parent(studio: Running) -> None:
    job = studio.over(studio.ask("a red apple", seed=1)["id"])
    parent = job["pictures"][0]
    near = studio.over(studio.ask("a red apple", seed=2, parent=parent["id"], strength=0.3)["id"])
    far = studio.over(studio.ask("a red apple", seed=2)["id"])

    def distance(other: dict[str, Any]) -> float:
        white = {"background": "white"}  # colours of what cannot be seen say nothing
        urls = [f"/api/pictures/{p['id']}/file" for p in (parent, other["pictures"][0])]
        a, b = (pixels(studio.http.get(url, params=white).content) for url in urls)
        return float(np.abs(a.astype(float) - b).mean())

    assert 0 < distance(near) < distance(far)


def test_padding_keeps_a_whole_picture(studio: Running) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 32), (200, 0, 0)).save(file, "PNG")
    headers = {"Content-Type": "image/png"}
    upload = studio.http.post("/api/uploads", content=file.getvalue(), headers=headers).json()
    black = io.BytesIO()
    Image.new("L", (64, 32)).save(black, "PNG")
    mask = studio.http.post("/api/uploads", content=black.getvalue(), headers=headers).json()
    job = studio.ask("an apple", image=upload["id"], mask=mask["id"], fit="pad")
    [picture] = studio.over(job["id"])["pictures"]
    made = pixels(studio.http.get(picture["url"]).content)
    # A mask that shows nothing keeps everything: a band in the middle, and nothing around it.
    assert (made[11:21] == (200, 0, 0, 255)).all()
    assert (made[:4, :, 3] == 0).all()


def test_a_picture_does_not_depend_on_its_neighbours(real_model: Model, tmp_path: Path) -> None:
    together = Settings(data=tmp_path / "a", port=0, together=4)
    with running(together, lambda: real_model) as server:
        job = server.over(server.ask("a {cat|dog|red apple}", seed=11)["id"])
        many = [pixels(server.http.get(p["url"]).content) for p in job["pictures"]]
    with running(Settings(data=tmp_path / "b", port=0), lambda: real_model) as server:
        job = server.over(server.ask("a dog", seed=11)["id"])
        alone = pixels(server.http.get(job["pictures"][0]["url"]).content)
    assert (many[1] == alone).all()
    assert (many[0] != alone).any()


def test_a_key_makes_one_job_of_two_calls(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.gate.clear()
    key = {"Idempotency-Key": "abc"}
    first = server.ask("a fox", headers=key)
    assert server.ask("a fox", headers=key)["id"] == first["id"]
    other = server.http.post("/api/jobs", json={"prompt": "an owl", **SMALL}, headers=key)
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "idempotency_conflict"
    assert server.ask("a fox")["id"] != first["id"]
    slow.gate.set()
    server.over(first["id"])
    assert server.ask("a fox", headers=key)["state"] == "done"


def test_clients_take_turns(serve: Serve, slow: Slow) -> None:
    server = serve(proxies=("127.0.0.1",))
    slow.gate.clear()
    one, two = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    jobs = [server.ask("first", headers=one), server.ask("many", n=4, headers=one)]
    server.started(jobs[0]["id"])
    jobs.append(server.ask("other", headers=two))
    assert server.job(jobs[2]["id"])["position"] <= 1
    slow.gate.set()
    for job in jobs:
        server.over(job["id"])
    # A job that is being made is not told that it waits.
    told = [name for _, name, _ in events(server, f"/api/jobs/{jobs[1]['id']}/events")]
    assert "queued" not in told[told.index("started") :]
    drawn = [prompt for prompt in slow.drawn if prompt != "a red apple"]  # of the warm-up
    assert drawn.index("other") <= drawn.index("many") + 1
    assert drawn.count("many") == 4


def test_cancelling_works_at_once_and_twice(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.seconds = 0.3
    running_job = server.ask("a fox", n=4)
    waiting = server.ask("an owl")
    for job in (waiting, running_job, running_job):
        assert server.http.delete(f"/api/jobs/{job['id']}").status_code == 202
    assert server.job(waiting["id"])["state"] == "cancelled"
    begun = time.monotonic()
    after = server.ask("a cat")
    slow.seconds = 0.0
    server.over(after["id"])
    assert time.monotonic() - begun < 1.2  # one step of what was cancelled, not all of it
    assert "an owl" not in slow.drawn


def test_a_newer_live_job_takes_the_place_of_an_older_one(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.gate.clear()
    jobs = [server.ask(f"a fo{'x' * i}", live=True) for i in range(3)]
    elsewhere = server.ask("an owl", live=True, headers={"X-Client": "other"})
    slow.gate.set()
    assert server.over(jobs[2]["id"])["state"] == "done"
    assert server.over(elsewhere["id"])["state"] == "done"
    assert [server.job(job["id"])["state"] for job in jobs[:2]] == ["cancelled"] * 2
    assert server.http.get("/api/pictures").json()["pictures"] == []
    assert server.http.get("/api/jobs").json()["jobs"] == []


def test_full_queues_say_when_to_come_again(serve: Serve, slow: Slow) -> None:
    server = serve(queue=6, queue_of_one=4, proxies=("127.0.0.1",))
    slow.gate.clear()
    # What a client calls itself does not make it another one.
    one = {"X-Forwarded-For": "192.0.2.1", "X-Client": "one"}
    also_one = {"X-Forwarded-For": "192.0.2.1", "X-Client": "another"}
    two = {"X-Forwarded-For": "192.0.2.2"}
    server.started(server.ask("running", headers=one)["id"])
    server.ask("a fox", n=4, headers=one)
    body = {"prompt": "a fox", **SMALL, "n": 3}
    mine = server.http.post("/api/jobs", json=body, headers=also_one)
    assert (mine.status_code, mine.json()["error"]["code"]) == (429, "too_many_jobs")
    theirs = server.http.post("/api/jobs", json=body, headers=two)
    assert (theirs.status_code, theirs.json()["error"]["code"]) == (503, "queue_full")
    assert int(mine.headers["retry-after"]) >= 1
    assert int(theirs.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (ValueError("a secret prompt"), "internal_error"),
    ],
)
def test_a_failure_is_told_and_survived(
    serve: Serve, slow: Slow, error: Exception, code: str
) -> None:
    server = serve()
    slow.error = error
    failed = server.over(server.ask("a fox")["id"])
    assert failed["state"] == "failed"
    assert failed["error"]["code"] == code
    assert "secret" not in failed["error"]["message"]
    assert server.over(server.ask("a fox")["id"])["state"] == "done"
    assert f'asymflow_failures_total{{code="{code}"}} 1.0' in server.http.get("/metrics").text


def test_what_is_no_picture_is_not_called_done(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.broken = True
    failed = server.over(server.ask("a fox")["id"])
    assert (failed["state"], failed["error"]["code"]) == ("failed", "not_finite")
    assert failed["pictures"] == []
    slow.broken = False
    assert server.over(server.ask("a fox")["id"])["state"] == "done"


def test_memory_that_runs_out_together_may_do_one_by_one(serve: Serve, slow: Slow) -> None:
    slow.batch = None
    server = serve()
    slow.error = torch.OutOfMemoryError("CUDA out of memory")
    assert server.over(server.ask("a fox", n=3)["id"])["state"] == "done"


def test_a_job_that_takes_too_long_is_ended(serve: Serve, slow: Slow) -> None:
    server = serve(picture_seconds=2)
    slow.seconds = 0.5
    failed = server.over(server.ask("a fox", n=4)["id"])
    assert failed["error"]["code"] == "timeout"
    slow.seconds = 0.012  # longer in all, but not a single picture
    assert server.over(server.ask("a fox", n=4)["id"])["state"] == "done"


def test_a_full_disk_does_not_stop_the_queue(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    store = server.app.state.studio.store

    def full(*about: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_picture", full)
        patch.setattr(store, "change_job", full)
        lost = server.ask("a fox")
        # Those who listen are told, though nothing could be written.
        told = list(events(server, f"/api/jobs/{lost['id']}/events"))
    assert told[-1][1:] == ("failed", {"error": server.job(lost["id"])["error"]})
    assert server.job(lost["id"])["error"]["code"] == "disk_full"
    assert server.over(server.ask("an owl")["id"])["state"] == "done"
    assert server.job(lost["id"])["pictures"] == []


def test_what_would_fill_the_disk_is_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    store = server.app.state.studio.store
    png = {"Content-Type": "image/png"}
    picture = server.http.get(server.over(server.ask("a fox")["id"])["pictures"][0]["url"]).content
    with monkeypatch.context() as patch:
        patch.setattr(store, "free", lambda: 1_000_000)
        form = {"image": ("a.png", picture)}
        for answer in (
            server.http.post("/api/jobs", json={"prompt": "a fox", **SMALL}),
            server.http.post("/api/uploads", content=picture, headers=png),
            server.http.post("/v1/images/edits", files=form, data={"prompt": "a fox"}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
            assert "1 MB left" in answer.json()["error"]["message"]
        assert server.http.get("/api/pictures").status_code == 200
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    body = {"prompt": "a {" + "|".join("fox" + "x" * i for i in range(16)) + "}", **SMALL, "n": 4}
    answer = server.http.post("/api/jobs", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    store._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert server.over(server.ask("an owl")["id"])["state"] == "done"


def test_uploads_make_room_for_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path, upload_space=10 * 4096)
    first, second = (store.add_upload(b"needed", 8, 8).id for _ in range(2))
    request = {"image": first, "mask": second}
    store.add_job(JobRow("a", "me", "studio", "queued", 0, None, None, request, [], None))
    ids = [store.add_upload(b"passing", 8, 8).id for _ in range(30)]
    left = [id for id in ids if store.upload(id) is not None]
    assert left == ids[-len(left) :]
    assert 6 <= len(left) <= 8
    assert store.upload(first)
    assert store.upload(second)
    names = {path.name for path in (tmp_path / "uploads").iterdir()}
    assert names == {f"{id}.png" for id in (first, second, *left)}
    store.change_job("a", "done")
    store.add_upload(bytes(30_000), 8, 8)
    assert store.upload(first) is None
    store.close()


def test_what_a_killed_process_left_half_done_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    whole = new_id()
    facts = Facts(prompt="a", seed=1, width=8, height=8, seconds=0.1, forwards=2)
    store.write_picture(whole, b"whole")
    store.add_picture(whole, "a", 0, facts, listed=True)
    upload = store.add_upload(b"sent", 8, 8).id
    store.close()
    pictures, uploads, results = (tmp_path / n for n in ("pictures", "uploads", "results"))
    unnoted = [folder / f"{new_id()}.png.pending" for folder in (pictures, uploads)]
    begun = [folder / f".{new_id()}.png.a1b2c3d4" for folder in (pictures, uploads, results)]
    begun.append(pictures / f".{new_id()}.png.pending.a1b2c3d4")
    foreign = [pictures / "thesis.png", uploads / ".hidden", results / "notes.txt"]
    for path in (*unnoted, *begun, *foreign):
        path.write_bytes(b"something")
    store = Store(tmp_path)
    assert store.picture_path(whole).read_bytes() == b"whole"
    assert store.upload_path(upload).read_bytes() == b"sent"
    assert not any(path.exists() for path in (*unnoted, *begun))
    assert all(path.exists() for path in foreign)
    store.close()


def test_answers_do_not_wait_for_acknowledgements() -> None:
    with app.listening("127.0.0.1", 0) as bound:

        async def serve() -> int:
            connected = asyncio.get_running_loop().create_future()

            def connect(reader: object, writer: asyncio.StreamWriter) -> None:
                taken = writer.get_extra_info("socket")
                connected.set_result(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                writer.close()

            async with await asyncio.start_server(connect, sock=bound):
                _, writer = await asyncio.open_connection(*bound.getsockname())
                found: int = await connected
                writer.close()
                return found

        assert asyncio.run(serve()) == 1


def test_a_stop_keeps_what_waits_and_ends_streams(tmp_path: Path, serve: Serve, slow: Slow) -> None:
    server = serve(drain_seconds=0.2)
    slow.seconds = 0.2
    job = server.ask("a fox", n=2)
    manager = server.app.state.studio.manager
    told = events(server, f"/api/jobs/{job['id']}/events")
    next(told)
    manager.close()
    refused = server.http.post("/api/jobs", json={"prompt": "late", **SMALL})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert server.http.get("/ready").status_code == 503
    assert "done" not in [name for _, name, _ in told]  # ends without the end of the job


def test_other_pages_hear_of_every_job(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.gate.clear()
    first = server.ask("a fox")
    told = events(server, "/api/events")
    _, name, data = next(told)
    assert (name, data["job"]["id"]) == ("job", first["id"])
    second = server.ask("an owl")
    slow.gate.set()
    states: list[tuple[str, str]] = []
    for _, _, data in told:
        states.append((data["job"]["id"], data["job"]["state"]))
        if states[-1] == (second["id"], "done"):
            break
    assert (second["id"], "queued") in states
    assert (first["id"], "done") in states


class OneByOne(threading.Event):
    """A gate that lets one call of the network through each time it is set."""

    def wait(self, timeout: float | None = None) -> bool:
        passed = super().wait(timeout)
        self.clear()
        return passed


def test_one_stream_tells_every_step_of_every_job(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.gate = OneByOne()
    first = server.ask("a fox")
    server.started(first["id"])
    told = events(server, "/api/events?steps=true&previews=true")
    assert next(told) == (-1, "beat", {})
    # Whoever comes late hears what was told before.
    begun = [next(told)[1:] for _ in range(3)]
    assert [name for name, _ in begun] == ["job", "queued", "started"]
    assert begun[0][1]["job"]["id"] == begun[1][1]["job"] == begun[2][1]["job"] == first["id"]
    second = server.ask("an owl")
    slow.gate.set()
    heard: dict[str, list[tuple[str, Any]]] = {first["id"]: [], second["id"]: []}
    for _, name, data in told:
        id = data["job"]["id"] if name == "job" else data.get("job")
        heard[id].append((name, data))
        if name == "step":
            slow.gate.set()  # not before: a look that has been followed by another is not shown
        if name == "job" and data["job"]["state"] == "done" and id == second["id"]:
            break
    for job in (first, second):
        # What a job's own stream tells, which begins at its beginning.
        own = list(events(server, f"/api/jobs/{job['id']}/events"))
        rest = [event for event in heard[job["id"]] if event[0] != "job"]
        assert [name for name, _ in rest] == [name for _, name, _ in own][-len(rest) :]
        steps = [data for name, data in rest if name == "step"]
        assert steps[0]["preview"].startswith("data:image/webp;base64,")
        assert [step["step"] for step in steps] == list(range(len(steps)))


def test_a_quiet_stream_of_everything_shows_that_it_lives(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_QUIET", 0.01)
    told = events(serve(), "/api/events?steps=true")
    assert [next(told)[1] for _ in range(3)] == ["beat"] * 3


@pytest.mark.slow
def test_nothing_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "asymflow", "studio", "--no-browser"]
    command += ["--port", str(port), "--data", str(tmp_path / "data"), "--dtype", "float32"]

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=dict(os.environ))

        def ready() -> bool:
            try:
                return httpx.get(f"{url}/ready").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready, within=180)
        return process

    process = start()
    try:
        body = {**SMALL, "prompt": "a {cat|dog|fox}", "quality": "best", "seed": 1}
        key = {"Idempotency-Key": "one"}
        job = httpx.post(f"{url}/api/jobs", json=body, headers=key).json()

        def now() -> dict[str, Any]:
            return httpx.get(f"{url}/api/jobs/{job['id']}").json()

        before = wait_until(lambda: now()["pictures"])
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = start()
        wait_until(lambda: now()["state"] == "done")
        assert len(now()["pictures"]) == 3
        # Made once. Two pictures are made at a time, and either may be the first.
        assert all(picture in now()["pictures"] for picture in before)
        again = httpx.post(f"{url}/api/jobs", json=body, headers=key).json()
        assert again["id"] == job["id"]
        names = [
            line.partition(": ")[2]
            for line in httpx.get(f"{url}/api/jobs/{job['id']}/events").text.splitlines()
            if line.startswith("event: ")
        ]
        assert names.count("picture") == 3
        assert names[-1] == "done"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
