"""Caches against fitted plans at about equal passes, on the JiT of Fashion-MNIST.

    OMP_NUM_THREADS=1 python -m benchmarks fashion caches

A cache leaves a sampler its many steps and answers some of its calls. Each is tried in many
settings over samplers of 12, 20 and 32 steps, the best of a price is chosen on other pictures,
and draws the fresh pictures of `fashion campaign`, whose result has the errors of fitted plans.
Writes caches.json.

- **Taylor of outputs**: one call of so many is made, between them x_0 is extrapolated in t by a
  polynomial (TaylorSeer, arXiv 2503.06923, applied to what every network has).
- **EasyCache** (arXiv 2507.02860): the change of the output is predicted by that of the input, and
  a call is left out until the predicted changes add up to a threshold; then the output is the
  input and what the last call added to it.
- **Spectrum** (arXiv 2603.01623): x_0 is forecast by a ridge regression of Chebyshev polynomials in
  t on all calls so far, with gaps between calls that grow.
- **first-block cache** and **TaylorSeer** of the blocks of the JiT, see `asymflow.bench.caching`; a
  call that the first block answers is priced as that block.
"""

from __future__ import annotations

import argparse
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asymflow.bench.baselines import samplers
from asymflow.bench.baselines.samplers import Interval, Sampler
from asymflow.bench.caching import BlockCache, Caching, Counted, FirstBlockCache, TaylorCache
from asymflow.core.adapter import Adapter, Context
from asymflow.core.types import Request
from asymflow.models.about import WithCard
from asymflow.models.jit.adapter import JitAdapter
from asymflow.planning.encoded import Encoded
from asymflow.planning.proof import rms
from benchmarks import results
from benchmarks.suites.fashion import paired
from benchmarks.suites.fashion.asking import Together
from benchmarks.suites.fashion.campaign import LIMIT, TOGETHER, Table, add_models, each_table
from benchmarks.suites.fashion.paired import Array

STEPS = (12, 20, 32)
GRIDS = ("beta", "uniform")
WARM_UP = 3
"""Calls that are always made first."""
ROOM = 0.1
"""By how much of a price a cache may be dearer: its calls cannot be chosen one by one."""


class Rule(ABC):
    """Decides for every call whether to make it, for all its pictures together."""

    @abstractmethod
    def skips(self, x_t: Tensor, t: float) -> bool: ...

    @abstractmethod
    def forecast(self, x_t: Tensor, t: float) -> Tensor:
        """The answer in place of the network's."""

    @abstractmethod
    def learn(self, x_t: Tensor, t: float, x_0: Tensor) -> None:
        """Remember a call that was made."""


class Taylor(Rule):
    """One call of `every`, between them a polynomial of an order in t."""

    def __init__(self, every: int, order: int) -> None:
        self.every, self.order, self.calls = every, order, 0
        self.known: list[tuple[float, Tensor]] = []

    def skips(self, x_t: Tensor, t: float) -> bool:
        self.calls += 1
        return self.calls > WARM_UP and (self.calls - WARM_UP) % self.every != 0

    def forecast(self, x_t: Tensor, t: float) -> Tensor:
        nodes = self.known[: self.order + 1]
        total = torch.zeros_like(nodes[0][1])
        for i, (node, x_0) in enumerate(nodes):
            others = [other for j, (other, _) in enumerate(nodes) if j != i]
            total += math.prod((t - other) / (node - other) for other in others) * x_0
        return total

    def learn(self, x_t: Tensor, t: float, x_0: Tensor) -> None:
        rows = len(x_0)
        self.known = [(t, x_0), *((node, x[:rows]) for node, x in self.known)][:3]


class Easy(Rule):
    """EasyCache: skips until the predicted relative changes of outputs reach a threshold."""

    def __init__(self, threshold: float) -> None:
        self.threshold, self.calls, self.sum, self.rate = threshold, 0, 0.0, 0.0
        self.x_t = self.output = self.before = torch.zeros(0)

    def skips(self, x_t: Tensor, t: float) -> bool:
        self.calls += 1
        if self.calls <= WARM_UP:
            return False
        change = (x_t - self.before[: len(x_t)]).abs().mean()
        self.before = x_t
        self.sum += self.rate * float(change / self.output[: len(x_t)].abs().mean())
        return self.sum < self.threshold

    def forecast(self, x_t: Tensor, t: float) -> Tensor:
        rows = len(x_t)
        return x_t - t * (x_t + self.output[:rows] - self.x_t[:rows])

    def learn(self, x_t: Tensor, t: float, x_0: Tensor) -> None:
        rows, output = len(x_t), (x_t - x_0) / t
        if self.calls > 1:
            inputs = (x_t - self.x_t[:rows]).abs().mean()
            self.rate = float((output - self.output[:rows]).abs().mean() / inputs)
        self.x_t = self.before = x_t
        self.output, self.sum = output, 0.0


