r"""Expansion of a prompt with choices, `a {red|blue} car`, to all combinations.

A backslash escapes the next character: `\{red|blue}` is no choice, and `{a\|b|c}` is one of two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from math import prod

from asymflow.server.problems import Refusal

_ESCAPED = r"\\[\\{}|]"
_PLAIN = rf"(?:{_ESCAPED}|[^\\{{}}|]|\\(?![\\{{}}|]))*"
_GROUP = rf"\{{({_PLAIN}(?:\|{_PLAIN})+)\}}"
# An escaped character is matched before a group could begin with it.
_PART = re.compile(rf"({_ESCAPED})|{_GROUP}")
_SIGN = re.compile(rf"{_ESCAPED}|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the prompts, and its choices; None for a prompt without choices."""

    prompt: str
    label: str | None


def variants(prompt: str, limit: int) -> list[Variant]:
    """Every combination, the last group changing fastest. Braces without `|` stay as they are.

    Raises:
        InputError: there are more than `limit`.
    """
    texts, groups = [""], list[list[str]]()
    end = 0
    for part in _PART.finditer(prompt):
        texts[-1] += prompt[end : part.start()]
        if part[2] is None:
            texts[-1] += part[1][1]
        else:
            groups.append(_choices(part[2]))
            texts.append("")
        end = part.end()
    texts[-1] += prompt[end:]
    if not groups:
        return [Variant(texts[0], None)]
    count = prod(len(group) for group in groups)
    if count > limit:
        raise Refusal(
            f"The choices in the prompt make {count} combinations, more than the {limit} that are "
            r"made at once. Leave some out, or write \{ for a brace that begins no choice.",
            "too_many_combinations",
            count=count,
            limit=limit,
        )
    found: list[Variant] = []
    for chosen in product(*groups):
        text = texts[0] + "".join(a + b for a, b in zip(chosen, texts[1:], strict=True))
        found.append(Variant(" ".join(text.split()), ", ".join(chosen)))
    return found


def escaped(prompt: str) -> str:
    """The prompt with its braces escaped, so that it has no choices."""
    if _PART.search(prompt) is None:
        return prompt
    return re.sub(r"[\\{]", r"\\\g<0>", prompt)


def _choices(group: str) -> list[str]:
    choices = [""]
    for sign in _SIGN.findall(group):
        if sign == "|":
            choices.append("")
        else:
            choices[-1] += sign[-1]
    return [choice.strip() for choice in choices]
