"""Read emoji in a prompt as words: "a 🦊 on blue" is "a fox on blue"."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources

from asymflow.models.embedded.words import plain_name

SKIN_TONES = frozenset(f"1f3f{digit}" for digit in "bcdef")
_IGNORED = re.compile("[\ufe0e\ufe0f" + "".join(chr(int(tone, 16)) for tone in SKIN_TONES) + "]")


def emoji_to_words(text: str) -> str:
    """Replace every emoji in `text` by its name; skin tones are dropped.

    Names are set off by single spaces; text without emoji is returned as it is.
    """
    names = emoji_names()
    bare = _IGNORED.sub("", text)
    pattern = _pattern()
    if not pattern.search(bare):
        return text
    spelled = pattern.sub(lambda match: f" {plain_name(names[match.group()])} ", bare)
    spelled = re.sub(r" +([,.;:!?)])", r"\1", spelled)
    return re.sub(r" {2,}", " ", spelled).strip()


def emoji_in(text: str) -> list[tuple[int, int, str]]:
    """Every emoji in `text`: where it begins, where it ends, and its name in a prompt."""
    kept = [place for place, letter in enumerate(text) if not _IGNORED.match(letter)]
    bare = "".join(text[place] for place in kept)
    names = emoji_names()
    ends = [*kept[1:], len(text)]  # what is ignored belongs to the sign before it
    return [
        (kept[found.start()], ends[found.end() - 1], plain_name(names[found.group()]))
        for found in _pattern().finditer(bare)
    ]


@cache
def emoji_names() -> dict[str, str]:
    """CLDR short name of every emoji without skin tones, its selectors (FE0F) removed."""
    file = resources.files("asymflow.models.embedded").joinpath("emoji_names.json")
    names: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return names


@cache
def _pattern() -> re.Pattern[str]:
    longest_first = sorted(emoji_names(), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))
