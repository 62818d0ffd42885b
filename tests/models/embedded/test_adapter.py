"""The embedded model as an adapter: files, bad input, and independence inside a batch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from asymflow.core import engine
from asymflow.core.adapter import Adapter
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Request
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded.detail import DetailConfig
from asymflow.models.embedded.network import PictureConfig, PictureModel
from asymflow.models.embedded.transformer import TransformerConfig

SHAPE = TransformerConfig(width=64, depth=2, head_dim=32, hidden=1024, text_width=32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = PictureModel(PictureConfig(("noto", "twemoji"), SHAPE, rank=8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.text.set_vectors(torch.randn(30522, 32))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    embedded.save(model, path, training={"recipe": "tiny"})
    return path


def request(prompt: str = "a fox", seed: int = 0, side: int = 32, **inputs: object) -> Request:
    return Request({"prompt": prompt, **inputs}, (side, side), seed, guidance_scale=2.5)


def test_a_file_of_another_format_says_what_to_pass(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"format": "asymflow-embedded-99"})
    with pytest.raises(FileFormatError, match="Pass a file that `asymflow train` exported"):
        embedded.load(path)


def test_it_is_an_adapter_and_keeps_its_provenance(weights: Path) -> None:
    adapter = embedded.load(weights)
    assert isinstance(adapter, Adapter)
    assert adapter.training == {"recipe": "tiny"}
    assert adapter.styles == ("noto", "twemoji")
    assert adapter.weights_hash == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert adapter.name == f"embedded:{adapter.weights_hash[:12]}"


def test_saved_and_loaded_again_it_draws_the_same(weights: Path, tmp_path: Path) -> None:
    adapter = embedded.load(weights)
    copy = tmp_path / "copy.safetensors"
    with pytest.raises(InputError, match="packed=False"):
        embedded.save(adapter.model, copy, training={})
    assert not copy.exists()
    unpacked = embedded.load(weights, packed=False)
    embedded.save(unpacked.model, copy, training=unpacked.training)
    plan = plan_of(shifted(3, 2.0))
    first, second = (
        engine.run(each, plan, [request()])[0].picture for each in (adapter, embedded.load(copy))
    )
    assert np.array_equal(first, second)


def test_a_picture_is_the_same_alone_in_any_batch_and_twice(weights: Path) -> None:
    adapter = embedded.load(weights)
    plan = plan_of(shifted(4, 2.0), guidance_interval=(0.2, 1.0))
    requests = [
        request("a fox", 3, style="noto"),
        request("two cats on a sofa", 4, negative="dog"),
        request("a fox", 5, side=64),
        request("a fox", 3, style="twemoji"),
    ]
    together = engine.run(adapter, plan, requests)
    for batch in ([requests[0]], requests[2:], list(reversed(requests))):
        for result in engine.run(adapter, plan, batch):
            index = next(i for i, r in enumerate(requests) if r is result.request)
            assert np.array_equal(result.picture, together[index].picture)
    assert not np.array_equal(together[0].picture, together[3].picture)


def test_unconditional_contexts_are_computed_once(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    own = embedded.tokenize

    def tokenize(tokenizer: Any, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        texts.extend(prompts)
        return own(tokenizer, prompts)

    monkeypatch.setattr(embedded, "tokenize", tokenize)
    adapter = embedded.load(weights)
    wanted = [request("a fox"), request("a cat", negative="red"), request("a dog", side=40)]
    first = [adapter.encode([each])[1] for each in wanted]
    again = [adapter.encode([each])[1] for each in wanted]
    assert texts == ["", "a fox", "red", "a cat", "", "a dog", "a fox", "a cat", "a dog"]
    fresh = [embedded.load(weights).encode([each])[1] for each in wanted]
    for one, other, third in zip(first, again, fresh, strict=True):
        assert all(torch.equal(one[k], other[k]) and torch.equal(one[k], third[k]) for k in one)


def test_an_emoji_is_read_as_its_name(weights: Path) -> None:
    adapter = embedded.load(weights)
    spelled, written, other = (
        adapter.encode([request(prompt)])[0]["keys"] for prompt in ("a 🦊", "a fox", "a cat")
    )
    assert torch.equal(spelled, written)
    assert not torch.equal(spelled, other)


def test_pictures_are_premultiplied_and_round_trip(weights: Path) -> None:
    adapter = embedded.load(weights)
    rng = np.random.default_rng(0)
    picture = rng.random((16, 24, 4), dtype=np.float32)
    picture[..., :3] *= picture[..., 3:]
    assert np.allclose(adapter.to_picture(adapter.to_state(picture)), picture, atol=1e-6)
    wild = adapter.to_picture(torch.randn(4, 16, 16) * 3)
    assert (wild[..., :3] <= wild[..., 3:]).all()
    assert wild.min() >= 0
    assert wild.max() <= 1


def test_an_unknown_style_suggests_the_nearest(weights: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'twemoji'"):
        embedded.load(weights).check(request(style="twemojis"))


@pytest.mark.parametrize("side", [0, -8, 20, 8, 2056])
def test_an_impossible_size_suggests_a_possible_one(weights: Path, side: int) -> None:
    with pytest.raises(InputError, match=r"Try \d+"):
        embedded.load(weights).check(request(side=side))


def test_damaged_foreign_and_missing_files_are_refused(weights: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(weights.read_bytes()[:-1000])
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(2)}, foreign)
    for path in (damaged, foreign, tmp_path / "missing.safetensors", Path(__file__)):
        with pytest.raises(FileFormatError, match=path.name):
            embedded.load(path)


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the second format, that looks at two drawings."""
    torch.manual_seed(0)
    config = PictureConfig(
        ("noto", "twemoji"),
        SHAPE,
        rank=0,
        detail=DetailConfig(8, 12, gates=True),
        skip=0.2,
        references=2,
    )
    model = PictureModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.text.set_vectors(torch.randn(30522, 32))
    path = tmp_path_factory.mktemp("looking") / "tiny.safetensors"
    embedded.save(model, path, training={})
    return path


