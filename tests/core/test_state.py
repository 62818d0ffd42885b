"""The pure functions that move pictures: forks, moves to another process, batches, gradients."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from asymflow.core import calls, schedules
from asymflow.core.adapter import Context
from asymflow.core.compiler import compile_requests, compile_states
from asymflow.core.stages import Trajectory, compile_steps
from asymflow.core.state import Program, State, advance, move, question
from asymflow.core.types import FULL, Plan, Request, Solver, Step, Tier
from asymflow.models.gaussian import GaussianAdapter
from tests.helpers import draw64, driven, ticked

SIZE = (8, 8)
CONDITIONAL, HALF = Tier("conditional", guided=False), Tier("half", pool_factor=2)
CARRIED, HALF_CARRIED = replace(CONDITIONAL, cached=True), replace(HALF, cached=True)


def gaussian() -> GaussianAdapter:
    mean = 0.3 * draw64(0, 3, 3, 8, 8)
    return GaussianAdapter(mean, 0.5 + 0.2 * draw64(1, 3, 3, 8, 8).tanh())


def plan_of(solvers: Sequence[Solver], tiers: Sequence[Tier], shift: float = 2.0) -> Plan:
    grid = schedules.shifted(len(solvers), shift)
    nodes = zip(grid, grid[1:], tiers, solvers, strict=False)
    return Plan("mixed", tuple(Step(*each) for each in nodes))


PLANS = (
    schedules.plan_of(schedules.uniform(5), solver="multistep3"),
    plan_of(("damped2", "corrected2", "corrected2", "euler"), (FULL, FULL, CARRIED, CONDITIONAL)),
    plan_of(("multistep2", "corrected2", "heun"), (FULL, CARRIED, FULL), 4.0),
    schedules.plan_of(schedules.uniform(6), solver="heun"),
)


def request(seed: int, scale: float = 2.0, **options: Any) -> Request:
    return Request({"label": 1 + seed % 2}, SIZE, seed, scale, **options)


def begin(plans: Sequence[Plan], scale: float = 2.0) -> tuple[Program, State]:
    requests = [request(i, scale) for i in range(len(plans))]
    return compile_requests(gaussian(), plans, requests)


def ends(program: Program, state: State) -> dict[int, Tensor]:
    """The result of every picture, asked together for as long as they are on their way."""
    found: dict[int, Tensor] = {}
    numbers = list(range(len(program)))
    while numbers:
        state = ticked(program, state)
        done = program.finished(state)
        found |= {n: x for n, x, over in zip(numbers, state.x, done, strict=True) if over}
        rows = [row for row, over in enumerate(done) if not over]
        numbers = [numbers[row] for row in rows]
        if numbers:
            program, state = program.select(rows), state.select(rows)
    return found


def test_unequal_plans_move_together_as_they_do_alone() -> None:
    together = ends(*begin(PLANS))
    for i, plan in enumerate(PLANS):
        program, state = compile_requests(gaussian(), [plan], [request(i)])
        assert torch.equal(driven(program, state).x[0], together[i])


def test_pictures_join_and_leave_between_any_two_calls() -> None:
    alone = [compile_requests(gaussian(), [plan], [request(i)]) for i, plan in enumerate(PLANS)]
    expected = [driven(*each).x[0] for each in alone]
    program, state = alone[0]
    for other in alone[1:]:  # each at another stage than those before it
        state = ticked(program, state)
        program, state = Program.join([program, other[0]]), State.join([state, other[1]])
    # Leaving and coming back changes nothing either.
    gone, rest = [0, 2], [1, 3]
    programs = [program.select(rows) for rows in (rest, gone)]
    states = [state.select(rows) for rows in (rest, gone)]
    program, state = Program.join(programs), State.join(states)
    found = ends(program, state)
    for place, i in enumerate((*rest, *gone)):
        assert torch.equal(found[place], expected[i])


@pytest.mark.parametrize("rows", [[0], [1, 2], [0, 1, 2, 3]])
def test_a_fork_and_a_pickle_continue_in_mid_trajectory(rows: list[int]) -> None:
    program, state = begin(PLANS)
    state = ticked(program, ticked(program, state))
    expected = ends(program.select(rows), state.select(rows))
    part = state.select(rows)
    for again in (copy.deepcopy(part), copy.copy(part), pickle.loads(pickle.dumps(part))):
        found = ends(program.select(rows), again)
        assert all(torch.equal(found[i], expected[i]) for i in found)


def test_a_pickle_of_one_picture_of_many_is_small() -> None:
    program, state = begin([PLANS[0]] * 32)
    state = ticked(program, ticked(program, state))
    one = len(pickle.dumps(state.select([3])))
    assert one < 1.5 * len(pickle.dumps(ticked(*_twice([PLANS[0]]))))
    assert one < len(pickle.dumps(state)) / 16


def _twice(plans: Sequence[Plan]) -> tuple[Program, State]:
    program, state = begin(plans)
    return program, ticked(program, state)


def test_nothing_is_changed_in_place() -> None:
    program, state = begin(PLANS)
    state = ticked(program, ticked(program, state))
    before = copy.deepcopy(state)
    asked = question(program, state)
    advance(program, state, calls.ask(program.adapter, program.calls, asked))
    for name in ("x", "x_0", "anchor"):
        assert torch.equal(getattr(state, name), getattr(before, name))
    assert all(torch.equal(a, b) for a, b in zip(state.past, before.past, strict=True))
    assert state.memory is not None
    assert before.memory is not None
    assert torch.equal(state.memory.x_0, before.memory.x_0)


def test_what_no_later_step_needs_is_not_kept() -> None:
    program, state = begin([schedules.plan_of(schedules.uniform(4), solver="euler")])
    while not all(program.finished(state)):
        state = ticked(program, state)
        assert state.past == ()
        assert state.anchor is None
        assert state.memory is None
    program, state = begin([plan_of(("euler",) * 3, (FULL, CARRIED, FULL))])
    kept: list[bool] = []
    while not all(program.finished(state)):
        state = ticked(program, state)
        kept.append(state.memory is not None)
    assert kept == [True, False, False]


class Counting(TorchDispatchMode):
    """Counts operators."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mixed", [False, True])
