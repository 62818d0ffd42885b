"""The model that knows a set of pictures by heart, against sums written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine, schedules
from asymflow.core.adapter import Adapter
from asymflow.core.errors import InputError
from asymflow.core.flow import average_pool
from asymflow.core.types import Request
from asymflow.models import empirical
from asymflow.models.empirical import ALL, EmpiricalAdapter
from tests.helpers import draw64


def model() -> EmpiricalAdapter:
    return EmpiricalAdapter(draw64(0, 9, 2, 4, 4).clamp(-1, 1), torch.arange(9) % 3)


def ask(this: EmpiricalAdapter, x_t: Tensor, t: float, label: int = ALL) -> Tensor:
    time = torch.full((len(x_t),), t, dtype=torch.float64)
    return this.denoise(x_t, time, {"label": torch.full((len(x_t),), label)})


def test_it_is_an_adapter() -> None:
    assert isinstance(model(), Adapter)


@pytest.mark.parametrize("t", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("label", [ALL, 1])
def test_estimates_are_posterior_means(t: float, label: int) -> None:
    this, x_t = model(), draw64(1, 2, 2, 4, 4)
    chosen = [y for y, k in zip(this.pictures, this.labels, strict=True) if label in (ALL, int(k))]
    for x, estimate in zip(x_t, ask(this, x_t, t, label), strict=True):
        weights = [math.exp(-float(((x - (1 - t) * y) ** 2).sum()) / (2 * t * t)) for y in chosen]
        total = sum(weights)
        expected = sum((w / total * y for w, y in zip(weights, chosen, strict=True)), 0 * x)
        assert_close(estimate, expected)


def test_noise_says_nothing_and_data_everything() -> None:
    this, x_t = model(), draw64(2, 1, 2, 4, 4)
    assert_close(ask(this, x_t, 1.0)[0], this.pictures.mean(0))
    for t in (0.0, 1e-300, 1e-9, 1e-3):
        near = this.pictures[4:5] + 1e-3 * x_t
        assert_close(ask(this, near, t), this.pictures[4:5])


def test_rows_have_their_own_time_and_label_and_no_influence_on_each_other() -> None:
    this, x_t = model(), draw64(3, 3, 2, 4, 4)
    t = torch.tensor([0.9, 0.7, 0.9], dtype=torch.float64)
    together = this.denoise(x_t, t, {"label": torch.tensor([0, ALL, 2])})
    for i, label in enumerate((0, ALL, 2)):
        assert torch.equal(together[i], ask(this, x_t[i : i + 1], float(t[i]), label)[0])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    this, x_t = model(), draw64(4, 2, 2, 4, 4)
    whole = ask(this, x_t, 0.8)
    monkeypatch.setattr(empirical, "CHUNK", 4)
    assert_close(ask(this, x_t, 0.8), whole)


def test_smaller_pictures_are_the_pooled_ones() -> None:
    this = model()
    small = EmpiricalAdapter(average_pool(this.pictures, 2), this.labels)
    x_t = draw64(5, 2, 2, 2, 2)
    assert_close(ask(this, x_t, 0.8, 1), ask(small, x_t, 0.8, 1))


def test_float32_states_get_float64_care() -> None:
    this, x_t = model(), draw64(6, 2, 2, 4, 4)
    single = EmpiricalAdapter(this.pictures.float(), this.labels)
    estimate = ask(single, x_t.float(), 0.3)
    assert estimate.dtype == torch.float32
    exact = EmpiricalAdapter(this.pictures.float().double(), this.labels)
    assert_close(estimate.double(), ask(exact, x_t.float().double(), 0.3), rtol=0, atol=1e-6)


def test_trajectories_end_in_pictures_of_the_label() -> None:
    this = model()
    plan = schedules.plan_of(schedules.shifted(60, 2.0), solver="heun")
    wanted = [Request({"label": 2}, (4, 4), seed) for seed in range(6)]
    *_, last = engine.walk(this, plan, wanted)
    gaps = torch.cdist(last.x_t.flatten(1), this.pictures[this.labels == 2].flatten(1))
    assert_close(gaps.min(1).values, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-6)
    assert len(set(gaps.argmin(1).tolist())) > 1


def test_contexts_and_properties() -> None:
    this = model()
    cond, null = this.encode([Request({"label": 1}, (4, 4)), Request({}, (4, 4))])
    assert cond["label"].tolist() == [1, ALL]
    assert null["label"].tolist() == [ALL, ALL]
    assert (this.name, this.channels, this.batch) == ("empirical", 2, None)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Request({"label": 3}, (4, 4)), r"label 3. Choose one of \[0, 1, 2\]"),
        (Request({"label": "dog"}, (4, 4)), "'dog'"),
        (Request({}, (3, 3)), r"\(3, 3\)"),
    ],
)
def test_refusals(wanted: Request, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model().check(wanted)
