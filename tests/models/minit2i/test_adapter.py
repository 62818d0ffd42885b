"""MiniT2I against its official sampler: states, guidance, prompts, files, bad input."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import compiler, engine
from asymflow.core.card import Carded
from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.core.types import Plan, Request, Step, Tier
from asymflow.models.minit2i.adapter import MiniT2IAdapter, adapt, load, plan
from asymflow.models.minit2i.checkpoint import PREFIX
from asymflow.models.minit2i.network import SHAPES, MiniT2IModel
from tests.models.minit2i.official import (
    SHAPE,
    chirp,
    features,
    network,
    noise,
    recorded,
    state,
)

SIZE = (8, 8)


def prompts(prompt: str) -> Tensor:
    """One token for each letter, up to seven; `features` for "four"."""
    return features() if prompt == "four" else chirp(prompt, 1, min(len(prompt), 7), 10)


def adapter(floor: float = 0.05) -> MiniT2IAdapter:
    return adapt(network(), prompts, floor=floor)


def request(prompt: str = "four", seed: int = 0, scale: float = 2.5) -> Request:
    return Request({"prompt": prompt}, SIZE, seed, scale)


# The official sampler.


@pytest.fixture
def official_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture begins with the noise that the official sampler was given."""

    def drawn(seed: int, shape: Sequence[int]) -> Tensor:
        return noise()

    monkeypatch.setattr(compiler, "noise", drawn)


@pytest.mark.usefixtures("official_noise")
def test_every_recorded_step_is_that_of_the_official_sampler() -> None:
    model = adapter()
    frames = list(engine.walk(model, model.own_plan(SIZE), [request()]))
    _, _, states = recorded()
    assert len(frames) == 100
    for steps, expected in states.items():
        assert_close(2 * frames[steps - 1].x_t[0], expected, atol=1e-4, rtol=0)
    expected = ((states[100] + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(model.to_picture(frames[-1].x_t[0]), expected, atol=1e-4)
    assert model.own_plan(SIZE).forwards == 200


@pytest.mark.usefixtures("official_noise")
@pytest.mark.parametrize(
    ("floor", "scale", "prompt"), [(0.0, 2.5, "four"), (0.05, 2.4, "four"), (0.05, 2.5, "fours")]
)
def test_the_test_of_recorded_steps_would_notice_settings(
    floor: float, scale: float, prompt: str
) -> None:
    _, _, states = recorded()
    *_, last = engine.walk(adapter(floor), plan(), [request(prompt, scale=scale)])
    assert (2 * last.x_t[0] - states[100]).abs().max() > 1e-2


# Prompts and guidance.


def test_without_a_prompt_the_model_is_unconditional() -> None:
    _, unconditional, _ = recorded()
    model = adapter(floor=0)
    x_t, t = chirp("picture", 1, 3, 8, 8) / 2, torch.tensor([0.7])
    nobody = Request({}, SIZE, 0)
    for asked in ([nobody], [request(), nobody]):
        cond, null = model.encode(asked)
        assert torch.equal(cond["text"][-1:], null["text"][-1:])
        found = model.denoise(x_t, t, {"text": null["text"][:1]})
        assert_close(2 * found[0], unconditional, atol=1e-5, rtol=0)


def test_prompts_of_any_length_share_a_batch() -> None:
    model = adapter()
    words = ("a", "seven letters", "four", "")
    together = engine.run(model, plan(4), [request(w, seed) for seed, w in enumerate(words)])
    for seed, (word, result) in enumerate(zip(words, together, strict=True)):
        [alone] = engine.run(model, plan(4), [request(word, seed)])
        np.testing.assert_array_equal(alone.picture, result.picture)
    rows, _ = model.encode([request(word) for word in words])
    assert rows["text"].shape == (4, 7, 24)
    for row, word in zip(rows["text"], words, strict=True):
        one, _ = model.encode([request(word)])
        assert torch.equal(one["text"][0], row)


def test_guidance_is_away_from_no_prompt() -> None:
    model = adapter()
    cond, null = model.encode([request()])
    step = Plan("one", (Step(0.6, 0.0, solver="euler"),))
    [frame] = engine.walk(model, step, [request(scale=3.0)])
    x_t, t = 0.6 * engine.noise(0, (1, 3, 8, 8)), torch.tensor([0.6])
    with_, without = model.denoise(x_t, t, cond), model.denoise(x_t, t, null)
    assert_close(frame.x_0, without + 3 * (with_ - without), atol=1e-5, rtol=1e-4)


# Plans and the card.


def test_the_card_is_that_of_the_variant() -> None:
    for name, guidance in (("B/16", 2.5), ("L/16", 6.0)):
        with torch.device("meta"):
            model = MiniT2IModel(SHAPES[name])
        card = MiniT2IAdapter(model, prompts, "0" * 64).card
        assert (card.title, card.guidance) == (f"MiniT2I-{name}", guidance)
        assert card.sizes.offered() == ((512, 512),)
    model = adapter()
    assert isinstance(model, Carded)
    card = model.card
    assert (card.title, card.asks, card.steps, card.guided) == ("MiniT2I", "prompt", 100, True)
    assert card.sizes.possible(SIZE)
    for inputs in card.calibration:
        model.check(Request(inputs, SIZE))


@pytest.mark.parametrize("floor", [0.0, 0.05, 0.2])
def test_the_default_plan_asks_nothing_below_the_floor(floor: float) -> None:
    model = adapter(floor)
    found = model.default_plan(SIZE)
    assert found.steps[0].t == 1
    assert found.steps[-1].s == 0
    assert min(step.t for step in found.steps) == pytest.approx(max(floor, 0.05))
    assert {step.solver for step in found.steps} == {"corrected2"}
    assert all(step.tier.guided == (step.t >= 0.1) for step in found.steps)
    assert len(found.steps) == 30
    assert 0.2 < found.forwards / model.own_plan(SIZE).forwards < 0.4
    # Above the floor estimates are the network's own.
    plain = engine.run(adapter(0.0), found, [request()])
    [result] = engine.run(model, found, [request()])
    np.testing.assert_allclose(result.picture, plain[0].picture, atol=1e-5)


def test_pictures_round_trip_through_the_state() -> None:
    model = adapter()
    picture = np.random.default_rng(0).random((8, 8, 3), dtype=np.float32)
    found = model.to_state(picture)
    assert found.abs().max() <= 0.5
    np.testing.assert_allclose(model.to_picture(found), picture, atol=1e-6)


def test_names_tell_settings_apart() -> None:
    other = network(replace(SHAPE, heads=3))
    names = {adapter().name, adapter(0.0).name, adapt(other, prompts).name}
    assert len(names) == 3
    assert adapter().name in names
    assert adapter(0.0).description.settings != adapter().description.settings


# Bad requests.


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Request({"prompt": "x"}, (16, 8)), r"Size 8x16 is not possible: .* 8x8 pixels"),
        (Request({"prompt": 3}, SIZE), r"prompt=3 is no text"),
        (Request({"prompt": None}, SIZE), r"prompt=None is no text"),
        (Request({"prompt": "x", "negative": "blurry"}, SIZE), r"'blurry' .* no negative prompts"),
    ],
)
def test_impossible_requests_are_refused(wanted: Request, words: str) -> None:
    with pytest.raises(InputError, match=words):
        engine.run(adapter(), plan(2), [wanted])


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(InputError, match=r"floor of 1\.0"):
        adapter(1.0)
    half = Plan("half", (Step(1.0, 0.0, Tier("half", pool_factor=2)),))
    with pytest.raises(InputError, match="pooled by 2"):
        engine.run(adapter(), half, [request()])
    adapter().check(Request({"prompt": "x", "negative": ""}, SIZE))


