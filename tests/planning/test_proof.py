"""Promises that are kept or broken, and what is stated of errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.planning.proof import Limit, Proof
from tests.helpers import draw


def picture(seed: int) -> Tensor:
    return draw(seed, 1, 2, 2).clamp(-1, 1)


def test_pictures_of_a_limit_are_finite_and_apart() -> None:
    states = torch.stack([picture(seed) for seed in range(6)])
    assert 0.3 < Limit.of(states, 0.0).apart < 2
    assert Limit.of(states[:1], 0.0).apart == math.inf
    states[3, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="not finite in many steps"):
        Limit.of(states, 0.0)


def proof(errors: Sequence[float], others: Sequence[float] | None, error: float = 0.001) -> Proof:
    states = torch.stack([picture(seed) for seed in range(len(errors))])
    limit = Limit(states, error, apart=1.0)
    return Proof(np.array(errors), None if others is None else np.array(others), limit)


def test_a_promise_is_kept_where_the_mean_is_no_larger() -> None:
    own = [0.02] * 16
    assert proof([0.019] * 16, own).kept
    assert not proof([0.021] * 16, own).kept
    # One level of a byte is no difference.
    assert proof([0.007] * 16, [0.0001] * 16).kept
    assert proof([0.007] * 16, None).kept
    assert not proof([0.009] * 16, None).kept
    assert not proof([math.nan] * 16, own).kept


def test_a_picture_that_becomes_another_breaks_the_promise() -> None:
    """A mean hides it: seven pictures of eight are nearer than the other sampler's."""
    errors = [0.002] * 15 + [0.66]
    found = proof(errors, [0.05] * 16)
    assert float(np.mean(errors)) < 0.05
    assert found.changed == 1
    assert not found.kept
    assert found.stated["changed"] == "1 of 16"
    assert found.stated["changed_at_most"] == "26%"
    assert proof(errors, [0.05] * 15 + [0.7]).kept  # the other sampler loses it, too
    assert not proof(errors, [0.05] * 14 + [0.7, 0.05]).kept  # that is another one
    assert not proof([0.66, *errors[1:]], [0.7] + [0.05] * 15).kept  # two are lost, and one by both


def test_the_interval_of_skew_errors_is_never_below_zero_and_holds_the_limit() -> None:
    errors = [0.002] * 15 + [0.66]
    found = proof(errors, None, error=0.01).mean
    assert 0 <= found.low <= found.value <= found.high
    assert found.high > float(np.mean(errors)) + 0.01
    even = proof([0.02] * 16, None, error=0.01).mean
    assert even.low == pytest.approx(math.sqrt(0.02**2 - 0.01**2))
    assert even.high == pytest.approx(0.03)


def test_intervals_hold_the_mean_of_skew_errors() -> None:
    rng = np.random.default_rng(0)
    expected = math.exp(0.5)
    held = sum(
        found.low <= expected <= found.high
        for found in (proof(list(rng.lognormal(size=16)), None, 0.0).mean for _ in range(300))
    )
    assert held > 0.8 * 300  # of 16 values of so skew a distribution
