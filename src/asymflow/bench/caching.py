"""Adapters that count what a sampler asks for, and block caches as others use them.

Two rules decide that most of the network need not be computed again:

- first-block cache: block 0 is run; where its residual has hardly changed since the last complete
  call, all other blocks add what they added then. This is the rule of diffusers'
  `FirstBlockCacheConfig`.
- TaylorSeer (arXiv 2503.06923): every N-th call is complete; between them the residual of the whole
  stack of blocks is forecast by a straight line in t through the last two complete ones.

They are written here because no library's own can be used: diffusers' hooks know registered block
classes only, none of a pixel model, and take a block's input by the name `hidden_states`. cache-dit
is not among what this project installs, and is therefore not measured.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn

from asymflow.core.adapter import Adapter, Context, Wrapped
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.models.embedded.network import PictureModel

M = TypeVar("M", bound=nn.Module)


class Counted(Wrapped):
    """An adapter that counts the rows of its network calls: a guided estimate has two."""

    def __init__(self, inner: Adapter) -> None:
        super().__init__(inner)
        self.rows = 0

    @property
    def whole(self) -> int:
        """Rows that went through the whole network."""
        return self.rows

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.rows += len(x_t)
        return self.inner.denoise(x_t, t, context)


class BlockCache(ABC):
    """Decides block by block what is computed. Made anew for every picture.

    A call may have fewer rows than the one before, where guidance has ended: its rows are the first
    of them. It may not reuse what was kept of fewer rows.

    Attributes:
        t: of the present call.
        whole: rows of calls in which every block was computed.
    """

    def __init__(self) -> None:
        self.t = 1.0
        self.whole = 0

    @abstractmethod
    def block(self, index: int, last: bool, x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """The output of a block for tokens x [b, n, width]; `compute` runs it."""


class FirstBlockCache(BlockCache):
    """Reuses all blocks but the first where the first says that little has changed.

    Args:
        threshold: relative change |r - r'| / |r'| in the mean of absolute values below which the
            residual r of block 0 counts as that of the last complete call, r'.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self._reuses = False
        self._first: Tensor | None = None
        self._residual: Tensor | None = None
        self._rest: Tensor | None = None

    def block(self, index: int, last: bool, x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        if index == 0:
            self._first = compute()
            residual = self._first - x
            self._reuses = self._rest is not None and self._alike(residual)
            if not self._reuses:
                self._residual = residual
                self.whole += len(x)
            return self._first
        assert self._first is not None
        if self._reuses:
            assert self._rest is not None
            return x + self._rest[: len(x)] if last else x
        y = compute()
        if last:
            self._rest = y - self._first
        return y

    def _alike(self, residual: Tensor) -> bool:
        assert self._residual is not None
        if len(residual) > len(self._residual):
            return False
        known = self._residual[: len(residual)]
        change = (residual - known).abs().mean() / known.abs().mean()
        return float(change) < self.threshold


class TaylorCache(BlockCache):
    """Forecasts what all blocks together add, in between complete calls.

    Args:
        interval: every how many calls one is complete.
        warm_up: calls at the start that all are; at least 2, since a line needs two points.
    """

    def __init__(self, interval: int, warm_up: int = 2) -> None:
        super().__init__()
        self.interval, self.warm_up = interval, max(warm_up, 2)
        self._calls = self._forecasts = 0
        self._reuses = False
        self._entry: Tensor | None = None
        self._known: tuple[tuple[float, Tensor], ...] = ()

    def block(self, index: int, last: bool, x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        if index == 0:
            self._entry = x
            self._reuses = (
                self._calls >= self.warm_up
                and self._forecasts < self.interval - 1
                and all(len(x) <= len(residual) for _, residual in self._known)
            )
            self._calls += 1
            self._forecasts = self._forecasts + 1 if self._reuses else 0
            if not self._reuses:
                self.whole += len(x)
        if self._reuses:
            return x + self._forecast(len(x)) if last else x
        y = compute()
        if last:
            assert self._entry is not None
            self._known = ((self.t, y - self._entry), *self._known[:1])
        return y

    def _forecast(self, rows: int) -> Tensor:
        (t, newest), (earlier, older) = self._known
        slope = (newest[:rows] - older[:rows]) / (t - earlier)
        return newest[:rows] + (self.t - t) * slope


class Caching(Counted):
    """The embedded model with a block cache, for the calls of one picture.

    The blocks themselves are those of `inner`, whose transformer is run as it is: where nothing is
    reused, answers are the same bit for bit.
    """

    def __init__(self, inner: EmbeddedAdapter, cache: BlockCache) -> None:
        super().__init__(inner)
        self._cache = cache
        self._cached = replace(inner, model=_cached(inner.model, cache))

    @property
    def whole(self) -> int:
        return self._cache.whole

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.rows += len(x_t)
        self._cache.t = float(t[0])
        return self._cached.denoise(x_t, t, context)


class _Block(nn.Module):
    """A transformer block that asks a cache first."""

    def __init__(self, block: nn.Module, index: int, last: bool, cache: BlockCache) -> None:
        super().__init__()
        self.block, self.index, self.last, self.cache = block, index, last, cache

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        return self.cache.block(self.index, self.last, x, lambda: self.block(x, *others))


def _cached(model: PictureModel, cache: BlockCache) -> PictureModel:
    blocks = list(model.transformer.blocks)
    asking = nn.ModuleList(
        _Block(block, index, index == len(blocks) - 1, cache) for index, block in enumerate(blocks)
    )
    return _with(model, transformer=_with(model.transformer, blocks=asking))


def _with(module: M, **children: nn.Module) -> M:
    """A copy with other children, that shares all parameters."""
    twin = copy.copy(module)
    # A copied module shares its table of children with the original: give it one of its own.
    vars(twin)["_modules"] = {**dict(module.named_children()), **children}
    return twin
