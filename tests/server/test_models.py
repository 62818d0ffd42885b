"""Servers of models that are asked for classes or for nothing, and of several models at once."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from asymflow.cli import main
from asymflow.core import schedules
from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Sizes
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import Plan, Request
from asymflow.generation import metadata, pipeline
from asymflow.generation.pipeline import Model
from asymflow.io.images import RECORD_CHUNK
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.planning import binding
from asymflow.server import measuring
from asymflow.server.lineup import names
from asymflow.server.schemas import JobRequest, Slot
from asymflow.server.settings import Settings
from asymflow.server.store import JobRow, Store, new_id
from tests import miniatures
from tests.helpers import wait_until

from .conftest import Running, Slow, running

CLASSES = ("tench, Tinca tinca", "red fox", "volcano")


@dataclass
class Plain(Slow):
    """A model of classes, or of nothing: opaque, of one size, with a plan that two steps make."""

    weights_hash: str = "ef" * 32
    asks: Any = "class"
    made: list[object] = field(default_factory=lambda: list[object]())

    name = "plain:efef"
    channels = 3

    @property
    def description(self) -> ModelDescription:
        return ModelDescription("plain", self.weights_hash, "x_0", "none")

    @property
    def card(self) -> Card:
        return Card(
            title="The plain model",
            asks=self.asks,
            sizes=Sizes.only(48, 48),
            classes=CLASSES if self.asks == "class" else (),
            image=False,
            inpaint=False,
            calibration=({"label": 1},) if self.asks == "class" else ({},),
            steps=2,
        )

    def default_plan(self, size: tuple[int, int]) -> Plan:
        return schedules.plan_of(schedules.shifted(2, 1.0), name="own")

    def check(self, request: Request) -> None:
        if request.size != (48, 48):
            raise InputError("not reached: the card says so before")

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        self.made += [request.inputs.get("label") for request in requests]
        shades = [float(request.inputs.get("label", 0)) / 2 - 0.5 for request in requests]
        context = {"colour": torch.tensor(shades)[:, None].repeat(1, 3)}
        return context, context

    def to_picture(self, x_0: torch.Tensor) -> np.ndarray:
        return np.ascontiguousarray(((x_0 + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy())


def of(adapter: Slow, ref: str | None = None) -> Callable[[], Model]:
    return lambda: pipeline.of(
        cast("EmbeddedAdapter", adapter), dtype="float32", device="cpu", ref=ref
    )


@contextmanager
def served(
    folder: Path, /, keep_models: int = 2, **models: Callable[[], Model]
) -> Generator[Running]:
    settings = Settings(data=folder, port=0, burst=10_000, keep_models=keep_models)
    with running(settings, models) as found:
        yield found


@pytest.fixture
def plain() -> Plain:
    return Plain()


@pytest.fixture
def classes(tmp_path: Path, plain: Plain) -> Iterator[Running]:
    with served(tmp_path, plain=of(plain, "plain.pt")) as found:
        yield found


def post(server: Running, **request: Any) -> dict[str, Any]:
    answer = server.http.post("/api/jobs", json=request)
    assert answer.status_code == 202, answer.text
    return server.over(answer.json()["id"])


def refused(server: Running, **request: Any) -> tuple[int, str, str]:
    answer = server.http.post("/api/jobs", json=request)
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


def test_a_class_is_asked_for_by_number_or_name(classes: Running, plain: Plain) -> None:
    jobs = [post(classes, label=label, n=2, seed=7) for label in (1, "red fox", "RED FOX")]
    for job in jobs:
        assert job["state"] == "done", job["error"]
        assert [slot["prompt"] for slot in job["slots"]] == ["red fox", "red fox"]
        assert [p["class_label"] for p in job["pictures"]] == [1, 1]
        assert {p["model"] for p in job["pictures"]} == {"plain"}
        assert {p["quality"] for p in job["pictures"]} == {"default"}
        assert job["request"]["label"] == 1
        assert (job["request"]["width"], job["request"]["height"]) == (48, 48)
    assert plain.made[2:] == [1] * 6  # after the two of the warm-up
    data = classes.http.get(jobs[0]["pictures"][0]["url"]).content
    record = metadata.from_json(Image.open(io.BytesIO(data)).info[RECORD_CHUNK], "here")
    assert (record.label, record.prompt) == (1, "red fox")
    kind = {"Content-Type": "image/png"}
    again = classes.http.post("/api/settings", content=data, headers=kind).json()
    assert (again["request"]["label"], again["request"]["prompt"]) == (1, "")
    assert (again["exact_model"], again["differs"]) == (True, [])
    assert post(classes, **again["request"])["pictures"][0]["seed"] == 7


@pytest.mark.parametrize(
    ("request_", "param", "words"),
    [
        ({}, "label", "There is no class"),
        ({"prompt": "a fox"}, "prompt", "as `label`"),
        ({"label": 3}, "label", "'3' is not a class"),
        ({"label": "foxes"}, "label", "red fox"),
        ({"label": 1, "width": 64, "height": 64}, "width", "48x48 only"),
        ({"label": 1, "quality": "best"}, "quality", "there is default"),
        ({"label": 1, "style": "noto"}, "style", "knows no styles"),
        ({"label": 1, "negative_prompt": "text"}, "negative_prompt", "no negative prompt"),
        ({"label": 1, "guidance_scale": 3}, "guidance_scale", "no guidance"),
        ({"label": 1, "image": "abc"}, "image", "cannot begin with a picture"),
        ({"label": 1, "model": "other"}, "model", "there is 'plain'"),
    ],
)
def test_what_the_card_rules_out_is_refused_with_one_message(
    classes: Running, request_: dict[str, Any], param: str, words: str
) -> None:
    status, field_, message = refused(classes, **request_)
    assert (status, field_) == (400, param)
    assert words in message
    assert "--" not in message  # of the command line


def test_a_class_for_a_model_of_prompts_is_refused(tmp_path: Path) -> None:
    with served(tmp_path, slow=of(Slow())) as server:
        status, param, message = refused(server, label=1, prompt="a fox")
        assert (status, param) == (400, "label")
        assert "Give a `prompt`" in message
        assert refused(server)[1] == "prompt"


def test_a_model_that_asks_nothing_draws_at_once(tmp_path: Path) -> None:
    with served(tmp_path, nothing=of(Plain(asks="nothing"), "x.pt")) as server:
        job = post(server)
        assert (job["state"], job["pictures"][0]["class_label"]) == ("done", None)
        assert "Leave `prompt` out" in refused(server, prompt="a fox")[2]
        info = server.http.get("/api/info").json()
        assert (info["card"]["asks"], info["ideas"], info["styles"]) == ("nothing", [], [])
        assert info["idea_names"] == {}
        answer = server.http.post("/v1/images/generations", json={"prompt": "any"})
        assert answer.status_code == 200
        assert answer.headers["X-Asymflow-Ignored"] == "prompt"


def test_info_follows_the_card(classes: Running) -> None:
    info = classes.http.get("/api/info").json()
    card = info["card"]
    assert (card["title"], card["asks"], card["classes"]) == (
        "The plain model",
        "class",
        list(CLASSES),
    )
    assert (card["alpha"], card["image"], card["inpaint"], card["guided"]) == (False,) * 4
    assert card["sizes"]["native"] == {"width": 48, "height": 48}
    assert card["sizes"]["fixed"] is True
    assert [each["id"] for each in info["sizes"]] == ["48x48"]
    assert [each["id"] for each in info["qualities"]] == ["default"]
    assert info["default"] == {"quality": "default", "guidance_scale": 1.0, "size": "48x48"}
    assert info["ideas"] == ["red fox"]
    assert (info["measured"], info["can_measure"], info["measurement"]) == (False, True, None)


def test_openai_asks_a_model_of_classes_by_their_names(classes: Running) -> None:
    call = classes.http.post
    body = {"prompt": "Red fox", "size": "96x96", "quality": "high", "background": "auto"}
    answer = call("/v1/images/generations", json={**body, "response_format": "url"}).json()
    assert answer["background"] == "opaque"
    assert (answer["asymflow"]["plan"], answer["asymflow"]["drawn_size"]) == ("default", "48x48")
    picture = Image.open(io.BytesIO(classes.http.get(answer["data"][0]["url"]).content))
    assert (picture.size, picture.mode) == ((96, 96), "RGB")
    for wrong, param in (
        ({"prompt": "a red fox in the snow"}, "prompt"),
        ({"size": "96x48"}, "size"),
        ({"size": "32x32"}, "size"),
        ({"background": "transparent"}, "background"),
        ({"plan": "best"}, "quality"),
    ):
        answer = call("/v1/images/generations", json={**body, **wrong})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    answer = call("/v1/images/edits", files={"image": data.getvalue()}, data={"prompt": "1"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")


def test_the_server_draws_the_grey_pixels_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ref = str(miniatures.ddim_folder(tmp_path, in_channels=1, out_channels=1, num_class_embeds=4))
    load = partial(pipeline.load, ref, dtype="float32", device="cpu")
    model = load()
    plan = schedules.plan_of(schedules.shifted(3, 2.0), name="balanced")
    model.shelf.keep(binding.bound(plan, model.shelf.model), model.card.sizes.native)
    drawn = tmp_path / "drawn.png"
    command = ["generate", "--class", "2", "--model", ref, "--plan", "balanced", "--seed", "7"]
    assert main.run([*command, "--dtype", "float32", "--device", "cpu", "-o", str(drawn)]) == 0
    with served(tmp_path / "data", grey=load) as server:
        [picture] = post(server, label=2, seed=7)["pictures"]
        [other] = post(server, label=2, seed=8)["pictures"]
        asked = {"prompt": "2", "seed": 7, "response_format": "url"}
        answer = server.http.post("/v1/images/generations", json=asked).json()
        urls = (picture["url"], answer["data"][0]["url"], other["url"])
        files = [server.http.get(url).content for url in urls]
    assert picture["quality"] == "balanced"
    expected, *found = (np.asarray(Image.open(each)) for each in (drawn, *map(io.BytesIO, files)))
    assert expected.std() > 10
    assert (expected == expected[..., :1]).all()
    assert [np.array_equal(each, expected) for each in found] == [True, True, False]


def test_names_are_parts_of_addresses() -> None:
    refs = [None, "/data/JiT B+16.pth", "google/ddpm-cat-256", "embedded", "a/ddpm-cat-256", "b.v1"]
    assert names(refs) == [
        "asymflow", "JiT-B-16", "ddpm-cat-256", "asymflow-2", "ddpm-cat-256-2", "b.v1",
    ]  # fmt: skip


def listed(server: Running) -> dict[str, str]:
    models = server.http.get("/api/models").json()["models"]
    return {each["id"]: each["state"] for each in models}


def failure(server: Running, id: str) -> str | None:
    models = server.http.get("/api/models").json()["models"]
    return next(each["failure"] for each in models if each["id"] == id)


def test_models_are_loaded_when_they_are_asked_for(tmp_path: Path) -> None:
    slow, plain = Slow(), Plain()
    with served(tmp_path, slow=of(slow), plain=of(plain, "plain.pt")) as server:
        assert listed(server) == {"slow": "ready", "plain": "away"}
        ids = [each["id"] for each in server.http.get("/v1/models").json()["data"]]
        assert ids == ["slow", "plain"]
        assert plain.made == []
        job = post(server, model="plain", label=2)
        assert (job["state"], job["pictures"][0]["prompt"]) == ("done", "volcano")
        assert post(server, prompt="a fox", width=32, height=32)["request"]["model"] == "slow"
        assert listed(server) == {"slow": "ready", "plain": "ready"}
        assert server.http.get("/api/info?model=plain").json()["model"]["id"] == "plain"
        assert server.http.get("/api/info?model=none").status_code == 400
        text = server.http.get("/metrics").text
        assert "asymflow_models_loaded 2.0" in text
        assert 'asymflow_pictures_total{kind="studio",model="plain",quality="default"} 1.0' in text


def test_openai_calls_choose_a_model(tmp_path: Path, wordless: None) -> None:
    with served(tmp_path, slow=of(Slow()), plain=of(Plain(), "plain.pt")) as server:
        for model, used in (("plain", "plain"), ("dall-e-3", "slow"), ("gpt-image-1", "slow")):
            prompt = "volcano" if used == "plain" else "a fox"
            body = {"prompt": prompt, "model": model, "response_format": "b64_json"}
            answer = server.http.post("/v1/images/generations", json=body)
            assert answer.json()["asymflow"]["model"] == used
        answer = server.http.post("/v1/images/generations", json={"prompt": "x", "model": "plane"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_one_model_makes_room_for_another_and_comes_back(tmp_path: Path) -> None:
    loads: list[str] = []

    def load(name: str, adapter: Slow) -> Callable[[], Model]:
        def loaded() -> Model:
            loads.append(name)
            return of(adapter, None if name == "slow" else "x.pt")()

        return loaded

    first, second = load("slow", Slow()), load("plain", Plain())
    with served(tmp_path, keep_models=1, slow=first, plain=second) as server:
        assert post(server, model="plain", label=0)["state"] == "done"
        assert listed(server) == {"slow": "away", "plain": "ready"}
        assert server.http.get("/ready").status_code == 200
        assert "asymflow_models_loaded 1.0" in server.http.get("/metrics").text
        # What is known of a model stays known: this is refused without loading it.
        assert refused(server, model="slow", label=3)[1] == "label"
        assert refused(server, model="slow", prompt="a fox", width=31)[1] == "width"
        assert loads == ["slow", "plain"]
        assert post(server, prompt="a fox", width=32, height=32)["state"] == "done"
        assert loads == ["slow", "plain", "slow"]


def test_a_job_says_that_its_model_is_being_loaded(tmp_path: Path) -> None:
    gate = threading.Event()
    first = threading.Event()

    def load() -> Model:
        if first.is_set():
            assert gate.wait(20)
        first.set()
        return of(Plain(), "plain.pt")()

    with served(tmp_path, keep_models=1, slow=of(Slow()), plain=load) as server:
        post(server, model="plain", label=1)
        post(server, model="slow", prompt="a fox", width=32, height=32)
        sent = server.http.post("/api/jobs", json={"model": "plain", "label": 1}).json()
        wait_until(lambda: server.job(sent["id"])["loading"], what="a job that waits for its model")
        assert server.job(sent["id"])["state"] == "queued"
        assert listed(server)["plain"] == "loading"
        gate.set()
        job = server.over(sent["id"])
        assert (job["state"], job["loading"]) == ("done", False)


def test_one_model_draws_at_a_time_and_all_have_their_turn(tmp_path: Path) -> None:
    at_once: list[int] = []
    lock = threading.Lock()
    busy = 0

    @dataclass
    class Watched(Slow):
        def denoise(self, x_t: torch.Tensor, t: torch.Tensor, context: Context) -> torch.Tensor:
            nonlocal busy
            with lock:
                busy += 1
                at_once.append(busy)
            time.sleep(0.002)
            with lock:
                busy -= 1
            return super().denoise(x_t, t, context)

    first, second = (of(Watched(weights_hash=name * 32)) for name in ("aa", "bb"))
    with served(tmp_path, aa=first, bb=second) as server:
        post(server, model="bb", prompt="warm", width=32, height=32)
        at_once.clear()
        sent = [
            server.ask(f"{i}", model=name, headers={"X-Client": name})["id"]
            for i in range(6)
            for name in ("aa", "bb")
        ]
        jobs = [server.over(id, 60) for id in sent]
        assert {job["state"] for job in jobs} == {"done"}
        assert set(at_once) == {1}
        order = sorted(jobs, key=lambda job: job["finished"])
        assert {job["request"]["model"] for job in order[:4]} == {"aa", "bb"}


def test_a_model_that_cannot_be_loaded_disturbs_no_other(tmp_path: Path) -> None:
    def load() -> Model:
        raise InputError("/secret/folder is no model")

    with served(tmp_path, slow=of(Slow()), gone=load) as server:
        status, _, message = refused(server, model="gone", label=1)
        assert status == 503
        assert "secret" not in message
        assert listed(server)["gone"] == "failed"
        assert server.http.get("/ready").status_code == 200
        assert post(server, prompt="a fox", width=32, height=32)["state"] == "done"


def test_a_model_that_failed_is_loaded_again_for_a_request_but_not_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asymflow.server.lineup.FIRST_PAUSE", 20.0)
    tries = 0

    def load() -> Model:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise FileFormatError("/secret/file is still being copied")
        return of(Plain(), "plain.pt")()

    with served(tmp_path, slow=of(Slow()), plain=load) as server:
        place = server.app.state.studio.manager.models["plain"]
        for failed, pause in ((1, 20), (2, 40)):
            answer = server.http.post("/api/jobs", json={"model": "plain", "label": 1})
            assert answer.status_code == 503
            seconds = int(answer.headers["retry-after"])
            assert pause - 10 < seconds <= pause
            error = answer.json()["error"]
            assert error["code"] == "model_failed"
            assert f"again by the first request after {seconds} s." in error["message"]
            assert "secret" not in error["message"]
            assert refused(server, model="plain", label=1)[0] == 503
            assert listed(server)["plain"] == "failed"
            assert tries == failed  # not for the second request, which came at once
            place.again = time.monotonic()  # the pause is over
            assert listed(server)["plain"] == "away"
            assert tries == failed
        assert post(server, model="plain", label=1)["state"] == "done"
        assert listed(server)["plain"] == "ready"
        assert tries == 3


def test_jobs_of_a_model_that_failed_are_made_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asymflow.server.lineup.FIRST_PAUSE", 0.1)
    broken = threading.Event()

    def load() -> Model:
        if broken.is_set():
            raise FileFormatError("the disk is away")
        return of(Plain(), "plain.pt")()

    with served(tmp_path, keep_models=1, slow=of(Slow()), plain=load) as server:
        post(server, model="plain", label=1)
        post(server, model="slow", prompt="a fox", width=32, height=32)
        broken.set()
        first = server.http.post("/api/jobs", json={"model": "plain", "label": 1})
        assert first.status_code == 202  # what is known of it stays known
        wait_until(lambda: failure(server, "plain") is not None, what="the failure")
        wait_until(lambda: listed(server)["plain"] == "away", what="the end of the pause")
        assert server.job(first.json()["id"])["state"] == "queued"
        broken.clear()
        assert post(server, model="plain", label=2)["state"] == "done"
        assert server.over(first.json()["id"])["state"] == "done"


def test_a_job_of_a_model_that_is_not_served_any_more_fails(tmp_path: Path) -> None:
    store = Store(tmp_path)
    request = JobRequest(model="gone", label=1, width=48, height=48, quality="default", seed=1)
    slot = Slot(label=None, prompt="red fox", seed=1)
    row = JobRow(
        id=new_id(),
        client="",
        kind="studio",
        state="queued",
        created=time.time(),
        started=None,
        finished=None,
        request=request.model_dump(),
        slots=[slot.model_dump()],
        error=None,
    )
    store.add_job(row, None, "")
    store.close()
    with served(tmp_path, slow=of(Slow())) as server:
        job = server.job(row.id)
        assert (job["state"], job["error"]["code"]) == ("failed", "model_not_found")
        assert "'gone'" in job["error"]["message"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A measurement that takes 20 evaluations, and makes the plan `fast`."""
    told: list[str] = []
    monkeypatch.setattr("asymflow.io.folders.cache", lambda: tmp_path / "cache")

    def measurement(model: Model, size: tuple[int, int], tell: measuring.Tell) -> Iterator[Plan]:
        for i in range(20):
            tell(i / 20, (20 - i) * 0.02)
            told.append("evaluation")
            time.sleep(0.02)
        plan = model.adapter.default_plan(size)
        yield binding.bound(replace(plan, name="fast"), model.shelf.model)

    monkeypatch.setattr(measuring, "connected", lambda: measurement)
    return told


