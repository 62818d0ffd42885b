"""`asymflow profile` and `asymflow plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asymflow.cli import options
from asymflow.core import presets

if TYPE_CHECKING:
    from asymflow.generation import pipeline

PROFILE = Path("profile.safetensors")
"""Default file of a profile."""


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
    weights: options.Weights = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Measure the cost and the error of every step of the model.

    Run the same command again to resume after an interruption.
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
    weights: options.Weights = None,
    dtype: options.ExactDtype = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Find the best plan within a budget or an error; without either, list the Pareto front."""
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
