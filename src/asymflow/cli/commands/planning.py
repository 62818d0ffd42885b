"""`asymflow profile` and `asymflow plan`."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from asymflow.cli import options
from asymflow.core.errors import InputError

if TYPE_CHECKING:
    from asymflow.generation import pipeline

PROFILE = Path("profile.safetensors")
"""Default file of a profile."""


class _Plans(TyperGroup):
    """A group with a default: what is not the name of a command are the arguments of `make`.

    A word that is similar to the name of a command is not taken for a profile, unless it is a file.
    """

    default = "make"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            if args and not Path(args[0]).exists():
                close = difflib.get_close_matches(args[0], self.commands, 1)
                if close:
                    ctx.fail(
                        f"No such command '{args[0]}', and no such profile. "
                        f"Did you mean '{close[0]}'?"
                    )
            args = [self.default, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Plans,
    help="Make the plans of a model; show, export, verify and migrate plan files.",
    epilog="[cyan]asymflow plan[/] and [cyan]asymflow plan PROFILE[/] are short for "
    "[cyan]asymflow plan make[/].",
)


def profile(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Output file of the profile.")
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
            "--costs-only", metavar="", help="Only measure the costs of an existing profile again."
        ),
    ] = False,
    model: options.Model = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Measure the cost and the error of every step of the model.

    Run the same command again to resume after an interruption.
    """
    from asymflow.cli import planning
    from asymflow.generation import pipeline, resolve
    from asymflow.generation.spec import guidance_of

    planning.profile(
        pipeline.load(model, dtype=resolve.dtype(dtype), device=device),
        None if size is None else resolve.size_of(size),
        None if guidance is None else guidance_of(guidance),
        count=pictures,
        candidates=candidates,
        output=output,
        costs_only=costs_only,
        as_json=json,
    )


@app.command("make")
def plan(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PROFILE",
            help="From [cyan]asymflow profile[/]; without one, the named plans are made.",
        ),
    ] = None,
    size: options.Size = None,
    guidance: options.Guidance = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="X|Nx",
            help="Largest cost per picture; 10x: a tenth of 50 Heun steps.",
        ),
    ] = None,
    error: Annotated[
        float | None,
        typer.Option(metavar="E", help="Largest predicted RMSE, instead of a budget."),
    ] = None,
    cost: Annotated[str, typer.Option(metavar="UNIT", help="ms, macs or forwards.")] = "ms",
    max_bytes: Annotated[
        int | None,
        typer.Option(metavar="N", help="Use only tiers whose peak memory is at most N bytes."),
    ] = None,
    name: Annotated[str, typer.Option(metavar="TEXT", help="Name of the plan.")] = "planned",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Output file of the plan.")
    ] = None,
    front: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Plot the Pareto front of cost and error, as a PNG."),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", metavar="", help="Improve and measure the plan with rollouts."),
    ] = False,
    rollouts: Annotated[
        int, typer.Option(metavar="N", min=0, help="Candidates to roll out in verification.")
    ] = 60,
    pictures: Annotated[
        int, typer.Option(metavar="N", min=2, help="Held-out pictures for the final measurement.")
    ] = 32,
    effort: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="Of named plans: quick, or full, which takes several times as long.",
        ),
    ] = "quick",
    model: options.Model = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Measure a model and make its named plans: best, balanced, fast, draft.

    With a profile: find the best plan within a budget or an error, or list the Pareto front.
    """
    from asymflow.cli import named, planning
    from asymflow.generation import resolve
    from asymflow.generation.spec import guidance_of

    wanted = budget is not None or error is not None or output or front or verify
    if path is None and not wanted:
        named.make(
            model,
            None if size is None else resolve.size_of(size),
            None if guidance is None else guidance_of(guidance),
            effort=resolve.effort_of(effort),
            dtype=resolve.dtype(dtype),
            device=device,
            as_json=json,
        )
        return
    if size is not None or guidance is not None or effort != "quick":
        raise InputError(
            "A profile has its own size and guidance, and no plan is fitted to one. Leave --size, "
            "--guidance and --effort out, or leave out PROFILE, --budget and the like to make the "
            "named plans."
        )

    def load() -> pipeline.Model:
        from asymflow.generation import pipeline

        return pipeline.load(model, dtype=resolve.dtype(dtype), device=device)

    planning.plan(
        path or PROFILE,
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


@app.command()
def show(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="draft, fast, balanced, best, default, or a file.")
    ],
    size: options.Size = None,
    model: options.Model = None,
    json: options.Json = False,
) -> None:
    """Show a plan: its steps, their cost, its evidence, and the weights it was measured on."""
    from asymflow.cli import plans
    from asymflow.generation import resolve

    plans.show(plan, model, None if size is None else resolve.size_of(size), as_json=json)


@app.command()
def export(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="draft, fast, balanced, best, default, or a file.")
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="TARGET", help="comfyui, diffusers, sglang, vllm-omni or json."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Output file; by default the screen."),
    ] = None,
    shift: Annotated[
        float | None,
        typer.Option(metavar="X", help="Shift of the model in ComfyUI, for percents."),
    ] = None,
    size: options.Size = None,
    model: options.Model = None,
) -> None:
    """Write a plan as another program accepts it, and say what that cannot carry."""
    from asymflow.cli import export as exporting
    from asymflow.generation import resolve

    exporting.write(
        plan,
        model,
        None if size is None else resolve.size_of(size),
        target=to,
        shift=shift,
        output=output,
    )


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The plan.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Write the plan with this evidence there."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="N|WxH", help="Size in pixels; by default the one it was measured at, or 64."
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            metavar="W", help="Guidance scale (CFG); by default the one it was measured with, or 5."
        ),
    ] = None,
    pictures: Annotated[
        int, typer.Option(metavar="N", min=2, help="Held-out pictures to measure on.")
    ] = 32,
    distribution: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Compare the distribution with that of many steps, on so many pictures more.",
        ),
    ] = 0,
    model: options.Model = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Measure a plan on this model, with pictures that no plan is chosen by.

    With --out the plan is written with that evidence, bound to the weights of the model.

    --distribution asks another question than the distance of single pictures: does the plan draw
    as many steps do, though perhaps another picture from the same noise? It resumes.
    """
    from asymflow.cli import plans
    from asymflow.generation import pipeline, resolve
    from asymflow.generation.spec import guidance_of

    plans.verify(
        path,
        pipeline.load(model, dtype=resolve.dtype(dtype), device=device),
        None if size is None else resolve.size_of(size),
        None if guidance is None else guidance_of(guidance),
        pictures=pictures,
        compared=distribution,
        output=output,
        as_json=json,
    )


@app.command()
def migrate(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE", help="Plan files.")],
) -> None:
    """Rewrite plan files of earlier versions in place; the old files are kept beside them."""
    from asymflow.cli import plans

    plans.migrate(paths)
