"""How much work the fits of plans may take. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """What fits may take.

    Attributes:
        pictures: of the teacher. Where they differ, as those of classes do, four are too few.
        moves: of the teacher.
        first: rollouts of the first search.
        again: rollouts of searches at further prices.
        polish: rounds of descent after them, each about as dear as four rollouts.
    """

    pictures: int
    moves: int
    first: int
    again: int
    polish: int = 0


QUICK = Effort(pictures=6, moves=64, first=16, again=8, polish=0)
FULL = Effort(pictures=16, moves=128, first=32, again=24, polish=20)
EFFORTS = {"quick": QUICK, "full": FULL}
