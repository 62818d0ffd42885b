"""What a plan consists of, as other programs see it: noise levels, formulas, guidance, tiers.

Other programs ask the whole network at every step. Steps that reuse estimates are part of the
step before them, and steps of cheaper tiers become full ones, with the guidance that they had.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from math import isclose
from typing import Any, Literal, cast

from asymflow.core.errors import InputError
from asymflow.core.flow import coarse_time
from asymflow.core.stages import Stage, compile_steps
from asymflow.core.types import Plan, Step, Tier
from asymflow.planning.binding import binding_of
from asymflow.planning.plan_json import plan_hash

FORMAT = "asymflow export"
SCHEMA = 1

Carried = Literal["yes", "in part", "no"]
Kind = Literal["flow", "vp", "ve"]
"""Paths between data and noise: (1 - u) x_0 + u n eps; alpha^2 + sigma^2 = 1; x_0 + sigma eps."""

_DIVIDED = ("jit", "minit2i")
"""Families whose state is the picture divided by the noise scale, so that t itself is u. Other
flows have the noise scale in t, see `asymflow.models.diffusers.conventions.Flow`."""
_VP = ("guided-diffusion",)
_VE = ("edm",)
_CLOSE = 1e-6
"""Weights that differ by less are the same formula."""
_DEVIATIONS = (0.1, 0.3, 1.0)
"""Of data that samplers are compared on; pictures fill [-1, 1]."""
_ROUNDING = 1e-6
"""Tolerance of times at the ends of an interval."""
_SETTINGS = ("floor", "clip", "colours")
"""Settings in a binding that change what a model answers, besides its interval of guidance."""
_INTERVAL = re.compile(r"(0|1|0\.\d+) to (0|1|0\.\d+)")
_UNSET = (None, "none", "0")
"""Their values that change nothing."""


@dataclass(frozen=True, slots=True)
class Line:
    """Whether a part of a plan is in an export, and how."""

    part: str
    carried: Carried
    how: str


@dataclass(frozen=True, slots=True)
class Export:
    """What is written, and what became of each part of the plan."""

    data: Mapping[str, Any]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive calls of one guidance: `scale` is None for the request's, 1 for none."""

    scale: float | None
    first: int
    last: int


@dataclass(frozen=True)
class Path:
    """A plan by the calls of the network that another program makes for it.

    Attributes:
        kind: of the path between data and noise.
        noise: standard deviation of a flow's noise at u = 1, in units of the state.
        interval: (low, high) in t outside of which the model itself has no guidance.
        stages: every estimate whose place is a node: not the second ones of Heun's method.
    """

    plan: Plan
    kind: Kind
    noise: float
    interval: tuple[float, float]
    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, plan: Plan) -> Path:
        """The path of a plan, by what it requires and is bound to."""
        kind, noise = _kind(plan)
        stages = tuple(stage for stage in compile_steps(plan.steps, 2.0) if stage.kept)
        return cls(plan, kind, noise, _interval(plan), stages)

    @cached_property
    def times(self) -> tuple[float, ...]:
        """t of every call, and 0."""
        return (*(float(stage.t) for stage in self.stages), 0.0)

    @cached_property
    def flow_sigmas(self) -> tuple[float, ...]:
        """u of every call, from 1 for noise, and 0; of a flow."""
        return tuple(coarse_time(t, self.noise) for t in self.times)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The step of every call."""
        return tuple(stage.step for stage in self.stages)

    @cached_property
    def heun(self) -> bool:
        """Whether every step is one of Heun's method."""
        return all(step.solver == "heun" and step.weights is None for step in self.steps)

    @cached_property
    def scales(self) -> tuple[float | None, ...]:
        """The guidance scale of every call, as in `Run`."""
        return tuple(
            _scale(step) if self._guides(t) else 1.0
            for step, t in zip(self.steps, self.times, strict=False)
        )

    def _guides(self, t: float) -> bool:
        """Whether the model has guidance at t; the ends of its interval are outside."""
        low, high = self.interval
        return (low == 0 or t > low + _ROUNDING) and (high == 1 or t < high - _ROUNDING)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Guidance along the calls."""
        found: list[Run] = []
        for scale, group in groupby(range(len(self.steps)), lambda i: self.scales[i]):
            calls = list(group)
            found.append(Run(scale, calls[0], calls[-1]))
        return tuple(found)

    @property
    def guidance(self) -> float | None:
        """The request's scale that the plan was measured with."""
        if not self.plan.guided:
            return 1.0
        stated = self.plan.evidence and self.plan.evidence.made.get("guidance_scale")
        try:
            return float(stated) if stated else None
        except ValueError:
            return None

    @property
    def window(self) -> tuple[int, int] | None:
        """The first and the last call with guidance, if they are consecutive and share a scale."""
        guided = [run for run in self.runs if run.scale != 1]
        return (guided[0].first, guided[0].last) if len(guided) == 1 else None

    @property
    def own_scale(self) -> float | None:
        """The scale of all calls with guidance, if they share one; else the request's."""
        scales = {run.scale for run in self.runs if run.scale != 1}
        return scales.pop() if len(scales) == 1 and None not in scales else self.guidance

    def describe(self, target: str, version: str) -> dict[str, Any]:
        """The head of an export."""
        bound = binding_of(self.plan)
        return {
            "format": FORMAT,
            "schema": SCHEMA,
            "target": target,
            "read_in": version,
            "plan": {
                "name": self.plan.name,
                "hash": plan_hash(self.plan),
                "nfe": self.plan.forwards,
                "bound_to": None if bound is None else str(bound),
            },
        }

    @property
    def passes(self) -> int:
        """Network passes there, where every call is of the whole network."""
        return sum(
            (step.evaluations if self.heun else 1) * (2 if self.plan.guided and scale != 1 else 1)
            for step, scale in zip(self.steps, self.scales, strict=True)
        )


