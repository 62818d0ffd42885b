"""Two stages share one budget, and their errors are counted in the last picture."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import Plan
from asymflow.integrations.diffusers import cascade
from asymflow.integrations.diffusers.cascade import Cascade, Option

Make = Callable[..., Any]
PLAN = plan_of(uniform(2))


def test_the_best_pair_within_the_budget_is_chosen() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        stages = [
            [Option(PLAN, float(seconds), float(error)) for seconds, error in rng.random((5, 2))]
            for _ in range(2)
        ]
        budget = 0.3 + float(rng.random())
        try:
            one, other = cascade.choose(stages[0], stages[1], budget)
        except InputError:
            assert min(a.seconds + b.seconds for a, b in product(*stages)) > budget
            continue
        assert one.seconds + other.seconds <= budget
        for a, b in product(*stages):
            if a.seconds + b.seconds <= budget:
                assert one.error**2 + other.error**2 <= a.error**2 + b.error**2 + 1e-12


def test_what_no_pair_can_do_is_refused() -> None:
    slow = [Option(PLAN, 2.0, 0.1)]
    with pytest.raises(InputError, match="take 4 seconds at least, and the budget is 3"):
        cascade.choose(slow, slow, 3.0)


def test_two_stages_of_deepfloyd(
    deepfloyd: Make, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both errors are real: plans of few steps are worse, and together about what was predicted."""
    monkeypatch.setattr(cascade, "FINE", 16)
    one, other = (
        deepfloyd(kind=kind, prediction_type="v_prediction", clip_sample=False)
        for kind in ("IFPipeline", "IFSuperResolutionPipeline")
    )
    call = {**told, "guidance_scale": 2.0}
    few, many = ([plan_of(uniform(n), solver="multistep2", name=str(n))] for n in (2, 8))

    def made(first: list[Plan], second: list[Plan]) -> Cascade:
        examples = [(call, {**call, "noise_level": 40})]
        return cascade.accelerate(one, other, 1e6, examples=examples, plans=(first, second))

    worst, small, large = made(few, few), made(many, few), made(few, many)
    best = made(few + many, few + many)
    for each in (worst, small, large, best):
        assert each.measured == pytest.approx(each.predicted, rel=0.2)
    assert best.measured < 0.5 * min(small.measured, large.measured)
    assert max(small.measured, large.measured) < 1.1 * worst.measured
    assert [each.asymflow_plan.name for each in (best.first, best.second)] == ["8", "8"]
    image = best.first(**call, output_type="pt").images
    assert best.second(**call, image=image, output_type="pt").images.shape == (1, 3, 16, 16)
