"""A server whose network dies, hangs, or cannot be started: no job is lost or waits for ever."""

from __future__ import annotations

import io
import itertools
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.server.remote import Network
from asymflow.server.settings import Settings
from asymflow.server.worker import Worker
from tests.helpers import wait_until

from .conftest import SMALL, Running, Serve, Slow, running

pytestmark = pytest.mark.usefixtures("impatient")

CHILD = Path(__file__).with_name("child.py")


@dataclass
class Distant(Slow):
    """The slow model with its network in a child, which fails as files in `faults` say."""

    network: Network | None = None

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        assert self.network is not None
        time.sleep(self.seconds)  # the work
        return self.network.denoise(x_t, t, context)


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    folder = tmp_path / "faults"
    folder.mkdir()
    return folder


@contextmanager
def begun(tmp_path: Path, **more: float) -> Generator[tuple[Running, Distant]]:
    answer = more.pop("answer_seconds", 2.0)
    command = (sys.executable, str(CHILD), str(tmp_path / "faults"))
    model = Distant(network=Network(command, answer_seconds=answer, start_seconds=20))
    settings = Settings(
        data=tmp_path / "data", port=0, burst=10_000, network_seconds=answer, drain_seconds=0.3
    )
    model.seconds = more.pop("seconds", 0.0)
    with running(settings, lambda: pipeline.of(model, dtype="float32", device="cpu")) as found:
        yield found, model


def pid(model: Distant) -> int:
    assert model.network is not None
    process = model.network.process
    wait_until(lambda: process.live)
    assert process.pid is not None
    return process.pid


def pixels(server: Running, job: dict[str, list[dict[str, str]]]) -> np.ndarray:
    data = server.http.get(job["pictures"][0]["url"]).content
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_picture_outlives_the_network(
    tmp_path: Path, faults: Path, number: signal.Signals
) -> None:
    with begun(tmp_path) as (server, model):
        undisturbed = server.over(server.ask("a fox", seed=3)["id"])
        model.seconds = 0.1
        job = server.ask("a fox", seed=3, quality="best")
        wait_until(lambda: server.job(job["id"])["progress"] > 0)
        os.kill(pid(model), number)
        job = server.over(job["id"], 60)
        assert job["state"] == "done", job["error"]
        model.seconds = 0
        again = server.over(server.ask("a fox", seed=3)["id"])
        assert (pixels(server, again) == pixels(server, undisturbed)).all()
        assert "asymflow_network_restarts 1.0" in server.http.get("/metrics").text


def test_a_picture_that_ends_the_network_fails_alone(tmp_path: Path, faults: Path) -> None:
    with begun(tmp_path) as (server, _):
        (faults / "die").touch()
        failed = server.over(server.ask("poison")["id"], 60)
        assert (failed["state"], failed["error"]["code"]) == ("failed", "network_lost")
        assert "memory" not in failed["error"]["message"]
        (faults / "die").unlink()
        wait_until(lambda: server.http.get("/ready").status_code == 200)
        assert server.over(server.ask("good")["id"], 60)["state"] == "done"


def test_memory_that_the_system_took_back_is_called_so(
    tmp_path: Path, faults: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = itertools.count()
    monkeypatch.setattr("asymflow.server.supervisor._reclaimed", lambda: next(taken))
    with begun(tmp_path, answer_seconds=600) as (server, model):
        (faults / "hang").touch()
        job = server.ask("large")
        assert model.network is not None
        process = model.network.process
        for _ in range(3):
            wait_until(lambda: process.waiting > 0)
            before = pid(model)
            os.kill(before, signal.SIGKILL)
            wait_until(lambda before=before: process.pid not in (before, None))
        failed = server.over(job["id"], 60)
        assert failed["error"]["code"] == "out_of_memory"


def test_while_it_cannot_be_started_jobs_wait_and_calls_are_told(
    tmp_path: Path, faults: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(*about: object) -> dict[str, int]:  # this model has no words to count
        return {"total_tokens": len(about)}

    monkeypatch.setattr("asymflow.server.openai.usage", usage)
    with begun(tmp_path, answer_seconds=0.5) as (server, model):
        (faults / "exit").touch()
        os.kill(pid(model), signal.SIGKILL)
        wait_until(lambda: server.http.get("/ready").status_code == 503)
        assert server.http.get("/ready").json() == {"status": "restarting"}
        assert server.http.get("/health").status_code == 200
        job = server.ask("patient")
        call = server.http.post("/v1/images/generations", json={"prompt": "a fox"}, timeout=60)
        assert call.status_code == 503
        assert call.json()["error"]["code"] == "network_lost"
        assert server.job(job["id"])["state"] == "queued"
        (faults / "exit").unlink()
        assert server.over(job["id"], 60)["state"] == "done"
        assert server.http.get("/ready").status_code == 200


def test_a_stop_does_not_wait_for_a_network_that_hangs(tmp_path: Path, faults: Path) -> None:
    with begun(tmp_path, answer_seconds=600) as (server, model):
        number = pid(model)
        (faults / "hang").touch()
        job = server.ask("a fox")
        assert model.network is not None
        process = model.network.process
        wait_until(lambda: process.waiting > 0)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    (faults / "hang").unlink()
    with begun(tmp_path) as (server, _):
        assert server.over(job["id"], 60)["state"] == "done"


def test_a_model_that_cannot_be_loaded_yet_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asymflow.server.lineup.FIRST_PAUSE", 0.3)
    tries = itertools.count()
    slow = Slow()

    def load() -> Model:
        if next(tries) < 2:
            raise OSError(24, "Too many open files")
        return pipeline.of(slow, dtype="float32", device="cpu")

    with running(Settings(data=tmp_path, port=0), load) as server:  # waits until it is ready
        assert next(tries) == 3
        answer = server.http.post("/api/jobs", json={"prompt": "a fox", **SMALL})
        assert answer.status_code == httpx.codes.ACCEPTED
        assert server.over(answer.json()["id"])["state"] == "done"


def test_a_fault_of_the_server_costs_the_pictures_at_hand_only(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: their jobs fail at once with a reason, and the worker goes on."""
    server = serve()
    monkeypatch.setattr("asymflow.server.worker._PAUSE", 0.1)
    own, faults = Worker._drop_unwanted, itertools.count()  # pyright: ignore[reportPrivateUsage]

    def drop_unwanted(*args: Any) -> None:
        if next(faults) == 0:
            raise RuntimeError("a fault of ours")
        own(*args)

    monkeypatch.setattr(Worker, "_drop_unwanted", drop_unwanted)
    first = server.ask("a fox")
    second = server.over(server.ask("a cat")["id"])
    assert second["state"] == "done"
    failed = server.over(first["id"])
    assert failed["state"] == "failed"
    assert failed["error"]["code"] == "internal_error"
    assert not failed["pictures"]
