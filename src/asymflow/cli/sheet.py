"""`asymflow sheet`: prompts in every style, or every class, as one contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from asymflow.cli import summary
from asymflow.cli.outputs import Target
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.cli.screen import screen
from asymflow.core.errors import InputError
from asymflow.generation import metadata, pipeline, sheets, styles
from asymflow.generation.pipeline import GeneratedImage, Job, Model
from asymflow.generation.spec import GenerationSpec
from asymflow.io import images
from asymflow.io.files import replacing

_SIDE = 128
"""Minimum side of a picture on the sheet, in pixels; smaller ones are scaled by an integer."""
_LABEL = 40
_WIDTH, _CLASSES = 8, 48
"""Classes in a row, and on a sheet."""


def sheet(
    wanted: Sequence[GenerationSpec], target: Target, *, as_json: bool, preview: bool
) -> None:
    """Write one contact sheet: a row per prompt and seed, a column per style; or classes in rows.

    Raises:
        InputError: the model does not support the request, or the target cannot be written.
        FileFormatError: the weights cannot be used.
    """
    first = wanted[0]
    name = f"sheet {first.prompt}"
    target.check(name, first.seed)
    model = pipeline.load(first.model, dtype=first.dtype, device=first.device)
    columns = _columns(model, first)
    jobs: list[Job] = []
    for one in wanted:
        notes = (
            print_note if one is first and number == 0 else pipeline.no_note
            for number in range(len(columns))
        )
        made = [
            pipeline.jobs(model, replace(one, **changes), note=note)
            for changes, note in zip(columns.values(), notes, strict=True)
        ]
        jobs += [job for row in zip(*made, strict=True) for job in row]
    with screen(pipeline.steps(jobs), preview=preview) as advance:
        done = list(pipeline.make(model, jobs, advance))
    # Classes fill several rows.
    several = first.count > 1
    width = len(columns) if model.card.asks == "prompt" else min(_WIDTH, len(columns))
    rows = [
        row[i : i + width]
        for begin in range(0, len(done), len(columns))
        for row in [done[begin : begin + len(columns)]]
        for i in range(0, len(row), width)
    ]
    classes = model.card.asks == "class"
    image = sheets.sheet(
        [[each.picture for each in row] for row in rows],
        row_labels=[]
        if not several and classes
        else [_label(row[0], several=several, classes=classes) for row in rows],
        col_labels=[] if classes else list(columns),
        captions=[[each.job.record.prompt for each in row] for row in rows] if classes else (),
        scale=max(1, _SIDE // max(jobs[0].record.size)),
    )
    path = target.path(0, name, first.seed)
    notes = metadata.sheet_notes([job.record for job in jobs])
    with replacing(path) as file:
        images.save(file, image, format=target.pixels, notes=notes)
    seconds = sum(each.seconds for each in done)
    if as_json:
        data = summary.as_json(model, jobs, [path], seconds)
        del data["prompt"], data["style"]
        kind = "classes" if classes else "styles"
        print_json(data | {"prompts": [one.prompt for one in wanted], kind: list(columns)})
        return
    print_result(str(path))
    print_note(summary.sentence(jobs, seconds))


def _columns(model: Model, first: GenerationSpec) -> dict[str, dict[str, str]]:
    """What differs between the columns of a row, by their labels."""
    card = model.card
    if card.asks == "class":
        if len(card.classes) > _CLASSES:
            print_note(f"The sheet shows {_CLASSES} of {len(card.classes)} classes.")
        places = spread(min(_CLASSES, len(card.classes)), len(card.classes))
        return {card.classes[place]: {"label": str(place)} for place in places}
    found = {each.id: {"style": each.id} for each in styles.styles_of(card)}
    if not found:
        raise InputError(
            f"{card.title} knows neither styles nor classes, so there is nothing to compare on a "
            "sheet. Make several pictures instead: asymflow generate -n 8."
        )
    return found


def spread(count: int, total: int) -> list[int]:
    """So many of `total` numbers, evenly spaced."""
    return [i * total // count for i in range(count)]


def _label(made: GeneratedImage, *, several: bool, classes: bool) -> str:
    record = made.job.record
    if classes:
        return f"seed {record.seed}"
    prompt = record.prompt if len(record.prompt) <= _LABEL else record.prompt[: _LABEL - 1] + "…"
    return f"{prompt}, seed {record.seed}" if several else prompt