class Spectrum(Rule):
    """Chebyshev polynomials of a degree, by ridge regression on all calls; gaps grow."""

    def __init__(self, gap: float, growth: float, degree: int = 4, ridge: float = 0.1) -> None:
        self.gap, self.growth, self.degree, self.ridge = gap, growth, degree, ridge
        self.calls, self.since = 0, 0
        self.known: list[tuple[float, Tensor]] = []

    def skips(self, x_t: Tensor, t: float) -> bool:
        self.calls += 1
        if self.calls <= WARM_UP or self.since + 1 >= self.gap:
            return False
        self.since += 1
        return True

    def forecast(self, x_t: Tensor, t: float) -> Tensor:
        rows = len(x_t)
        nodes = np.array([node for node, _ in self.known])
        degree = min(self.degree, len(nodes) - 1)
        design = np.polynomial.chebyshev.chebvander(2 * nodes - 1, degree)
        here = np.polynomial.chebyshev.chebvander(np.array([2 * t - 1]), degree)
        gram = design.T @ design + self.ridge * np.eye(degree + 1)
        weights = (here @ np.linalg.solve(gram, design.T))[0].tolist()
        newest = self.known[-1][1][:rows]
        pairs = zip(weights, self.known, strict=True)
        return newest + sum(w * (x[:rows] - newest) for w, (_, x) in pairs)

    def learn(self, x_t: Tensor, t: float, x_0: Tensor) -> None:
        self.known.append((t, x_0))
        self.since = 0
        if self.calls > WARM_UP:
            self.gap += self.growth


class Ruled(Counted):
    """A model, some of whose calls a rule answers. `rows` counts the others.

    Where guidance begins a call has more rows than those before it: the rule begins again.
    """

    def __init__(self, inner: Adapter, make: Callable[[], Rule]) -> None:
        super().__init__(inner)
        self._make, self._rule, self._most = make, make(), 0

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        time = float(t[0])
        if len(x_t) > self._most:
            self._rule, self._most = self._make(), len(x_t)
        if self._rule.skips(x_t, time):
            return self._rule.forecast(x_t, time)
        x_0 = super().denoise(x_t, t, context)
        self._rule.learn(x_t, time, x_0)
        return x_0


class Blocks(Caching):
    """A block cache of all pictures together."""

    @property
    def batch(self) -> int | None:
        return None


@dataclass(frozen=True, slots=True)
class Setting:
    """A cache over a sampler.

    Attributes:
        family: of the cache.
        name: of the cache with its numbers.
        solver: of the sampler.
        make: what is asked in place of a model.
    """

    family: str
    name: str
    solver: str
    grid: str
    steps: int
    make: Callable[[Adapter], Counted]

    def __str__(self) -> str:
        return f"{self.name} over {self.solver}, {self.grid}, {self.steps} steps"


def wraps(blocks: bool) -> Iterator[tuple[str, str, Callable[[Adapter], Counted]]]:
    """(family, name, wrap) of all caches; of blocks too, where the model has some."""

    def ruled(make: Callable[[], Rule]) -> Callable[[Adapter], Counted]:
        return lambda model: Ruled(Together(model), make)

    def cached(make: Callable[[], BlockCache]) -> Callable[[Adapter], Counted]:
        def wrap(model: Adapter) -> Counted:
            bare = _bare(model)
            assert isinstance(bare, JitAdapter)
            return Blocks(bare, make())

        return wrap

    for every in (2, 3, 4, 5):
        for order in (0, 1, 2):
            name = f"Taylor of outputs, 1 of {every}, order {order}"
            yield "Taylor of outputs", name, ruled(partial(Taylor, every, order))
    for threshold in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4):
        yield "EasyCache", f"EasyCache {threshold:g}", ruled(partial(Easy, threshold))
    for gap, growth in ((2, 0.0), (2, 0.25), (2, 0.75), (3, 0.0), (3, 0.75), (4, 0.0)):
        name = f"Spectrum, gap {gap}, growth {growth:g}"
        yield "Spectrum", name, ruled(partial(Spectrum, gap, growth))
    if not blocks:
        return
    for threshold in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5):
        name = f"first-block cache {threshold:g}"
        yield "first-block cache", name, cached(partial(FirstBlockCache, threshold))
    for every in (2, 3, 4, 5):
        yield "TaylorSeer", f"TaylorSeer, 1 of {every}", cached(partial(TaylorCache, every))


