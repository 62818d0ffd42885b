"""Measures cost and error of every move of a lattice, for one model on one device.

A fine reference trajectory visits all candidate times. There, every tier is evaluated once. The
rest is arithmetic on these outputs, because a move is linear in its estimates,

    x_s = (s/t) x_t + w D_t + v D_p        (`asymflow.core.solvers.damped_weights`)

so that the defect of every move, |x_s - reference|, is a quadratic form in the inner products of
states and estimates: times x tiers network calls, instead of times^3. What a late tier reuses
depends on when it was said: its fast part, which is cheap, is asked with what was said a few
candidates before.
"""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow._version import __version__
from asymflow.core import engine
from asymflow.core.adapter import Adapter, begun, clipped_estimate, splits
from asymflow.core.card import Carded
from asymflow.core.checks import as_path, each_instance, instance, whole
from asymflow.core.errors import InputError
from asymflow.core.estimators import Guided, Memory, Slow, carry, estimate, seen
from asymflow.core.flow import smooth
from asymflow.core.requests import late_refused, tiles_refused
from asymflow.core.schedules import candidates, interval, moments, switched
from asymflow.core.solvers import damped_weights
from asymflow.core.stages import Trajectory, compile_steps
from asymflow.core.state import State, move
from asymflow.core.types import (
    FULL,
    LATE_TIERS,
    Profile,
    Request,
    Solver,
    Step,
    Tier,
    cheaper_tiers,
    tiled_tiers,
    whole_tier,
)
from asymflow.planning import costs
from asymflow.planning.replay import recorded

FINER = 2
"""Moves of the reference between two candidate times."""
LATE = 5
"""Minimal number of moves in the second half of the candidates, for a disturbance in the first."""
DISTURBANCES = (0.02, 0.2)
"""Root mean squares of a small error, and of a large one."""
_FORGOTTEN = 1e-6
"""Floor for errors and error growth, so that logarithms are finite."""
_GROWING = 1.25
"""Minimal growth of a small error at times where saturation is measured."""
AGES = (1, 4, 8)
"""Candidate times between what a late estimate reuses and itself, at which it is measured."""
_NEVER = 1e3
"""Saturation used when large errors grow as much as small ones."""

Progress = Callable[[str, int, int], None]
"""Progress callback, called with the activity, the units done and their total."""
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Growth:
    """How the growth of errors is measured.

    Attributes:
        pictures: that it is measured on.
        times: candidate times at which it is measured; between them it is interpolated.
        moves: of every trajectory, at most; by default one per candidate time, and fewer where
            errors hardly grow.
    """

    pictures: int
    times: int = 6
    moves: int | None = None


def no_progress(what: str, done: int, total: int) -> None:
    """Progress callback that does nothing."""


def profile(
    adapter: Adapter,
    requests: Sequence[Request],
    *,
    times: Sequence[float] | None = None,
    tiers: Sequence[Tier] | None = None,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    repeats: int = 9,
    memory: bool = True,
    progress: Progress = no_progress,
    partial: Path | str | None = None,
) -> Profile:
    """Measure a lattice on calibration requests of one size and one guidance scale.

    See `measure`, which also returns where the reference ends.

    Raises:
        InputError: the requests are of different sizes or guidance scales, or have an image.
    """
    found, _ = measure(
        adapter,
        requests,
        times=times,
        tiers=tiers,
        guidance_interval=guidance_interval,
        repeats=repeats,
        memory=memory,
        progress=progress,
        partial=partial,
    )
    return found


