"""The estimate of x_0 by every tier, for a state at full size.

    full          D(x_t)                     guided, at full size; in one call or sequentially
    conditional   D_cond(x_t)                without guidance
    smaller       up(D(pool(x_t)))           at 1/f of the side, signal-to-noise ratio matched
    tiled         B + up(low(D(pool(x_t))) - low(B))   with B, the answers to tiles of x_t blended
    carried       cheap(x_t) + (full - cheap) of the last full estimate
    late          fast(x_t, slow) with what the slow part of the network said before

A full estimate contains all that carrying needs: the guidance term, and its own detail. So
carrying costs no network call, and any tier may follow any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asymflow.core import calls
from asymflow.core.adapter import Adapter, Context, projected_guidance
from asymflow.core.calls import Answer, Conditions, Question
from asymflow.core.errors import InputError
from asymflow.core.flow import average_pool, detail, enlarge, pool, smooth
from asymflow.core.types import Tier


@dataclass(frozen=True, slots=True, eq=False)
class InpaintConstraint:
    """Pixels with known x_0 [b, c, h, w]; `mask` [b, 1, h, w] is 1 where x_0 is unknown.

    A constant estimate moves x_t along (1 - s) x_0 + s eps exactly, so at every
    time the state there is the known picture with the noise of this sample. No pasting is needed.
    """

    x_0: Tensor
    mask: Tensor

    def select(self, rows: Sequence[int]) -> InpaintConstraint:
        """That of some of the pictures."""
        return InpaintConstraint(self.x_0[list(rows)], self.mask[list(rows)])


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What carried tiers reuse from the last full estimate; both [b, c, h, w]."""

    x_0: Tensor
    guidance: Tensor
    """The guidance term of the estimate."""

    def select(self, rows: Sequence[int]) -> Memory:
        """That of some of the pictures."""
        return Memory(self.x_0[list(rows)], self.guidance[list(rows)])


