"""The API of AUTOMATIC1111's web UI: its client for Python, and the calls of two programs."""

from __future__ import annotations

import base64
import importlib
import io
import json
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from asymflow.core.card import Card, Sizes
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Plan
from asymflow.generation import metadata, pipeline
from asymflow.io.images import RECORD_CHUNK
from asymflow.server.lineup import About, Served
from asymflow.server.settings import Settings
from asymflow.server.webui import NOTHING
from asymflow.server.webui_order import nearest, order_of, passes
from asymflow.server.webui_schema import Txt2Img
from tests.helpers import wait_until
from tests.small_models import JIT

from .conftest import Running, Serve, Slow, running

webuiapi: Any = importlib.import_module("webuiapi")

API = "/sdapi/v1"
TOKEN = "a secret of many characters"
RECORDED = Path(__file__).parent / "recorded"
GREEN = (0, 200, 0, 255)


def client(server: Running, **more: Any) -> Any:
    return webuiapi.WebUIApi(baseurl=f"{server.url}{API}", **more)


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def halves(mode: str, left: Any, right: Any) -> Image.Image:
    image = Image.new(mode, (32, 32), left)
    image.paste(right, (16, 0, 32, 32))
    return image


def drawn(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert set(found) == {"images", "parameters", "info"}
    return {**found, "info": json.loads(found["info"])}


def small(server: Running, path: str = "txt2img", **more: Any) -> httpx.Response:
    body = {"prompt": "a red apple", "width": 32, "height": 32, "sampler_name": "draft", **more}
    return server.http.post(f"{API}/{path}", json=body)


# --- the client for Python ---------------------------------------------------------------------


def test_the_client_draws_from_words(studio: Running) -> None:
    api = client(studio)
    found = api.txt2img(
        prompt="a fox",
        negative_prompt="blurry",
        styles=["noto", "wonder"],
        seed=7,
        steps=8,
        batch_size=2,
        n_iter=2,
        cfg_scale=4,
        width=64,
        height=40,
    )
    assert [image.size for image in found.images] == [(64, 40)] * 4
    info = found.info
    assert (info["seed"], info["all_seeds"], info["styles"]) == (7, [7, 8, 9, 10], ["noto"])
    assert (info["width"], info["height"], info["cfg_scale"]) == (64, 40, 4.0)
    record = metadata.from_json(found.images[1].info[RECORD_CHUNK], "here")
    assert (record.prompt, record.negative, record.seed) == ("a fox", "blurry", 8)
    assert (record.style, record.guidance) == ("noto", 4.0)
    assert found.images[1].info["parameters"] == info["infotexts"][1]
    assert "Negative prompt: blurry" in info["infotexts"][1]
    assert info["infotexts"][1].splitlines()[-1].startswith("Steps: ")
    assert found.parameters["prompt"] == "a fox"
    notes = info["asymflow"]["notes"]
    assert notes[0].partition(":")[0] == "sampler 'Euler a'"
    assert "styles 'wonder': unknown" in notes


def test_the_client_draws_from_a_picture_and_reads_its_parameters(studio: Running) -> None:
    api = client(studio)
    first = api.txt2img(prompt="a fox", seed=1, steps=5, width=32, height=32).image
    again = api.img2img(
        images=[first], prompt="a fox", seed=2, steps=5, denoising_strength=0.4, width=32, height=32
    )
    assert again.info["denoising_strength"] == 0.4
    assert again.parameters["init_images"] is None
    assert "Denoising strength: 0.4" in again.info["infotexts"][0]
    read = api.png_info(again.image)
    assert read.info == again.info["infotexts"][0]
    assert read.parameters["Reference"] == "fox, noto; fox, fluent-flat"
    one = studio.http.post(f"{API}/png-info", json={"image": encoded(Image.new("L", (2, 2)))})
    assert one.json() == {"info": "", "items": {}, "parameters": {}}
    body = {"image": again.json["images"][0]}
    all_of_it = studio.http.post(f"{API}/png-info", json=body).json()
    assert all_of_it["parameters"]["Seed"] == "2"


def test_the_client_connects(studio: Running) -> None:
    api = client(studio)
    assert api.util_get_model_names() == ["asymflow"]
    assert api.util_get_current_model() == "asymflow"
    assert {"Automatic", "draft", "balanced", "best"} <= set(api.util_get_sampler_names())
    assert api.util_get_scheduler_names() == ["automatic"]
    api.util_set_model("asymflow")
    api.util_wait_for_ready(check_interval=0.1)
    assert [style["name"] for style in api.get_prompt_styles()][:1] == ["fluent-3d"]
    assert api.get_upscalers()[0]["name"] == "None"
    for ask in (
        *(api.get_sd_vae, api.get_loras, api.get_hypernetworks, api.get_face_restorers),
        *(api.get_realesrgan_models, api.get_latent_upscale_modes),
    ):
        assert ask() == []
    assert set(api.get_memory()) == {"ram", "cuda"}
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert api.get_cmd_flags() == {"api": True}
    assert api.refresh_checkpoints() is None
    assert api.interrupt() == {}
    assert api.skip() is None


# --- programs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["sillytavern", "open-webui"])
def test_the_calls_of_a_program_are_answered(studio: Running, program: str) -> None:
    recorded = json.loads((RECORDED / f"{program}.json").read_text("utf-8"))
    answers: dict[tuple[str, str], Any] = {}
    for call in recorded["calls"]:
        # Both send a password, also where there is none.
        answer = studio.http.request(
            call["method"], call["path"], json=call.get("body"), headers={"Authorization": "Basic"}
        )
        assert answer.status_code == 200, (call["path"], answer.text)
        answers[call["method"], call["path"].removeprefix(f"{API}/")] = answer.json()
    models = answers["GET", "sd-models"]
    assert [(each["title"], each["model_name"]) for each in models] == [("asymflow", "asymflow")]
    assert answers["GET", "options"]["sd_model_checkpoint"] == "asymflow"
    made = answers["POST", "txt2img"]
    assert picture(made["images"][0]).format == "PNG"
    assert json.loads(made["info"])["sampler_name"] in ("balanced", "best")
    assert "auth" not in made["parameters"]
    if program == "sillytavern":
        assert "forge_preset" not in answers["GET", "options"]
        for kind in ("samplers", "schedulers", "upscalers"):
            assert all(isinstance(each["name"], str) for each in answers["GET", kind])
        state = answers["GET", "progress"]
        assert (state["progress"], state["state"]["job_count"]) == (0.0, 0)


# --- what is asked for, and what is drawn ------------------------------------------------------


def test_steps_choose_the_plan_nearest_in_passes() -> None:
    plans = {f"p{n}": plan_of(shifted(n, 3.0)) for n in (3, 6, 12)}  # with guidance: 6, 12, 24
    for wanted, name in ((1, "p3"), (8, "p3"), (9, "p6"), (17, "p6"), (18, "p12"), (500, "p12")):
        assert nearest(plans, wanted, guided=True) == name
    assert nearest(plans, 5, guided=False) == "p6"
    assert passes(plans["p12"], guided=False) == 12


def about(card: Card, plans: Mapping[str, Plan]) -> tuple[Served, About]:
    def load() -> Any:
        raise AssertionError

    return Served("one", load), About("one", card, "ab" * 32, False, plans, next(iter(plans)))


def test_what_a_model_cannot_do_is_noted_and_not_refused() -> None:
    card = Card("Digits", "class", Sizes.only(28, 28), classes=("zero", "one"))
    served, known = about(card, {"draft": plan_of(shifted(4, 2.0)), "default": plan_of((1.0, 0.0))})
    request = Txt2Img.model_validate(
        {
            "prompt": "One ",
            "negative_prompt": "blurry",
            "cfg_scale": 7.0,
            "steps": 30,
            "width": 512,
            "height": 768,
            "styles": ["noto"],
            "seed": -1,
        }
    )
    order = order_of(served, known, request, None)
    assert (order.job.label, order.job.height, order.job.quality) == (1, 28, "draft")
    assert (order.job.guidance_scale, order.job.negative_prompt, order.job.seed) == (None, "", None)
    assert [note.partition(":")[0] for note in order.notes] == [
        "steps 30",
        "size 512x768",
        "negative_prompt",
        "styles 'noto'",
        "cfg_scale 7",
    ]
    assert order.notes[0].endswith("30 passes of the network; the plan 'draft' is nearest, with 4")


def test_sizes_are_those_of_the_card() -> None:
    sizes = Sizes((64, 64), 16, 256, multiple=8, trained=(32, 128))
    card = Card("Emoji", "prompt", sizes, negative=True, guided=True, guidance=5.0)
    served, known = about(card, {"draft": plan_of(shifted(4, 2.0))})

    def size(**more: int) -> tuple[int | None, int | None]:
        request = Txt2Img.model_validate({"prompt": "a fox", **more})
        job = order_of(served, known, request, None).job
        return job.height, job.width

    assert size() == (64, 64)
    assert size(width=0, height=0) == (64, 64)
    assert size(width=96, height=40) == (40, 96)
    assert size(width=96) == (96, 96)
    assert size(width=512, height=512) == (128, 128)
    assert size(width=1024, height=512) == (64, 128)


def test_a_long_prompt_is_cut_and_noted(serve: Serve) -> None:
    made = drawn(small(serve(), prompt="fox " * 600, seed=1))
    assert "prompt: cut from 2400 to" in made["info"]["asymflow"]["notes"][-1]
    assert made["info"]["prompt"] == "fox " * 600


def test_a_seed_of_minus_one_is_another_one_each_time(serve: Serve) -> None:
    server = serve()
    seeds = {drawn(small(server, seed=-1))["info"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_pictures_can_be_left_out(serve: Serve) -> None:
    assert drawn(small(serve(), send_images=False))["images"] == []


# --- masks -------------------------------------------------------------------------------------

WHITE_RIGHT = halves("L", 0, 255)


@pytest.mark.parametrize(
    ("mask", "more"),
    [
        (WHITE_RIGHT, {}),
        (halves("RGB", (0, 0, 0), (255, 255, 255)), {}),
        (halves("L", 255, 0), {"inpainting_mask_invert": 1}),
        # Of a mask with transparency the opaque part is painted, unlike in OpenAI's API.
        (halves("RGBA", (0, 0, 0, 0), (9, 9, 9, 255)), {}),
    ],
)
def test_where_a_mask_is_white_is_painted(
    studio: Running, mask: Image.Image, more: dict[str, Any]
) -> None:
    image = "data:image/png;base64," + encoded(Image.new("RGBA", (32, 32), GREEN))
    body = {"init_images": [image], "mask": encoded(mask), "seed": 1, **more}
    made = drawn(small(studio, "img2img", denoising_strength=1.0, **body))
    found = np.asarray(picture(made["images"][0]).convert("RGBA"))
    assert (found[:, :16] == GREEN).all()
    assert (found[:, 16:] != GREEN).any()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"mask": encoded(Image.new("L", (32, 32), 0))}, 400, "The mask selects nothing"),
        ({"mask": encoded(Image.new("L", (32, 64), 255))}, 400, "The mask has 32x64 pixels"),
        ({"mask": "https://example.org/a.png"}, 400, "mask: no address is ever fetched"),
        ({"init_images": ["no base64!"]}, 400, "init_images is not in base64"),
        ({"init_images": [base64.b64encode(b"no picture").decode()]}, 400, "is not a PNG, JPEG"),
        ({"init_images": ["YQ==", "YQ=="]}, 400, "2 init_images were sent"),
        ({"init_images": ["a" * 40_000_000]}, 413, "init_images has more than the 20000000 bytes"),
    ],
)
def test_bad_pictures_are_refused(
    studio: Running, body: dict[str, Any], status: int, message: str
) -> None:
    image = encoded(Image.new("RGBA", (32, 32), GREEN))
    answer = small(studio, "img2img", **{"init_images": [image], **body})
    assert answer.status_code == status
    assert message in answer.json()["detail"]