def measure(
    adapter: Adapter,
    requests: Sequence[Request],
    *,
    times: Sequence[float] | None = None,
    tiers: Sequence[Tier] | None = None,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    repeats: int = 9,
    memory: bool = True,
    growth: Growth | None = None,
    solver: Solver = "multistep2",
    progress: Progress = no_progress,
    partial: Path | str | None = None,
) -> tuple[Profile, Tensor]:
    """A profile, and x_0 [b, c, h, w] that the reference reaches, in `FINER` moves a candidate.

    Args:
        adapter: the model.
        requests: calibration requests, without images.
        times: candidates, falling from 1 to 0; by default `candidates` for the size, with nodes at
            the ends of the guidance interval.
        tiers: cheaper than full; by default all that the model has.
        guidance_interval: (low, high) in t. Outside it generation will not be guided: there the
            reference is the conditional estimate, and guided tiers have no moves.
        repeats: of each timing; the least is used.
        memory: measure `peak_bytes`, which stay 0 otherwise.
        growth: how the growth of errors is measured; by default on all pictures.
        solver: of the reference.
        progress: called before every measurement.
        partial: a file that records the outputs of the network, so that an interrupted profile
            resumes from there. Remove it when the profile is saved.

    Raises:
        InputError: the requests are of different sizes or guidance scales, or have an image.
    """
    instance("adapter", adapter, Adapter, "Pass what asymflow.load() returns, then requests.")
    _check(requests)
    guidance_interval = interval(guidance_interval)
    repeats = whole("repeats", repeats, 1)
    size, scale = requests[0].size, requests[0].guidance_scale
    if times is None:
        times = switched(candidates(size), guidance_interval)
    else:
        times = moments("times", times)
    falling = all(t > s for t, s in pairwise(times))
    if len(times) < 2 or not falling or times[0] > 1 or times[-1] != 0:
        raise InputError(
            f"times={times} are no candidates. Give two or more, falling from 1 or less to 0."
        )
    if tiers is not None:
        each_instance("tiers", tiers, Tier, "Pass tiers, such as asymflow.CONDITIONAL.")
    else:
        tiers = (
            *cheaper_tiers(adapter.pool_factors(size)),
            *_tiled(adapter, size, times[-2]),
            *(LATE_TIERS if splits(adapter) else ()),
        )
    if scale == 1:  # nothing to leave out
        tiers = [tier for tier in tiers if tier.guided and not tier.sequential_cfg]
    tiers = (FULL, *tiers)
    impossible = next((tier for tier in tiers if not _asks(adapter, tier, times[-2], size)), None)
    if impossible is not None:
        reason = _refused(adapter, impossible, times[-2], size)
        raise InputError(
            f"Tier {impossible.name!r} cannot be profiled: {reason}. Leave it out of `tiers`."
        )
    with (
        nullcontext(adapter)
        if partial is None
        else recorded(adapter, as_path("partial", partial)) as replaying
    ):
        answers = reference(replaying, requests, times, tiers, guidance_interval, progress, solver)
        growth = growth or Growth(len(requests))
        few = answers.first(replaying, requests[: growth.pictures])
        amplification, saturation = _growth(few, growth, progress)
    cost_ms, macs, peaks, slow_bytes = _prices(
        adapter, requests[0], tiers, repeats, progress, memory
    )
    weights = np.zeros((len(times),) * 3)
    second = np.zeros_like(weights)
    for p, i, j in _moves(len(times)):
        if p < i:
            weights[p, i, j], second[p, i, j] = damped_weights(times[i], times[j], times[p])
        else:
            weights[p, i, j] = 1 - times[j] / times[i]
    local_error = np.stack([_local_errors(answers, tier, weights, second) for tier in tiers])
    low, high = guidance_interval
    for i, t in enumerate(times):
        if not low <= t <= high:
            local_error[[tier.guided for tier in tiers], :, i] = np.inf
    for i, t in enumerate(times[:-1]):
        local_error[[not _asks(adapter, tier, t, size) for tier in tiers], :, i] = np.inf
    found = Profile(
        times=times,
        tiers=tiers,
        cost_ms=cost_ms,
        macs=macs,
        peak_bytes=peaks,
        amplification=amplification,
        saturation=saturation,
        local_error=local_error,
        weight=weights.astype(np.float32),
        drift=np.stack([_drift(answers, tier) for tier in tiers]),
        made=_made(adapter, requests, guidance_interval) | slow_bytes,
    )
    return found, answers.x[-1]