def combined(
    adapter: Adapter, answer: Answer, again: Sequence[int], weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Classifier-free guidance: D_cond + (w - 1) (D_cond - D_null), and the term it adds.

    Args:
        adapter: may project the term, see `core.adapter.ProjectsGuidance`.
        answer: of the network, for b pictures.
        again: those that were asked without the condition too.
        weight: w - 1 of each picture [b, 1, 1, 1].

    Returns:
        The estimate [b, c, h, w] and its guidance term, 0 without guidance.
    """
    cond, null = answer.cond, answer.null
    if null is None:
        return cond, cond.new_zeros(()).expand_as(cond)  # without memory of its own
    if len(again) == len(cond):
        term = projected_guidance(adapter, cond, weight * (cond - null))
        return cond + term, term
    index = torch.tensor(list(again), device=cond.device)
    own = cond.index_select(0, index)
    added = projected_guidance(adapter, own, weight.index_select(0, index) * (own - null))
    term = torch.zeros_like(cond).index_add(0, index, added)
    return cond + term, term


def finished(
    tiers: Sequence[Tier], x_0: Tensor, term: Tensor, memory: Memory | None
) -> tuple[Tensor, Memory | None]:
    """Estimates at full size, and the memory for the next ones.

    Neither is clipped (`asymflow.core.adapter.clipped_estimate`): clipping comes after carrying.

    Args:
        tiers: of each picture [b], at one size.
        x_0: what the network says, with guidance [b, c, h/f, w/f].
        term: its guidance term.
        memory: of the last full estimates.
    """
    kinds: dict[tuple[bool, bool], list[int]] = {}
    for row, tier in enumerate(tiers):
        kinds.setdefault((tier.guided, tier.cached), []).append(row)
    if len(kinds) == 1:
        return _finished(tiers[0], x_0, term, memory)
    parts: list[Tensor] = []
    remembered = memory or (Memory(x_0, term) if tiers[0].pool_factor == 1 else None)
    order = [row for rows in kinds.values() for row in rows]
    for rows in kinds.values():
        index = torch.tensor(rows, device=x_0.device)
        tier = tiers[rows[0]]
        own = None if memory is None else memory.select(rows)
        part, after = _finished(tier, x_0.index_select(0, index), term.index_select(0, index), own)
        parts.append(part)
        if tier.full and after is not None and memory is not None:
            remembered = Memory(
                memory.x_0.index_copy(0, index, after.x_0),
                memory.guidance.index_copy(0, index, after.guidance),
            )
    inverse = torch.tensor(order, device=x_0.device).argsort()
    return torch.cat(parts).index_select(0, inverse), remembered


def _finished(
    tier: Tier, x_0: Tensor, term: Tensor, memory: Memory | None
) -> tuple[Tensor, Memory | None]:
    if tier.full:
        return x_0, Memory(x_0, term)
    if tier.cached:
        if memory is None:
            raise InputError(
                f"Tier {tier.name!r} carries from a full estimate, and none has been made. "
                "Ask the full tier first."
            )
        return carry(tier, x_0, memory), memory
    return (x_0 if tier.pool_factor == 1 else smooth(x_0, tier.pool_factor)), memory


def carry(tier: Tier, x_0: Tensor, memory: Memory) -> Tensor:
    """A cheap estimate [b, c, h/f, w/f] plus the omitted parts from memory, [b, c, h, w]."""
    f = tier.pool_factor
    if not tier.guided:
        x_0 = x_0 + (memory.guidance if f == 1 else average_pool(memory.guidance, f))
    return x_0 if f == 1 else enlarge(x_0, f) + detail(memory.x_0, f)


def seen(tier: Tier, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """What the network gets of states [b, c, h, w] at times t [b]: pooled where the tier pools."""
    return (x_t, t) if tier.pool_factor == 1 else pool(x_t, t, tier.pool_factor)


@dataclass(frozen=True, slots=True, eq=False)
class Slow:
    """What the slow part of a network said of b pictures, in both passes, where they were made."""

    cond: Context | None = None
    null: Context | None = None

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        known = (each for each in (self.cond, self.null) if each is not None)
        return sum(value.nbytes for each in known for value in each.values())


@dataclass(frozen=True, slots=True, eq=False)
class Guided:
    """A model with the contexts and guidance of b pictures, asked at any state and time.

    Both passes of a picture share one network call, of at most `adapter.batch` pictures, or run
    sequentially with half the memory. A picture with w = 1 takes the conditional pass only.
    """

    adapter: Adapter
    calls: tuple[Conditions, ...]
    weight: Tensor
    again: tuple[int, ...]

    @classmethod
    def of(cls, adapter: Adapter, cond: Context, null: Context, scale: Tensor) -> Guided:
        """From the contexts of b pictures and their weights w [b]."""
        again = tuple(torch.nonzero(scale != 1).flatten().tolist())
        weight = (scale - 1).view(-1, 1, 1, 1)
        return cls(adapter, calls.split(adapter, cond, null, len(scale)), weight, again)

    def denoise(
        self,
        x_t: Tensor,
        t: Tensor,
        *,
        guided: bool = True,
        sequential_cfg: bool = False,
        tiles: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The estimate [b, c, h, w] and its guidance term, 0 without guidance."""
        question = Question(x_t, t, self.again if guided else (), tiles=tiles)
        answer = calls.ask(self.adapter, self.calls, question, sequential=sequential_cfg)
        return combined(self.adapter, answer, question.again, self.weight)

    def denoise_split(
        self, x_t: Tensor, t: Tensor, slow: Slow | None = None, *, guided: bool = True
    ) -> tuple[Tensor, Tensor, Slow]:
        """As `denoise`, and what the slow part of the network said; `slow` to use that again.

        What was said without the condition must be there if it is asked again.
        """
        part, known = ("all, kept", Slow()) if slow is None else ("fast", slow)
        again = self.again if guided else ()
        asked = Question(x_t, t, again, known.cond, known.null, part=part)
        answer = calls.ask(self.adapter, self.calls, asked)
        x_0, term = combined(self.adapter, answer, again, self.weight)
        return x_0, term, slow or Slow(answer.cond_memory, answer.null_memory)


def estimate(
    model: Guided, tier: Tier, x_t: Tensor, t: Tensor, memory: Memory | None
) -> tuple[Tensor, Memory | None]:
    """x_0 [b, c, h, w] of x_t [b, c, h, w] at times t [b], and the memory for the next one."""
    x_0, term = model.denoise(
        *seen(tier, x_t, t),
        guided=tier.guided,
        sequential_cfg=tier.sequential_cfg,
        tiles=tier.tiles,
    )
    return finished([tier] * len(t), x_0, term, memory)