def drawn(adapter: embedded.EmbeddedAdapter, *requests: Request) -> list[np.ndarray]:
    plan = plan_of(shifted(3, 2.0))
    return [result.picture for result in engine.run(adapter, plan, requests)]


def test_a_model_with_references_is_kept_in_a_file(looking: Path) -> None:
    adapter = embedded.load(looking)
    assert adapter.references == 2
    assert adapter.model.config.detail == DetailConfig(8, 12, gates=True)
    assert adapter.model.config.skip == 0.2
    one, other = drawn(adapter, request()), drawn(embedded.load(looking), request())
    assert np.array_equal(one[0], other[0])


def test_it_looks_the_prompt_up_and_says_what_it_found(looking: Path) -> None:
    adapter = embedded.load(looking)
    pictures, shown = adapter.find_references(request("a fox", style="noto"))
    assert pictures.shape == (2, 32, 32, 4)
    assert shown == ("fox, fluent-flat", "fox, twemoji")
    assert adapter.find_references(request("a fox", style="twemoji"))[1] == (
        "fox, noto",
        "fox, fluent-flat",
    )
    assert adapter.find_references(request("qqqqq"))[1] == ()
    assert adapter.find_references(request("a fox", reference=None))[1] == ()
    # A style that only the words name keeps its own drawing away just the same.
    named = adapter.find_references(request("a fox in twemoji style"))[1]
    assert named == ("fox, noto", "fox, fluent-flat")


def test_models_with_other_word_vectors_look_things_up_in_one_library(looking: Path) -> None:
    small, shipped = embedded.load(looking), embedded.load()
    for adapter in (shipped, small, shipped):
        assert adapter.find_references(request("qqqqq"))[1] == ()


def test_what_it_looks_at_changes_the_picture(looking: Path) -> None:
    adapter = embedded.load(looking)
    own = np.random.default_rng(0).random((48, 40, 4)).astype(np.float32)
    own[..., 3] = 1
    found, nothing, given = drawn(
        adapter, request(), request(reference=None), request(reference=own)
    )
    assert adapter.find_references(request(reference=own))[1] == ("given",)
    assert not np.array_equal(found, nothing)
    assert not np.array_equal(found, given)
    # In a batch as alone.
    [alone] = drawn(adapter, request(reference=own))
    assert np.array_equal(given, alone)


def test_a_thing_on_paper_is_used_alone_and_as_large_as_an_emoji(looking: Path) -> None:
    sheet = np.ones((200, 90, 4), np.float32)
    sheet[150:180, 10:20, :3] = (0.8, 0.1, 0.1)
    [seen], _ = embedded.load(looking).find_references(request(reference=sheet))
    ink = np.argwhere(seen[..., 3] > 0.5)
    (top, left), (bottom, right) = ink.min(axis=0), ink.max(axis=0) + 1
    assert (bottom - top, right - left) == (31, 10)
    assert abs(top + bottom - 32) <= 1
    assert abs(left + right - 32) <= 1


def test_half_the_side_sees_pooled_drawings(looking: Path) -> None:
    adapter = embedded.load(looking)
    [cond, _] = adapter.encode([request(side=64)])
    x_t, t = torch.randn(1, 4, 32, 32), torch.tensor([0.7])
    assert adapter.denoise(x_t, t, cond).shape == x_t.shape
