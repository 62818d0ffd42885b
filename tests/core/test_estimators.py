"""Tiers, against the closed form of a model that agrees with itself at every size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine, schedules, transforms
from asymflow.core.adapter import Context
from asymflow.core.compiler import compile_requests
from asymflow.core.errors import InputError
from asymflow.core.estimators import Guided, InpaintConstraint, Memory, carry, estimate
from asymflow.core.flow import average_pool, detail, enlarge, interpolate, smooth
from asymflow.core.types import (
    CONDITIONAL,
    FULL,
    SEQUENTIAL_CFG,
    Plan,
    Request,
    Step,
    Tier,
    cheaper_tiers,
)
from asymflow.models.gaussian import GaussianAdapter
from tests.helpers import draw64, ticked

HALF, HALF_CARRIED = Tier("half", pool_factor=2), Tier("half+", pool_factor=2, cached=True)
CONDITIONAL_CARRIED = Tier("conditional+", guided=False, cached=True)


def at(t: float) -> Tensor:
    return torch.full((2,), t, dtype=torch.float64)


@pytest.fixture
def adapter() -> GaussianAdapter:
    """Blocks of 2 x 2 equal pixels: its pictures have no detail that a half-size one lacks."""
    mean, std = 0.3 * draw64(0, 2, 3, 4, 4), 0.5 + 0.2 * draw64(1, 2, 3, 4, 4).tanh()
    return GaussianAdapter(enlarge(mean, 2), enlarge(std, 2))


@pytest.fixture
def model(adapter: GaussianAdapter) -> Guided:
    cond, null = torch.tensor([1, 1]), torch.tensor([0, 0])
    return Guided.of(adapter, {"label": cond}, {"label": null}, torch.tensor([3.0, 1.0]).double())


def test_a_full_estimate_remembers_itself_and_its_guidance(model: Guided) -> None:
    x_t = draw64(2, 2, 3, 8, 8)
    x_0, memory = estimate(model, FULL, x_t, at(0.6), None)
    conditional, same = estimate(model, CONDITIONAL, x_t, at(0.6), memory)
    assert memory is not None
    assert same is memory
    assert torch.equal(memory.x_0, x_0)
    assert_close(memory.guidance, x_0 - conditional)
    assert (memory.guidance[1] == 0).all()  # a weight of 1 guides nothing


@pytest.mark.parametrize("tier", [tier for tier in cheaper_tiers((2, 4)) if tier.cached])
def test_carrying_at_the_same_state_gives_the_full_estimate_back(tier: Tier) -> None:
    """What is left out and what is carried must be the same thing."""
    full, guidance = draw64(3, 2, 3, 8, 8), draw64(4, 2, 3, 8, 8)
    cheap = average_pool(full if tier.guided else full - guidance, tier.pool_factor)
    assert_close(carry(tier, cheap, Memory(full, guidance)), full)


def test_a_smaller_tier_asks_the_model_at_that_size(
    model: Guided, adapter: GaussianAdapter
) -> None:
    # Pooled noise of pooled data is what the small model was made for: the answers agree exactly
    # on what both can see.
    x_0, eps = enlarge(draw64(5, 2, 3, 4, 4), 2), draw64(6, 2, 3, 8, 8)
    x_t = interpolate(x_0, eps, 0.7)
    small, _ = estimate(model, HALF, x_t, at(0.7), None)
    label = torch.tensor([1, 1])
    y = average_pool(x_t, 2) / (0.3 + 0.7 / 2)
    t = torch.full((2,), 0.7 / (0.7 + 2 * 0.3), dtype=torch.float64)
    expected, null = (adapter.denoise(y, t, {"label": each}) for each in (label, 0 * label))
    expected[:1] += 2 * (expected - null)[:1]
    assert_close(average_pool(small, 2), expected)
    assert_close(small, smooth(expected, 2))


def test_smooth_has_no_edges_and_shrinks_to_what_it_was() -> None:
    x = draw64(7, 1, 2, 4, 4)
    assert_close(average_pool(smooth(x, 2), 2), x)
    ramp = torch.arange(8.0, dtype=torch.float64).expand(1, 1, 8, 8)
    inner = smooth(average_pool(ramp, 2), 2)[..., 2:-2]
    assert_close(inner, ramp[..., 2:-2])
    assert detail(enlarge(x, 2), 2).abs().max() == 0


def test_a_mask_keeps_what_is_known_in_every_tier(adapter: GaussianAdapter) -> None:
    known = draw64(8, 2, 3, 8, 8)
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    mask[:, :, :4] = 1
    tiers = (FULL, CONDITIONAL, HALF, HALF_CARRIED, CONDITIONAL_CARRIED)
    nodes = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
    steps = tuple(Step(t, s, tier) for t, s, tier in zip(nodes, nodes[1:], tiers, strict=False))
    requests = [Request({"label": i}, (8, 8), i, 2.0) for i in range(2)]
    program, state = compile_requests(adapter, [Plan("tiers", steps)] * 2, requests)
    program = replace(program, known=InpaintConstraint(known, mask))
    for _ in tiers:
        state = ticked(program, state)
        assert state.x_0 is not None
        assert torch.equal(state.x_0[:, :, 4:], known[:, :, 4:])
        assert not torch.equal(state.x_0[:, :, :4], known[:, :, :4])


def test_carrying_needs_a_full_estimate_first(model: Guided) -> None:
    with pytest.raises(InputError, match="Ask the full tier first"):
        estimate(model, HALF_CARRIED, draw64(2, 2, 3, 8, 8), at(0.6), None)
    with pytest.raises(InputError, match="Put a step of the full tier first"):
        Plan("early", (Step(1.0, 0.5, HALF_CARRIED), Step(0.5, 0.0)))


def test_a_tier_without_anything_left_out_carries_nothing() -> None:
    with pytest.raises(InputError, match="leaves nothing out"):
        Tier("full+", cached=True)
    with pytest.raises(InputError, match="pool_factor=0"):
        Tier("none", pool_factor=0)


def test_in_turn_says_the_same_in_two_calls(model: Guided, monkeypatch: pytest.MonkeyPatch) -> None:
    x_t = draw64(2, 2, 3, 8, 8)
    together, memory = estimate(model, FULL, x_t, at(0.6), None)
    rows: list[int] = []
    denoise = GaussianAdapter.denoise

    def counted(self: GaussianAdapter, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        rows.append(len(x_t))
        return denoise(self, x_t, t, context)

    monkeypatch.setattr(GaussianAdapter, "denoise", counted)
    one_by_one, same = estimate(model, SEQUENTIAL_CFG, x_t, at(0.6), None)
    assert rows == [2, 1]  # a weight of 1 needs no second pass
    assert_close(one_by_one, together)
    assert memory is not None
    assert same is not None
    assert_close(same.guidance, memory.guidance)
    with pytest.raises(InputError, match="nothing to take in turn"):
        Tier("one", guided=False, sequential_cfg=True)


def test_a_lighter_plan_makes_the_same_picture(adapter: GaussianAdapter) -> None:
    plan = Plan("p", (Step(1.0, 0.6), Step(0.6, 0.3, HALF), Step(0.3, 0.0, CONDITIONAL)))
    light = transforms.with_sequential_guidance(plan)
    assert [step.tier.sequential_cfg for step in light.steps] == [True, True, False]
    assert transforms.with_sequential_guidance(light) == light
    requests = [Request({"label": 1}, (8, 8), 0, 3.0)]
    [one], [other] = engine.run(adapter, plan, requests), engine.run(adapter, light, requests)
    assert one.picture == pytest.approx(other.picture, abs=1e-6)
    assert one.forwards == other.forwards


def test_a_cut_plan_makes_full_what_it_can_no_longer_carry() -> None:
    plan = Plan("p", (Step(1.0, 0.6), Step(0.6, 0.3, HALF_CARRIED), Step(0.3, 0.0, HALF_CARRIED)))
    assert [s.tier for s in transforms.truncated(plan, 0.5).steps] == [FULL, HALF_CARRIED]
    assert [s.tier for s in transforms.truncated(plan, 0.9).steps] == [
        FULL,
        HALF_CARRIED,
        HALF_CARRIED,
    ]
    light = transforms.truncated(transforms.with_sequential_guidance(plan), 0.5)
    assert light.steps[0].tier == SEQUENTIAL_CFG
    low = Plan("p", (Step(1.0, 0.5), Step(0.5, 0.2, HALF), Step(0.2, 0.0, HALF_CARRIED)))
    assert [s.tier for s in transforms.truncated(low, 0.4).steps] == [HALF, FULL]


def test_mixed_plans_do_not_depend_on_the_batch(adapter: GaussianAdapter) -> None:
    tiers = (HALF, HALF, FULL, CONDITIONAL_CARRIED, HALF_CARRIED, FULL, CONDITIONAL)
    grid = schedules.shifted(len(tiers), 2.0)
    steps = [Step(t, s, tier) for t, s, tier in zip(grid, grid[1:], tiers, strict=False)]
    plan = Plan("mixed", tuple(steps))
    requests = [Request({"label": i % 2}, (8, 8), i, 1.0 + i) for i in range(4)]
    together = engine.run(adapter, plan, requests)
    for request, result in zip(requests, together, strict=True):
        [alone] = engine.run(adapter, plan, [request])
        assert (alone.picture == result.picture).all()


def test_a_plan_for_another_size_is_refused(adapter: GaussianAdapter) -> None:
    plan = Plan("half", (Step(1.0, 0.5, HALF), Step(0.5, 0.0)))
    with pytest.raises(InputError, match="pooled by 2, and this model cannot do that at 1x1"):
        engine.run(adapter, plan, [Request({}, (1, 1))])
