"""The standard samplers, each over any grid and with guidance in any interval, and their prices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from asymflow.bench.baselines import samplers as make
from asymflow.bench.baselines.samplers import Interval, Sampler
from asymflow.bench.baselines.times import Grid
from asymflow.core import schedules
from asymflow.core.types import Solver


@dataclass(frozen=True, slots=True)
class Method:
    """A sampler that is still without times.

    Attributes:
        name: of the configuration, such as "UniPC-3".
        family: those that one is chosen from, such as "UniPC".
        make: the sampler over times, guided in an interval.
        solver: of ours that it is, if it is one.
        noisy: whether it adds noise, so that only distributions can be compared.
        quick: whether a quick comparison has it.
    """

    name: str
    family: str
    make: Callable[[Sequence[float], Interval], Sampler]
    solver: Solver | None = None
    noisy: bool = False
    quick: bool = False

    def passes(self, grid: Sequence[float], guided: Interval | None) -> int:
        """Network passes of a picture: two for an estimate that is guided.

        Args:
            grid: times, falling to 0.
            guided: where guidance is applied; None without guidance.
        """
        if self.solver is not None:
            plan = schedules.plan_of(grid, solver=self.solver)
            plan = make.guided_in(plan, guided or make.EVERYWHERE)
            return sum(step.passes(guided=guided is not None) for step in plan.steps)
        low, high = guided or (1.0, 0.0)
        return sum(2 if low <= t <= high else 1 for t in grid[:-1])

    def dearest(self, grid: Grid, price: int, guided: Interval | None) -> tuple[float, ...] | None:
        """The grid of most steps for so many passes; None if a single step takes more."""
        grids = (tuple(grid(n)) for n in range(price, 0, -1))
        return next((each for each in grids if self.passes(each, guided) <= price), None)


def _ours(solver: Solver, name: str, family: str) -> Method:
    return Method(name, family, partial(make.over, solver), solver, quick=family == name)


def _unipc(order: int, grid: Sequence[float], guided: Interval) -> Sampler:
    return make.unipc(order, len(grid) - 1, guided=guided, grid=grid)


def _dpm(order: int, grid: Sequence[float], guided: Interval) -> Sampler:
    return make.dpm(order, len(grid) - 1, guided=guided, grid=grid)


def _deis(order: int, variable: make.Variable) -> Method:
    suffix = {"t": "", "rho": " in rho", "log rho": " in log rho"}[variable]
    return Method(f"DEIS-{order}{suffix}", "DEIS", partial(make.deis, order, variable=variable))


UNFITTED = "solvers of asymflow, not fitted"
METHODS = (
    _ours("euler", "Euler (DDIM)", "Euler (DDIM)"),
    _ours("heun", "Heun", "Heun"),
    *(Method(f"UniPC-{n}", "UniPC", partial(_unipc, n), quick=True) for n in (2, 3)),
    *(Method(f"DPM-Solver++ {n}M", "DPM-Solver++", partial(_dpm, n), quick=True) for n in (2, 3)),
    Method("DPM-Solver++ 2S", "DPM-Solver++", partial(make.singlestep, 2)),
    _deis(2, "t"),
    *(_deis(3, variable) for variable in ("t", "rho", "log rho")),
    Method("iPNDM", "iPNDM", partial(make.ipndm, 4)),
    Method("iPNDM in the noise", "iPNDM", partial(make.ipndm, 4, of="noise")),
    *(_ours(solver, solver, UNFITTED) for solver in ("multistep3", "corrected2")),
    Method("DPM-Solver++ 2M SDE", "DPM-Solver++ SDE", make.dpm_sde, noisy=True),
    Method("SA-Solver", "SA-Solver", make.sa, noisy=True),
)
