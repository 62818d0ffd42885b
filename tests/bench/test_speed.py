from collections.abc import Callable

import pytest
import torch
from torch import nn

from asymflow.bench import speed
from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval
from asymflow.planning import costs


class Clock:
    """Time that passes only when a call says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def call(self, name: str, *durations: float) -> Callable[[], None]:
        times = iter(durations * 100)

        def run() -> None:
            self.log.append(name)
            self.now += next(times)

        return run

    def product(self, *_: object, **__: object) -> None:
        self.now += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(costs.time, "perf_counter", clock.perf_counter)
    return clock


def test_ratio_is_the_median_of_rounds_with_its_interval(clock: Clock) -> None:
    # Two warm-up calls, then rounds of 3, 6, 3, 2, 40 against 1.
    a = clock.call("a", 9, 9, 3, 6, 3, 2, 40)
    b = clock.call("b", 9, 9, 1, 1, 1, 1, 1)
    ratio = speed.ratio(a, b, repeats=5)
    # In 5.8% of the draws three of five or more are the lowest round, or the highest.
    assert ratio.median == Interval(3, 2, 40)
    assert (ratio.a_ms, ratio.b_ms) == (3000, 1000)


def test_ratio_of_rounds_survives_a_machine_that_slows_down(clock: Clock) -> None:
    a = clock.call("a", 9, 9, 2, 4, 8, 16, 32)
    b = clock.call("b", 9, 9, 1, 2, 4, 8, 16)
    ratio = speed.ratio(a, b, repeats=5)
    assert ratio.median == Interval(2, 2, 2)


def test_sides_take_turns_at_going_first(clock: Clock) -> None:
    speed.ratio(clock.call("a", 1), clock.call("b", 1), repeats=4)
    assert "".join(clock.log) == "abab" + "abbaabba"


def test_too_few_repeats_are_refused() -> None:
    with pytest.raises(InputError, match="at least 3"):
        speed.ratio(lambda: None, lambda: None, repeats=2)


def test_efficiency_compares_rates_of_arithmetic(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed.torch, "mm", clock.product)
    # Two products' work in four products' time, then one product's work in twenty's.
    forward = clock.call("forward", 4)
    result = speed.efficiency(
        forward, 2 * 2 * 128**3, ((128, 128, 128),) * 2, torch.float32, repeats=3
    )
    assert result.dtype == "float32"
    assert result.share == Interval(0.5, 0.5, 0.5)
    assert result.forward_ms == 4000
    assert result.matmul_gflops == pytest.approx(2 * 128**3 / 1e9)
    assert result.forward_gflops == pytest.approx(128**3 / 1e9)


def test_work_besides_products_lowers_the_share(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed.torch, "mm", clock.product)
    result = speed.efficiency(
        clock.call("forward", 20), 2 * 128**3, ((128, 128, 128),), torch.float32, repeats=3
    )
    assert result.share.value == pytest.approx(1 / 20)


def test_efficiency_needs_products() -> None:
    with pytest.raises(InputError, match="no matrix products"):
        speed.efficiency(lambda: None, 0, (), torch.float32)


def test_grid_measures_every_case() -> None:
    built: list[tuple[int, torch.dtype]] = []

    def build(batch: int, dtype: torch.dtype) -> Callable[[], object]:
        built.append((batch, dtype))
        layer, x = nn.Linear(32, 32, dtype=dtype), torch.randn(batch, 32, dtype=dtype)
        return lambda: layer(x)

    grid = speed.efficiency_grid(build, repeats=3)
    assert list(grid) == built == [(b, d) for d in (torch.float32, torch.bfloat16) for b in (8, 2)]
    assert grid[8, torch.bfloat16].dtype == "bfloat16"
    assert grid[8, torch.float32].flops == 4 * grid[2, torch.float32].flops
