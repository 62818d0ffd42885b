"""Where small networks lead in many steps, computed without asymflow.

The multistep method of second order in log(alpha / sigma), from all of the noise that was trained
to the least. Nodes are as dense as those of equal steps of the timestep and of equal steps of
log(alpha / sigma) together: large moves of either miss something.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.suites.families.small import Call, Levels, Small, alpha_sigma

TOGETHER = 64
"""Pictures per call of the network."""


def grid(levels: Levels, count: int) -> NDArray[np.float64]:
    """Nodes in log(alpha / sigma), rising, as dense as both grids together.

    Both in one, node by node, would have moves of all lengths by turns, which a multistep
    method is bad at.
    """
    passed = np.arange(len(levels))[::-1] / (len(levels) - 1)
    risen = (levels - levels[-1]) / (levels[0] - levels[-1])
    return np.interp(np.linspace(0, 1, count + 1), (passed + risen)[::-1] / 2, levels[::-1])


def walk(one: Small, z: Tensor, call: Call, nodes: NDArray[np.float64]) -> Tensor:
    """x_0 [b, c, h, w] that states z at the first node lead to.

    Between nodes z / sigma changes by the integral of e^lam x_0, with x_0 linear in lam: through
    the estimates at the last two nodes.
    """
    before: tuple[float, Tensor] | None = None
    for lam, following in pairwise(nodes.tolist()):
        x_0 = one.estimate(z, lam, call).to(z)
        grown = np.exp(following) - np.exp(lam)
        moved = grown * x_0
        if before is not None:
            slope = (x_0 - before[1]) / (lam - before[0])
            moved = moved + (np.exp(following) * (following - lam) - grown) * slope
        (_, sigma), (_, after) = alpha_sigma(lam), alpha_sigma(following)
        z = after / sigma * z + after * moved
        before = lam, x_0
    return one.estimate(z, float(nodes[-1]), call).to(z)


@torch.inference_mode()
def limit_of(one: Small, seeds: Sequence[int], moves: int) -> dict[str, Any]:
    """Where the network leads for these seeds, and by how much that may be wrong [n].

    Picture i has the i-th example.
    """
    found: dict[int, list[Tensor]] = {moves: [], moves // 2: []}
    for begin in range(0, len(seeds), TOGETHER):
        numbers = range(begin, min(begin + TOGETHER, len(seeds)))
        noise = [
            torch.randn(one.shape, generator=torch.Generator().manual_seed(seeds[number]))
            for number in numbers
        ]
        for count, states in found.items():
            nodes = grid(one.log_snr, count)
            states.append(walk(one, torch.stack(noise).double(), one.call(numbers), nodes))
    fine, coarse = (torch.cat(states).clamp(-1, 1) for states in found.values())
    # A third of it, as of a method of second order, would be too little: thresholds have kinks.
    return {
        "states": fine,
        "errors": (fine - coarse).square().mean((1, 2, 3)).sqrt(),
    }
