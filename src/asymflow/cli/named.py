"""`asymflow plan`: measure a model and make its named plans."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from asymflow.cli.planning import progress
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.core.types import Plan
from asymflow.generation import pipeline
from asymflow.planning import named, plan_files
from asymflow.planning.effort import Effort
from asymflow.planning.shelf import NAMES


def make(
    ref: str | None,
    size: tuple[int, int] | None,
    guidance: float | None,
    *,
    effort: Effort,
    dtype: str,
    device: str | None,
    as_json: bool,
) -> None:
    """Make the named plans of a model for one size, and keep them where they are found.

    Raises:
        InputError: the model cannot serve the size or the guidance scale.
        FileFormatError: it cannot be loaded.
    """
    model = pipeline.load(ref, dtype=dtype, device=device)
    size = size or model.card.sizes.native
    journal = named.journal_of(model.adapter, model.dtype, size, guidance, effort)
    started = time.perf_counter()
    with progress() as report, journal.kept_on_interruption(print_note):
        found = named.measure(
            model.adapter, size, guidance, effort=effort, journal=journal, progress=report
        )
    seconds = time.perf_counter() - started
    files = {name: model.shelf.keep(plan, size) for name, plan in found.plans.items()}
    for name in found.absent:
        model.shelf.forget(name, size)
    journal.remove()
    if as_json:
        print_json(
            {
                "files": {name: str(path) for name, path in files.items()},
                "plans": {
                    name: plan_files.plan_to_json(plan) for name, plan in found.plans.items()
                },
                "absent": dict(found.absent),
                "passes": found.passes,
                "seconds": round(seconds, 1),
            }
        )
        return
    Console(highlight=False).print(_table(found))
    for name in NAMES:
        if name in found.absent:
            print_note(f"There is no {name}: {found.absent[name]}.")
    print_note(
        f"Measured with {found.passes} network passes in {seconds:.0f} s. RMSE: of states "
        "in [-1, 1], twice that of pictures in [0, 1]."
    )
    if files:
        print_result(str(next(iter(files.values())).parent))
        asked = {"prompt": " 'a fox'", "class": " --class 0", "nothing": ""}[model.card.asks]
        how = "" if model.ref is None else f" --model {model.ref}"
        name = "balanced" if "balanced" in files else next(iter(files))
        print_note(f"Draw with one: asymflow generate{asked}{how} --plan {name}")


def _table(found: named.NamedPlans) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("plan", style="cyan")
    for column in ("steps", "NFE", "of its own", "RMSE to the limit", "its own", "changed"):
        table.add_column(column, justify="right")
    for name, plan in found.plans.items():
        table.add_row(name, *_cells(plan))
    return table


def _cells(plan: Plan) -> Iterator[str]:
    assert plan.evidence is not None, "named plans are measured"
    made = plan.evidence.made
    own, passes = int(made["original_forwards"]), int(made["forwards"])
    yield str(len(plan.steps))
    yield str(passes)
    yield f"1/{own / passes:.1f}"
    yield str(plan.evidence.rms)
    yield made["original_rms"]
    yield made["changed"]
