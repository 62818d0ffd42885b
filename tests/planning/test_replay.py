"""Recorded outputs that are replayed instead of computed again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.schedules import shifted
from asymflow.core.types import Profile, Request
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import profiler
from asymflow.planning.replay import recorded

TIMES = shifted(5, 2.0)
REQUESTS = [Request({"label": 1}, (8, 8), seed, 3.0) for seed in range(2)]


class Counting(GaussianAdapter):
    """Counts calls, and may be interrupted in one."""

    calls = 0
    stop_at: int | None = None

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        type(self).calls += 1
        if type(self).calls == type(self).stop_at:
            raise KeyboardInterrupt
        return super().denoise(x_t, t, context)


Build = Callable[..., Counting]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Build:
    def build(stop_at: int | None = None, dtype: torch.dtype = torch.float32) -> Counting:
        monkeypatch.setattr(Counting, "calls", 0)
        monkeypatch.setattr(Counting, "stop_at", stop_at)
        shape = (2, 3, 8, 8)
        std = torch.linspace(0.3, 0.9, 2 * 192, dtype=dtype).view(shape)
        return Counting(torch.full(shape, 0.1, dtype=dtype), std)

    return build


def measure(model: Counting, partial: Path | None) -> Profile:
    return profiler.profile(model, REQUESTS, times=TIMES, repeats=3, partial=partial)


def same(one: Profile, other: Profile) -> bool:
    names = ("amplification", "local_error", "weight", "drift")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


def test_an_interrupted_profile_goes_on_and_is_the_same(build: Build, tmp_path: Path) -> None:
    whole = measure(build(), None)
    partial = tmp_path / "new" / "p.partial"
    for stop_at in (5, 9):
        with pytest.raises(KeyboardInterrupt):
            measure(build(stop_at), partial)
    model = build()
    assert same(measure(model, partial), whole)
    went_on = Counting.calls
    assert same(measure(build(), partial), whole)
    assert Counting.calls < went_on  # nothing but the timing of the tiers is computed again
    with recorded(build(), partial) as adapter:
        profiler.reference(adapter, REQUESTS, TIMES, whole.tiers)
    assert (adapter.computed, Counting.calls) == (0, 0)
    # Two moves of the reference between two times, and every size at the first of them.
    assert adapter.replayed == (len(TIMES) - 1) * (2 + len(model.pool_factors((8, 8))))


@pytest.mark.parametrize("cut", [1, 7, 19, 21])
def test_a_torn_record_is_computed_again(cut: int, build: Build, tmp_path: Path) -> None:
    partial = tmp_path / "p.partial"
    x_t, t, context = torch.ones(1, 3, 8, 8), torch.tensor([0.5]), {"label": torch.tensor([1])}
    with recorded(build(), partial) as adapter:
        first = adapter.denoise(x_t, t, context)
        second = adapter.denoise(2 * x_t, t, context)
    size = partial.stat().st_size
    partial.write_bytes(partial.read_bytes()[:-cut])
    with recorded(build(), partial) as adapter:
        assert torch.equal(adapter.denoise(x_t, t, context), first)
        assert torch.equal(adapter.denoise(2 * x_t, t, context), second)
        assert (adapter.replayed, adapter.computed) == (1, 1)
    assert partial.stat().st_size == size


def test_a_damaged_answer_is_not_believed(build: Build, tmp_path: Path) -> None:
    partial = tmp_path / "p.partial"
    x_t, t, context = torch.ones(1, 3, 8, 8), torch.tensor([0.5]), {"label": torch.tensor([1])}
    with recorded(build(), partial) as adapter:
        first = adapter.denoise(x_t, t, context)
    data = bytearray(partial.read_bytes())
    data[40] ^= 1
    partial.write_bytes(data)
    with recorded(build(), partial) as adapter:
        assert torch.equal(adapter.denoise(x_t, t, context), first)
        assert adapter.replayed == 0


@pytest.mark.parametrize("other", ["state", "time", "context", "model", "dtype"])
def test_answers_to_other_questions_are_dropped(
    other: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = tmp_path / "p.partial"
    x_t, t, context = torch.ones(1, 3, 8, 8), torch.tensor([0.5]), {"label": torch.tensor([1])}
    with recorded(build(), partial) as adapter:
        for _ in range(3):
            adapter.denoise(x_t, t, context)
    if other == "model":
        monkeypatch.setattr(Counting, "name", "another")
    model = build()
    x_t = {"state": x_t + 1e-6, "dtype": x_t.double()}.get(other, x_t)
    t = t + 1e-6 if other == "time" else t
    context = {"label": torch.tensor([0])} if other == "context" else context
    with recorded(model, partial) as adapter:
        for _ in range(2):
            assert torch.equal(adapter.denoise(x_t, t, context), model.denoise(x_t, t, context))
        assert (adapter.replayed, adapter.computed) == (0, 2)
    with recorded(model, partial) as adapter:
        adapter.denoise(x_t, t, context)
        adapter.denoise(x_t, t, context)
        adapter.denoise(x_t, t, context)
        assert (adapter.replayed, adapter.computed) == (2, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_outputs_are_replayed_bit_for_bit(dtype: torch.dtype, build: Build, tmp_path: Path) -> None:
    partial = tmp_path / "p.partial"
    x_t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    t, context = torch.tensor([0.5, 0.25], dtype=dtype), {"label": torch.tensor([1, 0])}
    with recorded(build(dtype=dtype), partial) as adapter:
        first = adapter.denoise(x_t, t, context)
    with recorded(build(dtype=dtype), partial) as adapter:
        again = adapter.denoise(x_t, t, context)
        assert adapter.replayed == 1
    assert again.dtype == dtype
    assert torch.equal(again, first)
