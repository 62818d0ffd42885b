"""Whether a plan draws pictures from the same distribution as many steps do.

A plan of few steps may draw another picture from some noise without that being a bad one, and its
distance to the picture of many steps does not tell the two apart. Here whole sets are compared:
the mean of phi over what a plan draws, with that over what many steps draw, where the inner
products of phi are a kernel of features (the maximum mean discrepancy; Gretton et al., JMLR 13).
Both sets are of the same seeds. What differs among seeds cancels in

    D = mean_i (phi(planned_i) - phi(many_i))

so that no third set is needed to say how large |D| is by chance: it is the mean of independent
differences, whose signs say nothing if both distributions are the same.

|D| is in no unit that means anything, so it is stated in *shares*: as large as if so many of the
pictures were blurred, noisy, or all from one half of what the model draws. Replacing a share x of
the pictures moves the mean x times as far as replacing all of them, which is measured by doing it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.core.statistics import CONFIDENCE, Interval

Rows = NDArray[np.float64]
Pictures = NDArray[np.floating[Any]]
"""[n, h, w, c] in [0, 1]."""
Features = Callable[[Pictures], Rows]
"""From pictures to features [n, d]."""

TOLERANCE = 0.05
"""Share of pictures that may be of another kind."""
LEAST = 16
"""Pictures below which an interval means little."""
POWER = 0.8
"""How often a difference is seen that is called detectable."""
WIDTHS = (0.5, 1.0, 2.0)
"""Of the kernel, which is a mean of Gaussians, in parts of the distance of two pictures."""
_WAVES = 128
"""Random waves of each width, whose products approximate the kernel (Rahimi and Recht, 2007)."""
_DRAWS = 1000
_TAIL = (1 - CONFIDENCE) / 2
_HALVINGS = 24
_STILL = 1e-3
"""Standard deviation below which a feature is constant: a quarter of a level of a byte."""
_CELLS, _ENERGY_CELLS = 4, 2
"""Per side, of the means of colours and of the energies of details."""
_NOISE = 0.1


@dataclass(frozen=True, slots=True)
class Share:
    """A difference as that of a share of pictures of another kind.

    Attributes:
        share: as large as the difference that was measured, with its 95 % interval.
        detectable: the least share of such pictures that is seen in 80 of 100 measurements like
            this one. A change of every picture is seen where it is smaller.
    """

    share: Interval
    detectable: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Pictures of a plan beside those of many steps.

    Attributes:
        pictures: of either.
        distance: maximum mean discrepancy, with its 95 % interval; its lower end is above zero in
            2.5 of 100 measurements of two equal distributions.
        shares: the same in pictures of another kind, by kind: "blurred", "noisy", "one-sided".
    """

    pictures: int
    distance: Interval
    shares: Mapping[str, Share]

    @property
    def seen(self) -> bool:
        """Whether there is a difference, however small."""
        return self.distance.low > 0

    @property
    def kept(self) -> bool:
        """Whether it is known that the difference is less than `TOLERANCE`, of every kind."""
        return all(each.share.high <= TOLERANCE for each in self.shares.values())

    @property
    def lost(self) -> bool:
        """Whether it is known that the difference is more than `TOLERANCE`, of some kind."""
        return any(each.share.low > TOLERANCE for each in self.shares.values())

    def needed(self, share: float) -> int:
        """About how many pictures it takes to detect a share of every kind."""
        worst = max(each.detectable for each in self.shares.values())
        return math.ceil(self.pictures * max(worst / share, (worst / share) ** 2))

    @property
    def stated(self) -> dict[str, str]:
        """What evidence says of it."""
        found = {"distribution_pictures": str(self.pictures), "distribution": str(self)}
        for kind, each in self.shares.items():
            value = each.share
            found[f"distribution_{kind}"] = (
                f"{value.value:.4f} ({value.low:.4f} to {value.high:.4f})"
            )
            found[f"distribution_{kind}_detectable"] = f"{each.detectable:.4f}"
        return found

    def __str__(self) -> str:
        if self.kept:
            verdict = f"the same within {TOLERANCE:.0%}"
        elif self.lost:
            verdict = f"another by more than {TOLERANCE:.0%}"
        else:
            count = max(self.needed(TOLERANCE), self.pictures + 1)
            verdict = f"undecided, and {count} pictures would show {TOLERANCE:.0%}"
        kinds = ", ".join(
            f"{each.share.value:.1%} ({each.share.low:.1%} to {each.share.high:.1%}) {kind}"
            for kind, each in self.shares.items()
        )
        least = ", ".join(f"{each.detectable:.1%}" for each in self.shares.values())
        return (
            f"{verdict}; on {self.pictures} pictures as different as with {kinds} ones; "
            f"detectable: {least}"
        )


