"""Network calls: what pictures ask, with which contexts, and how their rows share calls.

A picture with guidance takes two rows of a call, with its conditional and its unconditional
context. Pictures share a call up to the adapter's limit. Tiles of a picture never share one: they
are asked in turn, so that memory is that of one tile, however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor

from asymflow.core import tiles
from asymflow.core.adapter import Adapter, Context, Part, collated, denoised
from asymflow.core.flow import pool

Pass = tuple[Tensor, Context | None]


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """The contexts of `count` pictures that share a network call, rows first.

    A context is the same object at every step, so that a network in another process is sent it
    once.
    """

    cond: Context
    null: Context
    count: int
    _asked: dict[tuple[tuple[int, ...], int], Context] = field(
        default_factory=dict[tuple[tuple[int, ...], int], Context], repr=False
    )

    def rows(self, again: tuple[int, ...], total: int) -> Context:
        """The context of a call: conditional rows, unconditional ones of `again`, and filling.

        Args:
            again: rows that are asked without the condition too.
            total: rows of the call; what is missing is filled with copies of the first.
        """
        filling = total - self.count - len(again)
        if not again and not filling:
            return self.cond
        if (again, total) not in self._asked:
            null = self.null if len(again) == self.count else _rows(self.null, again)
            self._asked[again, total] = {
                key: _filled(torch.cat([value, null[key]]) if again else value, filling)
                for key, value in self.cond.items()
            }
        return self._asked[again, total]

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
        tiles: side of the tiles that the network is shown, if they are smaller than the picture.
        part: of the network that is asked, and whether the answer has what its slow part says.
    """

    x_t: Tensor
    t: Tensor
    again: tuple[int, ...] = ()
    cond: Context | None = None
    null: Context | None = None
    tiles: int | None = None
    part: Part = "all"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the states."""
        return self.x_t.shape[-2], self.x_t.shape[-1]


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
    adapter: Adapter,
    calls: Sequence[Conditions],
    question: Question,
    *,
    sequential: bool = False,
    buckets: Sequence[int] = (),
) -> Answer:
    """The network's answer.

    Args:
        adapter: the model.
        calls: contexts of the pictures of the question, in their order.
        question: what is asked.
        sequential: make the unconditional pass after the conditional one, with half the memory.
        buckets: ascending numbers of rows that calls may have, for compiled networks: the rows of
            a call are filled up to the next one. Calls of more rows than the last stay as they are.
    """
    if question.tiles is not None and not tiles.fits(question.size, question.tiles):
        return _tiled(adapter, calls, question, question.tiles, sequential, buckets)
    answers: list[Answer] = []
    begin = 0
    for call in calls:
        rows = slice(begin, begin + call.count)
        again = tuple(i - begin for i in question.again if begin <= i < rows.stop)
        whole = call.count == len(question.t)
        own = question if whole else _part(question, rows, again)
        answers.append(_asked(adapter, call, own, sequential, buckets))
        begin = rows.stop
    return answers[0] if len(answers) == 1 else _together(answers)


def _tiled(
    adapter: Adapter,
    calls: Sequence[Conditions],
    question: Question,
    side: int,
    sequential: bool,
    buckets: Sequence[int],
) -> Answer:
    """An answer made of those to tiles, with the low frequencies of the whole picture's."""
    x_t, t = question.x_t, question.t

    def asked(x_t: Tensor, t: Tensor) -> list[Tensor]:
        part = Question(x_t, t, question.again)
        found = ask(adapter, calls, part, sequential=sequential, buckets=buckets)
        return [found.cond] if found.null is None else [found.cond, found.null]

    sums: list[Tensor] = []
    for tile in tiles.of(x_t, side):
        found = asked(tile.of(x_t), t)
        sums = sums or [each.new_zeros(len(each), *x_t.shape[1:]) for each in found]
        for total, each in zip(sums, found, strict=True):
            tile.of(total).addcmul_(each, tile.weight)
    f = tiles.whole_factor(question.size, side)
    assert f is not None, "a plan for tiles is checked with the size of its pictures"
    block = tiles.block(question.size, side, f)
    for total, low in zip(sums, asked(*pool(x_t, t, f)), strict=True):
        tiles.replace_low(total, low, block)
    return Answer(sums[0], sums[1] if len(sums) > 1 else None)


def _asked(
    adapter: Adapter,
    call: Conditions,
    question: Question,
    sequential: bool,
    buckets: Sequence[int],
) -> Answer:
    """One picture or several, in one call, or two."""
    x_t, t, again, n = question.x_t, question.t, question.again, call.count

    def total(rows: int) -> int:
        return next((each for each in buckets if each >= rows), rows)

    def passes(x_t: Tensor, t: Tensor, context: Context, memory: Context | None, rows: int) -> Pass:
        filling = rows - len(t)
        if filling and memory is not None:
            memory = {key: _filled(value, filling) for key, value in memory.items()}
        states, times = _filled(x_t, filling), _filled(t, filling)
        return denoised(adapter, states, times, context, memory, question.part)

    if not again:
        rows = total(n)
        x_0, after = passes(x_t, t, call.rows((), rows), question.cond, rows)
        return Answer(x_0[:n], None, after and _slice(after, range(n)))
    every = len(again) == n
    index = slice(None) if every else list(again)
    null = question.null and {key: value[index] for key, value in question.null.items()}
    if sequential or (question.cond is None) != (null is None):
        cond = _asked(adapter, call, replace(question, again=(), null=None), False, buckets)
        others = call if every else call.select(again)
        without = Conditions(others.null, others.cond, others.count)
        found = Question(x_t[index], t[index], cond=null, part=question.part)
        answer = _asked(adapter, without, found, False, buckets)
        return replace(cond, null=answer.cond, null_memory=answer.cond_memory)
    memory = None
    if question.cond is not None and null is not None:
        memory = {key: torch.cat([value, null[key]]) for key, value in question.cond.items()}
    both = n + len(again)
    rows = total(both)
    x_0, after = passes(
        torch.cat([x_t, x_t[index]]), torch.cat([t, t[index]]), call.rows(again, rows), memory, rows
    )
    own, others = (after and _slice(after, part) for part in (range(n), range(n, both)))
    return Answer(x_0[:n], x_0[n:both], own, others)


def _part(question: Question, rows: slice, again: tuple[int, ...]) -> Question:
    cond, null = (
        memory and {key: value[rows] for key, value in memory.items()}
        for memory in (question.cond, question.null)
    )
    return Question(question.x_t[rows], question.t[rows], again, cond, null, part=question.part)


def _together(answers: Sequence[Answer]) -> Answer:
    nulls = [each.null for each in answers if each.null is not None]
    return Answer(
        torch.cat([each.cond for each in answers]),
        torch.cat(nulls) if nulls else None,
        joined([each.cond_memory for each in answers]),
        joined([each.null_memory for each in answers]),
    )


def joined(memories: Sequence[Context | None]) -> Context | None:
    """The rows of all memories that there are, in their order; None if there is none."""
    known = [each for each in memories if each is not None]
    return {key: torch.cat([each[key] for each in known]) for key in known[0]} if known else None


def _rows(context: Context, rows: Sequence[int]) -> Context:
    return {key: value[list(rows)] for key, value in context.items()}


def _slice(context: Context, rows: range) -> Context:
    return {key: value[rows.start : rows.stop] for key, value in context.items()}


def _filled(rows: Tensor, count: int) -> Tensor:
    """Rows with so many copies of the first behind them."""
    return torch.cat([rows, rows[:1].expand(count, *rows.shape[1:])]) if count else rows
