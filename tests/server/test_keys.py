"""Calls with an Idempotency-Key: one job for all of them, as long as it can answer them."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from asymflow.generation import pipeline
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.server.settings import Settings
from tests.helpers import wait_until

from .conftest import Running, Serve, Slow, running

FORM = {"prompt": "a fox", "size": "32x32", "quality": "low"}
pytestmark = pytest.mark.usefixtures("wordless")


class Call(threading.Thread):
    """A call that somebody waits for, or hangs up."""

    def __init__(self, url: str, key: str, *, stream: bool = False, **more: object) -> None:
        super().__init__(daemon=True)
        self._connection = HTTPConnection(url.partition("://")[2], timeout=30)
        self._connection.connect()
        self._socket = self._connection.sock
        self._body = json.dumps({**FORM, "stream": stream, **more})
        self._key = key
        self.status = 0
        self.text = ""
        self.start()

    def run(self) -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": self._key}
        try:
            self._connection.request("POST", "/v1/images/generations", self._body, headers)
            answer = self._connection.getresponse()
            self.text = answer.read().decode()
            self.status = answer.status
        except (OSError, HTTPException):
            self.status = -1  # it was hung up
        finally:
            self._connection.close()

    def hang_up(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self.over()

    def over(self) -> None:
        self.join(20)
        assert not self.is_alive()

    @property
    def id(self) -> str:
        """Of the picture that it was answered with: in its body, or in its last event."""
        self.over()
        assert self.status == 200, self.text
        events = [line[6:] for line in self.text.splitlines() if line.startswith("data: ")]
        [picture] = json.loads(events[-1] if events else self.text)["asymflow"]["pictures"]
        return picture["id"]


def jobs(server: Running) -> list[Any]:
    return list(server.app.state.studio.manager._jobs.values())


def callers(server: Running) -> int:
    return sum(job.callers for job in jobs(server))


@pytest.mark.parametrize("streams", [(False, False), (True, True), (True, False), (False, True)])
def test_who_hangs_up_takes_nobody_elses_picture(
    serve: Serve, slow: Slow, streams: tuple[bool, bool]
) -> None:
    server = serve()
    slow.gate.clear()
    first = Call(server.url, "one", stream=streams[0])
    wait_until(lambda: callers(server) == 1)
    second = Call(server.url, "one", stream=streams[1])
    wait_until(lambda: callers(server) == 2)
    first.hang_up()
    wait_until(lambda: callers(server) == 1)
    slow.gate.set()
    assert second.id
    assert [job.state for job in jobs(server)] == ["done"]


@pytest.mark.parametrize("stream", [False, True])
def test_when_the_last_one_hangs_up_nothing_is_made(serve: Serve, slow: Slow, stream: bool) -> None:
    server = serve()
    slow.gate.clear()
    calls = [Call(server.url, "one", stream=stream) for _ in range(2)]
    wait_until(lambda: callers(server) == 2)
    for call in calls:
        call.hang_up()
    wait_until(lambda: [job.state for job in jobs(server)] == ["cancelled"])
    slow.gate.set()
    assert Call(server.url, "one", stream=stream).id  # made anew
    assert sorted(job.state for job in jobs(server)) == ["cancelled", "done"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["purged", "lost"])
def test_a_key_whose_pictures_are_gone_makes_them_anew(
    serve: Serve, tmp_path: Path, stream: bool, how: str
) -> None:
    server = serve()
    first = Call(server.url, "one").id
    assert Call(server.url, "one", stream=stream).id == first
    if how == "purged":
        server.app.state.studio.store.purge(undo=3600, passing=-1, uploads=3600)
    else:
        (tmp_path / "data" / "pictures" / f"{first}.png").unlink()
    second = Call(server.url, "one", stream=stream).id
    assert second != first
    assert Call(server.url, "one").id == second


@pytest.mark.parametrize("purged", [False, True])
def test_a_key_of_an_earlier_start(slow: Slow, tmp_path: Path, purged: bool) -> None:
    ids: list[str] = []
    adapter = cast("EmbeddedAdapter", slow)
    for _ in range(2):
        chosen = Settings(data=tmp_path / "data", port=0)
        with running(chosen, lambda: pipeline.of(adapter, dtype="float32", device="cpu")) as server:
            if ids and purged:
                server.app.state.studio.store.purge(undo=3600, passing=-1, uploads=3600)
            ids += [Call(server.url, "one").id, Call(server.url, "one", stream=True).id]
    assert ids[:2] == [ids[0]] * 2
    assert ids[2:] == [ids[2]] * 2
    assert (ids[2] == ids[0]) == (not purged)


def test_a_key_whose_job_failed_is_tried_again(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.error = ValueError("broken once")
    failed = Call(server.url, "one")
    failed.over()
    assert failed.status == 500
    assert Call(server.url, "one").id


def test_all_streams_of_a_key_get_every_partial_picture(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.gate.clear()
    more = {"quality": "medium", "partial_images": 2}
    calls = [Call(server.url, "one", stream=True, **more) for _ in range(2)]
    wait_until(lambda: callers(server) == 2)
    slow.gate.set()
    assert calls[0].id == calls[1].id
    kind = "event: image_generation.partial_image"
    assert [call.text.count(kind) for call in calls] == [2, 2]


class Keyed(RuleBasedStateMachine):
    """Calls with two keys, that come and hang up, while pictures are made and removed."""

    data: Path

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._slow = Slow()
        adapter = cast("EmbeddedAdapter", self._slow)
        chosen = Settings(data=self.data / str(time.monotonic_ns()), port=0, burst=10_000)
        self._server = self._stack.enter_context(
            running(chosen, lambda: pipeline.of(adapter, dtype="float32", device="cpu"))
        )
        self._slow.gate.clear()
        self._open: dict[str, list[Call]] = {"a": [], "b": []}
        self._kept: dict[str, str] = {}

    @rule(key=st.sampled_from("ab"), stream=st.booleans())
    def call(self, key: str, stream: bool) -> None:
        kept = self._kept.get(key)
        before = callers(self._server)
        made = Call(self._server.url, key, stream=stream)
        if kept is not None:
            assert made.id == kept
            # The answer comes a moment before its caller is counted out.
            wait_until(lambda: callers(self._server) == before)
            return
        wait_until(lambda: callers(self._server) == before + 1)
        self._open[key].append(made)

    @precondition(lambda self: any(self._open.values()))
    @rule(first=st.booleans(), data=st.data())
    def hang_up(self, first: bool, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([key for key, calls in self._open.items() if calls]))
        before = callers(self._server)
        self._open[key].pop(0 if first else -1).hang_up()
        wait_until(lambda: callers(self._server) == before - 1)

    @precondition(lambda self: any(self._open.values()))
    @rule()
    def draw(self) -> None:
        """Everybody who still waits gets a picture, the same one for one key."""
        self._slow.gate.set()
        for key, calls in self._open.items():
            ids = {call.id for call in calls}
            assert len(ids) == bool(calls)
            if ids:
                self._kept[key] = ids.pop()
            calls.clear()
        wait_until(lambda: callers(self._server) == 0)
        self._slow.gate.clear()

    @precondition(lambda self: self._kept and not any(self._open.values()))
    @rule()
    def purge(self) -> None:
        store = self._server.app.state.studio.store
        store.purge(undo=3600, passing=-1, uploads=3600)
        self._kept.clear()

    def teardown(self) -> None:
        self._slow.gate.set()
        for calls in self._open.values():
            for call in calls:
                call.over()
        self._stack.close()


def test_calls_with_keys_in_any_order(tmp_path: Path) -> None:
    class Here(Keyed):
        data = tmp_path

    case = Here.TestCase
    case.settings = settings(
        max_examples=12, stateful_step_count=12, deadline=None, derandomize=True, database=None
    )
    case("runTest").runTest()