def compare(planned: Pictures, many: Pictures, features: Features | None = None) -> Comparison:
    """Compare what a plan draws with what many steps draw from the same noise.

    Args:
        planned: pictures of the plan.
        many: pictures of many steps, of the same seeds in the same order.
        features: of pictures; by default `multiscale`.

    Raises:
        InputError: the pictures do not match, are too few, or hold NaN; or the features tell none
            from another.
    """
    _check(planned, many)
    features = features or multiscale
    of_planned, of_many = features(planned), features(many)
    # In an order of their own, so that the result does not depend on that of the pictures.
    order = np.lexsort(np.hstack([of_planned, of_many]).T)
    kinds = {name: features(change(many[order])) for name, change in KINDS.items()}
    return compare_features(of_planned[order], of_many[order], kinds)


def compare_features(planned: Rows, many: Rows, kinds: Mapping[str, Rows]) -> Comparison:
    """`compare` for features [n, d], and those of the pictures of many steps, changed."""
    # By both, since either alone would seem to be the narrower one.
    both = np.concatenate([many, planned])
    centre, spread = both.mean(0), np.maximum(both.std(0), _STILL)
    waves = _waves(planned.shape[1])

    def phi(rows: Rows) -> Rows:
        angles = (rows - centre) / spread @ waves
        return np.hstack([np.cos(angles), np.sin(angles)]) / math.sqrt(waves.shape[1])

    base = phi(many)
    apart = phi(planned) - base
    rng = np.random.default_rng(0)
    count = len(apart)
    signs = _signs(rng, count)
    distance = _length(apart, signs)
    by_chance = signs @ (apart - apart.mean(0)) / count
    changes = {name: phi(rows) - base for name, rows in kinds.items()}
    changes["one-sided"] = base[_other_half(rng, (many - centre) / spread)] - base
    # As many as are missed by all of the pictures in 2.5 of 100 measurements.
    unseen = 1 - _TAIL ** (1 / count)
    shares: dict[str, Share] = {}
    for name, change in changes.items():
        towards = change.mean(0)
        whole = float(np.linalg.norm(towards))
        if whole == 0:  # pictures of one colour are not blurred
            continue
        share = Interval(
            distance.value / whole, distance.low / whole, max(distance.high / whole, unseen)
        )
        least = _detectable(by_chance, _signs(rng, count) @ change / count, towards)
        shares[name] = Share(share, least)
    if not shares:
        raise InputError(
            "These features are the same for all pictures, blurred and noisy ones as well. Give "
            "others, or none for `multiscale`."
        )
    return Comparison(count, distance, shares)


def multiscale(pictures: Pictures) -> Rows:
    """Features [n, d] of pictures that need no network: colours and details, by place and scale.

    Mean colours of 4 x 4 cells, and the root mean square of Haar's details of three directions at
    every scale of 4 pixels and more, of 2 x 2 cells.
    """
    x = torch.tensor(pictures, dtype=torch.float32).permute(0, 3, 1, 2)
    found = [_cells(x, _CELLS)]
    level = x.mean(1, keepdim=True)
    while min(level.shape[-2:]) >= 2 * _ENERGY_CELLS:
        level = level[..., : level.shape[-2] // 2 * 2, : level.shape[-1] // 2 * 2]
        a, b = level[..., ::2, ::2], level[..., ::2, 1::2]
        c, d = level[..., 1::2, ::2], level[..., 1::2, 1::2]
        details = torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], 1) / 4
        found.append(_cells(details.square(), _ENERGY_CELLS).sqrt())
        level = (a + b + c + d) / 4
    return torch.cat(found, 1).double().numpy()


def _cells(x: Tensor, cells: int) -> Tensor:
    return F.adaptive_avg_pool2d(x, cells).flatten(1)


