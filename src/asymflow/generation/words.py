"""What a model makes of a prompt, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from asymflow.core.adapter import CardedAdapter, unwrapped
from asymflow.core.card import Card
from asymflow.core.errors import InputError
from asymflow.core.words import Understanding, Understands, Word

_NEAR = 3
_LIKE = 0.6
"""Likeness of the spelling of a class that is offered."""


def understand(model: CardedAdapter, prompt: str, locales: Sequence[str] = ()) -> Understanding:
    """A prompt as a model reads it; the name of a class, for a model of classes.

    Args:
        model: reads it.
        prompt: on one line.
        locales: that it is probably written in, the most probable first.
    """
    adapter = unwrapped(model)
    if isinstance(adapter, Understands):
        return adapter.understand(prompt, locales)
    return by_card(model.card, prompt)


def by_card(card: Card, prompt: str) -> Understanding:
    """A prompt as a model reads it of which no more is known than its card."""
    if card.asks != "class" or not prompt:
        return Understanding(prompt, prompt, None, ())
    try:
        name = card.classes[card.label_of(prompt)]
    except InputError:
        names = [each.lower() for each in card.classes]
        near = get_close_matches(prompt.lower(), names, _NEAR, _LIKE)
        word = Word(prompt, 0, len(prompt), "unknown", prompt, tuple(near))
    else:
        word = Word(prompt, 0, len(prompt), "thing", name)
    return Understanding(prompt, prompt, None, (word,))


def advice(card: Card, found: Understanding) -> str | None:
    """What to say of a prompt of which the model knows nothing; None for one that it knows."""
    if found.known:
        return None
    near = " or ".join(f'"{name}"' for name in found.near[:_NEAR])
    instead = f" Nearest to it: {near}." if near else ""
    return f"The model was trained on no word of this prompt. {card.draws}{instead}"
