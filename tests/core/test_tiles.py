"""Tiles: their weights, the frequencies that they share, and that they bound what is asked."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import calls, engine, tiles
from asymflow.core.adapter import Context
from asymflow.core.card import Card, Tiles
from asymflow.core.compiler import compile_requests
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.estimators import Guided, estimate
from asymflow.core.flow import average_pool, smooth
from asymflow.core.state import advance, question
from asymflow.core.transforms import at_larger_size
from asymflow.core.types import FULL, Plan, Request, Step, Tier
from asymflow.planning import plan_json, planner, profiler
from asymflow.planning.verifier import Evaluator
from tests.fakes import FakeModel
from tests.helpers import draw64

TILED = Tier("tiled", tiles=32)
PLAN = Plan("tiled", (Step(1.0, 0.4), Step(0.4, 0.2, TILED), Step(0.2, 0.0, TILED)))


@dataclass
class Tileable(FakeModel):
    """The fake, shown tiles of 32 pixels below t = 0.5; it keeps the shapes of what it is asked."""

    asked: list[torch.Size] = field(default_factory=list[torch.Size])

    @property
    def card(self) -> Card:
        return replace(super().card, tiles=Tiles(32, 0.5))

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.asked.append(x_t.shape)
        # What a pixel says depends on the whole of what is shown.
        return super().denoise(x_t, t, context) + 0.1 * x_t.mean((2, 3), keepdim=True)


@dataclass
class Unscaled(FakeModel):
    """The estimate of a state without noise, which is the same at every size."""

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return x_t / (1 - t).view(-1, 1, 1, 1)


def request(seed: int = 0, size: tuple[int, int] = (96, 72), scale: float = 3.0) -> Request:
    return Request({"prompt": "a fox"}, size, seed, scale)


@pytest.mark.parametrize("side", [4, 7, 32, 64])
@pytest.mark.parametrize("excess", [-1, 0, 1, 2, 5, 16, 31, 33, 64, 200, 321])
def test_weights_add_up_to_exactly_one(side: int, excess: int) -> None:
    height, width = max(side + excess, 3), side + 5
    x = torch.zeros(1, 1, height, width)
    shown = torch.zeros_like(x)
    for tile in tiles.of(x, side):
        assert tile.of(x).shape[2:] == tiles.shape((height, width), side)
        tile.of(x).add_(tile.weight)
        tile.of(shown).add_(1)
    assert torch.equal(x, torch.ones_like(x))
    assert shown.min() >= 1
    assert len(tiles.of(x, side)) == tiles.count((height, width), side)


def test_inner_borders_of_tiles_count_nothing_and_weights_are_smooth() -> None:
    first, *_, last = tiles.weights(200, 64)
    assert first[0] == 1
    assert first[-1] == 0
    assert last[0] == 0
    assert last[-1] == 1
    for weight in tiles.weights(200, 64):
        assert weight.diff().abs().max() < 0.1


def test_neighbours_overlap_by_a_quarter_at_least() -> None:
    for length in range(65, 400):
        places = tiles.begins(length, 64)
        assert places[0] == 0
        assert places[-1] == length - 64
        assert max(b - a for a, b in pairwise(places)) <= 48


@pytest.mark.parametrize(
    ("size", "factor", "block"),
    [
        ((128, 128), 2, 32),
        ((192, 128), 4, 32),
        ((1024, 1024), 16, 32),
        ((2048, 1024), 32, 32),
        ((4096, 4096), 64, 64),
        ((67, 67), 67, 67),
        ((97, 72), None, 0),
    ],
)
def test_the_whole_is_pooled_to_a_tile(
    size: tuple[int, int], factor: int | None, block: int
) -> None:
    assert tiles.whole_factor(size, 64) == factor
    if factor is not None:
        assert tiles.block(size, 64, factor) == block


@pytest.mark.parametrize(("size", "f", "block"), [((96, 64), 2, 16), ((96, 64), 8, 8)])
def test_low_frequencies_are_replaced_and_others_kept(
    size: tuple[int, int], f: int, block: int
) -> None:
    x, low = draw64(0, 2, 3, *size), draw64(1, 2, 3, size[0] // f, size[1] // f)
    expected = x + smooth(average_pool(low, block // f) - average_pool(x, block), block)
    found = x.clone()
    tiles.replace_low(found, low, block)
    assert_close(found, expected)
    assert_close(average_pool(found, block), average_pool(low, block // f))


def test_a_model_that_agrees_with_itself_is_not_changed_by_tiles() -> None:
    model = Guided.of(Unscaled(), {}, {}, torch.ones(2))
    x_t = draw64(2, 2, 4, 96, 64).float()
    found, _ = estimate(model, TILED, x_t, torch.full((2,), 0.3), None)
    assert_close(found, x_t / 0.7)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("side", [96, 128])
def test_one_tile_as_large_as_the_picture_is_the_full_tier_bit_for_bit(
    side: int, scale: float
) -> None:
    tier = Tier("one tile", tiles=side)
    wanted = [request(0, scale=scale), request(1, scale=scale)]
    steps = tuple(replace(step, tier=tier) for step in PLAN.steps)
    one = engine.run(FakeModel(), Plan("one", steps), wanted)
    full = engine.run(
        FakeModel(), Plan("full", tuple(replace(s, tier=FULL) for s in steps)), wanted
    )
    for a, b in zip(one, full, strict=True):
        assert np.array_equal(a.picture, b.picture)


@pytest.mark.parametrize("batch", [1, None])
def test_no_call_is_larger_than_the_tiles_of_the_pictures(batch: int | None) -> None:
    adapter = Tileable(batch=batch)
    steps = (Step(0.5, 0.0, TILED),)
    frame = engine.rollout(
        adapter, Plan("late", (Step(1.0, 0.5), *steps)), [request(0), request(1)]
    )
    assert len(frame) == 2
    shown = adapter.asked[2 // (batch or 2) :]
    rows = 2 * (batch or 2)
    assert {tuple(shape) for shape in shown} == {(rows, 4, 32, 32), (rows, 4, 32, 24)}
    count = tiles.count((96, 72), 32)
    assert len(shown) == (count + 1) * (2 if batch else 1)


def test_tiles_in_turn_with_guidance_in_turn_are_the_same() -> None:
    model = Tileable()
    both = Guided.of(model, *model.encode([request()]), torch.tensor([3.0]))
    x_t, t = draw64(3, 1, 4, 96, 64).float(), torch.tensor([0.3])
    found, _ = estimate(both, TILED, x_t, t, None)
    again, _ = estimate(both, replace(TILED, sequential_cfg=True), x_t, t, None)
    assert_close(found, again)


def test_a_picture_depends_on_its_own_request_only() -> None:
    seeds = (3, 4, 5)
    together = engine.run(Tileable(), PLAN, [request(seed) for seed in seeds])
    for seed, found in zip(seeds, together, strict=True):
        [alone] = engine.run(Tileable(), PLAN, [request(seed)])
        assert np.array_equal(alone.picture, found.picture)
    assert not np.array_equal(together[0].picture, together[1].picture)


def test_pictures_of_other_tiers_do_not_share_a_call() -> None:
    adapter = Tileable(batch=None)
    program, state = compile_requests(adapter, [PLAN, PLAN], [request(0), request(1)])
    found = question(program, state)
    assert found.tiles is None
    state = advance(program, state, calls.ask(adapter, program.calls, found))
    assert question(program, state).tiles == 32


def test_a_state_before_tiles_is_pickled() -> None:
    adapter = Tileable()
    program, state = compile_requests(adapter, [PLAN], [request()])
    state = advance(program, state, calls.ask(adapter, program.calls, question(program, state)))
    copy = pickle.loads(pickle.dumps(state))
    ends = [
        advance(program, each, calls.ask(adapter, program.calls, question(program, each))).x
        for each in (state, copy)
    ]
    assert torch.equal(*ends)


def test_gradients_flow_through_tiles_even_after_inference() -> None:
    model = Guided.of(Unscaled(), {}, {}, torch.ones(1))
    t = torch.tensor([0.3])
    with torch.inference_mode():
        tiles.weights.cache_clear()
        estimate(model, TILED, torch.ones(1, 4, 48, 48), t, None)
    x_t = torch.ones(1, 4, 48, 48, requires_grad=True)
    found, _ = estimate(model, TILED, x_t, t, None)
    found.sum().backward()
    assert x_t.grad is not None
    assert_close(x_t.grad.sum(), torch.tensor(4 * 48 * 48 / 0.7))


class Remembering(Tileable):
    def denoise_remembering(
        self, x_t: Tensor, t: Tensor, context: Context, memory: Context | None
    ) -> tuple[Tensor, Context]:
        return self.denoise(x_t, t, context), {}


@pytest.mark.parametrize(
    ("adapter", "steps", "size", "words"),
    [
        (FakeModel(), PLAN.steps, (96, 72), "not declared to estimate pictures by tiles"),
        (Tileable(), (Step(1.0, 0.0, TILED),), (96, 72), "at t=1, .* tiles up to t=0.5 only"),
        (
            Tileable(), (*PLAN.steps[:2], Step(0.2, 0.0, Tier("small", tiles=16))), (96, 72),
            "tiles of 16 pixels, and this model is shown tiles of 32 pixels only",
        ),
        (Tileable(), PLAN.steps, (104, 104), "104x104 pixels cannot be pooled"),
        (Remembering(), PLAN.steps, (96, 72), "reuses parts of its last answer"),
    ],
)  # fmt: skip
def test_plans_with_impossible_tiles_are_refused(
    adapter: FakeModel, steps: Sequence[Step], size: tuple[int, int], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        engine.run(adapter, Plan("tiled", tuple(steps)), [request(size=size)])
    assert adapter.calls == 0


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        ({"tiles": 3}, "tiles=3 is not possible"),
        ({"tiles": 32, "pool_factor": 2}, "is pooled by 2 too"),
        ({"tiles": 32, "cached": True, "guided": False}, "is cached too"),
    ],
)
def test_impossible_tiers_are_refused(tier: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Tier("odd", **tier)


def test_plans_with_tiles_are_not_enlarged() -> None:
    with pytest.raises(InputError, match=r"tiles of 32 pixels \('tiled'\)"):
        at_larger_size(PLAN, 2)


def test_files_say_that_they_need_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    data = plan_json.plan_to_json(PLAN)
    assert data["required"] == ["tiles"]
    assert plan_json.plan_from_json(data) == PLAN
    assert "64px" in str(Plan("shown", (Step(1.0, 0.0, Tier("t", tiles=64)),)))
    without = Plan("full", tuple(replace(step, tier=FULL) for step in PLAN.steps))
    assert "required" not in plan_json.plan_to_json(without)
    assert plan_json.plan_hash(without) != plan_json.plan_hash(PLAN)
    monkeypatch.setattr(plan_json, "FEATURES", ("weights", "guidance_scale", "reuse"))
    with pytest.raises(FileFormatError, match="requires 'tiles', and this version"):
        plan_json.plan_from_json(data)


def test_a_model_with_tiles_is_profiled_and_planned_with_them() -> None:
    times = (1.0, 0.7, 0.4, 0.2, 0.0)
    found = profiler.profile(Tileable(), [request(size=(96, 96))], times=times, repeats=1)
    names = [tier.name for tier in found.tiers]
    assert names[-2:] == ["tiled", "tiled conditional"]
    tiled = found.local_error[-2:]
    assert np.isinf(tiled[:, :, :2]).all()
    assert np.isfinite(tiled[:, 2, 2, 3:]).all()
    assert found.peak_bytes[-2] > 0
    small = profiler.profile(Tileable(), [request(size=(32, 24))], times=times, repeats=1)
    assert not any(tier.tiles for tier in small.tiers)
    # Where only tiles and pictures of half the side fit.
    peaks = [1 if tier.tiles or tier.name == "half" else 2 for tier in found.tiers]
    errors = np.where(np.isfinite(found.local_error), 1e-3, np.inf).astype(np.float32)
    errors[names.index("half")] *= 100
    changed = replace(found, peak_bytes=tuple(peaks), local_error=errors)
    plan = planner.plan(changed, budget=10, cost="forwards", max_bytes=1)
    late = [step for step in plan.steps if step.t <= 0.5]
    assert late
    assert all((step in late) == (step.tier.tiles is not None) for step in plan.steps)


def test_a_search_by_rollouts_makes_no_impossible_plan() -> None:
    judge = Evaluator(Tileable(), (request(),), torch.zeros(1, 4, 96, 72))
    assert judge.possible(PLAN)
    assert not judge.possible(Plan("early", (Step(1.0, 0.0, TILED),)))


def test_tiers_that_a_model_does_not_have_are_not_profiled() -> None:
    with pytest.raises(InputError, match="'tiled' cannot be profiled: this model is not declared"):
        profiler.profile(FakeModel(), [request()], times=(1.0, 0.0), tiers=[TILED])
