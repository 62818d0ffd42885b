"""Other samplers against exact models and hand-made updates, and the table they end up in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.bench.baselines import report, runner, samplers, sampling
from asymflow.bench.baselines.protocol import Budget
from asymflow.bench.baselines.report import BASELINE, REFERENCE
from asymflow.bench.caching import BlockCache, Caching, Counted, FirstBlockCache, TaylorCache
from asymflow.core import presets, schedules
from asymflow.core.adapter import Adapter
from asymflow.core.errors import InputError
from asymflow.core.types import Profile, Request, Tier
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.models.embedded.network import PictureConfig, PictureModel
from asymflow.models.embedded.text import load_tokenizer
from asymflow.models.embedded.transformer import TransformerConfig
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import verifier
from tests.helpers import draw

from .conftest import Projection

STYLES = ("noto", "twemoji", "fxemoji")
SHAPE = TransformerConfig(width=32, depth=2, head_dim=16, hidden=64, text_width=32)
EXACT = Request({"label": 1}, (8, 8), seed=3, guidance_scale=2.0)
PLAIN = Request({"label": 1}, (8, 8), seed=3)
DRAWN = Request({"prompt": "a fox", "style": "noto"}, (32, 32), seed=1, guidance_scale=2.5)


@pytest.fixture(scope="module")
def exact() -> GaussianAdapter:
    return GaussianAdapter(draw(0, 2, 4, 8, 8), 0.3 + draw(1, 2, 4, 8, 8).abs())


@pytest.fixture(scope="module")
def adapter() -> EmbeddedAdapter:
    torch.manual_seed(0)
    model = PictureModel(PictureConfig(STYLES, SHAPE, rank=8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.text.set_vectors(torch.randn(30522, 32))
    model = model.eval().requires_grad_(False)
    return EmbeddedAdapter(model, "0" * 64, {}, load_tokenizer(), None)


def ends(
    sampler: samplers.Sampler, adapter: Adapter, request: Request = EXACT
) -> tuple[Tensor, int]:
    """x_0 and the rows that went through the network."""
    counted = Counted(adapter)
    with torch.inference_mode():
        return sampler.walk(counted, [request]), counted.rows


# Schedulers of diffusers.


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("make", [samplers.unipc, samplers.dpm])
def test_schedulers_reach_the_end_that_our_own_solver_reaches(
    exact: GaussianAdapter, make: Callable[..., samplers.Sampler], order: int
) -> None:
    ours = verifier.rollout(exact, schedules.plan_of(schedules.uniform(200)), [PLAIN])
    few, many = (
        float(verifier.rms(ends(make(order, steps, 1.0), exact, PLAIN)[0], ours)[0])
        for steps in (10, 40)
    )
    assert many < 6e-3
    assert many < few / 4


def test_two_steps_of_dpm_solver_are_those_of_the_paper(exact: GaussianAdapter) -> None:
    steps = 5
    grid = [0.999 - 0.999 * i / steps for i in range(steps)]
    grid = [2 * t / (1 + t) for t in grid]  # flow_shift = 2
    asked: list[tuple[float, Tensor, Tensor]] = []

    class Recording(Counted):
        def denoise(self, x_t: Tensor, t: Tensor, context: Any) -> Tensor:
            x_0 = super().denoise(x_t, t, context)
            asked.append((float(t[0]), x_t, x_0))
            return x_0

    sampler = samplers.dpm(2, steps, 2.0)
    x_0 = sampler.walk(Recording(exact), [PLAIN])
    assert_close([t for t, _, _ in asked], grid, atol=1e-6, rtol=0)
    log_snr = [math.log((1 - t) / t) for t in grid]
    for i in range(1, steps - 1):
        (t, x_t, newest), (_, _, older) = asked[i], asked[i - 1]
        s, x_s, _ = asked[i + 1]
        h, before = log_snr[i + 1] - log_snr[i], log_snr[i] - log_snr[i - 1]
        middle = newest + (newest - older) * h / (2 * before)
        assert_close(x_s, s / t * x_t - (1 - s) * math.expm1(-h) * middle, atol=2e-5, rtol=0)
    # The last step takes the estimate for the end.
    assert_close(x_0, asked[-1][2], atol=1e-5, rtol=0)


# The last steps begin at 0.051 and 0.101 (UniPC), and at 0.04995 and 0.0999 (DPM-Solver++).
@pytest.mark.parametrize(("make", "unguided"), [(samplers.unipc, 1), (samplers.dpm, 2)])
def test_outside_the_interval_the_unconditional_pass_is_not_computed(
    exact: GaussianAdapter, make: Callable[..., samplers.Sampler], unguided: int
) -> None:
    everywhere, inside = make(2, 20, 1.0), make(2, 20, 1.0, guided=(0.1, 1.0))
    assert ends(everywhere, exact)[1] - ends(inside, exact)[1] == unguided
    everywhere, inside = make(2, 6, 1.0), make(2, 6, 1.0, guided=(0.1, 1.0))
    assert ends(everywhere, exact)[1] == ends(inside, exact)[1]


def test_ddim_of_diffusers_is_our_euler(exact: GaussianAdapter) -> None:
    diffusers = pytest.importorskip("diffusers")
    steps = 6
    grid = schedules.shifted(steps, 3.0)
    # In diffusers' variance-preserving scale the state is x_t / k, with k^2 = (1 - t)^2 + t^2.
    kept = [(1 - t) ** 2 / ((1 - t) ** 2 + t**2) for t in reversed(grid[:-1])]
    betas = [1 - now / before for before, now in pairwise((1.0, *kept))]
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=steps,
        trained_betas=betas,
        clip_sample=False,
        prediction_type="sample",
    )
    scheduler.set_timesteps(steps)
    label = torch.ones(1, dtype=torch.long)
    x = draw(5, 1, 4, 8, 8)  # t = 1: k is 1
    start = x
    for t, timestep in zip(grid[:-1], scheduler.timesteps, strict=True):
        x_0 = exact.denoise(x * math.hypot(1 - t, t), torch.tensor([t]), {"label": label})
        x = scheduler.step(x_0, timestep, x).prev_sample
    euler = start
    for t, s in pairwise(grid):
        x_0 = exact.denoise(euler, torch.tensor([t]), {"label": label})
        euler = s / t * euler + (1 - s / t) * x_0
    assert_close(x, euler, atol=1e-5, rtol=0)


# GITS, iPNDM, skipping.


def profile(count: int, made: dict[str, str] | None = None) -> Profile:
    """Of random errors that grow with the length of a move."""
    rng = np.random.default_rng(0)
    local_error = np.full((1, count, count, count), np.inf, np.float32)
    for i in range(count):
        for j in range(i + 1, count):
            local_error[0, i, i, j] = rng.random() * (j - i) ** 2
    nothing = np.zeros((count, count, count), np.float32)
    return Profile(
        schedules.shifted(count - 1, 2.0),
        (Tier("full"),),
        (1.0,),
        (1,),
        (1,),
        nothing[0, 0],
        1.0,
        local_error,
        nothing,
        nothing[:1],
        made or {},
    )


@pytest.mark.parametrize("steps", [1, 3, 4, 8])
def test_gits_finds_the_grid_that_brute_force_finds(steps: int) -> None:
    known = profile(9)

    def error(nodes: tuple[int, ...]) -> float:
        return sum(float(known.local_error[0, i, i, j]) for i, j in pairwise(nodes))

    grids = ((0, *inner, 8) for inner in combinations(range(1, 8), steps - 1))
    best = min(grids, key=error)
    assert samplers.gits_times(known, steps) == tuple(known.times[i] for i in best)


def test_gits_refuses_more_steps_than_there_are_moves() -> None:
    with pytest.raises(InputError, match="no grid of 9 steps"):
        samplers.gits_times(profile(9), 9)


def test_adams_bashforth_integrates_polynomials() -> None:
    for weights in samplers.ADAMS_BASHFORTH:
        for power in range(len(weights)):
            # Nodes at 0, -1, -2, ..., and the integral from 0 to 1.
            found = sum(w * float(-k) ** power for k, w in enumerate(weights))
            assert found == pytest.approx(1 / (power + 1))


def test_ipndm_is_far_more_exact_than_euler(exact: GaussianAdapter) -> None:
    grid = schedules.uniform(40)
    truth = verifier.rollout(exact, schedules.plan_of(schedules.shifted(400, 2.0)), [EXACT])
    euler = verifier.rollout(exact, schedules.plan_of(grid, solver="euler"), [EXACT])
    theirs = samplers.adams(exact, [EXACT], grid=grid)
    assert verifier.rms(theirs, truth)[0] < 0.2 * verifier.rms(euler, truth)[0]


def test_skipping_nothing_is_euler_and_skipping_all_keeps_its_limit(exact: GaussianAdapter) -> None:
    grid = schedules.uniform(20)
    counted = Counted(exact)
    euler = verifier.rollout(exact, schedules.plan_of(grid, solver="euler"), [EXACT])
    assert_close(
        samplers.skip(counted, [EXACT], grid=grid, threshold=0.0), euler, atol=1e-5, rtol=0
    )
    assert counted.rows == 40
    counted = Counted(exact)
    samplers.skip(counted, [EXACT], grid=grid, threshold=math.inf, max_skips=4)
    assert counted.rows == 2 * 6  # steps 0, 1, 2, 7, 12, 17


def test_skipping_waits_for_an_even_trajectory(exact: GaussianAdapter) -> None:
    grid = schedules.uniform(50)
    rows: list[int] = []
    for threshold in (0.001, 0.01, 0.1):
        counted = Counted(exact)
        samplers.skip(counted, [EXACT], grid=grid, threshold=threshold)
        rows.append(counted.rows)
    assert rows[0] > rows[1] > rows[2] > 2 * 50 / 5


# Block caches.


def walk(adapter: Adapter) -> Tensor:
    plan = presets.Grid(steps=6, guidance_interval=(0.5, 1.0)).plan((32, 32))
    return verifier.rollout(adapter, plan, [DRAWN])


@pytest.mark.parametrize("cache", [FirstBlockCache(0.0), TaylorCache(1)])
def test_a_cache_that_reuses_nothing_changes_no_bit(
    adapter: EmbeddedAdapter, cache: BlockCache
) -> None:
    caching = Caching(adapter, cache)
    assert torch.equal(walk(caching), walk(adapter))
    assert caching.whole == caching.rows < 12  # guidance has ended on the way


@pytest.mark.parametrize("cache", [FirstBlockCache(math.inf), TaylorCache(100)])
def test_a_cache_that_reuses_all_computes_the_beginning_only(
    adapter: EmbeddedAdapter, cache: BlockCache
) -> None:
    plain = walk(adapter)
    caching = Caching(adapter, cache)
    assert not torch.equal(walk(caching), plain)
    assert caching.whole == (2 if isinstance(cache, FirstBlockCache) else 4)
    assert caching.rows > 6
    assert torch.equal(walk(adapter), plain)  # the model itself has been left alone


def test_the_first_block_decides(adapter: EmbeddedAdapter) -> None:
    caching = Caching(adapter, FirstBlockCache(0.1))
    context, _ = adapter.encode([DRAWN])
    x, other = draw(2, 1, 4, 32, 32), draw(3, 1, 4, 32, 32)
    t = torch.tensor([0.5])
    with torch.inference_mode():
        first = caching.denoise(x, t, context)
        near = x + 1e-3 * other
        again = caching.denoise(near, t, context)
        assert caching.whole == 1
        # Nearly what computing everything gives, and not the first answer over again.
        assert_close(again, adapter.denoise(near, t, context), atol=1e-2, rtol=0)
        assert not torch.equal(again, first)
        far = caching.denoise(other, torch.tensor([0.1]), context)
        assert caching.whole == 2
        assert torch.equal(far, adapter.denoise(other, torch.tensor([0.1]), context))


def test_a_forecast_is_exact_for_a_residual_that_is_linear_in_time() -> None:
    cache = TaylorCache(3)
    slope = draw(4, 1, 5, 8)
    computed: list[float] = []

    def add(y: Tensor) -> Tensor:
        computed.append(cache.t)
        return y

    for t in (0.9, 0.8, 0.5, 0.4, 0.1):
        cache.t = t
        x = draw(round(100 * t), 1, 5, 8)
        y = cache.block(0, False, x, partial(add, x + 1))
        y = cache.block(1, True, y, partial(add, x + t * slope))
        assert_close(y, x + t * slope, atol=1e-5, rtol=0)
    assert computed == [0.9, 0.9, 0.8, 0.8, 0.1, 0.1]


def test_a_cache_computes_what_it_has_too_few_rows_for(adapter: EmbeddedAdapter) -> None:
    context, _ = adapter.encode([DRAWN, DRAWN])
    single = {key: value[:1] for key, value in context.items()}
    x = draw(2, 2, 4, 32, 32)
    for cache in (FirstBlockCache(math.inf), TaylorCache(100)):
        caching = Caching(adapter, cache)
        with torch.inference_mode():
            for t in (0.9, 0.8):
                caching.denoise(x[:1], torch.tensor([t]), single)
            before = cache.whole
            both = torch.full((2,), 0.7)
            assert torch.equal(caching.denoise(x, both, context), adapter.denoise(x, both, context))
            assert cache.whole == before + 2


# The table.


@pytest.fixture
def run(
    adapter: EmbeddedAdapter, dataset_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., report.BaselinesReport]:
    """The suite in miniature: a reference, baselines and adaptive samplers of few steps."""
    monkeypatch.setattr(runner, "load_network", Projection)
    monkeypatch.setattr(schedules, "fine_plan", partial(schedules.fine_plan, count=4))
    few = Budget(
        quick=True,
        steps=(3,),
        gits_steps=(3,),
        cache_steps=6,
        first_block=(0.2,),
        taylor=(2,),
        skip=(0.05,),
        counted=1,
        save_every=2,
    )
    grid = schedules.uniform(3)
    baseline = samplers.planned(schedules.plan_of(grid, solver="heun"), BASELINE, "baseline")
    monkeypatch.setattr(runner, "baselines", lambda: (baseline,))

    def adaptive(threshold: float, guided: tuple[float, float]) -> samplers.Sampler:
        skip = partial(samplers.skip, grid=grid, threshold=threshold, guided=guided)
        return samplers.Sampler(f"skip {threshold}", "skip", {"threshold": threshold}, skip)

    monkeypatch.setattr(runner, "adaptive", adaptive)
    plans = {"small": presets.Grid(steps=3).plan((32, 32))}
    made = {"adapter": adapter.name, "size": "32x32"}
    known = profile(12, made)
    return partial(
        runner.compare, adapter, plans, dataset_root, size=32, pairs=9, profile=known, budget=few
    )


def test_a_run_is_complete_resumes_and_writes_its_files(
    run: Callable[..., report.BaselinesReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(what: str, done: int, total: int) -> None:
        if what.startswith("generating") and done > total / 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(out=tmp_path, on_progress=interrupt)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*")}
    assert len(kept) > 10
    (damaged := next(path for path in kept if path.suffix == ".npz")).write_bytes(b"PK")
    report = run(out=tmp_path)

    names = [result.name for result in report.results]
    assert names[:2] == [REFERENCE, BASELINE]
    assert "GITS + iPNDM, 3 steps" in names
    assert names[-1] == "asymflow small"
    assert all(f"{name}, 3 steps" in names for name in ("UniPC-3", "DPM-Solver++ 2M"))
    reference, heun = report.result(REFERENCE), report.result(BASELINE)
    assert reference.to_reference.value == pytest.approx(0, abs=1e-6)
    assert reference.rms.value == 0 < heun.rms.value
    assert heun.forwards == heun.whole == 2 * 5
    assert heun.speedup.median == heun.speedup.low == 1
    assert report.result("GITS + iPNDM, 3 steps").forwards == 6
    taylor = report.result("TaylorSeer 1 of 2, 6 steps")
    plain = report.result("damped2, 6 steps")
    assert taylor.forwards == plain.forwards == plain.whole > taylor.whole > 0
    assert plain.macs > taylor.macs > 0
    # A forward costs the same everywhere; the prompt is read once.
    assert heun.macs / heun.forwards == pytest.approx(plain.macs / plain.forwards, rel=0.2)
    assert 0 < heun.peak_bytes < 1e9
    assert report.settings["pairs"] == heun.score.n == 9
    shifts = {f"{shift:g}" for shift in samplers.SHIFTS}
    assert all(set(found) == shifts for found in report.searched.values())
    for result in report.results:
        if result.family in ("UniPC", "DPM-Solver++"):
            found = report.searched[result.name]
            least = min(error for error in found.values() if error is not None)
            assert found[f"{result.settings['flow_shift']:g}"] == least

    assert {path.name for path in tmp_path.iterdir()} == {
        "cache",
        "baselines.json",
        "baselines.png",
        "sheet.png",
    }
    assert damaged.stat().st_size > 1000
    text = (tmp_path / "baselines.json").read_text("utf-8")
    assert text == report.to_json()
    assert json.loads(text)["results"][1]["name"] == BASELINE
    table = str(report)
    assert all(name in table for name in names)

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is left to generate")

    monkeypatch.setattr(sampling, "generate", refuse)
    assert run(out=tmp_path).to_json() == report.to_json()


def test_unfit_input_is_refused_before_anything_is_generated(
    run: Callable[..., report.BaselinesReport], adapter: EmbeddedAdapter
) -> None:
    with pytest.raises(InputError, match="raise `pairs`"):
        run(pairs=2)
    with pytest.raises(InputError, match="was measured on other"):
        run(profile=profile(12, {"adapter": "other", "size": "32x32"}))
    with pytest.raises(InputError, match="lower `pairs`"):
        run(pairs=100)
    impossible = presets.Grid(steps=2).plan((32, 32))
    quarter = schedules.plan_of(impossible.times)
    assert adapter.pool_factors((32, 32)) == ()
    small = type(quarter)(
        "quarter", tuple(_at(step, Tier("quarter", pool_factor=4)) for step in quarter.steps)
    )
    with pytest.raises(InputError, match="cannot do that"):
        runner.compare(adapter, {"small": small}, Path("nowhere"), size=32)


def _at(step: Any, tier: Tier) -> Any:
    return type(step)(step.t, step.s, tier, step.solver)
