"""openai for Python, of its first major version and of its newest one."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
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
from openai import AsyncOpenAI, OpenAI

client = OpenAI(base_url=BASE, api_key=TOKEN, max_retries=2, timeout=120)
SMALL: dict[str, Any] = {"size": "64x64", "quality": "low"}


@check
def generates() -> None:
    answer = client.images.generate(model="gpt-image-1", prompt="a fox", **SMALL)
    image = decoded(answer.data[0].b64_json)
    equal((image.size, image.mode), ((64, 64), "RGBA"))
    equal(answer.usage.total_tokens, answer.usage.input_tokens + answer.usage.output_tokens)


@check
def generates_asynchronously() -> None:
    async def two() -> list[Any]:
        async with AsyncOpenAI(base_url=BASE, api_key=TOKEN) as other:
            calls = (other.images.generate(prompt=p, **SMALL) for p in ("a fox", "an owl"))
            return await asyncio.gather(*calls)

    for answer in asyncio.run(two()):
        decoded(answer.data[0].b64_json)


@check
def generates_several() -> None:
    answer = client.images.generate(prompt="a fox", n=3, **SMALL)
    equal(len({each.b64_json for each in answer.data}), 3)


@check
def knows_every_size() -> None:
    for size in ("256x256", "512x512", "1024x1024", "1536x1024", "1024x1536", "1792x1024", "64x96"):
        answer: Any = client.images.generate(prompt="a fox", size=size, quality="low")
        image = decoded(answer.data[0].b64_json)
        equal((f"{image.width}x{image.height}", answer.size), (size, size))
    equal(client.images.generate(prompt="a fox", size="auto", quality="low").size, "64x64")


@check
def knows_every_quality() -> None:
    known: dict[Any, str] = {
        "auto": "medium",
        "low": "low",
        "medium": "medium",
        "high": "high",
        "standard": "medium",
        "hd": "high",
    }
    for quality, told in known.items():
        answer = client.images.generate(prompt="a fox", size="32x32", quality=quality)
        equal(answer.quality, told)


@check
def knows_every_format() -> None:
    for name in ("png", "webp", "jpeg"):
        answer = client.images.generate(
            prompt="a fox", output_format=name, output_compression=60, **SMALL
        )
        equal(decoded(answer.data[0].b64_json).format, name.upper())
    answer = client.images.generate(prompt="a fox", background="opaque", **SMALL)
    equal(decoded(answer.data[0].b64_json).mode, "RGB")


@check
def dall_e_answers_addresses() -> None:
    for model in ("dall-e-2", "dall-e-3"):
        answer = client.images.generate(model=model, prompt="a fox", style="vivid", **SMALL)
        equal(fetched(answer.data[0].url).size, (64, 64))
        equal(answer.data[0].b64_json, None)


@check
def response_format_decides() -> None:
    answer = client.images.generate(
        model="dall-e-3", prompt="a fox", response_format="b64_json", **SMALL
    )
    decoded(answer.data[0].b64_json)
    answer = client.images.generate(
        model="gpt-image-1", prompt="a fox", response_format="url", **SMALL
    )
    fetched(answer.data[0].url)


@check
def streams_partial_images() -> None:
    events = list(
        client.images.generate(
            prompt="a fox", size="64x64", quality="medium", stream=True, partial_images=2
        )
    )
    kinds = [event.type.rpartition(".")[2] for event in events]
    equal(kinds, ["partial_image", "partial_image", "completed"])
    for event in events:
        decoded(event.b64_json)


@check
def edits() -> None:
    answer = client.images.edit(image=("a.png", PICTURE, "image/png"), prompt="a fox", **SMALL)
    equal(decoded(answer.data[0].b64_json).size, (64, 64))


@check
def edits_a_list_of_one() -> None:
    answer = client.images.edit(image=[("a.png", PICTURE, "image/png")], prompt="a fox", **SMALL)
    decoded(answer.data[0].b64_json)


@check
def edits_with_a_transparent_mask() -> None:
    answer = client.images.edit(
        image=("a.png", PICTURE, "image/png"),
        mask=("m.png", ALPHA, "image/png"),
        prompt="a red apple",
        **SMALL,
    )
    half_is_kept(decoded(answer.data[0].b64_json))


@check
def edits_with_a_black_and_white_mask() -> None:
    answer = client.images.with_raw_response.edit(
        image=("a.png", PICTURE, "image/png"),
        mask=("m.png", GREY, "image/png"),
        prompt="a red apple",
        **SMALL,
    )
    equal(answer.headers["x-asymflow-mask"], "white")
    half_is_kept(decoded(answer.parse().data[0].b64_json))


@check
def streams_an_edit() -> None:
    events = list(
        client.images.edit(
            image=("a.png", PICTURE, "image/png"),
            mask=("m.png", ALPHA, "image/png"),
            prompt="a red apple",
            stream=True,
            partial_images=1,
            size="64x64",
            quality="medium",
        )
    )
    equal([event.type for event in events], ["image_edit.partial_image", "image_edit.completed"])
    half_is_kept(decoded(events[-1].b64_json))


@check
def a_long_prompt_is_cut_and_that_is_said() -> None:
    answer = client.images.with_raw_response.generate(prompt=LONG, **SMALL)
    equal(answer.headers["x-asymflow-cut"], "prompt")
    decoded(answer.parse().data[0].b64_json)


@check
def lists_models() -> None:
    equal([model.id for model in client.models.list()], ["asymflow"])
    equal(client.models.retrieve("asymflow").id, "asymflow")


def raised(kind: type[openai.APIStatusError], status: int, call: Any, **more: Any) -> Any:
    try:
        call(**more)
    except kind as error:
        equal((error.status_code, error.code is None), (status, False))
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


@check
def raises_what_is_wrong() -> None:
    generate, edit = client.images.generate, client.images.edit
    error = raised(openai.BadRequestError, 400, generate, prompt="a fox", size="7x7")
    equal(error.param, "size")
    raised(openai.BadRequestError, 400, generate, prompt="x" * 32_001)
    raised(openai.BadRequestError, 400, generate, prompt="a fox\0")
    image = ("a.png", PICTURE, "image/png")
    error = raised(
        openai.BadRequestError,
        400,
        edit,
        image=image,
        mask=("m.png", OPAQUE, "image/png"),
        prompt="a fox",
    )
    equal((error.param, error.code), ("mask", "invalid_mask"))
    raised(openai.BadRequestError, 400, edit, image=[image, image], prompt="a fox")
    raised(openai.NotFoundError, 404, client.models.retrieve, model="dall-e-9")
    stranger = OpenAI(base_url=BASE, api_key="wrong")
    raised(openai.AuthenticationError, 401, stranger.images.generate, prompt="a fox")


@check
def a_key_makes_one_picture() -> None:
    headers = {"Idempotency-Key": f"{openai.__version__}-1"}

    def ids(prompt: str) -> list[str]:
        answer = client.images.generate(prompt=prompt, extra_headers=headers, **SMALL)
        return [each["id"] for each in answer.model_extra["asymflow"]["pictures"]]

    equal(ids("a fox"), ids("a fox"))
    raised(openai.ConflictError, 409, ids, prompt="an owl")


run()
