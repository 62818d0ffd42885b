from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from asymflow.bench import metrics
from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval

Rows = NDArray[np.float64]


def kernel(a: Rows, b: Rows) -> float:
    return (float(a @ b) / 3 + 1) ** 3


def test_kid_is_the_published_sum() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(7, 3))

    expected = (
        sum(kernel(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / 20
        + sum(kernel(y[i], y[j]) for i in range(7) for j in range(7) if i != j) / 42
        - 2 * sum(kernel(a, b) for a in x for b in y) / 35
    )
    assert metrics.kid(x, y).value == pytest.approx(1000 * expected)


def test_paired_kid_leaves_out_the_pairs_themselves() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))

    expected = (
        sum(
            kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(x[j], y[i])
            for i in range(6)
            for j in range(6)
            if i != j
        )
        / 30
    )
    assert metrics.kid(x, y, paired=True).value == pytest.approx(1000 * expected)


@pytest.mark.parametrize("paired", [False, True])
def test_kid_interval_is_the_plain_jackknife(paired: bool) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(6, 2)) + 1
    keep = ~np.eye(6, dtype=bool)
    if paired:
        parts = [[metrics.kid(x[m], y[m], paired=True).value for m in keep]]
    else:
        parts = [
            [metrics.kid(x[m], y).value for m in keep],
            [metrics.kid(x, y[m]).value for m in keep],
        ]
    variance = sum(5 / 6 * np.sum((np.array(p) - np.mean(p)) ** 2) for p in parts)
    estimate = metrics.kid(x, y, paired=paired)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(2.570582 * np.sqrt(variance))


def true_kid(d: int, variance: float, shift: float) -> float:
    """KID x 1000 between N(0, v I) and N(shift 1, v I) in d dimensions.

    The kernel compares the first three moments, weighted 3/d, 3/d^2 and 1/d^3; with m the
    squared distance of the means they differ by m, m^2 and m^3 + 6 v m^2 + (3 d + 6) v^2 m.
    """
    m, v = d * shift**2, variance
    moments = (m, m**2, m**3 + 6 * v * m**2 + (3 * d + 6) * v**2 * m)
    return 1000 * (3 * moments[0] / d + 3 * moments[1] / d**2 + moments[2] / d**3)


def test_kid_is_unbiased() -> None:
    truth = true_kid(1, 1.0, 0.3)
    rng = np.random.default_rng(0)
    values = np.array(
        [
            metrics.kid(rng.normal(size=(30, 1)), rng.normal(size=(20, 1)) + 0.3).value
            for _ in range(1500)
        ]
    )
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / np.sqrt(1500))


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_paired_kid_is_unbiased_and_covered_when_pairs_depend(shift: float) -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[Rows, Rows]:
        shared = rng.normal(size=(n, 8))
        x = shared + 0.3 * rng.normal(size=(n, 8))
        return x, shared + 0.3 * rng.normal(size=(n, 8)) + shift

    truth = true_kid(8, 1.09, shift)
    estimates = [metrics.kid(*draw(60), paired=True) for _ in range(300)]
    values = np.array([e.value for e in estimates])
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / np.sqrt(300))
    assert np.mean([e.low <= truth <= e.high for e in estimates]) > 0.86


def test_kid_of_one_distribution_is_covered_and_not_absurdly_wide() -> None:
    rng = np.random.default_rng(2)
    estimates = [
        metrics.kid(rng.normal(size=(50, 8)), rng.normal(size=(70, 8))) for _ in range(300)
    ]
    assert np.mean([e.low <= 0 <= e.high for e in estimates]) > 0.93
    # The jackknife doubles the variance here at most: see the module's docstring.
    spread = np.std([e.value for e in estimates])
    half = np.mean([(e.high - e.low) / 2 for e in estimates])
    assert 1.6 * spread < half < 3.2 * spread


