"""Counting arithmetic and memory, against what can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from asymflow.core.adapter import Context
from asymflow.core.errors import InputError
from asymflow.core.types import Request
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import costs
from asymflow.planning.costs import CallCost


@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_work_counts_products_and_attention(grad: Callable[[], Any]) -> None:
    linear = nn.Linear(16, 32)
    plain = nn.Linear(32, 8, bias=False)
    q, k = torch.randn(2, 4, 10, 16), torch.randn(2, 4, 14, 16)
    conv = nn.Conv2d(3, 4, 4, stride=4)

    def call() -> None:
        with grad():
            plain(linear(torch.randn(2, 10, 16)))
            nn.functional.scaled_dot_product_attention(q, k, k)
            conv(torch.randn(1, 3, 8, 8))

    work = costs.work(call)
    products = 2 * 20 * 16 * 32 + 2 * 20 * 32 * 8
    attention = 2 * 2 * (2 * 4) * 10 * 14 * 16
    convolution = 2 * (2 * 2 * 4) * (3 * 4 * 4)
    assert work.flops == products + attention + convolution
    assert work.macs * 2 == work.flops
    assert work.shapes == ((20, 16, 32), (20, 32, 8))
    assert work.convolutions == ((2 * 2, 3 * 4 * 4, 4),)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.Conv2d(4, 6, 3, stride=2, groups=2),
        nn.ConvTranspose2d(4, 6, 2, stride=2),
        nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2),
    ],
)
def test_convolutions_are_as_many_operations_as_torch_counts(layer: nn.Module) -> None:
    x = torch.randn(3, 4, 8, 8)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    found = costs.work(lambda: layer(x))
    assert found.flops == counter.get_total_flops()
    assert found.flops == sum(2 * m * k * n for m, k, n in found.convolutions)


def test_peak_is_the_most_that_is_held_at_once() -> None:
    def call() -> None:
        a = torch.zeros(1_000_000)
        b = a + 1
        del a
        c = b[:1000] + 1
        del b
        c.sum()

    assert 8_000_000 <= costs.peak_bytes(call) < 8_200_000


def test_other_processes_do_not_add_to_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    durations: dict[str, Any] = {"a": iter([9, 40, 50, 1]), "b": iter([9, 2, 30, 20])}

    def call(name: str) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            now += next(durations[name])

        return run

    monkeypatch.setattr(costs.time, "perf_counter", lambda: now)
    assert costs.fastest([call("a"), call("b")], 3) == [1, 2]


# Rows per call


def calls_of(*seconds: float, peaks: tuple[int, ...] = ()) -> list[CallCost]:
    """Calls of 1, 2, 4, ... rows."""
    found = peaks or (0,) * len(seconds)
    return [
        CallCost(2**i, each, peak)
        for i, (each, peak) in enumerate(zip(seconds, found, strict=True))
    ]


def test_the_knee_is_the_smallest_number_of_rows_near_the_best_rate() -> None:
    # 1, 1.9, 3.9, 4 and 3.5 rows a second.
    assert costs.knee(calls_of(1, 2 / 1.9, 4 / 3.9, 2, 16 / 3.5)) == 4
    assert costs.knee(calls_of(1, 2 / 1.9, 4 / 3.7, 2, 16 / 3.5)) == 8
    assert costs.knee(calls_of(1, 2, 4, 8)) == 1  # rows gain nothing
    assert costs.knee(calls_of(1, 1, 1, 1)) == 8  # and here they are free


def test_rows_that_fit_are_those_of_an_affine_peak() -> None:
    curve = calls_of(1, 1, 1, peaks=(130, 160, 220))  # 100 and 30 for each row
    assert costs.peak_line(curve) == pytest.approx((100, 30))
    assert [costs.most_rows(curve, most) for most in (0, 129, 130, 160, 219, 1000)] == [
        0, 0, 1, 2, 3, 30,
    ]  # fmt: skip


def test_no_measured_peak_is_above_the_line() -> None:
    curve = calls_of(1, 1, 1, 1, peaks=(130, 150, 260, 330))
    fixed, slope = costs.peak_line(curve)
    assert all(each.peak_bytes <= fixed + slope * each.rows + 1e-6 for each in curve)
    assert costs.most_rows(curve, 260) <= 4


def test_memory_that_does_not_grow_says_nothing_of_more_rows() -> None:
    curve = calls_of(1, 1, 1, peaks=(90, 80, 70))
    assert costs.most_rows(curve, 90) == 4
    assert costs.most_rows(curve, 89) == 0


def test_too_few_measurements_are_refused() -> None:
    with pytest.raises(InputError, match="no knee"):
        costs.knee([])
    with pytest.raises(InputError, match="at least two"):
        costs.most_rows(calls_of(1), 100)


def test_a_curve_is_measured_for_every_number_of_rows() -> None:
    labels = torch.zeros(2, 4, 16, 16)
    rows: list[int] = []

    class Counted(GaussianAdapter):
        def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
            assert context["label"].tolist() == [1] * len(x_t)
            rows.append(len(x_t))
            return GaussianAdapter.denoise(self, x_t, t, context)

    model = Counted(labels, labels + 1)
    curve = costs.curve(model, Request({"label": 1}, (16, 16)), (1, 2, 8), repeats=2)
    assert [each.rows for each in curve] == [1, 2, 8]
    assert set(rows) == {1, 2, 8}
    assert all(each.seconds > 0 and each.rate > 0 for each in curve)
    one, two, eight = (each.peak_bytes for each in curve)
    assert 0 < one < two < eight
    assert eight - two == pytest.approx(6 * (two - one), rel=0.01)
