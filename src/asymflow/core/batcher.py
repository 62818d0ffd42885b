"""Continuous batching: pictures of any plan, time and guidance share network calls.

At every tick the pictures that ask at one size are asked together. They join and leave between any
two calls. A result depends on its own request and plan, never on the pictures beside it: only the
network could tell, and an adapter whose kernels depend on the number of rows limits `batch`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from asymflow.core import calls, controller, devices
from asymflow.core.adapter import Adapter, remembers
from asymflow.core.compiler import compile_requests
from asymflow.core.errors import AsymflowError
from asymflow.core.stages import Stage, Trajectory
from asymflow.core.state import Program, State, estimated, move, question
from asymflow.core.types import Action, Decision, Plan, Request, Step

_PATIENCE = 4
"""Ticks after which a picture is asked even if others would fill a call better."""


@dataclass(frozen=True, slots=True)
class Move:
    """A step that a picture has made.

    Attributes:
        picture: the number that `Batcher.add` gave it.
        index: of the plan's step that the picture moved from, from 0. Adaptive pictures may skip
            steps, and split others into two moves.
        count: steps of the plan.
        step: the move itself.
        seconds: its share of the duration of the calls.
        prediction_residual: if the plan is adaptive and there was a prediction.
        action: by which the picture left the plan.
        last: whether the picture is finished.
    """

    picture: int
    index: int
    count: int
    step: Step
    seconds: float
    prediction_residual: float | None
    action: Action | None
    last: bool

    @property
    def decision(self) -> Decision | None:
        """The decision that was made here."""
        if self.action is None or self.prediction_residual is None:
            return None
        return Decision(self.index, self.action, self.prediction_residual)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The moves of one tick. Its tensors cannot be changed in place.

    Attributes:
        moves: of each picture that moved [m].
        x_0: their newest estimates [m, c, h, w]: previews.
        x_t: their states [m, c, h, w] at time `step.s`; at 0 they are the results.
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
        turn: the tick of its last call.
        seconds: spent since its last whole move.
    """

    number: int
    request: Request
    plan: Plan
    turn: int
    seconds: float = 0.0


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


