"""Plans that a search tries at a price: by the profile, of standard samplers, and fitted ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace

import torch

from asymflow.core.adapter import Adapter
from asymflow.core.errors import InputError
from asymflow.core.flow import fine_time
from asymflow.core.schedules import plan_of, switched
from asymflow.core.types import (
    CARRIED,
    CONDITIONAL,
    FULL,
    LATE,
    LATE_CONDITIONAL,
    Plan,
    Profile,
    Request,
)
from asymflow.planning import fitting, grids, planner, polishing
from asymflow.planning.effort import QUICK, Effort
from asymflow.planning.fitting import Fit, Teacher
from asymflow.planning.journal import Journal
from asymflow.planning.prediction import price
from asymflow.planning.replay import recorded, small
from asymflow.planning.verifier import corrected, only

SHIFTS = (1.0, 0.5, 0.25)
"""Of the model's own grid: as it is, and denser near the picture."""
UNTIL = 0.1
"""Time until which some plans that are tried are guided."""
SOONER = 0.3
"""The same of fitted plans, whose weights make good some of what is missing."""
ENDS = ((1,), (1, 2), (1, 3))
"""Late steps of fitted plans that are tried, by their places from the end."""
WORTH = 0.75
"""Price of a late estimate, in parts of that of a full one, up to which late steps are tried."""


