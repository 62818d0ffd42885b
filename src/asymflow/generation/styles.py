"""The styles to choose from for a model: its own, or words added to the prompt."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import cast

import yaml

from asymflow.core.card import Card, Style
from asymflow.core.errors import FileFormatError
from asymflow.io import folders
from asymflow.io.json_reader import Fields

NAME = "styles.yaml"


def file() -> Path:
    """Where a user's own styles are, if there are any."""
    return folders.settings() / NAME


def styles_of(card: Card) -> tuple[Style, ...]:
    """The styles of a model; for one that only reads text, suffixes of its prompt.

    Raises:
        FileFormatError: the user's file is damaged.
    """
    if card.styles or card.asks != "prompt":
        return card.styles
    own = file()
    if own.is_file():
        return _read(own.read_text("utf-8"), str(own))
    return _shipped()


def style_of(card: Card, name: str) -> Style | None:
    """A style by any of its names."""
    plain = name.strip().lower()
    return next((s for s in styles_of(card) if plain in (s.id, s.name.lower(), *s.names)), None)


@cache
def _shipped() -> tuple[Style, ...]:
    path = resources.files("asymflow.generation").joinpath(NAME)
    return _read(path.read_text("utf-8"), str(path))


def _read(text: str, where: str) -> tuple[Style, ...]:
    try:
        found: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FileFormatError(
            f"Cannot read {where}: {error}. Correct it, or remove it to have the styles that come "
            "with asymflow."
        ) from error
    if not isinstance(found, list):
        raise FileFormatError(f"{where} is no list of styles. Begin every style with '- '.")
    made: list[Style] = []
    for number, entry in enumerate(cast("list[object]", found), 1):
        fields = Fields(entry, f"{where}: style {number}")
        made.append(Style(fields.text("id"), fields.text("name"), fields.text("suffix")))
        fields.finish()
    ids = [each.id for each in made]
    twice = next((id for id in ids if ids.count(id) > 1), None)
    if twice is not None:
        raise FileFormatError(f"{where} has the style {twice!r} twice. Give each an id of its own.")
    return tuple(made)
