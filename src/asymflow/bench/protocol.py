"""The experimental protocol: which requests a plan is profiled, chosen and measured by.

Everybody who plans or measures takes requests from here, so that nothing is measured on pictures
that it was chosen by. What samplers of others are compared on is in `baselines.protocol`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asymflow.core.errors import InputError
from asymflow.core.types import Profile, Request
from asymflow.training.data.prompts import everyday

if TYPE_CHECKING:
    from asymflow.generation.pipeline import Model
    from asymflow.planning.verifier import Distance

PROFILED, VERIFIED, PROVED = 0, 1, 2
"""Purposes of requests: no prompt or seed of one serves another."""
RULES_CHOSEN, RULES_MEASURED = 3, 4
"""What adaptive rules are calibrated and measured on."""
EVIDENCE_CHECKED = 5
"""What the evidence of plan files is checked on."""
GRIDS_CHOSEN, SOLVERS_MEASURED = 5, 6
"""What the grid of each solver is chosen by, and solvers are measured on. The first are those of
`EVIDENCE_CHECKED`, which nothing is chosen by."""
MOST = 32
"""Requests for profiling, and for verifying."""
_SEEDS = 1000


def requests(
    styles: Sequence[str], size: tuple[int, int], guidance: float, count: int, purpose: int
) -> list[Request]:
    """Everyday prompts in all styles by turns, with seeds of their own."""
    return [
        Request(
            {"prompt": prompt, "style": styles[i % len(styles)]},
            size,
            _SEEDS * purpose + i,
            guidance,
        )
        for i, prompt in enumerate(_prompts(count, purpose))
    ]


def _prompts(count: int, purpose: int) -> list[str]:
    earlier = {prompt for each in range(purpose) for prompt in _prompts(MOST, each)}
    ranked = everyday(count + len(earlier), purpose)
    return [prompt for prompt in ranked if prompt not in earlier][:count]


def check_fits(profile: Profile, adapter: str, size: tuple[int, int] | None = None) -> None:
    """Raise `InputError` when a profile was measured with other weights, or at another size.

    Args:
        size: (height, width), where it matters.
    """
    if profile.made["adapter"] != adapter:
        raise InputError(
            f"The profile was measured on {profile.made['adapter']}, and this model is {adapter}. "
            "What it says holds for its own weights only: run `asymflow profile` for these."
        )
    if size is not None and profile.made["size"] != (wanted := f"{size[1]}x{size[0]}"):
        raise InputError(
            f"The profile was measured at {profile.made['size']}, and this run is at {wanted}. "
            "Run `asymflow profile` at that size, or leave the profile out."
        )


def perceptual(model: Model) -> Distance:
    """One minus the cosine of features.

    Raises:
        MissingExtra: the feature network is not installed.
    """
    from asymflow.bench import features, metrics

    network = features.load_network()

    def distance(x: Any, y: Any) -> Any:
        found = [
            features.extract(
                np.stack([model.adapter.to_picture(state) for state in states]), network=network
            )
            for states in (x, y)
        ]
        return metrics.cosine_distance(*found)

    return distance
