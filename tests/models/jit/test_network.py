"""JiT's network against an independent implementation, and its state dicts."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.flow import interpolate, x_0_from_asymmetric, x_0_from_velocity
from asymflow.models.jit.checkpoint import built, config_of, published_name, renamed
from asymflow.models.jit.network import (
    JitConfig,
    JitModel,
    named_config,
    patches_of,
    picture_of,
    position_table,
)
from asymflow.planning import costs

SHAPE = JitConfig(
    size=32, patch=8, width=32, depth=3, heads=2, hidden=85, bottleneck=6, classes=5,
    class_tokens=4, class_start=1, noise_scale=32 / 256,
)  # fmt: skip


def network(config: JitConfig = SHAPE, seed: int = 0) -> JitModel:
    """With weights as if it had learnt something: what starts at zero would hide mistakes."""
    torch.manual_seed(seed)
    model = JitModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if config.rank is not None:
            basis = torch.linalg.qr(torch.randn(config.pixels, config.rank))[0].T
            model.basis.copy_(basis)
    return model.eval()


def published(model: JitModel) -> dict[str, Tensor]:
    """The network's state dict as the papers' code would save it."""
    state = {published_name(name): value for name, value in model.state_dict().items()}
    if "proj_buffer" in state:
        state["proj_buffer"] = state["proj_buffer"].T
    return state


def inputs(config: JitConfig = SHAPE) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, config.channels, config.size, config.size, generator=generator)
    return x, torch.tensor([0.3, 0.9]), torch.tensor([2, config.classes])


@pytest.mark.parametrize(
    "changes",
    [{}, {"class_start": 0}, {"class_start": 2}, {"class_start": 3}, {"class_tokens": 0},
     {"rank": 3, "noise_scale": 1.0}, {"depth": 2}, {"depth": 6, "class_start": 2}],
)  # fmt: skip
def test_the_fast_part_with_what_the_slow_part_just_said_is_the_whole(
    changes: dict[str, Any],
) -> None:
    model = network(replace(SHAPE, **changes))
    x, t, label = inputs(model.config)
    with torch.no_grad():
        whole = model(x, t, label, floor=0.05)
        split, slow = model.split(x, t, label, None, floor=0.05)
        assert torch.equal(split, whole)
        again, kept = model.split(x, t, label, slow, floor=0.05)
        assert kept is slow
        assert_close(again, whole, rtol=1e-4, atol=1e-4)
        # It looks at the newest state, and at its time.
        for other in (model.split(2 * x, t, label, slow)[0], model.split(x, t / 2, label, slow)[0]):
            assert (other - model.split(x, t, label, slow)[0]).abs().max() > 0.01


def test_the_fast_part_is_a_third_of_the_blocks() -> None:
    model = network(replace(SHAPE, depth=6))
    x, t, label = inputs()
    with torch.no_grad():
        _, slow = model.split(x, t, label, None)
        whole = costs.work(lambda: model(x, t, label)).macs
        fast = costs.work(lambda: model.split(x, t, label, slow)).macs
        none = costs.work(lambda: network(replace(SHAPE, depth=0))(x, t, label)).macs
    assert (fast - none) / (whole - none) == pytest.approx(1 / 3, abs=0.02)
    assert [replace(SHAPE, depth=depth).slow for depth in (1, 2, 12, 24, 32)] == [0, 1, 8, 16, 21]


def test_larger_pictures_have_the_positions_of_a_larger_network() -> None:
    larger = replace(SHAPE, size=2 * SHAPE.size)
    small, large = network(SHAPE), JitModel(larger).eval()
    weights = {
        name: value for name, value in small.state_dict().items() if name != "transformer.position"
    }
    large.load_state_dict(large.state_dict() | weights)
    x, t, label = inputs(larger)
    with torch.no_grad():
        found = small(x, t, label)
        assert torch.equal(found, large(x, t, label))
        # Those of wide pictures are a part of them.
        rows = SHAPE.size // SHAPE.patch
        wide = position_table((rows, 2 * rows), SHAPE.width)
        assert torch.equal(wide, large.transformer.position[0, : len(wide)])
        assert small(x[:, :, : SHAPE.size], t, label).shape == x[:, :, : SHAPE.size].shape


def uncompiled(function: Any) -> Any:
    return function


@pytest.fixture
def azula(monkeypatch: pytest.MonkeyPatch) -> Any:
    """azula's JiT, without the downloader and the compiler that it asks for."""
    pytest.importorskip("azula")
    monkeypatch.setitem(sys.modules, "gdown", ModuleType("gdown"))
    monkeypatch.setattr(torch, "compile", uncompiled)
    return importlib.import_module("azula.plugins.jit._src.model")


def theirs(azula: Any, config: JitConfig) -> Any:
    return azula.JiT(
        input_size=config.size,
        patch_size=config.patch,
        in_channels=config.channels,
        hidden_size=config.width,
        depth=config.depth,
        num_heads=config.heads,
        num_classes=config.classes,
        bottleneck_dim=config.bottleneck,
        in_context_len=config.class_tokens,
        in_context_start=config.class_start,
    )