def measure_costs(
    adapter: Adapter, request: Request, profile: Profile, *, repeats: int = 9
) -> Profile:
    """The same profile with costs measured anew, on this machine."""
    cost_ms, macs, peaks, slow_bytes = _prices(
        adapter, request, profile.tiers, repeats, no_progress, memory=True
    )
    made = {**profile.made, **machine(adapter), **slow_bytes}
    return replace(profile, cost_ms=cost_ms, macs=macs, peak_bytes=peaks, made=made)


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceRun:
    """The model of the reference: guided inside an interval of t, conditional outside."""

    guided: Guided
    plain: Guided
    guidance_interval: tuple[float, float]

    @classmethod
    def of(
        cls, adapter: Adapter, requests: Sequence[Request], interval: tuple[float, float]
    ) -> ReferenceRun:
        contexts = adapter.encode(requests)
        scale = torch.tensor([request.guidance_scale for request in requests]).to(adapter.template)
        guided, plain = (Guided.of(adapter, *contexts, w) for w in (scale, torch.ones_like(scale)))
        return cls(guided, plain, interval)

    def at(self, t: float) -> Guided:
        low, high = self.guidance_interval
        return self.guided if low <= t <= high else self.plain


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceOutputs:
    """A reference trajectory at I candidate times, and the outputs of every tier there.

    Attributes:
        x: the states [I, b, c, h, w].
        memories: of the full estimates at all times but the last, before clipping.
        cheap: per tier that is neither full nor late, its outputs before carrying, enlarging and
            clipping.
        late: per late tier, the error [I, I] that reusing adds, as `Profile.drift`.
    """

    models: ReferenceRun
    times: tuple[float, ...]
    x: Tensor
    memories: tuple[Memory, ...]
    cheap: dict[Tier, tuple[Tensor, ...]]
    late: dict[Tier, Array]

    def estimates(self, tier: Tier) -> list[Tensor]:
        """x_0 [b, c, h, w] at all times but the last.

        Of carried tiers right after a full estimate, and of late ones where the slow part was asked
        at that very state.
        """
        if whole_tier(tier).unreduced:
            return [self.clipped_estimate(memory.x_0) for memory in self.memories]
        if tier.late:
            return [self.clipped_estimate(each.x_0 - each.guidance) for each in self.memories]
        cheap = self.cheap[tier]
        return [
            self.clipped_estimate(smooth(x, tier.pool_factor) if tier.pool_factor > 1 else x)
            for x in cheap
        ]

    def clipped_estimate(self, x_0: Tensor) -> Tensor:
        """An estimate as a solver receives it."""
        return clipped_estimate(self.models.guided.adapter, x_0)

    def first(self, adapter: Adapter, requests: Sequence[Request]) -> ReferenceOutputs:
        """The same of the first pictures only, which are those of the requests."""
        count = len(requests)
        memories = tuple(Memory(each.x_0[:count], each.guidance[:count]) for each in self.memories)
        cheap = {tier: tuple(x[:count] for x in each) for tier, each in self.cheap.items()}
        models = ReferenceRun.of(adapter, requests, self.models.guidance_interval)
        return ReferenceOutputs(models, self.times, self.x[:, :count], memories, cheap, self.late)


@torch.inference_mode()
def reference(
    adapter: Adapter,
    requests: Sequence[Request],
    times: tuple[float, ...],
    tiers: Sequence[Tier],
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    progress: Progress = no_progress,
    solver: Solver = "multistep2",
) -> ReferenceOutputs:
    """Follow the full tier with `FINER` moves between candidates; evaluate all tiers at each."""
    template = adapter.template
    shape = (adapter.channels, *requests[0].size)
    eps = torch.stack([engine.noise(request.seed, shape) for request in requests]).to(template)
    models = ReferenceRun.of(adapter, requests, guidance_interval)
    cheap: dict[Tier, list[Tensor]] = {tier: [] for tier in tiers if not (tier.full or tier.late)}
    memories: list[Memory] = []
    late = _Late.of(tiers, len(times))
    finer = [t + (s - t) * part / FINER for t, s in pairwise(times) for part in range(FINER)]
    every = FINER if late.tiers else None
    walked = _walk(models, begun(adapter, eps, times[0]), (*finer, times[-1]), solver, every)
    states = [x_t := next(walked)[0]]
    for number, (t, s) in enumerate(pairwise(times)):
        for part in range(FINER):
            before, (x_t, memory, slow) = x_t, next(walked)
            if part == 0:
                assert memory is not None, "every move begins with a full estimate"
                memories.append(memory)
                if slow is not None:
                    late.measure(models.at(t), number, before, t, memory, slow)
                asked = [tier for tier in cheap if _asks(adapter, tier, t, requests[0].size)]
                # Where a tier is not asked, its moves are ruled out whatever stands here.
                found = dict.fromkeys(cheap, memory.x_0)
                found |= _ask_all(models.at(t), before, t, memory, asked)
                for tier, answer in found.items():
                    cheap[tier].append(answer)
        if not x_t.isfinite().all():
            raise InputError(
                f"{adapter.name} leads to states that are not finite, first between t={t:.4g} and "
                f"t={s:.4g}, so there is nothing to measure. Check its weights for NaN, and its "
                "dtype for overflow: float16 is too narrow for some models."
            )
        states.append(x_t)
        progress("following the reference", number + 1, len(times) - 1)
    kept = {tier: tuple(answers) for tier, answers in cheap.items()}
    errors = late.between()
    return ReferenceOutputs(models, times, torch.stack(states), tuple(memories), kept, errors)


