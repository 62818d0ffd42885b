"""Training with rank-asymmetric velocities (arXiv 2605.12964): subspaces, initial weights, losses.

`asymflow.models.subspace` defines the prediction of such a network. This module computes its
subspace,

    principal_subspace   of the patches, for training from scratch
    aligned_subspace     of the latents of a latent model, to convert it to a pixel model

its initial weights (`prepare`, `lifted`), and a target with reduced variance (`less_noisy`,
`velocity_loss`).
Patches are vectors [..., d] in the order of `asymflow.models.jit.network.patches_of`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asymflow.core.adapter import Denoiser
from asymflow.core.errors import InputError
from asymflow.models.jit.network import JitModel, patches_of, picture_of
from asymflow.models.subspace import calibrated


@dataclass(frozen=True, slots=True, eq=False)
class Subspace:
    """The noise subspace of a rank-asymmetric model.

    Attributes:
        basis: orthonormal rows A [r, d].
        scale: s; patches are approximated by s A^T l for latents l [r].
        kept: share of the mean square of patches in the subspace, from 0 to 1.
        agreement: for an aligned subspace, the share of the mean square of s l that A x explains:
            1 - E|A x - s l|^2 / E|s l|^2; otherwise 1. At 0 the latent model is of no use.
    """

    basis: Tensor
    scale: float
    kept: float
    agreement: float = 1.0

    @property
    def rank(self) -> int:
        return self.basis.shape[0]

    def patches(self, latents: Tensor) -> Tensor:
        """Patches s A^T l [..., d] of latents l [..., r]."""
        return self.scale * (latents @ self.basis.to(latents))


def principal_subspace(batches: Iterable[Tensor], rank: int) -> Subspace:
    """The `rank` leading principal directions of patches.

    Moments are about zero, not about the mean: the mean patch is part of the signal.

    Args:
        batches: batches of patches [n, d] in state space; only their second moment [d, d] is kept.
        rank: dimension of the subspace.

    Raises:
        InputError: all patches are zero, or the rank is out of range.
    """
    _, moment, _ = _moments((patches[:, :0], patches) for patches in batches)
    if not moment.trace() > 0:
        raise InputError("These patches are zero, so they have no directions. Give real pictures.")
    if not 0 <= rank <= len(moment):
        raise InputError(
            f"A subspace of rank {rank} does not fit into patches of {len(moment)} numbers. "
            f"Choose 0 to {len(moment)}."
        )
    values, vectors = torch.linalg.eigh(moment)
    basis = vectors.flip(-1)[:, :rank].T
    kept = values.flip(0)[:rank].sum() / values.sum()
    return Subspace(basis.float().contiguous(), 1.0, float(kept.clamp(0, 1)))


def aligned_subspace(pairs: Iterable[tuple[Tensor, Tensor]]) -> Subspace:
    """Align the patches x with the latents l of the same positions: subspace and scale.

    Orthonormal rows A and s > 0 with x ~ s A^T l. For any s, E|x - s A^T l|^2 is minimal where
    tr(A E[x l^T]) is maximal, the orthogonal Procrustes problem; with the singular value
    decomposition E[l x^T] = U S V^T its solution is A = U V^T. The least-squares scale would shrink
    with the disagreement, but the latent model needs the signal-to-noise ratios that it was trained
    on. The scale therefore equates the mean squares:

        s^2 = E|A x|^2 / E|l|^2

    Args:
        pairs: batches of latents [n, r] and patches [n, d] of the same positions, with r <= d.

    Raises:
        InputError: there are no pairs, r > d, or all values are zero.
    """
    cross, moment, latent = _moments(pairs)
    rank, pixels = cross.shape
    if rank > pixels:
        raise InputError(
            f"{rank} latent numbers do not fit into patches of {pixels}. Choose larger patches."
        )
    left, strengths, right = torch.linalg.svd(cross, full_matrices=False)
    basis = left @ right
    inside = torch.einsum("rd,de,re->", basis, moment, basis)
    if not (latent > 0 and inside > 0):
        raise InputError(
            "These latents and patches are zero, so nothing can be aligned. Give pairs of the "
            "latent model's own data."
        )
    scale = (inside / latent).sqrt()
    # E|A x - s l|^2 = 2 E|A x|^2 - 2 s tr(S), since E|A x|^2 = s^2 E|l|^2.
    agreement = 2 * scale * strengths.sum() / inside - 1
    return Subspace(
        basis.float().contiguous(),
        float(scale),
        float((inside / moment.trace()).clamp(0, 1)),
        float(agreement),
    )


def prepare(model: JitModel, subspace: Subspace) -> None:
    """Set the subspace of an untrained rank-asymmetric network, in place.

    The first channels of the patch embedding become the coordinates in the subspace, scaled like
    initial weights: the network has access to the part of x_t that is mixed into its output.

    Raises:
        InputError: the network has another rank or patch size, or a bottleneck below the rank.
    """
    config = model.config
    if config.rank != subspace.rank or config.pixels != subspace.basis.shape[1]:
        raise InputError(
            f"A subspace of rank {subspace.rank} in patches of {subspace.basis.shape[1]} numbers "
            f"is not one for a network of rank {config.rank} and {config.pixels}. "
            "Make them for the same patches."
        )
    if config.bottleneck < subspace.rank:
        raise InputError(
            f"A bottleneck of {config.bottleneck} cannot hold a subspace of rank "
            f"{subspace.rank}. Choose a wider one."
        )
    gain = (2 * config.pixels / (config.pixels + config.bottleneck)) ** 0.5
    with torch.no_grad():
        model.basis.copy_(subspace.basis)
        model.scale.fill_(subspace.scale)
        filters = picture_of(subspace.basis[:, None], config.patch, 1)
        model.transformer.squeeze.weight[: subspace.rank] = gain * filters


def lifted(latent: JitModel, subspace: Subspace, *, patch: int, channels: int) -> JitModel:
    """Convert a latent model to a pixel model with input A k x_t and output A^T v.

    Its initial estimate of x_0 is exactly s A^T l, with l the latent model's estimate at A k x_t,
    and 0 in the complement, which remains to be learnt. All other weights are copied.

    Args:
        latent: a latent model that predicts velocities (`rank` is its patch dimension).
        subspace: from `aligned_subspace`, for latent patches and pixel patches.
        patch, channels: of the pixel model, which has the same number of patches per side.

    Raises:
        InputError: the latent model does not predict velocities, or the subspace does not match.
    """
    old = latent.config
    if old.rank != old.pixels or not torch.equal(latent.scale, torch.ones_like(latent.scale)):
        raise InputError(
            f"This latent model has rank {old.rank} in patches of {old.pixels} numbers. Only one "
            "that predicts velocities can be lifted: rank and numbers equal, at scale 1."
        )
    if subspace.basis.shape != (old.pixels, channels * patch**2):
        raise InputError(
            f"The subspace maps {subspace.rank} numbers to {subspace.basis.shape[1]}, and latent "
            f"patches have {old.pixels}, patches of pixels {channels * patch**2}. Align them first."
        )
    config = replace(old, size=old.side * patch, patch=patch, channels=channels)
    model = JitModel(config).to(latent.scale.device)
    basis = subspace.basis.to(latent.basis.device)
    state = latent.state_dict()
    squeeze = patches_of(state["transformer.squeeze.weight"], old.patch)[:, 0]
    state |= {
        "transformer.squeeze.weight": picture_of((squeeze @ basis)[:, None], patch, 1),
        "transformer.head.weight": basis.T @ state["transformer.head.weight"],
        "transformer.head.bias": basis.T @ state["transformer.head.bias"],
        "basis": basis,
        "scale": torch.tensor(subspace.scale),
    }
    model.load_state_dict(state)
    return model


def latent_residual(
    reference: Denoiser,
    latents: Tensor,
    eps: Tensor,
    t: Tensor,
    subspace: Subspace,
    *,
    patch: int,
    latent_patch: int = 1,
) -> Tensor:
    """The error c [b, n, d] of a latent model's estimate, in patches of pixels.

    The model is evaluated at (1 - tau) l + tau A eps: the latents with the projection of the
    pixels' noise eps, at the same signal-to-noise ratio. Then c = s A^T (l - estimate).

    Args:
        reference: the latent model, [b, c, h, w]; frozen, with its labels bound.
        latents: [b, c, h, w] of the pictures.
        eps: noise of the pixels [b, c', h', w'].
        t: times of the pixel model [b].
        subspace: from `aligned_subspace`.
        patch, latent_patch: patch sizes of the pixel model and the latent model.
    """
    _, tau = calibrated(t, torch.tensor(subspace.scale))
    side = latents.shape[-1] // latent_patch
    noise = picture_of(patches_of(eps, patch) @ subspace.basis.T.to(eps), latent_patch, side)
    with torch.no_grad():
        time = tau.view(-1, 1, 1, 1)
        estimate = reference(torch.lerp(latents, noise, time), tau)
    return subspace.patches(patches_of(latents - estimate, latent_patch))


def less_noisy(
    x_0: Tensor, estimate: Tensor, c: Tensor, t: Tensor, *, shift: float | None = None
) -> Tensor:
    """A training target [b, n, d] for estimates of x_0 with less variance than x_0.

    A network D trained on |D(x_t) - x_0|^2 learns m = E[x_0 | x_t], and the deviation of x_0 from m
    is the noise of its gradients. Let c be a control variate with E[c | x_t] = 0. Then x_0 - lam c
    also has the mean m, and its variance is minimal for

        lam = E<x_0 - m, c> / E<c, c>

    lam is estimated per patch from a single sample, with D in place of m, and clamped to [0, 1].
    Here c is the error of a reference in the subspace (`latent_residual`); in the subspace it is
    close to x_0 - m, which removes most of the variance.

    The approximations:

    * E[c | x_t] is not 0: it is the error of the reference's mean, plus the information about the
      subspace in the complement of x_t. Both vanish near noise. With a `shift` the reduction fades
      towards data by 1 - w(t), w = (1 - t)^2 / ((1 - t)^2 + (shift t)^2).
    * lam also depends on D's error e = D - m. This removes at most the projection of e on c,
      E[c c^T / |c|^2] e, from the mean gradient: in a subspace of rank r, 1/r of e if c is
      isotropic. The gradient is reduced by this share, and is zero for the same D.
    * If D starts as the reference (`lifted`), it has the same error: in the subspace x_0 - D is c,
      lam is 1, and there is no gradient. Errors of the reference are corrected only where the
      reduction has faded, so the reference should be well trained, with a `shift`.

    Args:
        x_0, estimate, c: patches [b, n, d]; the estimate is D(x_t), without gradient.
        t: times [b].
        shift: fades the reduction towards data; None for no fading.
    """
    with torch.no_grad():
        energy = c.square().sum(-1, keepdim=True)
        along = ((x_0 - estimate) * c).sum(-1, keepdim=True)
        share = (along / energy.clamp_min(torch.finfo(c.dtype).tiny)).clamp(0, 1)
        if shift is not None:
            signal, noise = (1 - t).square(), (shift * t).square()
            share = share * (noise / (signal + noise)).view(-1, 1, 1)
        return x_0 - share * c


def velocity_loss(estimate: Tensor, target: Tensor, t: Tensor, *, floor: float = 0.05) -> Tensor:
    """Velocity loss: mean of |estimate - target|^2 / t^2, with t clamped to `floor`.

    `estimate` and `target` are [b, ...], t is [b].
    """
    weight = t.clamp_min(floor).view(-1, *([1] * (estimate.ndim - 1)))
    return ((estimate - target) / weight).square().mean()


def _moments(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """E[l x^T] [r, d], E[x x^T] [d, d] and E|l|^2 of batches l [n, r] and x [n, d], in float64."""
    cross = moment = latent = torch.zeros((), dtype=torch.float64)
    count = 0
    for latents, patches in pairs:
        if latents.ndim != 2 or patches.ndim != 2 or len(latents) != len(patches):
            raise InputError(
                f"Latents {tuple(latents.shape)} and patches {tuple(patches.shape)} are not pairs "
                "of vectors. Give [n, r] and [n, d]."
            )
        one, other = latents.detach().cpu().double(), patches.detach().cpu().double()
        cross = cross + one.T @ other
        moment = moment + other.T @ other
        latent = latent + one.square().sum()
        count += len(patches)
    if not count:
        raise InputError("There are no patches, so there is no subspace. Give at least one batch.")
    return cross / count, moment / count, latent / count
