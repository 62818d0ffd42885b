"""Pictures of every configuration, each generated alone and timed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from asymflow.bench.baselines.cache import ResultCache, Samples, load_samples, save_samples
from asymflow.bench.baselines.samplers import Sampler
from asymflow.bench.caching import Counted
from asymflow.core.adapter import Adapter
from asymflow.core.types import Picture, Request
from asymflow.planning import costs
from asymflow.planning.profiler import Progress


def sample_interleaved(
    samplers: Sequence[Sampler],
    adapter: Adapter,
    requests: Sequence[Request],
    store: ResultCache,
    save_every: int,
    on_progress: Progress,
) -> dict[str, Samples]:
    """Samples of every configuration, by its name; one picture each in turn."""
    paths = {
        each.name: store.path("npz", [each.family, dict(each.settings)], requests)
        for each in samplers
    }
    assert len(paths) == len(samplers), "names of configurations are unique"
    samples = {
        name: found for name, path in paths.items() if (found := load_samples(path)) is not None
    }
    total = len(samplers) * len(requests)
    for end in range(1, len(requests) + 1):
        # Alternate the order: later configurations run on a hotter machine.
        for sampler in samplers if end % 2 else reversed(samplers):
            previous = samples.get(sampler.name)
            if previous is None or len(previous.seconds) < end:
                found = _one_more(previous, sampler, adapter, requests[end - 1])
                samples[sampler.name] = found
                if end % save_every == 0 or end == len(requests):
                    save_samples(paths[sampler.name], found)
            done = sum(len(each.seconds) for each in samples.values())
            on_progress("generating", done, total)
    return samples


def _one_more(
    previous: Samples | None, sampler: Sampler, adapter: Adapter, request: Request
) -> Samples:
    """The previous samples and one more."""
    found: list[tuple[Picture, Counted]] = []
    seconds = np.array([costs.seconds(lambda: found.append(generate(sampler, adapter, request)))])
    picture, counted = found[0]
    pictures = picture[None].astype(np.float16)
    rows, whole = np.array([counted.rows]), np.array([counted.whole])
    if previous is None:
        return Samples(pictures, seconds, rows, whole)
    return Samples(
        np.concatenate([previous.pictures, pictures]),
        np.concatenate([previous.seconds, seconds]),
        np.concatenate([previous.rows, rows]),
        np.concatenate([previous.whole, whole]),
    )


@torch.inference_mode()
def generate(sampler: Sampler, adapter: Adapter, request: Request) -> tuple[Picture, Counted]:
    """A picture [h, w, c], and the adapter that counted what it took."""
    counted = sampler.wrap(adapter)
    x_0 = sampler.walk(counted, [request])
    return adapter.to_picture(x_0[0]), counted
