"""Where pictures are on their way, and the pure functions that move them.

    question(program, state) -> what the network is asked
    advance(program, state, answer) -> the next state

Nothing here calls a network or changes its arguments: a copy of a state is a fork of its
trajectory, and a pickle of it continues in another process. All pictures of a state move in the
same operations, however many they are, and gradients flow through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from asymflow.core import calls, estimators
from asymflow.core.adapter import Adapter, Context, clipped_estimate, remembers
from asymflow.core.calls import Answer, Conditions, Question
from asymflow.core.estimators import InpaintConstraint, Memory
from asymflow.core.stages import Stage, Trajectory


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """What b pictures of one size are made by.

    Attributes:
        adapter: the model.
        trajectory: the stages of each picture.
        calls: the contexts of the pictures of each network call, in order.
        known: pixels that are not painted, if any picture has some.
    """

    adapter: Adapter
    trajectory: Trajectory
    calls: tuple[Conditions, ...]
    known: InpaintConstraint | None = None

    def __len__(self) -> int:
        return len(self.trajectory.rows)

    def stages(self, state: State) -> list[Stage]:
        """The stage of each picture that is not finished."""
        return self.trajectory.stages(state.at)

    def finished(self, state: State) -> list[bool]:
        """Whether each picture has reached its result."""
        rows = zip(self.trajectory.rows, state.at, strict=True)
        return [number == len(stages) for stages, number in rows]

    def select(self, rows: Sequence[int]) -> Program:
        """The program of some of the pictures, in ascending order."""
        if len(rows) == len(self):
            return self
        trajectory, known = self.trajectory.select(rows), self.known and self.known.select(rows)
        return Program(self.adapter, trajectory, calls.select(self.calls, rows), known)

    @classmethod
    def join(cls, programs: Sequence[Program]) -> Program:
        """The pictures of several programs of one adapter and one size."""
        if len(programs) == 1:
            return programs[0]
        first = programs[0]
        rows = (stages for each in programs for stages in each.trajectory.rows)
        own = calls.merge(first.adapter, [call for each in programs for call in each.calls])
        trajectory = Trajectory.of(rows, first.trajectory.table)
        return cls(first.adapter, trajectory, own, _constraint(programs))


def _constraint(programs: Sequence[Program]) -> InpaintConstraint | None:
    """That of all pictures; a picture without one is painted everywhere."""
    some = next((each.known for each in programs if each.known is not None), None)
    if some is None:
        return None
    parts = [
        each.known
        or InpaintConstraint(
            some.x_0.new_zeros(len(each), *some.x_0.shape[1:]),
            some.mask.new_ones(len(each), *some.mask.shape[1:]),
        )
        for each in programs
    ]
    return InpaintConstraint(
        torch.cat([each.x_0 for each in parts]), torch.cat([each.mask for each in parts])
    )


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The states of b pictures of one size; tensors are [b, c, h, w].

    Attributes:
        at: the number of the stage that each picture is at [b].
        x: where the network is asked next; after the last stage, the result.
        x_0: the newest estimate, None before the first.
        anchor: the base of the last move, if a corrector needs it.
        past: estimates that are still used, newest first. A picture with fewer than another has
            zeros.
        memory: what carried tiers reuse.
        cond: what the adapter remembers of its conditional passes, or what the slow part of its
            network said in them, for late tiers; None if nothing.
        null: the same of its unconditional passes.
    """

    at: tuple[int, ...]
    x: Tensor
    x_0: Tensor | None = None
    anchor: Tensor | None = None
    past: tuple[Tensor, ...] = ()
    memory: Memory | None = None
    cond: Context | None = None
    null: Context | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A picture of a batch is a view, and a pickle of a view has the whole batch.
        return State, (self.at, *_map(self, torch.clone))

    def select(self, rows: Sequence[int]) -> State:
        """The states of some of the pictures, in ascending order."""
        if len(rows) == len(self.at):
            return self
        at = tuple(self.at[row] for row in rows)
        if len(rows) == 1:
            return State(at, *_map(self, lambda x: x[rows[0] : rows[0] + 1]))
        index = torch.tensor(list(rows), device=self.x.device)
        return State(at, *_map(self, lambda x: x.index_select(0, index)))

    @classmethod
    def join(cls, states: Sequence[State]) -> State:
        """The pictures of several states of one size.

        Raises:
            ValueError: the adapter remembers something of some of them only.
        """
        if len(states) == 1:
            return states[0]
        for name in ("cond", "null"):
            if len({getattr(each, name) is None for each in states}) != 1:
                raise ValueError(f"Pictures with and without {name} memory cannot join.")
        depth = max(len(each.past) for each in states)
        memories = [each.memory for each in states]
        x_0, term = (
            _cat(states, [None if each is None else getattr(each, name) for each in memories])
            for name in ("x_0", "guidance")
        )
        past = (
            _cat(states, [each.past[k] if k < len(each.past) else None for each in states])
            for k in range(depth)
        )
        return cls(
            tuple(number for each in states for number in each.at),
            torch.cat([each.x for each in states]),
            _cat(states, [each.x_0 for each in states]),
            _cat(states, [each.anchor for each in states]),
            tuple(each for each in past if each is not None),
            None if x_0 is None or term is None else Memory(x_0, term),
            calls.joined([each.cond for each in states]),
            calls.joined([each.null for each in states]),
        )