def test_operators_of_a_tick_do_not_grow_with_the_pictures(mixed: bool) -> None:
    """Mixed: plans, times, tiers and guidance differ from picture to picture."""
    counted: list[int] = []
    for count in (1, 16) if mixed else (1, 64):
        plans = PLANS * count if mixed else [PLANS[1]] * count
        program, state = begin(plans)
        state = ticked(program, state)
        asked = question(program, state)
        calls.ask(program.adapter, program.calls, asked)  # makes the contexts of these rows
        with Counting() as counting:
            asked = question(program, state)
            answer = calls.ask(program.adapter, program.calls, asked)
            advance(program, state, answer)
        counted.append(counting.counts.total())
    assert counted[0] == counted[1]


# Gradients


def _end(solver: Solver, times: Tensor, scale: Tensor | None = None) -> Tensor:
    """A functional of the final picture of four steps on a grid of five times."""
    model, eps = gaussian(), draw64(3, 2, 3, 8, 8)
    grid = [1.0, *times.detach().tolist(), 0.0]
    steps = [Step(t, s, FULL, solver) for t, s in pairwise(grid)]
    nodes = [torch.tensor(1.0).double(), *times, torch.tensor(0.0).double()]
    stages = compile_steps(steps, times=nodes)
    trajectory = Trajectory.of([stages] * 2, eps)
    if scale is not None:
        trajectory = replace(trajectory, table=trajectory.table * scale)
    state = State((0, 0), eps)
    while state.at[0] < len(stages):
        t = trajectory.numbers(state.at)[0].flatten()
        x_0 = model.denoise(state.x, t, {"label": torch.tensor([1, 2])})
        state = move(trajectory, state, x_0)
    return (state.x * draw64(4, 2, 3, 8, 8)).sum()


