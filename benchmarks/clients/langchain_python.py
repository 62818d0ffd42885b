"""LangChain's wrapper of DALL-E, which reads addresses."""

from __future__ import annotations

import importlib
from typing import Any

from checks import BASE, LONG, TOKEN, check, equal, fetched, run

generator: Any = importlib.import_module("langchain_community.utilities.dalle_image_generator")
"""In an environment of its own."""


def wrapper(model: str, **more: Any) -> Any:
    return generator.DallEAPIWrapper(
        model=model, base_url=BASE, api_key=TOKEN, size="256x256", **more
    )


@check
def dall_e_3_answers_an_address() -> None:
    equal(fetched(wrapper("dall-e-3").run("a fox")).size, (256, 256))


@check
def dall_e_2_answers_several() -> None:
    urls = wrapper("dall-e-2", n=2).run("a fox").split()
    equal(len(urls), 2)
    for url in urls:
        fetched(url)


@check
def dall_e_3_in_hd() -> None:
    fetched(wrapper("dall-e-3", quality="hd").run("a fox"))


@check
def a_long_prompt_is_taken() -> None:
    fetched(wrapper("dall-e-3").run(LONG))


run()
