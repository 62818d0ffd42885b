"""OpenAI's own client, unchanged, against the studio."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Generator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI
from PIL import Image

from asymflow.generation import metadata
from asymflow.io.images import RECORD_CHUNK, record_in_xmp
from tests.helpers import wait_until

from .conftest import Running, Serve, Slow


@pytest.fixture
def client(studio: Running) -> Generator[OpenAI]:
    with OpenAI(base_url=f"{studio.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def image_of(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_a_picture_with_everything_that_was_used(client: OpenAI) -> None:
    answer = client.images.generate(
        model="gpt-image-1",
        prompt="a {red|blue} apple",
        size="32x32",
        quality="low",
        extra_body={"seed": 7, "style": "noto", "wonder": 1},
    )
    assert answer.data is not None
    image = image_of(answer.data[0].b64_json)
    assert (image.size, image.mode) == ((32, 32), "RGBA")
    record = metadata.from_json(str(image.info[RECORD_CHUNK]), "here")
    # Braces are text here, and the seed is that of the first picture.
    assert (record.prompt, record.seed, record.style) == ("a {red|blue} apple", 7, "noto")
    assert answer.quality == "low"
    assert answer.background == "transparent"
    assert answer.output_format == "png"
    assert answer.size == "32x32"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.output_tokens == 16  # patches of 8 x 8 pixels
    extra = answer.model_extra
    assert extra is not None
    assert extra["asymflow"]["plan"] == "draft"
    assert [each["seed"] for each in extra["asymflow"]["pictures"]] == [7]


def test_null_leaves_a_field_to_the_server(client: OpenAI) -> None:
    answer = client.images.generate(
        prompt="a fox", size="32x32", quality="low", n=None, background=None, output_format=None
    )
    assert answer.data is not None
    assert image_of(answer.data[0].b64_json).format == "PNG"


def test_an_edit_that_is_sent_again_is_the_same_one(client: OpenAI) -> None:
    def ids(level: int, key: str) -> list[str]:
        answer = client.images.edit(
            image=("in.png", png(np.full((32, 32, 3), level, np.uint8)), "image/png"),
            prompt="a fox",
            size="32x32",
            quality="low",
            extra_headers={"Idempotency-Key": key},
        )
        assert answer.model_extra is not None
        return [each["id"] for each in answer.model_extra["asymflow"]["pictures"]]

    first = ids(120, "once")
    assert ids(120, "once") == first
    assert ids(120, "twice") != first
    with pytest.raises(openai.ConflictError):
        ids(121, "once")


def test_unknown_fields_are_named_and_do_no_harm(studio: Running) -> None:
    body = {"prompt": "a fox", "size": "32x32", "quality": "low", "wonder": 1, "user": "me"}
    answer = studio.http.post("/v1/images/generations", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-asymflow-ignored"] == "wonder"


def test_more_pictures_have_following_seeds_and_large_ones_are_enlarged(client: OpenAI) -> None:
    answer = client.images.generate(
        prompt="a fox",
        n=2,
        size="256x128",
        quality="low",
        output_format="jpeg",
        output_compression=50,
        extra_body={"seed": 3},
    )
    assert answer.data is not None
    images = [image_of(each.b64_json) for each in answer.data]
    assert [(i.size, i.format) for i in images] == [((256, 128), "JPEG")] * 2
    assert answer.background == "opaque"
    assert answer.model_extra is not None
    told = answer.model_extra["asymflow"]
    assert told["drawn_size"] == "128x64"
    assert [each["seed"] for each in told["pictures"]] == [3, 4]
    xmp = images[0].info["xmp"].decode()
    assert "trainedAlgorithmicMedia" in xmp
    assert record_in_xmp(xmp) is not None


def test_a_url_is_fetched_without_a_token(client: OpenAI, studio: Running) -> None:
    answer = client.images.generate(
        prompt="a fox", size="32x32", quality="low", response_format="url"
    )
    assert answer.data is not None
    url = answer.data[0].url
    assert url is not None
    assert url.startswith(studio.url)
    assert httpx.get(url).content.startswith(b"\x89PNG")
    assert httpx.get(f"{studio.url}/v1/images/results/..%2Fstudio.sqlite").status_code == 404


def test_a_stream_sends_partial_pictures_then_each_finished_one(client: OpenAI) -> None:
    with client.images.generate(
        prompt="a fox", size="32x32", quality="medium", stream=True, partial_images=2, n=2
    ) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert (kinds[:2], kinds[-1]) == ([partial] * 2, completed)
    assert (kinds.count(partial), kinds.count(completed)) == (4, 2)
    partials = [e for e in events if e.type == "image_generation.partial_image"]
    assert [event.partial_image_index for event in partials] == [0, 1, 2, 3]
    for event in events:
        image = image_of(event.b64_json)
        assert image.size == (32, 32)
        assert "trainedAlgorithmicMedia" in str(image.info["XML:com.adobe.xmp"])
        assert (event.quality, event.size, event.output_format) == ("medium", "32x32", "png")
        assert event.background == "transparent"
        assert event.created_at > 0
    last = events[-1]
    assert last.type == "image_generation.completed"
    assert last.usage.total_tokens > 0


def test_an_edit_keeps_what_the_mask_does_not_show(client: OpenAI) -> None:
    picture = np.full((32, 32, 4), (0, 200, 0, 255), np.uint8)
    mask = picture.copy()
    mask[:, 16:, 3] = 0  # transparent: to be painted
    answer = client.images.edit(
        image=[("in.png", png(picture), "image/png")],
        mask=("mask.png", png(mask), "image/png"),
        prompt="a red apple",
        size="32x32",
        quality="low",
        extra_body={"seed": 1},
    )
    assert answer.data is not None
    image = image_of(answer.data[0].b64_json)
    made = np.asarray(image)
    assert (made[:, :16] == picture[:, :16]).all()
    assert (made[:, 16:] != picture[:, 16:]).any()
    assert "compositeWithTrained" in str(image.info["XML:com.adobe.xmp"])
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.image_tokens == 16


def test_more_than_one_picture_is_refused_by_name(client: OpenAI) -> None:
    picture = png(np.full((32, 32, 3), 120, np.uint8))
    two = [(f"{name}.png", picture, "image/png") for name in "ab"]
    with pytest.raises(openai.BadRequestError, match="2 files were sent as `image`") as caught:
        client.images.edit(image=two, prompt="a fox", size="32x32")
    assert (caught.value.param, caught.value.code) == ("image", "invalid_value")
    assert "none of them was used" in caught.value.message


def test_an_edit_without_a_picture_names_the_field(studio: Running) -> None:
    empty = {"mask": png(np.zeros((8, 8, 4), np.uint8))}
    answer = studio.http.post("/v1/images/edits", files=empty, data={"prompt": "a fox"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "image"
    assert "No file was sent as `image`" in answer.json()["error"]["message"]


def test_an_edit_with_a_mask_streams(client: OpenAI) -> None:
    picture = np.full((32, 32, 4), (0, 200, 0, 255), np.uint8)
    mask = picture.copy()
    mask[:16, :, 3] = 0
    with client.images.edit(
        image=png(picture),
        mask=png(mask),
        prompt="a fox",
        size="32x32",
        quality="medium",
        n=2,
        stream=True,
        partial_images=1,
    ) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    assert kinds == ["image_edit.partial_image", "image_edit.completed"] * 2
    for event in events:
        made = np.asarray(image_of(event.b64_json))
        assert (made[16:] == picture[16:]).all()


def test_an_edit_streams(client: OpenAI) -> None:
    picture = png(np.full((48, 32, 3), 120, np.uint8))
    with client.images.edit(
        image=("in.png", picture, "image/png"),
        prompt="a fox",
        quality="low",
        stream=True,
        partial_images=1,
        extra_body={"strength": 1},
    ) as stream:
        events = list(stream)
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert events[-1].size == "40x64"  # nearest to the picture's own aspect


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"size": "33x9999"}, "size"),
        ({"size": "big"}, "size"),
        ({"quality": "superb"}, "quality"),
        ({"n": 11}, "n"),
        ({"negative_prompt": "x" * 32_001}, "negative_prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 32_001}, "prompt"),
        ({"background": "transparent", "output_format": "jpeg"}, "background"),
    ],
)
def test_what_cannot_be_served_says_why(
    studio: Running, more: dict[str, object], param: str
) -> None:
    answer = studio.http.post("/v1/images/generations", json={"prompt": "a fox", **more})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_the_client_raises_what_the_envelope_says(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Unknown style") as caught:
        client.images.generate(prompt="a fox", size="32x32", extra_body={"style": "notto"})
    assert caught.value.code == "invalid_value"


def test_a_picture_that_is_damaged_is_a_bad_request(client: OpenAI) -> None:
    picture = png(np.full((32, 32, 3), 120, np.uint8))
    with pytest.raises(openai.BadRequestError, match="damaged or cut off"):
        client.images.edit(image=picture[:60], prompt="a fox")
    with pytest.raises(openai.BadRequestError, match="not a PNG, JPEG or WebP"):
        client.images.edit(image=picture, mask=b"no picture", prompt="a fox")


def test_a_wrong_key_is_an_authentication_error(serve: Serve) -> None:
    server = serve(token="0123456789abcdef-secret")
    with OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as caught:
            stranger.models.list()
        assert caught.value.code == "invalid_token"
    with OpenAI(base_url=f"{server.url}/v1", api_key="0123456789abcdef-secret") as known:
        assert [model.id for model in known.models.list()] == ["asymflow"]


@pytest.mark.usefixtures("wordless")
def test_the_client_comes_again_when_it_is_told_to(serve: Serve) -> None:
    server = serve(rate=1.0, burst=1)
    answers: list[tuple[int, str | None]] = []

    def note(response: Any) -> None:
        answers.append((response.status_code, response.headers.get("retry-after")))

    with (
        openai.DefaultHttpxClient(event_hooks={"response": [note]}) as http,
        OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=http) as client,
    ):
        while len(answers) < 20 and answers[-2:] != [(429, "1"), (200, None)]:
            answer = client.images.generate(prompt="a fox", size="32x32", quality="low")
            assert answer.data is not None
        # One came too soon, waited as long as it was told, and then got its picture.
        assert answers[-2:] == [(429, "1"), (200, None)]

        def hurry() -> None:
            for _ in range(20):
                client.with_options(max_retries=0).images.generate(prompt="a fox", size="32x32")

        with pytest.raises(openai.RateLimitError) as caught:
            hurry()
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.response.headers["retry-after"] == "1"


@pytest.mark.usefixtures("wordless")
def test_a_full_queue_is_a_server_error_that_clients_repeat(serve: Serve, slow: Slow) -> None:
    server = serve(queue=1, queue_of_one=8)
    slow.gate.clear()
    server.started(server.ask("running")["id"])
    server.ask("waiting")
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.images.generate(prompt="a fox", size="32x32")
        assert (caught.value.status_code, caught.value.code) == (503, "queue_full")


@pytest.mark.usefixtures("wordless")
def test_a_stream_that_breaks_raises_in_the_client(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.error = ValueError("a secret prompt")
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.images.generate(prompt="a fox", size="32x32", stream=True)
        with pytest.raises(openai.APIError, match="went wrong in the server") as caught:
            list(stream)
        stream.close()
        assert caught.value.code == "internal_error"
        slow.error = ValueError("a secret prompt")
        with pytest.raises(openai.InternalServerError) as caught:
            client.images.generate(prompt="a fox", size="32x32")
        assert "secret" not in caught.value.message


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["asymflow"]
    assert client.models.retrieve("asymflow").owned_by == "asymflow"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("dall-e-3")


def test_pictures_of_programs_are_not_in_the_gallery(client: OpenAI, studio: Running) -> None:
    answer = client.images.generate(prompt="an owl", size="32x32", quality="low")
    assert answer.model_extra is not None
    [made] = answer.model_extra["asymflow"]["pictures"]
    listed = studio.http.get("/api/pictures").json()["pictures"]
    assert made["id"] not in [each["id"] for each in listed]


@pytest.mark.usefixtures("wordless")
@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_cancels(serve: Serve, slow: Slow, stream: bool) -> None:
    server = serve()
    slow.gate.clear()
    body = json.dumps({"prompt": "a fox", "size": "32x32", "stream": stream}).encode()

    def call() -> None:
        with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.5) as http:
            http.post(
                f"{server.url}/v1/images/generations",
                content=body,
                headers={"Content-Type": "application/json"},
            )

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    manager = server.app.state.studio.manager
    wait_until(lambda: [job.state for job in manager._jobs.values()] == ["cancelled"], within=5)
