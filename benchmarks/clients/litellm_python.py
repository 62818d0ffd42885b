"""LiteLLM, which many programs ask through."""

from __future__ import annotations

import importlib
import io
from typing import Any

from checks import (
    ALPHA,
    BASE,
    GREY,
    LONG,
    OPAQUE,
    PICTURE,
    TOKEN,
    check,
    decoded,
    equal,
    fetched,
    half_is_kept,
    run,
)

litellm: Any = importlib.import_module("litellm")  # in an environment of its own
HERE: dict[str, Any] = {"api_base": BASE, "api_key": TOKEN}
SMALL: dict[str, Any] = {"size": "64x64", "quality": "low"}


def file(data: bytes, name: str) -> io.BytesIO:
    found = io.BytesIO(data)
    found.name = name
    return found


@check
def generates() -> None:
    answer = litellm.image_generation(prompt="a fox", model="openai/gpt-image-1", **SMALL, **HERE)
    equal(decoded(answer.data[0].b64_json).size, (64, 64))


@check
def generates_several() -> None:
    answer = litellm.image_generation(
        prompt="a fox", model="openai/gpt-image-1", n=2, **SMALL, **HERE
    )
    equal(len({each.b64_json for each in answer.data}), 2)


@check
def dall_e_answers_addresses() -> None:
    answer = litellm.image_generation(
        prompt="a fox", model="openai/dall-e-3", size="1024x1024", quality="standard", **HERE
    )
    equal(fetched(answer.data[0].url).size, (1024, 1024))


@check
def edits() -> None:
    answer = litellm.image_edit(
        image=file(PICTURE, "a.png"), prompt="a fox", model="openai/gpt-image-1", **SMALL, **HERE
    )
    equal(decoded(answer.data[0].b64_json).size, (64, 64))


@check
def edits_with_a_mask() -> None:
    for mask in (ALPHA, GREY):
        answer = litellm.image_edit(
            image=[file(PICTURE, "a.png")],
            mask=file(mask, "m.png"),
            prompt="a red apple",
            model="openai/gpt-image-1",
            **SMALL,
            **HERE,
        )
        half_is_kept(decoded(answer.data[0].b64_json))


@check
def a_long_prompt_is_taken() -> None:
    litellm.image_generation(prompt=LONG, model="openai/gpt-image-1", **SMALL, **HERE)


def raised(kind: type[Exception], call: Any, **more: Any) -> None:
    try:
        call(model="openai/gpt-image-1", **more)
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


@check
def raises_what_is_wrong() -> None:
    generate, edit = litellm.image_generation, litellm.image_edit
    raised(litellm.BadRequestError, generate, prompt="a fox", size="7x7", **HERE)
    raised(
        litellm.BadRequestError,
        edit,
        image=file(PICTURE, "a.png"),
        mask=file(OPAQUE, "m.png"),
        prompt="a fox",
        **HERE,
    )
    stranger = {**HERE, "api_key": "wrong"}
    raised(litellm.AuthenticationError, generate, prompt="a fox", **stranger)


run()
