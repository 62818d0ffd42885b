"""Counting arithmetic and memory, against what can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from asymflow.planning import costs


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


def test_peak_is_the_most_that_is_held_at_once() -> None:
    def call() -> None:
        a = torch.zeros(1_000_000)
        b = a + 1
        del a
        c = b[:1000] + 1
        del b
        c.sum()

    assert 8_000_000 <= costs.peak_bytes(call) < 8_200_000


def test_medians_survive_an_outlier(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    durations: dict[str, Any] = {"a": iter([9, 1, 50, 1]), "b": iter([9, 2, 2, 2])}

    def call(name: str) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            now += next(durations[name])

        return run

    monkeypatch.setattr(costs.time, "perf_counter", lambda: now)
    assert costs.medians([call("a"), call("b")], 3) == [1, 2]
