"""Servers that really listen, with the shipped model or one that costs nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.types import Request
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.server import app as server
from asymflow.server.lineup import Load
from asymflow.server.settings import Settings
from tests.fakes import FakeModel
from tests.helpers import wait_until

SMALL = {"width": 32, "height": 32, "quality": "draft"}
"""The quickest picture there is."""


@dataclass
class Slow(FakeModel):
    """A model whose steps take as long as a test says, and wait where it says so.

    It draws every size, and keeps the prompts it was given.
    """

    weights_hash: str = "cd" * 32
    styles: tuple[str, ...] = ("noto",)
    seconds: float = 0.0
    gate: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    broken: bool = False
    drawn: list[str] = field(default_factory=lambda: list[str]())

    name = "slow:cdcd"

    def __post_init__(self) -> None:
        self.gate.set()

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return ()

    def check(self, request: Request) -> None:
        super().check(replace(request, size=(64, 64)))

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        self.drawn += [str(r.inputs["prompt"]) for r in requests]
        return super().encode(requests)

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.gate.wait(60)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if self.broken:
            return torch.full_like(x_t, float("nan"))
        time.sleep(self.seconds)  # the work
        return super().denoise(x_t, t, context)


@dataclass(frozen=True)
class Running:
    """A server and a client for it."""

    url: str
    http: httpx.Client
    app: Any
    server: Any

    @property
    def connections(self) -> int:
        """That are open, that of `http` among them."""
        found: int = len(self.server._server.server_state.connections)
        return found

    def connect(self, sent: bytes = b"", *, buffer: int | None = None) -> socket.socket:
        """A connection of its own, with what it sends first.

        Args:
            buffer: bytes that it takes before anybody reads.
        """
        url = httpx.URL(self.url)
        assert url.port is not None
        found = socket.socket()
        if buffer is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        found.settimeout(20)
        found.connect((url.host, url.port))
        found.sendall(sent)
        return found

    def ask(self, prompt: str = "a red apple", **more: Any) -> dict[str, Any]:
        """Post a small job and give it back."""
        headers = more.pop("headers", {})
        answer = self.http.post(
            "/api/jobs", json={"prompt": prompt, **SMALL, **more}, headers=headers
        )
        assert answer.status_code == 202, answer.text
        return answer.json()

    def job(self, id: str) -> dict[str, Any]:
        return self.http.get(f"/api/jobs/{id}").json()

    def over(self, id: str, seconds: float = 20) -> dict[str, Any]:
        """The job when it is over."""

        def is_over() -> bool:
            return self.job(id)["state"] in ("done", "failed", "cancelled")

        wait_until(is_over, within=seconds, what=f"the end of job {id}")
        return self.job(id)

    def started(self, id: str) -> None:
        """Wait until the job is being made."""
        wait_until(lambda: self.job(id)["state"] == "running", what=f"the start of job {id}")


Serve = Callable[..., Running]


@contextmanager
def running(settings: Settings, load: Load | Mapping[str, Load]) -> Generator[Running]:
    """A server in a thread, on a free port."""
    started = threading.Event()
    address: list[str] = []

    def tell(url: str) -> None:
        address.append(url)
        started.set()

    app = server.create_app(settings, load)
    running = server.Running(app, settings, tell)
    thread = threading.Thread(target=running.serve)
    thread.start()
    try:
        assert started.wait(20)
        headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
        with httpx.Client(base_url=address[0], headers=headers, timeout=30) as http:
            wait_until(lambda: http.get("/ready").status_code == 200, within=30)
            yield Running(address[0], http, app, running)
    finally:
        running.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def real_model() -> Model:
    """The model that comes with asymflow."""
    return pipeline.load(None, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def studio(real_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """A server with the real model."""
    settings = Settings(data=tmp_path_factory.mktemp("studio"), port=0, burst=10_000)
    with running(settings, lambda: real_model) as found:
        yield found


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the network is looked at often, and started again at once."""
    monkeypatch.setattr("asymflow.server.supervisor._TICK", 0.05)
    monkeypatch.setattr("asymflow.server.supervisor._SHORTEST_PAUSE", 0.01)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def serve(tmp_path: Path, slow: Slow) -> Generator[Serve]:
    """Starts servers with the slow model, and stops them."""
    with ExitStack() as stack:

        def start(**more: Any) -> Running:
            base = Settings(data=tmp_path / "data", port=0, burst=10_000)
            settings = replace(base, **more)
            adapter = cast("EmbeddedAdapter", slow)
            return stack.enter_context(
                running(settings, lambda: pipeline.of(adapter, dtype="float32", device="cpu"))
            )

        yield start
        slow.gate.set()


@pytest.fixture
def wordless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow model has no words to count."""

    def usage(*about: object) -> dict[str, int]:
        return {"total_tokens": len(about)}

    monkeypatch.setattr("asymflow.server.openai.usage", usage)