@dataclass(slots=True, eq=False)
class _Late:
    """How wrong late estimates are along a reference, for what was said at earlier candidates.

    Attributes:
        tiers: the late ones, with their errors [I, I], indexed [k, i].
    """

    tiers: dict[Tier, Array]
    _said: dict[int, Slow] = field(default_factory=dict[int, Slow])

    @classmethod
    def of(cls, tiers: Sequence[Tier], count: int) -> _Late:
        nothing = np.full((count, count), np.inf, np.float32)
        return cls({tier: nothing.copy() for tier in tiers if tier.late})

    def measure(
        self, model: Guided, i: int, x_t: Tensor, t: float, memory: Memory, slow: Slow
    ) -> None:
        """At candidate i, where the whole network said `memory` and its slow part `slow`."""
        time = x_t.new_full((len(x_t),), t)
        plain = clipped_estimate(model.adapter, memory.x_0 - memory.guidance)
        wanted = {True: clipped_estimate(model.adapter, memory.x_0), False: plain}
        for k in (i - age for age in AGES if i - age in self._said):
            known = self._said[k]
            # Before the interval of guidance nothing was said without the condition.
            guided = known.null is not None or not model.again
            x_0, term, _ = model.denoise_split(x_t, time, known, guided=guided)
            found = {True: x_0, False: x_0 - term} if guided else {False: x_0}
            for tier, errors in self.tiers.items():
                if tier.guided in found:
                    made = clipped_estimate(model.adapter, found[tier.guided])
                    missing = made - wanted[tier.guided]
                    errors[k, i] = float(missing.square().mean().sqrt())
        self._said[i] = slow
        self._said.pop(i - max(AGES), None)

    def between(self) -> dict[Tier, Array]:
        """The errors, with those of the ages between the measured ones in proportion."""
        for errors in self.tiers.values():
            for i in range(len(errors)):
                known = [k for k in range(i) if np.isfinite(errors[k, i])]
                for k in range(min(known, default=i), i):
                    errors[k, i] = np.interp(k, known, errors[known, i])
        return self.tiers


def _walk(
    models: ReferenceRun,
    x_t: Tensor,
    nodes: Sequence[float],
    solver: Solver = "multistep2",
    every: int | None = None,
) -> Generator[tuple[Tensor, Memory | None, Slow | None]]:
    """Follow the full tier: the first state, then every next one and the estimate behind it.

    And what the slow part of the network said in the first one of `every` estimates.
    """
    steps = [Step(t, s, FULL, solver) for t, s in pairwise(nodes)]
    trajectory = Trajectory.of([compile_steps(steps)] * len(x_t), x_t)
    state = State((0,) * len(x_t), x_t)
    yield x_t, None, None
    for number, step in enumerate(steps):
        time = x_t.new_full((len(x_t),), step.t)
        model, slow = models.at(step.t), None
        if every is not None and number % every == 0:
            x_0, term, slow = model.denoise_split(state.x, time)
        else:
            x_0, term = model.denoise(state.x, time)
        state = move(trajectory, state, clipped_estimate(models.guided.adapter, x_0))
        yield state.x, Memory(x_0, term), slow


def _ask_all(
    model: Guided, x_t: Tensor, t: float, memory: Memory, tiers: Sequence[Tier]
) -> dict[Tier, Tensor]:
    """Raw outputs of cheap tiers; those contained in the full estimate are not computed again."""
    answers: dict[Tier, Tensor] = {}
    known = {(1, FULL.tiles): (memory.x_0, memory.guidance)}
    for tier in tiers:
        key = tier.pool_factor, tier.tiles
        if key not in known:
            seen_by = seen(tier, x_t, x_t.new_full((len(x_t),), t))
            known[key] = model.denoise(*seen_by, guided=True, tiles=tier.tiles)
        x_0, guidance = known[key]
        answers[tier] = x_0 if tier.guided else x_0 - guidance
    return answers


def _tiled(adapter: Adapter, size: tuple[int, int], t: float) -> tuple[Tier, ...]:
    """The tiers of tiles that a model has at a time, for pictures larger than a tile."""
    tiles = adapter.card.tiles if isinstance(adapter, Carded) else None
    if tiles is None or max(size) <= tiles.side:
        return ()
    return tuple(tier for tier in tiled_tiers(tiles.side) if _asks(adapter, tier, t, size))


