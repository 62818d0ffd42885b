"""What runs promise: pictures depend on their own request, and trajectories can be forked."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from asymflow.core import calls, engine
from asymflow.core.calls import Conditions
from asymflow.core.compiler import compile_requests
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.state import Program, State, advance, question
from asymflow.core.types import Plan, Request
from asymflow.models.contract.report import Property
from asymflow.models.contract.subject import Subject, apart


def independence(subject: Subject) -> Iterator[str]:
    """A picture depends on its own request and seed, and not on others in its batch."""
    plan = _plan(4)
    requests = [subject.request(0, 3), subject.request(1, 4), subject.request(0, 6, 1.0)]
    requests.append(subject.request(0, 3))
    made = _run(subject, plan, requests)
    if not np.array_equal(made[0], made[3]):
        yield (
            f"Two pictures of one request in a batch are {apart(made[0], made[3]):.2g} apart. Let "
            "rows of a call be independent, or say batch = 1."
        )
    for i in (1, 2):
        if np.array_equal(made[0], made[i]):
            yield "Requests of other seeds have the same picture. Let answers depend on the state."
    # With one picture per call, the same operations are made whatever else is asked.
    tolerance = 0 if subject.adapter.batch == 1 else subject.tolerance
    for batch in ([0], [2], [1, 0], [2, 1, 0]):
        again = _run(subject, plan, [requests[i] for i in batch])
        for i, picture in zip(batch, again, strict=True):
            difference = apart(picture, made[i])
            if not difference <= tolerance:
                yield (
                    f"Picture {i} of 4 is {difference:.2g} from the same request in a batch of "
                    f"{len(batch)}. Let nothing of a batch reach its other rows, and keep nothing "
                    "between calls."
                )


def release(subject: Subject) -> Iterator[str]:
    """Nothing of a picture is kept when it is done."""
    count = 3
    shape = (count, subject.adapter.channels, *subject.size)
    requests = [subject.request(0, seed) for seed in range(count)]
    before = _tensors(shape)
    _run(subject, _plan(3), requests)
    left = _tensors(shape) - before
    if left > 0:
        yield (
            f"After {count} pictures, {left} tensors of their states {shape} are left. Keep no "
            "states and answers in the adapter; what a next call needs is returned by "
            "denoise_remembering."
        )


def forks(subject: Subject) -> Iterator[str]:
    """A trajectory can be copied, pickled and continued, with other pictures in between."""
    plan = _plan(4)
    program, state = compile_requests(subject.adapter, [plan], [subject.request(0, 1)])
    for _ in range(2):
        state = _ticked(program, state)
    copied, (unpickled, contexts) = copy.deepcopy(state), _pickled(state, program.calls)
    end = _driven(program, state)
    other = compile_requests(subject.adapter, [plan], [subject.request(1, 2)])
    _driven(*other)
    exact = end.device.type == "cpu"
    moved = Program(program.adapter, program.trajectory, contexts)
    for how, found in (
        ("copied", _driven(program, copied)),
        ("pickled", _driven(moved, unpickled)),
    ):
        if not (torch.equal(end, found) if exact else subject.same(end, found)):
            yield (
                f"A trajectory that was {how} in its middle ended {apart(end, found):.2g} from "
                "where it ends by itself. Keep nothing in the adapter from one call for the next; "
                "return it from denoise_remembering."
            )


def _plan(count: int) -> Plan:
    """A few steps, from a little below t = 1, with guidance in some of them."""
    times = [0.98 * t for t in shifted(count, 2.0)]
    return plan_of(times, guidance_interval=(0.2, 1.0))


def _run(subject: Subject, plan: Plan, requests: Sequence[Request]) -> list[np.ndarray]:
    return [each.picture for each in engine.run(subject.adapter, plan, requests)]


def _tensors(shape: tuple[int, ...]) -> int:
    """How many tensors of such a shape there are in this process."""
    gc.collect()
    tensors = (each for each in gc.get_objects() if issubclass(type(each), Tensor))
    return sum(each.shape == shape for each in tensors)


def _pickled(
    state: State, contexts: tuple[Conditions, ...]
) -> tuple[State, tuple[Conditions, ...]]:
    return pickle.loads(pickle.dumps((state, contexts)))


def _ticked(program: Program, state: State) -> State:
    """The state after one network call."""
    asked = question(program, state)
    return advance(program, state, calls.ask(program.adapter, program.calls, asked))


def _driven(program: Program, state: State) -> Tensor:
    """Where a trajectory ends."""
    while not all(program.finished(state)):
        state = _ticked(program, state)
    return state.x


PROPERTIES: tuple[Property, ...] = (independence, release, forks)
