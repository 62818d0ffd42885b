"""MiniT2I's transformer against the official code, and its published tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core.errors import FileFormatError, InputError
from asymflow.models.jit.network import picture_of
from asymflow.models.minit2i.checkpoint import (
    PREFIX,
    built,
    config_of,
    published_name,
    recognises,
)
from asymflow.models.minit2i.network import SHAPES, MiniT2IModel
from tests.models.minit2i.official import SHAPE, UNUSED, chirp, features, network, recorded, state


def answer(model: MiniT2IModel, known: Tensor, floor: float = 0.0, t: float = 0.7) -> Tensor:
    """In the official units, of features [1, l, 10]."""
    text = model.transformer.encode(known)
    x_t = chirp("picture", 1, 3, 8, 8) / 2
    return 2 * model(x_t, torch.tensor([t]), text, floor=floor)[0]


def test_answers_are_those_of_the_official_network() -> None:
    conditional, unconditional, _ = recorded()
    model = network()
    assert_close(answer(model, features()), conditional, atol=1e-5, rtol=0)
    assert_close(answer(model, features()[:, :0]), unconditional, atol=1e-5, rtol=0)
    assert (conditional - unconditional).std() > 0.1


@pytest.mark.parametrize("table", ["position", "rope_cos", "rope_sin"])
def test_the_test_of_answers_would_notice_positions(table: str) -> None:
    """Rows and columns exchanged, words in another order."""
    conditional, _, _ = recorded()
    model = network()
    known: Tensor = getattr(model.transformer, table)
    patches = known.view(-1, known.shape[-1])[-16:].view(4, 4, -1)
    patches.copy_(patches.transpose(0, 1).clone())
    assert (answer(model, features()) - conditional).abs().max() > 1e-3
    if table != "position":
        model = network()
        getattr(model.transformer, table)[:7] = getattr(model.transformer, table)[:7].flip(0)
        assert (answer(model, features()) - conditional).abs().max() > 1e-3


def test_time_has_no_effect_but_by_the_floor() -> None:
    model = network()
    x_0, x_t = answer(model, features()), chirp("picture", 3, 8, 8)
    for t in (0.0, 0.02, 0.05, 1.0):
        assert torch.equal(answer(model, features(), t=t), x_0)
        velocity = (x_t - x_0) / max(t, 0.05)
        found = answer(model, features(), floor=0.05, t=t)
        assert_close(found, x_t - t * velocity, atol=1e-6, rtol=0)


def test_rows_have_texts_of_their_own() -> None:
    model = network()
    texts = [model.transformer.encode(each) for each in (features(), features()[:, :2])]
    x_t = chirp("rows", 2, 3, 8, 8)
    together = model(x_t, torch.tensor([0.2, 0.9]), torch.cat(texts))
    for row, text in enumerate(texts):
        alone = model(x_t[row : row + 1], torch.tensor([0.5]), text)
        assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_half_precision_keeps_to_the_answer() -> None:
    exact = answer(network(), features())
    half = answer(network().to(torch.bfloat16), features())
    assert half.dtype == torch.float32
    assert (half - exact).square().mean().sqrt() < 0.05 * exact.std()


def test_the_plain_network_sees_the_official_state() -> None:
    model = network()
    text, x_t = model.transformer.encode(features()), chirp("picture", 1, 3, 8, 8)
    plain = picture_of(model.transformer(2 * x_t, text), 2, 4)
    assert torch.equal(model(x_t, torch.tensor([0.4]), text), plain / 2)


# Files.


@pytest.mark.parametrize(("name", "weights"), [("B/16", 256_548_480), ("L/16", 908_609_256)])
def test_the_published_shapes_are_read_from_tensors(name: str, weights: int) -> None:
    """Together with the unused layers, the official code has 258,122,880 and 911,766,696."""
    with torch.device("meta"):
        model = MiniT2IModel(SHAPES[name])
    assert sum(each.numel() for each in model.parameters()) == weights
    named = {published_name(n): value for n, value in model.state_dict().items()}
    assert config_of(named) == SHAPES[name]
    assert recognises({n: tuple(value.shape) for n, value in named.items()})


@pytest.mark.parametrize(
    "change", [{}, {"heads": 3, "depth": 1}, {"text_depth": 0}, {"channels": 1, "hidden": 8}]
)
def test_shapes_are_read_from_tensors(change: dict[str, int]) -> None:
    config = replace(SHAPE, **change)
    found = state(config)
    assert config_of(found, size=8, text_tokens=7) == config
    model = built(config, found)
    ours = {published_name(name): value for name, value in model.state_dict().items()}
    assert found.keys() - ours.keys() == {PREFIX + name for name in UNUSED}
    assert all(torch.equal(value, found[name]) for name, value in ours.items())


def test_layers_without_effect_may_be_missing() -> None:
    bare = {name: v for name, v in state().items() if name.removeprefix(PREFIX) not in UNUSED}
    assert len(bare) == len(state()) - 5
    assert torch.equal(answer(built(SHAPE, bare), features()), answer(network(), features()))


def test_other_networks_are_not_recognised() -> None:
    shapes = {name: tuple(value.shape) for name, value in state().items()}
    assert recognises(shapes)
    assert not recognises({})
    assert not recognises({n.removeprefix("model."): shape for n, shape in shapes.items()})
    assert not recognises({n: s for n, s in shapes.items() if "mask_token" not in n})
    assert not recognises(shapes | {PREFIX + "mask_token": (10,)})


def test_foreign_weights_are_named() -> None:
    found = state()
    block = PREFIX + "double_blocks."
    with pytest.raises(FileFormatError, match=r"missing: \S+\.1\.txt_mlp\.w3\.weight\. Give"):
        built(SHAPE, {n: v for n, v in found.items() if n != block + "1.txt_mlp.w3.weight"})
    # The distilled network of four steps has these.
    with pytest.raises(FileFormatError, match=r"unexpected: model\.net\.time_tokens\. Give"):
        built(SHAPE, found | {PREFIX + "time_tokens": torch.zeros(1, 4, 24)})
    bias = PREFIX + "final_layer.linear.bias"
    with pytest.raises(FileFormatError, match=r"linear\.bias \(3,\) instead of \(12,\)"):
        built(SHAPE, found | {bias: torch.zeros(3)})
    gap = {name.replace(block + "1.", block + "5."): value for name, value in found.items()}
    config = config_of(gap, size=8, text_tokens=7)
    with pytest.raises(FileFormatError, match=r"missing: .*; unexpected: \S+\.5\.txt_norm1"):
        built(config, gap)
    with pytest.raises(FileFormatError, match=r"no tensor 'model\.net\.img_emb.*', but conv\.w"):
        config_of({"conv.weight": torch.zeros(1)})
    with pytest.raises(FileFormatError, match=r"'model\.net\.mask_token' has shape \(10,\)"):
        config_of(found | {PREFIX + "mask_token": torch.zeros(10)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 9}, "9 pixels are not made of patches of 2"),
        ({"width": 26}, "width=26 has no room"),
        ({"head_dim": 6}, "head_dim=6 has no room"),
        ({"heads": 0}, "0 heads"),
        ({"noise_scale": 0.0}, r"noise_scale=0\.0"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(SHAPE, **change)
