"""`asymflow batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asymflow.cli import options
from asymflow.core.errors import InputError

_ROWS = "Rows"
_WORK = "Work"


def batch(
    manifest: Annotated[
        str,
        typer.Argument(
            metavar="MANIFEST",
            help="A file of rows: .jsonl, .csv or .parquet; [cyan]-[/] reads JSONL from stdin.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the job.")
    ],
    model: options.Model = None,
    plan: options.Plan = None,
    guidance: options.Guidance = None,
    guidance_interval: options.GuidanceInterval = None,
    steps: options.Steps = None,
    solver: options.Solver = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    size: options.Size = None,
    style: options.Style = None,
    negative: options.Negative = None,
    background: options.Background = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N", help="Mixed into the seeds of rows that give none.", rich_help_panel=_ROWS
        ),
    ] = 0,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Read the first N rows only.", rich_help_panel=_ROWS),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Make one of N parts, counted from 0, in a folder of its own.",
            rich_help_panel=_ROWS,
        ),
    ] = None,
    max_errors: Annotated[
        int | None,
        typer.Option(
            "--max-errors",
            metavar="N",
            min=0,
            help="Stop when more than N rows have failed." + options.default("never"),
            rich_help_panel=_ROWS,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1024,
            help="Processes, each with the model."
            + options.default(
                "one per GPU; on a CPU one per core, at most 8; on a cluster as it has room"
            ),
            rich_help_panel=_WORK,
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=1024, help="Threads of each process.", rich_help_panel=_WORK
        ),
    ] = 1,
    rows: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=1024,
            help="Pictures of every network call, on a GPU.",
            rich_help_panel=_WORK,
        ),
    ] = 16,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Make them on a Ray cluster: [cyan]auto[/] for the one of this machine, "
            "[cyan]local[/] for one of its own, or host:port (needs the extra [cyan]ray[/]).",
            rich_help_panel=_WORK,
        ),
    ] = None,
    cpus_per_worker: Annotated[
        float | None,
        typer.Option(
            "--cpus-per-worker",
            metavar="N",
            min=0,
            help="CPUs that a worker takes on a Ray cluster; fractions are allowed."
            + options.default("its threads"),
            rich_help_panel=_WORK,
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            "--gpus-per-worker",
            metavar="N",
            min=0,
            help="GPUs that a worker takes on a Ray cluster; with 0.5, two share one."
            + options.default("1 if the cluster has any"),
            rich_help_panel=_WORK,
        ),
    ] = None,
    allow_mixed: Annotated[
        bool,
        typer.Option(
            "--allow-mixed",
            metavar="",
            help="Continue the job of another kind of machine, or version of asymflow.",
            rich_help_panel=_WORK,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            metavar="",
            help="Only check the rows, measure, and predict the hours.",
            rich_help_panel=_WORK,
        ),
    ] = False,
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="imagefolder, or parquet (needs the extra [cyan]parquet[/]).",
            rich_help_panel="Output",
        ),
    ] = "imagefolder",
    json: options.Json = False,
) -> None:
    """Make a picture for every row of a manifest, once each.

    Columns are called as the options of [cyan]asymflow generate[/]; others travel through. Run the
    same command again to continue after any end.
    """
    from asymflow.bulk import manifest as manifests
    from asymflow.bulk import run as runs
    from asymflow.bulk.job import OUTPUTS, Output
    from asymflow.bulk.pictures import Settings
    from asymflow.bulk.run import Order
    from asymflow.cli import batch
    from asymflow.generation import resolve

    form: Output | None = next((each for each in OUTPUTS if each == format), None)
    if form is None:
        raise InputError(f"Unknown format {format!r}. {resolve.nearest(format, OUTPUTS)}")
    if form == "parquet":
        manifests.arrow()
    found = manifests.manifest(manifest)
    defaults = resolve.GenerateOptions(
        model=model,
        plan=plan,
        size=size,
        style=style,
        negative=negative,
        guidance=guidance,
        guidance_interval=guidance_interval,
        steps=steps,
        solver=solver,
        background=background,
        seed=seed,
    )
    resolve.plan(defaults)
    if size is not None:
        resolve.size_of(size)
    order = Order(
        manifest=found,
        settings=Settings(
            model=model,
            dtype=resolve.known_dtype(dtype),
            device=device,
            threads=threads,
            rows=rows,
            defaults=defaults,
            folder=found.folder,
        ),
        out=output,
        output=form,
        workers=batch.workers_of(workers, device) if ray is None else workers or 1,
        shard=batch.shard_of(shard),
        limit=limit,
        max_errors=max_errors,
        allow_mixed=allow_mixed,
    )
    if ray is None:
        if cpus_per_worker is not None or gpus_per_worker is not None:
            raise InputError(
                "--cpus-per-worker and --gpus-per-worker are for --ray. Here, --threads and "
                "--workers say what the processes take."
            )
        pool = runs.processes
    else:
        cpus = threads if cpus_per_worker is None else cpus_per_worker
        pool = batch.actors(ray, cpus, gpus_per_worker, workers)
    if code := batch.batch(order, pool=pool, dry=dry_run, as_json=json):
        raise typer.Exit(code)
