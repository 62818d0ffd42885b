"""Options that several commands share, with the words of their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asymflow.core import presets

_WHAT = "What to draw"
_FROM = "From a picture"
_HOW = "How to compute it"
_WHERE = "Where it goes"

_GRID = presets.DEFAULT
_LOW, _HIGH = _GRID.guidance_interval


def _default(value: object) -> str:
    """Added to a help text, in the form that typer shows its own defaults in."""
    return rf" [dim]\[default: {value}][/]"


Negative = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What the picture should not show.", rich_help_panel=_WHAT),
]
Style = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A style, see [cyan]asymflow styles[/]." + _default("the prompt decides"),
        rich_help_panel=_WHAT,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="N|WxH",
        help="Size in pixels; sides from 32 to 128 look best." + _default(64),
        rich_help_panel=_WHAT,
    ),
]
Count = Annotated[
    int,
    typer.Option(
        "--count", "-n", metavar="N", help="How many, each with the next seed." + _default(1),
        show_default=False, rich_help_panel=_WHAT,
    ),
]  # fmt: skip
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The same seed and settings make the same picture." + _default("random"),
        rich_help_panel=_WHAT,
    ),
]
Transparent = Annotated[
    bool,
    typer.Option(
        "--transparent",
        metavar="",
        help="Keep transparency (default for all formats except JPEG).",
        rich_help_panel=_WHAT,
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        metavar="COLOUR",
        help="An opaque background: a CSS colour name or #rrggbb.",
        rich_help_panel=_WHAT,
    ),
]

Reference = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|none",
        help="A picture of what to draw, for models conditioned on references."
        + _default("what their library has"),
        rich_help_panel=_FROM,
    ),
]
Image = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A picture to start from.", rich_help_panel=_FROM),
]
Strength = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        help="How much of it to change."
        + _default(f"{presets.IMAGE_STRENGTH:g}, with a mask {presets.MASK_STRENGTH:g}"),
        rich_help_panel=_FROM,
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Repaint only where this picture is white; grey blends.",
        rich_help_panel=_FROM,
    ),
]
Like = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Replay this picture of asymflow; other options change it.",
        rich_help_panel=_FROM,
    ),
]

Steps = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Instead of a plan: number of steps of a plain grid." + _default(_GRID.steps),
        rich_help_panel=_HOW,
    ),
]
Solver = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="euler, heun, multistep1, multistep2, multistep3, damped2 or corrected2."
        + _default(_GRID.solver),
        rich_help_panel=_HOW,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        metavar="W",
        help="Guidance scale (CFG): how closely to follow the prompt; 1 is none."
        + _default(f"{presets.GUIDANCE:g}"),
        rich_help_panel=_HOW,
    ),
]
GuidanceInterval = Annotated[
    str | None,
    typer.Option(
        metavar="LO:HI",
        help="Apply guidance only where t is between these." + _default(f"{_LOW:g}:{_HIGH:g}"),
        rich_help_panel=_HOW,
    ),
]
Plan = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="draft, fast, balanced, best, default (a plain grid), or a file."
        + _default("balanced"),
        rich_help_panel=_HOW,
    ),
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        metavar="",
        help="Run every step; disable adaptive skipping.",
        rich_help_panel=_HOW,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A model file." + _default("the built-in one"), rich_help_panel=_HOW
    ),
]
_NUMBERS = "float32 or bfloat16."
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=_NUMBERS + _default("bfloat16 where the machine is made for it"),
        rich_help_panel=_HOW,
    ),
]
ExactDtype = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=_NUMBERS + _default("float32"), rich_help_panel=_HOW),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="cpu, cuda, mps (untested), ..." + _default("a CUDA GPU where there is one"),
        rich_help_panel=_HOW,
    ),
]

Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="PATH",
        help="A file, which is overwritten, or a folder/." + _default("a new file here"),
        rich_help_panel=_WHERE,
    ),
]  # fmt: skip
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="png, webp or jpeg." + _default("png"), rich_help_panel=_WHERE
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", metavar="", help="Print one JSON object instead of text.", rich_help_panel=_WHERE
    ),
]
NoPreview = Annotated[
    bool,
    typer.Option(
        "--no-preview",
        metavar="",
        help="Do not show the picture in the terminal as it forms.",
        rich_help_panel=_WHERE,
    ),
]
