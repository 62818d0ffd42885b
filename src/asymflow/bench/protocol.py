"""Purposes of measuring besides those of `planning.calibration`, and what results must fit to.

`baselines.protocol` is the protocol of comparisons with other samplers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from asymflow.core.errors import InputError
from asymflow.core.types import Profile

if TYPE_CHECKING:
    from asymflow.generation.pipeline import Model
    from asymflow.planning.verifier import Distance

EVIDENCE_CHECKED = 5
"""Independent check of the evidence in plan files."""
GRIDS_CHOSEN, SOLVERS_MEASURED = 5, 6
"""Selection of the grid of each solver, and measurement of solvers. The first may equal
`EVIDENCE_CHECKED`, which selects nothing."""


def check_fits(profile: Profile, adapter: str, size: tuple[int, int] | None = None) -> None:
    """Check that a profile was measured with these weights and at this size.

    Args:
        profile: the profile.
        adapter: name of the model.
        size: (height, width); None accepts every size.

    Raises:
        InputError: the weights or the size differ.
    """
    if profile.made["adapter"] != adapter:
        raise InputError(
            f"The profile was measured on {profile.made['adapter']}, and this model is {adapter}. "
            "A profile is valid for its own weights only: run `asymflow profile` for these."
        )
    if size is not None and profile.made["size"] != (wanted := f"{size[1]}x{size[0]}"):
        raise InputError(
            f"The profile was measured at {profile.made['size']}, and this run is at {wanted}. "
            "Run `asymflow profile` at that size, or leave the profile out."
        )


def perceptual(model: Model) -> Distance:
    """The feature distance: one minus the cosine.

    Raises:
        MissingExtra: the feature network is not installed.
    """
    from asymflow.bench import features, metrics
    from asymflow.generation.pixels import to_rgba

    network = features.load_network()

    def distance(x: Any, y: Any) -> Any:
        found = [
            features.extract(
                np.stack([to_rgba(model.adapter.to_picture(state)) for state in states]),
                network=network,
            )
            for states in (x, y)
        ]
        return metrics.cosine_distance(*found)

    return distance
