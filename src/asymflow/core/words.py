"""What a model makes of the words of a prompt: which it knows, and what it draws instead.

Plain data, without torch. An adapter that knows which words it was trained on is an `Understands`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Kind = Literal["thing", "colour", "other", "unknown"]
"""What a word is: the name of something to draw, a colour, a word around names such as "a" or
"sticker", or none that the model was trained on."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word or a name of several words, at its place in the prompt.

    Attributes:
        text: as it stands in the prompt.
        start, end: its characters, as indices of the prompt.
        kind: what it is to the model.
        drawn: what the model is asked with in its place; empty where it is left out.
        near: names of things that the model knows, most similar first, for an unknown word.
    """

    text: str
    start: int
    end: int
    kind: Kind
    drawn: str = ""
    near: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Understanding:
    """A prompt as a model reads it.

    Attributes:
        prompt: as given.
        drawn: what the model is asked with; the prompt itself unless that was translated.
        locale: in whose words the prompt was read: "de", "zh-Hant"; None if as it is.
        words: in the order of the prompt; none for a model that reads any text.
    """

    prompt: str
    drawn: str
    locale: str | None
    words: tuple[Word, ...]

    @property
    def known(self) -> bool:
        """Whether the prompt has something that the model knows how to draw.

        Also where nothing is known of its words: a model that reads any text.
        """
        return not self.words or any(word.kind == "thing" for word in self.words)

    @property
    def near(self) -> tuple[str, ...]:
        """What to ask for instead, the best of every unknown word first."""
        longest = max((len(word.near) for word in self.words), default=0)
        ranked = [w.near[i] for i in range(longest) for w in self.words if i < len(w.near)]
        return tuple(dict.fromkeys(ranked))


@runtime_checkable
class Understands(Protocol):
    """An adapter that knows which words it was trained on, and can translate others."""

    def understand(self, prompt: str, locales: Sequence[str] = ()) -> Understanding:
        """A prompt as the model reads it.

        Args:
            prompt: on one line.
            locales: that the prompt is probably written in, the most probable first: they decide
                where a word means different things in several languages.
        """
        ...