def _map(state: State, change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """The tensors of a state changed, in the order of its fields."""

    def context(found: Context | None) -> Context | None:
        return None if found is None else {key: change(value) for key, value in found.items()}

    memory = state.memory
    return (
        change(state.x),
        None if state.x_0 is None else change(state.x_0),
        None if state.anchor is None else change(state.anchor),
        tuple(change(each) for each in state.past),
        None if memory is None else Memory(change(memory.x_0), change(memory.guidance)),
        context(state.cond),
        context(state.null),
    )


def _cat(states: Sequence[State], parts: Sequence[Tensor | None]) -> Tensor | None:
    """Tensors of all pictures, zeros for those that have none; None where nobody has one."""
    if all(part is None for part in parts):
        return None
    filled = (
        torch.zeros_like(each.x) if part is None else part
        for each, part in zip(states, parts, strict=True)
    )
    return torch.cat(list(filled))


def question(program: Program, state: State) -> Question:
    """What the network is asked; the stages of all pictures ask one part of it, at one size."""
    stages = program.stages(state)
    t = program.trajectory.numbers(state.at)[0].flatten().to(state.x.dtype)
    x_t, t = estimators.seen(stages[0].tier, state.x, t)
    again = tuple(row for row, stage in enumerate(stages) if stage.guided)
    part = stages[0].part
    # What is there for a later step is no part of this question.
    cond, null = (state.cond, state.null) if _has_memory(program, stages[0]) else (None, None)
    return Question(x_t, t, again, cond, null, stages[0].tier.tiles, part)


def _has_memory(program: Program, stage: Stage) -> bool:
    """Whether the network is told what is remembered."""
    return stage.tier.late or remembers(program.adapter)


def advance(program: Program, state: State, answer: Answer) -> State:
    """The state after the moves that the answer to its question leads to."""
    return move(program.trajectory, *estimated(program, state, answer))


def estimated(program: Program, state: State, answer: Answer) -> tuple[State, Tensor]:
    """The state with what is remembered of an answer, and the estimates x_0 [b, c, h, w]."""
    adapter, stages = program.adapter, program.stages(state)
    again = [row for row, stage in enumerate(stages) if stage.guided]
    weight = program.trajectory.numbers(state.at)[1]
    x_0, term = estimators.combined(adapter, answer, again, weight)
    tiers = [stage.tier for stage in stages]
    x_0, memory = estimators.finished(tiers, x_0, term, state.memory)
    x_0 = clipped_estimate(adapter, x_0)
    if program.known is not None:
        x_0 = torch.lerp(program.known.x_0, x_0, program.known.mask)
    kept = memory if any(stage.carried_from for stage in stages) else None
    if remembers(adapter):
        known = answer.cond_memory, answer.null_memory if again else state.null
    elif not stages[0].reused_from:
        known = None, None
    elif stages[0].tier.whole:
        known = answer.cond_memory, answer.null_memory
    else:
        known = state.cond, state.null
    return replace(state, memory=kept, cond=known[0], null=known[1]), x_0


def move(trajectory: Trajectory, state: State, x_0: Tensor) -> State:
    """The state after one move of each picture, by the estimates x_0 [b, c, h, w] at its x."""
    stages = trajectory.stages(state.at)
    _, _, c_0, c_1, c_2, a, *weights = trajectory.numbers(state.at)
    past, base = state.past, state.x
    corrects = [stage.base is not None for stage in stages]
    if any(corrects):
        assert state.anchor is not None, "a stage with a base has an anchor"
        base = _combination((c_0, c_1, c_2), (state.anchor, past[0], x_0))
        if not all(corrects):
            base = torch.where(_mask(corrects, base), base, state.x)
    used = max(len(stage.weights) for stage in stages)
    x = _combination((a, *weights), (base, x_0, *past)[:used])
    after = [
        stages[number + 1] if number + 1 < len(stages) else None
        for stages, number in zip(trajectory.rows, state.at, strict=True)
    ]
    depth = max((len(stage.older) for stage in after if stage is not None), default=0)
    keeps = [stage.kept for stage in stages]
    if all(keeps):
        past = (x_0, *past)
    elif any(keeps):
        mask = _mask(keeps, x_0)
        zeros = torch.zeros_like(x_0)
        past = tuple(
            torch.where(mask, new, old)
            for new, old in zip((x_0, *past), (*past, zeros), strict=True)
        )
    anchored = any(stage is not None and stage.base is not None for stage in after)
    return replace(
        state,
        at=tuple(number + 1 for number in state.at),
        x=x.to(state.x.dtype),
        x_0=x_0,
        anchor=base if anchored else None,
        past=past[:depth],
    )


def _combination(weights: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
    """The sum of weighted parts, in one new tensor: on a CPU memory decides the time of a move."""
    total = weights[0] * parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=False):
        total += weight * part
    return total


def _mask(rows: Sequence[bool], template: Tensor) -> Tensor:
    return torch.tensor(rows, device=template.device).view(-1, 1, 1, 1)
