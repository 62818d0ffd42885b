"""What models are measured with, where nobody says it."""

from __future__ import annotations

MANY = 32
"""Classes that are enough to measure with."""

PROMPTS = (
    "a red fox in the snow",
    "a bowl of fruit on a wooden table",
    "portrait of an old sailor, oil painting",
    "a city street at night in the rain",
    "a glass of water on a windowsill",
    "a mountain lake at sunrise",
    "a close-up of a bee on a purple flower",
    "a steam locomotive crossing a stone bridge",
    "a child flying a kite on the beach",
    "a bookshop with crowded shelves",
    "an astronaut riding a horse, digital art",
    "a loaf of bread with a knife beside it",
)
"""Of models that take prompts: things, people, scenes and styles."""


def spread(classes: int) -> tuple[int, ...]:
    """At most `MANY` of so many classes, evenly spaced."""
    count = min(MANY, classes)
    return tuple(i * classes // count for i in range(count))
