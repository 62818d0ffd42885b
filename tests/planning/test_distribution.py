"""The gate of distributions: how often it is wrong, what it sees, and in which unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval
from asymflow.planning.distribution import (
    TOLERANCE,
    Comparison,
    Pictures,
    Rows,
    Share,
    blurred,
    compare,
    compare_features,
    multiscale,
    noisy,
)

Chosen = NDArray[np.bool_]


def shapes(count: int, seed: int, rings: float = 0.5) -> Pictures:
    """Pictures [n, 16, 16, 1] of grey discs and, as a share of `rings`, of rings."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16]
    middle = rng.uniform(5, 10, (2, count, 1, 1))
    distance = np.hypot(y - middle[0], x - middle[1])
    outer = rng.uniform(3.5, 6, (count, 1, 1))
    ring = rng.random((count, 1, 1)) < rings
    shape = (distance < outer) & ~(ring & (distance < outer - 1.6))
    shade = rng.uniform(0.5, 1, (count, 1, 1))
    return np.asarray((shape * shade)[..., None], np.float32)


def some(count: int, share: float, seed: int) -> Chosen:
    """So many of them, chosen independently."""
    return np.random.default_rng(seed).random(count) < share


def test_equal_distributions_differ_as_rarely_as_stated() -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(8, 8))
    apart, pairs = 0, 0
    for number in range(300):
        many, other = rng.normal(size=(2, 40, 8)) @ mix
        apart += compare_features(other, many, {}).seen
        if number < 100:
            mostly = np.where(rng.random((40, 1)) < 0.3, other, many)
            pairs += compare_features(mostly, many, {}).seen
    # 2.5 % are 7.5 of 300 and 2.5 of 100; more is seen in one of 200 such tests.
    assert 1 <= apart <= 15
    assert pairs <= 7


def test_intervals_hold_the_share_and_power_is_as_stated() -> None:
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(8, 8))

    def measured(share: float) -> Comparison:
        """Of pictures of which a tenth are others, and a share is moved by one."""
        many, other = rng.normal(size=(2, 128, 8)) @ mix
        planned = np.where(rng.random((128, 1)) < 0.1, other, many)
        planned = np.where(rng.random((128, 1)) < share, many + 1, planned)
        return compare_features(planned, many, {"moved": many + 1})

    share = float(np.mean([measured(0.0).shares["moved"].detectable for _ in range(10)]))
    found = [measured(share) for _ in range(60)]
    intervals = [each.shares["moved"].share for each in found]
    assert 0.7 <= np.mean([each.seen for each in found]) <= 0.95
    assert np.mean([each.low <= share <= each.high for each in intervals]) >= 0.9
    assert np.mean([each.value for each in intervals]) == pytest.approx(share, rel=0.2)


def test_a_shift_of_weights_of_modes_is_seen_on_as_many_pictures_as_stated() -> None:
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(6, 8)) * 2

    def measured(count: int, shift: float) -> Comparison:
        """Six modes, of whose pictures a tenth come from another noise; one gains on one."""
        modes = rng.integers(6, size=count)
        others = np.where(rng.random(count) < 0.1, rng.integers(6, size=count), modes)
        gone = (others == 0) & (rng.random(count) < 6 * shift)
        others = np.where(gone, 5, others)
        many, planned = (centres[each] for each in (modes, others))
        noise = rng.normal(size=(count, 8)) * 0.3
        planned = planned + np.where((modes == others)[:, None], noise, rng.permutation(noise))
        return compare_features(planned, many + noise, {})

    count = measured(200, 0.0).needed(0.1)
    assert 50 < count < 1000
    assert np.mean([measured(count, 0.1).seen for _ in range(16)]) >= 0.75
    assert np.mean([measured(count, 0.0).seen for _ in range(16)]) <= 0.13


def test_equal_pictures_bound_the_share_that_was_not_met() -> None:
    found = compare(shapes(128, 0), shapes(128, 0))
    assert found.distance == Interval(0.0, 0.0, 0.0)
    # With this share none of 128 pictures is of another kind in 2.5 of 100 measurements.
    for each in found.shares.values():
        assert (1 - each.share.high) ** 128 == pytest.approx(0.025)
        assert each.detectable > each.share.high
    assert found.kept
    assert not found.seen
    assert not found.lost


def test_the_order_of_pictures_does_not_matter() -> None:
    many = shapes(64, 0)
    planned = np.where(some(64, 0.3, 1)[:, None, None, None], shapes(64, 2), many)
    order = np.random.default_rng(3).permutation(64)
    assert compare(planned[order], many[order]) == compare(planned, many)
    assert compare(planned[order], many) != compare(planned, many)  # seeds are pairs


@pytest.mark.parametrize("kind", ["blurred", "noisy"])
def test_a_share_of_changed_pictures_is_found_again(kind: str) -> None:
    many = shapes(300, 0)
    changed = {"blurred": blurred, "noisy": noisy}[kind](many)
    planned = np.where(some(300, 0.2, 1)[:, None, None, None], changed, many)
    found = compare(planned, many)
    share = found.shares[kind].share
    assert share.low < 0.2 < share.high
    assert share.high - share.low < 0.15
    assert found.lost


