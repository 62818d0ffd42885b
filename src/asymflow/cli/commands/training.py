"""`asymflow train` and `asymflow data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asymflow.cli import options, report

app = typer.Typer(help="Build and pack the training dataset.")


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="v2, gpu, cpu, laptop or smoke.")],
    data: options.DatasetFolder = options.DATASET,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Checkpoints, log and samples; runs/RECIPE by default."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cpu, cuda, ...; cuda by default if available."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Model file to initialise the weights from."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="N", help="Duration, instead of the one in the recipe."),
    ] = None,
    finish: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS",
            help="End the run in --out within so many steps, in DIR/finish-STEPS; it can go on.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N", help="Seed of the data order; use another one with each --start."
        ),
    ] = 0,
    blend: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Weight of the trained model in the average with --start."
        ),
    ] = 1.0,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also copy the final model to this file."),
    ] = None,
) -> None:
    """Train the model; resumes from the last checkpoint after an interruption."""
    from asymflow.cli import train

    folder = out or Path("runs") / recipe
    train.train(
        recipe,
        data,
        folder,
        device=device,
        start=start,
        minutes=minutes,
        finish=finish,
        seed=seed,
        blend=blend,
        export=export,
    )


@app.command("pack")
def pack_data(
    data: options.DatasetFolder = options.DATASET,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Output file.")] = Path("data.zip"),
) -> None:
    """Pack the dataset into one file, for machines without the build tools."""
    from asymflow.training.data import packing

    packing.pack(data, out)
    report.print_result(f"{out}, {out.stat().st_size / 1e6:.1f} MB")


@app.command("library")
def build_library(
    data: options.DatasetFolder = options.DATASET,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Output file.")] = Path("library.zip"),
) -> None:
    """Pack the reference drawings of the model into one file."""
    from asymflow.training.data import library
    from asymflow.training.data.dataset import Dataset

    count = library.build(Dataset(data), out)
    report.print_result(f"{out}, {count} drawings, {out.stat().st_size / 1e6:.1f} MB")


@app.command()
def build(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output folder.")] = options.DATASET,
    styles: Annotated[
        list[str] | None,
        typer.Option("--style", metavar="NAME", help="Build only this style (repeatable)."),
    ] = None,
    skin_tones: Annotated[
        bool,
        typer.Option(
            "--skin-tones", metavar="", help="Include skin tones, which doubles the dataset."
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Number of processes; one per core by default.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Cache folder for downloads.")
    ] = None,
) -> None:
    """Download the emoji sets and render the dataset; resumes after an interruption."""
    from asymflow.training.data import builder

    made = builder.build(
        out,
        styles=styles or builder.ALL,
        skin_tones=skin_tones,
        workers=workers,
        cache=cache,
    )
    report.print_result(str(made))
