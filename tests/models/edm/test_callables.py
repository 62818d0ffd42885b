"""Networks that are plain callables: how they are asked, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine
from asymflow.core.card import Carded
from asymflow.core.errors import InputError
from asymflow.core.flow import interpolate
from asymflow.core.schedules import karras, plan_of
from asymflow.core.types import Request
from asymflow.models import edm
from asymflow.models.diffusers.schedule import Prediction
from asymflow.models.edm.callables import spaced
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


# Cards, and the plans that they bring.


def posterior(x: Tensor, sigma: Tensor) -> Tensor:
    """x_0 of pixels near -0.6 or 0.6, with a deviation of 0.15."""
    spread, sigma = 0.15**2, sigma.view(-1, 1, 1, 1).double()
    total = spread + sigma**2
    mean = 0.6 * torch.tanh(0.6 * x / total)
    return mean + spread / total * (x - mean)


def posterior_noise(squares: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The same as eps of z at timesteps, which are whole or interpolated in the log-SNR."""
    log_snr = torch.logit(squares) / 2

    def net(z: Tensor, tau: Tensor) -> Tensor:
        at = np.interp(tau.double().numpy(), np.arange(len(squares)), log_snr.numpy())
        lam = torch.from_numpy(at).view(-1, 1, 1, 1)
        alpha, sigma = torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()
        return (z - alpha * posterior(z / alpha, sigma / alpha)) / sigma

    return net


def test_cards_say_what_was_said() -> None:
    """Of a plain function, and of networks with the attributes of the official ones."""

    class Sized(Preconditioned):
        img_resolution = 32
        image_size = 64

    assert edm.edm(Sized(), channels=1).card.sizes.offered() == ((32, 32),)
    assert edm.guided_diffusion(Sized(), SQUARES, channels=1).card.sizes.offered() == ((64, 64),)
    given = edm.edm(
        Sized(), channels=1, size=(24, 48), grain=8, classes=2, null=True, class_names=("x", "y"),
        title="mine", factors=(2,),
    )  # fmt: skip
    card = given.card
    assert isinstance(given, Carded)
    assert (card.title, card.asks, card.classes, card.guided) == ("mine", "class", ("x", "y"), True)
    assert (card.sizes.native, card.sizes.fixed, card.sizes.multiple) == ((24, 48), True, 8)
    assert card.tiers == ("conditional", "half")
    assert card.notes == ()
    for inputs in card.calibration:
        given.check(Request(inputs, (24, 48)))
    with pytest.raises(InputError, match="trained at 48x24"):
        given.check(Request({"label": 0}, (48, 24)))

    many = edm.edm(Preconditioned(), channels=1, classes=1000, grain=48).card
    assert not many.guided
    assert many.classes[-1] == "999"
    assert [each["label"] for each in many.calibration] == list(range(0, 1000, 125))
    assert (many.sizes.native, many.sizes.fixed) == ((48, 48), False)
    assert "64 px is a guess" in many.notes[0]
    for wrong, message in (
        ({"size": (24, 20), "grain": 8}, "multiples of 8"),
        ({"size": 32}, "size is a int"),
        ({"classes": 3, "class_names": ("x",)}, "1 class names, and 3 classes"),
    ):
        options: dict[str, Any] = wrong
        with pytest.raises(InputError, match=message):
            edm.edm(Preconditioned(), channels=1, **options)


def test_own_plan_of_edm_is_heun_over_its_grid_within_the_noise_it_knows() -> None:
    """18 steps, rho 7, and from 80 at most down to 0.002 at least, as in its `edm_sampler`."""
    for low, high in ((0.0, float("inf")), (0.02, 100.0), (0.001, 50.0)):
        net = Preconditioned()
        vars(net).update(sigma_min=low, sigma_max=high)
        plan = edm.edm(net, channels=1).own_plan((8, 8))
        assert plan.forwards == 35 * 2  # a guided picture's; there is no guidance here
        assert {step.solver for step in plan.steps} == {"heun"}
        first, last = min(80.0, high) ** (1 / 7), max(0.002, low) ** (1 / 7)
        sigmas = [(first + index / 17 * (last - first)) ** 7 for index in range(18)]
        assert [step.t for step in plan.steps] == pytest.approx([s / (1 + s) for s in sigmas])
    net = Rounding()
    times = [step.t for step in edm.edm(net, channels=1).own_plan((8, 8)).steps]
    known = net.levels.double()
    asked = torch.tensor(times, dtype=torch.float64)
    asked = asked / (1 - asked)
    assert float((asked[:, None] / known - 1).abs().min(1).values.max()) < 1e-6
    assert len(times) == len(set(times))


