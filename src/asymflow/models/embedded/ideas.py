"""Prompts that the shipped weights draw well: data beside them, written by `asymflow bench ideas`.

The file names the weights that its prompts were chosen for. A model of other weights has them all
the same: it was trained on the same names. Another file, which `scripts/annotations.py` writes, has
names in other languages for all prompts that may be chosen, so it outlives a choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from asymflow.core.errors import FileFormatError
from asymflow.io.files import write_text
from asymflow.io.json_reader import Fields, parse

FORMAT, SCHEMA = "asymflow ideas", 1
NAME = "ideas.json"
NAMES_FORMAT, NAMES_SCHEMA = "asymflow idea names", 1
NAMES = "idea_names.json"

Names = dict[str, dict[str, str]]
"""What prompts are called in other languages: by language, then by prompt."""


def path() -> Path:
    """The file of prompts that comes with the weights."""
    return _beside_weights(NAME)


def names_path() -> Path:
    """The file of names in other languages that comes with the weights."""
    return _beside_weights(NAMES)


def _beside_weights(name: str) -> Path:
    return Path(str(resources.files("asymflow.models.embedded.weights").joinpath(name)))


@cache
def load() -> tuple[str, ...]:
    """The prompts that come with the weights, the best ones first.

    Raises:
        FileFormatError: the file is missing or damaged.
    """
    fields = _fields(path())
    fields.expect(FORMAT, SCHEMA, "Choose the ideas again: asymflow bench ideas")
    fields.text("weights")
    prompts = tuple(fields.strings("prompts"))
    fields.finish()
    return prompts


@cache
def names() -> Names:
    """Names of the prompts that come with the weights; those without one are left out.

    Raises:
        FileFormatError: a file is missing or damaged.
    """
    prompts = load()
    return {
        language: {prompt: own[prompt] for prompt in prompts if prompt in own}
        for language, own in read_names(names_path()).items()
    }


def read_names(file: Path) -> Names:
    """The names of all prompts that may be chosen, from what `save_names` wrote.

    Raises:
        FileFormatError: the file is missing or damaged.
    """
    fields = _fields(file)
    fields.expect(NAMES_FORMAT, NAMES_SCHEMA, "Write it again: scripts/annotations.py")
    languages = fields.fields("names")
    found = {language: languages.texts(language) for language in languages.names()}
    fields.finish()
    return found


def _fields(file: Path) -> Fields:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise FileFormatError(f"Cannot read {file}: {error}. Install asymflow again.") from error
    return Fields(parse(data, str(file)), str(file))


def save(path: Path, weights: str, prompts: Sequence[str]) -> None:
    """Write the prompts that were chosen for weights of this hash."""
    _write(path, {"format": FORMAT, "schema": SCHEMA, "weights": weights, "prompts": list(prompts)})


def save_names(path: Path, names: Mapping[str, Mapping[str, str]]) -> None:
    """Write names in other languages, by language and prompt, in the order of their prompts."""
    ordered = {language: dict(sorted(own.items())) for language, own in sorted(names.items())}
    _write(path, {"format": NAMES_FORMAT, "schema": NAMES_SCHEMA, "names": ordered})


def _write(path: Path, data: Mapping[str, object]) -> None:
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
