"""One prompt with choices, `a {red|blue} car`, as all the prompts that it stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from math import prod

from asymflow.errors import InputError

_GROUP = re.compile(r"\{([^{}|]*(?:\|[^{}|]*)+)\}")


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the prompts, and what was chosen for it; None where there was no choice."""

    prompt: str
    label: str | None


def variants(prompt: str, limit: int) -> list[Variant]:
    """Every combination, the last group changing fastest. Braces without `|` stay as they are.

    Raises:
        InputError: there are more than `limit`.
    """
    parts = _GROUP.split(prompt)
    groups = [[choice.strip() for choice in group.split("|")] for group in parts[1::2]]
    if not groups:
        return [Variant(prompt, None)]
    count = prod(len(group) for group in groups)
    if count > limit:
        raise InputError(
            f"The choices in the prompt make {count} combinations, more than the {limit} that are "
            "made at once. Leave some out."
        )
    found: list[Variant] = []
    for chosen in product(*groups):
        text = parts[0] + "".join(a + b for a, b in zip(chosen, parts[2::2], strict=True))
        found.append(Variant(" ".join(text.split()), ", ".join(chosen)))
    return found
