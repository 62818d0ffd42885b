"""Command declarations; implementations are imported lazily.

So `asymflow --help` needs neither torch nor numpy, and wrong options are refused at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asymflow._version import __version__
from asymflow.cli import options, report
from asymflow.core import presets
from asymflow.core.errors import AsymflowError

if TYPE_CHECKING:
    from asymflow.generation import pipeline

app = typer.Typer(
    help="Draw pictures from words, with compute spent on the steps that matter.",
    epilog='Start with [cyan]asymflow generate "a fox"[/] or [cyan]asymflow sheet "a fox"[/].',
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="The pictures that the model learns from.")
bench_app = typer.Typer(help="Measure the model and the machine.")
gallery_app = typer.Typer(help="Check, import and back up the pictures of a studio.")

DATA = Path("data/emoji")
"""Where a dataset is built, and looked for."""

PROFILE = Path("profile.safetensors")
"""Where a profile is written, and looked for."""

DataFolder = Annotated[
    Path, typer.Option(metavar="DIR", help="Dataset, from [cyan]asymflow data build[/].")
]
Port = Annotated[
    int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
]
Host = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS", help="Address to bind to. Anything but localhost requires a token."
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder for pictures and jobs; in your home folder by default."
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", metavar="NAME", help="Host name to accept in requests (repeatable)."
    ),
]
KeepFree = Annotated[
    int,
    typer.Option(
        "--keep-free", metavar="MB", min=0, help="Disk space to leave free; drawing stops before."
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="File with the token; or set ASYMFLOW_TOKEN."
    ),
]
Drain = Annotated[
    int | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        max=3600,
        help="After a signal, finish pictures and calls for up to this long; 6 by default.",
    ),
]
Notice = Annotated[
    int | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        max=3600,
        help="After a signal, /ready answers 503 this long before the listener closes; "
        "2 by default, and 0 on loopback.",
    ),
]


def main() -> None:
    """The entry point of the command `asymflow`."""
    # PyTorch's threads wait for each other in a loop. On a machine with other work that loop burns
    # the very time the others need: give up sooner. Read once, when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its profiler, which counts memory, is chatty
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code: 0, 2 for wrong input, 130 for Ctrl-C."""
    try:
        typed = list(arguments) or ["--help"]
        code: object = app(typed, prog_name="asymflow", standalone_mode=False)
    except AsymflowError as error:
        report.complain(str(error))
        return 2
    except typer.TyperException as error:
        report.complain(f"{error.format_message()} See {_help(error)}.")
        return 2
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        report.complain(f"{error.strerror}: {error.filename or 'a file'}.")
        return 2
    return code if isinstance(code, int) else 0


def _help(error: typer.TyperException) -> str:
    context: object = getattr(error, "ctx", None)
    command = context.command_path if isinstance(context, typer.Context) else "asymflow"
    return f"{command} --help"


def _version(asked: bool) -> None:
    if asked:
        report.say(f"asymflow {__version__}")
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
        typer.Argument(metavar="PROMPT", help="What to draw; [cyan]-[/] reads it from stdin."),
    ] = None,
    style: options.Style = None,
    size: options.Size = None,
    count: options.Count = 1,
    seed: options.Seed = None,
    negative: options.Negative = None,
    transparent: options.Transparent = False,
    background: options.Background = None,
    image: options.Image = None,
    strength: options.Strength = None,
    mask: options.Mask = None,
    reference: options.Reference = None,
    like: options.Like = None,
    steps: options.Steps = None,
    solver: options.Solver = None,
    guidance: options.Guidance = None,
    guidance_interval: options.GuidanceInterval = None,
    plan: options.Plan = None,
    exact: options.Exact = False,
    weights: options.Weights = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    output: options.Output = None,
    format: options.Format = None,
    json: options.Json = False,
    no_preview: options.NoPreview = False,
) -> None:
    """Draw a prompt.

    Every file records how it was made: pass it to --like to make the same picture again.
    """
    from asymflow.cli import outputs, resolve

    target = outputs.target(output, format)
    wanted = resolve.spec(
        resolve.GenerateOptions(
            prompt=prompt,
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
            steps=steps,
            solver=solver,
            guidance=guidance,
            guidance_interval=guidance_interval,
            plan=plan,
            exact=exact,
            weights=weights,
            dtype=dtype,
            device=device,
        ),
        target.format,
    )
    from asymflow.cli import generate

    generate.generate(wanted, target, as_json=json, preview=not no_preview)