def test_a_measurement_adds_a_plan(classes: Running, measured: list[str]) -> None:
    http = classes.http
    assert http.get("/api/models/plain/measure").status_code == 404
    assert http.get("/api/info").json()["can_measure"] is True
    begun = http.post("/api/models/plain/measure")
    assert (begun.status_code, begun.json()["state"]) == (202, "running")
    seen: list[float] = []

    def over() -> bool:
        now = http.get("/api/models/plain/measure").json()
        seen.append(now["progress"])
        return now["state"] != "running"

    wait_until(over)
    assert seen == sorted(seen)
    found = http.get("/api/models/plain/measure").json()
    assert (found["state"], found["plans"], found["error"]) == ("done", ["fast"], None)
    info = http.get("/api/info").json()
    assert [each["id"] for each in info["qualities"]] == ["fast", "default"]
    assert (info["measured"], info["measurement"]["state"]) == (True, "done")
    assert post(classes, label=1, quality="fast")["pictures"][0]["plan"] == "fast"


def test_pictures_go_before_a_measurement(
    classes: Running, plain: Plain, measured: list[str]
) -> None:
    plain.gate.clear()
    sent = classes.http.post("/api/jobs", json={"label": 1}).json()
    classes.started(sent["id"])
    assert classes.http.post("/api/models/plain/measure").status_code == 202
    time.sleep(0.3)
    assert measured == []
    plain.gate.set()
    classes.over(sent["id"])
    url = "/api/models/plain/measure"
    wait_until(lambda: classes.http.get(url).json()["state"] == "done")
    assert len(measured) == 20


def test_a_measurement_can_be_cancelled(classes: Running, measured: list[str]) -> None:
    classes.http.post("/api/models/plain/measure")
    wait_until(lambda: len(measured) > 0)
    answer = classes.http.delete("/api/models/plain/measure")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    time.sleep(0.2)
    count = len(measured)
    time.sleep(0.2)
    assert len(measured) == count < 20
    assert [q["id"] for q in classes.http.get("/api/info").json()["qualities"]] == ["default"]


def test_a_server_without_a_measurement_says_so(
    classes: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "connected", lambda: None)
    assert classes.http.get("/api/info").json()["can_measure"] is False
    answer = classes.http.post("/api/models/plain/measure")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cannot_measure")
