"""The campaign of samplers: its statistics, its limit, and all of it in little."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.__main__ import parser_of
from benchmarks.registry import SUITES
from benchmarks.suites.fashion import campaign, paired
from benchmarks.suites.fashion.asking import asked, loaded
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.train import MODELS

from asymflow.bench.baselines import times
from asymflow.core import schedules
from asymflow.planning.effort import Effort


def errors(mean: float, seed: int, count: int = 64) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return mean * np.exp(0.2 * np.random.default_rng(seed).standard_normal(count))


def test_a_ratio_is_to_the_best_and_its_interval_is_that_of_common_seeds() -> None:
    own = errors(1.0, 0)
    found = paired.ratio_to_best(np.stack([3 * own, 2 * own]), own)
    # All seeds are the same for both, so nothing is left to chance.
    assert found == pytest.approx({"value": 2, "low": 2, "high": 2})
    apart = paired.ratio_to_best(errors(2.0, 1)[None], own)
    assert apart["low"] < apart["value"] < apart["high"]


def test_bounds_of_a_band_hold_together() -> None:
    """In at least some 95 of 100 repetitions all bounds are below the real ratios."""
    real = {"a": 1.1, "b": 1.3, "c": 1.2, "d": 1.1}
    held = single = 0
    for trial in range(60):
        own = errors(1.0, 100 * trial)
        drawn = {
            name: errors(ratio, 100 * trial + 1 + k) for k, (name, ratio) in enumerate(real.items())
        }
        bounds = paired.band(drawn, own)["bounds"]
        held += all(bounds[name] <= ratio for name, ratio in real.items())
        alone = paired.band({"a": drawn["a"]}, own)["bounds"]["a"]
        single += alone >= bounds["a"]
    assert held >= 52
    assert single == 60  # one bound alone is nearer


def test_not_inferior_are_those_whose_bounds_are_all_above_the_margin() -> None:
    own = errors(1.0, 0)
    assert paired.band({"a": 1.01 * own + 1e-9 * errors(1.0, 1)}, own)["not_inferior"]
    worse = {"a": errors(3.0, 1), "b": 0.9 * errors(1.0, 2)}
    assert not paired.band(worse, own)["not_inferior"]


def test_passes_to_reach_an_error_are_interpolated_in_logarithms() -> None:
    noise = errors(1.0, 0)
    ladder = {passes: noise * passes**-2.0 for passes in (4, 8, 16, 32)}
    found = paired.passes_to_reach(ladder, noise * 12.0**-2, 6)
    assert found["value"] == pytest.approx(2)
    assert found["low"] == pytest.approx(2)
    assert not any(found["capped"].values())
    # A rung that is worse than one before it reaches nothing.
    ladder[16] = noise * 6.0**-2
    again = paired.passes_to_reach(ladder, noise * 8.0**-2, 4)
    assert again["value"] == pytest.approx(2)
    never = paired.passes_to_reach(ladder, noise / 1e6, 6)
    assert never["value"] == 32 / 6
    assert all(never["capped"].values())


def test_the_limit_has_times_of_two_kinds() -> None:
    found = campaign.limit_times(schedules.uniform(400), 50)
    assert found[0] == 1
    assert found[-1] == 0
    assert all(t > s for t, s in pairwise(found))
    assert {round(t, 6) for t in schedules.uniform(50)} <= {round(t, 6) for t in found}
    assert len(found) > 95


def little(network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The table of a quick campaign, of fewer grids, with a limit of fewer steps."""
    for name, few in {"LIMIT": 24, "OTHER": 40, "CHORDS": 16, "CHECKED": 2}.items():
        monkeypatch.setattr(campaign, name, few)
    monkeypatch.setattr(times, "SHIFTS", (2.0,))
    [suite] = [each for each in SUITES if each.name == "fashion campaign"]
    given = ["--quick", "--networks", network, "--out", str(tmp_path)]
    campaign.run(parser_of(suite, quick=True).parse_args(given))
    report = json.loads((tmp_path / f"campaign-{network}.json").read_text("utf-8"))
    assert (tmp_path / f"campaign-{network}.png").stat().st_size > 10_000
    [table] = report["tables"].values()
    return table