def blurred(pictures: Pictures) -> Pictures:
    """Pictures reduced to half of their side and enlarged again."""
    x = torch.tensor(pictures, dtype=torch.float32).permute(0, 3, 1, 2)
    half = F.adaptive_avg_pool2d(x, ((x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2))
    again = F.interpolate(half, size=x.shape[2:], mode="bilinear")
    return again.permute(0, 2, 3, 1).numpy()


def noisy(pictures: Pictures) -> Pictures:
    """Pictures with noise of a standard deviation of a tenth, clipped to [0, 1]."""
    noise = np.random.default_rng(0).normal(0, _NOISE, pictures.shape)
    return (pictures + noise).clip(0, 1).astype(np.float32)


KINDS: Mapping[str, Callable[[Pictures], Pictures]] = {"blurred": blurred, "noisy": noisy}
"""Changes of pictures that differences are measured in."""


def _waves(dim: int) -> Rows:
    """Frequencies [d, 3 * _WAVES] of a mean of Gaussian kernels for standardised features."""
    directions = np.random.default_rng(1).normal(size=(dim, _WAVES))
    return np.hstack([directions / (width * math.sqrt(2 * dim)) for width in WIDTHS])


def _signs(rng: np.random.Generator, count: int) -> Rows:
    """Random signs [draws, n]."""
    return rng.choice((-1.0, 1.0), (_DRAWS, count))


def _length(rows: Rows, signs: Rows) -> Interval:
    """The length of the mean of rows [n, d], with those for which it is not too long nor too short.

    For a length of zero, rows with other signs are as probable, so that zero is wrongly left out as
    rarely as stated for any number of rows. For another length the mean of that length, in the
    direction that was found, is taken away before signs are changed.
    """
    count, mean = len(rows), rows.mean(0)
    length = float(np.linalg.norm(mean))
    if length == 0:
        return Interval(0.0, 0.0, 0.0)
    by_chance = signs @ rows / count
    squares, along = (by_chance**2).sum(1), by_chance @ mean / length
    part = 1 - signs.mean(1)

    def quantile(of: float, at: float) -> float:
        return float(np.quantile(squares + 2 * of * part * along + (of * part) ** 2, at))

    low = 0.0
    if quantile(0.0, 1 - _TAIL) < length**2:
        low = _first(lambda of: quantile(of, 1 - _TAIL) >= length**2, length)
    top = length + 2 * math.sqrt(float(squares.max()))
    high = _first(lambda of: quantile(of, _TAIL) >= length**2, top)
    # Without the squares of single rows, which would make it too long.
    unbiased = (count * length**2 - float((rows**2).sum()) / count) / (count - 1)
    value = math.sqrt(max(unbiased, 0.0))
    return Interval(min(max(value, low), high), low, high)


def _detectable(by_chance: Rows, replaced: Rows, towards: Rows) -> float:
    """The share of replaced pictures that is seen in `POWER` of the measurements.

    Args:
        by_chance: what the mean is off by [draws, d], without them.
        replaced: the same [draws, d] where all are replaced.
        towards: what the mean moves by where all are replaced [d].
    """
    own, other = (by_chance**2).sum(1), (replaced**2).sum(1)
    both = (by_chance * replaced).sum(1)
    along, along_other, whole = by_chance @ towards, replaced @ towards, towards @ towards

    def is_seen(share: float) -> bool:
        root = math.sqrt(share)
        squares = own + 2 * root * both + share * other
        moved = squares + 2 * share * (along + root * along_other) + share**2 * whole
        return float((moved > np.quantile(squares, 1 - _TAIL)).mean()) >= POWER

    return _first(is_seen, 1.0)


def _first(holds: Callable[[float], bool], top: float) -> float:
    """The least number up to `top` from which on something holds; `top` if it does nowhere."""
    low, high = 0.0, top
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _other_half(rng: np.random.Generator, rows: Rows) -> NDArray[np.intp]:
    """For every row [n, d] one of those on one side of the median along the widest direction."""
    place = rows @ np.linalg.svd(rows, full_matrices=False)[2][0]
    half = np.flatnonzero(place > np.median(place))
    if len(half) == 0:
        half = np.arange(len(rows))
    return rng.choice(half, len(rows))


def _check(planned: Pictures, many: Pictures) -> None:
    if planned.shape != many.shape or planned.ndim != 4:
        raise InputError(
            f"Pictures have shapes {planned.shape} and {many.shape}. Give [n, h, w, c] of both, "
            "of the same seeds."
        )
    if len(many) < LEAST:
        raise InputError(
            f"{len(many)} pictures say nothing of a distribution. Compare at least {LEAST}; "
            "a few hundred are usual."
        )
    if not (np.isfinite(planned).all() and np.isfinite(many).all()):
        raise InputError(
            "Pictures hold NaN or infinity. Look for the step of the plan that makes them."
        )
