"""Convolutions around the trunk, the narrow skip, and what is looked at."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from asymflow.models.embedded.detail import DetailConfig, fold, unfold
from asymflow.models.embedded.network import DEVIATION, PictureConfig, PictureModel, skip_scales
from asymflow.models.embedded.transformer import TransformerConfig
from asymflow.planning import costs

SHAPE = PictureConfig(
    ("noto", "twemoji"),
    TransformerConfig(width=32, depth=1, head_dim=16, hidden=48, text_width=32),
    vocabulary=50,
    rank=0,
    detail=DetailConfig(half=8, quarter=12, gates=True),
    skip=0.2,
    references=2,
)


def fresh(config: PictureConfig = SHAPE, noise: float = 0.05) -> PictureModel:
    torch.manual_seed(0)
    model = PictureModel(config)
    with torch.no_grad():  # heads start at zero, which would hide every mistake
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
        if config.skip is not None:
            model.mean.copy_(torch.tensor([-0.3, -0.4, -0.5, 0.1]))
    return model.eval()


def told(
    model: PictureModel, size: tuple[int, int], present: tuple[int, int] = (1, 1), seed: int = 1
) -> dict[str, torch.Tensor]:
    ids = torch.arange(1, 11).reshape(2, 5)
    drawings = torch.randn(2, 2, 4, *size, generator=torch.Generator().manual_seed(seed))
    seen = None
    if model.config.references:
        seen = model.encode_references(drawings, torch.tensor([present, present]))
    mask, style = torch.ones(2, 5, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    return model.context(ids, mask, style, seen)


def test_folding_moves_no_pixel_twice() -> None:
    x = torch.randn(2, 6, 10, 3)
    assert torch.equal(unfold(fold(x)), x)
    assert torch.equal(fold(x)[0, 0, 0], x[0, :2, :2].flatten())


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (32, 64), (24, 40)])
def test_every_size_in_multiples_of_the_patch(size: tuple[int, int]) -> None:
    model = fresh()
    assert model(torch.randn(2, 4, *size), torch.rand(2), told(model, size)).shape == (2, 4, *size)


PLAIN = DetailConfig(half=8, quarter=12)


@pytest.mark.parametrize(
    "changes",
    [{}, {"detail": PLAIN}, {"references": 0}, {"references": 0, "skip": None, "detail": PLAIN}],
)
def test_the_fast_part_with_what_the_trunk_just_said_is_the_whole(changes: dict[str, Any]) -> None:
    model = fresh(dataclasses.replace(SHAPE, **changes))
    x, t = torch.randn(2, 4, 32, 32), torch.tensor([0.2, 0.7])
    context = told(model, (32, 32))
    with torch.no_grad():
        whole = model(x, t, context)
        split, tokens = model.split(x, t, context, None)
        assert torch.equal(split, whole)
        assert torch.equal(model.split(x, t, context, tokens)[0], whole)
        other, _ = model.split(x.flip(-1), t / 2, context, tokens)
        assert (other - whole).abs().max() > 0.01
        fast = costs.work(lambda: model.split(x, t, context, tokens))
        assert fast.macs < costs.work(lambda: model(x, t, context)).macs


def test_scales_leave_the_network_a_target_of_the_size_of_pictures() -> None:
    # For independent pixels of deviation D, (x_0 - m - a (x_t - (1 - t) m)) / b has variance 1.
    torch.manual_seed(0)
    x_0, eps = DEVIATION * torch.randn(200_000), torch.randn(200_000)
    for t in (0.02, 0.3, 0.7, 1.0):
        a, b = skip_scales(torch.tensor(t), 0.2)
        target = (x_0 - a * ((1 - t) * x_0 + t * eps)) / b
        assert float(target.var()) == pytest.approx(1, rel=0.02)


def test_the_skip_opens_at_the_picture_and_is_the_best_for_its_deviation() -> None:
    a, b = skip_scales(torch.tensor([0.0, 1.0]), 0.2)
    torch.testing.assert_close(a, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(b, torch.tensor([0.0, DEVIATION]))
    # a is the regression of x_0 on x_t where x_0 deviates by the skip.
    torch.manual_seed(0)
    x_0, eps = 0.2 * torch.randn(400_000), torch.randn(400_000)
    x_t = 0.6 * x_0 + 0.4 * eps
    slope = float((x_0 * x_t).mean() / x_t.square().mean())
    assert float(skip_scales(torch.tensor(0.4), 0.2)[0]) == pytest.approx(slope, rel=0.03)


def test_a_fresh_model_says_the_mean_at_noise() -> None:
    model = fresh(noise=0.0)
    made = model(torch.randn(2, 4, 16, 16), torch.ones(2), told(model, (16, 16)))
    torch.testing.assert_close(made, model.mean.view(1, 4, 1, 1).expand(2, 4, 16, 16))


def test_gains_cancel_the_noise_of_single_pixels() -> None:
    """Of a flat picture, what is left is the noise that all nine pixels around have in common."""
    model, t = fresh(noise=0.0), 0.1
    mean = model.mean.view(1, 4, 1, 1)
    eps = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(2))
    x_t, times = (1 - t) * mean + t * eps, torch.full((2,), t)

    def error() -> torch.Tensor:
        with torch.no_grad():
            return model(x_t, times, told(model, (64, 64))) - mean

    assert model.config.skip is not None
    a, b = skip_scales(torch.tensor(t), model.config.skip)
    own = ((1 - t) ** 2 * model.config.skip**2 + t**2) ** -0.5
    torch.testing.assert_close(error(), a * t * eps)
    assert model.detail is not None
    assert model.detail.gains is not None
    with torch.no_grad():
        model.detail.gains.bias[4:] = -a / (b * own)
    around = torch.nn.functional.avg_pool2d(eps, 3, stride=1)
    torch.testing.assert_close(error()[..., 1:-1, 1:-1], a * t * around)
    with torch.no_grad():  # the same by the gain of every pixel
        model.detail.gains.bias.zero_()
        assert model.detail.draw.bias is not None
        model.detail.draw.bias.view(2, 2, 8)[..., 4:] = 2 * torch.atanh(-a / (b * own) / 2)
    torch.testing.assert_close(error()[..., 1:-1, 1:-1], a * t * around)


def test_an_absent_drawing_is_ignored_and_a_present_one_is() -> None:
    model, x, t = fresh(), torch.randn(2, 4, 32, 32), torch.tensor([0.5, 0.9])

    def made(present: tuple[int, int], seed: int) -> torch.Tensor:
        return model(x, t, told(model, (32, 32), present, seed))

    assert torch.equal(made((0, 0), 1), made((0, 0), 2))
    assert not torch.equal(made((0, 1), 1), made((0, 1), 2))
    assert not torch.equal(made((0, 0), 1), made((0, 1), 1))
    # The two places are told apart.
    assert not torch.allclose(made((1, 0), 1), made((0, 1), 1), atol=1e-4)


def test_asked_at_half_of_the_side_it_looks_at_pooled_drawings() -> None:
    model, x, t = fresh(), torch.randn(2, 4, 16, 16), torch.tensor([0.5, 0.9])
    context = told(model, (32, 32))
    pooled = torch.nn.functional.avg_pool2d(context["reference"], 2)
    assert torch.equal(model(x, t, context), model(x, t, {**context, "reference": pooled}))


def test_without_references_there_are_no_weights_for_them() -> None:
    alone = PictureModel(dataclasses.replace(SHAPE, references=0))
    assert alone.glance is None
    assert not any("glance" in name for name, _ in alone.named_parameters())
