"""`asymflow generate`: pictures of one prompt, one for each seed."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from asymflow.cli import summary
from asymflow.cli.outputs import AnyFormat, Target
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.cli.screen import screen
from asymflow.core.errors import InputError
from asymflow.generation import metadata, pipeline, words
from asymflow.generation.pipeline import GeneratedImage, Job, Model
from asymflow.generation.spec import GenerationSpec, InputImage
from asymflow.io import images, restoring, tracing
from asymflow.io.files import replacing
from asymflow.io.images import Format


def generate(
    wanted: GenerationSpec, target: Target, *, as_json: bool, preview: bool, small: bool = False
) -> None:
    """Generate pictures and write each when it is finished.

    Args:
        wanted: what to generate.
        target: where to.
        as_json: print one JSON object.
        preview: show one.
        small: write inpainted pictures as the model makes them, instead of into the original.

    Raises:
        InputError: the model does not support the request, or the target cannot be written.
        FileFormatError: the weights cannot be used.
    """
    target.check(wanted.prompt, wanted.seed)
    if target.format == "svg":
        tracing.require()
        if wanted.mask is not None and not small:
            raise InputError(
                "A picture that is painted into its original has no SVG. Use --format png, or "
                "--small for the model's own picture."
            )
    model = pipeline.load(
        wanted.model, dtype=wanted.dtype, device=wanted.device, needs=wanted.needs
    )
    if target.format == "svg" and not model.card.flat:
        raise InputError(
            f"The pictures of {model.card.title} are no flat drawings, which alone can be traced "
            "to SVG. Use --format png."
        )
    jobs = pipeline.jobs(model, wanted, note=print_note)
    _say_what_is_drawn(model, wanted, jobs[0])
    seconds = 0.0
    done: list[Job] = []
    files: list[Path] = []
    with screen(pipeline.steps(jobs), preview=preview) as advance:
        for made in pipeline.make(model, jobs, advance):
            path = target.path(len(files), wanted.prompt, made.job.record.seed)
            if wanted.image is not None and wanted.mask is not None and not small:
                _write_restored(model, made, path, target.pixels, wanted.image, wanted.mask)
            else:
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


def _write_restored(
    model: Model,
    made: GeneratedImage,
    path: Path,
    format: Format,
    image: InputImage,
    mask: InputImage,
) -> None:
    """Write the original with the painted part."""
    record = made.job.record
    original = images.read_levels(image.found)
    pixels = restoring.restored(original, mask.pixels, made.picture)
    if (ground := pipeline.background(model, record)) is not None and pixels.shape[-1] == 4:
        pixels = restoring.laid_on(pixels, ground)
    notes = metadata.notes(record, in_xmp=format != "png")
    with replacing(path) as file:
        images.save(file, Image.fromarray(pixels), format=format, notes=notes)


def _write(model: Model, made: GeneratedImage, path: Path, format: AnyFormat) -> None:
    record = made.job.record
    background = pipeline.background(model, record)
    if format == "svg":
        notes = metadata.notes(record, in_xmp=True)
        data = tracing.svg(made.picture, title=record.prompt, notes=notes, background=background)
        with replacing(path) as file:
            file.write(data)
        return
    notes = metadata.notes(record, in_xmp=format != "png")
    with replacing(path) as file:
        images.write(file, made.picture, format=format, background=background, notes=notes)
