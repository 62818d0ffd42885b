"""The caches that fitted plans are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from benchmarks.suites.fashion.asking import Together
from benchmarks.suites.fashion.caches import Blocks, Easy, Rule, Ruled, Spectrum, Taylor
from torch import Tensor

from asymflow.bench.baselines import samplers
from asymflow.bench.caching import BlockCache, FirstBlockCache, TaylorCache
from asymflow.core.adapter import Adapter, Context
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import Request
from asymflow.models.gaussian import GaussianAdapter
from asymflow.models.jit.adapter import JitAdapter
from asymflow.models.jit.network import JitConfig, JitModel
from asymflow.planning.verifier import rollout
from tests.helpers import draw

GRID = uniform(12)


def gaussian() -> GaussianAdapter:
    return GaussianAdapter(draw(1, 2, 1, 8, 8).double(), torch.ones(2, 1, 8, 8).double())


def asked(scale: float = 1.0) -> list[Request]:
    return [Request({"label": i % 2}, (8, 8), i, scale) for i in range(3)]


def ended(model: Adapter, scale: float = 1.0, low: float = 0.0) -> Tensor:
    return samplers.over("euler", GRID, (low, 1.0)).walk(model, asked(scale))


@pytest.mark.parametrize("make", [lambda: Taylor(1, 2), lambda: Easy(0.0), lambda: Spectrum(1, 0)])
def test_a_rule_that_skips_nothing_changes_no_bit(make: Callable[[], Rule]) -> None:
    ruled = Ruled(gaussian(), make)
    assert torch.equal(ended(ruled), ended(gaussian()))
    assert ruled.rows == 3 * 12


@pytest.mark.parametrize(
    "make", [lambda: Taylor(3, 1), lambda: Easy(0.3), lambda: Spectrum(3, 0.5)]
)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_rules_make_fewer_calls_and_stay_near(make: Callable[[], Rule], scale: float) -> None:
    ruled = Ruled(gaussian(), make)
    plain = ended(gaussian(), scale, 0.5)
    skipped = ended(ruled, scale, 0.5)
    assert ruled.rows < (12 if scale == 1 else 19) * 3
    assert float((skipped - plain).square().mean()) < 0.05 * float(plain.square().mean())
    assert not torch.equal(skipped, plain)


class Polynomial(GaussianAdapter):
    """An answer that is a polynomial of t, whatever the state."""

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        t = t.view(-1, 1, 1, 1)
        return torch.ones_like(x_t) * (1 - 2 * t + 3 * t * t)


@pytest.mark.parametrize("make", [lambda: Taylor(4, 2), lambda: Spectrum(4, 0, ridge=1e-9)])
def test_forecasts_of_polynomials_are_exact(make: Callable[[], Rule]) -> None:
    model = Polynomial(gaussian().mean, gaussian().std)
    ruled = Ruled(model, make)
    torch.testing.assert_close(ended(ruled), ended(model), rtol=1e-6, atol=1e-6)
    assert ruled.rows < 3 * 8


def test_easycache_repeats_what_the_last_call_added() -> None:
    easy = Easy(math.inf)
    x, other, x_0 = draw(1, 1, 1, 2, 2), draw(2, 1, 1, 2, 2), draw(3, 1, 1, 2, 2)
    for t in (0.9, 0.8, 0.7):
        x = x + 0.1
        assert not easy.skips(x, t)
        easy.learn(x, t, x_0)
    assert easy.skips(other, 0.6)
    velocity = (other - easy.forecast(other, 0.6)) / 0.6
    torch.testing.assert_close(velocity, other + (x - x_0) / 0.7 - x)


def test_a_rule_begins_again_where_calls_get_more_rows() -> None:
    """Guidance that begins late doubles the rows, and nothing is known of the new ones."""
    ruled = Ruled(gaussian(), lambda: Taylor(100, 0))
    x, context = draw(1, 4, 1, 8, 8).double(), {"label": torch.tensor([0, 1, 0, 1])}
    half = {"label": context["label"][:2]}
    for _ in range(5):
        ruled.denoise(x[:2], torch.full((2,), 0.5).double(), half)
    assert ruled.rows == 3 * 2
    plain = gaussian().denoise(x, torch.full((4,), 0.4).double(), context)
    assert torch.equal(ruled.denoise(x, torch.full((4,), 0.4).double(), context), plain)


def jit() -> JitAdapter:
    """With class tokens from the second block on."""
    torch.manual_seed(0)
    config = JitConfig(
        size=8, patch=4, channels=1, width=16, depth=3, heads=2, hidden=24, bottleneck=4,
        classes=2, class_tokens=2, class_start=1, noise_scale=0.5,
    )  # fmt: skip
    model = JitModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return JitAdapter(model.eval(), "0" * 64, (0.0, 1.0), 0.05)


@pytest.mark.parametrize("cache", [FirstBlockCache(0.0), TaylorCache(1)])
def test_block_caches_of_a_jit_that_reuse_nothing_change_no_bit(cache: BlockCache) -> None:
    plan = plan_of(uniform(6), solver="euler")
    caching = Blocks(jit(), cache)
    alike = Together(jit())  # as many pictures in a call, which sums may depend on
    assert torch.equal(rollout(caching, plan, asked(2.0)), rollout(alike, plan, asked(2.0)))
    assert caching.whole == caching.rows == 6 * 6


def test_block_caches_of_a_jit_leave_out_blocks() -> None:
    plan, plain = plan_of(uniform(6), solver="euler"), jit()
    caching = Blocks(plain, FirstBlockCache(math.inf))
    with_cache = rollout(caching, plan, asked(2.0))
    assert caching.whole == 6
    assert with_cache.isfinite().all()
    assert not torch.equal(with_cache, rollout(plain, plan, asked(2.0)))
