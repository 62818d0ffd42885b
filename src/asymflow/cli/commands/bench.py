"""`asymflow bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asymflow.cli import options

if TYPE_CHECKING:
    from asymflow.generation.resolve import GenerateOptions

app = typer.Typer(help="Measure the model and the machine.")

_PROMPT = r"What to draw. [dim]\[default: a red apple, or a class of the model][/]"
Side = Annotated[int, typer.Option(metavar="N", help="32, 64 or 128.")]


@app.command()
def quality(
    data: options.DatasetFolder = options.DATASET,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write quality.json and contact sheets there."),
    ] = None,
    size: Side = 64,
    quick: Annotated[
        bool,
        typer.Option("--quick", metavar="", help="Use few pictures: faster, with wide intervals."),
    ] = False,
    no_references: Annotated[
        bool,
        typer.Option(
            "--no-references", metavar="", help="Draw from the words alone, without the library."
        ),
    ] = False,
    plan: options.Plan = None,
    model: options.Model = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Measure the quality of generated pictures against real ones, with intervals."""
    from asymflow.cli import bench
    from asymflow.generation import resolve

    bench.quality(
        data,
        out,
        size,
        quick=quick,
        references=not no_references,
        options=resolve.GenerateOptions(plan=plan),
        ref=model,
        dtype=resolve.dtype(dtype),
        device=device,
        as_json=json,
    )


@app.command()
def baselines(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Compare with the drawings of this dataset, for the embedded model."
            rf" [dim]\[default: {options.DATASET} if it is there; else, and for other models, "
            "the limit of the model in many steps][/]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write baselines.json, a plot and a sheet there."),
    ] = None,
    size: options.Size = None,
    pictures: Annotated[
        int | None,
        typer.Option(
            "--pictures",
            "--pairs",
            metavar="N",
            min=2,
            help="Pictures per sampler; 192 by default, 32 with --quick; without a dataset 64 and "
            "16.",
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Profile of the model, needed for GITS."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            metavar="",
            help="Baselines at 5, 6 and 8 steps only; without a dataset their grids are chosen by "
            "halving.",
        ),
    ] = False,
    model: options.Model = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Compare plans with standard samplers and caching methods on one network."""
    from asymflow.cli import bench
    from asymflow.generation import resolve

    bench.baselines(
        data,
        out,
        None if size is None else resolve.size_of(size),
        pictures=pictures,
        profile=profile,
        quick=quick,
        ref=model,
        dtype=resolve.dtype(dtype),
        device=device,
        as_json=json,
    )


@app.command()
def ideas(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=r"JSON file to write. [dim]\[default: the one of the shipped weights][/]",
        ),
    ] = None,
    candidates: Annotated[
        int, typer.Option(metavar="N", min=2, help="Everyday things to try.")
    ] = 300,
    seeds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Pictures of each; all of them have to do.")
    ] = 2,
    count: Annotated[int, typer.Option(metavar="N", min=1, help="Ideas to keep, at most.")] = 24,
    model: options.Model = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Choose the prompts that the embedded model draws well, which the studio offers as ideas."""
    from asymflow.cli import bench_ideas

    bench_ideas.ideas(
        output,
        candidates=candidates,
        seeds=seeds,
        count=count,
        ref=model,
        dtype=dtype,
        device=device,
        as_json=json,
    )


@app.command()
def strip(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help=_PROMPT, show_default=False)
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="PNG file.")
    ] = Path("strip.png"),
    style: options.Style = None,
    label: options.Label = None,
    size: options.Size = None,
    seed: options.Seed = None,
    plan: options.Plan = None,
    model: options.Model = None,
    device: options.Device = None,
) -> None:
    """Plot the timeline of a plan: the estimate before every step and the cost of the step."""
    from asymflow.cli import bench

    bench.strip(
        _one_picture(prompt, label, style, size, seed, plan, model, device),
        output,
    )


@app.command("plan")
def plan_report(
    plan: Annotated[
        str | None,
        typer.Argument(
            metavar="PLAN",
            help="Name or file of a plan."
            r" [dim]\[default: balanced, or default where none is measured][/]",
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help=_PROMPT)] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="HTML or PNG file.")
    ] = Path("plan.html"),
    against: Annotated[
        str | None, typer.Option(metavar="PLAN", help="Plan to compare with.")
    ] = None,
    style: options.Style = None,
    label: options.Label = None,
    size: options.Size = None,
    seed: options.Seed = None,
    model: options.Model = None,
    device: options.Device = None,
) -> None:
    """Report on a plan in one page: its steps, their cost, and its evidence."""
    from asymflow.cli import bench

    bench.plan(
        _one_picture(prompt, label, style, size, seed, plan, model, device),
        against,
        output,
    )


@app.command()
def speed(
    quick: Annotated[
        bool,
        typer.Option("--quick", metavar="", help="Use few repeats: faster, with wide intervals."),
    ] = False,
    model: options.Model = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Measure step time against the machine's peak matrix-multiply throughput."""
    from asymflow.cli import bench

    bench.speed(quick=quick, ref=model, device=device, as_json=json)


def _one_picture(
    prompt: str | None,
    label: str | None,
    style: str | None,
    size: str | None,
    seed: int | None,
    plan: str | None,
    model: str | None,
    device: str | None,
) -> GenerateOptions:
    from asymflow.generation import resolve

    return resolve.GenerateOptions(
        prompt=prompt,
        label=label,
        style=style,
        size=size,
        seed=seed or 0,
        plan=plan,
        model=model,
        device=device,
    )