# --- progress and interruption -----------------------------------------------------------------


def started(pool: ThreadPoolExecutor, server: Running, **more: Any) -> Future[httpx.Response]:
    return pool.submit(small, server, sampler_name="default", **more)


def progress(server: Running, **params: Any) -> dict[str, Any]:
    return server.http.get(f"{API}/progress", params=params).json()


def test_progress_and_interruption_while_drawing(serve: Serve, slow: Slow) -> None:
    slow.seconds = 0.05
    server = serve()
    with ThreadPoolExecutor(1) as pool:
        waiting = started(pool, server, batch_size=2, seed=5)
        wait_until(
            lambda: progress(server)["state"]["sampling_step"] > 2 and progress(server),
            what="the third step",
        )
        told = progress(server)
        assert 0.01 <= told["progress"] < 1
        assert told["eta_relative"] > 0
        assert told["state"]["job_count"] == 2
        assert 2 < told["state"]["sampling_step"] < told["state"]["sampling_steps"]
        assert picture(told["current_image"]).size == (32, 32)
        assert progress(server, skip_current_image=True)["current_image"] is None
        assert server.http.post(f"{API}/interrupt").json() == {}
        made = drawn(waiting.result(20))
    assert made["info"]["asymflow"]["interrupted"] is True
    assert made["images"], "what there was of the pictures is returned"
    assert picture(made["images"][0]).size == (32, 32)
    assert made["info"]["all_seeds"] == [5, 6]
    idle = progress(server)
    assert (idle["progress"], idle["state"]["job_count"]) == (0.0, 0)


