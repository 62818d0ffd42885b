"""The data types that all packages share.

Nothing here imports torch: a plan can be read, printed and checked without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from asymflow.core.binding import Binding, Requirements
from asymflow.core.checks import each_instance, instance, number, whole
from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval

Picture = NDArray[np.float32]
"""A picture [h, w, c] in [0, 1]; RGBA is premultiplied by alpha."""

Solver = Literal["euler", "heun", "multistep1", "multistep2", "multistep3", "damped2", "corrected2"]
"""How a move uses the estimates of x_0.

`multistepN` extrapolates from N of them (order N), `damped2` from two but less far where the move
is long; `corrected2` first repeats the previous move with the estimate at its end, and then
extrapolates from two. Formulas are in `asymflow.core.solvers`.
"""

SOLVERS: tuple[Solver, ...] = (
    "euler",
    "heun",
    "multistep1",
    "multistep2",
    "multistep3",
    "damped2",
    "corrected2",
)


@dataclass(frozen=True, slots=True)
class Tier:
    """An estimator of x_0 on the full-size state, with a cost.

    Attributes:
        name: for display.
        guided: use classifier-free guidance (two passes). Without it only the conditional pass
            runs.
        pool_factor: the network gets the state pooled by this factor at the same
            signal-to-noise ratio, and its estimate is enlarged.
        cached: take what the tier does not compute (guidance, detail) from the last full estimate;
            such a tier is called carried.
        sequential_cfg: run the conditional and unconditional passes one after the other. The same
            result with half of the activation memory; it may be slower or faster.
        tiles: side in pixels of overlapping tiles that the network is shown in turn, each as a
            picture of its own, and then the whole picture pooled to that size, from which the
            frequencies below the scale of a tile are taken. A picture that fits into one tile is
            shown as it is.
        late: run the fast part of the network only, on the newest state, and use again what the
            slow part said at the last step that asked it at full size.
    """

    name: str
    guided: bool = True
    pool_factor: int = 1
    cached: bool = False
    sequential_cfg: bool = False
    tiles: int | None = None
    late: bool = False

    def __post_init__(self) -> None:
        instance("The name of a tier", self.name, str, "Name it, such as 'half'.")
        pool_factor = whole(f"Tier {self.name!r}: pool_factor", self.pool_factor, -(2**63))
        object.__setattr__(self, "pool_factor", pool_factor)
        if self.pool_factor < 1:
            raise InputError(
                f"Tier {self.name!r} has pool_factor={self.pool_factor}. Choose 1 or more."
            )
        if self.tiles is not None:
            self._set_tiles(self.tiles)
        if self.late:
            self._check_late()
        if self.cached and self.full:
            raise InputError(
                f"Tier {self.name!r} leaves nothing out, so it cannot carry anything. Make it "
                "unguided or smaller, or drop `cached`."
            )
        if self.sequential_cfg and not self.guided:
            raise InputError(
                f"Tier {self.name!r} makes one pass, so there is nothing to take in turn. Make it "
                "guided, or drop `sequential_cfg`."
            )

    def _set_tiles(self, tiles: int) -> None:
        object.__setattr__(self, "tiles", whole(f"Tier {self.name!r}: tiles", tiles, SMALLEST_TILE))
        if self.pool_factor > 1 or self.cached:
            raise InputError(
                f"Tier {self.name!r} has tiles of {tiles} pixels, and is "
                f"{'cached' if self.cached else f'pooled by {self.pool_factor}'} too. Tiles are of "
                "the state at full size, and nothing is left out of them: drop the one or the "
                "other."
            )

    def _check_late(self) -> None:
        others = {
            "cached": self.cached,
            f"pooled by {self.pool_factor}": self.pool_factor > 1,
            f"shown in tiles of {self.tiles} pixels": self.tiles is not None,
            "guided by passes in turn": self.sequential_cfg,
        }
        found = next((what for what, holds in others.items() if holds), None)
        if found is not None:
            raise InputError(
                f"Tier {self.name!r} is late, and is {found} too. A late tier is of the state at "
                "full size and reuses the slow part of the network only: drop the one or the other."
            )

    @property
    def whole(self) -> bool:
        """Whether all of the network is shown the state at full size, at once."""
        return self.pool_factor == 1 and self.tiles is None and not self.late

    @property
    def full(self) -> bool:
        """Whether the tier computes everything: guided, at full size, at once."""
        return self.guided and self.whole

    @property
    def unreduced(self) -> bool:
        """Whether the tier is full or carried, so that it has no bias against the full one."""
        return self.full or self.cached


SMALLEST_TILE = 4
"""Side in pixels of the smallest tile: a quarter of it overlaps with the next one."""
UNGUIDED = "1"
"""Value of "guidance_scale" in the provenance of profiles and plans without guidance."""

FULL = Tier("full")
CONDITIONAL = Tier("conditional", guided=False)
CARRIED = Tier("conditional+", guided=False, cached=True)
SEQUENTIAL_CFG = Tier("full in turn", sequential_cfg=True)
LATE = Tier("late", late=True)
LATE_CONDITIONAL = Tier("late conditional", guided=False, late=True)
LATE_TIERS = (LATE, LATE_CONDITIONAL)
REUSED = Tier("reused", guided=False)
"""Shown for steps that ask nothing, see `Step.reuse`."""


def part_name(pool_factor: int) -> str:
    """Name of tiers at 1/`pool_factor` of the side."""
    return {1: "full", 2: "half", 4: "quarter"}.get(pool_factor, f"1/{pool_factor}")


def side_word(tier: Tier) -> str:
    """What a table says of the side of the pictures that the network is shown."""
    if tier.tiles is not None:
        return f"{tier.tiles}px"
    return f"1/{tier.pool_factor}" if tier.pool_factor > 1 else "full"


def cheaper_tiers(pool_factors: Sequence[int]) -> tuple[Tier, ...]:
    """Every tier that needs less time or memory than full, for the given `pool_factors`.

    Sequential guidance saves memory only.
    """
    found = [SEQUENTIAL_CFG, CONDITIONAL, CARRIED]
    for f in pool_factors:
        name = part_name(f)
        found += [
            Tier(name, pool_factor=f),
            Tier(f"{name}+", pool_factor=f, cached=True),
            Tier(f"{name} conditional+", guided=False, pool_factor=f, cached=True),
        ]
    return tuple(found)


def whole_tier(tier: Tier) -> Tier:
    """The tier that asks the whole network for what a late one estimates; any other one itself."""
    if not tier.late:
        return tier
    return FULL if tier.guided else CONDITIONAL


def share_history(one: Tier, other: Tier) -> bool:
    """Whether a solver may use estimates of two tiers in one polynomial: they have the same bias.

    Full and carried estimates have none, and a late one has that of the whole network's.
    """
    one, other = whole_tier(one), whole_tier(other)
    return one == other or (one.unreduced and other.unreduced)


def tiled_tiers(side: int) -> tuple[Tier, ...]:
    """The tiers of tiles of a side."""
    return Tier("tiled", tiles=side), Tier("tiled conditional", guided=False, tiles=side)


MAX_ESTIMATES = 7
"""Estimates that explicit weights may use: the newest and six before it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One move of the trajectory from time t down to s < t, where 1 is noise and 0 is data.

    Attributes:
        t: where the move begins, and the network is asked.
        s: where it ends.
        tier: what is asked; `REUSED` where nothing is.
        solver: how estimates are used. A step with `weights` has the default here, which replaces
            them where they do not hold: when the plan begins later, or at another size.
        weights: (a, w_0, w_1, ...) of x_s = a x_t + w_0 D_0 + w_1 D_1 + ..., in place of those of a
            solver. D_0 is the estimate of this step, or the newest one there is if the step reuses;
            D_k is the first one of the k-th step before that asks the network, whatever its tier.
        guidance_scale: in place of the request's, 1 for none; None for the request's.
        reuse: ask nothing, and go on with the estimates there are. With a solver, from where its
            move from the newest estimate would be at t to where it would be at s.
        extra: entries of a plan file that this version does not know.
    """

    t: float
    s: float
    tier: Tier = FULL
    solver: Solver = "damped2"
    weights: tuple[float, ...] | None = None
    guidance_scale: float | None = None
    reuse: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)

    def __post_init__(self) -> None:
        # Plan files contain floats only, and a plan must equal what is read back.
        object.__setattr__(self, "t", number("t", self.t))
        object.__setattr__(self, "s", number("s", self.s))
        instance("tier", self.tier, Tier, "Pass asymflow.FULL, asymflow.CONDITIONAL or a Tier.")
        if not 0.0 <= self.s < self.t <= 1.0:
            raise InputError(
                f"A step from t={self.t} to s={self.s} is not a move: times fall from 1 (noise) "
                "to 0 (data), so that 0 <= s < t <= 1."
            )
        if self.solver not in SOLVERS:
            raise InputError(f"Unknown solver {self.solver!r}. Choose one of {', '.join(SOLVERS)}.")
        if self.weights is not None:
            self._set_weights(self.weights)
        if self.reuse:
            self._set_reuse()
        if self.guidance_scale is not None:
            scale = number("guidance_scale", self.guidance_scale)
            object.__setattr__(self, "guidance_scale", scale)
            if not math.isfinite(scale):
                raise InputError(f"guidance_scale={scale} must be a finite number, or None.")
            if scale != 1 and not self.tier.guided:
                raise InputError(
                    f"A step of tier {self.tier.name!r} makes no unconditional pass, so a guidance "
                    f"scale of {scale:g} has no effect. Use a guided tier, or drop the scale."
                )

    def _set_weights(self, weights: Sequence[float]) -> None:
        each_instance("weights", weights, object, "Give (a, w_0, ...).")
        found = tuple(number(f"weights[{k}]", weight) for k, weight in enumerate(weights))
        object.__setattr__(self, "weights", found)
        if not 2 <= len(found) <= 1 + MAX_ESTIMATES or not all(map(math.isfinite, found)):
            raise InputError(
                f"{found} are no weights of a step. Give the finite numbers (a, w_0, ...): one for "
                f"the state and one for each of 1 to {MAX_ESTIMATES} estimates, newest first."
            )
        if self.solver != "damped2":
            raise InputError(
                f"A step has weights, and the solver {self.solver!r}, which would give it others. "
                "Drop the one or the other."
            )

    def _set_reuse(self) -> None:
        object.__setattr__(self, "tier", REUSED)
        if self.solver == "heun":
            raise InputError(
                "A step of Heun's method asks the network, so it cannot reuse estimates only. "
                "Choose another solver, such as 'euler'."
            )

    @property
    def evaluations(self) -> int:
        """Estimates of x_0 in the move: Heun takes two, except into s = 0; reuse takes none."""
        if self.reuse:
            return 0
        return 2 if self.solver == "heun" and self.s > 0 else 1

    @property
    def forwards(self) -> int:
        """Network passes for a picture with guidance: a guided estimate takes two."""
        return self.passes(guided=True)

    def passes(self, *, guided: bool) -> int:
        """Network passes for a picture with guidance, or for one without: one per estimate."""
        return self.evaluations * (2 if self.guides(guided=guided) else 1)

    def guides(self, *, guided: bool) -> bool:
        """Whether the unconditional pass is made for a picture with guidance, or one without."""
        if self.guidance_scale is not None:
            guided = self.guidance_scale != 1
        return guided and self.tier.guided

    @property
    def solver_name(self) -> str:
        """The solver, or that there are explicit weights."""
        return self.solver if self.weights is None else "weights"

    def moved(self, t: float, s: float) -> Step:
        """The step between other times, where its explicit weights do not hold."""
        if (t, s) == (self.t, self.s):
            return self
        return replace(self, t=t, s=s, weights=None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Measurements of a plan, on requests that were not used to choose it.

    Attributes:
        made: provenance: "adapter", "size", "guidance_scale", "device", ..., as in `Profile.made`.
        cost_ms: of every step's network calls, per picture.
        full_ms: of one full estimate, the unit for costs that are comparable across machines.
        shares: of every step in the predicted squared error; empty without a prediction.
        predicted: RMSE to the reference predicted by the profile, for the nearest plan of its
            candidate times and solvers; or None.
        rms: measured RMSE of the plan itself.
        distance: one minus the cosine similarity of image features; None if not measured.
        pictures: number of pictures measured.
        metric: what `rms` is, in words; None for the RMSE to the reference.
        weights: hash of the weights of the model that was measured.
        commit: of asymflow's source, from a checkout.
        extra: entries of a plan file that this version does not know.
    """

    made: Mapping[str, str]
    cost_ms: tuple[float, ...]
    full_ms: float
    shares: tuple[float, ...]
    predicted: float | None
    rms: Interval
    distance: Interval | None
    pictures: int
    metric: str | None = None
    weights: str | None = None
    commit: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """A trajectory as data: contiguous steps from `steps[0].t` to 0, which every picture makes.

    `evidence` has the measured quality, `binding` the weights that it was measured on, `requires`
    what the plan needs of other models. A plan without them fits every model.

    `extra` are entries of a plan file that this version does not know.
    """

    name: str
    steps: tuple[Step, ...]
    evidence: Evidence | None = field(default=None, compare=False)
    requires: Requirements | None = field(default=None, compare=False)
    binding: Binding | None = field(default=None, compare=False)
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)

    def __post_init__(self) -> None:
        instance("The name of a plan", self.name, str, "Plan(name, steps) has it first.")
        each_instance("steps", self.steps, Step, "Pass a tuple of asymflow.Step.")
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise InputError(f"Plan {self.name!r} has no steps. A plan needs at least one.")
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if before.s != after.t:
                raise InputError(
                    f"Plan {self.name!r} has a gap: a step ends at t={before.s}, the next begins "
                    f"at t={after.t}. Let every step begin where the last one ends."
                )
        first = next((step for step in self.steps if step.tier.full or step.tier.cached), None)
        if first is not None and first.tier.cached:
            raise InputError(
                f"Plan {self.name!r} carries from a full estimate at t={first.t} before it has "
                "made one. Put a step of the full tier first."
            )
        if self.steps[-1].s != 0.0:
            raise InputError(
                f"Plan {self.name!r} ends at t={self.steps[-1].s}, where noise is left. "
                "The last step must end at 0."
            )
        self._check_estimates()
        self._check_late()

    def _check_estimates(self) -> None:
        """Raise `InputError` when a step uses estimates that do not exist."""
        made = 0
        for i, step in enumerate(self.steps):
            if step.reuse and not made:
                raise InputError(
                    f"Plan {self.name!r} reuses estimates in step {i}, before one has been made. "
                    "Let its first step ask the network."
                )
            if step.reuse and self.steps[i - 1].evaluations == 2:
                raise InputError(
                    f"Plan {self.name!r} reuses estimates in step {i}, after a step of Heun's "
                    "method, whose second estimate is not kept. Choose another solver before it."
                )
            made += 0 if step.reuse else 1
            if step.weights is not None and len(step.weights) - 1 > made:
                raise InputError(
                    f"Step {i} of plan {self.name!r} has weights of {len(step.weights) - 1} "
                    f"estimates, and only {made} have been made there. Give at most {made + 1} "
                    "weights: of the state, and of each estimate."
                )

    def _check_late(self) -> None:
        """Raise `InputError` when a late step has nothing to reuse."""
        guided: bool | None = None  # the last step that asked the slow part at full size
        for i, step in enumerate(self.steps):
            if step.reuse:
                continue
            guides = step.guides(guided=True)
            if step.tier.whole:
                guided = guides
            elif step.tier.late and guided is None:
                raise InputError(
                    f"Step {i} of plan {self.name!r} is late ({step.tier.name!r}), and no step "
                    "before it has asked the whole network at full size. Put one first."
                )
            elif step.tier.late and guides and not guided:
                raise InputError(
                    f"Step {i} of plan {self.name!r} is late and guided ({step.tier.name!r}), and "
                    "the last step before it that asked the whole network at full size made no "
                    "unconditional pass. Let that step be guided, or this one not."
                )

    @property
    def times(self) -> tuple[float, ...]:
        """All nodes, falling: the start of every step, then 0."""
        return (*(step.t for step in self.steps), self.steps[-1].s)

    @property
    def guided(self) -> bool:
        """Whether guidance is used: False for plans measured without it."""
        return self.evidence is None or self.evidence.made.get("guidance_scale") != UNGUIDED

    @property
    def forwards(self) -> int:
        """Network passes per picture, with guidance unless the plan was measured without."""
        return sum(step.passes(guided=self.guided) for step in self.steps)

    def __str__(self) -> str:
        found, guided = self.evidence, self.guided
        rows = [f"plan {self.name}: {len(self.steps)} steps, {self.forwards} NFE"]
        head = (
            f"{'step':>4}  {'from t':>7}  {'to t':>7}  {'tier':<18}{'side':<6}{'guided':<8}"
            f"{'solver':<12}{'NFE':>8}"
        )
        rows.append(head + ("  cost of a full one  share of error" if found else ""))
        for i, step in enumerate(self.steps):
            tier = step.tier
            row = (
                f"{i:>4}  {step.t:>7.4f}  {step.s:>7.4f}  {tier.name:<18}"
                f"{side_word(tier):<6}"
                f"{_guidance_word(step, guided=guided):<8}"
                f"{step.solver_name:<12}{step.passes(guided=guided):>8}"
            )
            if found:
                row += f"{found.cost_ms[i] / found.full_ms:>20.0%}"
                row += f"{found.shares[i]:>16.0%}" if found.shares else f"{'':>16}"
            rows.append(row.rstrip())
        if found:
            rows.append(
                f"{sum(found.cost_ms):.0f} ms on {found.made.get('device', 'its device')}, as much "
                f"as {sum(found.cost_ms) / found.full_ms:.1f} full estimates"
            )
            rows.append(
                f"RMSE to the reference {found.rms}, "
                f"on {found.pictures} pictures it was not chosen by"
            )
            if "changed_at_most" in found.made:
                rows.append(
                    f"{found.made['changed']} pictures became others, "
                    f"which bounds their share to {found.made['changed_at_most']}"
                )
            if found.distance:
                rows.append(f"feature distance to the reference {found.distance}")
            if "distribution" in found.made:
                rows.append(f"distribution: {found.made['distribution']}")
        return "\n".join(rows)