def test_own_plan_of_guided_diffusion_is_ddim_over_its_spacing() -> None:
    adapter = edm.guided_diffusion(Preconditioned(), SQUARES, channels=1)
    plan = adapter.own_plan((8, 8))
    tau = [round(index * 999 / 249) for index in reversed(range(250))]
    assert spaced(1000, 250) == tau  # those of its `space_timesteps(1000, "250")`
    sigma = (1 - SQUARES[tau]).sqrt()
    times = sigma / (SQUARES[tau].sqrt() + sigma)
    assert [step.t for step in plan.steps] == pytest.approx(times.tolist())
    assert {step.solver for step in plan.steps} == {"euler"}
    few = edm.guided_diffusion(Preconditioned(), SQUARES[::20], channels=1)
    assert len(few.own_plan((8, 8)).steps) == few.card.steps == 50
    repeated = SQUARES.repeat_interleave(2)  # two timesteps of every level
    assert len(edm.guided_diffusion(Preconditioned(), repeated, channels=1).own_plan((8, 8)).steps)


def spread(times: list[float], moves: int) -> list[float]:
    """Times of so many moves, as dense as a grid."""
    found = np.interp(np.linspace(0, 1, moves + 1), np.linspace(0, 1, len(times)), times)
    return [*found[:-1].tolist(), 0.0]


@torch.inference_mode()
def test_default_plans_are_shorter_and_as_near_to_the_limit() -> None:
    """Of many steps, on an exact network and the schedules of all published models."""
    angles = (torch.arange(1001, dtype=torch.float64) / 1000 + 0.008) / 1.008 * torch.pi / 2
    cosine = (1 - (1 - angles[1:].cos() ** 2 / angles[:-1].cos() ** 2).clamp(max=0.999)).cumprod(0)
    for adapter in (
        edm.edm(posterior, channels=1, name="a"),
        edm.guided_diffusion(posterior_noise(SQUARES), SQUARES, channels=1, name="b"),
        edm.guided_diffusion(posterior_noise(cosine), cosine, channels=1, name="c"),
    ):
        own, default = adapter.own_plan((16, 16)), adapter.default_plan((16, 16))
        assert default.forwards < 0.6 * own.forwards
        times = [*(step.t for step in own.steps), 0.0]
        halves = [(t + s) / 2 for t, s in pairwise(times)]
        fine = plan_of(sorted({*times, *halves}, reverse=True), solver="heun")
        first_order = plan_of(spread(times, 2 * len(default.steps)), solver="euler")
        limit, short, plain = (
            list(engine.walk(adapter, plan, [Request({}, (16, 16), 3)]))[-1].x_t
            for plan in (fine, default, first_order)
        )
        assert (short - limit).std() < 0.9 * (plain - limit).std()
        assert (short - limit).std() < 0.1 * limit.std()


def test_default_plans_end_without_guidance() -> None:
    adapter = edm.edm(posterior, channels=1, classes=2, null=True, name="a")
    assert adapter.card.guidance_interval == (0.1, 1.0)
    steps = adapter.default_plan((8, 8)).steps
    assert [step.tier.guided for step in steps] == [step.t >= 0.1 for step in steps]
    assert {step.tier.guided for step in steps} == {True, False}


def test_networks_are_put_into_evaluation_mode() -> None:
    nets = Preconditioned().train(), Preconditioned().train()
    edm.edm(nets[0], channels=1)
    edm.guided_diffusion(nets[1], SQUARES, channels=1)
    assert not any(net.training for net in nets)
