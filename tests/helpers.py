"""What the tests of several folders share: `from tests.helpers import ...`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from asymflow.core import calls
from asymflow.core.stages import Trajectory, compile_steps
from asymflow.core.state import Program, State, advance, move, question
from asymflow.core.types import Step

T = TypeVar("T")


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers that only the arguments decide; other dtypes draw other numbers."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


draw64 = partial(draw, dtype=torch.float64)
"""For what is compared to more digits than float32 has."""


def wait_until(condition: Callable[[], T | None], *, within: float = 60, what: str = "it") -> T:
    """Wait for something that another thread or process does.

    Args:
        condition: asked again and again until its answer is true.
        within: seconds until the test fails; only a busy machine needs many.
        what: the failure says that this did not happen.

    Returns:
        The first true answer.
    """
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {within:g} s: {found!r}"
        time.sleep(0.01)
    return found


def moved(step: Step, x_t: Tensor, x_0: Tensor, past: tuple[float, Tensor] | None = None) -> Tensor:
    """x_s after one step from x_t, with its estimate, and perhaps one before it."""
    before = [] if past is None else [Step(past[0], step.t, step.tier)]
    trajectory = Trajectory.of([compile_steps([*before, step])] * len(x_t), x_t)
    at = (len(before),) * len(x_t)
    state = State(at, x_t, past=() if past is None else (past[1],))
    return move(trajectory, state, x_0).x


def ticked(program: Program, state: State) -> State:
    """The state after one network call for all pictures."""
    asked = question(program, state)
    return advance(program, state, calls.ask(program.adapter, program.calls, asked))


def driven(program: Program, state: State) -> State:
    """The state at the end, of pictures whose plans have equally many stages."""
    while not all(program.finished(state)):
        state = ticked(program, state)
    return state
