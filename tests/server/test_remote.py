"""The network in a process of its own: the same answers, and every way in which it can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from asymflow.core import engine, schedules
from asymflow.core.types import LATE, LATE_CONDITIONAL, Plan, Request, Step
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.server import remote
from asymflow.server.settings import Settings
from asymflow.server.supervisor import Lost
from tests.helpers import wait_until
from tests.small_models import JIT

from .conftest import SMALL, running

ROOT = Path(__file__).parents[2]
PLAN = schedules.plan_of(schedules.shifted(2, 2.0))


@pytest.fixture(scope="module")
def distant(real_model: Model) -> Generator[Model]:
    model = remote.moved(real_model, 60.0)
    yield model
    remote.end(model)


def network(model: Model) -> remote.Network:
    assert isinstance(model.adapter, remote.Apart)
    return model.adapter.network


def pid(model: Model) -> int:
    """Of the child, as soon as there is one."""
    return wait_until(lambda: network(model).process.pid, what="the start of a child")


def requests(count: int) -> list[Request]:
    return [Request({"prompt": f"{n} red apples"}, (32, 32), n, 3.0) for n in range(count)]


def test_answers_are_the_same(real_model: Model, distant: Model) -> None:
    # More contexts than are remembered, and again those of the first.
    for group in (requests(6), requests(1)):
        near = engine.run(real_model.adapter, PLAN, group)
        far = engine.run(distant.adapter, PLAN, group)
        assert all((a.picture == b.picture).all() for a, b in zip(near, far, strict=True))


def test_late_steps_are_the_same() -> None:
    near = pipeline.load(str(JIT), dtype="float32", device="cpu")
    far = remote.moved(near, 60.0)
    late = Plan("late", (Step(1.0, 0.5), Step(0.5, 0.2, LATE), Step(0.2, 0.0, LATE_CONDITIONAL)))
    wanted = [Request({"label": label}, (32, 32), label, 2.0) for label in (3, 7)]
    try:
        found = [engine.run(model.adapter, late, wanted) for model in (near, far)]
        assert all((a.picture == b.picture).all() for a, b in zip(*found, strict=True))
        context, _ = far.adapter.encode(wanted[:1])
        lost = {"added": torch.zeros(1, 3, 5)}
        with pytest.raises(RuntimeError, match="size of tensor"):
            network(far).denoise_split(torch.zeros(1, 1, 32, 32), torch.ones(1), context, lost)
    finally:
        remote.end(far)


def test_plans_stay_the_same(real_model: Model, distant: Model) -> None:
    size = real_model.card.sizes.native
    near, far = (pipeline.plans_of(each, size) for each in (real_model, distant))
    assert list(near) == list(far) == ["draft", "fast", "balanced", "best", "default"]


def test_threads_share_it(real_model: Model, distant: Model) -> None:
    wanted = requests(3)
    with ThreadPoolExecutor(3) as pool:
        found = [
            each.result()[0]
            for each in [pool.submit(engine.run, distant.adapter, PLAN, [one]) for one in wanted]
        ]
    near = engine.run(real_model.adapter, PLAN, wanted)
    assert all((a.picture == b.picture).all() for a, b in zip(near, found, strict=True))


def test_all_who_ask_hear_that_it_was_killed(distant: Model) -> None:
    context, _ = distant.adapter.encode(requests(1))
    number = pid(distant)
    os.kill(number, signal.SIGSTOP)
    x_t, t = torch.zeros(1, 4, 32, 32), torch.ones(1)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(distant.adapter.denoise, x_t, t, context) for _ in range(2)]
        wait_until(lambda: network(distant).process.waiting == 2)
        os.kill(number, signal.SIGKILL)
        assert [type(each.exception()) for each in asked] == [Lost, Lost]


def test_a_model_on_a_gpu_stays(real_model: Model) -> None:
    model = replace(real_model, device="cuda")
    assert remote.moved(model, 60.0) is model


def test_an_error_is_told_and_the_next_question_answered(distant: Model) -> None:
    context, _ = distant.adapter.encode(requests(1))
    with pytest.raises(RuntimeError, match=r"primitive|shape|size"):
        distant.adapter.denoise(torch.zeros(1, 3, 32, 32), torch.ones(1), context)
    assert (
        distant.adapter.denoise(torch.zeros(1, 4, 32, 32), torch.ones(1), context).isfinite().all()
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_was_ended_is_replaced(distant: Model, number: signal.Signals) -> None:
    context, _ = distant.adapter.encode(requests(1))
    x_t, t = torch.zeros(1, 4, 32, 32), torch.ones(1)
    before = distant.adapter.denoise(x_t, t, context)
    first = pid(distant)
    os.kill(first, number)
    wait_until(lambda: network(distant).process.pid not in (first, None))
    assert torch.equal(distant.adapter.denoise(x_t, t, context), before)


@pytest.mark.parametrize("stopped", [False, True])
def test_it_ends_with_a_server_that_is_killed(stopped: bool) -> None:
    code = (
        "from asymflow.server import remote; import time; from tests.helpers import wait_until\n"
        "network = remote.Network(remote.command(None, 'float32'), answer_seconds=60)\n"
        "wait_until(lambda: network.process.live)\n"
        "print(network.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        number = int(server.stdout.readline())
        if stopped:
            os.kill(number, signal.SIGSTOP)
        server.kill()
    wait_until(lambda: not _alive(number), what="the end of the child")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended but that nobody has asked about is a zombie.
    state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2]
    return state.split()[0] != "Z"


def test_a_server_draws_with_it_and_survives_its_end(
    real_model: Model, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = remote.moved(real_model, 60.0)
    settings = Settings(data=tmp_path_factory.mktemp("remote"), port=0, burst=10_000)
    with running(settings, lambda: model) as found:
        number = pid(model)
        assert _made(found.http)["state"] == "done"
        os.kill(number, signal.SIGKILL)
        job = _made(found.http)
        assert job["state"] == "done", job["error"]
        assert pid(model) != number
    assert network(model).process.pid is None


def _made(http: httpx.Client) -> dict[str, Any]:
    id = http.post("/api/jobs", json={"prompt": "a fox", **SMALL}).json()["id"]

    def job() -> dict[str, Any]:
        return http.get(f"/api/jobs/{id}").json()

    wait_until(lambda: job()["state"] in ("done", "failed"))
    return job()