@pytest.mark.parametrize(
    "config",
    [
        SHAPE,
        replace(SHAPE, class_start=0),
        replace(SHAPE, class_start=2, heads=4, size=16, channels=1, noise_scale=16 / 256),
    ],
)
def test_the_network_is_that_of_azula(azula: Any, config: JitConfig) -> None:
    torch.manual_seed(0)
    other = theirs(azula, config).eval()
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name != "pos_embed":
                parameter.add_(0.1 * torch.randn_like(parameter))
    state: dict[str, Tensor] = other.state_dict()
    read = config_of(state, class_start=config.class_start)
    assert read == config
    model = built(read, state)
    x, time, label = inputs(config)
    with torch.no_grad():
        expected = other(x, time, label)
        answer = model.transformer(x, time, label)
    assert expected.std() > 0.1
    assert_close(picture_of(answer, config.patch, config.side), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("B/16", 131), ("L/16", 459), ("H/16", 953), ("B/32", 133), ("L/32", 462), ("H/32", 956)],
)
def test_published_models_have_their_size_and_names(azula: Any, name: str, millions: int) -> None:
    config = named_config(name)
    with torch.device("meta"):
        ours = JitModel(config)
        other = azula.JiT_models[f"JiT-{name}"](input_size=config.size)
    named = {published_name(key): value.shape for key, value in ours.state_dict().items()}
    assert named == {key: value.shape for key, value in other.state_dict().items()}
    assert config_of(other.state_dict()) == config
    assert round(sum(p.numel() for p in ours.parameters()) / 1e6) == millions


def test_the_network_keeps_its_answer() -> None:
    """Numbers that azula 0.11.1 gave for these weights, for machines that do not have it."""
    model = JitModel(SHAPE)
    with torch.no_grad():
        for index, (_, parameter) in enumerate(sorted(model.named_parameters())):
            wave = torch.arange(parameter.numel(), dtype=torch.float64) * 0.37 + index
            parameter.copy_((0.3 * wave.sin()).view_as(parameter))
        x = (torch.arange(3 * 32 * 32, dtype=torch.float64) * 0.11).sin().view(1, 3, 32, 32)
        answer = model.transformer(x.float(), torch.tensor([0.4]), torch.tensor([3]))
    picture = picture_of(answer, SHAPE.patch, SHAPE.side)
    found = torch.stack([picture[0, 0, 0, :3], picture[0, 1, 9, 20:23], picture[0, 2, 31, 29:32]])
    expected = [
        [-0.26582, -1.41479, 2.40045],
        [-2.02298, 2.03585, -0.37071],
        [-1.05459, 2.72575, -1.45474],
    ]
    assert_close(found, torch.tensor(expected), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("rank", [None, 3, 192])
def test_state_dicts_round_trip(rank: int | None) -> None:
    config = replace(SHAPE, rank=rank, noise_scale=SHAPE.noise_scale if rank is None else 1.0)
    model = network(config)
    state = published(model)
    again = built(config_of(state, class_start=1), state)
    assert again.config == config
    x_t, t, label = inputs(config)
    with torch.no_grad():
        assert torch.equal(again(x_t, t, label), model(x_t, t, label))


def test_tables_may_be_left_out_and_may_be_there() -> None:
    config = replace(SHAPE, size=128, rank=2, noise_scale=1.0)  # 16 patches a side, as published
    model = network(config)
    state = published(model)
    position = state.pop("pos_embed")
    del state["scale_buffer"]
    state["feat_rope.base_rope.freqs_cos"] = torch.zeros(1)
    bare = built(config_of(state, class_start=1), state)
    assert_close(bare.transformer.position, position)
    moved = built(config, state | {"x_embedder.pos_embed": position})
    x_t, t, label = inputs(config)
    with torch.no_grad():
        assert torch.equal(bare(x_t, t, label), model(x_t, t, label))
        assert torch.equal(moved(x_t, t, label), model(x_t, t, label))


def test_names_are_unknown_or_have_an_inverse() -> None:
    for name in network(replace(SHAPE, rank=2, noise_scale=1.0)).state_dict():
        assert renamed(published_name(name)) == name
    assert renamed("blocks.0.attn2.weight") == "blocks.0.attn2.weight"


def test_foreign_weights_are_named() -> None:
    state = published(network())
    with pytest.raises(FileFormatError, match=r"missing: blocks\.1\.mlp\.w12\.bias\."):
        built(SHAPE, {n: v for n, v in state.items() if n != "blocks.1.mlp.w12.bias"})
    with pytest.raises(FileFormatError, match=r"unexpected: repa\.0\.weight, repa\.1\.weight\."):
        built(SHAPE, state | {f"repa.{i}.weight": torch.zeros(1) for i in range(2)})
    with pytest.raises(FileFormatError, match=r"final_layer\.linear\.bias \(3,\) instead of"):
        built(SHAPE, state | {"final_layer.linear.bias": torch.zeros(3)})
    with pytest.raises(FileFormatError, match=r"no tensor 'x_embedder.proj1.weight', but conv.w"):
        config_of({"conv.weight": torch.zeros(1)})
    with pytest.raises(FileFormatError, match=r"'x_embedder.proj1.weight' has shape \(4,\)"):
        config_of({"x_embedder.proj1.weight": torch.zeros(4)})
    with pytest.raises(InputError, match=r"3 blocks, which no published JiT has"):
        config_of(state)
    with pytest.raises(InputError, match=r"block 3 of 3"):
        config_of(state, class_start=3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 30}, "30 pixels are not made of patches of 8"),
        ({"heads": 3}, "cannot be shared by 3 heads"),
        ({"rank": 193, "noise_scale": 1.0}, "rank 193"),
        ({"rank": 3}, "noise_scale=0.125"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(SHAPE, **change)


def test_unknown_models_are_refused() -> None:
    with pytest.raises(InputError, match="B/16, L/16, H/16, B/32"):
        named_config("G/16")


def test_patches_round_trip_in_the_published_order() -> None:
    x = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8)
    patches = patches_of(x, 4)
    assert torch.equal(picture_of(patches, 4, 2), x)
    assert torch.equal(patches[:, 1, :3], x[:, :, 0, 4])


