"""Network calls: what pictures ask, with which contexts, and how their rows share calls.

A picture with guidance takes two rows of a call, with its conditional and its unconditional
context. Pictures share a call up to the adapter's limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from asymflow.core.adapter import Adapter, Context, collated, denoised


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """The contexts of `count` pictures that share a network call, rows first.

    A context is the same object at every step, so that a network in another process is sent it
    once.
    """

    cond: Context
    null: Context
    count: int
    _both: dict[tuple[int, ...], Context] = field(
        default_factory=dict[tuple[int, ...], Context], repr=False
    )

    def both(self, again: tuple[int, ...]) -> Context:
        """The conditional context of all rows, then the unconditional one of the rows `again`."""
        if again not in self._both:
            null = self.null if len(again) == self.count else _rows(self.null, again)
            self._both[again] = {
                key: torch.cat([value, null[key]]) for key, value in self.cond.items()
            }
        return self._both[again]

    def select(self, rows: Sequence[int]) -> Conditions:
        """Those of some of the pictures, in ascending order."""
        if len(rows) == self.count:
            return self
        return Conditions(_rows(self.cond, rows), _rows(self.null, rows), len(rows))


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What the network is asked for b pictures.

    Attributes:
        x_t: states [b, c, h, w], at the size of the network call.
        t: their times [b].
        again: indices of the pictures that are asked without the condition too, ascending.
        cond: what the adapter remembers of its conditional passes [b rows], or None.
        null: the same of its unconditional passes.
    """

    x_t: Tensor
    t: Tensor
    again: tuple[int, ...] = ()
    cond: Context | None = None
    null: Context | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the network says: estimates of x_0, and what its adapter wants to remember.

    Attributes:
        cond: conditional estimates [b, c, h, w].
        null: unconditional ones of the pictures `again` of the question, or None.
        cond_memory: for the next question; rows first, or None.
        null_memory: the same of the pictures `again`.
    """

    cond: Tensor
    null: Tensor | None = None
    cond_memory: Context | None = None
    null_memory: Context | None = None


def split(adapter: Adapter, cond: Context, null: Context, count: int) -> tuple[Conditions, ...]:
    """The network calls of `count` pictures, from the contexts of all of them."""
    size = adapter.batch or count
    if size >= count:
        return (Conditions(cond, null, count),)
    parts = [range(begin, min(begin + size, count)) for begin in range(0, count, size)]
    return tuple(Conditions(_slice(cond, p), _slice(null, p), len(p)) for p in parts)


def merge(adapter: Adapter, calls: Sequence[Conditions]) -> tuple[Conditions, ...]:
    """The same pictures in as few network calls as the adapter's limit allows."""
    limit = adapter.batch or sum(each.count for each in calls)
    groups: list[list[Conditions]] = []
    for each in calls:
        if groups and sum(one.count for one in groups[-1]) + each.count <= limit:
            groups[-1].append(each)
        else:
            groups.append([each])
    return tuple(
        group[0]
        if len(group) == 1
        else Conditions(
            collated(adapter, [each.cond for each in group]),
            collated(adapter, [each.null for each in group]),
            sum(each.count for each in group),
        )
        for group in groups
    )


def select(calls: Sequence[Conditions], rows: Sequence[int]) -> tuple[Conditions, ...]:
    """The calls of some of the pictures, in ascending order."""
    begins = accumulate((each.count for each in calls), initial=0)
    own = (
        (each, [row - begin for row in rows if 0 <= row - begin < each.count])
        for each, begin in zip(calls, begins, strict=False)
    )
    return tuple(each.select(some) for each, some in own if some)


def ask(
    adapter: Adapter, calls: Sequence[Conditions], question: Question, *, sequential: bool = False
) -> Answer:
    """The network's answer.

    Args:
        adapter: the model.
        calls: contexts of the pictures of the question, in their order.
        question: what is asked.
        sequential: make the unconditional pass after the conditional one, with half the memory.
    """
    answers: list[Answer] = []
    begin = 0
    for call in calls:
        rows = slice(begin, begin + call.count)
        again = tuple(i - begin for i in question.again if begin <= i < rows.stop)
        whole = call.count == len(question.t)
        own = question if whole else _part(question, rows, again)
        answers.append(_asked(adapter, call, own, sequential))
        begin = rows.stop
    return answers[0] if len(answers) == 1 else _together(answers)


def _asked(adapter: Adapter, call: Conditions, question: Question, sequential: bool) -> Answer:
    """One picture or several, in one call, or two."""
    x_t, t, again = question.x_t, question.t, question.again
    if not again:
        return Answer(*_ordered(denoised(adapter, x_t, t, call.cond, question.cond)))
    every = len(again) == call.count
    index = slice(None) if every else list(again)
    null = question.null and {key: value[index] for key, value in question.null.items()}
    if sequential or (question.cond is None) != (null is None):
        cond, cond_memory = denoised(adapter, x_t, t, call.cond, question.cond)
        context = call.null if every else _rows(call.null, again)
        found, null_memory = denoised(adapter, x_t[index], t[index], context, null)
        return Answer(cond, found, cond_memory, null_memory)
    memory = None
    if question.cond is not None and null is not None:
        memory = {key: torch.cat([value, null[key]]) for key, value in question.cond.items()}
    x_0, after = denoised(
        adapter, torch.cat([x_t, x_t[index]]), torch.cat([t, t[index]]), call.both(again), memory
    )
    n = call.count
    return Answer(
        x_0[:n],
        x_0[n:],
        after and {key: value[:n] for key, value in after.items()},
        after and {key: value[n:] for key, value in after.items()},
    )


def _ordered(answer: tuple[Tensor, Context | None]) -> tuple[Tensor, None, Context | None]:
    return answer[0], None, answer[1]


def _part(question: Question, rows: slice, again: tuple[int, ...]) -> Question:
    cond, null = (
        memory and {key: value[rows] for key, value in memory.items()}
        for memory in (question.cond, question.null)
    )
    return Question(question.x_t[rows], question.t[rows], again, cond, null)


def _together(answers: Sequence[Answer]) -> Answer:
    nulls = [each.null for each in answers if each.null is not None]
    return Answer(
        torch.cat([each.cond for each in answers]),
        torch.cat(nulls) if nulls else None,
        _joined([each.cond_memory for each in answers]),
        _joined([each.null_memory for each in answers]),
    )


def _joined(memories: Sequence[Context | None]) -> Context | None:
    known = [each for each in memories if each is not None]
    return {key: torch.cat([each[key] for each in known]) for key in known[0]} if known else None


def _rows(context: Context, rows: Sequence[int]) -> Context:
    return {key: value[list(rows)] for key, value in context.items()}


def _slice(context: Context, rows: range) -> Context:
    return {key: value[rows.start : rows.stop] for key, value in context.items()}