@app.command(rich_help_panel="Draw")
def sheet(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT", help="What to draw, a row for each.")
    ],
    size: options.Size = None,
    count: options.Count = 1,
    seed: options.Seed = None,
    negative: options.Negative = None,
    steps: options.Steps = None,
    solver: options.Solver = None,
    guidance: options.Guidance = None,
    guidance_interval: options.GuidanceInterval = None,
    plan: options.Plan = None,
    weights: options.Weights = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    output: options.Output = None,
    format: options.Format = None,
    json: options.Json = False,
    no_preview: options.NoPreview = False,
) -> None:
    """Draw prompts in every style, on one sheet."""
    from asymflow.cli import outputs, resolve
    from asymflow.generation.spec import random_seed

    target = outputs.target(output, format)
    asked = resolve.GenerateOptions(
        size=size,
        count=count,
        seed=random_seed() if seed is None else seed,
        negative=negative,
        steps=steps,
        solver=solver,
        guidance=guidance,
        guidance_interval=guidance_interval,
        plan=plan,
        weights=weights,
        dtype=dtype,
        device=device,
    )
    wanted = resolve.specs(asked, prompts, target.format)
    from asymflow.cli import sheet

    sheet.sheet(wanted, target, as_json=json, preview=not no_preview)


@app.command(rich_help_panel="Draw")
def styles(json: options.Json = False) -> None:
    """List the styles and where they come from."""
    from asymflow.cli import styles

    styles.styles(as_json=json)


@app.command(rich_help_panel="Draw")
def studio(
    port: Port = 7860,
    host: Host = "127.0.0.1",
    data: DataDir = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", metavar="", help="Do not open a browser.")
    ] = False,
    allow_host: AllowHost = None,
    token_file: TokenFile = None,
    weights: options.Weights = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    keep_free: KeepFree = 200,
) -> None:
    """Draw in the browser, with a gallery. Needs the extra [cyan]studio[/]."""
    from asymflow.cli import studio

    studio.serve(
        host=host,
        port=port,
        data=data,
        hosts=allow_host or [],
        token_file=token_file,
        drain=None,
        notice=None,
        weights=weights,
        dtype=dtype,
        device=device,
        keep_free=keep_free,
        studio=True,
        browser=not no_browser,
    )


@app.command(rich_help_panel="Draw")
def serve(
    port: Port = 8000,
    host: Host = "127.0.0.1",
    data: DataDir = None,
    allow_host: AllowHost = None,
    token_file: TokenFile = None,
    drain: Drain = None,
    notice: Notice = None,
    weights: options.Weights = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    keep_free: KeepFree = 200,
) -> None:
    """Start the HTTP server: native API and an OpenAI-compatible one.

    Needs the extra [cyan]studio[/].
    """
    from asymflow.cli import studio

    studio.serve(
        host=host,
        port=port,
        data=data,
        hosts=allow_host or [],
        token_file=token_file,
        drain=drain,
        notice=notice,
        weights=weights,
        dtype=dtype,
        device=device,
        keep_free=keep_free,
        studio=False,
        browser=False,
    )


@gallery_app.command("check")
def check_gallery(data: DataDir = None, json: options.Json = False) -> None:
    """Compare the database with the files; exit code 1 if something is wrong."""
    from asymflow.cli import gallery

    if not gallery.check(data, json=json):
        raise typer.Exit(1)


@gallery_app.command("import")
def import_gallery(data: DataDir = None, json: options.Json = False) -> None:
    """Import pictures that the database does not list, from the records in their files."""
    from asymflow.cli import gallery

    if not gallery.take_in(data, json=json):
        raise typer.Exit(1)


@gallery_app.command("backup")
def backup_gallery(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Where the copy goes.")],
    data: DataDir = None,
    json: options.Json = False,
) -> None:
    """Copy everything, also while a studio runs; repeated copies are incremental."""
    from asymflow.cli import gallery

    gallery.back_up(data, target, json=json)


@app.command(rich_help_panel="Check")
def doctor(weights: options.Weights = None, json: options.Json = False) -> None:
    """Check this machine, the installation and the model file."""
    from asymflow.cli import doctor

    if not doctor.doctor(weights, as_json=json):
        raise typer.Exit(1)