def flow_path(plan: Plan, target: str) -> Path:
    """The path of a plan for a program that runs flows only.

    Raises:
        InputError: the plan is for another kind of model.
    """
    path = Path.of(plan)
    if path.kind != "flow":
        bound = binding_of(plan)
        raise InputError(
            f"The plan {plan.name!r} is for {bound or 'a model'} with "
            f"{'discrete timesteps' if path.kind == 'vp' else 'the noise levels of EDM'}, and the "
            f"pixel models of {target} are flows. Export it to json or diffusers."
        )
    return path


def elsewhere(path: Path, weights: Sequence[Sequence[float]]) -> list[int]:
    """The calls after which moves with other weights lead elsewhere than the plan's.

    Args:
        path: of the plan.
        weights: (a, w_0, w_1, ...) for every call, for the states of asymflow.
    """
    found: list[int] = []
    for i, (stage, other) in enumerate(zip(path.stages, weights, strict=True)):
        own = [float(cast("float", each)) for each in stage.weights]
        count = max(len(own), len(other))
        padded = ([*each, *[0.0] * (count - len(each))] for each in (own, list(other)))
        same = all(isclose(a, b, rel_tol=0, abs_tol=_CLOSE) for a, b in zip(*padded, strict=True))
        # A corrector moves the state itself before that, and Heun's method asks again after it.
        if not same or stage.base is not None or not stage.ends_step:
            found.append(i)
    return found


def off(path: Path, weights: Sequence[Sequence[float]]) -> float:
    """How far pictures of other moves are from the plan's, on pixels of normal data.

    There the estimate is a multiple of the state, and so is the end of every sampler. The largest
    difference over some deviations of the data, relative to the plan's picture.
    """
    return max(
        abs(_moved(path.times, weights, std) / _followed(path.plan, std) - 1) for std in _DEVIATIONS
    )


def _followed(plan: Plan, std: float) -> float:
    """Where a plan leads from 1, on a pixel of that deviation about 0."""
    x = anchor = 1.0
    past: list[float] = []
    for stage in compile_steps(plan.steps):
        estimates = [_estimate(x, cast("float", stage.t), std), *past]
        base = x
        if stage.base is not None:
            first, *rest = cast("tuple[float, ...]", stage.base)
            base = first * anchor + sum(
                w * d for w, d in zip(rest, (past[0], estimates[0]), strict=True)
            )
        a, *weights = cast("tuple[float, ...]", stage.weights)
        x = a * base + sum(w * d for w, d in zip(weights, estimates, strict=False))
        anchor = base
        past = estimates if stage.kept else past
    return x


def _moved(times: Sequence[float], weights: Sequence[Sequence[float]], std: float) -> float:
    """Where moves with these weights lead, as `_followed`."""
    x, past = 1.0, list[float]()
    for t, (a, *others) in zip(times, weights, strict=False):
        past = [_estimate(x, t, std), *past]
        x = a * x + sum(w * d for w, d in zip(others, past, strict=False))
    return x


def _estimate(x: float, t: float, std: float) -> float:
    """E[x_0 | x_t = x] of a pixel of that deviation about 0."""
    variance = ((1 - t) * std) ** 2 + t**2
    return x * (1 - t) * std**2 / variance


def euler(path: Path) -> list[tuple[float, ...]]:
    """The weights of Euler's method, which are the same on every path."""
    return [(s / t, 1 - s / t) for t, s in pairwise(path.times)]


