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
    store: ResultCache,
    on_progress: Progress,
) -> tuple[dict[str, dict[str, float | None]], list[Sampler]]:
    """The error of every grid of every sampler, and each sampler on its best grid.

    Args:
        search: measures them.
        candidates: for each sampler the configurations to choose from, by a name of the grid; they
            share the name of the sampler.
        store: of measurements.
        on_progress: called after every sampler.

    Returns:
        Errors by sampler and grid, None where pictures are not finite; and the samplers.
    """
    errors: dict[str, dict[str, float | None]] = {}
    best: list[Sampler] = []
    for number, found in enumerate(candidates):
        measured = {grid: search.error(sampler, store) for grid, sampler in found.items()}
        chosen = found[min(measured, key=lambda grid: measured[grid])]
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
        errors: measured errors by configuration.
    """

    adapter: Adapter
    fine: Plan
    requests: Sequence[Request]
    errors: dict[str, float] = field(default_factory=dict[str, float])

    @cached_property
    def reference(self) -> Tensor:
        return verifier.rollout(self.adapter, self.fine, self.requests)

    def error(self, sampler: Sampler, store: ResultCache) -> float:
        """Mean RMSE to the reference, in state space; infinite where a picture is not finite."""
        key = json.dumps([sampler.family, dict(sampler.settings)], sort_keys=True)
        if key not in self.errors:
            path = store.path("json", ["error", key], self.requests)
            found: float | None = load_value(path)
            if found is None:
                found = self._measure(sampler)
                save_value(path, found)
            self.errors[key] = found
        return self.errors[key]

    @torch.inference_mode()
    def _measure(self, sampler: Sampler) -> float:
        x_0 = torch.cat([sampler.walk(self.adapter, request) for request in self.requests])
        error = float(verifier.rms(x_0, self.reference).mean())
        return math.inf if math.isnan(error) else error
