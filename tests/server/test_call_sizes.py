"""Pictures per network call: measured once, after the first picture; bits stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from asymflow.core.batcher import Batcher
from asymflow.core.types import Request
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.planning.costs import CallCost
from asymflow.server.call_sizes import CallSizes
from asymflow.server.jobs import Unit
from asymflow.server.lineup import Served
from asymflow.server.manager import JobManager
from asymflow.server.worker import Worker, _Drawing  # pyright: ignore[reportPrivateUsage]
from tests.fakes import FakeModel
from tests.helpers import wait_until

from .conftest import Serve, Slow

SIZE = (32, 32)
REQUEST = Request({"prompt": "a fox"}, SIZE)


def model_of(adapter: FakeModel) -> Model:
    return pipeline.of(adapter, dtype="float32", device="cpu")


def sizes_of(adapter: FakeModel, folder: Path) -> tuple[CallSizes, Batcher]:
    batcher = Batcher(adapter, 8)
    return CallSizes(model_of(adapter), batcher, folder), batcher


def finish(sizes: CallSizes) -> int:
    """Measure all there is, and count the turns."""
    turns = 0
    while sizes.pending:
        sizes.measure()
        turns += 1
    return turns


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Requests that were measured; the knee is at 4 rows."""
    found: list[Request] = []

    def curve(adapter: Any, request: Request, **_: Any) -> Iterator[CallCost]:
        found.append(request)
        for rows in (1, 2, 4, 8, 16):
            yield CallCost(rows, 0.01 * max(1, rows / 4), 1000 * rows)

    monkeypatch.setattr("asymflow.server.call_sizes.capacity.measured", curve)
    return found


def test_calls_are_measured_one_at_a_time_after_the_first_picture(
    tmp_path: Path, measured: list[Request]
) -> None:
    sizes, batcher = sizes_of(FakeModel(batch=None), tmp_path)
    assert not sizes.pending
    sizes.finished(REQUEST)
    assert finish(sizes) == 5 + 1
    assert batcher.limits == {SIZE: 4}
    sizes.finished(REQUEST)
    assert not sizes.pending
    assert len(measured) == 1


def test_a_later_start_knows_them(tmp_path: Path, measured: list[Request]) -> None:
    sizes, _ = sizes_of(FakeModel(batch=None), tmp_path)
    sizes.finished(REQUEST)
    finish(sizes)
    again, batcher = sizes_of(FakeModel(batch=None), tmp_path)
    again.finished(REQUEST)
    assert not again.pending
    assert batcher.limits == {SIZE: 4}
    assert len(measured) == 1
    again.finished(Request({}, (64, 32)))
    assert again.pending


def test_a_model_of_one_picture_per_call_is_not_measured(
    tmp_path: Path, measured: list[Request]
) -> None:
    sizes, batcher = sizes_of(FakeModel(batch=1), tmp_path)
    sizes.finished(REQUEST)
    assert not sizes.pending
    assert not batcher.limits
    assert not measured


def test_an_error_keeps_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def curve(*_: Any, **__: Any) -> Iterator[CallCost]:
        yield CallCost(1, 0.01, 0)
        raise RuntimeError("the device is gone")

    monkeypatch.setattr("asymflow.server.call_sizes.capacity.measured", curve)
    sizes, batcher = sizes_of(FakeModel(batch=None), tmp_path)
    sizes.finished(REQUEST)
    assert finish(sizes) == 2
    assert not batcher.limits
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_costs_the_file_only(
    tmp_path: Path, measured: list[Request]
) -> None:
    (tmp_path / "file").touch()
    sizes, batcher = sizes_of(FakeModel(batch=None), tmp_path / "file" / "calls")
    sizes.finished(REQUEST)
    finish(sizes)
    assert batcher.limits == {SIZE: 4}


def test_a_server_measures_when_it_has_made_a_picture(
    serve: Serve, slow: Slow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asymflow.io.folders.cache", lambda: tmp_path / "cache")
    slow.batch = None
    server = serve()
    assert not (tmp_path / "cache").exists()  # the start does not wait for it
    first = server.over(server.ask("a fox", seed=3)["id"])
    wait_until(lambda: len(list((tmp_path / "cache" / "calls").glob("*.json"))) == 1)
    second = server.over(server.ask("a fox", seed=3)["id"])
    one, other = (server.http.get(job["pictures"][0]["url"]).content for job in (first, second))
    assert one == other


def test_a_limit_of_the_settings_is_kept(
    serve: Serve, slow: Slow, tmp_path: Path, measured: list[Request]
) -> None:
    slow.batch = None
    server = serve(together=2)
    server.over(server.ask("a fox")["id"])
    server.over(server.ask("a cat")["id"])
    assert not measured


def test_threads_never_take_more_pictures_than_there_is_room_for() -> None:
    rooms: list[int] = []

    class Manager:
        def take(self, served: Served, limit: int, *, wait: bool) -> list[Unit]:
            assert served is worker.served
            rooms.append(limit)
            if len(rooms) < 3:
                worker._fill(shared)  # pyright: ignore[reportPrivateUsage]  # the other thread
            return []

        def quiet(self, served: object) -> bool:
            return served is worker.served

        def rest(self, units: object) -> None:
            pass

    def load() -> Model:
        raise AssertionError

    worker = Worker(cast("JobManager", Manager()), Served("fake", load))
    shared = _Drawing(model_of(FakeModel()), Batcher(FakeModel(), 2), 2)
    shared.runs[0] = cast("Any", None)
    worker._fill(shared)  # pyright: ignore[reportPrivateUsage]
    assert rooms == [2, 1]
    assert shared.reserved == 0