def test_kid_of_a_copy() -> None:
    x = np.random.default_rng(3).normal(size=(40, 5))
    assert metrics.kid(x, x, paired=True).value == pytest.approx(0, abs=1e-9)
    assert metrics.kid(x, x).value < -1  # the bias that `paired` removes


@pytest.mark.parametrize("distance", [metrics.kid, metrics.fd])
def test_distances_do_not_depend_on_order(
    distance: Callable[[Rows, Rows], Interval],
) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(30, 6)) + 0.2
    assert distance(rng.permutation(x), rng.permutation(y)).value == pytest.approx(
        distance(x, y).value
    )


def test_fd_of_known_gaussians() -> None:
    # Commuting covariances: |m|^2 + sum (s_x - s_y)^2.
    rng = np.random.default_rng(0)
    scales, shift = np.array([1.0, 2.0, 0.5]), np.array([0.5, 0.0, -1.0])
    x = rng.normal(size=(60_000, 3))
    y = rng.normal(size=(60_000, 3)) * scales + shift
    expected = np.sum(shift**2) + np.sum((1 - scales) ** 2)
    assert metrics.fd(x, y).value == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("rows", [12, 50])  # fewer and more than the dimensions
def test_fd_agrees_with_the_eigenvalues_of_the_product(rows: int) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 20)) @ rng.normal(size=(20, 20))
    y = rng.normal(size=(rows + 3, 20)) @ rng.normal(size=(20, 20)) + 1
    s_x, s_y = np.cov(x.T), np.cov(y.T)
    # (S_x S_y)^(1/2) has the roots of the product's eigenvalues, whose rank is at most rows - 1.
    eigenvalues = np.sort(np.linalg.eigvals(s_x @ s_y).real)[::-1][: rows - 1]
    expected = (
        np.sum((x.mean(0) - y.mean(0)) ** 2)
        + np.trace(s_x + s_y)
        - 2 * np.sqrt(eigenvalues.clip(0)).sum()
    )
    assert metrics.fd(x, y).value == pytest.approx(expected, rel=1e-6)


def test_fd_of_a_copy_is_zero_even_with_few_pictures() -> None:
    x = np.random.default_rng(6).normal(size=(10, 1280))
    estimate = metrics.fd(x, x, paired=True)
    assert estimate.value == pytest.approx(0, abs=1e-8)
    assert estimate.high == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("paired", [False, True])
def test_fd_interval_covers_its_mean(paired: bool) -> None:
    rng = np.random.default_rng(7)

    def estimate() -> Interval:
        shared = rng.normal(size=(60, 4))
        x = shared + 0.5 * rng.normal(size=(60, 4))
        y = (shared if paired else rng.normal(size=(60, 4))) + 0.5 * rng.normal(size=(60, 4))
        return metrics.fd(x, y + 0.5, paired=paired)

    estimates = [estimate() for _ in range(150)]
    center = np.mean([e.value for e in estimates])
    spread = np.std([e.value for e in estimates])
    half = np.mean([(e.high - e.low) / 2 for e in estimates])
    assert np.mean([e.low <= center <= e.high for e in estimates]) > 0.88
    assert half < 3 * spread


def test_ranks_of_a_planted_gallery() -> None:
    gallery = np.array([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.0, 1.0]])
    concepts = ["fox", "cat", "dog", "fox", "owl"]
    queries = np.array([[2.0, 0.0], [2.0, 0.1], [0.0, 3.0], [0.0, 3.0], [0.0, 3.0]])
    asked = ["fox", "dog", "fox", "cat", "bee"]
    # Cosine, so length does not matter; of two foxes the nearer counts; no bee: last place.
    assert metrics.ranks(queries, asked, gallery, concepts).tolist() == [1, 3, 2, 4, 6]


