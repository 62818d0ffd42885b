"""Giving out steps by pictures: what the suite `fashion adaptive` says of made-up errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.__main__ import parser_of
from benchmarks.registry import SUITES
from benchmarks.suites.fashion import adaptive, campaign

from asymflow.planning.effort import Effort

STEPS = np.array([4.0, 8.0, 16.0])


def made_up(hard: adaptive.Array) -> adaptive.Array:
    """Errors of second order of pictures that are so hard."""
    return hard / STEPS[:, None] ** 2


@pytest.mark.parametrize("mean", [5.0, 8.0, 12.0])
def test_hard_pictures_get_the_steps(mean: float) -> None:
    hard = np.geomspace(1, 300, 200)
    errors = made_up(hard)
    picked = adaptive.allocated(errors, STEPS, mean)
    assert STEPS[picked].mean() <= mean
    assert STEPS[picked].mean() > mean - 0.2
    assert (np.diff(picked) >= 0).all()
    own = errors[picked, np.arange(200)]
    assert own.mean() < 0.8 * adaptive.fixed(errors.mean(1)[:, None], STEPS, mean)[0]


def test_where_all_are_alike_nothing_is_gained() -> None:
    errors = made_up(np.full(200, 1.0))
    picked = adaptive.allocated(errors, STEPS, 8.0)
    assert errors[picked, np.arange(200)].mean() >= errors[1].mean() - 1e-12


def test_between_two_plans_errors_are_those_of_their_order() -> None:
    found = adaptive.fixed(made_up(np.array([1.0, 3.0])), STEPS, 10.0)
    np.testing.assert_allclose(found, np.array([1.0, 3.0]) / 100)


def test_predictions_know_the_other_half_only() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 10
    signals = np.exp(rng.standard_normal((400, 3)))
    hard = np.asarray(signals[:, 0] ** 2 * (1 + labels), np.float64)
    errors = made_up(hard)
    by_signals = adaptive.by_signals(errors, signals, labels)
    assert np.corrcoef(np.log(by_signals[1]), np.log(errors[1]))[0, 1] > 0.99
    by_class = adaptive.by_class(errors, labels)
    first, second = (np.arange(400) // 10 % 2 == part for part in (0, 1))
    of_zero = labels == 0
    np.testing.assert_allclose(by_class[1, of_zero & first], errors[1, of_zero & second].mean())
    # Noise has nothing to say of pictures that it was not seen with.
    noise = adaptive.by_signals(made_up(np.exp(rng.standard_normal(400))), signals, labels)
    assert np.log(noise[1]).std() < 0.5


def test_the_suite_in_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(campaign, "FULL_EFFORT", Effort(2, 12, 1, 1))
    [suite] = [each for each in SUITES if each.name == "fashion adaptive"]
    given = ["--networks", "jit", "--out", str(tmp_path)]
    report = adaptive.run(parser_of(suite, quick=True).parse_args(given))["jit"]
    [table] = report["tables"].values()
    assert table["errors"] == sorted(table["errors"], reverse=True)
    [row] = table["rows"]
    assert row["oracle"]["gain"]["value"] >= row["class"]["gain"]["value"]
    assert row["oracle"]["gain"]["value"] > 1
    assert (tmp_path / "adaptive-jit.png").stat().st_size > 10_000
