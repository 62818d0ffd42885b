"""Rank-asymmetric training on data where the answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core.errors import InputError
from asymflow.core.flow import interpolate
from asymflow.models.jit.network import JitConfig, JitModel, patches_of, picture_of
from asymflow.models.subspace import projected
from asymflow.training.rank import (
    Subspace,
    aligned_subspace,
    latent_residual,
    less_noisy,
    lifted,
    prepare,
    principal_subspace,
    velocity_loss,
)
from tests.helpers import draw64

LATENT = JitConfig(
    size=4, patch=1, channels=3, width=16, depth=2, heads=2, hidden=24, bottleneck=5, classes=2,
    class_tokens=2, class_start=1, rank=3,
)  # fmt: skip


def rows(rank: int, pixels: int, seed: int = 0) -> Tensor:
    """Orthonormal rows [rank, pixels]."""
    return torch.linalg.qr(draw64(seed, pixels, rank))[0].T


def latent_model() -> JitModel:
    torch.manual_seed(0)
    model = JitModel(LATENT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def test_the_principal_subspace_is_found_and_streamed() -> None:
    true = rows(3, 20)
    patches = draw64(0, 4000, 3) * torch.tensor([3.0, 2.0, 1.0]) @ true + 0.05 * draw64(1, 4000, 20)
    found = principal_subspace(patches.split(700), 3)
    assert_close(found.basis.T @ found.basis, (true.T @ true).float(), atol=0.01, rtol=0)
    assert_close(found.basis @ found.basis.T, torch.eye(3))
    assert found.kept == pytest.approx(14 / (14 + 17 * 0.05**2), abs=0.002)
    # Leading directions first, so that a smaller rank is a part of a larger one.
    once = principal_subspace([patches], 2)
    assert_close(once.basis.abs(), found.basis[:2].abs(), atol=1e-5, rtol=1e-5)


def test_the_mean_patch_belongs_to_the_principal_subspace() -> None:
    patches = 0.1 * draw64(0, 500, 8) + 5
    [direction] = principal_subspace([patches], 1).basis
    assert_close(direction.abs(), torch.full((8,), 8**-0.5), atol=0.01, rtol=0)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_a_rotated_subspace_is_found_with_its_scale(scale: float) -> None:
    true, latents = rows(4, 24), draw64(0, 3000, 4)
    complement = torch.eye(24, dtype=torch.float64) - true.T @ true
    patches = scale * latents @ true + 0.1 * draw64(1, 3000, 24) @ complement
    found = aligned_subspace(zip(latents.split(500), patches.split(500), strict=True))
    assert_close(found.basis, true.float(), atol=0.05, rtol=0)
    assert found.scale == pytest.approx(scale, rel=0.02)
    assert found.agreement > 0.99
    assert_close(found.patches(latents.float()), (scale * latents @ true).float(), atol=0.2, rtol=0)


def test_latents_that_are_no_rotation_agree_less() -> None:
    latents = draw64(0, 3000, 4)
    squares = latents.square() - 1  # uncorrelated with the latents themselves
    patches = (latents + squares) @ rows(4, 24)
    found = aligned_subspace([(latents, patches)])
    # The sizes of the latent model's data are kept, whatever they agree on.
    inside = patches @ found.basis.double().T
    assert_close(inside.square().sum(-1).mean(), found.scale**2 * latents.square().sum(-1).mean())
    error = (inside - found.scale * latents).square().sum() / (found.scale * latents).square().sum()
    assert found.agreement == pytest.approx(1 - error.item(), abs=1e-5)
    assert 0 < found.agreement < 0.9


def test_no_other_rotation_aligns_better() -> None:
    latents, patches = draw64(0, 500, 3), draw64(1, 500, 10)
    patches[:, :3] += latents @ rows(3, 3, seed=2)
    found = aligned_subspace([(latents, patches)])
    best = (patches - latents @ found.basis.double()).square().sum()
    for seed in range(200):
        other = rows(3, 10, seed=seed + 10)
        assert (patches - latents @ other).square().sum() > best
        near = torch.linalg.qr((found.basis.double() + 0.05 * other).T)[0].T
        signs = (near * found.basis.double()).sum(-1, keepdim=True).sign()
        assert (patches - latents @ (signs * near)).square().sum() > best


def some_pairs() -> tuple[Tensor, Tensor]:
    return draw64(0, 5, 3), draw64(0, 5, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: principal_subspace([], 1), "no patches"),
        (lambda: principal_subspace([draw64(0, 5, 4)], 5), "rank 5 .* patches of 4"),
        (lambda: principal_subspace([draw64(0, 5)[None, None]], 1), r"\(1, 1, 5\) are not pairs"),
        (lambda: principal_subspace([torch.zeros(5, 4)], 1), "have no directions"),
        (lambda: aligned_subspace([some_pairs()]), "3 latent numbers do not fit"),
        (
            lambda: aligned_subspace([(draw64(0, 4, 2), draw64(0, 5, 3))]),
            r"\(4, 2\) and .* \(5, 3\)",
        ),
        (lambda: aligned_subspace([(torch.zeros(4, 2), draw64(0, 4, 3))]), "are zero"),
    ],
)
def test_impossible_data_is_refused(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def aligned(scale: float = 1.6) -> Subspace:
    return Subspace(rows(3, 48).float(), scale, 1.0)


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6])
def test_a_lifted_model_begins_as_the_latent_one(scale: float) -> None:
    latent, subspace = latent_model(), aligned(scale)
    model = lifted(latent, subspace, patch=4, channels=3)
    assert (model.config.size, model.config.rank) == (16, 3)
    l_0, t, label = draw64(0, 2, 3, 4, 4).float(), torch.tensor([0.2, 0.9]), torch.tensor([0, 2])
    eps = draw64(1, 2, 3, 16, 16).float()
    x_0 = picture_of(subspace.patches(patches_of(l_0, 1)), 4, 4)
    x_t = interpolate(x_0, eps, t)
    k = 1 / (scale * (1 - t) + t)
    z = picture_of(patches_of(x_t, 4) @ subspace.basis.T, 1, 4) * k.view(-1, 1, 1, 1)
    with torch.no_grad():
        expected = subspace.patches(patches_of(latent(z, k * t, label), 1))
        assert_close(patches_of(model(x_t, t, label), 4), expected, atol=1e-5, rtol=1e-5)
        # The same trajectory of latents: z is their own state at the time k t.
        inside = picture_of(patches_of(eps, 4) @ subspace.basis.T, 1, 4)
        assert_close(z, interpolate(l_0, inside, k * t), atol=1e-5, rtol=1e-5)


def test_all_of_a_lifted_model_can_learn() -> None:
    model = lifted(latent_model(), aligned(), patch=4, channels=3).train()
    answer = model(draw64(0, 2, 3, 16, 16).float(), torch.tensor([0.5, 0.9]), torch.tensor([0, 1]))
    answer.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_only_velocities_of_the_right_size_are_lifted() -> None:
    with pytest.raises(InputError, match="rank None in patches of 3"):
        lifted(JitModel(JitConfig(**changed(rank=None))), aligned(), patch=4, channels=3)
    with pytest.raises(InputError, match=r"3 numbers to 48, and .* have 3, .* pixels 64"):
        lifted(latent_model(), aligned(), patch=4, channels=4)


def changed(**changes: Any) -> dict[str, Any]:
    return {name: getattr(LATENT, name) for name in JitConfig.__slots__} | changes


def test_a_fresh_model_is_prepared_for_its_subspace() -> None:
    config = JitConfig(**changed(size=16, patch=4, rank=2))
    model, subspace = JitModel(config), Subspace(rows(2, 48).float(), 1.3, 1.0)
    prepare(model, subspace)
    x = draw64(0, 2, 3, 16, 16).float()
    squeezed = model.transformer.squeeze(x).flatten(2).transpose(1, 2)
    size = (2 * 48 / (48 + 5)) ** 0.5
    assert_close(squeezed[..., :2], size * patches_of(x, 4) @ subspace.basis.T)
    assert (model.scale, model.config.rank) == (1.3, 2)
    with torch.no_grad():  # Zero weights: x_0 of the answer 0, the projection of k x_t times s.
        t = torch.tensor([0.3, 0.8])
        k = (1.3 / (1.3 * (1 - t) + t)).view(-1, 1, 1)
        expected = projected(k * patches_of(x, 4), subspace.basis)
        assert_close(patches_of(model(x, t, torch.tensor([0, 1])), 4), expected)
    with pytest.raises(InputError, match=r"rank 2 in patches of 48 .* network of rank 3 and 3"):
        prepare(latent_model(), subspace)
    with pytest.raises(InputError, match="bottleneck of 1"):
        prepare(JitModel(JitConfig(**changed(size=16, patch=4, rank=2, bottleneck=1))), subspace)


class Gaussian:
    """Patches of 12 numbers, normal and independent along 4 latent and 8 other directions."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        axes = rows(12, 12)
        self.subspace = Subspace(axes[:4].float(), scale, 1.0)
        self.axes, self.std = axes.float(), torch.linspace(0.4, 1.5, 12)

    def draw(self, n: int, t: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """x_0 [n, 1, 12], x_t, and what an exact model of the latents could not foresee."""
        x_0 = (draw64(seed, n, 1, 12).float() * self.std) @ self.axes
        eps = draw64(seed + 1, n, 1, 12).float()
        latents = (x_0 @ self.axes[:4].T / self.scale).transpose(1, 2)[..., None]

        def exact(z: Tensor, tau: Tensor, /) -> Tensor:
            variance = (self.std[:4] / self.scale).square().view(1, 4, 1, 1)
            a, b = 1 - tau.view(-1, 1, 1, 1), tau.view(-1, 1, 1, 1)
            return a * variance / (a.square() * variance + b.square()) * z

        time = torch.full((n,), t)
        image = eps.transpose(1, 2)[..., None]
        c = latent_residual(exact, latents, image, time, self.subspace, patch=1)
        return x_0, (1 - t) * x_0 + t * eps, c

    def gain(self, t: float) -> Tensor:
        """M with E[x_0 | x_t] = x_t M."""
        variance = self.std.square()
        ratio = (1 - t) * variance / ((1 - t) ** 2 * variance + t**2)
        return self.axes.T @ torch.diag(ratio) @ self.axes


@pytest.mark.parametrize(("t", "scale"), [(0.9, 1.0), (0.6, 1.0), (0.6, 1.7)])
def test_less_variance_and_the_same_mean(t: float, scale: float) -> None:
    """Where the complement tells nothing of the subspace the reduction is exact."""
    data, n = Gaussian(scale), 40_000
    x_0, x_t, c = data.draw(n, t, seed=3)
    best = x_t @ data.gain(t)
    target = less_noisy(x_0, best, c, torch.full((n,), t))
    # Least squares of the targets on x_t is what a linear network would learn.
    learnt = torch.linalg.lstsq(x_t[:, 0], target[:, 0]).solution
    assert_close(learnt, data.gain(t), atol=0.02, rtol=0)
    inside = data.subspace.basis.T
    noise_before = ((x_0 - best) @ inside).square().mean()
    noise_after = ((target - best) @ inside).square().mean()
    assert noise_before > 0.05
    assert noise_after < 1e-6
    outside = (target - best) - (target - best) @ inside @ inside.T
    assert outside.square().mean() == pytest.approx(
        ((x_0 - best) - (x_0 - best) @ inside @ inside.T).square().mean().item(), rel=1e-4
    )


def test_a_wrong_network_is_still_pulled_to_the_mean() -> None:
    data, n, t = Gaussian(), 40_000, 0.7
    x_0, x_t, c = data.draw(n, t, seed=5)
    best = x_t @ data.gain(t)
    for seed in range(4):
        error = 0.3 * draw64(seed, 12).float()
        time = torch.full((n,), t)
        pull = (best + error - less_noisy(x_0, best + error, c, time)).mean((0, 1))
        inside = error @ data.subspace.basis.T @ data.subspace.basis
        share = (pull @ inside) / inside.square().sum()
        assert 0.5 < share < 1.05  # at most about 1/4 is taken away
        assert_close(pull - pull @ projector(data), error - inside, atol=0.03, rtol=0)


def projector(data: Gaussian) -> Tensor:
    return data.subspace.basis.T @ data.subspace.basis


def test_the_reduction_fades_towards_data() -> None:
    x_0, estimate, c = (draw64(seed, 3, 2, 6).float() for seed in range(3))
    estimate, t = x_0 - c, torch.tensor([0.0, 0.5, 1.0])
    full = less_noisy(x_0, estimate, c, t)
    assert_close(full, x_0 - c)
    faded = less_noisy(x_0, estimate, c, t, shift=2.0)
    assert_close(faded, x_0 - torch.tensor([0.0, 0.8, 1.0]).view(-1, 1, 1) * c)


def test_nothing_is_added_to_the_noise() -> None:
    x_0, estimate, c = (draw64(seed, 50, 3, 6).float() for seed in range(3))
    t = torch.full((50,), 0.9)
    before = (x_0 - estimate).square().sum(-1)
    assert ((less_noisy(x_0, estimate, c, t) - estimate).square().sum(-1) <= before + 1e-5).all()
    assert torch.equal(less_noisy(x_0, estimate, torch.zeros_like(c), t), x_0)
    # Against the variate is no reason to go along it.
    assert torch.equal(less_noisy(x_0, x_0 + c, c, t), x_0)


def test_the_loss_is_the_error_of_the_velocity() -> None:
    x_0, eps, estimate = (draw64(seed, 2, 3, 4, 4) for seed in range(3))
    t = torch.tensor([0.2, 0.01], dtype=torch.float64)
    x_t = interpolate(x_0, eps, t)
    small = torch.tensor([0.2, 0.05], dtype=torch.float64).view(-1, 1, 1, 1)
    difference = (x_t - estimate) / small - (x_t - x_0) / small
    assert_close(velocity_loss(estimate, x_0, t), difference.square().mean())
