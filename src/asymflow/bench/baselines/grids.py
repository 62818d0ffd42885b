"""Search for the best time grid of every baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from asymflow.bench.baselines.cache import ResultCache, load_value, save_value
from asymflow.bench.baselines.samplers import Sampler
from asymflow.core.adapter import Adapter
from asymflow.core.types import Plan, Request
from asymflow.planning import verifier
from asymflow.planning.profiler import Progress


def best_grids(
    search: Search,
    candidates: Sequence[Mapping[str, Sampler]],
    rounds: Sequence[int],
    store: ResultCache,
    on_progress: Progress,
) -> tuple[dict[str, dict[str, float | None]], list[Sampler]]:
    """The error of every grid of every sampler, and each sampler on its best grid.

    Args:
        search: measures them.
        candidates: for each sampler the configurations to choose from, by a name of the grid; they
            share the name of the sampler.
        rounds: pictures of every round, ascending. After each, the better half goes on (successive
            halving, arXiv 1502.07943); with one round, all are compared on the same pictures.
        store: of measurements.
        on_progress: called after every sampler.

    Returns:
        Errors by sampler and grid, each on the pictures of its last round, None where pictures are
        not finite; and the samplers.
    """
    errors: dict[str, dict[str, float | None]] = {}
    best: list[Sampler] = []
    for number, found in enumerate(candidates):
        measured: dict[str, float] = {}
        left = list(found)
        for later, count in enumerate(rounds):
            if later:
                left = left[: -(-len(left) // 2)]
            measured |= {grid: search.error(found[grid], count, store) for grid in left}
            left.sort(key=lambda grid: measured[grid])
        chosen = found[left[0]]
        errors[chosen.name] = {
            grid: error if math.isfinite(error) else None for grid, error in measured.items()
        }
        best.append(chosen)
        on_progress("choosing grids", number + 1, len(candidates))
    return errors, best


@dataclass(frozen=True, eq=False)
class Search:
    """Evaluates samplers on pictures that are not in the table.

    Attributes:
        adapter: the model.
        fine: the reference plan.
        requests: the pictures.
        errors: measured errors of the first pictures, by configuration.
    """

    adapter: Adapter
    fine: Plan
    requests: Sequence[Request]
    errors: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    @cached_property
    def reference(self) -> Tensor:
        return verifier.rollout(self.adapter, self.fine, self.requests)

    def error(self, sampler: Sampler, count: int, store: ResultCache) -> float:
        """Mean RMSE to the reference, in state space, of the first `count` pictures.

        It is infinite where a picture is not finite. No picture of a configuration is made twice.
        """
        key = json.dumps([sampler.family, dict(sampler.settings)], sort_keys=True)
        path = store.path("json", ["errors", key], self.requests)
        known = self.errors.setdefault(key, load_value(path) or [])
        if len(known) < count:
            known += [self._measure(sampler, number) for number in range(len(known), count)]
            save_value(path, known)
        return sum(known[:count]) / count

    @torch.inference_mode()
    def _measure(self, sampler: Sampler, number: int) -> float:
        x_0 = sampler.walk(self.adapter, [self.requests[number]])
        error = float(verifier.rms(x_0, self.reference[number : number + 1])[0])
        return math.inf if math.isnan(error) else error
