"""Networks that are plain callables: how they are asked, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine
from asymflow.core.errors import InputError
from asymflow.core.flow import interpolate
from asymflow.core.schedules import karras, plan_of
from asymflow.core.types import Request
from asymflow.models import edm
from asymflow.models.diffusers.schedule import Prediction
from tests.helpers import draw

SQUARES = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)


class Preconditioned(torch.nn.Module):
    """EDM's own network around another one, which is a plain linear map here."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.raw = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.view(-1, 1, 1, 1)
        data = 0.5
        c_skip = data**2 / (sigma**2 + data**2)
        c_out, c_in = sigma * data / (sigma**2 + data**2).sqrt(), 1 / (sigma**2 + data**2).sqrt()
        assert (sigma > 0).all()  # its c_noise is log(sigma) / 4
        return c_skip * x + c_out * self.raw(c_in * x)


@torch.inference_mode()
def test_euler_over_the_grid_of_karras_is_that_of_edm() -> None:
    """Algorithm 1 of arXiv 2206.00364 without its correction, which averages slopes in sigma."""
    net = Preconditioned()
    adapter = edm.edm(net, channels=1)
    [*_, frame] = engine.walk(adapter, plan_of(karras(8), solver="euler"), [Request({}, (6, 6), 3)])

    ramp = torch.arange(8, dtype=torch.float64) / 7
    sigmas = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    sigmas = [*sigmas.float(), torch.tensor(0.0)]
    x = sigmas[0] * engine.noise(3, (1, 1, 6, 6))
    for now, then in pairwise(sigmas):
        x = x + (then - now) * (x - net(x, now[None])) / now
    assert_close(frame.x_t, x, rtol=1e-4, atol=1e-4)


def test_it_is_asked_within_the_noise_it_knows() -> None:
    asked: list[tuple[float, float]] = []

    def net(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append((float(x.std()), float(sigma)))
        return x

    adapter = edm.edm(net, channels=1, sigma_min=0.01, sigma_max=10.0, name="ear")
    eps = draw(0, 1, 1, 32, 32)
    for t in (1.0, 0.95, 0.5, 0.0):
        adapter.denoise(t * eps, torch.tensor([t]), {})
    stds, sigmas = zip(*asked, strict=True)
    assert sigmas == pytest.approx((10.0, 10.0, 1.0, 0.01), rel=1e-5)
    assert stds[:3] == pytest.approx([sigma * float(eps.std()) for sigma in sigmas[:3]], rel=1e-4)
    assert stds[3] == 0


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_what_a_network_says_of_timesteps_is_read(prediction: Prediction) -> None:
    x_0, eps, label = draw(0, 2, 3, 4, 4), draw(1, 2, 3, 4, 4), torch.tensor([1, 4])
    alpha, sigma = (float(square) ** 0.5 for square in (SQUARES[600], 1 - SQUARES[600]))
    answers = {"epsilon": eps, "v_prediction": alpha * eps - sigma * x_0, "sample": x_0}
    asked: dict[str, Any] = {}

    def net(z: Tensor, tau: Tensor, y: Tensor) -> Tensor:
        asked.update(z=z, tau=tau, y=y)
        return torch.cat([answers[prediction], torch.full_like(eps, torch.nan)], 1)

    adapter = edm.guided_diffusion(
        net, SQUARES, channels=3, prediction=prediction, classes=4, null=4, name="oracle"
    )
    t = sigma / (alpha + sigma)
    x_t = interpolate(x_0, eps, t)
    found = adapter.denoise(x_t, torch.full((2,), t, dtype=torch.float64), {"label": label})
    assert_close(found, x_0, rtol=0, atol=1e-5)
    assert_close(asked["z"], alpha * x_0 + sigma * eps, rtol=0, atol=1e-5)
    assert_close(asked["tau"], torch.full((2,), 600.0), rtol=0, atol=1e-2)
    assert torch.equal(asked["y"], label)


def test_the_null_label_of_edm_is_all_zeros() -> None:
    asked: list[Tensor] = []

    def net(x: Tensor, sigma: Tensor, one_hot: Tensor) -> Tensor:
        asked.append(one_hot)
        return x

    adapter = edm.edm(net, channels=1, classes=3, null=True, name="ear")
    request = Request({"label": 2}, (4, 4), guidance_scale=2.0)
    engine.run(adapter, plan_of((1.0, 0.0)), [request])
    assert asked[0].tolist() == [[0, 0, 1], [0, 0, 0]]


def test_names_are_those_of_weights_and_settings() -> None:
    net, other = Preconditioned(), Preconditioned()
    with torch.no_grad():
        other.raw.weight += 0.1
    names = {
        edm.edm(net, channels=1).name,
        edm.edm(net, channels=1, sigma_max=50.0).name,
        edm.edm(other, channels=1).name,
        edm.guided_diffusion(net, SQUARES, channels=1).name,
    }
    assert len(names) == 4
    assert edm.edm(net, channels=1).name == edm.edm(Preconditioned(), channels=1).name
    with pytest.raises(InputError, match="Give it one: name="):
        edm.edm(torch.add, channels=1)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match=r"sigma_min=2\.0 and sigma_max=1\.0"):
        edm.edm(Preconditioned(), channels=1, sigma_min=2.0, sigma_max=1.0)
    wrong: Any = "flow"
    with pytest.raises(InputError, match="'flow' is not supported"):
        edm.guided_diffusion(Preconditioned(), SQUARES, channels=1, prediction=wrong)
    adapter = edm.edm(Preconditioned(), channels=1, classes=3, grain=4)
    for request, message in (
        (Request({}, (8, 8)), "Label None"),
        (Request({"label": 3}, (8, 8)), "from 0 to 2"),
        (Request({"label": 0}, (6, 8)), "multiples of 4"),
        (Request({"label": 0}, (8, 8), guidance_scale=2.0), "null="),
    ):
        with pytest.raises(InputError, match=message):
            adapter.check(request)