@dataclass(slots=True, eq=False)
class Batcher:
    """Makes pictures together. Threads may share it: each call of `tick` is one network call.

    Attributes:
        adapter: the model.
        limit: pictures per tick, or None for all.
        checked: fail pictures with NaN or infinite values, each on its own.
    """

    adapter: Adapter
    limit: int | None = None
    checked: bool = False
    _cohorts: list[_Cohort] = field(default_factory=list[_Cohort])
    _lock: Any = field(default_factory=threading.Lock)
    _tick: int = 0
    _next: int = 0
    _cancelled: set[int] = field(default_factory=set[int])
    _busy: int = 0

    def add(self, plans: Sequence[Plan], requests: Sequence[Request]) -> range:
        """Take pictures of one size, which the caller has checked; return their numbers.

        Args:
            plans: of each picture, already cut to the strength of its request.
            requests: of each picture.
        """
        with torch.inference_mode():
            program, state = compile_requests(self.adapter, plans, requests)
        with self._lock:
            numbers = range(self._next, self._next + len(requests))
            self._next = numbers.stop
            samples = (
                _Sample(number, request, plan, self._tick)
                for number, request, plan in zip(numbers, requests, plans, strict=True)
            )
            self._cohorts.append(_Cohort(tuple(samples), program, state))
        return numbers

    def cancel(self, number: int) -> None:
        """Drop a picture before its next call."""
        with self._lock:
            self._cancelled.add(number)

    @property
    def pictures(self) -> int:
        """Number of pictures that are not finished."""
        with self._lock:
            return sum(len(each.samples) for each in self._cohorts) + self._busy

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
            self._busy += len(cohort.samples)
        try:
            rest, frame = self._advanced(cohort)
        except BaseException:
            with self._lock:
                self._busy -= len(cohort.samples)
                self._cohorts.append(cohort)
            raise
        with self._lock:
            self._busy -= len(cohort.samples)
            if rest is not None:
                self._cohorts.append(rest)
        return frame

    def _take(self) -> _Cohort | None:
        """The pictures of the next call, taken out of those that wait."""
        self._drop()
        groups: dict[tuple[Any, ...], list[tuple[int, int, int]]] = {}
        for place, cohort in enumerate(self._cohorts):
            stages = cohort.program.stages(cohort.state)
            for row, (stage, sample) in enumerate(zip(stages, cohort.samples, strict=True)):
                key = self._key(cohort, stage)
                groups.setdefault(key, []).append((sample.turn, place, row))
        if not groups:
            return None
        self._tick += 1

        def urgency(rows: list[tuple[int, int, int]]) -> tuple[bool, int, int]:
            oldest = min(rows)[0]
            waited = self._tick - oldest
            filled = len(rows) if self.limit is None else min(len(rows), self.limit)
            return waited > _PATIENCE, filled, waited

        chosen = max(groups.values(), key=urgency)
        chosen = sorted(chosen)[: self.limit]
        own: dict[int, list[int]] = {}
        for _, place, row in chosen:
            own.setdefault(place, []).append(row)
        parts: list[_Cohort] = []
        rest: list[_Cohort] = []
        for place, cohort in enumerate(self._cohorts):
            rows = sorted(own.get(place, ()))
            others = [row for row in range(len(cohort.samples)) if row not in rows]
            if rows:
                parts.append(cohort.select(rows))
            if others:
                rest.append(cohort.select(others))
        self._cohorts = rest
        taken = _Cohort.join(parts)
        for sample in taken.samples:
            sample.turn = self._tick
        return taken

    def _drop(self) -> None:
        """Leave out the pictures that were cancelled."""
        if not self._cancelled:
            return
        kept: list[_Cohort] = []
        for cohort in self._cohorts:
            rows = [
                i for i, each in enumerate(cohort.samples) if each.number not in self._cancelled
            ]
            if rows:
                kept.append(cohort.select(rows))
        self._cohorts = kept

    def _key(self, cohort: _Cohort, stage: Stage) -> tuple[Any, ...]:
        """What pictures must have in common to share a call."""
        tier = stage.tier
        shape = (tuple(cohort.state.x.shape[1:]), tier.pool_factor, tier.sequential_cfg)
        if remembers(self.adapter):
            memories = cohort.state.cond is None, cohort.state.null is None
            return *shape, stage.guided, memories
        return shape

    def _advanced(self, cohort: _Cohort) -> tuple[_Cohort | None, Frame]:
        """The cohort after a network call, and the moves that it made."""
        program, state = cohort.program, cohort.state
        began = _now(state.x)
        stages = program.stages(state)
        asked = question(program, state)
        answer = calls.ask(
            self.adapter, program.calls, asked, sequential=stages[0].tier.sequential_cfg
        )
        state, x_0 = estimated(program, state, answer)
        program, found = _decided(cohort.samples, program, state, x_0)
        stages = program.stages(state)
        state = move(program.trajectory, state, x_0)
        share = (_now(state.x) - began) / len(cohort.samples)
        finite = x_0.flatten(1).isfinite().all(1).tolist() if self.checked else None
        moves: list[Move] = []
        moved: list[int] = []
        going: list[int] = []
        failed: list[tuple[int, Exception]] = []
        done = program.finished(state)
        for row, (sample, stage) in enumerate(zip(cohort.samples, stages, strict=True)):
            sample.seconds += share
            if finite is not None and not finite[row]:
                message = f"{self.adapter.name} gave NaN or infinite values at t={stage.t:.4g}."
                failed.append((sample.number, NotFinite(message)))
                continue
            if not done[row]:
                going.append(row)
            if not done[row] and program.trajectory.rows[row][state.at[row]].step is stage.step:
                continue  # the other half of this step comes
            rho, action = found.get(row, (None, None))
            count = len(sample.plan.steps)
            moves.append(
                Move(
                    sample.number,
                    stage.index,
                    count,
                    stage.step,
                    sample.seconds,
                    rho,
                    action,
                    done[row],
                )
            )
            moved.append(row)
            sample.seconds = 0.0
        own = _Cohort(cohort.samples, program, state)
        every = len(moved) == len(cohort.samples)
        assert state.x_0 is not None, "an estimate was made"
        x_0, x_t = (each if every else each[moved] for each in (state.x_0, state.x))
        return own.select(going) if going else None, Frame(tuple(moves), x_0, x_t, tuple(failed))


def _now(template: Tensor) -> float:
    devices.synchronize(template.device)
    return time.perf_counter()


_Decisions = dict[int, tuple[float | None, Action | None]]


def _decided(
    samples: Sequence[_Sample], program: Program, state: State, x_0: Tensor
) -> tuple[Program, _Decisions]:
    """The program after the decisions of adaptive pictures, and those, by row."""
    found: _Decisions = {}
    rows = list(program.trajectory.rows)
    for row, (sample, stage) in enumerate(zip(samples, program.stages(state), strict=True)):
        plan = sample.plan
        # Only at a node of the plan: not at one that was inserted.
        if not plan.adaptive or stage.step != plan.steps[stage.index]:
            continue
        one = slice(row, row + 1)
        times = (stage.t, *stage.older)
        history = zip(times, (x_0, *state.past), strict=False)
        mask = None if program.known is None else program.known.mask[one]
        estimates = [(t, each[one]) for t, each in history]
        rho = controller.prediction_residual(estimates, stage.step.solver, mask)
        action = controller.decide(plan, stage.index, rho)
        found[row] = rho, action
        if action is not None:
            scale = sample.request.guidance_scale
            rows[row] = controller.rerouted(plan, rows[row], state.at[row], action, scale)
    if any(action is not None for _, action in found.values()):
        trajectory = Trajectory.of(rows, program.trajectory.table)
        program = replace(program, trajectory=trajectory)
    return program, found
