"""Pictures drawn again: what a model with references looks at, asked for, recorded and repeated."""

from __future__ import annotations

import base64
import io
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asymflow.cli import main
from asymflow.core.errors import InputError
from asymflow.generation import metadata, pipeline
from asymflow.generation.metadata import Record
from asymflow.generation.spec import InputImage
from asymflow.io.images import RECORD_CHUNK
from asymflow.models.embedded.library import shipped
from asymflow.server import media, requests, tokens, upkeep
from asymflow.server.problems import ApiError
from asymflow.server.schemas import CompletedRequest
from asymflow.server.settings import Settings
from asymflow.server.store import JobRow, Store
from tests.helpers import wait_until
from tests.looking import write

from .conftest import Running, Serve, running

PNG = {"Content-Type": "image/png"}
SMALL = {"width": 32, "height": 32, "quality": "default"}
"""The quickest picture of a model whose plans were not measured."""
STYLES = ["noto", "twemoji", "fxemoji"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "looking.safetensors"
    write(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("looking")


@pytest.fixture(scope="module")
def looking(weights: Path, data: Path) -> Generator[Running]:
    """A server with a model that looks at references."""
    model = pipeline.load(str(weights), dtype="float32", device="cpu")
    with running(Settings(data=data, port=0, burst=10_000), lambda: model) as found:
        yield found


def photo(seed: int = 0) -> bytes:
    """A picture that is like no drawing."""
    noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def sent(server: Running, seed: int = 0) -> str:
    answer = server.http.post("/api/uploads", content=photo(seed), headers=PNG)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def drawn(server: Running, **more: Any) -> dict[str, Any]:
    """One picture of a fox."""
    job = server.over(server.ask("a fox", **{"seed": 7, "style": "noto", **SMALL, **more})["id"])
    assert job["state"] == "done", job["error"]
    [picture] = job["pictures"]
    return picture


def file(server: Running, picture: dict[str, Any]) -> bytes:
    return server.http.get(picture["url"]).content


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def record(data: bytes) -> Record:
    return metadata.from_json(str(Image.open(io.BytesIO(data)).info[RECORD_CHUNK]), "here")


def refused(server: Running, **more: Any) -> tuple[int, str, str]:
    answer = server.http.post("/api/jobs", json={"prompt": "a fox", **SMALL, **more})
    problem = answer.json()["error"]
    return answer.status_code, problem["code"], problem["param"]


def test_the_three_ways_draw_and_record_different_pictures(looking: Running) -> None:
    id = sent(looking)
    found = [drawn(looking, reference=named) for named in (None, "none", id)]
    assert [each["reference"] for each in found] == [None, "none", id]
    files = [file(looking, each) for each in found]
    references = [record(each).reference for each in files]
    assert [each and each.kind for each in references] == ["library", "none", "given"]
    given = references[2]
    assert given is not None
    assert given.source is not None
    assert given.source.path == f"{id}.png"
    shown = {pixels(each).tobytes() for each in files}
    assert len(shown) == 3
    assert drawn(looking, reference=sent(looking, 1))["reference"] != id


@pytest.mark.parametrize("way", ["library", "none", "given"])
def test_settings_repeat_a_picture_to_the_last_pixel(looking: Running, way: str) -> None:
    named = {"library": None, "none": "none", "given": sent(looking)}[way]
    made = file(looking, drawn(looking, reference=named))
    found = looking.http.post("/api/settings", content=made, headers=PNG).json()
    assert (found["request"]["reference"], found["differs"]) == (named, [])
    again = looking.over(looking.http.post("/api/jobs", json=found["request"]).json()["id"])
    assert (pixels(file(looking, again["pictures"][0])) == pixels(made)).all()


def test_the_command_line_repeats_what_the_server_drew(
    looking: Running, weights: Path, tmp_path: Path
) -> None:
    id = sent(looking)
    made = file(looking, drawn(looking, reference=id))
    (tmp_path / "fox.png").write_bytes(made)
    (tmp_path / f"{id}.png").write_bytes(looking.http.get(f"/api/uploads/{id}").content)
    again = tmp_path / "again.png"
    options = ["--like", str(tmp_path / "fox.png"), "-o", str(again), "--weights", str(weights)]
    assert main.run(["generate", *options]) == 0
    assert (pixels(again.read_bytes()) == pixels(made)).all()


def test_settings_say_what_cannot_be_repeated(
    looking: Running, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = sent(looking)
    given, found = (file(looking, drawn(looking, reference=named)) for named in (id, None))

    def differs(data: bytes) -> tuple[str | None, list[str]]:
        answer = looking.http.post("/api/settings", content=data, headers=PNG).json()
        return answer["request"]["reference"], answer["differs"]

    (data / "uploads" / f"{id}.png").unlink()
    assert differs(given) == (None, ["reference"])
    assert differs(found) == (None, [])
    monkeypatch.setattr(shipped(), "digest", "0" * 64)
    assert differs(found) == (None, ["reference"])


def test_every_style_is_drawn_once_in_one_job(looking: Running) -> None:
    id = sent(looking)
    job = looking.over(looking.ask("a fox", seed=7, styles=STYLES, reference=id, **SMALL)["id"])
    assert job["state"] == "done"
    assert [slot["style"] for slot in job["slots"]] == STYLES
    assert [picture["style"] for picture in job["pictures"]] == STYLES
    assert {(slot["seed"], slot["label"]) for slot in job["slots"]} == {(7, None)}
    for picture in job["pictures"]:
        alone = drawn(looking, style=picture["style"], reference=id)
        assert (pixels(file(looking, alone)) == pixels(file(looking, picture))).all()


def test_calls_for_openai_take_the_reference_too(looking: Running) -> None:
    id = sent(looking)
    body = {"prompt": "a fox", "size": "32x32", "seed": 7, "style": "noto", "reference": id}
    answer = looking.http.post("/v1/images/generations", json=body)
    assert answer.status_code == 200, answer.text
    made = base64.b64decode(answer.json()["data"][0]["b64_json"])
    assert (pixels(made) == pixels(file(looking, drawn(looking, reference=id)))).all()
    assert "x-asymflow-ignored" not in answer.headers
    gone = looking.http.post("/v1/images/generations", json={**body, "reference": "a" * 22})
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "reference")


def test_styles_multiply_choices_and_pictures(looking: Running) -> None:
    job = looking.over(looking.ask("{a fox|an owl}", seed=3, n=2, styles=STYLES[:2], **SMALL)["id"])
    found = [(slot["label"], slot["style"], slot["seed"]) for slot in job["slots"]]
    assert found == [
        (label, style, seed)
        for label in ("a fox", "an owl")
        for style in STYLES[:2]
        for seed in (3, 4)
    ]


def test_bad_styles_are_refused(looking: Running) -> None:
    assert refused(looking, styles=["noto", "notto"]) == (400, "unknown_style", "styles")
    assert refused(looking, styles=["noto", "noto"])[0] == 400
    assert refused(looking, styles=["noto"], style="noto")[0] == 400
    many = "{a|b|c|d|e|f}"
    answer = looking.http.post(
        "/api/jobs", json={"prompt": many, "styles": STYLES, **SMALL}
    ).json()["error"]
    assert (answer["code"], answer["values"]) == (
        "too_many_combinations",
        {"count": 18, "limit": 16},
    )


def test_a_reference_that_is_not_there_is_refused(looking: Running) -> None:
    assert refused(looking, reference="a" * 22) == (404, "not_found", "reference")
    assert refused(looking, reference="../a")[0] == 400
    made = drawn(looking)["id"]  # a picture is no upload
    assert refused(looking, reference=made) == (404, "not_found", "reference")


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_an_upload_that_goes_before_its_turn(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    id = store.add_upload(photo(), 40, 40).id
    request = CompletedRequest(prompt="a fox", width=32, height=32, quality="draft", reference=id)
    assert isinstance(requests.inputs(store, request).reference, InputImage)
    path = store.upload_path(id)
    path.unlink() if damage == "gone" else path.write_bytes(b"\x89PNG")
    with pytest.raises(ApiError if damage == "gone" else InputError, match=id) as caught:
        requests.inputs(store, request)
    assert str(tmp_path) not in str(caught.value)
    store.close()


def test_a_model_without_references_says_so(serve: Serve) -> None:
    server = serve()
    id = sent(server)
    assert refused(server, reference=id) == (400, "no_references", "reference")
    job = server.over(server.ask("a fox", reference="none")["id"])
    assert job["state"] == "done"
    assert job["pictures"][0]["reference"] is None


def test_a_job_that_a_restart_interrupts_keeps_its_reference(weights: Path, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, port=0, burst=10_000)
    model = pipeline.load(str(weights), dtype="float32", device="cpu")
    with running(settings, lambda: model) as server:
        id = sent(server)
        whole = drawn(server, reference=id)
        made = file(server, whole)
    store = Store(tmp_path)
    row = store.job(whole["job"])
    assert row is not None
    store.add_job(replace(row, id="interrupted", state="running"))
    store.close()
    with running(settings, lambda: model) as server:
        [picture] = server.over("interrupted")["pictures"]
        assert (pixels(file(server, picture)) == pixels(made)).all()
        assert picture["reference"] == id


def test_uploads_make_no_room_while_a_job_waits_for_them(tmp_path: Path) -> None:
    store = Store(tmp_path, upload_space=4 * 4096)
    ids = [store.add_upload(bytes(4096), 8, 8).id for _ in range(3)]
    request = {"prompt": "a fox", "reference": ids[0]}
    store.add_job(JobRow("a", "", "studio", "queued", 0.0, None, None, request, [], None))
    for _ in range(4):
        store.add_upload(bytes(4096), 8, 8)
    assert store.upload(ids[0]) is not None
    assert store.upload(ids[1]) is None
    store.close()


def test_pictures_that_are_taken_in_keep_their_reference(looking: Running, tmp_path: Path) -> None:
    id = sent(looking)
    made = file(looking, drawn(looking, reference=id))
    Store(tmp_path).close()
    (tmp_path / "pictures" / f"{'a' * 22}.png").write_bytes(made)
    assert upkeep.take_in(tmp_path).left == {}
    store = Store(tmp_path)
    row = store.picture("a" * 22)
    store.close()
    assert row is not None
    assert row.facts.reference == id


def test_records_of_models_without_references_ask_for_none(looking: Running, serve: Serve) -> None:
    plain = serve()
    made = record(file(looking, drawn(looking, reference="none")))
    answer = plain.http.post(
        "/api/settings",
        content=media.encode(np.zeros((32, 32, 4), np.float32), made),
        headers=PNG,
    ).json()
    assert answer["request"]["reference"] is None
    assert {"model", "reference"} <= set(answer["differs"])


def test_nobody_draws_from_what_is_somebody_elses(weights: Path, tmp_path: Path) -> None:
    model = pipeline.load(str(weights), dtype="float32", device="cpu")
    settings = Settings(data=tmp_path, port=0, burst=10_000, token="the-operators-own-token")
    anna, ben = ({"Authorization": f"Bearer {tokens.add(tmp_path, n)}"} for n in ("anna", "ben"))
    with running(settings, lambda: model) as server:
        http = server.http
        answer = http.post("/api/uploads", content=photo(), headers={**PNG, **anna})
        body = {"prompt": "a fox", "reference": answer.json()["id"], **SMALL}
        for other in (ben, {}):  # who calls without another token is the operator
            refusal = http.post("/api/jobs", json=body, headers=other)
            assert (refusal.status_code, refusal.json()["error"]["param"]) == (404, "reference")
        id = http.post("/api/jobs", json=body, headers=anna).json()["id"]

        def state() -> str:
            return http.get(f"/api/jobs/{id}", headers=anna).json()["state"]

        wait_until(lambda: state() == "done", what="her picture")
        [picture] = http.get(f"/api/jobs/{id}", headers=anna).json()["pictures"]
        made = http.get(picture["url"], headers=anna).content
        found = [
            http.post("/api/settings", content=made, headers={**PNG, **each}).json()
            for each in (anna, ben)
        ]
        assert [each["differs"] for each in found] == [[], ["reference"]]
        assert [each["request"]["reference"] for each in found] == [body["reference"], None]
