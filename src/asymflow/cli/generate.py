"""`asymflow generate`: pictures of one prompt, one for each seed."""

from __future__ import annotations

from pathlib import Path

from asymflow.cli import summary
from asymflow.cli.outputs import Target
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.cli.screen import screen
from asymflow.generation import metadata, pipeline, words
from asymflow.generation.pipeline import GeneratedImage, Job, Model
from asymflow.generation.spec import GenerationSpec
from asymflow.io import images
from asymflow.io.files import replacing
from asymflow.io.images import Format


def generate(wanted: GenerationSpec, target: Target, *, as_json: bool, preview: bool) -> None:
    """Generate pictures and write each when it is finished.

    Raises:
        InputError: the model does not support the request, or the target cannot be written.
        FileFormatError: the weights cannot be used.
    """
    target.check(wanted.prompt, wanted.seed)
    model = pipeline.load(
        wanted.model, dtype=wanted.dtype, device=wanted.device, needs=wanted.needs
    )
    jobs = pipeline.jobs(model, wanted, note=print_note)
    _say_what_is_drawn(model, wanted, jobs[0])
    seconds = 0.0
    done: list[Job] = []
    files: list[Path] = []
    with screen(pipeline.steps(jobs), preview=preview) as advance:
        for made in pipeline.make(model, jobs, advance):
            path = target.path(len(files), wanted.prompt, made.job.record.seed)
            _write(model, made, path, target.format)
            files.append(path)
            done.append(made.job)
            seconds += made.seconds
    if as_json:
        print_json(summary.as_json(model, done, files, seconds))
        return
    for path in files:
        print_result(str(path))
    print_note(summary.sentence(done, seconds))


def _say_what_is_drawn(model: Model, wanted: GenerationSpec, job: Job) -> None:
    """Note a translation, or that the model knows nothing of a prompt."""
    if job.record.drawn is not None:
        print_note(f"Drawn as: {job.record.drawn}")
    found = words.understand(model.adapter, job.record.drawn or wanted.prompt, wanted.languages)
    if (said := words.advice(model.card, found)) is not None:
        print_note(said)


def _write(model: Model, made: GeneratedImage, path: Path, format: Format) -> None:
    record = made.job.record
    background = pipeline.background(model, record)
    notes = metadata.notes(record, in_xmp=format != "png")
    with replacing(path) as file:
        images.write(file, made.picture, format=format, background=background, notes=notes)
