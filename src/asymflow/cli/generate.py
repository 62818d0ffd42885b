"""`asymflow generate`: pictures of one prompt, one per seed."""

from __future__ import annotations

from pathlib import Path

from asymflow import generation, pictures, provenance
from asymflow.cli import summary
from asymflow.cli.outputs import Target
from asymflow.cli.report import say, say_json, tell
from asymflow.cli.screen import screen
from asymflow.files import replacing
from asymflow.generation import Job, Made
from asymflow.pictures import Format
from asymflow.wanted import Wanted


def generate(wanted: Wanted, target: Target, *, as_json: bool, preview: bool) -> None:
    """Make pictures and write each as soon as it is finished.

    Raises:
        InputError: the model cannot serve what is wanted, or the target cannot be written.
        FileFormatError: the weights cannot be used.
    """
    target.check(wanted.prompt, wanted.seed)
    model = generation.load(
        wanted.weights, dtype=wanted.dtype, device=wanted.device, needs=wanted.needs
    )
    jobs = generation.jobs(model, wanted)
    seconds = 0.0
    done: list[Job] = []
    files: list[Path] = []
    with screen(generation.steps(jobs), preview=preview) as advance:
        for made in generation.make(model, jobs, advance):
            path = target.path(len(files), wanted.prompt, made.job.record.seed)
            _write(made, path, target.format)
            files.append(path)
            done.append(made.job)
            seconds += made.seconds
    if as_json:
        say_json(summary.as_json(model, done, files, seconds))
        return
    for path in files:
        say(str(path))
    tell(summary.sentence(done, seconds))


def _write(made: Made, path: Path, format: Format) -> None:
    record = made.job.record
    background = None if record.background is None else pictures.colour(record.background)
    notes = provenance.notes(record, in_xmp=format != "png")
    with replacing(path) as file:
        pictures.write(file, made.picture, format=format, background=background, notes=notes)
