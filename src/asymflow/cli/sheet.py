"""`asymflow sheet`: prompts in every style, as one contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from asymflow.cli import summary
from asymflow.cli.outputs import Target
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.cli.screen import screen
from asymflow.generation import metadata, pipeline, sheets
from asymflow.generation.pipeline import GeneratedImage, Job
from asymflow.generation.spec import GenerationSpec
from asymflow.io import images
from asymflow.io.files import replacing

_SIDE = 128
"""Minimum side of a picture on the sheet, in pixels; smaller ones are scaled by an integer."""
_LABEL = 40


def sheet(
    wanted: Sequence[GenerationSpec], target: Target, *, as_json: bool, preview: bool
) -> None:
    """Write one contact sheet: a row per prompt and seed, a column per style.

    Raises:
        InputError: the model does not support the request, or the target cannot be written.
        FileFormatError: the weights cannot be used.
    """
    first = wanted[0]
    name = f"sheet {first.prompt}"
    target.check(name, first.seed)
    model = pipeline.load(first.weights, dtype=first.dtype, device=first.device)
    styles = model.adapter.styles
    jobs: list[Job] = []
    for one in wanted:
        notes = (
            print_note if one is first and style == styles[0] else pipeline.no_note
            for style in styles
        )
        columns = [
            pipeline.jobs(model, replace(one, style=style), note=note)
            for style, note in zip(styles, notes, strict=True)
        ]
        jobs += [job for row in zip(*columns, strict=True) for job in row]
    with screen(pipeline.steps(jobs), preview=preview) as advance:
        made = list(pipeline.make(model, jobs, advance))
    rows = [made[i : i + len(styles)] for i in range(0, len(made), len(styles))]
    image = sheets.sheet(
        [[each.picture for each in row] for row in rows],
        row_labels=[_label(row[0], several=first.count > 1) for row in rows],
        col_labels=styles,
        scale=max(1, _SIDE // max(jobs[0].record.size)),
    )
    path = target.path(0, name, first.seed)
    notes = metadata.sheet_notes([job.record for job in jobs])
    with replacing(path) as file:
        images.save(file, image, format=target.format, notes=notes)
    seconds = sum(each.seconds for each in made)
    if as_json:
        data = summary.as_json(model, jobs, [path], seconds)
        del data["prompt"], data["style"]
        print_json(data | {"prompts": [one.prompt for one in wanted], "styles": list(styles)})
        return
    print_result(str(path))
    print_note(summary.sentence(jobs, seconds))


def _label(made: GeneratedImage, *, several: bool) -> str:
    record = made.job.record
    prompt = record.prompt if len(record.prompt) <= _LABEL else record.prompt[: _LABEL - 1] + "…"
    return f"{prompt}, seed {record.seed}" if several else prompt
