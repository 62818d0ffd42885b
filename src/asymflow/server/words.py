"""What a model of this server makes of a prompt while somebody types it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from asymflow.core.words import Understanding
from asymflow.generation import words
from asymflow.generation.spec import MAX_PROMPT, clean_text
from asymflow.server.state import Here, about_of

router = APIRouter(prefix="/api", tags=["studio"])

Language = Annotated[str, Query(max_length=35, pattern=r"^[A-Za-z0-9-]*$")]


class ReadWord(BaseModel):
    """A word or a name of several words, with its characters (UTF-16 units) in the prompt.

    `kind` says what it is to the model. `drawn` is what the model is asked with in its place, empty
    where it is left out. `near` has names that the model knows, for an unknown word.
    """

    text: str
    start: int
    end: int
    kind: Literal["thing", "colour", "other", "unknown"]
    drawn: str
    near: list[str]


class ReadPrompt(BaseModel):
    """A prompt as a model reads it.

    `drawn` is what the model is asked with, and `language` the one that it was read in, if it was
    translated. `known` is false if nothing in the prompt is known to the model; `near` then has
    names to ask for instead, and `draws` says what the model draws. `words` is empty for a model
    that reads any text.
    """

    prompt: str
    drawn: str
    language: str | None
    known: bool
    near: list[str]
    draws: str
    words: list[ReadWord]


@router.get("/words")
async def read_words(
    studio: Here,
    prompt: Annotated[str, Query(max_length=4 * MAX_PROMPT)],
    language: Language = "",
    model: str | None = None,
) -> ReadPrompt:
    """What a model knows of the words of a prompt, and what it draws instead of the others.

    It is quick enough to call at every key press. `language` is that of the page, which decides
    where a word means different things in several languages.
    """
    served, about = await about_of(studio, model)
    text = clean_text("prompt", prompt)
    locales = (language,) if language else ()
    if served.model is None:  # it made room for another one
        found = words.by_card(about.card, text)
    else:
        found = await run_in_threadpool(words.understand, served.model.adapter, text, locales)
    return _view(found, about.card.draws)


def _view(found: Understanding, draws: str) -> ReadPrompt:
    return ReadPrompt(
        prompt=found.prompt,
        drawn=found.drawn,
        language=found.locale,
        known=found.known,
        near=list(found.near),
        draws=draws,
        words=[
            ReadWord(
                text=word.text,
                start=_units(found.prompt[: word.start]),
                end=_units(found.prompt[: word.end]),
                kind=word.kind,
                drawn=word.drawn,
                near=list(word.near),
            )
            for word in found.words
        ],
    )


def _units(text: str) -> int:
    """The length of a text in JavaScript."""
    return len(text.encode("utf-16-le")) // 2
