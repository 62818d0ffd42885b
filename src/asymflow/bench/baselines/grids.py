"""Search for the best time grid of a scheduler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from asymflow.bench.baselines.cache import ResultCache
from asymflow.bench.baselines.protocol import Budget, pair_requests, reference_plan
from asymflow.bench.baselines.samplers import SHIFTS, Sampler, dpm, unipc
from asymflow.bench.pairs import pick
from asymflow.core import presets
from asymflow.core.errors import InputError
from asymflow.core.types import Request
from asymflow.io.files import write_text
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.planning import verifier
from asymflow.planning.profiler import Progress
from asymflow.training.data.manifest import Entry

_SEARCH_PAIRS = 12


def best_grids(
    search: Search, budget: Budget, store: ResultCache, on_progress: Progress
) -> tuple[dict[str, dict[str, float]], list[Sampler]]:
    """For each scheduler the error of every shift, and the sampler with the best shift."""
    low, _ = presets.guidance_interval((search.size, search.size))
    makers = [
        partial(make, order, n, guided_from=low)
        for make in (unipc, dpm)
        for order in (2, 3)
        for n in budget.steps
    ]
    errors: dict[str, dict[str, float]] = {}
    best: list[Sampler] = []
    for number, maker in enumerate(makers):
        found = {shift: maker(shift=shift) for shift in SHIFTS}
        measured = {f"{shift:g}": search.error(each, store) for shift, each in found.items()}
        _, shift = min((measured[f"{shift:g}"], shift) for shift in SHIFTS)
        errors[found[shift].name] = measured
        best.append(found[shift])
        on_progress("choosing grids for schedulers", number + 1, len(makers))
    return errors, best


@dataclass(frozen=True, eq=False)
class Search:
    """Evaluates samplers on pairs that are not in the table.

    Attributes:
        errors: measured errors by configuration.
    """

    adapter: EmbeddedAdapter
    seen: Sequence[Entry]
    entries: Sequence[Entry]
    size: int
    errors: dict[str, float] = field(default_factory=dict[str, float])

    @cached_property
    def requests(self) -> list[Request]:
        used = {entry.index for entry in self.entries}
        others = [e for e in pick(self.seen, len(self.seen), 1) if e.index not in used]
        if not others:
            raise InputError(
                f"All {len(self.entries)} seen pairs of the dataset are in the table, and none is "
                "left to choose grids on: lower `pairs`, or build all styles."
            )
        return pair_requests(others[:_SEARCH_PAIRS], 1, self.size)

    @cached_property
    def reference(self) -> Tensor:
        return verifier.rollout(self.adapter, reference_plan(self.size), self.requests)

    def error(self, sampler: Sampler, store: ResultCache) -> float:
        """Mean RMSE to the reference, in state space."""
        key = json.dumps([sampler.family, dict(sampler.settings)], sort_keys=True)
        if key not in self.errors:
            path = store.path("json", ["error", key], self.requests)
            found = _read_number(path)
            if found is None:
                found = self._measure(sampler)
                if path is not None:
                    write_text(path, json.dumps(found))
            self.errors[key] = found
        return self.errors[key]

    @torch.inference_mode()
    def _measure(self, sampler: Sampler) -> float:
        x_0 = torch.cat([sampler.walk(self.adapter, request) for request in self.requests])
        return float(verifier.rms(x_0, self.reference).mean())


def _read_number(path: Path | None) -> float | None:
    try:
        return None if path is None else float(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
