"""The same trajectories by libraries that were written independently of this one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine, schedules
from asymflow.core.flow import velocity_from_x_0
from asymflow.core.types import Request
from asymflow.models.gaussian import GaussianAdapter
from tests.helpers import draw64

N = 12
LABEL = torch.ones(1, dtype=torch.long)


@pytest.fixture(scope="module")
def model() -> GaussianAdapter:
    return GaussianAdapter(draw64(0, 2, 3, 8, 8), 0.3 + draw64(1, 2, 3, 8, 8).abs())


def ours(model: GaussianAdapter, solver: Any, grid: tuple[float, ...]) -> Tensor:
    plan = schedules.plan_of(grid, solver=solver)
    *_, last = engine.walk(model, plan, [Request({"label": 1}, (8, 8), seed=3)])
    return last.x_t.clone()


def start() -> Tensor:
    return engine.noise(3, (3, 8, 8)).double()[None]


def test_euler_is_that_of_diffusers(model: GaussianAdapter) -> None:
    diffusers = pytest.importorskip("diffusers")
    grid = schedules.shifted(N, 3.0)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=list(grid[:-1]))
    x_t = start()
    for i, t in enumerate(scheduler.timesteps):
        x_0 = model.denoise(x_t, torch.tensor([grid[i]], dtype=torch.float64), {"label": LABEL})
        x_t = scheduler.step(velocity_from_x_0(x_t, x_0, grid[i]), t, x_t).prev_sample.double()
    # diffusers keeps its grid and state in float32.
    assert_close(ours(model, "euler", grid), x_t, rtol=0, atol=2e-5)


def test_heun_is_that_of_diffusers(model: GaussianAdapter) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(N)
    grid = (*dict.fromkeys(scheduler.sigmas.double().tolist()),)
    x_t = start()
    for i, t in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[i])
        x_0 = model.denoise(x_t, torch.tensor([sigma], dtype=torch.float64), {"label": LABEL})
        x_t = scheduler.step(velocity_from_x_0(x_t, x_0, sigma), t, x_t).prev_sample.double()
    assert len(grid) == N + 1
    assert_close(ours(model, "heun", grid), x_t, rtol=0, atol=2e-5)


def test_euler_is_the_ddim_of_azula(model: GaussianAdapter) -> None:
    noise = pytest.importorskip("azula.noise")
    denoise = pytest.importorskip("azula.denoise")
    sample = pytest.importorskip("azula.sample")
    linalg = pytest.importorskip("azula.linalg.covariance")
    schedule = noise.RectifiedSchedule(alpha_min=0.0, sigma_min=0.0)
    covariance = linalg.DiagonalCovariance(model.std[1] ** 2)
    theirs = denoise.GaussianDenoiser(model.mean[1], covariance, schedule)
    # Both of its ends are 0/0.
    sampler = sample.DDIMSampler(theirs, eta=0.0, start=0.99, stop=0.01, steps=N, silent=True)
    x_t = start()
    grid = [0.99 - 0.98 * i / N for i in range(N + 1)]
    for t, s in pairwise(grid):
        x_0 = model.denoise(x_t, torch.tensor([t], dtype=torch.float64), {"label": LABEL})
        x_t = s / t * x_t + (1 - s / t) * x_0
    assert_close(x_t, sampler(start()), rtol=0, atol=1e-5)


def test_the_solution_is_that_of_a_fine_third_order_method_of_azula(model: GaussianAdapter) -> None:
    """Their polynomials are in log-SNR and need both ends of the path cut off."""
    noise = pytest.importorskip("azula.noise")
    denoise = pytest.importorskip("azula.denoise")
    sample = pytest.importorskip("azula.sample")
    linalg = pytest.importorskip("azula.linalg.covariance")
    schedule = noise.RectifiedSchedule(alpha_min=0.0, sigma_min=0.0)
    covariance = linalg.DiagonalCovariance(model.std[1] ** 2)
    theirs = denoise.GaussianDenoiser(model.mean[1], covariance, schedule)
    sampler = sample.xEABSampler(theirs, order=3, start=0.9, stop=0.05, steps=400, silent=True)
    x_t = model.solution(start(), 1.0, 0.9, LABEL)
    exact = model.solution(start(), 1.0, 0.05, LABEL)
    assert_close(sampler(x_t), exact, rtol=0, atol=1e-4)
