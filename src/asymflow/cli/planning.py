"""`asymflow profile` and `asymflow plan`: profile a model and search for plans."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asymflow._version import __version__
from asymflow.bench import protocol
from asymflow.bench.protocol import check_fits
from asymflow.cli.outputs import require_writable
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.core import schedules
from asymflow.core.errors import InputError, MissingExtra
from asymflow.core.types import Plan, Profile
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.io import folders
from asymflow.io.files import key_name, replacing
from asymflow.io.plots import new_figure
from asymflow.io.progress import bars
from asymflow.planning import binding, calibration, memory, plan_files, planner, prediction

if TYPE_CHECKING:
    from asymflow.planning.verifier import Distance

_BASELINE = schedules.plan_of(schedules.uniform(50), solver="heun")
"""The common baseline for pixel-space models: 99 full estimates."""
Report = Callable[[str, int, int], None]


def profile(
    model: Model,
    size: tuple[int, int] | None,
    guidance: float | None,
    *,
    count: int,
    candidates: int,
    output: Path,
    costs_only: bool,
    as_json: bool,
) -> None:
    """Measure a model and write its profile; resumes an interrupted one.

    Raises:
        InputError: the size is not supported, or the file cannot be written.
        FileFormatError: with `costs_only`, the file is not a profile.
    """
    from asymflow.planning import profiler

    require_writable(output, "Choose another place with -o.")
    size = size or model.card.sizes.native
    guidance = model.card.guidance if guidance is None else guidance
    partial = output.with_name(f"{output.name}.partial")
    with progress() as report:
        if costs_only:
            old = plan_files.load_profile(output)
            check_fits(old, model.adapter.name)
            width, height = (int(side) for side in old.made["size"].split("x"))
            [request] = calibration.requests(
                model.adapter.card, (height, width), guidance, 1, calibration.PROFILED
            )
            request = replace(request, guidance_scale=float(old.made["guidance_scale"]))
            found = profiler.measure_costs(model.adapter, request, old)
        else:
            profiled = calibration.requests(
                model.adapter.card, size, guidance, count, calibration.PROFILED
            )
            model.adapter.check(profiled[0])
            if partial.exists():
                print_note(f"Resuming from {partial}, if it belongs to the same profile.")
            try:
                found = profiler.profile(
                    model.adapter,
                    profiled,
                    times=schedules.candidates(size, candidates),
                    guidance_interval=pipeline.guidance_interval(model, size),
                    progress=report,
                    partial=partial,
                )
            except KeyboardInterrupt:
                print_note(f"Measurements are kept in {partial}; run the same command to resume.")
                raise
    plan_files.save_profile(replace(found, made={**found.made, "dtype": model.dtype}), output)
    if not costs_only:
        partial.unlink(missing_ok=True)
    if as_json:
        print_json({"file": str(output), "made": dict(found.made), "tiers": _tiers(found)})
        return
    print_result(str(output))
    for row in _tiers(found):
        print_note(
            f"{row['tier']:<20}{row['ms']:>9.1f} ms{row['mmacs']:>9.0f} MMACs{row['mb']:>8.1f} MB"
        )
    print_note(f"Next: asymflow plan {output}")


def plan(
    path: Path,
    *,
    budget: str | None,
    error: float | None,
    cost: prediction.Cost,
    max_bytes: int | None,
    name: str,
    output: Path | None,
    front: Path | None,
    load: Callable[[], Model] | None,
    rollouts: int,
    pictures: int,
    as_json: bool,
) -> None:
    """Search a profile for one plan within a limit, or without a limit for the Pareto front.

    Args:
        budget: a number or a factor, see `budget_of`.
        load: loads the model to verify the plan with; None to skip verification.

    Raises:
        InputError: no plan fits, or the options contradict each other.
        FileFormatError: the file is not a profile.
    """
    for target in (output, front):
        if target is not None:
            require_writable(target, "Choose another place.")
    profile = plan_files.load_profile(path)
    if front is not None:
        _draw(planner.front(profile, cost=cost, max_bytes=max_bytes), profile, cost, front)
    if budget is None and error is None:
        if output is not None or load is not None:
            raise InputError(
                "A plan needs a limit. Give --budget or --error, or leave out -o and --verify to "
                "see all plans on the front."
            )
        _show_front(planner.front(profile, cost=cost, max_bytes=max_bytes), profile, as_json)
        return
    limit = None if budget is None else budget_of(budget, profile, cost)
    found = planner.plan(
        profile, budget=limit, error=error, cost=cost, max_bytes=max_bytes, name=name
    )
    if load is not None:
        found = _verify(
            load(),
            profile,
            name,
            budget=prediction.price(profile, found, cost=cost) if limit is None else limit,
            cost=cost,
            max_bytes=max_bytes,
            rollouts=rollouts,
            pictures=pictures,
        )
    if output is not None:
        plan_files.save_plan(found, output)
    if as_json:
        print_json(plan_files.plan_to_json(found))
    else:
        print_result(str(found))
        if found.evidence is None:
            expected = prediction.predict(profile, found, cost=cost)
            peak = memory.of_plan(profile, found)
            if peak is not None:
                print_result(f"peak memory beyond the weights: {memory.short(peak)}")
            print_result(f"predicted: {expected.cost:.4g} {cost}, difference {expected.error:.3f}")
    if output is not None and not as_json:
        print_note(f"Draw with it: asymflow generate 'a fox' --plan {output}")


def budget_of(text: str, profile: Profile, cost: prediction.Cost) -> float:
    """Parse a budget: a number in the unit of `cost`, or "10x" for a tenth of the baseline.

    Raises:
        InputError: the text is neither.
    """
    number, whole = text.strip().lower(), None
    if number.endswith(("x", "×")):
        number, whole = number[:-1], prediction.price(profile, _BASELINE, cost=cost)
    try:
        value = float(number)
        if whole is not None and not 0 < value < math.inf:
            raise ValueError
    except ValueError:
        raise InputError(
            f"{text!r} is not a budget. Give a number, such as 300, in the unit of --cost; or how "
            "many times less than 50 steps of Heun's method a picture may cost, such as 10x."
        ) from None
    return value if whole is None else whole / value


def _verify(
    model: Model,
    profile: Profile,
    name: str,
    *,
    budget: float,
    cost: prediction.Cost,
    max_bytes: int | None,
    rollouts: int,
    pictures: int,
) -> Plan:
    from asymflow.planning import profiler, verifier
    from asymflow.planning.encoded import Encoded
    from asymflow.planning.journal import Journal

    check_fits(profile, model.adapter.name)
    here = profiler.machine(model.adapter)["device"]
    if profile.made["device"] != here:
        print_note(
            f"Costs were measured on {profile.made['device']}, and this is {here}: "
            "measure them again with `asymflow profile --costs-only`."
        )
    width, height = (int(side) for side in profile.made["size"].split("x"))
    scale = float(profile.made["guidance_scale"])
    fitting = profile
    if max_bytes is not None:
        peaks = zip(profile.tiers, profile.peak_bytes, strict=True)
        fitting = verifier.only(profile, [tier for tier, peak in peaks if peak <= max_bytes])
    facts = {"model": model.adapter.name, "dtype": model.dtype, "device": here}
    facts["asymflow"] = __version__
    facts |= {key: profile.made[key] for key in ("size", "guidance_scale")}
    journal = Journal(folders.cache() / "measuring" / key_name(facts))
    guided = pipeline.guidance_interval(model, (height, width))
    fine = schedules.fine_plan((height, width), guidance_interval=guided)

    def evaluator(kept: str, count: int, purpose: int) -> verifier.Evaluator:
        wanted = calibration.requests(model.adapter.card, (height, width), scale, count, purpose)
        adapter = Encoded(model.adapter)
        reference = journal.states(
            f"{kept}-{count}", lambda: verifier.rollout(adapter, fine, wanted)
        )
        return verifier.Evaluator(
            adapter,
            tuple(wanted),
            reference,
            guidance_interval=guided,
            known=journal.errors(f"{kept}-{count}"),
        )

    with progress() as report, journal.kept_on_interruption(print_note):
        report("computing references", 0, 2)
        chooser = evaluator("chosen", 8, calibration.VERIFIED)
        fresh = evaluator("proof", pictures, calibration.PROVED)
        report("computing references", 2, 2)
        chosen = verifier.best_within(
            chooser, fitting, budget, cost=cost, name=name, rollouts=rollouts, progress=report
        )
        measured = verifier.measure_evidence(
            fresh, chosen, profile, perceptual(model), reference=fine
        )
        journal.remove()
        return binding.bound(measured, model.adapter.description)


def perceptual(model: Model) -> Distance | None:
    """The feature distance, if the feature network is installed."""
    try:
        return protocol.perceptual(model)
    except MissingExtra:
        print_note(
            "Feature distances are left out; they need the extra `bench`: "
            "pip install '.[bench]', in the folder of your clone of asymflow."
        )
        return None


def _tiers(profile: Profile) -> list[dict[str, Any]]:
    rows = zip(profile.tiers, profile.cost_ms, profile.macs, profile.peak_bytes, strict=True)
    return [
        {"tier": tier.name, "ms": ms, "mmacs": macs / 1e6, "mb": peak / 1e6}
        for tier, ms, macs, peak in rows
    ]


def _show_front(candidates: Sequence[planner.Candidate], profile: Profile, as_json: bool) -> None:
    if as_json:
        rows = [
            {"cost": each.cost, "error": each.error, "plan": plan_files.plan_to_json(each.plan)}
            for each in candidates
        ]
        print_json({"made": dict(profile.made), "front": rows})
        return
    print_result(f"{'cost':>10}{'error':>8}{'steps':>7}{'forwards':>10}  tiers")
    for each in candidates:
        steps = each.plan.steps
        runs: list[list[Any]] = []
        for step in steps:
            if runs and runs[-1][0] == step.tier.name:
                runs[-1][1] += 1
            else:
                runs.append([step.tier.name, 1])
        tiers = ", ".join(f"{count} {name}" for name, count in runs)
        print_result(
            f"{each.cost:>10.4g}{each.error:>8.3f}{len(steps):>7}{each.plan.forwards:>10}  {tiers}"
        )


def _draw(
    candidates: Sequence[planner.Candidate], profile: Profile, cost: prediction.Cost, path: Path
) -> None:
    """Cost against predicted error, as a PNG."""
    figure = new_figure(7, 4.5)
    axes: Any = figure.add_subplot()
    axes.plot([c.cost for c in candidates], [c.error for c in candidates], "o-", ms=3)
    axes.set(
        xlabel=f"{cost} per picture", ylabel="predicted difference (root mean square)",
        xscale="log", yscale="log", title=f"{profile.made['adapter']}, {profile.made['size']}",
    )  # fmt: skip
    axes.grid(alpha=0.3, which="both")
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")


@contextmanager
def progress() -> Generator[Report]:
    """Progress bars on a terminal, one per activity."""
    with bars() as bar:
        tasks: dict[str, Any] = {}

        def report(activity: str, done: int, total: int) -> None:
            if activity not in tasks:
                tasks[activity] = bar.add_task(activity, total=total)
            bar.update(tasks[activity], completed=done, total=total)

        yield report