# Files.

WORDS = ("<pad>", "</s>", "<unk>", "a", "red", "fox", "and", "two", "blue", "cats")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as published, with its text encoder, small."""
    library: Any = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("minit2i")
    torch.manual_seed(0)
    shape = library.T5Config(
        vocab_size=len(WORDS), d_model=10, d_kv=4, d_ff=16, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    # FLAN-T5 is published whole, with its decoder.
    library.T5ForConditionalGeneration(shape).save_pretrained(folder / "text_encoder")
    tokenizer: Any = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "transformer").mkdir()
    save_file(state(), folder / "transformer" / "diffusion_pytorch_model.safetensors")
    settings = {"image_size": 8, "prompt_length": 7, "prediction": "x", "llm": "google/flan-t5"}
    (folder / "transformer" / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def copied(folder: Path, to: Path, **changes: Any) -> Path:
    """A transformer's folder with other tensors, or other settings."""
    inner = to / "transformer"
    inner.mkdir(parents=True)
    found = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file(found | changes.pop("tensors", {}), inner / "diffusion_pytorch_model.safetensors")
    settings = json.loads((folder / "transformer" / "config.json").read_text("utf-8"))
    (inner / "config.json").write_text(json.dumps(settings | changes), encoding="utf-8")
    return to


def test_a_published_folder_makes_the_model(published: Path) -> None:
    model = load(published)
    assert model.model.config == SHAPE
    assert model.name == adapter().name
    first, second, again = (
        engine.run(model, plan(3), [request(prompt)])[0].picture
        for prompt in ("a red fox", "two blue cats", "a red fox")
    )
    assert not np.allclose(first, second, atol=1e-3)
    np.testing.assert_array_equal(first, again)


def test_prompts_are_encoded_as_by_the_official_code(published: Path) -> None:
    """It pads ids to the number of tokens, and masks what is behind the prompt."""
    library: Any = pytest.importorskip("transformers")
    encoder = library.T5EncoderModel.from_pretrained(published / "text_encoder").eval()
    model = load(published)
    for prompt, ids in {
        "a red fox": [3, 4, 5, 1],
        "": [1],
        "a red fox and two blue cats and a fox": [3, 4, 5, 6, 7, 8, 1],
    }.items():
        padding = 7 - len(ids)
        rows, mask = torch.tensor([ids + padding * [0]]), torch.ones(1, 7)
        mask[:, len(ids) :] = 0
        with torch.no_grad():
            full = encoder(input_ids=rows, attention_mask=mask).last_hidden_state
        found = model.prompts(prompt)
        assert found.shape == (1, len(ids), 10)
        assert_close(found, full[:, : len(ids)], atol=1e-6, rtol=1e-5)