def _guidance_word(step: Step, *, guided: bool) -> str:
    """What a table says of a step's guidance: its own scale, or whether there is any."""
    if step.tier.cached:
        return "cached"
    if not step.guides(guided=guided):
        return "no"
    return "yes" if step.guidance_scale is None else f"{step.guidance_scale:g}"


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One picture to generate. A result depends on its own request and plan only.

    Attributes:
        inputs: conditions for the adapter's `encode`, e.g. {"prompt": "a fox", "style": "noto"}.
        seed: of the noise this picture starts from.
        size: (height, width) in pixels.
        guidance_scale: weight w of D_null + w (D_cond - D_null); 1 is no guidance.
        image: a picture [h, w, c] in [0, 1] of that size to start from, for image-to-image and
            inpainting.
        strength: how far from `image` to go, in (0, 1]: the trajectory starts at t = strength.
        mask: [h, w] in [0, 1], 1 where `image` is to be repainted and 0 where it is kept.
    """

    inputs: Mapping[str, Any]
    size: tuple[int, int]
    seed: int = 0
    guidance_scale: float = 1.0
    image: Picture | None = None
    strength: float = 1.0
    mask: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        instance("inputs", self.inputs, Mapping, "Pass a dict, such as {'prompt': 'a fox'} or {}.")
        hint = "Give (height, width) in pixels, such as (64, 64)."
        each_instance("size", self.size, object, hint)
        if len(self.size) != 2:
            raise InputError(f"size={self.size!r} is no size. {hint}")
        size = tuple(whole("A side of size", side, -(2**63)) for side in self.size)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "seed", whole("seed", self.seed, -(2**127)))
        for name in ("guidance_scale", "strength"):
            object.__setattr__(self, name, number(name, getattr(self, name)))
        for name in ("image", "mask"):
            if (value := getattr(self, name)) is not None:
                hint = f"Pass numpy.asarray({name}, dtype=numpy.float32) / 255, if it has bytes."
                instance(name, value, np.ndarray, hint)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A finished picture and what it cost.

    Attributes:
        plan: the steps that were executed: those of the requested plan, truncated to the strength.
    """

    picture: Picture
    request: Request
    plan: Plan
    forwards: int
    seconds: float
    step_seconds: tuple[float, ...] = field(default=())


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Cost and error of every move, for one model on one device.

    There are I candidate times and K tiers. A move goes from `times[i]` to `times[j]`; `p` is the
    candidate whose estimate it extrapolates from, and `p == i` stands for no history (order 1).
    Errors are root mean squares over pixels and calibration pictures, against a fine reference
    trajectory on which the move starts. Costs are per picture.

    Attributes:
        times: falling, from the start of the trajectory to exactly 0 [I].
        tiers: the first is full [K].
        cost_ms, macs, peak_bytes: of one estimate [K].
        amplification: factor by which a small error at `times[j]` grows until t = 0 [I].
        saturation: root mean square at t = 0 at which errors stop growing.
        local_error: of a move [K, I, I, I], indexed [tier, p, i, j]; inf unless p <= i < j. For a
            carried tier, right after a full estimate; for a late one, with what the slow part says
            of that very state.
        weight: weight of the newest estimate in that move [I, I, I], indexed [p, i, j].
        drift: error that carrying adds to an estimate at `times[i]`, from a full one made at
            `times[k]` [K, I, I], indexed [tier, k, i]; or what the slow part said there adds to a
            late one. Inf unless k < i and the tier is carried or late.
        made: provenance: "adapter", "device", "size", "guidance_scale", ...
    """

    times: tuple[float, ...]
    tiers: tuple[Tier, ...]
    cost_ms: tuple[float, ...]
    macs: tuple[int, ...]
    peak_bytes: tuple[int, ...]
    amplification: NDArray[np.float32]
    saturation: float
    local_error: NDArray[np.float32]
    weight: NDArray[np.float32]
    drift: NDArray[np.float32]
    made: Mapping[str, str]
