"""The names of ImageNet's 1,000 classes: WordNet's words for their synsets, in order."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def names() -> tuple[str, ...]:
    """One name per class; several words of one class are separated by commas."""
    text = resources.files("asymflow.models").joinpath("imagenet.txt").read_text("utf-8")
    return tuple(text.splitlines())
