"""Small words, which CLDR has no annotations for: articles, "and", "with", numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

from asymflow.models.embedded.languages.scripts import folded

_LEFT_OUT = "-"


@cache
def words() -> Mapping[str, Mapping[str, str]]:
    """English for the folded small words of locales; empty for those that are left out."""
    file = resources.files("asymflow.models.embedded.languages").joinpath("function_words.txt")
    text = file.read_text("utf-8")
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        locale, _, groups = line.partition(": ")
        found[locale] = {}
        for group in groups.split("; "):
            english, several = _split(group)
            for word in several:
                found[locale][folded(word)] = "" if english == _LEFT_OUT else english
    return found


def _split(group: str) -> tuple[str, list[str]]:
    """A group such as "next to neben" as its English and its words."""
    two = " ".join(group.split()[:2])
    count = 2 if two == "next to" else 1
    parts = group.split()
    return " ".join(parts[:count]), parts[count:]