def test_x_prediction_sees_the_papers_state_and_time() -> None:
    model = network(replace(SHAPE, noise_scale=2.0))
    x_t, t, label = inputs()
    with torch.no_grad():
        paper = model.transformer(2 * x_t, 1 - t, label)
        assert torch.equal(model(x_t, t, label), picture_of(paper, 8, 4) / 2)


@pytest.mark.parametrize("scale", [1.0, 1.7])
@pytest.mark.parametrize("rank", [0, 5, 192])
def test_a_rank_asymmetric_answer_gives_back_the_picture(rank: int, scale: float) -> None:
    """With a network that knows P eps - x_0 / s exactly, x_0 comes out for every t."""
    model = network(replace(SHAPE, rank=rank, noise_scale=1.0))
    model.scale.fill_(scale)
    x_0, t, label = inputs()
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(2))

    def project(x: Tensor) -> Tensor:
        patches = patches_of(x, 8) @ model.basis.T @ model.basis
        return picture_of(patches, 8, 4)

    seen: list[Tensor] = []

    def oracle(x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        seen.extend((x, time))
        return patches_of(project(eps) - x_0 / scale, 8)

    model.transformer.forward = oracle
    x_t = interpolate(x_0, eps, t)
    assert_close(model(x_t, t, label), x_0, atol=1e-5, rtol=1e-5)
    # What a network of the subspace is shown: its own path from data x_0 / s to the same noise.
    assert_close(project(seen[0]), project(interpolate(x_0 / scale, eps, seen[1])))
    if scale == 1:
        answer = torch.randn_like(x_0)
        model.transformer.forward = lambda x, time, label: patches_of(answer, 8)
        expected = x_0_from_asymmetric(x_t, answer, t, project)
        assert_close(model(x_t, t, label), expected)
        if rank == 192:
            assert_close(model(x_t, t, label), x_0_from_velocity(x_t, answer, t))


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_the_floor_is_that_of_the_papers_velocities(scale: float) -> None:
    floor, t = 0.05, torch.tensor([0.02, 0.3])
    small = t.clamp(min=floor).view(-1, 1, 1)
    x_t, _, label = inputs()
    model = network()
    with torch.no_grad():
        x_0 = model(x_t, t, label)
        velocity = (x_t - x_0) / small[..., None]
        assert_close(model(x_t, t, label, floor=floor), x_t - t.view(-1, 1, 1, 1) * velocity)

        model = network(replace(SHAPE, rank=7, noise_scale=1.0))
        model.scale.fill_(scale)
        basis, x = model.basis, patches_of(x_t, 8)
        k = 1 / (scale + (1 - scale) * t).view(-1, 1, 1)
        time = t * k.flatten()
        v = model.transformer(k[..., None] * x_t, time, label)
        x_in, v_in = x @ basis.T @ basis, v @ basis.T @ basis
        inside = scale * k * v_in + (1 - scale * k) / small * x_in
        outside = ((x - x_in) + scale * (v - v_in)) / small
        expected = picture_of(x - t.view(-1, 1, 1) * (inside + outside), 8, 4)
        assert_close(model(x_t, t, label, floor=floor), expected)


def test_half_precision_keeps_to_the_answer() -> None:
    model = network()
    x_t, t, label = inputs()
    with torch.no_grad():
        exact = model(x_t, t, label)
        half = model.to(torch.bfloat16)(x_t, t, label)
    assert half.dtype == torch.float32
    assert (half - exact).square().mean().sqrt() < 0.05 * exact.std()