# What networks say of themselves, and the switches of the official code.


class Rounding(torch.nn.Module):
    """Knows some levels of noise only, as those of iDDPM do, and looks its conditioning up."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.levels = torch.logspace(-2, 4, 60).flip(0)
        self.gains = 0.5 + torch.rand(60)
        self.sigma_min, self.sigma_max = float(self.levels[-1]), float(self.levels[0])

    def _index(self, sigma: Tensor) -> Tensor:
        return (sigma.view(-1, 1).log() - self.levels.log()).abs().argmin(1)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self.levels[self._index(sigma)].view_as(sigma)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert torch.equal(self.round_sigma(sigma), sigma)
        level, gain = sigma.view(-1, 1, 1, 1), self.gains[self._index(sigma)].view(-1, 1, 1, 1)
        return x - level * torch.tanh(gain * x / (level**2 + 1).sqrt())


@torch.inference_mode()
def test_levels_that_a_network_knows_are_those_it_is_asked_at() -> None:
    """Euler over the official grid, which is rounded to them, beginning at the network's own."""
    net = Rounding()
    sigmas = [*net.levels[::6].double(), 0.0]
    times = [float(sigma) / (1 + float(sigma)) for sigma in sigmas]
    adapter = edm.edm(net, channels=1)
    [*_, frame] = engine.walk(adapter, plan_of(times, solver="euler"), [Request({}, (6, 6), 3)])
    x = sigmas[0] * engine.noise(3, (1, 1, 6, 6)).double()
    for now, then in pairwise(sigmas):
        x = x + (then - now) * (x - net(x.float(), torch.tensor([now]).float())) / now
    assert_close(frame.x_t.double(), x, rtol=1e-4, atol=1e-4 * float(x.std()))


@pytest.mark.parametrize(
    ("low", "high", "asked"),
    [(0.02, 100.0, (0.02, 100.0)), (0.0, float("inf"), (0.002, 80.0)), (None, None, (0.002, 80.0))],
)
def test_limits_are_those_of_the_network_where_it_has_any(
    low: float | None, high: float | None, asked: tuple[float, float]
) -> None:
    levels: list[float] = []

    class Net:
        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            levels.append(float(sigma))
            return x

    net = Net()
    if low is not None:
        vars(net).update(sigma_min=low, sigma_max=high)
    x = draw(0, 1, 1, 4, 4)
    for adapter in (
        edm.edm(net, channels=1, name="a"),
        edm.edm(net, channels=1, name="b", sigma_min=0.5, sigma_max=5.0),
    ):
        for t in (0.0, 1.0):
            adapter.denoise(x, torch.tensor([t]), {})
    assert levels == pytest.approx([*asked, 0.5, 5.0])


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("rescale", [False, True])
@torch.inference_mode()
def test_ddim_of_guided_diffusion_step_by_step(clip: bool, rescale: bool) -> None:
    """With both of its switches, from z = eps, by the formulas of its `ddim_sample`."""
    total = 400
    squares = (1 - torch.linspace(2.5e-4, 0.05, total, dtype=torch.float64)).cumprod(0)
    asked: list[float] = []

    def net(z: Tensor, tau: Tensor) -> Tensor:
        asked.append(float(tau))
        return 1.2 * torch.tanh(z) + 0.0005 * tau.view(-1, 1, 1, 1)

    steps = [*range(total - 1, 0, -57), 0]
    times = [float((1 - a).sqrt() / (a.sqrt() + (1 - a).sqrt())) for a in squares[steps]]
    adapter = edm.guided_diffusion(
        net, squares, channels=1, name="a", clip_denoised=clip, rescale_timesteps=rescale
    )
    plan = plan_of((*times, 0.0), solver="euler")
    [*_, frame] = engine.walk(adapter, plan, [Request({}, (6, 6), 3)])
    ours = asked.copy()
    asked.clear()

    z = engine.noise(3, (1, 1, 6, 6)).double()
    for index, now in enumerate(steps):
        a, b = squares[now], squares[steps[index + 1]] if now else torch.tensor(1.0)
        tau = now * 1000 / total if rescale else float(now)
        eps = net(z, torch.tensor([tau]))
        x_0 = (z - (1 - a).sqrt() * eps) / a.sqrt()
        if clip:
            x_0 = x_0.clamp(-1, 1)
            eps = (z - a.sqrt() * x_0) / (1 - a).sqrt()
        z = b.sqrt() * x_0 + (1 - b).sqrt() * eps
    assert ours == pytest.approx(asked, abs=1e-2)
    assert_close(frame.x_t.double(), z, rtol=1e-3, atol=1e-3 * max(1.0, float(z.std())))
    assert clip == bool(frame.x_t.abs().max() <= 1)


def test_switches_are_a_part_of_the_name() -> None:
    def name(clip: bool, rescale: bool) -> str:
        net = Preconditioned()
        return edm.guided_diffusion(
            net, SQUARES, channels=1, clip_denoised=clip, rescale_timesteps=rescale
        ).name

    names = [name(False, False), name(True, False), name(False, True)]
    assert len(set(names)) == 3
    assert edm.guided_diffusion(Preconditioned(), SQUARES, channels=1).name == names[0]


def test_networks_are_put_into_evaluation_mode() -> None:
    nets = Preconditioned().train(), Preconditioned().train()
    edm.edm(nets[0], channels=1)
    edm.guided_diffusion(nets[1], SQUARES, channels=1)
    assert not any(net.training for net in nets)