def test_other_clients_see_and_interrupt_nothing(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = started(pool, server)
        wait_until(lambda: progress(server)["state"]["job_count"], what="the start")
        other = {"X-Client": "another"}
        told = server.http.get(f"{API}/progress", headers=other).json()
        assert told["state"]["job_count"] == 0
        server.http.post(f"{API}/interrupt", headers=other)
        slow.gate.set()
        assert drawn(waiting.result(20))["info"]["asymflow"]["interrupted"] is False


def test_a_call_that_is_hung_up_is_cancelled(serve: Serve, slow: Slow) -> None:
    server = serve()
    slow.gate.clear()
    body = json.dumps({"prompt": "a fox", "width": 32, "height": 32}).encode()
    head = (
        f"POST {API}/txt2img HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = server.connect(head.encode() + body)
    wait_until(lambda: progress(server)["state"]["job_count"], what="the start")
    connection.close()
    wait_until(lambda: not progress(server)["state"]["job_count"], what="the end")


# --- models ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(real_model: pipeline.Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of the embedded model and one of classes."""
    chosen = Settings(data=tmp_path_factory.mktemp("two"), port=0, burst=10_000)
    loads = {
        "asymflow": lambda: real_model,
        "fashion": lambda: pipeline.load(str(JIT), dtype="float32", device="cpu"),
    }
    with running(chosen, loads) as found:
        yield found


def test_each_client_chooses_its_model(two: Running) -> None:
    api = client(two)
    assert api.util_get_model_names() == ["asymflow", "fashion"]
    api.set_options({"sd_model_checkpoint": "fashion"})
    assert api.util_get_current_model() == "fashion"
    api.util_wait_for_ready(check_interval=0.1)
    made = api.txt2img(prompt="3", steps=4, seed=1)
    assert (made.info["sd_model_name"], made.info["width"]) == ("fashion", 32)
    assert made.info["all_prompts"] == ["dress"]
    other = two.http.get(f"{API}/options", headers={"X-Client": "another"}).json()
    assert other["sd_model_checkpoint"] == "asymflow"
    once = small(two, override_settings={"sd_model_checkpoint": "asymflow"}, seed=1)
    assert drawn(once)["info"]["sd_model_name"] == "asymflow"
    for answer in (
        two.http.post(f"{API}/options", json={"sd_model_checkpoint": "sdxl"}),
        small(two, override_settings={"sd_model_checkpoint": "sdxl"}),
    ):
        assert answer.status_code == 404
        assert answer.json()["detail"] == (
            "There is no model 'sdxl' here: there is 'asymflow', 'fashion'."
        )
    refused = small(two, prompt="a fox", override_settings={"sd_model_checkpoint": "fashion"})
    assert (refused.status_code, refused.json()["error"]) == (400, "HTTPException")
    assert "'a fox' is not a class of" in refused.json()["detail"]


# --- errors and access -------------------------------------------------------------------------


def test_errors_have_the_shape_of_the_web_ui(serve: Serve, slow: Slow) -> None:
    server = serve()
    empty = small(server, prompt=" ")
    assert empty.status_code == 400
    assert empty.json() == {
        "error": "HTTPException",
        "detail": "The prompt is empty. Say what to draw.",
        "body": "",
        "errors": "",
    }
    invalid = small(server, steps=0, batch_size="many")
    assert invalid.status_code == 422
    assert [each["loc"] for each in invalid.json()["detail"]] == [
        ["body", "steps"],
        ["body", "batch_size"],
    ]
    assert set(invalid.json()["detail"][0]) == {"loc", "msg", "type"}
    many = small(server, batch_size=8, n_iter=4)
    assert "8 times n_iter 4 are 32 pictures" in many.json()["detail"][0]["msg"]
    no_json = server.http.post(
        f"{API}/txt2img", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert (no_json.status_code, no_json.json()["detail"][0]["type"]) == (422, "json_invalid")
    assert server.http.get(f"{API}/interrogate").json()["detail"] == "Not Found"
    assert server.http.get("/api/jobs/none").json()["error"]["code"] == "not_found"  # not of theirs
    slow.broken = True
    failed = small(server)
    assert (failed.status_code, set(failed.json())) == (
        500,
        {"error", "detail", "body", "errors"},
    )


def test_the_password_is_the_token(serve: Serve) -> None:
    server = serve(token=TOKEN)
    bare = httpx.Client(base_url=server.url, timeout=30)
    with bare:
        refused = bare.get(f"{API}/options")
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Basic"
        assert refused.json()["error"] == "HTTPException"
        for wrong in ((TOKEN, "wrong"), ("me", ""), ("me", TOKEN[:-1])):
            assert bare.get(f"{API}/options", auth=wrong).status_code == 401
        for header in ("Basic", "Basic !", "Basic 77+9", f"Basic {TOKEN}"):
            headers = {"Authorization": header}
            assert bare.get(f"{API}/options", headers=headers).status_code == 401
        assert bare.get(f"{API}/options", auth=("anybody", TOKEN)).status_code == 200
        # Passwords are of this API only.
        assert bare.get("/v1/models", auth=("anybody", TOKEN)).status_code == 401
        assert bare.get("/v1/models").headers["WWW-Authenticate"] == "Bearer"
    api = client(server, username="anybody", password=TOKEN)
    assert api.txt2img(prompt="a fox", width=32, height=32, steps=2).image.size == (32, 32)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with the model that costs nothing."""
    chosen = Settings(data=tmp_path_factory.mktemp("idle"), port=0, burst=100_000)
    model: Any = Slow()
    with running(chosen, lambda: pipeline.of(model, dtype="float32", device="cpu")) as found:
        yield found


@settings(max_examples=150, deadline=None)
@given(
    body=st.dictionaries(
        st.sampled_from(
            [*Txt2Img.model_fields, "init_images", "mask", "denoising_strength", "resize_mode"]
        ),
        JSON,
        max_size=5,
    ),
    path=st.sampled_from(["txt2img", "img2img", "options", "png-info"]),
)
@example(
    body={"prompt": math.inf, "steps": math.nan, "override_settings": {"x": -math.inf}},
    path="txt2img",
)
@example(body={"CFG": math.inf, "cfg_scale": math.inf, "seed": math.inf}, path="img2img")
def test_no_body_breaks_it(idle: Running, body: dict[str, Any], path: str) -> None:
    # As text, since the client refuses infinities, which others send.
    kind = {"content-type": "application/json"}
    answer = idle.http.post(f"{API}/{path}", content=json.dumps(body), headers=kind)
    assert answer.status_code < 500, answer.text
    assert answer.status_code == 200 or "detail" in answer.json()


def test_every_fixed_answer_can_be_had(idle: Running) -> None:
    for name, value in NOTHING.items():
        assert idle.http.get(f"{API}/{name}").json() == value
