"""A plan compiled to numbers: where the network is asked, and where its estimates lead.

A plan becomes one `Stage` per estimate of x_0. At each the network is asked at (x, t), and the
state goes on from a base to s,

    base = x,  or the repeated last move (a corrector):  c_0 anchor + c_1 D_1 + c_2 D_0
    x_s  = a base + w_0 D_0 + w_1 D_1 + ...

where D_0 is the new estimate, D_1, ... are those before it, and the anchor is the base of the last
move. That covers every solver: Heun's second estimate goes on from the anchor and is not kept. A
step that reuses estimates is linear in them too, so it is part of the stage before it. A
`Trajectory` has the stages of several pictures, and their numbers in one table, from which a step
takes a row for each picture: pictures need not share plan, time or guidance to move together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from asymflow.core.adapter import Part
from asymflow.core.errors import InputError
from asymflow.core.flow import Time
from asymflow.core.solvers import (
    ORDERS,
    Weights,
    continued_weights,
    heun_weights,
    line_weights,
    move_weights,
)
from asymflow.core.types import MAX_ESTIMATES, Step, Tier, share_history

OLDER = max(ORDERS.values()) - 1
"""Number of estimates before the newest one that a named solver may use."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One estimate, and the move after it.

    Attributes:
        index: of the plan's step, from 0.
        step: that step.
        t: where the network is asked; `s` is where the state is afterwards.
        guidance: weight w - 1 of the guidance term; 0 for one network pass.
        older: times of the estimates before it, newest first, at most as many as are still used.
        base: (c_0, c_1, c_2) above; None to go on from the state itself.
        weights: (a, w_0, w_1, ...) above.
        kept: whether the estimate is a node that later stages may use.
        ends_step: whether the move ends the step: not after the first half of Heun's.
        carried_from: whether a later stage carries, so that full estimates are remembered.
        reused_from: whether a later stage is late, before another one asks the whole network at
            full size, so that what the slow part said is remembered.
    """

    index: int
    step: Step
    t: Time
    s: Time
    guidance: float
    older: tuple[Time, ...]
    base: tuple[Time, Time, Time] | None
    weights: Weights
    kept: bool = True
    ends_step: bool = True
    carried_from: bool = False
    reused_from: bool = False

    @property
    def tier(self) -> Tier:
        return self.step.tier

    @property
    def guided(self) -> bool:
        """Whether the unconditional pass is made."""
        return self.guidance != 0

    @property
    def part(self) -> Part:
        """What is asked of the network."""
        if self.tier.late:
            return "fast"
        return "all, kept" if self.tier.whole and self.reused_from else "all"


Past = tuple[Time, Tier]
"""The time of an estimate, and the tier that made it."""


def compile_steps(
    steps: Sequence[Step],
    guidance_scale: float | Sequence[float] = 1.0,
    *,
    times: Sequence[Time] | None = None,
) -> tuple[Stage, ...]:
    """The stages of consecutive steps.

    A solver uses no estimates of another tier than the step's, nor any before them: two tiers
    differ by a bias, and a polynomial through both would take that for the slope of D. Full and
    carried estimates have no bias and share a history; a late one shares that of the estimate that
    the whole network would make. Explicit weights are of all estimates.

    Args:
        steps: of a plan.
        guidance_scale: w of D_null + w (D_cond - D_null), for all steps or for each; a step with a
            scale of its own takes that.
        times: nodes in place of those of the steps, one more than steps. They may be tensors that
            gradients are to reach.

    Raises:
        InputError: a step uses estimates that do not exist.
    """
    scales = (
        guidance_scale if isinstance(guidance_scale, Sequence) else [guidance_scale] * len(steps)
    )
    # Explicit weights may reach past a change of tiers, and solvers do not.
    explicit = any(step.weights is not None for step in steps)
    known: list[Past] = []
    found: list[Stage] = []
    for number, step in enumerate(steps):
        t, s = (step.t, step.s) if times is None else (times[number], times[number + 1])
        if step.reuse:
            if not found:
                raise InputError(
                    f"The step at t={step.t} reuses estimates, and none has been made. Begin with "
                    "a step that asks the network."
                )
            found[-1] = _continued(found[-1], step, t, s, _shared(known[1:], found[-1].tier))
            continue
        shared = _shared(known, step.tier)
        older = tuple(time for time, _ in known) if explicit else shared
        scale = scales[number] if step.guidance_scale is None else step.guidance_scale
        # Rounded to float32 like the scale of every other picture of a batch.
        weight = float(np.float32(scale)) - 1 if step.tier.guided else 0.0
        corrects = bool(shared) and step.solver == "corrected2"
        stage = Stage(
            number,
            step,
            t,
            s,
            weight,
            older,
            line_weights(shared[0], t, t) if corrects else None,
            _explicit(step, older) or move_weights(step.solver, t, s, shared),
            ends_step=step.evaluations == 1,
        )
        found.append(stage)
        known = [(t, step.tier), *known][: MAX_ESTIMATES - 1]
        if step.evaluations == 2:
            older = tuple(time for time, _ in known)
            again = replace(
                stage,
                t=s,
                older=older,
                base=(1.0, 0.0, 0.0),
                weights=heun_weights(t, s),
                kept=False,
                ends_step=True,
            )
            found.append(again)
    return _trimmed(found)


def _shared(known: Sequence[Past], tier: Tier) -> tuple[Time, ...]:
    """The times of the estimates that a solver may use together with one of a tier."""
    return tuple(time for time, _ in takewhile(lambda each: share_history(each[1], tier), known))


def _explicit(step: Step, older: Sequence[Time]) -> Weights | None:
    """The explicit weights of a step, if it has some."""
    if step.weights is not None and len(step.weights) - 2 > len(older):
        raise InputError(
            f"The step at t={step.t} has weights of {len(step.weights) - 1} estimates, and only "
            f"{len(older) + 1} have been made. Run the plan from its beginning."
        )
    return step.weights


def _continued(stage: Stage, step: Step, t: Time, s: Time, shared: Sequence[Time]) -> Stage:
    """A stage that goes on to s by a step from t that reuses its estimates."""
    assert stage.kept, "a plan reuses nothing after Heun's method"
    a, *added = _explicit(step, stage.older) or continued_weights(
        step.solver, stage.t, t, s, shared
    )
    first, *weights = stage.weights
    count = max(len(weights), len(added))
    padded = ([*each, *[0.0] * (count - len(each))] for each in (weights, added))
    total = (a * w + v for w, v in zip(*padded, strict=True))
    return replace(stage, s=s, weights=(a * first, *total))


def _trimmed(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages with only what they and later ones use."""
    found: list[Stage] = []
    count, carried, reused = 0, False, False
    for stage in reversed(stages):
        used = max(len(stage.weights) - 2, 0 if stage.base is None else 1)
        # The estimates before the next stage are those before this one, and its own.
        later = count - 1 if stage.kept else count
        count = min(len(stage.older), max(used, later))
        older = stage.older[:count]
        found.append(replace(stage, older=older, carried_from=carried, reused_from=reused))
        carried = carried or stage.tier.cached
        reused = stage.tier.late or (reused and not stage.tier.whole)
    return tuple(reversed(found))


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """The stages of b pictures, and their numbers.

    Attributes:
        rows: the stages of each picture [b]; pictures of one plan share them.
        table: one line per stage [n, columns]: t, guidance, c_0, c_1, c_2, a, w_0, w_1, ...
        starts: the line of the first stage of each picture [b].
    """

    rows: tuple[tuple[Stage, ...], ...]
    table: Tensor
    starts: tuple[int, ...]
    _newest: dict[tuple[int, ...], tuple[Tensor, ...]] = field(
        default_factory=dict[tuple[int, ...], tuple[Tensor, ...]], init=False, repr=False
    )

    @classmethod
    def of(cls, rows: Iterable[tuple[Stage, ...]], template: Tensor) -> Trajectory:
        """The trajectory of pictures with states like `template`, at least in float32."""
        rows = tuple(rows)
        distinct = {id(stages): stages for stages in rows}
        width = max((len(stage.weights) for stages in rows for stage in stages), default=1)
        begins: dict[int, int] = {}
        lines: list[Sequence[Time]] = []
        for key, stages in distinct.items():
            begins[key] = len(lines)
            lines += [_line(stage, width) for stage in stages]
        dtype = torch.promote_types(template.dtype, torch.float32)
        table = _table(lines, 5 + width).to(template.device, dtype)
        return cls(rows, table, tuple(begins[id(stages)] for stages in rows))

    def select(self, rows: Sequence[int]) -> Trajectory:
        """That of some of the pictures."""
        kept, starts = (tuple(each[i] for i in rows) for each in (self.rows, self.starts))
        return replace(self, rows=kept, starts=starts)

    def stages(self, at: Sequence[int]) -> list[Stage]:
        """The stage of each picture, by its number."""
        return [stages[number] for stages, number in zip(self.rows, at, strict=True)]

    def numbers(self, at: tuple[int, ...]) -> tuple[Tensor, ...]:
        """The columns of the table for a stage of each picture, [b, 1, 1, 1] each.

        Inference asks several times for each stage, and the newest answer is kept for it.
        """
        if not torch.is_inference_mode_enabled():
            return self._numbers(at)
        found = self._newest.get(at)
        if found is None:
            found = self._numbers(at)
            self._newest.clear()
            self._newest[at] = found
        return found

    def _numbers(self, at: tuple[int, ...]) -> tuple[Tensor, ...]:
        lines = [start + number for start, number in zip(self.starts, at, strict=True)]
        if len(set(lines)) == 1:  # without a copy of indices to the device
            found = self.table[lines[0]].view(-1, 1, 1, 1, 1).expand(-1, len(lines), 1, 1, 1)
        else:
            index = torch.tensor(lines, device=self.table.device)
            found = self.table.index_select(0, index).T[..., None, None, None]
        return found.unbind(0)


def _line(stage: Stage, width: int) -> Sequence[Time]:
    return (
        stage.t,
        stage.guidance,
        *(stage.base or (0.0, 0.0, 0.0)),
        *stage.weights,
        *[0.0] * (width - len(stage.weights)),
    )


def _table(lines: Sequence[Sequence[Time]], width: int) -> Tensor:
    """Lines of numbers, some of which may be tensors that gradients are to reach."""
    if not lines:
        return torch.zeros(0, width, dtype=torch.float64)
    if any(isinstance(value, Tensor) for line in lines for value in line):
        return torch.stack(
            [
                torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in line])
                for line in lines
            ]
        )
    return torch.tensor(lines, dtype=torch.float64)