def test_what_is_worse_everywhere_is_seen() -> None:
    many = shapes(200, 0)
    rng = np.random.default_rng(0)
    worse = {
        "contrast": 0.9 * many + 0.05,
        "blur": 0.7 * many + 0.3 * blurred(many),
        "noise": (many + rng.normal(0, 0.05, many.shape)).clip(0, 1),
        "no rings": shapes(200, 0, rings=0),
    }
    for name, planned in worse.items():
        assert compare(planned, many).lost, name


def test_other_pictures_of_the_same_distribution_are_no_difference() -> None:
    many = shapes(400, 0)
    planned = np.where(some(400, 0.05, 1)[:, None, None, None], shapes(400, 2), many)
    found = compare(planned, many)
    assert not found.lost
    assert not found.seen
    # A tenth of rings more is seen, of as many pictures.
    rings = shapes(400, 2, rings=1)
    assert compare(np.where(some(400, 0.2, 1)[:, None, None, None], rings, many), many).seen


def test_features_are_colours_and_details_by_scale() -> None:
    plain = np.broadcast_to(np.array([0.2, 0.5, 0.8], np.float32), (1, 16, 16, 3))
    found = multiscale(plain)[0]
    colours, details = found[:48].reshape(3, 16), found[48:].reshape(3, 3, 4)
    np.testing.assert_allclose(colours, np.repeat([[0.2], [0.5], [0.8]], 16, 1), atol=1e-6)
    np.testing.assert_allclose(details, 0, atol=1e-6)
    stripes = np.zeros((1, 16, 16, 1), np.float32)
    stripes[:, :, ::2] = 1
    of_stripes = multiscale(stripes)[0]
    np.testing.assert_allclose(of_stripes[:16], 0.5)
    # All at the finest scale and across; a wave between 0 and 1 has an amplitude of a half.
    np.testing.assert_allclose(of_stripes[16:20], 0.5)
    np.testing.assert_allclose(of_stripes[20:], 0, atol=1e-7)
    wide = np.repeat(np.repeat(stripes, 2, 1), 2, 2)[:, :, :28]
    np.testing.assert_allclose(multiscale(wide)[0][16:28], 0, atol=1e-7)
    np.testing.assert_allclose(multiscale(wide)[0][28:32], 0.5)
    assert multiscale(np.zeros((2, 13, 21, 4), np.float32)).shape[0] == 2


def test_a_feature_that_never_changes_does_no_harm() -> None:
    opaque = np.concatenate([shapes(40, 0), np.ones((40, 16, 16, 1), np.float32)], -1)
    assert compare(opaque, opaque).distance.value == 0
    flat = np.full((40, 8, 8, 1), 0.5, np.float32)
    found = compare(flat, flat)
    assert set(found.shares) == {"noisy"}  # there is nothing to blur, and one kind only
    assert compare(flat + 0.1, flat).lost


def test_verdicts_are_by_all_kinds() -> None:
    little, much = Interval(0.02, 0.0, 0.04), Interval(0.2, 0.1, 0.3)
    open_ = Interval(0.04, 0.01, 0.08)
    base = Comparison(100, Interval(0.1, 0.05, 0.2), {"a": Share(little, 0.04)})
    assert base.kept
    assert str(base).startswith(f"the same within {TOLERANCE:.0%}; on 100 pictures")
    other = replace(base, shares={**base.shares, "b": Share(much, 0.1)})
    assert other.lost
    assert not other.kept
    undecided = replace(base, shares={**base.shares, "b": Share(open_, 0.1)})
    assert not undecided.lost
    assert not undecided.kept
    assert undecided.needed(0.05) == 400
    assert undecided.needed(0.2) == 50
    assert "undecided, and 400 pictures would show 5%" in str(undecided)
    assert undecided.stated["distribution_b"] == "0.0400 (0.0100 to 0.0800)"
    assert undecided.stated["distribution_b_detectable"] == "0.1000"
    assert undecided.stated["distribution"] == str(undecided)


def rows_of(pictures: Pictures) -> Rows:
    return pictures.reshape(len(pictures), -1)[:, :3].astype(np.float64)


def test_features_may_be_given() -> None:
    many = np.random.default_rng(0).random((60, 8, 8, 1)).astype(np.float32)
    planned = many.copy()
    planned[:, 4:] = 0
    assert compare(planned, many, rows_of).distance.value == 0
    assert compare(planned, many).lost
    with pytest.raises(InputError, match="the same for all pictures"):
        compare(planned, many, lambda pictures: np.ones((len(pictures), 2)))


@pytest.mark.parametrize(
    ("planned", "many", "message"),
    [
        ((20, 8, 8, 1), (21, 8, 8, 1), r"shapes \(20, 8, 8, 1\) and \(21, 8, 8, 1\)"),
        ((20, 8, 8), (20, 8, 8), r"Give \[n, h, w, c\] of both"),
        ((15, 8, 8, 1), (15, 8, 8, 1), "15 pictures say nothing.*at least 16"),
    ],
)
def test_what_cannot_be_compared_is_said(
    planned: tuple[int, ...], many: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compare(np.zeros(planned, np.float32), np.zeros(many, np.float32))


def test_nan_is_said() -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        compare(np.full((20, 8, 8, 1), np.nan), np.zeros((20, 8, 8, 1)))
