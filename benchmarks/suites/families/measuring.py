"""What `accelerate` and `networks` measure by: time by turns, pictures, the network of features."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench import features
from asymflow.core.statistics import Array, Interval, bootstrap_interval


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """Seconds of every round [n], of the clock and of the processor."""

    clock: Array
    processor: Array


def by_turns(calls: Mapping[str, Callable[[int], object]], rounds: int) -> dict[str, Taken]:
    """What every call takes in every round: machines drift, so all of them take turns.

    Args:
        calls: called with the number of the round. Every other round is in reverse.
        rounds: how many.
    """
    taken = {name: np.zeros((2, rounds)) for name in calls}
    for number in range(rounds):
        for name in calls if number % 2 else reversed(list(calls)):
            began, busy = time.perf_counter(), time.process_time()
            calls[name](number)
            taken[name][0, number] = time.perf_counter() - began
            taken[name][1, number] = time.process_time() - busy
    return {name: Taken(clock, processor) for name, (clock, processor) in taken.items()}


def ratio(own: Array, base: Array) -> Interval:
    """The median of what one takes over what another takes in the same round."""
    return bootstrap_interval(own / base, np.median)


def milliseconds(seconds: Array) -> float:
    """Their median."""
    return 1000 * float(np.median(seconds))


def rgba(pixels: Tensor) -> NDArray[np.float32]:
    """[n, h, w, 4] in [0, 1] of RGB [n, 3, h, w]."""
    return (
        torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1).movedim(1, -1).contiguous().numpy()
    )


def features_of(pixels: Tensor) -> NDArray[np.float32]:
    """Features [n, d] of RGB [n, 3, h, w] in [0, 1]."""
    return features.extract(rgba(pixels), _network())


@cache
def _network() -> features.Network:
    return features.load_network()
