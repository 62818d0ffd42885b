"""Grids of any number of moves, from the one that a model is sampled on by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST = 0.005
"""Time below which nothing is seen: levels of a byte are 2 / 255 apart."""


def resampled(times: Sequence[float], count: int) -> tuple[float, ...]:
    """The grid with so many moves, as dense as it was everywhere. The last time stays 0."""
    places = np.linspace(0, len(times) - 1, count + 1)
    inner = np.interp(places, np.arange(len(times)), np.asarray(times))
    return (*map(float, inner[:-1]), 0.0)


def ended(times: Sequence[float], least: float = LEAST) -> tuple[float, ...]:
    """The grid with its last move halved down to the least time.

    Equal steps end with a leap over the noise that the finest detail hides behind.
    """
    *nodes, last = times
    while nodes[-1] > 2 * least:
        nodes.append(nodes[-1] / 2)
    return (*nodes, last)


def blended(times: Sequence[float], count: int, least: float = LEAST) -> tuple[float, ...]:
    """A grid of so many moves, as dense as another one and as equal log-SNR together.

    The first alone leaps over the noisy end on a cosine schedule, and over the finest detail; the
    second alone has few moves in the middle. The nodes of both in turn would have moves of all
    lengths, which a multistep method is bad at.

    Args:
        times: the other one, dense.
        count: of moves.
        least: where log-SNR ends.
    """
    dense = np.array([*(t for t in times if t > least), least])
    seen = np.minimum(dense, 1 - LEAST)  # of pure noise there is no logarithm
    snr = np.log1p(-seen) - np.log(seen)
    share = (np.linspace(0, 1, len(dense)) + (snr - snr[0]) / (snr[-1] - snr[0])) / 2
    nodes = np.interp(np.linspace(0, 1, count), share, dense)
    return (float(dense[0]), *nodes[1:].tolist(), 0.0)
