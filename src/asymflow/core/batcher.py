"""Continuous batching: pictures of any plan, time and guidance share network calls.

At every tick the pictures that ask at one size are asked together. They join and leave between any
two calls. A result depends on its own request and plan, never on the pictures beside it: only the
network could tell, and an adapter whose kernels depend on the number of rows limits `batch`.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

from asymflow.core import calls, devices
from asymflow.core.adapter import Adapter, collates, remembers
from asymflow.core.compiler import compile_requests
from asymflow.core.errors import AsymflowError
from asymflow.core.stages import Stage
from asymflow.core.state import Program, State, estimated, move, question
from asymflow.core.types import Plan, Request, Step

_PATIENCE = 8
"""Ticks after which the picture that waits longest is asked, even if others fill a call better.

With fewer, calls of a shape that few pictures share are asked half empty (`benchmarks batching`).
"""


@dataclass(frozen=True, slots=True)
class Move:
    """A step that a picture has made.

    Attributes:
        picture: the number that `Batcher.add` gave it.
        index: of the step in the plan, from 0.
        count: steps of the plan.
        step: the move itself.
        seconds: its share of the duration of the calls.
        last: whether the picture is finished.
    """

    picture: int
    index: int
    count: int
    step: Step
    seconds: float
    last: bool


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The moves of one tick. Its tensors cannot be changed in place.

    Attributes:
        moves: of each picture that moved [m].
        x_0: their newest estimates [m, c, h, w]: previews.
        x_t: their states [m, c, h, w] where their moves end; at t = 0 they are the results.
        failed: pictures that cannot continue, and why.
    """

    moves: tuple[Move, ...]
    x_0: Tensor
    x_t: Tensor
    failed: tuple[tuple[int, Exception], ...] = ()


@dataclass(slots=True, eq=False)
class _Sample:
    """What the batcher knows of a picture.

    Attributes:
        steps: of its plan.
        turn: the tick of its last call.
        seconds: spent since its last whole move.
        alone: whether it is asked without others, since a call with it was interrupted.
    """

    number: int
    steps: int
    turn: int
    seconds: float = 0.0
    alone: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Cohort:
    """Pictures whose tensors are joined."""

    samples: tuple[_Sample, ...]
    program: Program
    state: State

    def select(self, rows: Sequence[int]) -> _Cohort:
        if len(rows) == len(self.samples):
            return self
        samples = tuple(self.samples[row] for row in rows)
        return _Cohort(samples, self.program.select(rows), self.state.select(rows))

    @classmethod
    def join(cls, cohorts: Sequence[_Cohort]) -> _Cohort:
        if len(cohorts) == 1:
            return cohorts[0]
        return cls(
            tuple(sample for each in cohorts for sample in each.samples),
            Program.join([each.program for each in cohorts]),
            State.join([each.state for each in cohorts]),
        )


class NotFinite(AsymflowError):
    """The network gave NaN or infinite values for a picture."""


class Interrupted(AsymflowError):
    """A call failed for a reason outside of the pictures, which is the cause of this error.

    Attributes:
        pictures: that were asked. They are where they were, and are asked alone next time, in
            case one of them is the reason after all.
    """

    def __init__(self, pictures: tuple[int, ...]) -> None:
        super().__init__(f"The network call of {len(pictures)} pictures was interrupted.")
        self.pictures = pictures

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is made again from the arguments of Exception, which is the message.
        return type(self), (self.pictures,), vars(self)


