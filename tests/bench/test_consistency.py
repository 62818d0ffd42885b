"""Self-agreement across resolutions, on an oracle whose answer is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from asymflow.bench.consistency import Consistency, consistency
from asymflow.models.empirical import EmpiricalAdapter
from asymflow.models.gaussian import to_picture


def rows(pictures: Tensor) -> list[Consistency]:
    adapter = EmpiricalAdapter(pictures.double(), torch.zeros(len(pictures), dtype=torch.long))
    known = np.stack([to_picture(picture) for picture in pictures.double()])
    return consistency(adapter, known, [{}] * len(known), times=(0.98, 0.8, 0.05))


def test_flat_pictures_lose_nothing_by_pooling() -> None:
    levels = torch.tensor([-0.8, -0.3, 0.1, 0.6]).view(4, 1, 1, 1).expand(4, 4, 16, 16)
    far, _, near = rows(levels)
    assert far.disagreement < 1e-6
    assert far.error_full > 0.05  # at that much noise, not even the exact answer is the picture
    assert near.error_full < 1e-6


def test_pictures_that_differ_in_detail_only_do_not_agree() -> None:
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    bright, dark = torch.full((4, 16, 16), 0.6), torch.full((4, 16, 16), -0.6)
    # Pooled, the board is grey; full size, its detail tells it apart at once.
    _, middle, _ = rows(torch.stack((board.expand(4, -1, -1), bright, dark)))
    assert middle.error_low > 10 * middle.error_full
    assert middle.disagreement > 0.01
