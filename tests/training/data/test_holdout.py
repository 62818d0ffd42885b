"""The held-out rule."""

from __future__ import annotations

import random

import pytest

from asymflow.training.data.holdout import FRACTION, held_out, position

STYLES = tuple("abcdefgh")
PAIRS = [(f"{key:x}", style) for key in range(4000) for style in STYLES]


def test_about_five_percent() -> None:
    assert len(held_out(PAIRS)) / len(PAIRS) == pytest.approx(FRACTION, abs=0.004)


def test_order_and_repeats_do_not_matter() -> None:
    shuffled = PAIRS * 2
    random.Random(0).shuffle(shuffled)
    assert held_out(shuffled) == held_out(PAIRS)


@pytest.mark.parametrize("count", range(1, 9))
def test_enough_styles_stay(count: int) -> None:
    pairs = [(key, style) for key, style in PAIRS if style in STYLES[:count]]
    left: dict[str, int] = {}
    chosen = held_out(pairs)
    for pair in pairs:
        left[pair[0]] = left.get(pair[0], 0) + (pair not in chosen)
    assert bool(chosen) == (count > 3)
    assert min(left.values()) >= min(count, 3)
    if count == 4:
        assert min(left.values()) == 3


def test_a_concept_does_not_depend_on_others() -> None:
    chosen = held_out(PAIRS)
    some = {pair for pair in PAIRS if int(pair[0], 16) % 7 == 0}
    assert held_out(some) == chosen & some


@pytest.mark.parametrize("count", [4, 8])
def test_the_lowest_hashes_go_first(count: int) -> None:
    styles = STYLES[:count]
    chosen = held_out((key, style) for key, style in PAIRS if style in styles)
    for key in {key for key, _ in chosen}:
        mine = [position(key, style) for style in styles if (key, style) in chosen]
        rest = [position(key, style) for style in styles if (key, style) not in chosen]
        assert max(mine) < min(rest)


def test_positions_never_change() -> None:
    # Recorded once; a change would move pictures between training and evaluation.
    assert position("1f98a", "noto") == pytest.approx(0.8254271194978859, abs=1e-15)
    pairs = [(key, style) for key in ("1f33b", "1f405", "1f438", "1f98a")
             for style in ("fluent-3d", "fluent-flat", "noto", "noto-v1", "twemoji")]  # fmt: skip
    assert held_out(pairs) == {
        ("1f33b", "fluent-3d"), ("1f405", "fluent-flat"), ("1f438", "noto"),
    }  # fmt: skip