def euler_differs(path: Path) -> list[int]:
    """The calls after which Euler's method goes on in another way than the plan."""
    return elsewhere(path, euler(path))


def heun_is_own(path: Path) -> bool:
    """Whether Heun's method of a flow's velocities is the plan's own: it is not on every path."""
    return path.heun and isclose(path.noise, 1.0)


def lines(
    path: Path, times: Line, solver: Line, guidance: Line, scales: Line, *, guided: bool
) -> tuple[Line, ...]:
    """The table of an export: the parts that the plan has, in one order.

    Args:
        path: of the plan.
        times, solver, guidance, scales: what became of these.
        guided: whether the program switches guidance as the plan does.
    """
    found = [times, solver]
    fitted = numbers(i for i, step in enumerate(path.plan.steps) if step.weights is not None)
    if fitted:
        found.append(Line("fitted weights", "no", f"of steps {fitted}: the solver above moves"))
    reused = numbers(i for i, step in enumerate(path.plan.steps) if step.reuse)
    if reused:
        found.append(
            Line(
                "reuse",
                "yes" if solver.carried == "yes" else "in part",
                f"steps {reused} ask nothing: they are part of the steps before them",
            )
        )
    if path.plan.guided and len({run.scale == 1 for run in path.runs}) > 1:
        found.append(guidance)
    if any(run.scale not in (None, 1) for run in path.runs):
        found.append(scales)
    found += _tiers(path, guided=guided)
    settings = _settings(path.plan)
    own = [f"{name} {settings[name]}" for name in _SETTINGS if settings.get(name) not in _UNSET]
    if own:
        how = f"{', '.join(own)}: of asymflow's adapter; the program's model has its own"
        found.append(Line("settings of the model", "no", how))
    return tuple(found)


def _tiers(path: Path, *, guided: bool) -> Iterator[Line]:
    def where(part: Any) -> str:
        return numbers(i for i, step in enumerate(path.plan.steps) if part(step.tier))

    def cached(tier: Tier) -> bool:
        return tier.cached

    def small(tier: Tier) -> bool:
        return tier.pool_factor > 1

    def tiled(tier: Tier) -> bool:
        return tier.tiles is not None

    def late(tier: Tier) -> bool:
        return tier.late

    def in_turn(tier: Tier) -> bool:
        return tier.sequential_cfg

    whole = "the whole network is asked there instead"
    again = f", which costs {path.passes} passes in all" if guided else ""
    if found := where(small):
        yield Line("low resolution", "no", f"of steps {found}: {whole}{again}")
    if found := where(cached):
        yield Line("carried estimates", "no", f"of steps {found}: {whole}{again}")
    if found := where(tiled):
        yield Line("tiles", "no", f"of steps {found}: {whole}, with the memory that it takes")
    if found := where(late):
        yield Line("late steps", "no", f"of steps {found}: {whole}, its slow part too")
    if found := where(in_turn):
        yield Line("guidance in turn", "no", f"of steps {found}: saves memory, changes nothing")


def numbers(found: Iterable[int]) -> str:
    """Indices as text, with ranges: "0, 3-5"."""
    parts: list[list[int]] = []
    for i in found:
        if parts and parts[-1][-1] == i - 1:
            parts[-1] = [parts[-1][0], i]
        else:
            parts.append([i])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _scale(step: Step) -> float | None:
    """Guidance of a step by a program that has no cheaper estimates."""
    if not (step.tier.guided or step.tier.cached):
        return 1.0
    return step.guidance_scale


def _settings(plan: Plan) -> Mapping[str, str]:
    """The settings of the model that a plan is bound to."""
    bound = binding_of(plan)
    return {} if bound is None or bound.settings is None else bound.settings


def _interval(plan: Plan) -> tuple[float, float]:
    """The interval of guidance that the model has by itself."""
    found = _INTERVAL.fullmatch(_settings(plan).get("guidance_interval", ""))
    return (0.0, 1.0) if found is None else (float(found[1]), float(found[2]))


def _kind(plan: Plan) -> tuple[Kind, float]:
    """The path of the model that a plan is for, and the noise scale in t."""
    bound, requires = binding_of(plan), plan.requires
    family = "" if bound is None else bound.family
    predicts = None if requires is None else requires.parameterisation
    noise = 1.0 if requires is None or requires.noise_scale is None else requires.noise_scale
    schedule = _settings(plan).get("schedule", "flow")
    if family in _VE:
        return "ve", 1.0
    if family in _VP or predicts in ("eps", "v") or not schedule.startswith("flow"):
        return "vp", 1.0
    return "flow", 1.0 if family in _DIVIDED else noise