def proposals(
    measured: Profile, steps: int, own: Plan, dense: tuple[float, ...]
) -> dict[str, Plan]:
    """Plans for the price of so many full estimates: by the profile, and what others would run."""
    budget = _budget(measured, steps)
    found = by_profile(measured, steps)
    for allowed in _intervals(interval(own), measured, UNTIL):
        for name, grid in _grids(own, dense).items():
            for solver in ("damped2", "corrected2"):
                longest = None
                for count in range(max(1, steps // 2), 2 * steps + 1):
                    plan = plan_of(grid(count), solver=solver, guidance_interval=allowed)
                    if price(measured, plan) > budget:
                        break
                    longest = plan
                if longest is not None:
                    found[f"{name}, {solver}, guided from {allowed[0]:g}"] = longest
    return distinct(found)


def by_profile(measured: Profile, steps: int) -> dict[str, Plan]:
    """The best plans by a profile for the price of so many full estimates, by sets of tiers."""
    budget = _budget(measured, steps)
    unreduced = tuple(tier for tier in measured.tiers if tier.unreduced)
    tiers = {"planned": measured.tiers, "planned, unreduced": unreduced, "planned, full": (FULL,)}
    found: dict[str, Plan] = {}
    for name, allowed in tiers.items():
        with suppress(InputError):  # nothing of that kind fits
            plan = planner.plan(only(measured, allowed), budget=budget)
            found |= {name: plan, f"{name}, corrected": corrected(plan)}
    return found


def distinct(found: Mapping[str, Plan]) -> dict[str, Plan]:
    """The plans without those that another name before has too: they are no other kind."""
    unique = {plan.steps: name for name, plan in reversed(tuple(found.items()))}
    return {name: plan for name, plan in found.items() if unique[plan.steps] == name}


def _grids(own: Plan, dense: tuple[float, ...]) -> dict[str, Callable[[int], tuple[float, ...]]]:
    """Grids of any number of moves, by name."""

    def shifted(by: float) -> Callable[[int], tuple[float, ...]]:
        def grid(count: int) -> tuple[float, ...]:
            first, *inner = grids.resampled(own.times, count)
            moved = fine_time(torch.tensor(inner, dtype=torch.float64), by).tolist()
            return (first, *moved)

        return grid

    def blended(count: int) -> tuple[float, ...]:
        return grids.blended(dense, count)

    return {"blended": blended, **{f"own grid / {shift}": shifted(shift) for shift in SHIFTS}}


def _budget(measured: Profile, steps: int) -> float:
    """The price of so many full estimates, with room for rounding."""
    return 1.0001 * steps * measured.cost_ms[0]


def interval(own: Plan) -> tuple[float, float]:
    """(low, high) in t in which the model's own sampler is guided."""
    guided = [step for step in own.steps if step.tier.guided]
    if not guided:
        return 1.0, 1.0
    low = 0.0 if guided[-1] is own.steps[-1] else guided[-1].t
    high = 1.0 if guided[0] is own.steps[0] else guided[0].t
    return low, high


def _intervals(
    guided: tuple[float, float], measured: Profile, *late: float
) -> tuple[tuple[float, float], ...]:
    """Intervals of t to guide in: that of the model's own sampler, and ones that end before it."""
    low, high = guided
    shorter = ((max(end, low), high) for end in late) if CONDITIONAL in measured.tiers else ()
    return tuple(dict.fromkeys((guided, *shorter)))


@dataclass(frozen=True, slots=True)
class Guidance:
    """Where a plan asks for both estimates of guidance.

    Attributes:
        interval: (low, high) in t.
        every: of so many steps there one does; the others carry its guidance term.
    """

    interval: tuple[float, float]
    every: int = 1

    def plan(self, times: Sequence[float]) -> Plan:
        """A plan over a grid."""
        plan = plan_of(times, solver="euler", guidance_interval=self.interval)
        count = itertools.count()
        steps = (
            replace(step, tier=CARRIED) if step.tier.guided and next(count) % self.every else step
            for step in plan.steps
        )
        return Plan(plan.name, tuple(steps))


Tiers = Callable[[Sequence[float]], Plan | None]
"""A plan over a grid; None where it would be no plan."""


def ending_late(tiers: Tiers, places: Sequence[int]) -> Tiers:
    """The same plans with some steps late: those at such places from the end, 1 for the last."""

    def plan(times: Sequence[float]) -> Plan | None:
        found = tiers(times)
        if found is None:
            return None
        steps = list(found.steps)
        for place in places:
            if place >= len(steps):
                return None
            step = steps[-place]
            steps[-place] = replace(step, tier=LATE if step.tier.guided else LATE_CONDITIONAL)
        with suppress(InputError):  # a guided one may follow one that is not
            return Plan(found.name, tuple(steps))
        return None

    return plan


def _late(plan: Plan) -> tuple[int, ...]:
    """The places of late steps from the end of a plan."""
    return tuple(place for place, step in enumerate(reversed(plan.steps), 1) if step.tier.late)


@dataclass(slots=True, eq=False)
class Fits:
    """Fitted plans of any price.

    Attributes:
        adapter: the model.
        requests: at least so many, which no plan is compared on.
        measured: has the prices.
        guided: (low, high) in t in which the model's own sampler is guided.
        dense: times that those of the plans are as dense as, but for bends.
        journal: keeps them.
        effort: what they may take.
        ends: places of late steps, from the end of a plan, that are tried where they may pay.
    """

    adapter: Adapter
    requests: Callable[[int], Sequence[Request]]
    measured: Profile
    guided: tuple[float, float]
    dense: tuple[float, ...]
    journal: Journal
    effort: Effort = QUICK
    ends: Sequence[Sequence[int]] = ENDS
    _teacher: Teacher | None = None
    _found: dict[int, Fit | None] = field(default_factory=dict[int, "Fit | None"])

    def at(self, steps: int) -> dict[str, Plan]:
        """The best one for the price of so many full estimates, by its kind; none if none fits."""
        if steps not in self._found:
            self._found[steps] = self.journal.fit(str(steps), lambda: self._made(steps))
            if path := self.journal.path(f"fit-{steps}.partial"):
                path.unlink(missing_ok=True)
        found = self._found[steps]
        return {} if found is None else {"fitted": found.plan}

    def kinds(self) -> Iterator[Guidance]:
        """The ways to leave guidance out that are tried."""
        intervals = _intervals(self.guided, self.measured, UNTIL, SOONER)
        yield from map(Guidance, intervals)
        if CARRIED in self.measured.tiers:
            yield Guidance(intervals[-1], every=2)

    def _made(self, steps: int) -> Fit | None:
        """A fit whose network outputs are recorded, so that it resumes."""
        with self._recorded("teacher", self.effort.moves) as adapter:
            self._teacher = self._teacher or self._taught(adapter)
        with self._recorded(f"fit-{steps}", steps * self.effort.first) as adapter:
            return self._fitted(steps, replace(self._teacher, adapter=adapter))

    def _recorded(self, name: str, estimates: int) -> AbstractContextManager[Adapter]:
        """The adapter, with its outputs recorded if they are small."""
        path = self.journal.path(f"{name}.partial")
        [first] = self.requests(1)[:1]
        outputs = 2 * estimates * self.effort.pictures
        if path is None or not small(self.adapter, first.size, outputs):
            return nullcontext(self.adapter)
        return recorded(self.adapter, path)

    def _fitted(self, steps: int, teacher: Teacher) -> Fit | None:
        begun = {price: found for price, found in self._found.items() if found is not None}
        nearest = (
            begun[min(begun, key=lambda price: abs(math.log(price / steps)))] if begun else None
        )
        begins = [*([] if nearest is None else [nearest.bends]), *fitting.BEGINS]
        # Where guidance is left out is chosen by the first bends, and times for the best of these.
        kinds = list(self.kinds())
        shapes = [self._shape(steps, kind.plan, begins[0]) for kind in kinds]
        tried = [(fitting.fit(teacher, shape, begins[:1], 1), shape) for shape in shapes]
        known = [(found, shape) for found, shape in tried if found is not None]
        if not known:
            return None
        best, shape = min(known, key=lambda each: each[0].error)
        rollouts = self.effort.again if begun else self.effort.first
        best = fitting.fit(teacher, shape, begins[1:], rollouts, known=best)
        if best is not None:
            kind = next(k for k, each in zip(kinds, shapes, strict=True) if each is shape)
            ends = self.ends if nearest is None else [_late(nearest.plan) or ENDS[0]]
            best = self._ended_late(steps, teacher, kind, best, ends, rollouts // 4)
        # With the plain adapter: outputs that were recorded have no gradients.
        plain = replace(teacher, adapter=self.adapter)
        return best and polishing.polished(plain, best, self.effort.polish)

    def _ended_late(
        self,
        steps: int,
        teacher: Teacher,
        kind: Guidance,
        best: Fit,
        ends: Sequence[Sequence[int]],
        rollouts: int,
    ) -> Fit:
        """The fit, or a better one of which some of the last steps are late.

        All are tried with the bends of the fit, and few rollouts improve one that is better.
        """
        if not self._late_pays:
            return best
        bends, better = best.bends, None
        for places in ends:
            shape = self._shape(steps, ending_late(kind.plan, places), bends)
            found = fitting.fit(teacher, shape, [bends], 1)
            if found is not None and found.error < best.error:
                best, better = found, shape
        if better is None:
            return best
        return fitting.fit(teacher, better, [], rollouts, known=best) or best

    @property
    def _late_pays(self) -> bool:
        """Whether late estimates are so much cheaper that a plan may gain by them."""
        known = dict(zip(self.measured.tiers, self.measured.cost_ms, strict=True))
        return bool(self.ends) and LATE in known and known[LATE] <= WORTH * known[FULL]

    def _taught(self, adapter: Adapter) -> Teacher:
        [first] = self.requests(1)[:1]
        fine = plan_of(
            switched(grids.blended(self.dense, self.effort.moves), self.guided),
            solver="corrected2",
            guidance_interval=self.guided,
        )
        count = fitting.pictures(adapter, first.size, self.effort)
        return Teacher.of(adapter, self.requests(count), fine)

    def _shape(self, steps: int, tiers: Tiers, begin: Sequence[float]) -> fitting.Shape:
        """Plans for a price, with as many steps as fit into it with the first bends."""
        budget = _budget(self.measured, steps)
        dense = grids.blended(self.dense, fitting.DENSE)

        def made(count: int, bends: Sequence[float]) -> Plan | None:
            plan = tiers(fitting.bent(dense, count, bends))
            fits = plan is not None and price(self.measured, plan) <= budget
            return plan if fits else None

        counts = range(max(1, steps), 2 * steps + 1)
        count = max((n for n in counts if made(n, begin) is not None), default=steps)
        return lambda bends: made(count, bends)
