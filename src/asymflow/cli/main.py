"""The command `asymflow`: assembly, and the commands without a module in `cli.commands`.

Implementations are imported when a command runs, so that `asymflow --help` loads neither torch nor
numpy, and invalid options are rejected at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from asymflow._version import __version__
from asymflow.cli import options, report
from asymflow.cli.commands import bench, bulk, gallery, planning, server, token, training
from asymflow.core.errors import AsymflowError, InputError

_LONGEST = 10_000
"""Characters of a prompt that are read from stdin; more than a prompt may have."""

app = typer.Typer(
    help="Draw pictures from words, with compute spent on the steps that matter.",
    epilog='Start with [cyan]asymflow generate "a fox"[/] or [cyan]asymflow sheet "a fox"[/].',
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the command `asymflow`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code: 0, 2 for invalid input, 130 for Ctrl-C."""
    try:
        typed = list(arguments) or ["--help"]
        code: object = app(typed, prog_name="asymflow", standalone_mode=False)
    except AsymflowError as error:
        report.print_error(str(error))
        return 2
    except typer.TyperException as error:
        said = error.format_message().rstrip(".")
        report.print_error(f"{said}. See {_help(error)}.")
        return 2
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        report.print_error(f"{error.strerror}: {error.filename or 'a file'}.")
        return 2
    return code if isinstance(code, int) else 0


def _help(error: typer.TyperException) -> str:
    context: object = getattr(error, "ctx", None)
    command = context.command_path if isinstance(context, typer.Context) else "asymflow"
    return f"{command} --help"


def _version(value: bool) -> None:
    if value:
        report.print_result(f"asymflow {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    del version


@app.command(rich_help_panel="Draw")
def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="Prompt; [cyan]-[/] reads it from stdin."),
    ] = None,
    style: options.Style = None,
    label: options.Label = None,
    size: options.Size = None,
    count: options.Count = 1,
    seed: options.Seed = None,
    negative: options.Negative = None,
    transparent: options.Transparent = False,
    background: options.Background = None,
    image: options.Image = None,
    strength: options.Strength = None,
    mask: options.Mask = None,
    small: options.Small = False,
    reference: options.Reference = None,
    like: options.Like = None,
    steps: options.Steps = None,
    solver: options.Solver = None,
    guidance: options.Guidance = None,
    guidance_interval: options.GuidanceInterval = None,
    plan: options.Plan = None,
    model: options.Model = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    output: options.Output = None,
    format: options.Format = None,
    json: options.Json = False,
    no_preview: options.NoPreview = False,
) -> None:
    """Generate pictures of a prompt.

    Every file records its settings: pass it to --like to replay it.
    """
    from asymflow.cli import outputs
    from asymflow.cli.languages import languages
    from asymflow.generation import resolve

    target = outputs.target(output, format)
    wanted = resolve.spec(
        resolve.GenerateOptions(
            prompt=sys.stdin.read(_LONGEST) if prompt == "-" else prompt,
            style=style,
            size=size,
            count=count,
            seed=seed,
            negative=negative,
            transparent=transparent,
            background=background,
            image=image,
            strength=strength,
            mask=mask,
            reference=reference,
            like=like,
            label=label,
            steps=steps,
            solver=solver,
            guidance=guidance,
            guidance_interval=guidance_interval,
            plan=plan,
            model=model,
            dtype=dtype,
            device=device,
            languages=languages(),
        ),
        target.pixels,
    )
    from asymflow.cli import generate

    generate.generate(wanted, target, as_json=json, preview=not no_preview, small=small)


@app.command(rich_help_panel="Draw")
def sheet(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT", help="Prompts, one row each; none for a model of classes."
        ),
    ] = None,
    size: options.Size = None,
    count: options.Count = 1,
    seed: options.Seed = None,
    negative: options.Negative = None,
    steps: options.Steps = None,
    solver: options.Solver = None,
    guidance: options.Guidance = None,
    guidance_interval: options.GuidanceInterval = None,
    plan: options.Plan = None,
    model: options.Model = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    output: options.Output = None,
    format: options.Format = None,
    json: options.Json = False,
    no_preview: options.NoPreview = False,
) -> None:
    """Generate a contact sheet: of prompts in every style, or of every class."""
    from asymflow.cli import outputs
    from asymflow.generation import resolve
    from asymflow.generation.spec import random_seed

    target = outputs.target(output, format)
    if target.format == "svg":
        raise InputError("A sheet is no flat drawing, and has no SVG. Use --format png.")
    shared = resolve.GenerateOptions(
        size=size,
        count=count,
        seed=random_seed() if seed is None else seed,
        negative=negative,
        steps=steps,
        solver=solver,
        guidance=guidance,
        guidance_interval=guidance_interval,
        plan=plan,
        model=model,
        dtype=dtype,
        device=device,
    )
    wanted = resolve.specs(shared, prompts or [""], target.pixels)
    from asymflow.cli import sheet

    sheet.sheet(wanted, target, as_json=json, preview=not no_preview)


@app.command(rich_help_panel="Draw")
def styles(model: options.Model = None, json: options.Json = False) -> None:
    """List the styles of a model and their sources."""
    from asymflow.cli import styles

    styles.styles(model, as_json=json)


@app.command(rich_help_panel="Check")
def models(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="REF", help="Models to show in full.")
    ] = None,
    json: options.Json = False,
) -> None:
    """List the models at hand, or show what some are asked with, can make, and have plans for."""
    from asymflow.cli import models

    models.models(refs or [], as_json=json)


@app.command(rich_help_panel="Check")
def doctor(model: options.Model = None, json: options.Json = False) -> None:
    """Check this machine, the installation and the model file."""
    from asymflow.cli import doctor

    if not doctor.doctor(model, as_json=json):
        raise typer.Exit(1)


for command in (bulk.batch, server.studio, server.serve):
    app.command(rich_help_panel="Draw")(command)
app.command(rich_help_panel="Plan")(planning.profile)
app.add_typer(planning.app, name="plan", rich_help_panel="Plan")
app.command(rich_help_panel="Make a model")(training.train)
app.add_typer(training.app, name="data", rich_help_panel="Make a model")
app.add_typer(gallery.app, name="gallery", rich_help_panel="Draw")
app.add_typer(token.app, name="token", rich_help_panel="Draw")
app.add_typer(bench.app, name="bench", rich_help_panel="Check")
