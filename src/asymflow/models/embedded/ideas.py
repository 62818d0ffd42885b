"""Prompts that the shipped weights draw well: data beside them, written by `asymflow bench ideas`.

The file names the weights that its prompts were chosen for. A model of other weights has them all
the same: it was trained on the same names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from asymflow.core.errors import FileFormatError
from asymflow.io.files import write_text
from asymflow.io.json_reader import Fields, parse

FORMAT, SCHEMA = "asymflow ideas", 1
NAME = "ideas.json"


def path() -> Path:
    """The file that comes with the weights."""
    return Path(str(resources.files("asymflow.models.embedded.weights").joinpath(NAME)))


@cache
def load() -> tuple[str, ...]:
    """The prompts that come with the weights, the best ones first.

    Raises:
        FileFormatError: the file is missing or damaged.
    """
    file = path()
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise FileFormatError(f"Cannot read {file}: {error}. Install asymflow again.") from error
    fields = Fields(parse(text, str(file)), str(file))
    fields.expect(FORMAT, SCHEMA, "Choose the ideas again: asymflow bench ideas")
    fields.text("weights")
    prompts = tuple(fields.strings("prompts"))
    fields.finish()
    return prompts


def save(path: Path, weights: str, prompts: Sequence[str]) -> None:
    """Write the prompts that were chosen for weights of this hash."""
    data = {"format": FORMAT, "schema": SCHEMA, "weights": weights, "prompts": list(prompts)}
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
