"""Distances between sets of pictures and between pictures, with confidence intervals.

All functions take arrays of features [n, d]; intervals are at 95%. Those of set distances come
from the jackknife with Student's t: the bootstrap duplicates pictures, and both KID and FD count
duplicates as a difference between the sets. The jackknife is deterministic, and conservative when
both sets have the same distribution (Efron and Stein, 1981). In simulations with 40 to 200 pictures
its coverage was 90 to 99%.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from asymflow.core import statistics
from asymflow.core.errors import InputError
from asymflow.core.statistics import Array, Interval, t_interval

_Z = NormalDist().inv_cdf((1 + statistics.CONFIDENCE) / 2)
_GROUPS = 20


def kid(x: Array, y: Array, *, paired: bool = False) -> Interval:
    """Kernel Inception Distance's estimator between features x [m, d] and y [n, d], times 1000.

    The unbiased squared maximum mean discrepancy with `k(a, b) = (a.b / d + 1)^3`
    (Binkowski et al., arXiv 1801.01401, equation 4 and section 4):

        sum_{i != j} k(x_i, x_j) / m(m-1)  +  sum_{i != j} k(y_i, y_j) / n(n-1)
            -  2 sum_{i, j} k(x_i, y_j) / mn

    It can be negative; for two samples of one distribution its mean is zero at every size.

    With `paired`, rows i of `x` and `y` are dependent (generated from the same prompt, for
    example), and the cross term omits i = j. Otherwise this dependence would bias the estimate
    downwards, and copies of the references would score below zero.

    Raises:
        InputError: fewer than 3 rows, shapes that do not match, or NaN.
    """
    x, y = _features(x, y, paired)
    k_xx, k_yy, k_xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    np.fill_diagonal(k_xx, 0)
    np.fill_diagonal(k_yy, 0)
    if paired:
        np.fill_diagonal(k_xy, 0)
        n = len(x)
        # Sum over j of h(z_i, z_j): Gretton et al. 2012, Lemma 6.
        rows = k_xx.sum(1) + k_yy.sum(1) - k_xy.sum(1) - k_xy.sum(0)
        value = rows.sum() / (n * (n - 1))
        without = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2))
        deviation = _jackknife_deviation(without)
    else:
        m, n = len(x), len(y)
        s_x, s_y, s_xy = k_xx.sum(), k_yy.sum(), k_xy.sum()
        u_x, u_y, u_xy = s_x / (m * (m - 1)), s_y / (n * (n - 1)), 2 * s_xy / (m * n)
        value = u_x + u_y - u_xy
        without_x = (
            (s_x - 2 * k_xx.sum(1)) / ((m - 1) * (m - 2))
            + u_y
            - 2 * (s_xy - k_xy.sum(1)) / ((m - 1) * n)
        )
        without_y = (
            u_x
            + (s_y - 2 * k_yy.sum(1)) / ((n - 1) * (n - 2))
            - 2 * (s_xy - k_xy.sum(0)) / (m * (n - 1))
        )
        deviation = float(
            np.hypot(_jackknife_deviation(without_x), _jackknife_deviation(without_y))
        )
    # Degrees of freedom of the smaller set, which is conservative.
    return t_interval(1000 * float(value), 1000 * deviation, min(len(x), len(y)) - 1)


def fd(x: Array, y: Array, *, paired: bool = False) -> Interval:
    """Frechet distance between Gaussians fitted to features x [m, d] and y [n, d].

        |mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))

    (Heusel et al., arXiv 1706.08500.) With `S = A'A` the last trace is the sum of the singular
    values of `A_x A_y'`, so no matrix square root is taken and fewer pictures than dimensions
    are supported: the usual formula is inaccurate for singular covariances.

    Biased upwards, increasingly with fewer pictures: compare values only at equal m and n. The
    interval covers the sampling noise at this size (a jackknife over 20 groups of rows), not the
    bias. `paired` is as in `kid`, and changes the interval only.

    Raises:
        InputError: fewer than 3 rows, shapes that do not match, or NaN.
    """
    x, y = _features(x, y, paired)
    groups = min(_GROUPS, len(x), len(y))
    # Shuffled, because rows may be ordered periodically (by style).
    in_x = np.random.default_rng(0).permutation(len(x)) % groups
    in_y = np.random.default_rng(0).permutation(len(y)) % groups
    if paired:
        deviation = _jackknife_deviation(
            np.array([_frechet(x[in_x != g], y[in_y != g]) for g in range(groups)])
        )
    else:
        deviation = float(
            np.hypot(
                _jackknife_deviation(np.array([_frechet(x[in_x != g], y) for g in range(groups)])),
                _jackknife_deviation(np.array([_frechet(x, y[in_y != g]) for g in range(groups)])),
            )
        )
    return t_interval(_frechet(x, y), deviation, groups - 1)


def fd_difference(x: Array, other: Array, y: Array) -> Interval:
    """`fd(x, y) - fd(other, y)` of features x, other [m, d] of the same seeds, and y [n, d].

    What x and other share, the bias and most of the noise, is gone from the difference. The
    interval is a jackknife over 20 groups of seeds.

    Raises:
        InputError: fewer than 3 rows, shapes that do not match, or NaN.
    """
    x, other = _features(x, other, True)
    x, y = _features(x, y, False)
    groups = min(_GROUPS, len(x))
    group = np.random.default_rng(0).permutation(len(x)) % groups
    kept = [group != g for g in range(groups)]
    without = np.array([_frechet(x[rows], y) - _frechet(other[rows], y) for rows in kept])
    value = _frechet(x, y) - _frechet(other, y)
    return t_interval(value, _jackknife_deviation(without), groups - 1)


def weighted_mean(estimates: Sequence[Interval], weights: Sequence[float]) -> Interval:
    """Weighted mean of independent estimates; half-widths add in quadrature."""
    shares = np.asarray(weights, np.float64) / sum(weights)
    value = sum(share * e.value for share, e in zip(shares, estimates, strict=True))
    half = np.linalg.norm([share * e.half for share, e in zip(shares, estimates, strict=True)])
    return Interval(float(value), float(value - half), float(value + half))


def ranks(
    queries: Array,
    concepts: Sequence[str],
    gallery: Array,
    gallery_concepts: Sequence[str],
) -> NDArray[np.int64]:
    """Retrieval rank of the correct concept for each query [n, d].

    The rank (1 is the nearest) of the first picture of its concept in the gallery [g, d] by cosine
    similarity; g + 1 if the gallery lacks the concept. Ties count as nearer.

    Raises:
        InputError: features and concepts differ in number.
    """
    if len(queries) != len(concepts) or len(gallery) != len(gallery_concepts):
        raise InputError(
            f"{len(queries)} queries with {len(concepts)} concepts and {len(gallery)} gallery "
            f"pictures with {len(gallery_concepts)} concepts; give one concept per picture."
        )
    similarity = _unit(queries) @ _unit(gallery).T
    same = np.asarray(concepts)[:, None] == np.asarray(gallery_concepts)[None, :]
    best = np.where(same, similarity, -np.inf).max(axis=1, initial=-np.inf)
    return 1 + (similarity > best[:, None]).sum(axis=1)


def recall(ranks: NDArray[np.int64], k: int) -> Interval:
    """Share of queries with a picture of their concept among the k nearest.

    The interval is Wilson's.

    Raises:
        InputError: there are no ranks.
    """
    n = len(ranks)
    if n == 0:
        raise InputError("Recall of 0 pictures is not defined; give at least one.")
    share = float((ranks <= k).mean())
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Interval(share, float(middle - half), float(middle + half))


def cosine_distance(x: Array, y: Array) -> NDArray[np.float64]:
    """`1 - cos(x_i, y_i)` for each pair of rows of features x, y [n, d]; [n] out."""
    _same_shape(x, y)
    return 1 - (_unit(x) * _unit(y)).sum(axis=1)


def l2_distance(x: Array, y: Array) -> NDArray[np.float64]:
    """`|x_i - y_i|` for each pair of rows of features x, y [n, d]; [n] out."""
    _same_shape(x, y)
    return np.linalg.norm(np.asarray(x, np.float64) - y, axis=1)


def rms(a: Array, b: Array) -> NDArray[np.float64]:
    """RMSE of each pair of pictures a, b [n, ...]; [n] out."""
    _same_shape(a, b)
    return statistics.rms(np.asarray(a, np.float64) - b)


def psnr(a: Array, b: Array) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB of each pair of pictures in [0, 1]; [n] out.

    `-20 log10(rms)`, infinite for equal pictures.
    """
    with np.errstate(divide="ignore"):
        return -20 * np.log10(rms(a, b))