def _asks(adapter: Adapter, tier: Tier, t: float, size: tuple[int, int]) -> bool:
    """Whether a model has a tier at a time."""
    return _refused(adapter, tier, t, size) is None


def _refused(adapter: Adapter, tier: Tier, t: float, size: tuple[int, int]) -> str | None:
    """Why a model has no such tier at a time; None if it has."""
    return late_refused(adapter, tier) or tiles_refused(adapter, Step(t, 0.0, tier), size)


def _moves(count: int) -> list[tuple[int, int, int]]:
    """Every (p, i, j) with p <= i < j."""
    return [(p, i, j) for j in range(count) for i in range(j) for p in range(i + 1)]


def _local_errors(
    answers: ReferenceOutputs, tier: Tier, weights: NDArray[np.float64], second: NDArray[np.float64]
) -> Array:
    """Root mean square of every move's end minus the reference [I, I, I], indexed [p, i, j]."""
    count = len(answers.times)
    vectors = torch.cat([answers.x.flatten(1), torch.stack(answers.estimates(tier)).flatten(1)])
    # In float64: the difference is a thousandth of its terms, and its square a millionth.
    vectors = vectors.double()
    gram = (vectors @ vectors.T / vectors.shape[1]).cpu().numpy()
    p, i, j = np.array(_moves(count)).T
    t = np.array(answers.times)
    parts = (
        (i, t[j] / t[i]),
        (j, -np.ones(len(i))),
        (count + i, weights[p, i, j]),
        (count + p, second[p, i, j]),
    )
    square = np.zeros(len(i))
    for a, factor_a in parts:
        for b, factor_b in parts:
            square += factor_a * factor_b * gram[a, b]
    local_errors = np.full((count,) * 3, np.inf, np.float32)
    local_errors[p, i, j] = np.sqrt(np.maximum(square, 0))
    return local_errors


def _drift(answers: ReferenceOutputs, tier: Tier) -> Array:
    """What carrying, or what a late tier reuses, costs an estimate [I, I], indexed [k, i]."""
    if tier.late:
        return answers.late[tier]
    count = len(answers.times)
    drift = np.full((count, count), np.inf, np.float32)
    if tier.cached:
        for i, full in enumerate(answers.estimates(FULL)):
            for k in range(i):
                cached = carry(tier, answers.cheap[tier][i], answers.memories[k])
                drift[k, i] = float(
                    (answers.clipped_estimate(cached) - full).square().mean().sqrt()
                )
    return drift


@torch.inference_mode()
def _growth(answers: ReferenceOutputs, growth: Growth, progress: Progress) -> tuple[Array, float]:
    """Amplification and saturation, from the growth of a real error, that of one Euler move."""
    count = len(answers.times)
    nodes = sorted({round(1 + (count - 2) * k / growth.times) for k in range(growth.times)})
    grown: list[float] = []
    limits: list[float] = []
    for number, j in enumerate(nodes):
        t, s = answers.times[j - 1], answers.times[j]
        x_0 = answers.clipped_estimate(answers.memories[j - 1].x_0)
        euler = (s / t) * answers.x[j - 1] + (1 - s / t) * x_0
        error = euler - answers.x[j]
        size = error.square().mean().sqrt().clamp_min(_FORGOTTEN)
        little, much = DISTURBANCES
        direction = error / size
        end = follow(answers, answers.x[j], j, growth.moves)
        small = _factor(answers, j, direction, little, end, growth.moves)
        grown.append(small)
        if small > _GROWING:
            large = _factor(answers, j, direction, much, end, growth.moves)
            limits.append(saturating(small, large, much))
        progress("measuring how errors grow", number + 1, len(nodes))
    logs = np.interp(
        np.arange(count), [*nodes, count - 1], [*np.log(np.maximum(grown, _FORGOTTEN)), 0.0]
    )
    # Times at which errors do not saturate give no information about the saturation.
    found = [each for each in limits if each < _NEVER] or [_NEVER]
    return np.exp(logs).astype(np.float32), statistics.median(found)


def _factor(
    answers: ReferenceOutputs, j: int, direction: Tensor, by: float, end: Tensor, moves: int | None
) -> float:
    """Factor by which a disturbance of a size at `times[j]` grows until t = 0."""
    ended = follow(answers, answers.x[j] + by * direction, j, moves)
    return float((ended - end).square().mean().sqrt()) / by


