"""Summary of generated pictures, as JSON and as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asymflow.generation import pipeline
from asymflow.generation.metadata import Reference
from asymflow.generation.pipeline import Job, Model
from asymflow.planning import plan_files


def as_json(
    model: Model, jobs: Sequence[Job], files: Sequence[Path], seconds: float
) -> dict[str, Any]:
    """Summarise pictures that differ in the seed only; numbers are per picture."""
    record = jobs[0].record
    return {
        "files": [str(path) for path in files],
        "prompt": record.prompt,
        "style": record.style,
        "class": record.label,
        "size": f"{record.size[1]}x{record.size[0]}",
        "seeds": [job.record.seed for job in jobs],
        "seconds": round(seconds, 4),
        "load_seconds": round(model.seconds, 4),
        "forwards": pipeline.forwards(jobs[0]),
        "plan": {
            "name": record.plan.name,
            "steps": len(record.plan.steps),
            "hash": plan_files.plan_hash(record.plan),
        },
        "model": record.model,
        "settings": {
            "negative": record.negative,
            "guidance": record.guidance,
            "strength": record.strength,
            "background": record.background,
            "image": record.image and record.image.path,
            "mask": record.mask and record.mask.path,
            "reference": None if record.reference is None else _reference_text(record.reference),
            "weights": record.weights,
            "dtype": record.dtype,
            "device": record.device,
            "versions": dict(record.versions),
        },
    }


def sentence(jobs: Sequence[Job], seconds: float) -> str:
    """The summary as one line of text, and one for the reference."""
    seeds = sorted({job.record.seed for job in jobs})
    named = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    height, width = jobs[0].record.size
    each = f", {seconds / len(jobs):.2f} s each" if len(jobs) > 1 else ""
    passes = pipeline.forwards(jobs[0])
    made = f"{width}x{height}, {named}, {passes} forwards, {seconds:.2f} s{each}"
    reference = jobs[0].record.reference
    return made if reference is None else f"{made}\nreference: {_reference_text(reference)}"


def _reference_text(reference: Reference) -> str:
    """The references as text: "fox, noto; fox, twemoji", the path of a file, or "none"."""
    if reference.source is not None:
        return reference.source.path
    return "; ".join(reference.shown) or "none"
