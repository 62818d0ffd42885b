"""The estimate of x_0 by every tier, for a state at full size.

    full          D(x_t)                     guided, at full size; in one call or sequentially
    conditional   D_cond(x_t)                without guidance
    smaller       up(D(pool(x_t)))           at 1/f of the side, signal-to-noise ratio matched
    carried       cheap(x_t) + (full - cheap) of the last full estimate

A full estimate contains all that carrying needs: the guidance term, and its own detail. So
carrying costs no network call, and any tier may follow any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asymflow.core.adapter import Adapter, Context, Denoiser, clipped_estimate, projected_guidance
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


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What carried tiers reuse from the last full estimate; both [b, c, h, w]."""

    x_0: Tensor
    guidance: Tensor
    """The guidance term of the estimate."""


@dataclass(slots=True, eq=False)
class Estimators:
    """The tiers of a model as denoisers that share the memory of the last full estimate."""

    model: Guided
    known: InpaintConstraint | None = None
    memory: Memory | None = None

    def of(self, tier: Tier) -> Denoiser:
        """The denoiser of a tier. A carried tier needs an earlier full estimate."""

        def denoiser(x_t: Tensor, t: Tensor, /) -> Tensor:
            x_0, self.memory = estimate(self.model, tier, x_t, t, self.memory)
            x_0 = clipped_estimate(self.model.adapter, x_0)
            known = self.known
            return x_0 if known is None else torch.lerp(known.x_0, x_0, known.mask)

        return denoiser


def estimate(
    model: Guided, tier: Tier, x_t: Tensor, t: Tensor, memory: Memory | None
) -> tuple[Tensor, Memory | None]:
    """x_0 [b, c, h, w] of x_t [b, c, h, w] at times t [b], and the memory for the next one.

    Neither is clipped (`asymflow.core.adapter.clipped_estimate`): clipping comes after carrying.
    """
    f = tier.pool_factor
    state, time = (x_t, t) if f == 1 else pool(x_t, t, f)
    x_0, guidance = model.denoise(
        state, time, guided=tier.guided, sequential_cfg=tier.sequential_cfg
    )
    if tier.full:
        return x_0, Memory(x_0, guidance)
    if tier.cached:
        if memory is None:
            raise InputError(
                f"Tier {tier.name!r} carries from a full estimate, and none has been made. "
                "Ask the full tier first."
            )
        return carry(tier, x_0, memory), memory
    return (x_0 if f == 1 else smooth(x_0, f)), memory


def carry(tier: Tier, x_0: Tensor, memory: Memory) -> Tensor:
    """A cheap estimate [b, c, h/f, w/f] plus the omitted parts from memory, [b, c, h, w]."""
    f = tier.pool_factor
    if not tier.guided:
        x_0 = x_0 + (memory.guidance if f == 1 else average_pool(memory.guidance, f))
    return x_0 if f == 1 else enlarge(x_0, f) + detail(memory.x_0, f)


@dataclass(frozen=True, slots=True, eq=False)
class Guided:
    """A model under classifier-free guidance: D_cond + (w - 1) (D_cond - D_null), w per picture.

    The guidance term may be projected, see `core.adapter.ProjectsGuidance`.
    Both passes of a picture share one network call, of at most `adapter.batch` pictures, or run
    sequentially with half the memory. A picture with w = 1 takes the conditional pass only.
    """

    adapter: Adapter
    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, adapter: Adapter, cond: Context, null: Context, scale: Tensor) -> Guided:
        """From the contexts of b pictures and their weights w [b]."""
        chunks = _chunks(len(scale), adapter.batch)
        return cls(adapter, tuple(_Part.of(cond, null, scale, rows) for rows in chunks))

    def denoise(
        self, x_t: Tensor, t: Tensor, *, guided: bool, sequential_cfg: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The estimate [b, c, h, w] and its guidance term, 0 without guidance."""
        answers = [
            part.denoise(self.adapter, x_t[part.rows], t[part.rows], guided, sequential_cfg)
            for part in self.parts
        ]
        if len(answers) == 1:
            return answers[0]
        x_0, guidance = zip(*answers, strict=True)
        return torch.cat(x_0), torch.cat(guidance)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The inputs of one network call: `rows` of the batch, then `again` the guided ones of them."""

    rows: slice
    again: Tensor
    weight: Tensor
    both: Context
    cond: Context

    @classmethod
    def of(cls, cond: Context, null: Context, scale: Tensor, rows: slice) -> _Part:
        scale = scale[rows]
        again = torch.nonzero(scale != 1).flatten()
        weight = (scale[again] - 1).view(-1, 1, 1, 1)
        own = {key: value[rows] for key, value in cond.items()}
        both = {key: torch.cat([own[key], null[key][rows][again]]) for key in cond}
        return cls(rows, again, weight, both, own)

    def denoise(
        self, adapter: Adapter, x_t: Tensor, t: Tensor, guided: bool, sequential_cfg: bool
    ) -> tuple[Tensor, Tensor]:
        again = self.again
        if not guided or not len(again):
            x_0 = adapter.denoise(x_t, t, self.cond)
            return x_0, torch.zeros_like(x_0)
        if sequential_cfg:
            null = {key: value[len(t) :] for key, value in self.both.items()}
            d_cond = adapter.denoise(x_t, t, self.cond)
            d_null = adapter.denoise(x_t[again], t[again], null)
        else:
            x_0 = adapter.denoise(torch.cat([x_t, x_t[again]]), torch.cat([t, t[again]]), self.both)
            d_cond, d_null = x_0[: len(t)], x_0[len(t) :]
        own = d_cond[again]
        added = projected_guidance(adapter, own, self.weight * (own - d_null))
        guidance = torch.zeros_like(d_cond).index_add(0, again, added)
        return d_cond + guidance, guidance


def _chunks(count: int, size: int | None) -> list[slice]:
    size = size or count
    return [slice(begin, begin + size) for begin in range(0, count, size)]
