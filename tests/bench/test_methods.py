"""Standard samplers by their order, against diffusers and exact integrals, and grids of theirs."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.bench.baselines import samplers, times
from asymflow.bench.baselines.methods import METHODS, Method
from asymflow.bench.caching import Counted
from asymflow.core import engine, schedules
from asymflow.core.adapter import Context
from asymflow.core.errors import InputError
from asymflow.core.types import Request
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import verifier
from tests.helpers import draw

diffusers: Any = pytest.importorskip("diffusers")
OWN = schedules.plan_of(schedules.shifted(20, 2.0), solver="euler")
DETERMINISTIC = [each for each in METHODS if not each.noisy]
WANTED = [Request({"label": 1}, (8, 8), seed) for seed in range(3)]
GUIDED = [Request({"label": 1}, (8, 8), seed, 2.0) for seed in range(2)]


@pytest.fixture(scope="module")
def exact() -> GaussianAdapter:
    return GaussianAdapter(draw(0, 2, 4, 8, 8), 0.3 + draw(1, 2, 4, 8, 8).abs())


@pytest.fixture(scope="module")
def truth(exact: GaussianAdapter) -> Tensor:
    eps = torch.stack([engine.noise(each.seed, (4, 8, 8)) for each in WANTED])
    return exact.solution(eps, 1.0, 0.0, torch.ones(3, dtype=torch.long))


def named(name: str) -> Method:
    [found] = [each for each in METHODS if each.name == name]
    return found


@torch.inference_mode()
def error(method: Method, adapter: GaussianAdapter, truth: Tensor, steps: int) -> float:
    sampler = method.make(schedules.shifted(steps, 2.0), samplers.EVERYWHERE)
    return float(verifier.rms(sampler.walk(adapter, WANTED), truth).mean())


@pytest.mark.parametrize("method", DETERMINISTIC, ids=lambda method: method.name)
def test_errors_fall_with_the_order_of_a_sampler(
    method: Method, exact: GaussianAdapter, truth: Tensor
) -> None:
    first = method.name.startswith("Euler")
    few, many = (error(method, exact, truth, n) for n in (24, 96))
    # One move of order 1 at the end leaves some of them between orders 1 and 2.
    assert many < few / 4 ** (0.75 if first else 1.25)
    assert many < (0.03 if first else 3e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of numpy 2, in diffusers
@pytest.mark.parametrize("order", [2, 3])
def test_deis_in_log_rho_is_that_of_diffusers(order: int, exact: GaussianAdapter) -> None:
    grid = (0.99, 0.9, 0.75, 0.5, 0.3, 0.15, 0.05)
    scheduler = diffusers.DEISMultistepScheduler(
        solver_order=order,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        lower_order_final=False,
    )
    scheduler.set_timesteps(len(grid))
    # It cannot end at 0: what it does before is compared, by the estimates asked for.
    scheduler.sigmas = torch.tensor([*grid, grid[-1]])
    scheduler.timesteps = 1000 * scheduler.sigmas[:-1]
    scheduler.set_begin_index(0)
    label = {"label": torch.ones(1, dtype=torch.long)}
    x_t = grid[0] * engine.noise(0, (4, 8, 8))[None]
    theirs: list[Tensor] = []
    for t, timestep in zip(grid, scheduler.timesteps, strict=True):
        theirs.append(x_t)
        u = (x_t - exact.denoise(x_t, torch.tensor([t]), label)) / t
        x_t = scheduler.step(u, timestep, x_t, return_dict=False)[0]

    ours: list[Tensor] = []

    class Recording(Counted):
        def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
            ours.append(x_t)
            return super().denoise(x_t, t, context)

    samplers.deis(order, (*grid, 0.0), variable="log rho").walk(Recording(exact), WANTED[:1])
    assert_close(torch.stack(ours), torch.stack(theirs), atol=2e-5, rtol=0)


@pytest.mark.parametrize("variable", ["t", "rho", "log rho"])
def test_polynomials_of_the_noise_are_integrated_exactly(variable: samplers.Variable) -> None:
    """With a made noise eps(t) = v^2 and x_0 = 0, order 3 follows x_t = (1 - t) integral of eps."""
    grid = (0.9, 0.7, 0.5, 0.3)

    def of(t: float) -> float:
        rho = t / (1 - t)
        return {"t": t, "rho": rho, "log rho": math.log(rho)}[variable]

    weights = samplers.older(grid[2::-1], grid[3], "noise", variable)
    newest, *older = (of(t) ** 2 for t in grid[2::-1])
    rho = np.linspace(grid[2] / (1 - grid[2]), grid[3] / (1 - grid[3]), 200_001)
    known = np.array([of(each / (1 + each)) ** 2 for each in rho])
    expected = (1 - grid[3]) * np.trapezoid(known - newest, rho)
    found = sum(w * (each - newest) for w, each in zip(weights, older, strict=True))
    assert found == pytest.approx(expected, rel=1e-7)


def test_ipndm_in_the_noise_takes_the_same_means_as_in_the_velocity(exact: GaussianAdapter) -> None:
    grid = schedules.shifted(6, 2.0)
    with torch.inference_mode():
        x = torch.stack([engine.noise(each.seed, (4, 8, 8)) for each in WANTED])
        past: list[Tensor] = []
        for t, s in pairwise(grid):
            x_0 = exact.denoise(x, torch.full((3,), t), {"label": torch.ones(3, dtype=torch.long)})
            past = [(x - (1 - t) * x_0) / t, *past][:4]
            weights = samplers.ADAMS_BASHFORTH[len(past) - 1]
            mean = sum(w * eps for w, eps in zip(weights, past, strict=True))
            # DDIM's move with another noise; x_0 is what the newest noise leaves of x.
            x = (1 - s) * x_0 + s * past[0]
            if t < 1:
                x += (s - (1 - s) * t / (1 - t)) * (mean - past[0])
        found = samplers.ipndm(4, grid, of="noise").walk(exact, WANTED)
    assert_close(found, x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_pictures_do_not_depend_on_their_neighbours(method: Method, exact: GaussianAdapter) -> None:
    sampler = method.make(schedules.uniform(5), (0.3, 1.0))
    with torch.inference_mode():
        both = sampler.walk(exact, GUIDED)
        alone = torch.cat([sampler.walk(exact, [each]) for each in GUIDED])
    assert_close(both, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_passes_are_those_that_a_sampler_takes(method: Method, exact: GaussianAdapter) -> None:
    for guided in ((0.0, 1.0), (0.3, 1.0)):
        for price in (7, 12):
            grid = method.dearest(schedules.uniform, price, guided)
            assert grid is not None
            counted = Counted(exact)
            with torch.inference_mode():
                method.make(grid, guided).walk(counted, GUIDED[:1])
            assert counted.rows == method.passes(grid, guided) <= price
            longer = schedules.uniform(len(grid))
            assert method.passes(longer, guided) > price
    assert method.passes(schedules.uniform(4), None) == (7 if method.name == "Heun" else 4)
    assert named("Heun").dearest(schedules.uniform, 1, (0.0, 1.0)) is None


@pytest.mark.parametrize("method", [each for each in METHODS if each.noisy], ids=lambda m: m.name)
def test_samplers_with_noise_draw_from_the_law_of_the_data(method: Method) -> None:
    adapter = GaussianAdapter(draw(0, 1, 1, 4, 4), 0.3 + draw(1, 1, 1, 4, 4).abs())
    wanted = [Request({"label": 0}, (4, 4), seed) for seed in range(1500)]
    with torch.inference_mode():
        x_0 = method.make(schedules.uniform(40), samplers.EVERYWHERE).walk(adapter, wanted)
        again = method.make(schedules.uniform(40), samplers.EVERYWHERE).walk(adapter, wanted[:2])
    assert_close((x_0.std(0) / adapter.std[0]).mean(), torch.tensor(1.0), atol=0.03, rtol=0)
    assert ((x_0.mean(0) - adapter.mean[0]) / adapter.std[0]).abs().max() < 5 / math.sqrt(1500)
    assert_close(again, x_0[:2], atol=1e-5, rtol=0)  # the noise is that of the seed
    ended = named("UniPC-2").make(schedules.uniform(40), samplers.EVERYWHERE)
    assert verifier.rms(ended.walk(adapter, wanted[:2]), again).min() > 0.1


# Grids.


@pytest.mark.parametrize("name", times.named(OWN))
def test_grids_fall_to_zero(name: str) -> None:
    for n in (1, 2, 3, 7, 20, 33, 64):
        grid = times.named(OWN)[name](n)
        assert len(grid) == n + 1
        assert 1 >= grid[0] > 0.9
        assert grid[-1] == 0
        assert all(t > s for t, s in pairwise(grid))


def test_beta_has_the_quantiles_of_its_law() -> None:
    assert_close(times.beta(8, 1, 1), schedules.uniform(8), atol=1e-6, rtol=0)
    # The arcsine law has them in closed form.
    arcsine = [math.cos(math.pi * i / 16) ** 2 for i in range(9)]
    assert_close(times.beta(8, 0.5, 0.5), tuple(arcsine), atol=1e-6, rtol=0)
    assert times.beta(8)[1] > times.beta(8, 1, 1)[1]


def test_linear_quadratic_is_slow_at_first_and_smooth() -> None:
    grid = np.array(times.linear_quadratic(40))
    moves = -np.diff(grid)
    assert_close(moves[:20], np.full(20, 0.025 / 20), atol=1e-12, rtol=0)
    assert_close(np.diff(moves[20:], 2), np.zeros(18), atol=1e-12, rtol=0)
    assert grid[20] == pytest.approx(0.975)
    assert moves[20] < 30 * moves[19]


def test_published_levels_are_met_with_ten_steps() -> None:
    grid = times.aligned("AYS of SD", 10)
    sigma = [t / (1 - t) for t in grid[:-1]]
    assert sigma[:2] + sigma[-1:] == pytest.approx([14.615, 6.475, 0.152])
    between = times.aligned("AYS of SD", 19)
    assert between[0:19:2] == pytest.approx(grid[:-1])
    assert between[1] / (1 - between[1]) == pytest.approx(math.sqrt(14.615 * 6.475))


def test_chords_of_a_solution_are_eulers_moves(exact: GaussianAdapter) -> None:
    nodes = (0.9, 0.6, 0.3, 0.0)
    label = torch.ones(2, dtype=torch.long)
    x = draw(5, 2, 4, 8, 8)
    states = torch.stack([exact.solution(x, 0.9, t, label) for t in nodes])
    estimates = torch.stack(
        [
            exact.denoise(state, torch.full((2,), t), {"label": label})
            for t, state in zip(nodes[:-1], states, strict=False)
        ]
    )
    found = times.chord_errors(nodes, states.numpy(), estimates.numpy())
    assert np.isinf(found[np.tril_indices(4)]).all()
    for i, j in combinations(range(4), 2):
        u = (states[i] - estimates[i]) / nodes[i]
        moved = states[i] + (nodes[j] - nodes[i]) * u
        assert found[i, j] == pytest.approx(verifier.rms(moved, states[j]).mean(), rel=1e-4)
    sums = {
        inner: found[0, inner] + found[inner, 3]
        for inner in (1, 2)
    }  # fmt: skip
    assert times.cheapest(found, 2) == (0, min(sums, key=lambda node: sums[node]), 3)
    with pytest.raises(InputError, match="no grid of 4 steps"):
        times.cheapest(found, 4)