def _bare(model: Adapter) -> Adapter:
    """The model without the card beside its file."""
    return model.inner if isinstance(model, WithCard) else model


def walk(table: Table, setting: Setting, wanted: Sequence[Request]) -> tuple[Tensor, float]:
    """x_0 [b, c, h, w] of requests, and the passes of a picture."""
    parts: list[Tensor] = []
    passes = 0.0
    for begin in range(0, len(wanted), TOGETHER):
        model = setting.make(table.model)
        parts.append(
            _sampler(table, setting).walk(Encoded(model), wanted[begin : begin + TOGETHER])
        )
        passes += _passes(model)
    return torch.cat(parts), passes / len(wanted)


def _passes(model: Counted) -> float:
    """Network passes, with calls of one block for what they are."""
    if isinstance(model, Caching):
        assert isinstance(model.inner, JitAdapter)
        share = 1 / model.inner.model.config.depth if model.first_block else 0.0
        return model.whole + share * (model.rows - model.whole)
    return model.rows


def _sampler(table: Table, setting: Setting) -> Sampler:
    grid = table.grids[setting.grid](setting.steps)
    guided: Interval = table.interval(0.0) or samplers.EVERYWHERE
    if setting.solver == "Euler":
        return samplers.over("euler", grid, guided)
    return samplers.dpm(2, setting.steps, guided=guided, grid=grid)


def compared(table: Table, prices: Sequence[int], given: argparse.Namespace) -> dict[str, Any]:
    """The best cache of every family and price, on fresh pictures."""
    fine = table.limit(given.limit)
    chosen, fresh = (table.drawn(fine, each) for each in (table.chosen, table.fresh))
    blocks = isinstance(_bare(table.model), JitAdapter)
    tried: list[tuple[Setting, float, float]] = []
    for family, name, make in wraps(blocks):
        for solver in ("Euler", "DPM-Solver++ 2M"):
            for grid in GRIDS:
                for steps in given.steps:
                    setting = Setting(family, name, solver, grid, steps, make)
                    ends, passes = walk(table, setting, table.chosen)
                    error = float(rms(ends, chosen).mean())
                    if math.isfinite(error):
                        tried.append((setting, passes, error))
    rows: list[dict[str, Any]] = []
    for price in prices:
        fitting = [each for each in tried if each[1] <= (1 + ROOM) * price]
        best: dict[str, tuple[Setting, float, float]] = {}
        for each in fitting:
            family = each[0].family
            if family not in best or each[2] < best[family][2]:
                best[family] = each
        found: dict[str, Any] = {}
        for family, (setting, _, _) in best.items():
            ends, passes = walk(table, setting, table.fresh)
            errors: Array = rms(ends, fresh)
            found[family] = {
                "setting": str(setting),
                "passes": passes,
                **paired.described(errors),
            }
        rows.append({"passes": price, "caches": found})
        shown = {
            family: (round(each["mean"], 4), each["setting"]) for family, each in found.items()
        }
        print(f"{table.model.name} {table.scale:g}, {price} passes: {shown}", flush=True)
    return {"rows": rows, "settings": len(tried)}


QUICK: dict[str, Any] = {
    "prices": [6], "pictures": 3, "chosen": 2, "steps": [8], "guidance": [2.0], "limit": 6,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prices", type=int, nargs="+", default=[6, 10, 16, 24])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--chosen", type=int, default=4)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument(
        "--limit", type=int, default=LIMIT, help="steps of either half of the limit"
    )
    add_models(parser, "jit")


@torch.inference_mode()
def run(given: argparse.Namespace) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    weights: dict[str, None] = {}
    for table in each_table(given.networks, given, given.chosen, given.pictures):
        tables[table.title] = compared(table, given.prices, given)
        weights[table.model.name] = None
    report = {"pictures": given.pictures, "tables": tables}
    path = given.out / "caches.json"
    return results.save(path, report, weights=[*weights], dtype="float32", device="cpu")
