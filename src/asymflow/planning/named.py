"""The named plans of any model.

A name is a promise, kept on pictures that nothing was chosen by:

best       as near to the limit as the model's own sampler, or nearer than one level of a byte
balanced   the best plan at half the price of `best` that makes the same pictures
fast       the best plan at a quarter of it that makes the same pictures
draft      the cheapest plan whose pictures are nearer to the limit's than other samples are

"The same pictures": none of those measured has become another (`planning.proof`). A name whose
promise no plan keeps is absent, and so is one whose plan is that of a better name.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from asymflow._version import __version__
from asymflow.core.adapter import Adapter, CardedAdapter
from asymflow.core.schedules import candidates, plan_of, switched
from asymflow.core.types import FULL, Evidence, Plan, Profile, Request, Step
from asymflow.io import folders
from asymflow.io.files import key_name
from asymflow.planning import binding, grids, profiler, selection
from asymflow.planning.calibration import FITTED, PROFILED, PROVED, requests
from asymflow.planning.effort import QUICK, Effort
from asymflow.planning.encoded import Encoded
from asymflow.planning.journal import Journal
from asymflow.planning.prediction import price, step_prices
from asymflow.planning.profiler import Progress, no_progress
from asymflow.planning.proof import Errors, Limit, Proof
from asymflow.planning.proposals import Fits, interval, proposals
from asymflow.planning.replay import small
from asymflow.planning.selection import Search, known_to, limit_plan
from asymflow.planning.shelf import NAMES
from asymflow.planning.verifier import Evaluator, rollout

CHOSEN, FRESH = 4, 16
"""Pictures that plans are chosen by, and that they are proved on."""
CANDIDATES = 32
"""Moves between candidate times."""
COARSER, FINE = (24, 28, 32, 40), 64
"""Moves of limits that may do, and of the one that does."""
GROWTH = profiler.Growth(pictures=2, times=4, moves=8)
"""How the growth of errors is measured: plans are compared by running them."""
DEARER = 1.25
"""Factor of the price of the next plan that is tried, where a proof fails."""
SHARES = {"balanced": 0.5, "fast": 0.25}
"""Prices in parts of that of `best`."""
CHEAPEST = 2
"""Full estimates of the cheapest plan that is tried."""
DRAFTS = 8
"""Prices at which a draft is proved, before there is none."""

_log = logging.getLogger("asymflow")


@dataclass(frozen=True, slots=True)
class NamedPlans:
    """The plans of a model for one size and guidance scale.

    Attributes:
        plans: by name, from the fastest on, with evidence, bound to the model.
        absent: why there is no plan of the other names.
        passes: network passes that were made, a guided estimate counting twice.
    """

    plans: Mapping[str, Plan]
    absent: Mapping[str, str]
    passes: int


def measure(
    model: CardedAdapter,
    size: tuple[int, int] | None = None,
    guidance: float | None = None,
    *,
    effort: Effort = QUICK,
    journal: Journal | None = None,
    progress: Progress = no_progress,
) -> NamedPlans:
    """Find and prove the named plans of a model.

    Args:
        model: of `asymflow.load`.
        size: (height, width); by default the model's own.
        guidance: scale; by default the model's own.
        effort: what the fits of plans may take.
        journal: keeps what was measured, so that an interrupted search resumes.
        progress: called before every measurement with what it is for, and how many full estimates
            of the expected ones are done. An exception that it raises ends the search.

    Raises:
        InputError: the model cannot serve the size or the scale, or makes no finite pictures.
    """
    search = _Named.of(model, size, guidance, effort, journal or Journal(None), progress)
    found: dict[str, Plan] = {}
    absent: dict[str, str] = {}
    for name, proved, reason in search.each():
        if proved is None:
            absent[name] = reason
        else:
            found[name] = search.evidence(name, proved)
    ordered = {name: found[name] for name in NAMES if name in found}
    return NamedPlans(ordered, absent, search.counted.passes)


def journal_of(
    model: CardedAdapter,
    dtype: str,
    size: tuple[int, int],
    guidance: float | None = None,
    effort: Effort = QUICK,
) -> Journal:
    """Where what was measured of a model in a precision is kept, until its plans are made."""
    facts = {
        "model": model.name,
        "dtype": dtype,
        "device": profiler.machine(model)["device"],
        "size": f"{size[1]}x{size[0]}",
        "guidance_scale": str(model.card.guidance if guidance is None else guidance),
        "asymflow": __version__,
        "job": f"named plans {astuple(effort)}",
    }
    return Journal(folders.cache() / "measuring" / key_name(facts))


@dataclass(slots=True, eq=False)
class _Counted:
    """An adapter that counts its network passes, and reports them."""

    progress: Progress
    expected: int = 0
    passes: int = 0
    activity: str = "measuring"

    def more(self, rows: int) -> None:
        self.passes += rows
        self.expected = max(self.expected, self.passes)
        self.progress(self.activity, self.passes, self.expected)


class _Counting(Encoded):
    """Encodes requests once, and counts the rows of network calls."""

    def __init__(self, inner: Adapter, counted: _Counted) -> None:
        super().__init__(inner)
        self._counted = counted

    def denoise(self, x_t: Tensor, t: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        self._counted.more(len(x_t))
        return super().denoise(x_t, t, context)

    def denoise_split(
        self,
        x_t: Tensor,
        t: Tensor,
        context: Mapping[str, Tensor],
        slow: Mapping[str, Tensor] | None,
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        self._counted.more(len(x_t))
        return super().denoise_split(x_t, t, context, slow)


@dataclass(frozen=True, slots=True, eq=False)
class _Proved:
    plan: Plan
    proof: Proof


@dataclass(slots=True, eq=False)
class _Named:
    """The search for the named plans of a model."""

    model: CardedAdapter
    adapter: Adapter
    own: Plan
    size: tuple[int, int]
    guidance: float
    journal: Journal
    counted: _Counted
    measured: Profile
    judge: Evaluator
    search: Search
    own_errors: Errors
    most: int
    _fresh: list[tuple[Evaluator, Limit, Errors]] = field(
        default_factory=list[tuple[Evaluator, Limit, Errors]]
    )

    @classmethod
    def of(
        cls,
        model: CardedAdapter,
        size: tuple[int, int] | None,
        guidance: float | None,
        effort: Effort,
        journal: Journal,
        progress: Progress,
    ) -> _Named:
        """Profile the model, and measure its own sampler."""
        card = model.card
        size, scale = size or card.sizes.native, card.guidance if guidance is None else guidance
        own, passes = model.own_plan(size), 2 if scale != 1 else 1
        if scale == 1:  # nothing to leave out
            steps = tuple(replace(s, tier=FULL if s.tier.unreduced else s.tier) for s in own.steps)
            own = Plan(own.name, steps)
        counted = _Counted(progress, passes * _expected(own.forwards // 2, effort))
        adapter = _Counting(model, counted)
        wanted = requests(card, size, scale, CHOSEN, PROFILED)
        model.check(wanted[0])
        counted.activity = "profile"
        grid = grids.ended(grids.resampled(_times(model, own, size), CANDIDATES))
        times = switched(grid, interval(own))

        outputs = passes * CHOSEN * profiler.FINER * len(times)
        partial = journal.path("profile.partial") if small(adapter, size, outputs) else None

        def profiled() -> tuple[Profile, Tensor]:
            found, ends = profiler.measure(
                adapter,
                wanted,
                times=times,
                guidance_interval=interval(own),
                memory=False,
                growth=GROWTH,
                solver="corrected2",
                partial=partial,
            )
            return found, _seen(model, ends)

        measured, ends = journal.profile(profiled)
        judge = Evaluator(
            adapter,
            tuple(wanted),
            Limit.of(ends, 0.0).states,
            roll=_roll,
            guidance_interval=interval(own),
            known=journal.errors("chosen"),
        )
        counted.activity = "own sampler"
        own_errors = judge.errors(own)
        most = max(CHEAPEST + 1, round(price(measured, own) / measured.cost_ms[0]))
        fits = Fits(
            adapter,
            lambda count: requests(card, size, scale, count, FITTED),
            measured,
            interval(own),
            times,
            journal,
            effort,
        )
        search = Search(
            judge, lambda steps: proposals(measured, steps, own, times) | fits.at(steps)
        )
        return cls(
            model, adapter, own, size, scale, journal, counted, measured, judge, search,
            own_errors, most,
        )  # fmt: skip

    def each(self) -> Iterator[tuple[str, _Proved | None, str]]:
        """Every name from the best on, with its plan, or why there is none."""
        best = self._best()
        yield "best", best, f"no plan comes as near to the limit as {self.own.name}"
        top = price(self.measured, best.plan) if best else price(self.measured, self.own)
        known = {best.plan.steps: "best"} if best else {}
        for name, share in SHARES.items():
            steps = math.floor(share * top / self.measured.cost_ms[0] + 1e-6)
            yield name, *self._same(name, steps, known)
        yield "draft", *self._draft(known)

    def _best(self) -> _Proved | None:
        self.counted.activity = "search"
        limits = known_to(self.judge, self._limit_plans(), self._reference_moves)
        steps = self.search.near(np.maximum(self.own_errors, limits), self.most)
        while steps is not None and steps < self.most:
            found = self._prove(self.search.best(steps))
            if found.proof.kept:
                return found
            _log.info("%d steps do not keep the promise of `best` on other pictures.", steps)
            steps = max(steps + 1, math.ceil(steps * DEARER))
        found = self._prove(self.own)
        return found if found.proof.changed == 0 else None

    def _same(
        self, name: str, steps: int, known: dict[tuple[Step, ...], str]
    ) -> tuple[_Proved | None, str]:
        """The best plan at a price, if it makes the same pictures."""
        if steps < CHEAPEST:
            price_of = "1 full estimate" if steps == 1 else f"{steps} full estimates"
            return None, f"its price would be {price_of}, and {CHEAPEST} is the least"
        self.counted.activity = f"search of {name}"
        found = self._prove(self.search.best(steps))
        if found.plan.steps in known:
            return None, f"it would be the plan of {known[found.plan.steps]!r}"
        if found.proof.changed:
            count = len(found.proof.errors)
            return None, (
                f"at its price, {steps} full estimates, {found.proof.changed} of {count} pictures "
                "become others"
            )
        known[found.plan.steps] = name
        return found, ""

    def _draft(self, known: dict[tuple[Step, ...], str]) -> tuple[_Proved | None, str]:
        """The cheapest plan whose pictures are those of the limit and not others."""
        self.counted.activity = "search of draft"
        limit = Limit.of(self.judge.reference, 0.0)
        steps, tried = CHEAPEST, 0
        while steps < self.most and tried < DRAFTS:
            plan = self.search.best(steps)
            if Proof(self.judge.errors(plan), None, limit).changed:
                steps += 1
                continue
            found, tried = self._prove(plan), tried + 1
            if found.proof.changed == 0:
                if plan.steps in known:
                    return None, f"it would be the plan of {known[plan.steps]!r}"
                return found, ""
            steps = max(steps + 1, math.ceil(steps * DEARER))
        return None, "the pictures of every cheap plan become others"

    def _prove(self, plan: Plan) -> _Proved:
        """What a plan does on pictures that it was not chosen by."""
        before, self.counted.activity = self.counted.activity, "proof"
        if not self._fresh:
            self._fresh.append(self._limits())
        judge, limit, others = self._fresh[0]
        errors = judge.errors(plan)
        self.counted.activity = before
        return _Proved(plan, Proof(errors, others, limit))

    def _limits(self) -> tuple[Evaluator, Limit, Errors]:
        """Fresh pictures, where the model leads for them, and how near its own sampler comes."""
        fresh = requests(self.model.card, self.size, self.guidance, FRESH, PROVED)
        least = np.minimum(self.own_errors, self._least_error())
        plans, moves = self._limit_plans(), self._reference_moves
        plan, off = limit_plan(self.judge, plans, least, few=2, moves=moves)
        states = self.journal.states(
            f"fresh-{len(plan.steps)}", lambda: _roll(self.adapter, plan, fresh)
        )
        limit = Limit.of(states, off)
        judge = Evaluator(
            self.adapter, tuple(fresh), states, roll=_roll, known=self.journal.errors("fresh")
        )
        return judge, limit, judge.errors(self.own)

    @property
    def _reference_moves(self) -> int:
        """Of the limit that plans are chosen by, which is that of the profile."""
        return profiler.FINER * (len(self.measured.times) - 1)

    def _limit_plans(self) -> list[Plan]:
        """Plans of many steps, from the cheapest."""
        dense, guided = _times(self.model, self.own, self.size), interval(self.own)
        every = (grids.ended(grids.resampled(dense, count)) for count in (*COARSER, FINE))
        return [
            plan_of(
                switched(grid, guided), solver="corrected2", guidance_interval=guided, name="limit"
            )
            for grid in every
        ]

    def _passes(self, plan: Plan) -> int:
        return sum(step.passes(guided=self.guidance != 1) for step in plan.steps)

    def _least_error(self) -> float:
        found = [float(self.judge.error(plan)) for plan in self.search.found.values()]
        return min(found, default=math.inf)

    def evidence(self, name: str, proved: _Proved) -> Plan:
        """The plan under its name, with what was measured."""
        plan, proof = proved.plan, proved.proof
        others = proof.others
        made = {
            **self.measured.made,
            **proof.stated,
            "pictures": str(len(proof.errors)),
            "promise": name,
            "original": self.own.name,
            "original_forwards": str(self._passes(self.own)),
            "forwards": str(self._passes(plan)),
        }
        if others is not None:
            made["original_rms"] = f"{others.mean():.4f}"
        evidence = Evidence(
            made=made,
            cost_ms=step_prices(self.measured, plan),
            full_ms=self.measured.cost_ms[0],
            shares=(),
            predicted=None,
            rms=proof.mean,
            distance=None,
            pictures=len(proof.errors),
        )
        bound = binding.bound(Plan(name, plan.steps, evidence), self.model.description)
        assert bound.requires is not None, "`bound` says what it needs"
        return replace(bound, requires=replace(bound.requires, size=self.size))


def _times(model: CardedAdapter, own: Plan, size: tuple[int, int]) -> tuple[float, ...]:
    """The grid that candidates are as dense as."""
    return own.times if model.description.shift_rule is None else candidates(size)


def _expected(own: int, effort: Effort) -> int:
    """About how many full estimates the measurement takes; `own` are those of a picture."""
    first = 12 * selection.FEW + selection.FINALISTS * (CHOSEN - selection.FEW)
    further = selection.KEPT * selection.FEW + selection.FINALISTS * (CHOSEN - selection.FEW)
    quarter = max(CHEAPEST, own // 4)
    profile = CHOSEN * CANDIDATES * profiler.FINER + 2 * GROWTH.pictures * GROWTH.times * 8
    searches = quarter * (first + 3 * further) + quarter * further
    fits = effort.moves + selection.BEGIN * effort.first + 3 * quarter * effort.again
    fits += 4 * effort.polish * selection.BEGIN
    searches += effort.pictures * fits
    searches += CHOSEN * COARSER[-1]
    proofs = FRESH * (FINE * 3 // 4 + 2 * quarter + own)
    return profile + own * CHOSEN + searches + proofs


def _roll(adapter: Adapter, plan: Plan, wanted: Sequence[Request]) -> Tensor:
    """Where a plan leads, as it is seen: pictures in [-1, 1]."""
    return _seen(adapter, rollout(adapter, plan, wanted))


def _seen(adapter: Adapter, states: Tensor) -> Tensor:
    """States [b, c, h, w] as pictures in [-1, 1]; NaN where one is not finite."""
    kept = states.flatten(1).isfinite().all(1)
    pictures = [
        torch.from_numpy(adapter.to_picture(state)).movedim(-1, 0) * 2 - 1 for state in states
    ]
    found = torch.stack(pictures).float()
    return torch.where(kept.cpu().view(-1, 1, 1, 1), found, math.nan)
