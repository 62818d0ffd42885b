"""Training with rank-asymmetric velocities (arXiv 2605.12964): subspaces, initial weights, losses.

`asymflow.models.subspace` says what such a network predicts. Here is how to come by its subspace,

    principal_subspace   of the patches themselves, to train from scratch
    aligned_subspace     of the numbers of a latent model, to make a pixel model of it

its first weights (`prepare`, `lifted`), and a loss with less noise (`less_noisy`, `velocity_loss`).
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
    """Where the noise of a rank-asymmetric model is.

    Attributes:
        basis: orthonormal rows A [r, d].
        scale: s; patches are s A^T l for latent numbers l [r], as far as they can be.
        kept: share of the patches' mean square that is in the subspace, from 0 to 1.
        agreement: for an aligned subspace, the share of the mean square of s l that A x predicts:
            1 - E|A x - s l|^2 / E|s l|^2; else 1. At 0 nothing of the latent model can be kept.
    """

    basis: Tensor
    scale: float
    kept: float
    agreement: float = 1.0

    @property
    def rank(self) -> int:
        return self.basis.shape[0]

    def patches(self, latents: Tensor) -> Tensor:
        """s A^T l [..., d] of l [..., r]: the patches that latents stand for."""
        return self.scale * (latents @ self.basis.to(latents))


def principal_subspace(batches: Iterable[Tensor], rank: int) -> Subspace:
    """The `rank` leading principal directions of patches, seen batch by batch.

    Moments are about zero, not about the mean: noise has none, so the mean patch is signal too.

    Args:
        batches: of patches [n, d], in state space; only their second moment [d, d] is kept.

    Raises:
        InputError: there is no patch but zeros, or the rank does not fit.
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
    """The subspace of patches x that is most like latents l of the same places, and its scale.

    Orthonormal rows A and s > 0 with x ~ s A^T l: for any s, E|x - s A^T l|^2 is least where
    tr(A E[x l^T]) is greatest, which is Procrustes' problem; with the singular value decomposition
    E[l x^T] = U S V^T it is solved by A = U V^T. Least squares would then choose a scale that
    shrinks with every bit of disagreement. But the latent model has to meet the signal-to-noise
    ratios that it knows, so the scale is the one that makes the sizes equal:

        s^2 = E|A x|^2 / E|l|^2

    Args:
        pairs: batches of latents [n, r] and patches [n, d] of the same places, r at most d.

    Raises:
        InputError: there are no pairs, more latents than pixels, or nothing but zeros.
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
    # E|A x - s l|^2 = 2 E|A x|^2 - 2 s tr(S), for E|A x|^2 = s^2 E|l|^2.
    agreement = 2 * scale * strengths.sum() / inside - 1
    return Subspace(
        basis.float().contiguous(),
        float(scale),
        float((inside / moment.trace()).clamp(0, 1)),
        float(agreement),
    )


def prepare(model: JitModel, subspace: Subspace) -> None:
    """Give a fresh rank-asymmetric network its subspace, in place.

    The first numbers that a patch is squeezed into become its coordinates there, at the size that
    fresh weights have, so that the network sees what the reading of its answer mixes in.

    Raises:
        InputError: the network has another rank or other patches, or a bottleneck below the rank.
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
    """A pixel model that begins as a latent one: the same network, shown A k x_t, answering A^T v.

    Its estimate of x_0 is at first exactly s A^T l, with l what the latent model says of A k x_t;
    0 in the complement, which is left to be learnt. All other weights are copied.

    Args:
        latent: predicts velocities: its `rank` is all of its own patches.
        subspace: of `aligned_subspace`, for latent patches and patches of pixels.
        patch, channels: of the pixel model, which has as many patches a side.

    Raises:
        InputError: the latent model does not predict velocities, or the subspace does not fit.
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


def unforeseen(
    reference: Denoiser,
    latents: Tensor,
    eps: Tensor,
    t: Tensor,
    subspace: Subspace,
    *,
    patch: int,
    latent_patch: int = 1,
) -> Tensor:
    """c [b, n, d]: what a latent model could not tell of its data, in patches of pixels.

    The model is shown the latents with the pixels' own noise eps, as far as that is in the
    subspace, at the same signal-to-noise ratio: (1 - tau) l + tau A eps. Then
    c = s A^T (l - its estimate).

    Args:
        reference: estimates latents [b, c, h, w]; frozen, and bound to its labels.
        latents: [b, c, h, w] of the pictures.
        eps: [b, c', h', w'], their noise.
        t: [b], the time of the pixel model.
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
    """A target [b, n, d] for estimates of x_0 with less variance than x_0 itself.

    A network D that is trained on |D(x_t) - x_0|^2 learns m = E[x_0 | x_t], and the scatter of x_0
    about m is all the noise of its gradients. Let c be a variate with E[c | x_t] = 0. Then
    x_0 - lam c has the mean m too, and its scatter is least where

        lam = E<x_0 - m, c> / E<c, c>

    which is estimated from the one draw that there is, patch by patch, with D in the place of m and
    kept to [0, 1]. Here c is what a reference of the subspace could not foresee (`unforeseen`); in
    the subspace x_0 - m is about the same, so that most of its scatter goes.

    What is not exact:

    * E[c | x_t] is not 0, but what the reference errs by, plus what the complement of x_t tells of
      the subspace beyond what the subspace tells itself. Both vanish near noise. With a `shift` the
      reduction fades to none towards data, by (1 - w(t)) with
      w = (1 - t)^2 / ((1 - t)^2 + (shift t)^2).
    * lam sees D's own error e = D - m as well. Of the mean gradient it takes away the projection of
      e on c, E[c c^T / |c|^2] e at most: in a subspace of rank r one r-th of e where c has no
      preferred direction. The gradient is smaller by that, and zero for the same D.
    * A D that begins as the reference (`lifted`) errs as it does: inside, x_0 - D is c, lam is 1,
      and nothing is left to learn there. What the reference gets wrong is put right only where the
      reduction has faded, so let the reference be well trained and give a `shift`.

    Args:
        x_0, estimate, c: patches [b, n, d]; the estimate is D(x_t), and no gradient flows through
            it here.
        t: [b].
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
    """Mean of |estimate - target|^2 / t^2, the error of the velocity, with t at least `floor`.

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