def test_recall_counts_ranks_and_gives_wilsons_interval() -> None:
    ranks = np.array([1, 1, 2, 5, 1, 1, 1, 1, 1, 1])
    assert metrics.recall(ranks, 1).value == 0.8
    assert metrics.recall(ranks, 2).value == 0.9
    assert metrics.recall(ranks, 5).value == 1.0
    eight_of_ten = metrics.recall(ranks, 1)
    assert (eight_of_ten.low, eight_of_ten.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_distances_between_rows() -> None:
    x, y = np.array([[1.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 2.0], [6.0, 8.0]])
    assert metrics.cosine_distance(x, y) == pytest.approx([1.0, 0.0])
    assert metrics.l2_distance(x, y) == pytest.approx([np.sqrt(5), 5.0])


def test_rms_and_psnr() -> None:
    a = np.zeros((2, 4, 4, 4))
    b = np.stack([np.full((4, 4, 4), 0.1), np.zeros((4, 4, 4))])
    assert metrics.rms(a, b) == pytest.approx([0.1, 0.0])
    assert metrics.psnr(a, b)[0] == pytest.approx(20.0)
    assert metrics.psnr(a, b)[1] == np.inf


def test_weighted_mean_adds_deviations_in_squares() -> None:
    parts = [Interval(1.0, 0.0, 2.0), Interval(5.0, 4.0, 6.0)]
    pooled = metrics.weighted_mean(parts, [3, 1])
    assert pooled.value == pytest.approx(2.0)
    assert (pooled.high - pooled.low) / 2 == pytest.approx(np.hypot(0.75, 0.25))


@pytest.mark.parametrize(
    ("x", "y", "paired", "said"),
    [
        (np.zeros((4, 3)), np.zeros((4, 2)), False, r"\(4, 3\) and \(4, 2\)"),
        (np.zeros((4, 3)), np.zeros((5, 3)), True, "4 and 5 rows"),
        (np.zeros((2, 3)), np.zeros((9, 3)), False, "too few"),
        (np.zeros((4, 3)), np.full((4, 3), np.nan), False, "NaN"),
    ],
)
@pytest.mark.parametrize("distance", [metrics.kid, metrics.fd])
def test_distances_say_what_is_wrong(
    distance: Callable[..., Interval], x: Rows, y: Rows, paired: bool, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        distance(x, y, paired=paired)


def test_row_metrics_say_what_is_wrong() -> None:
    with pytest.raises(InputError, match="one concept per picture"):
        metrics.ranks(np.zeros((2, 3)), ["a"], np.zeros((1, 3)), ["a"])
    with pytest.raises(InputError, match="equal shapes"):
        metrics.rms(np.zeros((2, 3)), np.zeros((1, 3)))
    with pytest.raises(InputError, match="0 pictures"):
        metrics.recall(np.zeros(0, np.int64), 1)


def test_a_difference_of_frechet_distances_knows_what_common_seeds_share() -> None:
    rng = np.random.default_rng(5)
    real, some = rng.normal(size=(2000, 8)), rng.normal(size=(400, 8))
    near, far = some + 0.02 * rng.normal(size=some.shape), some + 0.3
    for other in (near, far):
        found = metrics.fd_difference(other, some, real)
        value = metrics.fd(other, real).value - metrics.fd(some, real).value
        assert found.value == pytest.approx(value)
    assert metrics.fd_difference(some, some, real).half == 0
    assert metrics.fd_difference(far, some, real).low > 0
    # The differences of pictures of common seeds vary less than their distances.
    assert 4 * metrics.fd_difference(near, some, real).half < metrics.fd(near, real).half


def test_the_interval_of_a_difference_covers_the_difference_in_the_limit() -> None:
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        real, some = rng.normal(size=(4000, 3)), rng.normal(size=(300, 3))
        # FD of N(m, 1) to N(0, 1) is |m|^2.
        found = metrics.fd_difference(some + 0.2, some, real)
        covered += found.low <= 3 * 0.2**2 <= found.high
    assert 50 <= covered <= 60