def saturating(amplification: float, growth: float, error: float) -> float:
    """The saturation computed from the growth of a large error (`asymflow.planning.planner`).

    Args:
        amplification: factor by which a small error grows until t = 0; more than 1.
        growth: the same for the large error.
        error: size of the large error, root mean square.
    """
    if growth >= amplification:
        return _NEVER
    part = max(growth - 1, _FORGOTTEN) / (amplification - 1)
    return min(amplification * error * part / math.sqrt(1 - part**2), _NEVER)


def follow(answers: ReferenceOutputs, x_t: Tensor, begin: int, moves: int | None = None) -> Tensor:
    """x_0 [b, c, h, w] that the full tier reaches from x_t [b, c, h, w] at `times[begin]`.

    Visits all candidates; from the first half, only some of the second half, where errors hardly
    grow and which would be most of the cost. Of these, `moves` are taken at most.
    """
    times, half = answers.times, len(answers.times) // 2
    stride = max(half // LATE, 1) if begin < half else 1
    nodes = (*times[begin:half], *times[max(begin, half) : -1 : stride], times[-1])
    if moves is not None and len(nodes) - 1 > moves:
        nodes = tuple(nodes[round(k * (len(nodes) - 1) / moves)] for k in range(moves + 1))
    *_, (end, _, _) = _walk(answers.models, x_t, nodes)
    return end


@torch.inference_mode()
def _prices(
    adapter: Adapter,
    request: Request,
    tiers: Sequence[Tier],
    repeats: int,
    progress: Progress,
    memory: bool,
) -> tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...], dict[str, str]]:
    """Milliseconds, multiply-accumulates and peak bytes of one estimate of one picture per tier.

    And what is to be said of the bytes that late tiers reuse, if there are some.
    """
    shape = (1, adapter.channels, *request.size)
    scale = torch.tensor([request.guidance_scale]).to(adapter.template)
    model = Guided.of(adapter, *adapter.encode([request]), scale)
    x_t = engine.noise(request.seed, shape).to(adapter.template)
    time = x_t.new_full((1,), 0.5)
    _, full = estimate(model, FULL, x_t, time, None)
    said = None
    if any(tier.late for tier in tiers):
        *_, said = model.denoise_split(x_t, time)

    def call(tier: Tier) -> costs.Call:
        if tier.late:
            return lambda: model.denoise_split(x_t, time, said, guided=tier.guided)
        return lambda: estimate(model, tier, x_t, time, full)

    calls = [call(tier) for tier in tiers]
    progress("timing the tiers", 0, 1)
    ms = tuple(1000 * seconds for seconds in costs.fastest(calls, repeats))
    macs = tuple(costs.work(each).macs for each in calls)
    peaks = tuple(costs.peak_bytes(each) if memory else 0 for each in calls)
    progress("timing the tiers", 1, 1)
    return ms, macs, peaks, {} if said is None else {"slow_bytes": str(said.nbytes)}


def _check(requests: Sequence[Request]) -> None:
    each_instance("requests", requests, Request, "Pass [asymflow.Request(...), ...].")
    if not requests:
        raise InputError("There is no request to measure with. Give at least one.")
    if len({(request.size, request.guidance_scale) for request in requests}) != 1:
        raise InputError(
            f"{len(requests)} requests without a common size and guidance scale cannot be profiled "
            "together. Profile each kind on its own."
        )
    if any(request.image is not None for request in requests):
        raise InputError("A profile is measured from noise. Give requests without an image.")


def machine(adapter: Adapter) -> dict[str, str]:
    """Provenance of costs besides the model: "device", "threads" and versions."""
    device = adapter.template.device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = str(torch.cpu.get_capabilities().get("cpu_name", platform.machine()))
    return {
        "device": f"{device.type} ({name})",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "asymflow": __version__,
    }


def _made(
    adapter: Adapter, requests: Sequence[Request], guidance_interval: tuple[float, float]
) -> dict[str, str]:
    height, width = requests[0].size
    low, high = guidance_interval
    cond, null = adapter.encode(requests[:1])
    context = sum(value.nbytes for each in (cond, null) for value in each.values())
    # A call of both passes has both contexts in one.
    context *= 1 if requests[0].guidance_scale == 1 else 2
    return {
        "adapter": adapter.name,
        "size": f"{width}x{height}",
        "guidance_scale": f"{requests[0].guidance_scale:g}",
        "guidance_interval": f"{low:g}:{high:g}",
        "state_bytes": str(adapter.channels * height * width * adapter.template.element_size()),
        "context_bytes": str(context),
        "pictures": str(len(requests)),
        "seeds": " ".join(str(request.seed) for request in requests),
        **machine(adapter),
    }