@app.command(rich_help_panel="Plan")
def profile(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the profile goes.")
    ] = PROFILE,
    size: options.Size = None,
    guidance: options.Guidance = None,
    pictures: Annotated[
        int, typer.Option(metavar="N", min=1, max=32, help="Calibration pictures.")
    ] = 8,
    candidates: Annotated[
        int, typer.Option(metavar="N", min=2, max=64, help="Steps of the reference plan.")
    ] = 32,
    costs_only: Annotated[
        bool,
        typer.Option(
            "--costs-only", metavar="", help="Measure the costs of the profile again, here and now."
        ),
    ] = False,
    weights: options.Weights = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Measure the cost and the error of every step of the model.

    A profile that is interrupted goes on where it stopped when it is asked for again.
    """
    from asymflow.cli import planning, resolve
    from asymflow.generation import pipeline
    from asymflow.generation.spec import guidance_of

    planning.profile(
        pipeline.load(weights, dtype=resolve.dtype(dtype), device=device),
        None if size is None else resolve.size_of(size),
        guidance_of(presets.GUIDANCE if guidance is None else guidance),
        count=pictures,
        candidates=candidates,
        output=output,
        costs_only=costs_only,
        as_json=json,
    )


@app.command(rich_help_panel="Plan")
def plan(
    path: Annotated[
        Path, typer.Argument(metavar="PROFILE", help="From [cyan]asymflow profile[/].")
    ] = PROFILE,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="X|Nx",
            help="Largest cost per picture; 10x: a tenth of 50 Heun steps.",
        ),
    ] = None,
    error: Annotated[
        float | None,
        typer.Option(metavar="E", help="Instead of a budget: the largest predicted RMSE."),
    ] = None,
    cost: Annotated[str, typer.Option(metavar="UNIT", help="ms, macs or forwards.")] = "ms",
    max_bytes: Annotated[
        int | None,
        typer.Option(metavar="N", help="Use only tiers that need at most this much memory."),
    ] = None,
    name: Annotated[str, typer.Option(metavar="TEXT", help="The name of the plan.")] = "planned",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Save the plan there.")
    ] = None,
    front: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Plot cost against error of the best plans, as a PNG."),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", metavar="", help="Improve and measure the plan by real rollouts."),
    ] = False,
    rollouts: Annotated[
        int, typer.Option(metavar="N", min=0, help="Changes to try while verifying.")
    ] = 60,
    pictures: Annotated[
        int, typer.Option(metavar="N", min=2, help="Fresh pictures to measure the plan on.")
    ] = 32,
    weights: options.Weights = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Find the cheapest plan that keeps the picture; without a limit, list the best plans."""
    from asymflow.cli import planning, resolve

    def load() -> pipeline.Model:
        from asymflow.generation import pipeline

        return pipeline.load(weights, dtype=resolve.dtype(dtype), device=device)

    planning.plan(
        path,
        budget=budget,
        error=error,
        cost=resolve.cost_of(cost),
        max_bytes=max_bytes,
        name=name,
        output=output,
        front=front,
        load=load if verify else None,
        rollouts=rollouts,
        pictures=pictures,
        as_json=json,
    )


@app.command(rich_help_panel="Make a model")
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="v2, gpu, cpu, laptop or smoke.")],
    data: DataFolder = DATA,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Checkpoints, log and samples; runs/RECIPE by default."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda, ...; a GPU where there is one.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from the weights of this model file."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="N", help="Train for this long instead of the time in the recipe."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N", help="Seed of the order of pictures; use another for each --start."
        ),
    ] = 0,
    blend: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Share of the trained weights; the rest comes from --start."
        ),
    ] = 1.0,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Copy the finished model there."),
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
        seed=seed,
        blend=blend,
        export=export,
    )


@data_app.command("pack")
def pack_data(
    data: DataFolder = DATA,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where the packed dataset goes.")
    ] = Path("data.zip"),
) -> None:
    """Pack the dataset into one file, for a machine that cannot build it."""
    from asymflow.training.data import packing

    packing.pack(data, out)
    report.say(f"{out}, {out.stat().st_size / 1e6:.1f} MB")