def _kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _frechet(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    a, b = _factor(x), _factor(y)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    apart = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    return float(apart + (a**2).sum() + (b**2).sum() - 2 * root)


def _factor(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A with A'A the sample covariance, with at most d rows."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return np.linalg.qr(centred).R if len(x) > x.shape[1] else centred


def _jackknife_deviation(without: NDArray[np.float64]) -> float:
    """Jackknife standard deviation from leave-one-out values."""
    g = len(without)
    return float(np.sqrt((g - 1) / g * ((without - without.mean()) ** 2).sum()))


def _unit(x: Array) -> NDArray[np.float64]:
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _features(x: Array, y: Array, paired: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(f"Features have shapes {x.shape} and {y.shape}; give [m, d] and [n, d].")
    if paired and len(x) != len(y):
        raise InputError(f"{len(x)} and {len(y)} rows cannot be paired; give one of each.")
    if min(len(x), len(y)) < 3:
        raise InputError(
            f"{len(x)} and {len(y)} pictures are too few to compare distributions; give at least 3."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("Features hold NaN or infinity: a picture they came from does as well.")
    return x, y


def _same_shape(a: Array, b: Array) -> None:
    if a.shape != b.shape:
        raise InputError(f"Shapes {a.shape} and {b.shape} differ; pairs need equal shapes.")
