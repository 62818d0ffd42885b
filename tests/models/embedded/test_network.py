"""The embedded network: shapes, what its output means, and what it must not depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from asymflow.core.flow import asymmetric_from_x_0, interpolate, x_0_from_asymmetric
from asymflow.models.embedded import transformer
from asymflow.models.embedded.network import PictureConfig, PictureModel, patch_basis
from asymflow.models.embedded.text import MAX_TOKENS, TextTower, load_tokenizer, tokenize
from asymflow.models.embedded.transformer import TransformerConfig, attention, rotary
from asymflow.models.patches import patchify, unpatchify
from asymflow.planning import costs

SHAPE = TransformerConfig(width=64, depth=2, head_dim=32, hidden=96, text_width=32)


def picture_model(rank: int = 16, shape: TransformerConfig = SHAPE) -> PictureModel:
    torch.manual_seed(0)
    model = PictureModel(PictureConfig(("noto", "twemoji"), shape, vocabulary=50, rank=rank))
    with torch.no_grad():  # heads start at zero, which would hide every mistake
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def some_context(model: PictureModel, b: int = 2) -> dict[str, Tensor]:
    ids = torch.arange(1, 1 + 5 * b).reshape(b, 5)
    return model.context(ids, torch.ones(b, 5, dtype=torch.bool), torch.zeros(b, dtype=torch.long))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 32), (40, 8)])
def test_patches_round_trip(height: int, width: int) -> None:
    x = torch.randn(2, 4, height, width)
    tokens = patchify(x, 8)
    assert tokens.shape == (2, height * width // 64, 256)
    assert torch.equal(unpatchify(tokens, 8, height, width), x)
    # Row by row, so that token 1 is the patch to the right of token 0.
    if width > 8:
        assert torch.equal(tokens[:, 1], x[:, :, :8, 8:16].flatten(1))


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (32, 64), (24, 40)])
def test_every_size_in_multiples_of_the_patch(size: tuple[int, int]) -> None:
    model = picture_model()
    x_t = torch.randn(2, 4, *size)
    assert model(x_t, torch.rand(2), some_context(model)).shape == x_t.shape


@pytest.mark.parametrize("rank", [0, 7, 256])
def test_output_is_read_as_rank_asymmetric_velocity(rank: int) -> None:
    model = picture_model(rank)
    x_t, t, context = torch.randn(2, 4, 16, 16), torch.tensor([0.3, 0.9]), some_context(model)
    trunk = model.transformer
    tokens = trunk(
        trunk.embed(patchify(x_t, 8)), trunk.conditioned(t, (2, 2), context), (2, 2), context
    )
    u_a = unpatchify(trunk.head(tokens), 8, 16, 16)

    def project(x: Tensor) -> Tensor:
        return unpatchify(patchify(x, 8) @ model.basis.T @ model.basis, 8, 16, 16)

    expected = x_0_from_asymmetric(x_t, u_a, t, project)
    assert torch.allclose(model(x_t, t, context), expected, atol=1e-5)
    if rank == 0:
        assert torch.allclose(expected, -u_a)
    if rank == 256:
        assert torch.allclose(expected, x_t - t.view(-1, 1, 1, 1) * u_a, atol=1e-5)


def test_a_perfect_prediction_gives_back_the_picture() -> None:
    x_0, eps, t = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16), torch.tensor([0.2, 1.0])
    basis = patch_basis(torch.randn(8, 4, 16, 16), patch=8, rank=5)

    def project(x: Tensor) -> Tensor:
        return unpatchify(patchify(x, 8) @ basis.T @ basis, 8, 16, 16)

    u_a = asymmetric_from_x_0(x_0, eps, project)
    assert torch.allclose(
        x_0_from_asymmetric(interpolate(x_0, eps, t), u_a, t, project), x_0, atol=1e-5
    )


def test_patch_basis_is_orthonormal_and_finds_the_planted_subspace() -> None:
    torch.manual_seed(1)
    planted = torch.linalg.qr(torch.randn(256, 3)).Q.T
    pictures = unpatchify(torch.randn(40, 4, 3) @ planted * 5, 8, 16, 16)
    basis = patch_basis(pictures + 0.01 * torch.randn(40, 4, 16, 16), patch=8, rank=3)
    assert torch.allclose(basis @ basis.T, torch.eye(3), atol=1e-5)
    assert torch.allclose(basis.T @ basis, planted.T @ planted, atol=1e-2)


def test_rotary_scores_depend_on_relative_positions_only() -> None:
    cos, sin = rotary(4, 4, 32, torch.device("cpu"), torch.float32)
    q, k = torch.randn(32), torch.randn(32)

    def turn(x: Tensor, position: int) -> Tensor:
        return x * cos[position, 0] + x.roll(16) * sin[position, 0]

    # (row, column) differences of (1, 2) from two places, then another difference.
    first = turn(q, 0) @ turn(k, 6)
    assert torch.allclose(first, turn(q, 5) @ turn(k, 11), atol=1e-4)
    assert not torch.allclose(first, turn(q, 0) @ turn(k, 9), atol=1e-2)


def test_rotary_places_a_picture_the_same_at_every_resolution() -> None:
    small, _ = rotary(2, 2, 32, torch.device("cpu"), torch.float32)
    large, _ = rotary(6, 6, 32, torch.device("cpu"), torch.float32)
    # The centre of patch (0, 0) of a 2x2 grid is the centre of patch (1, 1) of a 6x6 grid.
    assert torch.allclose(small[0], large[7], atol=1e-5)


def test_training_attention_equals_the_fused_kernel() -> None:
    q, k, v = (torch.randn(2, 3, n, 8) for n in (5, 7, 7))
    bias = torch.where(torch.rand(2, 1, 1, 7) > 0.3, 0.0, -torch.inf)
    bias[..., 0] = 0.0
    spelled_out = attention(q, k, v, bias)
    with torch.inference_mode():
        assert torch.allclose(spelled_out, attention(q, k, v, bias), atol=1e-6)


@pytest.mark.parametrize("size", [(136, 136), (64, 512)])
def test_many_tokens_in_parts_give_the_same(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = picture_model()
    x_t, t = torch.randn(2, 4, *size), torch.tensor([0.3, 0.9])
    with torch.no_grad():
        context = some_context(model)
        parts = model(x_t, t, context)
        monkeypatch.setattr(transformer, "PART", 10**6)
        whole = model(x_t, t, context)
    assert (parts - whole).abs().max() < 1e-5
    assert not torch.equal(parts, torch.zeros_like(parts))


def test_parts_and_turns_save_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # As wide as the real one beside its patches: those are small there.
    model = picture_model(shape=replace(SHAPE, width=384, depth=1, head_dim=64, hidden=1024))
    x_t, t = torch.randn(2, 4, 256, 256), torch.tensor([0.3, 0.9])

    def peak(rows: int) -> int:
        context = {key: value[:rows] for key, value in some_context(model).items()}
        return costs.peak_bytes(lambda: model(x_t[:rows], t[:rows], context))

    with torch.no_grad():
        together, alone = peak(2), peak(1)
        monkeypatch.setattr(transformer, "PART", 10**6)
        whole = peak(2)
    assert alone < 0.65 * together
    assert together < 0.7 * whole


def test_padding_of_a_prompt_changes_nothing() -> None:
    tokenizer = load_tokenizer()
    prompts = ["a fox", "a small red apple under a tree on a blue background"]
    tower = TextTower(30522, styles=2, width=32).eval()
    tower.set_vectors(torch.randn(30522, 32))
    style = torch.tensor([1, 0])
    padded, padded_mask, summary = tower(*tokenize(tokenizer, prompts), style)
    alone, _, alone_summary = tower(*tokenize(tokenizer, prompts[:1], length=None), style[:1])
    assert padded.shape[1] == MAX_TOKENS + 1
    assert int(padded_mask[0].sum()) == 5  # [CLS] a fox [SEP] and the style
    assert torch.allclose(summary[:1], alone_summary, atol=1e-5)
    assert torch.allclose(padded[0, :4], alone[0, :4], atol=1e-5)


def test_word_vectors_survive_eight_bits() -> None:
    tower = TextTower(20, styles=1, width=32)
    vectors = torch.randn(20, 32) * torch.logspace(-3, 3, 20)[:, None]
    tower.set_vectors(vectors)
    error = (tower.vectors() - vectors).abs().amax(dim=1)
    assert (error <= vectors.abs().amax(dim=1) / 254 * 1.001).all()


def test_prompt_and_style_matter() -> None:
    model = picture_model()
    model.text.set_vectors(torch.randn(50, 32))
    x_t, t = torch.randn(1, 4, 16, 16), torch.tensor([0.7])
    mask = torch.ones(1, 3, dtype=torch.bool)

    def answer(ids: list[int], style: int) -> Tensor:
        return model(x_t, t, model.context(torch.tensor([ids]), mask, torch.tensor([style])))

    plain = answer([1, 2, 3], 0)
    assert not torch.allclose(plain, answer([1, 4, 3], 0), atol=1e-4)
    assert not torch.allclose(plain, answer([1, 2, 3], 2), atol=1e-4)