def test_files_and_folders_can_be_given_apart(published: Path, tmp_path: Path) -> None:
    [expected] = engine.run(load(published), plan(2), [request("a fox")])
    file = published / "transformer" / "diffusion_pytorch_model.safetensors"
    flat = tmp_path / "flan-t5"
    flat.mkdir()
    for name in ("text_encoder/config.json", "text_encoder/model.safetensors"):
        (flat / Path(name).name).write_bytes((published / name).read_bytes())
    (flat / "tokenizer.json").write_bytes((published / "tokenizer/tokenizer.json").read_bytes())
    for path in (file, file.parent, published):
        for text_encoder in (published, published / "text_encoder", flat):
            [result] = engine.run(
                load(path, text_encoder=text_encoder), plan(2), [request("a fox")]
            )
            np.testing.assert_array_equal(result.picture, expected.picture)


def test_without_settings_a_file_is_as_published(published: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(state(), file)
    config = load(file, text_encoder=published).model.config
    assert config == replace(SHAPE, size=512, text_tokens=256)


def test_half_precision_is_the_same_model(published: Path) -> None:
    half = load(published, dtype=torch.bfloat16)
    assert half.name == load(published).name
    assert half.model.transformer.head.weight.dtype == torch.bfloat16
    assert half.model.transformer.position.dtype == torch.float32
    assert half.prompts("a fox").dtype == torch.float32
    [result] = engine.run(half, plan(2), [request("a fox")])
    [exact] = engine.run(load(published), plan(2), [request("a fox")])
    assert result.picture.dtype == np.float32
    assert np.sqrt(np.square(result.picture - exact.picture).mean()) < 0.05


def test_a_missing_text_encoder_is_named(published: Path, tmp_path: Path) -> None:
    alone = copied(published, tmp_path / "alone")
    with pytest.raises(FileFormatError, match=r"there is no \S+alone\S+text_encoder\. Give text_"):
        load(alone)
    with pytest.raises(FileFormatError, match=r"There is no text encoder in \S+nowhere"):
        load(alone, text_encoder=tmp_path / "nowhere")
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((published / "text_encoder" / name).read_bytes())
    with pytest.raises(FileFormatError, match=r"has no tokenizer: there is no \S+tokenizer\.json"):
        load(alone, text_encoder=bare)
    (bare / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"Cannot read \S+tokenizer\.json"):
        load(alone, text_encoder=bare)
    (bare / "tokenizer.json").write_bytes((published / "tokenizer/tokenizer.json").read_bytes())
    (bare / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(FileFormatError, match=r"Cannot read \S+bare"):
        load(alone, text_encoder=bare)
    save_file({"weight": torch.zeros(1)}, bare / "model.safetensors", {"format": "pt"})
    with pytest.raises(FileFormatError, match=r"is no T5 encoder: it has no 'encoder\."):
        load(alone, text_encoder=bare)


def test_a_text_encoder_of_another_width_is_refused(published: Path, tmp_path: Path) -> None:
    wide = replace(SHAPE, text_width=12)
    file = tmp_path / "model.safetensors"
    save_file(state(wide), file)
    with pytest.raises(FileFormatError, match="features have 10 numbers, and the network takes 12"):
        load(file, text_encoder=published)


def test_transformers_may_be_missing(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"'transformers'.*\[text\]"):
        load(published)


def test_bad_files_are_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"Cannot read \S+none\.safetensors"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not a model")
    with pytest.raises(FileFormatError, match=r"Cannot read \S+broken\.safetensors"):
        load(tmp_path / "broken.safetensors")
    with pytest.raises(FileFormatError, match=r"There is no .*transformer.* Give a published"):
        load(tmp_path)
    copied(published, tmp_path / "all" / "minit2i-b-16")
    with pytest.raises(FileFormatError, match=r"one of its folders: minit2i-b-16, or a file"):
        load(tmp_path / "all")
    wrong = copied(published, tmp_path / "wrong", tensors={PREFIX + "time_tokens": torch.ones(1)})
    with pytest.raises(FileFormatError, match=r"Cannot read \S+ .*unexpected: \S+time_tokens"):
        load(wrong, text_encoder=published)
    odd = copied(published, tmp_path / "odd", image_size=9)
    with pytest.raises(InputError, match=r"Cannot read .* 9 pixels are not made of patches"):
        load(odd, text_encoder=published)
    for name, setting, words in (
        ("v", {"prediction": "v"}, r"prediction 'v', and only 'x'"),
        ("text", {"image_size": "big"}, r"image_size = 'big'"),
        ("none", {"prompt_length": 0}, r"prompt_length = 0"),
    ):
        with pytest.raises(FileFormatError, match=rf"config\.json has {words}"):
            load(copied(published, tmp_path / name, **setting), text_encoder=published)