@dataclass(slots=True, eq=False)
class Batcher:
    """Makes pictures together. Threads may share it: each `tick` is one call of the network.

    Attributes:
        adapter: the model.
        limit: pictures per tick, or None for all.
        limits: the same by (height, width), for sizes where it is known; may be added to at any
            time.
        buckets: numbers of rows that network calls may have, see `calls.ask`.
        isolated: report failures in frames, for the picture at fault only, instead of raising
            them; a call that fails is repeated with halves of its pictures.
        fatal: errors that are not the pictures', such as the loss of the network: they are raised
            as the cause of `Interrupted`.
        exhausted: number of calls that ran out of memory.
    """

    adapter: Adapter
    limit: int | None = None
    buckets: tuple[int, ...] = ()
    isolated: bool = False
    fatal: tuple[type[Exception], ...] = ()
    exhausted: int = 0
    limits: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    _waiting: list[_Cohort] = field(default_factory=list[_Cohort])
    _lock: Any = field(default_factory=threading.Lock)
    _numbers: Iterator[int] = field(default_factory=count)
    _tick: int = 0
    _asked: set[int] = field(default_factory=set[int])
    _cancelled: set[int] = field(default_factory=set[int])
    _most: dict[Any, int] = field(default_factory=dict[Any, int])

    def add(self, plans: Sequence[Plan], requests: Sequence[Request]) -> list[int]:
        """Take pictures of one size, which the caller has checked; return their numbers.

        Args:
            plans: of each picture, already cut to the strength of its request.
            requests: of each picture.
        """
        with torch.inference_mode():
            program, state = compile_requests(self.adapter, plans, requests)
        with self._lock:
            samples = tuple(
                _Sample(next(self._numbers), len(plan.steps), self._tick) for plan in plans
            )
            self._waiting.append(_Cohort(samples, program, state))
        return [sample.number for sample in samples]

    def cancel(self, number: int) -> None:
        """Drop a picture before its next call."""
        with self._lock:
            self._cancelled.add(number)

    @property
    def pictures(self) -> int:
        """Number of pictures that are not finished."""
        with self._lock:
            return sum(len(each.samples) for each in self._waiting) + len(self._asked)

    @property
    def waiting(self) -> int:
        """Number of pictures that wait for a call."""
        with self._lock:
            return sum(len(each.samples) for each in self._waiting)

    @torch.inference_mode()
    def tick(self) -> Frame | None:
        """Ask the network once, and move the pictures that were asked.

        Returns:
            Their moves; None if no picture waits for a call. A frame may have no move: the first
            half of Heun's step is none.
        """
        with self._lock:
            cohort = self._take()
            if cohort is None:
                return None
            numbers = tuple(sample.number for sample in cohort.samples)
            self._asked |= set(numbers)
        rest: list[_Cohort] = [cohort]
        try:
            rest, frame = self._advanced(cohort)
        except self.fatal as error:
            for sample in cohort.samples:
                sample.alone = True
            raise Interrupted(numbers) from error
        finally:
            with self._lock:
                self._asked -= set(numbers)
                self._waiting += rest
        return frame

    def _take(self) -> _Cohort | None:
        """The pictures of the next call, taken out of those that wait."""
        self._drop()
        groups: dict[Any, list[tuple[int, int, int]]] = {}
        for place, cohort in enumerate(self._waiting):
            keys = self._keys(cohort)
            for row, (key, sample) in enumerate(zip(keys, cohort.samples, strict=True)):
                groups.setdefault(key, []).append((sample.turn, place, row))
        if not groups:
            return None
        self._tick += 1

        def urgency(key: Any) -> tuple[int, int, int]:
            waited = self._tick - min(groups[key])[0]
            late = waited if waited > _PATIENCE else 0
            return late, min(len(groups[key]), self._limit(key)), waited

        key = max(groups, key=urgency)
        chosen = sorted(groups[key])[: self._limit(key)]
        parts: list[_Cohort] = []
        rest: list[_Cohort] = []
        for place, cohort in enumerate(self._waiting):
            rows = sorted(row for _, where, row in chosen if where == place)
            if rows:
                parts.append(cohort.select(rows))
            if len(rows) < len(cohort.samples):
                own = set(rows)
                rest.append(cohort.select([i for i in range(len(cohort.samples)) if i not in own]))
        self._waiting = rest
        taken = _Cohort.join(parts)
        for sample in taken.samples:
            sample.turn = self._tick
        return taken

    def _limit(self, key: Any) -> int:
        """Pictures per tick; fewer where more did not fit into memory."""
        (_, height, width, *_), *_ = key
        limit = self.limits.get((height, width), self.limit)
        return min(limit or sys.maxsize, self._most.get(key, sys.maxsize))

    def _drop(self) -> None:
        """Leave out the pictures that were cancelled."""
        if not self._cancelled:
            return
        kept: list[_Cohort] = []
        for cohort in self._waiting:
            numbers = [sample.number for sample in cohort.samples]
            rows = [row for row, each in enumerate(numbers) if each not in self._cancelled]
            if rows:
                kept.append(cohort.select(rows))
        self._waiting = kept
        self._cancelled &= self._asked  # all others are gone

    def _keys(self, cohort: _Cohort) -> list[Any]:
        """What each picture must have in common with others to share a call."""
        state = cohort.state
        shape: Any = (*state.x.shape[1:], *_context_shape(self.adapter, cohort.program))
        shape = (*shape, state.cond is None, state.null is None)
        remembering = remembers(self.adapter)
        return [
            (
                shape,
                stage.tier.pool_factor,
                stage.tier.tiles,
                stage.tier.sequential_cfg,
                stage.part,
                stage.reused_from,
                # Where something of every row is remembered, all have the same passes.
                (remembering or stage.tier.late or stage.reused_from) and stage.guided,
                sample.number if sample.alone else None,
            )
            for stage, sample in zip(cohort.program.stages(state), cohort.samples, strict=True)
        ]

    def _advanced(self, cohort: _Cohort) -> tuple[list[_Cohort], Frame]:
        """The pictures that are not finished after a call, and the moves that it made."""
        try:
            rest, frame = self._called(cohort)
        except Exception as error:
            if not self.isolated or isinstance(error, self.fatal):
                raise
            memory = is_out_of_memory(error)
            # A traceback would keep the tensors of its frames.
            reason = error.with_traceback(None) if memory else error
        else:
            return [] if rest is None else [rest], frame
        # Here, where the error and the objects in its frames are released.
        if memory:
            gc.collect()
            devices.release_memory()
            with self._lock:
                self.exhausted += 1
        n = len(cohort.samples)
        if n == 1:
            nothing = cohort.state.x[:0]
            return [], Frame((), nothing, nothing, ((cohort.samples[0].number, reason),))
        if memory:
            with self._lock:
                self._most[self._keys(cohort)[0]] = n // 2
        parts = [self._advanced(cohort.select(rows)) for rows in (range(n // 2), range(n // 2, n))]
        (first, one), (second, other) = parts
        return first + second, Frame(
            one.moves + other.moves,
            torch.cat([one.x_0, other.x_0]),
            torch.cat([one.x_t, other.x_t]),
            one.failed + other.failed,
        )

    def _called(self, cohort: _Cohort) -> tuple[_Cohort | None, Frame]:
        program, state = cohort.program, cohort.state
        began = _now(state.x)
        stages = program.stages(state)
        answer = calls.ask(
            self.adapter,
            program.calls,
            question(program, state),
            sequential=stages[0].tier.sequential_cfg,
            buckets=self.buckets,
        )
        state, x_0 = estimated(program, state, answer)
        state = move(program.trajectory, state, x_0)
        share = (_now(state.x) - began) / len(cohort.samples)
        finite = [True] * len(stages)
        if self.isolated:
            finite = x_0.flatten(1).isfinite().all(1).tolist()
        done = program.finished(state)
        failed: list[tuple[int, Exception]] = []
        moves: list[Move] = []
        moved: list[int] = []
        for row, (sample, stage) in enumerate(zip(cohort.samples, stages, strict=True)):
            sample.seconds += share
            sample.alone = False
            if not finite[row]:
                message = f"{self.adapter.name} gave NaN or infinite values at t={stage.t:.4g}."
                failed.append((sample.number, NotFinite(message)))
            elif stage.ends_step:
                moves.append(_move(sample, stage, last=done[row]))
                moved.append(row)
        own = _Cohort(cohort.samples, program, state)
        every = len(moved) == len(stages)
        x_0, x_t = (each if every else each[moved] for each in (x_0, state.x))
        going = [row for row in range(len(stages)) if finite[row] and not done[row]]
        frame = Frame(tuple(moves), x_0, x_t, tuple(failed))
        return own.select(going) if going else None, frame


def _move(sample: _Sample, stage: Stage, *, last: bool) -> Move:
    seconds, sample.seconds = sample.seconds, 0.0
    return Move(sample.number, stage.index, sample.steps, stage.step, seconds, last)


def _context_shape(adapter: Adapter, program: Program) -> tuple[Any, ...]:
    """The shapes of contexts, which must agree unless the adapter collates them."""
    if collates(adapter):
        return ()
    call = program.calls[0]
    return tuple((key, *call.cond[key].shape[1:]) for key in sorted(call.cond))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was exhausted, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The allocator of the CPU has no exception class of its own.
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def _now(template: Tensor) -> float:
    devices.synchronize(template.device)
    return time.perf_counter()