@data_app.command("library")
def build_library(
    data: DataFolder = DATA,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the library goes.")] = Path(
        "library.zip"
    ),
) -> None:
    """Collect the reference drawings of the model in one file."""
    from asymflow.training.data import library
    from asymflow.training.data.dataset import Dataset

    count = library.build(Dataset(data), out)
    report.say(f"{out}, {count} drawings, {out.stat().st_size / 1e6:.1f} MB")


@data_app.command()
def build(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the dataset goes.")] = DATA,
    styles: Annotated[
        list[str] | None,
        typer.Option("--style", metavar="NAME", help="Only this style; may be repeated."),
    ] = None,
    skin_tones: Annotated[
        bool,
        typer.Option("--skin-tones", metavar="", help="Skin tones too: twice the pictures."),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes; one per core by default.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where downloads are kept.")
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
    report.say(str(made))


@bench_app.command()
def quality(
    data: DataFolder = DATA,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write quality.json and contact sheets there."),
    ] = None,
    size: Annotated[int, typer.Option(metavar="N", help="32, 64 or 128.")] = 64,
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="Few pictures: minutes, and wide intervals.")
    ] = False,
    plan: options.Plan = None,
    weights: options.Weights = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Measure the quality of pictures against real ones, with intervals."""
    from asymflow.cli import bench, resolve

    bench.quality(
        data,
        out,
        size,
        quick=quick,
        asked=resolve.GenerateOptions(plan=plan),
        weights=weights,
        dtype=resolve.dtype(dtype),
        device=device,
        as_json=json,
    )


@bench_app.command()
def peers(
    data: DataFolder = DATA,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write peers.json, a plot and a sheet there."),
    ] = None,
    size: Annotated[int, typer.Option(metavar="N", help="32, 64 or 128.")] = 64,
    pairs: Annotated[
        int | None,
        typer.Option(metavar="N", min=24, help="Pictures per sampler: 192, or 32 where quick."),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Profile of the model; GITS needs its grid from one."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="Baselines at 5, 6 and 8 steps only.")
    ] = False,
    weights: options.Weights = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Compare plans with standard samplers and caching methods on one network."""
    from asymflow.cli import bench, resolve

    bench.peers(
        data,
        out,
        size,
        pairs=pairs,
        profile=profile,
        quick=quick,
        weights=weights,
        dtype=resolve.dtype(dtype),
        device=device,
        as_json=json,
    )


@bench_app.command()
def strip(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw.")] = "a red apple",
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="A PNG.")] = Path(
        "strip.png"
    ),
    style: options.Style = None,
    size: options.Size = None,
    seed: options.Seed = None,
    plan: options.Plan = None,
    weights: options.Weights = None,
    device: options.Device = None,
) -> None:
    """Show a plan at work: the estimate before every step, and what the step costs."""
    from asymflow.cli import bench, resolve

    bench.strip(
        resolve.GenerateOptions(
            prompt=prompt,
            style=style,
            size=size,
            seed=seed or 0,
            plan=plan,
            weights=weights,
            device=device,
        ),
        output,
    )


@bench_app.command("plan")
def account(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="A plan by its name, or a file.")
    ] = "balanced",
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What to draw.")] = "a red apple",
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="An HTML page, or a PNG.")
    ] = Path("plan.html"),
    against: Annotated[
        str | None, typer.Option(metavar="PLAN", help="Another plan to compare with.")
    ] = None,
    style: options.Style = None,
    size: options.Size = None,
    seed: options.Seed = None,
    weights: options.Weights = None,
    device: options.Device = None,
) -> None:
    """Explain a plan on one page: its steps at work, their cost, and what was measured of it."""
    from asymflow.cli import bench, resolve

    bench.plan(
        resolve.GenerateOptions(
            prompt=prompt,
            style=style,
            size=size,
            seed=seed or 0,
            plan=plan,
            weights=weights,
            device=device,
        ),
        against,
        output,
    )


@bench_app.command()
def speed(
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="Few repeats: seconds, and wide intervals.")
    ] = False,
    weights: options.Weights = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Measure step time against the machine's peak matrix-multiply throughput."""
    from asymflow.cli import bench

    bench.speed(quick=quick, weights=weights, device=device, as_json=json)


app.add_typer(data_app, name="data", rich_help_panel="Make a model")
app.add_typer(gallery_app, name="gallery", rich_help_panel="Draw")
app.add_typer(bench_app, name="bench", rich_help_panel="Check")
