"""Samples of weights: rounded to float16 and to bfloat16 they match, anything else does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asymflow.core.fingerprint import ROUNDED, Fingerprint, Rounded

# From what float16 rounds to 0 up to its largest number.
weights = st.floats(-65504, 65504, width=32)


def rounded(value: float, dtype: torch.dtype) -> float:
    return float(torch.tensor(value).to(dtype).float())


def alike(half: float, brain: float) -> bool:
    one, other = Fingerprint("a", "float16", (half,)), Fingerprint("b", "bfloat16", (brain,))
    assert one.matches(other) is other.matches(one)
    return one.matches(other)


@given(weights)
def test_both_roundings_of_a_number_match(value: float) -> None:
    assert alike(rounded(value, torch.float16), rounded(value, torch.bfloat16))


@pytest.mark.parametrize("value", [0.1, -3.7e-3, 1.0, 0.0123])
def test_the_next_numbers_do_not(value: float) -> None:
    half, brain = rounded(value, torch.float16), rounded(value, torch.bfloat16)
    # bfloat16 keeps 8 bits, and float16 three more: roundings differ by at most 9/16 of a unit.
    unit = 2.0 ** (np.floor(np.log2(abs(brain))) - 7)
    for moved in (brain + 0.7 * unit, brain - 0.7 * unit):
        assert not alike(rounded(moved, torch.float16), brain)
    assert not alike(half, rounded(brain + 2 * unit, torch.bfloat16))


def test_numbers_of_float32_match_themselves_only() -> None:
    assert alike(0.1234567, 0.1234567)  # as norms do that are left in float32
    assert not alike(0.1234567, 0.1234568)
    assert not alike(0.1234567, rounded(0.1234567, torch.bfloat16))
    assert not alike(rounded(0.1234567, torch.float16), 0.1234567)


def test_one_number_that_differs_is_enough() -> None:
    half = Fingerprint("a", "float16", (0.5, -0.25, 3.0))
    assert half.matches(Fingerprint("b", "bfloat16", half.sample))
    assert not half.matches(Fingerprint("b", "bfloat16", (0.5, -0.25, 3.5)))
    assert not half.matches(Fingerprint("b", "bfloat16", half.sample[:2]))
    assert not Fingerprint("a", "float16").matches(Fingerprint("b", "bfloat16"))


@pytest.mark.parametrize("kind", [*ROUNDED, None])
def test_in_one_precision_the_hash_decides_since_it_sees_all_weights(kind: Rounded | None) -> None:
    one = Fingerprint("a", kind, (0.5,))
    assert not one.matches(Fingerprint("b", kind, (0.5,)))
    assert one.matches(Fingerprint("a", kind, (0.25,)))
    if kind is not None:
        assert not one.matches(Fingerprint("b", None, (0.5,)))


def test_what_is_not_finite_matches_itself_only() -> None:
    infinite = float("inf")
    assert alike(infinite, infinite)
    assert not alike(infinite, 65504.0)
    assert not alike(float("nan"), 1.0)
