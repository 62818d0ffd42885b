"""Pictures per call, from curves that are given and from calls of which the time is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.types import Request
from asymflow.planning import capacity
from asymflow.planning.costs import CallCost
from tests.fakes import FakeModel

SIZE = (32, 32)
REQUEST = Request({"prompt": "a fox"}, SIZE)
KEY = {"model": "fake", "device": "cpu", "size": "32x32"}
MB = 10**6


@dataclass
class Timed(FakeModel):
    """Calls take as long as a function of their rows says, by the clock of `clock`."""

    batch: int | None = None
    seconds: Callable[[int], float] = lambda rows: 0.002
    limit: int = 10**9
    rows: list[int] = field(default_factory=list[int])
    now: float = 0.0

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.rows.append(len(x_t))
        if len(x_t) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.now += self.seconds(len(x_t))
        return super().denoise(x_t, t, context)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    own = capacity.costs.curve

    def curve(model: Timed, *args: Any) -> tuple[CallCost, ...]:
        monkeypatch.setattr("asymflow.planning.costs.time.perf_counter", lambda: model.now)
        return own(model, *args)

    monkeypatch.setattr(capacity.costs, "curve", curve)


def rows_of(model: FakeModel, max_bytes: int | None = None) -> list[int]:
    return [each.rows for each in capacity.measured(model, REQUEST, max_bytes=max_bytes)]


def line(rate: Callable[[int], float], *rows: int, size: int = MB) -> list[CallCost]:
    """A curve whose memory is proportional to rows."""
    return [CallCost(n, n / rate(n), n * size) for n in rows]


def test_a_device_that_gains_nothing_makes_one_picture_per_call() -> None:
    model = Timed(seconds=lambda rows: 0.004 * rows)
    curve = list(capacity.measured(model, REQUEST))
    assert [each.rows for each in curve] == [1, 2, 4]  # two doublings without a gain
    assert capacity.pictures(curve) == 1


def test_a_device_that_gains_makes_as_many_as_its_knee() -> None:
    model = Timed(seconds=lambda rows: 0.004 * max(1, rows / 8))
    curve = list(capacity.measured(model, REQUEST))
    assert [each.rows for each in curve] == [1, 2, 4, 8, 16, 32]
    assert capacity.pictures(curve) == 8


def test_a_limit_of_the_adapter_is_never_passed() -> None:
    assert rows_of(Timed(batch=1)) == [1]
    assert max(rows_of(Timed(batch=4))) == 4


def test_calls_that_would_take_long_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LONGEST", 0.03)
    model = Timed(seconds=lambda rows: 0.02)
    assert rows_of(model) == [1]
    assert set(model.rows) == {1}


def test_running_out_of_memory_ends_the_curve() -> None:
    assert rows_of(Timed(limit=4)) == [1, 2, 4]


def test_calls_beyond_the_ceiling_are_not_made() -> None:
    model = Timed()
    [one, two, *_] = capacity.measured(Timed(), REQUEST)
    per_row = two.peak_bytes - one.peak_bytes
    assert per_row > 0
    assert rows_of(model, one.peak_bytes + 4 * per_row) == [1, 2, 4]
    assert max(model.rows) == 4


def test_other_errors_are_raised() -> None:
    class Broken(Timed):
        def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        rows_of(Broken())


def test_both_rows_of_a_guided_picture_fit_into_memory() -> None:
    curve = line(lambda n: float(n), 1, 2, 4, 8, 16)
    assert capacity.pictures(curve) == 16
    assert capacity.pictures(curve, 32 * MB) == 16
    assert capacity.pictures(curve, 8 * MB) == 4
    assert capacity.pictures(curve, 1) == 1


def test_a_curve_is_kept(tmp_path: Path) -> None:
    curve = tuple(line(lambda n: 8.0, 1, 2, 4))
    assert capacity.read(tmp_path, KEY) is None
    capacity.write(tmp_path, KEY, curve)
    assert capacity.read(tmp_path, KEY) == curve
    assert capacity.read(tmp_path, {**KEY, "device": "cuda"}) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": {}, "curve": [[0, 0, 0]]}'])
def test_a_damaged_file_is_measured_again(tmp_path: Path, text: str) -> None:
    capacity.path(tmp_path, KEY).write_text(text, "utf-8")
    assert capacity.read(tmp_path, KEY) is None
    whole = '{"key": {"model": "fake", "device": "cpu", "size": "32x32"}, "curve": [[1, -1, 0]]}'
    capacity.path(tmp_path, KEY).write_text(whole, "utf-8")
    assert capacity.read(tmp_path, KEY) is None