@pytest.mark.parametrize(
    "solver", ["euler", "multistep2", "multistep3", "damped2", "corrected2", "heun"]
)
def test_gradients_reach_times_and_weights(solver: Solver) -> None:
    times = torch.tensor([0.8, 0.55, 0.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(partial(_end, solver), (times,), atol=1e-6)
    fixed = times.detach()
    stages = len(_stages(solver, fixed))
    scale = torch.ones(stages, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(partial(_end, solver, fixed), (scale,), atol=1e-6)


def _stages(solver: Solver, times: Tensor) -> tuple[Any, ...]:
    grid = [1.0, *times.tolist(), 0.0]
    return compile_steps([Step(t, s, FULL, solver) for t, s in pairwise(grid)])


def test_gradients_flow_through_tiers_and_guidance() -> None:
    program, state = begin([plan_of(("damped2",) * 4, (FULL, CARRIED, HALF_CARRIED, HALF))])
    eps = state.x.clone().requires_grad_()

    def end(x: Tensor) -> Tensor:
        return driven(program, replace(state, x=x)).x.square().sum()

    [gradient] = torch.autograd.grad(end(eps), eps)
    direction = draw64(9, *eps.shape)
    step = 1e-5
    finite = (end(eps + step * direction) - end(eps - step * direction)) / (2 * step)
    assert float(finite.detach()) == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


# Adapters that remember


@dataclass(frozen=True, slots=True, eq=False)
class Remembering(GaussianAdapter):
    """Answers with the mean of its estimate and the one before it, which it is handed back."""

    given: list[tuple[int, bool]] = field(default_factory=list[tuple[int, bool]])

    def denoise_remembering(
        self, x_t: Tensor, t: Tensor, context: Context, memory: Context | None
    ) -> tuple[Tensor, Context]:
        x_0 = self.denoise(x_t, t, context)
        self.given.append((len(x_t), memory is not None))
        before = x_0 if memory is None else memory["x_0"]
        assert before.shape == x_0.shape
        return (x_0 + before) / 2, {"x_0": x_0}


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_an_adapter_is_handed_back_what_it_remembers(batch: int | None) -> None:
    inner = gaussian()
    model = Remembering(inner.mean, inner.std, batch)
    plan = schedules.plan_of(schedules.uniform(4), solver="euler", guidance_interval=(0.0, 0.6))
    requests = [request(i) for i in range(3)]
    program, state = compile_requests(model, [plan] * 3, requests)
    together = driven(program, state).x
    assert {given for _, given in model.given} == {True, False}
    for i in range(3):
        alone = driven(*compile_requests(model, [plan], [requests[i]])).x
        assert torch.equal(alone[0], together[i])
    # By hand: the unconditional pass begins to remember when guidance begins.
    x, seen = compile_requests(model, [plan], requests[:1])[1].x, dict[int, Tensor]()
    for step in plan.steps:
        t = torch.tensor([step.t], dtype=torch.float64)
        said: dict[int, Tensor] = {}
        for label in (1, 0) if step.tier.guided else (1,):
            now = inner.denoise(x, t, {"label": torch.tensor([label])})
            said[label] = (now + seen.get(label, now)) / 2
            seen[label] = now
        x_0 = said[1] + (said[1] - said[0] if 0 in said else 0)
        x = step.s / step.t * x + (1 - step.s / step.t) * x_0
    assert torch.allclose(x[0], together[0])


def test_pictures_with_and_without_memory_do_not_join() -> None:
    inner = gaussian()
    model = Remembering(inner.mean, inner.std)
    first, second = (compile_requests(model, [PLANS[0]], [request(i)]) for i in range(2))
    with pytest.raises(ValueError, match="cannot join"):
        State.join([ticked(*first), second[1]])


def test_pictures_of_one_plan_share_its_stages_whenever_they_come() -> None:
    plan = replace(PLANS[0])  # equal, not the same
    parts = [begin([each])[0] for each in (PLANS[0], plan, PLANS[1])]
    joined = Program.join(parts)
    assert joined.trajectory.rows[0] is joined.trajectory.rows[1]
    distinct = [parts[0].trajectory, parts[2].trajectory]
    assert len(joined.trajectory.table) == sum(len(each.table) for each in distinct)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_host_that_asks_its_own_network_gets_the_same_pictures(plan: Plan, scale: float) -> None:
    adapter, requests = gaussian(), [request(seed, scale) for seed in range(3)]
    program, begun = compile_requests(adapter, [plan] * 3, requests)
    contexts = calls.split(adapter, *adapter.encode(requests), 3)
    hosted, state = compile_states(adapter, plan, begun.x, scale)
    while not all(hosted.finished(state)):
        answer = calls.ask(adapter, contexts, question(hosted, state))
        state = advance(hosted, state, answer)
    assert torch.equal(state.x, driven(program, begun).x)