def test_the_campaign_in_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("matplotlib")
    table = little("jit", tmp_path, monkeypatch)
    [row] = table["rows"]
    assert set(table["spent"]) == {"limit", "choice", "fit", "proof", "ladder"}
    assert all(part["passes"] > 0 for part in table["spent"].values())
    assert row["ours"]["passes"] <= 4
    assert all(found["passes"] <= 4 for found in row["baselines"].values())
    assert row["ours"]["mean"] < row["baselines"]["Euler (DDIM)"]["mean"]
    named = min(row["band"]["bounds"], key=lambda name: row["baselines"][name]["mean"])
    assert row["best"] == named
    assert table["limit"]["mean"] < 0.02


def test_the_embedded_model_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("matplotlib")
    few = [each for each in campaign.METHODS if each.quick or each.family == campaign.UNFITTED]
    monkeypatch.setattr(campaign, "METHODS", few)
    monkeypatch.setattr(campaign, "FULL_EFFORT", Effort(4, 24, 4, 1, 1))
    [row] = little("embedded", tmp_path, monkeypatch)["rows"]
    assert row["ours"]["passes"] <= 4
    assert row["ours"]["guided_steps"] == 1  # and two that are not
    assert set(row["baselines"]) == {each.family for each in few}
    assert all(found["passes"] <= 4 for found in row["baselines"].values())
    assert all(math.isfinite(found["mean"]) for found in row["baselines"].values())


def test_models_are_asked_by_their_cards_and_guided_as_their_own_samplers() -> None:
    few = argparse.Namespace(models=MODELS, guidance=None)
    tables = list(campaign.each_table(["jit", "embedded"], few, 16, 64))
    guided = {table.title: table for table in tables if table.guided}
    assert len(tables) == 4
    assert {title: table.lows for title, table in guided.items()} == {
        "Fashion JiT, guidance 2": campaign.LOWS,
        "The embedded model, guidance 5": pytest.approx((0.7, 0.8, 0.9)),
    }
    jit, embedded = guided.values()
    assert [request.inputs for request in jit.fresh] == [{"label": i % 10} for i in range(64)]
    assert (embedded.interval(0.0), embedded.interval(0.7)) == ((0.6, 1.0), (0.7, 1.0))
    fitted = asked(embedded.model, embedded.scale, campaign.FITTED, 16)
    prompts = [request.inputs["prompt"] for request in (*fitted, *embedded.chosen, *embedded.fresh)]
    assert len(set(prompts)) == 16 + 16 + 64
    assert {request.guidance_scale for request in embedded.fresh} == {5.0}


def test_a_grid_may_be_the_best_in_another_interval_only(monkeypatch: pytest.MonkeyPatch) -> None:
    table = campaign.Table.of(loaded(MODELS / NETWORKS["jit"].file), 2.0, 1, 0)

    def known(_: object, setting: campaign.Setting, price: int, wanted: Sequence[object]) -> Any:
        others = 2.0 if setting.grid == "beta" else 1.0
        best = (setting.grid, setting.low) == ("beta", campaign.LOWS[-1])
        return np.full(len(wanted), 0.1 if best else others)

    monkeypatch.setattr(campaign.Table, "errors", known)
    left = campaign.choose(table, 6, (1, 1))
    assert {(found[0].grid, found[0].low) for found in left.values()} == {("beta", 0.3)}


def test_a_fine_solution_steps_to_where_guidance_begins() -> None:
    model = loaded(MODELS / NETWORKS["jit"].file)
    table = campaign.Table.of(model, 2.0, 1, 1)
    plan = table.fine(schedules.uniform(8), "corrected2")
    guided = [step.t for step in plan.steps if step.tier.guided]
    high = model.card.guidance_interval[1]
    assert high == 0.9
    assert guided[0] == high - campaign.EDGE
    assert [step.t for step in plan.steps if not step.tier.guided] == [1.0]
    assert len(plan.steps) == 8
    # The network is guided there, and at the end itself it is not.
    with torch.inference_mode():
        both = [
            model.denoise(torch.zeros(1, 1, 32, 32), torch.tensor([t]), context)
            for t in (high, guided[0])
            for context in model.encode(table.fresh[:1])
        ]
    assert torch.equal(both[0], both[1])
    assert not torch.equal(both[2], both[3])
    assert campaign.Table.of(model, 1.0, 1, 1).fine(schedules.uniform(8), "euler").times == (
        schedules.uniform(8)
    )
