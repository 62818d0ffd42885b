"""Adapters that count network calls, and published block caches.

Two criteria for reusing the output of blocks:

- first-block cache: block 0 is always computed; if its residual has changed little since the last
  full call, the other blocks are skipped and their residual of that call is reused. This is the
  criterion of diffusers' `FirstBlockCacheConfig`.
- TaylorSeer (arXiv 2503.06923): every N-th call is full; between full calls the residual of all
  blocks is extrapolated linearly in t from the last two.

They are reimplemented because existing libraries do not support this network: diffusers' hooks
apply to registered block classes only, none of a pixel-space model, and expect the input
`hidden_states`. cache-dit is not a dependency of this project and is not measured.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from asymflow.core.adapter import Adapter, Context, Wrapped

M = TypeVar("M", bound=nn.Module)


class Counted(Wrapped):
    """An adapter that counts the rows of its network calls; a guided estimate has two."""

    def __init__(self, inner: Adapter) -> None:
        super().__init__(inner)
        self.rows = 0

    @property
    def whole(self) -> int:
        """Rows that passed through all blocks."""
        return self.rows

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.rows += len(x_t)
        return self.inner.denoise(x_t, t, context)

    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        self.rows += len(x_t)
        return super().denoise_split(x_t, t, context, slow)


class BlockCache(ABC):
    """Decides for every block whether to compute it. One instance per picture.

    A call may have fewer rows than the previous one, where guidance ends: its rows are the first
    of those. A call with more rows than the cached one must not reuse it.

    Attributes:
        t: time of the current call.
        whole: rows of calls in which all blocks were computed.
        tokens: of the picture.
    """

    def __init__(self) -> None:
        self.t = 1.0
        self.whole = 0
        self.tokens = 0

    @abstractmethod
    def block(self, index: int, last: bool, x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """The output of a block for tokens x [b, n, width]; `compute` runs it."""


class FirstBlockCache(BlockCache):
    """Skips all blocks but the first if the residual of the first has changed little.

    Args:
        threshold: relative change |r - r'| / |r'|, in the mean of absolute values, of the residual
            r of block 0 since the last full call, r', below which the other blocks are skipped.
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
            self._reuses = self._rest is not None and self._is_similar(residual)
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

    def _is_similar(self, residual: Tensor) -> bool:
        assert self._residual is not None
        if len(residual) > len(self._residual):
            return False
        cached = self._residual[: len(residual)]
        change = (residual - cached).abs().mean() / cached.abs().mean()
        return float(change) < self.threshold


class TaylorCache(BlockCache):
    """Extrapolates the residual of all blocks between full calls.

    Args:
        interval: calls from one full call to the next.
        warm_up: number of full calls at the start; at least 2, for linear extrapolation.
    """

    def __init__(self, interval: int, warm_up: int = 2) -> None:
        super().__init__()
        self.interval, self.warm_up = interval, max(warm_up, 2)
        self._calls = self._forecasts = 0
        self._reuses = False
        self._input: Tensor | None = None
        self._history: tuple[tuple[float, Tensor], ...] = ()

    def block(self, index: int, last: bool, x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        if index == 0:
            self._input = x
            self._reuses = (
                self._calls >= self.warm_up
                and self._forecasts < self.interval - 1
                and all(len(x) <= len(residual) for _, residual in self._history)
            )
            self._calls += 1
            self._forecasts = self._forecasts + 1 if self._reuses else 0
            if not self._reuses:
                self.whole += len(x)
        if self._reuses:
            return x + self._forecast(len(x)) if last else x
        y = compute()
        if last:
            assert self._input is not None
            self._history = ((self.t, y - self._input), *self._history[:1])
        return y

    def _forecast(self, rows: int) -> Tensor:
        (t, newest), (earlier, older) = self._history
        slope = (newest[:rows] - older[:rows]) / (t - earlier)
        return newest[:rows] + (self.t - t) * slope


class Caching(Counted):
    """A transformer with a block cache, for the calls of one picture, or of several that share all.

    The blocks are shared with `inner`; outputs are bit-identical where nothing is reused.

    Args:
        inner: an adapter that is a dataclass, whose `model.transformer.blocks` map tokens x
            [b, n, width] and more to tokens: the embedded model, or a JiT.
        cache: decides.
    """

    def __init__(self, inner: Any, cache: BlockCache) -> None:
        super().__init__(inner)
        self._cache = cache
        self._cached: Adapter = replace(inner, model=_cached(inner.model, cache))

    @property
    def whole(self) -> int:
        return self._cache.whole

    @property
    def first_block(self) -> bool:
        """Whether other calls compute the first block."""
        return isinstance(self._cache, FirstBlockCache)

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.rows += len(x_t)
        self._cache.t = float(t[0])
        return self._cached.denoise(x_t, t, context)


class _Block(nn.Module):
    """A transformer block under a cache.

    Tokens that a JiT puts before those of the picture on the way are no part of what is cached.
    """

    def __init__(self, block: nn.Module, index: int, last: bool, cache: BlockCache) -> None:
        super().__init__()
        self.block, self.index, self.last, self.cache = block, index, last, cache

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        if self.index == 0:
            self.cache.tokens = x.shape[1]
        more = x.shape[1] - self.cache.tokens
        if not more:
            return self.cache.block(self.index, self.last, x, lambda: self.block(x, *others))
        before = x[:, :more]

        def compute() -> Tensor:
            nonlocal before
            y: Tensor = self.block(x, *others)
            before = y[:, :more]
            return y[:, more:]

        y = self.cache.block(self.index, self.last, x[:, more:], compute)
        return torch.cat([before, y], dim=1)


def _cached(model: Any, cache: BlockCache) -> Any:
    blocks = list(model.transformer.blocks)
    blocks_with_cache = nn.ModuleList(
        _Block(block, index, index == len(blocks) - 1, cache) for index, block in enumerate(blocks)
    )
    return _with(model, transformer=_with(model.transformer, blocks=blocks_with_cache))


def _with(module: M, **children: nn.Module) -> M:
    """A copy of a module with replaced children; parameters are shared."""
    twin = copy.copy(module)
    # A copied module shares its table of children with the original: replace the table.
    vars(twin)["_modules"] = {**dict(module.named_children()), **children}
    return twin
