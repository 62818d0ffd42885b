"""In the stand-in, the pack's nodes make the pictures of the engine."""

from __future__ import annotations

import pytest
from benchmarks.comfyui import parity
from benchmarks.comfyui.parity import CASES, Case

from tests.integrations.comfyui.standin import StandIn


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_plans_make_the_pictures_of_the_engine(standing_in: StandIn, case: Case) -> None:
    assert parity.difference(standing_in, case) <= parity.TOLERANCE
