"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asymflow.core import presets

_WHAT = "Content"
_FROM = "Input pictures"
_HOW = "Sampling"
_WHERE = "Output"

_GRID = presets.DEFAULT
_LOW, _HIGH = _GRID.guidance_interval


def default(value: object) -> str:
    """A default for a help text, formatted as typer formats its own."""
    return rf" [dim]\[default: {value}][/]"


Negative = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Negative prompt: what to steer away from.", rich_help_panel=_WHAT
    ),
]
Style = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A style, see [cyan]asymflow styles[/]." + default("the prompt decides"),
        rich_help_panel=_WHAT,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="NAME|N",
        help="Class by name or number, for models of classes.",
        rich_help_panel=_WHAT,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="N|WxH",
        help="Size in pixels." + default("the model's own, embedded: 64"),
        rich_help_panel=_WHAT,
    ),
]
Count = Annotated[
    int,
    typer.Option(
        "--count", "-n", metavar="N",
        help="Number of pictures; each uses the next seed." + default(1),
        show_default=False, rich_help_panel=_WHAT,
    ),
]  # fmt: skip
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Seed; the same seed and settings give the same picture." + default("random"),
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
        help="Opaque background: a CSS colour name or #rrggbb.",
        rich_help_panel=_WHAT,
    ),
]

Reference = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|none",
        help="Reference drawing of the subject, for models conditioned on references."
        + default("from the library"),
        rich_help_panel=_FROM,
    ),
]
Image = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Picture to start from (image to image).", rich_help_panel=_FROM
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        help="Denoising strength: how much of the picture to change."
        + default(f"{presets.IMAGE_STRENGTH:g}, with a mask {presets.MASK_STRENGTH:g}"),
        rich_help_panel=_FROM,
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Inpaint where this picture is white; grey blends.",
        rich_help_panel=_FROM,
    ),
]
Small = Annotated[
    bool,
    typer.Option(
        "--small",
        metavar="",
        help="With a mask: write the model's own picture, not the original with the painted part.",
        rich_help_panel=_FROM,
    ),
]
Like = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Replay a picture of asymflow; other options override its settings.",
        rich_help_panel=_FROM,
    ),
]

Steps = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of steps of a plain grid, instead of a plan." + default(_GRID.steps),
        rich_help_panel=_HOW,
    ),
]
Solver = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="euler, heun, multistep1, multistep2, multistep3, damped2 or corrected2."
        + default(_GRID.solver),
        rich_help_panel=_HOW,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        metavar="W",
        help="Guidance scale (CFG); 1 disables guidance."
        + default(f"the model's own, embedded: {presets.GUIDANCE:g}"),
        rich_help_panel=_HOW,
    ),
]
GuidanceInterval = Annotated[
    str | None,
    typer.Option(
        metavar="LO:HI",
        help="Apply guidance only for t in this interval." + default(f"{_LOW:g}:{_HIGH:g}"),
        rich_help_panel=_HOW,
    ),
]
Plan = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="draft, fast, balanced, best, default (a plain grid), or a file."
        + default("balanced, or default where none is measured"),
        rich_help_panel=_HOW,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "--weights", "-m", metavar="REF",
        help="A file, a folder, owner/name on a hub, or a package's model; see "
        "[cyan]asymflow models[/]." + default("embedded"),
        rich_help_panel=_HOW,
    ),
]  # fmt: skip
_DTYPES = "float32, bfloat16 or float16."
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=_DTYPES + default("bfloat16 where the hardware supports it natively"),
        rich_help_panel=_HOW,
    ),
]
ExactDtype = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=_DTYPES + default("float32"), rich_help_panel=_HOW),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="cpu, cuda, mps (untested), ..." + default("cuda if available, otherwise cpu"),
        rich_help_panel=_HOW,
    ),
]

Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="PATH",
        help="File (overwritten if it exists), or folder/."
        + default("a new file in the current folder"),
        rich_help_panel=_WHERE,
    ),
]  # fmt: skip
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="png, webp, jpeg, or svg for flat drawings." + default("png"),
        rich_help_panel=_WHERE,
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
        help="Show no preview in the terminal.",
        rich_help_panel=_WHERE,
    ),
]

DATASET = Path("data/emoji")
"""Default folder of the dataset."""
DatasetFolder = Annotated[
    Path, typer.Option(metavar="DIR", help="Dataset, from [cyan]asymflow data build[/].")
]
StudioFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder for pictures and jobs; in your home folder by default."
    ),
]
