"""Late steps: the fast part of a network on the newest state, with what its slow part said."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import calls, engine, transforms
from asymflow.core.adapter import Context, Splits, Wrapped, splits
from asymflow.core.batcher import Batcher
from asymflow.core.card import Tiles
from asymflow.core.compiler import compile_requests
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.solvers import move_weights
from asymflow.core.stages import compile_steps
from asymflow.core.state import Program, State, advance, question
from asymflow.core.types import (
    CARRIED,
    CONDITIONAL,
    FULL,
    LATE,
    LATE_CONDITIONAL,
    SEQUENTIAL_CFG,
    Plan,
    Request,
    Step,
    Tier,
)
from asymflow.planning import plan_json
from tests.fakes import FakeModel, SplitFake
from tests.helpers import driven, ticked

HALF, TILED = Tier("half", pool_factor=2), Tier("tiled", tiles=32)
STEPS = (
    Step(1.0, 0.8),
    Step(0.8, 0.6, LATE),
    Step(0.6, 0.4),
    Step(0.4, 0.2, LATE),
    Step(0.2, 0.1, LATE_CONDITIONAL),
    Step(0.1, 0.0, CONDITIONAL),
)
PLAN = Plan("late", STEPS)


def request(seed: int = 0, scale: float = 3.0, prompt: str = "a fox") -> Request:
    return Request({"prompt": prompt}, (16, 32), seed, scale)


def steps_of(*tiers: Tier) -> tuple[Step, ...]:
    times = [1 - k / len(tiers) for k in range(len(tiers))]
    ends = [*times[1:], 0.0]
    return tuple(Step(*each) for each in zip(times, ends, tiers, strict=True))


# What is a tier, and a plan.


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"cached": True, "guided": False}, "is late, and is cached too"),
        ({"pool_factor": 2}, "is late, and is pooled by 2 too"),
        ({"tiles": 32}, "is late, and is shown in tiles of 32 pixels too"),
        ({"sequential_cfg": True}, "is late, and is guided by passes in turn too"),
    ],
)
def test_a_late_tier_is_nothing_else(others: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Tier("odd", late=True, **others)


@pytest.mark.parametrize(
    ("tiers", "words"),
    [
        ((LATE,), r"Step 0 .* is late \('late'\), and no step before it"),
        ((HALF, LATE), "Step 1 .* no step before it"),
        ((TILED, LATE_CONDITIONAL), "Step 1 .* no step before it"),
        ((CONDITIONAL, LATE), "Step 1 .* made no unconditional pass"),
        ((FULL, CONDITIONAL, LATE), "Step 2 .* made no unconditional pass"),
        ((FULL, CARRIED, LATE), "Step 2 .* made no unconditional pass"),
    ],
)
def test_a_late_step_needs_something_to_reuse(tiers: Sequence[Tier], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Plan("late", steps_of(*tiers))


@pytest.mark.parametrize(
    "tiers",
    [
        (FULL, LATE),
        (FULL, LATE_CONDITIONAL),
        (CONDITIONAL, LATE_CONDITIONAL),
        (FULL, HALF, LATE, TILED, LATE),
        (FULL, LATE_CONDITIONAL, LATE),
        (SEQUENTIAL_CFG, LATE),
        (FULL, CARRIED, LATE_CONDITIONAL),
    ],
)
def test_a_late_step_may_follow_what_asks_the_network(tiers: Sequence[Tier]) -> None:
    Plan("late", steps_of(*tiers))


def test_a_scale_of_one_makes_no_unconditional_pass() -> None:
    whole, late = steps_of(FULL, LATE)
    with pytest.raises(InputError, match="made no unconditional pass"):
        Plan("late", (replace(whole, guidance_scale=1), late))
    Plan("late", (replace(whole, guidance_scale=1), replace(late, guidance_scale=1)))


def test_a_plan_of_a_model_in_one_part_is_refused() -> None:
    for adapter in (FakeModel(), SplitFake(splits=False)):
        with pytest.raises(InputError, match=r"'late' at t=0\.8, the fast .* as a whole"):
            engine.run(adapter, PLAN, [request()])
        assert adapter.calls == 0


# What is asked, and what becomes of it.


def answered(adapter: SplitFake, scale: float) -> Tensor:
    """The end of `PLAN`, step by step, with solvers of first order."""
    size = (1, 4, 16, 32)
    cond, null = adapter.encode([request()])
    x = engine.noise(0, size)
    slow: Context | None = None
    without: Context | None = None
    for step in PLAN.steps:
        t = torch.tensor([step.t])
        keep = None if not step.tier.late else slow
        x_0, said = adapter.denoise_split(x, t, cond, keep)
        if step.tier.guided and scale != 1:
            keep = None if not step.tier.late else without
            other, said_without = adapter.denoise_split(x, t, null, keep)
            x_0, without = x_0 + (scale - 1) * (x_0 - other), said_without
        slow = said
        a, w = move_weights("euler", step.t, step.s, ())
        x = a * x + w * x_0
    return x


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_slow_part_is_that_of_the_last_step_that_asked_it(scale: float) -> None:
    plan = Plan("late", tuple(replace(step, solver="euler") for step in STEPS))
    [end] = engine.rollout(SplitFake(), plan, [request(scale=scale)])
    assert_close(end.x_0[None], answered(SplitFake(), scale))


def test_only_what_a_later_late_step_reuses_is_remembered() -> None:
    adapter = SplitFake(batch=None)
    engine.run(adapter, PLAN, [request()])
    assert adapter.parts == ["both", "fast", "both", "fast", "fast", "whole"]
    program, state = compile_requests(adapter, [PLAN], [request()])
    held: list[tuple[bool, bool]] = []
    while not all(program.finished(state)):
        state = ticked(program, state)
        held.append((state.cond is not None, state.null is not None))
    both, none = (True, True), (False, False)
    assert held == [both, none, both, both, none, none]


def test_a_plan_without_late_steps_asks_as_ever() -> None:
    adapter = SplitFake()
    plan = Plan("full", steps_of(FULL, CARRIED, CONDITIONAL, FULL))
    program, state = compile_requests(adapter, [plan], [request()])
    while not all(program.finished(state)):
        state = ticked(program, state)
        assert state.cond is None
        assert state.null is None
    assert {*adapter.parts} == {"whole"}


def test_steps_between_keep_what_is_reused() -> None:
    adapter = SplitFake(batch=None)
    plan = Plan("between", steps_of(FULL, HALF, LATE, CARRIED, LATE_CONDITIONAL))
    engine.run(adapter, plan, [request()])
    assert adapter.parts == ["both", "whole", "fast", "both", "fast"]


def test_passes_in_turn_are_remembered_too() -> None:
    steps = tuple(replace(step, tier=SEQUENTIAL_CFG) if step.tier.full else step for step in STEPS)
    [end] = engine.rollout(SplitFake(), Plan("in turn", steps), [request()])
    [together] = engine.rollout(SplitFake(), PLAN, [request()])
    assert_close(end.x_0, together.x_0)


def test_solvers_use_late_estimates_as_those_of_the_whole_network() -> None:
    stages = compile_steps(steps_of(FULL, LATE, FULL, CONDITIONAL, LATE_CONDITIONAL), 3.0)
    assert [len(stage.weights) for stage in stages] == [2, 3, 3, 2, 3]
    apart = compile_steps(steps_of(FULL, LATE, LATE_CONDITIONAL), 3.0)
    assert [len(stage.weights) for stage in apart] == [2, 3, 2]


def test_without_what_the_slow_part_said_nothing_is_made_up() -> None:
    adapter = SplitFake()
    program, state = compile_requests(adapter, [PLAN], [request()])
    state = ticked(program, state)
    lost = replace(state, cond=None, null=None)
    with pytest.raises(InputError, match="what its slow part said is not known"):
        ticked(program, lost)
    half = replace(state, null=None)
    with pytest.raises(InputError, match="what its slow part said is not known"):
        ticked(program, half)


# Pictures together, and apart.


@pytest.mark.parametrize("batch", [1, 2, None])
def test_a_picture_depends_on_its_own_request_only(batch: int | None) -> None:
    wanted = [request(3), request(4, 1.0), request(5, 2.0, "a cat"), request(6)]
    together = engine.run(SplitFake(batch=batch), PLAN, wanted)
    for one, found in zip(wanted, together, strict=True):
        [alone] = engine.run(SplitFake(batch=batch), PLAN, [one])
        assert np.array_equal(alone.picture, found.picture)
    assert not np.array_equal(together[0].picture, together[3].picture)


@pytest.mark.parametrize("buckets", [(), (3, 5, 8)])
def test_pictures_of_any_plan_share_a_batcher(buckets: tuple[int, ...]) -> None:
    plans = [
        PLAN,
        Plan("full", steps_of(FULL, FULL, CONDITIONAL)),
        Plan("early", steps_of(FULL, LATE_CONDITIONAL, LATE)),
        Plan("conditional", steps_of(CONDITIONAL, LATE_CONDITIONAL)),
        Plan("small", steps_of(FULL, HALF, LATE)),
    ]
    wanted = [request(seed, scale) for seed in (1, 2) for scale in (1.0, 3.0)]
    adapter = SplitFake(batch=None)
    batcher = Batcher(adapter, buckets=buckets)
    pairs = {}
    ends: dict[int, Tensor] = {}

    def tick() -> bool:
        frame = batcher.tick()
        if frame is not None:
            for move, x_t in zip(frame.moves, frame.x_t, strict=True):
                if move.last:
                    ends[move.picture] = x_t
        return frame is not None

    for plan in plans:  # each joins those that are on their way
        for one in wanted:
            [number] = batcher.add([plan], [one])
            pairs[number] = plan, one
            tick()
    while tick():
        pass
    assert len(ends) == len(plans) * len(wanted)
    for number, (plan, one) in pairs.items():
        [alone] = engine.rollout(SplitFake(batch=None), plan, [one])
        assert torch.equal(ends[number], alone.x_0)
    asked = len(adapter.parts)
    assert asked < sum(len(plan.steps) for plan in plans) * len(wanted), "calls are shared"


def test_the_rest_of_a_picture_moves_and_forks() -> None:
    adapter = SplitFake()
    program, state = compile_requests(adapter, [PLAN, PLAN], [request(1), request(2, 1.0, "b")])
    for _ in PLAN.steps:
        forked, moved = copy.deepcopy(state), pickle.loads(pickle.dumps(state))
        end = driven(program, state).x
        assert torch.equal(driven(program, forked).x, end)
        assert torch.equal(driven(program, moved).x, end)
        state = ticked(program, state)


def test_parts_of_a_batch_go_on_alone_and_join_again() -> None:
    adapter = SplitFake(batch=None)
    wanted = [request(seed) for seed in range(4)]
    program, state = compile_requests(adapter, [PLAN] * 4, wanted)
    whole = driven(program, state).x
    state = ticked(program, state)
    parts = [([0, 2], program.select([0, 2])), ([1, 3], program.select([1, 3]))]
    states = [ticked(own, state.select(rows)) for rows, own in parts]
    joined = Program.join([own for _, own in parts])
    end = driven(joined, State.join(states)).x
    assert torch.equal(end, whole[[0, 2, 1, 3]])


def test_gradients_flow_from_late_steps_to_what_they_reuse() -> None:
    adapter = SplitFake()
    plan = Plan("late", (Step(1.0, 0.5, FULL, "euler"), Step(0.5, 0.0, LATE, "euler")))
    program, state = compile_requests(adapter, [plan], [request()])

    def end(x: Tensor) -> Tensor:
        first = replace(state, x=x)
        for _ in plan.steps:
            asked = question(program, first)
            first = advance(program, first, calls.ask(adapter, program.calls, asked))
        return first.x.mean()

    x = state.x.clone().double().requires_grad_()
    (slope,) = torch.autograd.grad(end(x), [x])
    direction = torch.ones_like(x) / x.numel()
    step = 1e-4
    with torch.no_grad():
        rise = (end(x + step * direction) - end(x - step * direction)) / (2 * step)
    assert_close((slope * direction).sum(), rise, rtol=1e-5, atol=1e-9, check_dtype=False)
    # A part of it comes by way of what the slow part said.
    by_fast = 0.5 * (0.5 + 0.5 * 0.3 * (1 - 0.5))
    assert abs(float(slope.sum()) - by_fast) > 0.01


# Other plans made of them.


def test_a_picture_that_begins_later_asks_the_network_first() -> None:
    late = transforms.truncated(PLAN, 0.75)
    assert [step.tier for step in late.steps] == [FULL, FULL, LATE, LATE_CONDITIONAL, CONDITIONAL]
    later = transforms.truncated(PLAN, 0.19)
    assert [step.tier for step in later.steps] == [CONDITIONAL, CONDITIONAL]
    carried = Plan("carried", steps_of(FULL, LATE, CARRIED, LATE_CONDITIONAL))
    cut = transforms.truncated(carried, 0.7)
    assert [step.tier for step in cut.steps] == [FULL, CARRIED, LATE_CONDITIONAL]


def test_plans_in_less_memory_or_at_lower_resolution() -> None:
    turned = transforms.with_sequential_guidance(PLAN)
    assert [step.tier.sequential_cfg for step in turned.steps] == [
        step.tier.full for step in PLAN.steps
    ]
    assert not any(step.tier.late for step in transforms.pooled(PLAN, 2).steps)
    assert not any(step.tier.late for step in transforms.at_larger_size(PLAN, 2).steps)


def test_files_say_that_they_have_late_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    data = plan_json.plan_to_json(PLAN)
    assert data["required"] == ["late"]
    assert plan_json.plan_from_json(data) == PLAN
    assert "late conditional" in str(PLAN)
    without = Plan("full", steps_of(FULL, CONDITIONAL))
    assert "late" not in str(plan_json.plan_to_json(without))
    whole = Plan("late", tuple(replace(step, tier=FULL) for step in STEPS))
    assert plan_json.plan_hash(PLAN) != plan_json.plan_hash(whole)
    monkeypatch.setattr(plan_json, "FEATURES", ("weights", "guidance_scale", "reuse", "tiles"))
    with pytest.raises(FileFormatError, match="requires 'late', and this version"):
        plan_json.plan_from_json(data)
    monkeypatch.undo()
    data["steps"] = data["steps"][1:]
    with pytest.raises(FileFormatError, match="no step before it has asked the whole network"):
        plan_json.plan_from_json(data)


# Wrappers.


class Louder(Wrapped):
    """Changes every answer, and knows nothing of two parts."""

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return 1.1 * super().denoise(x_t, t, context)


class LouderInBoth(Louder):
    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        x_0, said = super().denoise_split(x_t, t, context, slow)
        return 1.1 * x_0, said


class Remembering(SplitFake):
    def denoise_remembering(
        self, x_t: Tensor, t: Tensor, context: Context, memory: Context | None
    ) -> tuple[Tensor, Context]:
        return self.denoise(x_t, t, context), {}


def test_a_wrapper_that_changes_only_whole_answers_has_no_late_tier() -> None:
    assert splits(SplitFake())
    assert isinstance(SplitFake(), Splits)
    assert splits(Wrapped(SplitFake()))
    assert not splits(Wrapped(FakeModel()))
    assert not splits(Louder(SplitFake()))
    assert splits(LouderInBoth(SplitFake()))
    assert splits(Wrapped(LouderInBoth(SplitFake())))
    assert not splits(Wrapped(Louder(SplitFake())))
    assert not splits(Remembering())
    [plain] = engine.run(SplitFake(), PLAN, [request()])
    [wrapped] = engine.run(Wrapped(SplitFake()), PLAN, [request()])
    assert np.array_equal(plain.picture, wrapped.picture)


def test_late_steps_beside_tiles() -> None:
    class Tileable(SplitFake):
        @property
        def card(self) -> Any:
            return replace(super().card, tiles=Tiles(16, 0.5))

    plan = Plan("both", steps_of(FULL, FULL, Tier("tiled", tiles=16), LATE))
    adapter = Tileable()
    big = replace(request(), size=(32, 32))
    [result] = engine.run(adapter, plan, [big])
    assert np.isfinite(result.picture).all()
    assert adapter.parts == ["whole", "both", *["whole"] * 10, "fast"]  # 9 tiles and the whole
