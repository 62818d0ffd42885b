"""JiT against the procedure of its paper: trajectories, guidance, files, bad input."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine
from asymflow.core.adapter import Adapter
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.schedules import uniform
from asymflow.core.transforms import with_sequential_guidance
from asymflow.core.types import FULL, LATE, LATE_CONDITIONAL, Plan, Request, Step, Tier
from asymflow.models.jit.adapter import JitAdapter, adapt, load, plan
from asymflow.models.jit.checkpoint import published_name
from asymflow.models.jit.network import JitConfig, JitModel, picture_of
from asymflow.planning import profiler

SHAPE = JitConfig(
    size=16, patch=4, width=16, depth=3, heads=2, hidden=24, bottleneck=6, classes=5,
    class_tokens=2, class_start=1,
)  # fmt: skip


def network(**changes: Any) -> JitModel:
    """With weights as if it had learnt something: it starts at zero."""
    torch.manual_seed(0)
    model = JitModel(replace(SHAPE, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def request(label: int = 2, seed: int = 0, scale: float = 3.0) -> Request:
    return Request({"label": label}, (16, 16), seed, scale)


def official(
    model: JitModel,
    requests: list[Request],
    *,
    steps: int = 50,
    cfg: float = 3.0,
    interval: tuple[float, float] = (0.1, 1.0),
    t_eps: float = 0.05,
) -> list[Tensor]:
    """The sampler of the JiT paper in its own words: all states z, from t = 0 to 1."""
    labels = torch.tensor([each.inputs["label"] for each in requests])
    noise = torch.stack([engine.noise(each.seed, (3, 16, 16)) for each in requests])
    z = model.config.noise_scale * noise
    times = torch.linspace(0, 1, steps + 1)

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        def one(y: Tensor) -> Tensor:
            x = picture_of(model.transformer(z, t.expand(len(z)), y), 4, 4)
            return (x - z) / (1 - t).clamp_min(t_eps)

        null = one(torch.full_like(labels, model.config.classes))
        low, high = interval
        on = bool(t < high) and (low == 0 or bool(t > low))
        return null + (cfg if on else 1.0) * (one(labels) - null)

    states: list[Tensor] = []
    with torch.no_grad():
        for i, (t, following) in enumerate(pairwise(times)):
            v = velocity(z, t)
            if i < steps - 1:
                v = (v + velocity(z + (following - t) * v, following)) / 2
            z = z + (following - t) * v
            states.append(z)
    return states


@pytest.mark.parametrize("noise_scale", [1.0, 2.0])
@pytest.mark.parametrize("interval", [(0.1, 1.0), (0.0, 1.0), (0.3, 0.72)])
def test_every_step_is_that_of_the_paper(interval: tuple[float, float], noise_scale: float) -> None:
    model = network(noise_scale=noise_scale)
    low, high = (1 - end for end in reversed(interval))
    adapter = adapt(model, guidance_interval=(low, high))
    requests = [request(label, seed=label) for label in (0, 3)]
    states = official(model, requests, interval=interval)
    frames = list(engine.walk(adapter, plan(guidance_interval=(low, high)), requests))
    assert len(frames) == len(states) == 50
    for frame, z in zip(frames, states, strict=True):
        assert_close(noise_scale * frame.x_t, z, atol=1e-4, rtol=0)
    assert states[-1].std() > 0.1
    for each, z in zip(frames[-1].x_t, states[-1], strict=True):
        expected = ((z + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(adapter.to_picture(each), expected, atol=1e-4)


def test_the_test_of_every_step_would_notice_guidance_and_its_interval() -> None:
    model = network()
    ends = [
        official(model, [request()], cfg=cfg, interval=interval, t_eps=t_eps)[-1]
        for cfg, interval, t_eps in [
            (3.0, (0.1, 1.0), 0.05), (1.0, (0.1, 1.0), 0.05), (3.0, (0.15, 1.0), 0.05),
            (3.0, (0.1, 1.0), 0.2),
        ]
    ]  # fmt: skip
    for other_end in ends[1:]:
        assert (other_end - ends[0]).abs().max() > 1e-3


def test_the_papers_plan_skips_passes_that_guidance_does_not_need() -> None:
    assert plan().forwards == 188  # of 198 that are made without skipping
    assert plan(guidance_interval=(0.0, 1.0)).forwards == 198
    assert plan(20, solver="multistep2").forwards == 20 + 17  # at t = 1, 0.95 and 0.9 it is off


def test_outside_the_interval_guidance_changes_nothing() -> None:
    adapter = adapt(network(), guidance_interval=(0.2, 0.7))
    cond, null = adapter.encode([request()])
    for t, same in [(1.0, True), (0.7, True), (0.69, False), (0.2, True), (0.21, False)]:
        x_t, time = torch.randn(1, 3, 16, 16), torch.tensor([t])
        one, other = adapter.denoise(x_t, time, cond), adapter.denoise(x_t, time, null)
        assert torch.equal(one, other) == same, t


def test_without_a_label_the_model_is_unconditional() -> None:
    adapter = adapt(network())
    nobody = Request({}, (16, 16), 0)
    [given] = engine.run(adapter, plan(3), [Request({"label": 5}, (16, 16), 0)])
    [result] = engine.run(adapter, plan(3), [nobody])
    np.testing.assert_array_equal(result.picture, given.picture)


def test_tiers_and_neighbours_do_not_change_a_picture() -> None:
    adapter = adapt(network())
    steps = plan(5, solver="multistep2")
    alone = engine.run(adapter, steps, [request(1, 7)])[0]
    beside = engine.run(adapter, steps, [request(0, 1), request(1, 7), request(4, 2, 1.0)])[1]
    np.testing.assert_array_equal(alone.picture, beside.picture)
    [turned] = engine.run(adapter, with_sequential_guidance(steps), [request(1, 7)])
    np.testing.assert_allclose(turned.picture, alone.picture, atol=1e-5)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.3, 0.9)])
def test_late_steps_run_the_last_blocks(interval: tuple[float, float]) -> None:
    adapter = adapt(network(), guidance_interval=interval)
    assert "late" in adapter.card.tiers
    steps = (Step(1.0, 0.5), Step(0.5, 0.25, LATE), Step(0.25, 0.0, LATE_CONDITIONAL))
    plan_ = Plan("late", steps)
    wanted = [request(label, seed) for seed, label in enumerate((0, 1, 4))]
    together = engine.run(adapter, plan_, wanted)
    for one, found in zip(wanted, together, strict=True):
        [alone] = engine.run(adapter, plan_, [one])
        assert np.array_equal(alone.picture, found.picture)
    # The states of a step that is too short to matter have the same slow part.
    near = Plan("near", (Step(1.0, 0.5), Step(0.5, 0.5 - 1e-6), Step(0.5 - 1e-6, 0.0, LATE)))
    whole = Plan("whole", (*near.steps[:2], replace(near.steps[2], tier=FULL)))
    ends = [engine.run(adapter, each, wanted[:1])[0].picture for each in (near, whole)]
    assert_close(*map(torch.from_numpy, ends), rtol=0, atol=1e-4)


def test_one_block_is_not_split() -> None:
    adapter = adapt(network(depth=1, class_start=0))
    assert adapter.card.tiers == ("conditional",)
    with pytest.raises(InputError, match="known as a whole"):
        engine.run(adapter, Plan("late", (Step(1.0, 0.5), Step(0.5, 0.0, LATE))), [request()])


def test_large_pictures_are_asked_for_at_the_size_of_training_or_in_tiles_of_it() -> None:
    adapter = adapt(network())
    assert adapter.pool_factors((16, 16)) == ()
    assert adapter.pool_factors((64, 64)) == (2, 4)
    assert adapter.pool_factors((64, 32)) == (2,)
    assert adapter.card.sizes.offered() == ((16, 16),)
    tile = Tier("tiled", tiles=16)
    quarter = Tier("quarter", pool_factor=4)
    steps = (Step(1.0, 0.4, quarter), Step(0.4, 0.1, tile), Step(0.1, 0.0, tile))
    large = replace(request(), size=(64, 64))
    [found] = engine.run(adapter, Plan("large", steps), [large])
    assert found.picture.shape[:2] == (64, 64)
    assert np.isfinite(found.picture).all()


def test_a_profile_prices_guidance_and_nothing_smaller() -> None:
    adapter = adapt(network())
    assert isinstance(adapter, Adapter)
    assert adapter.pool_factors((16, 16)) == ()
    found = profiler.profile(adapter, [request(), request(1, 1)], times=uniform(4), repeats=1)
    assert all(tier.pool_factor == 1 for tier in found.tiers)
    macs = dict(zip((tier.name for tier in found.tiers), found.macs, strict=True))
    assert macs["full"] == 2 * macs["conditional"]


@pytest.mark.parametrize("noise_scale", [1.0, 2.0])
def test_pictures_round_trip_through_the_state(noise_scale: float) -> None:
    adapter = adapt(network(noise_scale=noise_scale))
    picture = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    state = adapter.to_state(picture)
    assert state.abs().max() <= 1 / noise_scale
    np.testing.assert_allclose(adapter.to_picture(state), picture, atol=1e-6)


def test_names_tell_settings_apart() -> None:
    model = network()
    adapters = [
        adapt(model), adapt(model, floor=0.0), adapt(model, guidance_interval=(0.0, 1.0)),
        adapt(network(noise_scale=2.0)),
    ]  # fmt: skip
    assert len({adapter.name for adapter in adapters}) == 4
    assert adapt(network()).name == adapters[0].name


def test_asymmetric_models_have_their_own_settings() -> None:
    adapter = adapt(network(rank=3))
    assert (adapter.guidance_interval, adapter.floor) == ((0.0, 0.88), 0.04)
    [result] = engine.run(adapter, plan(4), [request()])
    assert result.picture.std() > 0.01


def state_of(model: JitModel, prefix: str = "") -> dict[str, Tensor]:
    state = {prefix + published_name(n): v.contiguous() for n, v in model.state_dict().items()}
    if prefix + "proj_buffer" in state:
        state[prefix + "proj_buffer"] = state[prefix + "proj_buffer"].T.contiguous()
    return state


def other(model: JitModel, factor: float) -> dict[str, Tensor]:
    return {name: factor * value for name, value in state_of(model, "net.").items()}


def same(adapter: JitAdapter, model: JitModel) -> None:
    x_t, t, label = torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.8]), torch.tensor([0, 5])
    assert torch.equal(adapter.model(x_t, t, label), model(x_t, t, label))


# Read from the weights, the noise scale is size / 256 as in the papers.
READ = {"noise_scale": 16 / 256}


def test_checkpoints_of_the_official_code_are_read(tmp_path: Path) -> None:
    model, file = network(**READ), tmp_path / "checkpoint-last.pth"
    checkpoint = {
        "model": other(model, 1.5),
        "model_ema1": other(model, 1.0), "model_ema2": other(model, 2.0),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}, "epoch": 3,
        "args": argparse.Namespace(model="JiT-B/16", cfg=3.0),
    }  # fmt: skip
    torch.save(checkpoint, file)
    same(load(file, class_start=1), model)
    half = load(file, weights="model", class_start=1)
    assert torch.equal(half.model.transformer.head.weight, 1.5 * model.transformer.head.weight)
    names = {load(file, weights=w, class_start=1).name for w in (None, "ema1", "ema2", "model")}
    assert len(names) == 3
    torch.save({**checkpoint, "model_ema2": None}, file)
    with pytest.raises(FileFormatError, match=r"no 'model_ema2', but model_ema1, model\. .*: ema1"):
        load(file, weights="ema2", class_start=1)


@pytest.mark.parametrize("rank", [None, 3])
def test_bare_state_dicts_are_read(tmp_path: Path, rank: int | None) -> None:
    model = network(rank=rank, **(READ if rank is None else {}))
    save_file(state_of(model), tmp_path / "model.safetensors")
    torch.save(state_of(model, "net."), tmp_path / "model.pt")
    for name in ("model.safetensors", "model.pt"):
        same(load(tmp_path / name, class_start=1), model)
    with pytest.raises(FileFormatError, match="one set of weights, so there is no 'ema2'"):
        load(tmp_path / "model.pt", weights="ema2")
    half = load(tmp_path / "model.pt", class_start=1, dtype=torch.bfloat16)
    assert half.name == load(tmp_path / "model.safetensors", class_start=1).name
    [result] = engine.run(half, plan(2), [request()])
    assert result.picture.dtype == np.float32
    assert half.model.transformer.head.weight.dtype == torch.bfloat16
    assert half.model.transformer.position.dtype == torch.float32


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("harm"),)


def test_files_that_hold_something_else_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.pth"
    torch.save({"model": Harmful()}, file)
    with pytest.raises(FileFormatError, match=r"Cannot read .*model\.pth"):
        load(file)
    assert not (tmp_path / "harm").exists()
    torch.save([1, 2], file)
    with pytest.raises(FileFormatError, match="holds a list and not named tensors"):
        load(file)
    torch.save({"weight": torch.zeros(1), "epoch": 3}, file)
    with pytest.raises(FileFormatError, match="holds 'epoch', which is no tensor"):
        load(file)
    torch.save({"weight": torch.zeros(1)}, file)
    with pytest.raises(FileFormatError, match=r"no tensor 'x_embedder\.proj1\.weight', but weight"):
        load(file)
    state = state_of(network(**READ))
    del state["blocks.2.attn.proj.bias"]
    torch.save(state, file)
    with pytest.raises(
        FileFormatError, match=r"Cannot read .* missing: blocks\.2\.attn\.proj\.bias"
    ):
        load(file, class_start=1)
    whole = tmp_path / "whole.pth"
    torch.save(state_of(network(**READ)), whole)
    file.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(FileFormatError, match=r"Cannot read .*model\.pth: "):
        load(file)
    with pytest.raises(InputError, match=r"whole\.pth.*3 blocks, which no published JiT has"):
        load(whole)
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    for missing in ("model.safetensors", "none.safetensors", "none.pth"):
        with pytest.raises(FileFormatError, match=f"Cannot read .*{missing}"):
            load(tmp_path / missing)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Request({"label": 0}, (24, 16)), r"Size 16x24 .*: .* 16x16 pixels, and 24 is not 1 to 8"),
        (Request({"label": 0}, (144, 16)), r"144 is not 1 to 8 times 16\. Request"),
        (Request({"label": 6}, (16, 16)), r"Label 6 .* from 0 to 4"),
        (Request({"label": -1}, (16, 16)), "Label -1"),
        (Request({"label": True}, (16, 16)), "Label True"),
        (Request({"label": "fox"}, (16, 16)), "Label 'fox'"),
    ],
)
def test_impossible_requests_are_refused(wanted: Request, words: str) -> None:
    with pytest.raises(InputError, match=words):
        engine.run(adapt(network()), plan(2), [wanted])


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(0\.9, 0\.1\) is not a part"):
        adapt(network(), guidance_interval=(0.9, 0.1))
    with pytest.raises(InputError, match=r"floor of 1\.0"):
        adapt(network(), floor=1.0)
    half = Plan("half", (Step(1.0, 0.0, Tier("half", pool_factor=2)),))
    with pytest.raises(InputError, match="pooled by 2"):
        engine.run(adapt(network()), half, [request()])


def trained(tmp_path: Path, network: JitModel, **args: object) -> Path:
    """A checkpoint of the official code, with the arguments that it was trained by."""
    file = tmp_path / "checkpoint-last.pth"
    state = state_of(network, "net.")
    torch.save({"model": state, "model_ema1": state, "args": argparse.Namespace(**args)}, file)
    return file


def test_a_checkpoint_says_how_it_was_trained_and_sampled(tmp_path: Path) -> None:
    """Step by step what the official sampler makes of it by these arguments."""
    model = network(noise_scale=1.5)
    args = {"noise_scale": 1.5, "t_eps": 0.08, "interval_min": 0.2, "interval_max": 0.9}
    adapter = load(trained(tmp_path, model, **args), class_start=1)
    assert adapter.model.config == model.config
    assert (adapter.floor, adapter.guidance_interval) == (0.08, pytest.approx((0.1, 0.8)))
    requests = [request(1, seed=4)]
    states = official(model, requests, interval=(0.2, 0.9), t_eps=0.08)
    steps = plan(guidance_interval=adapter.guidance_interval)
    for frame, z in zip(engine.walk(adapter, steps, requests), states, strict=True):
        assert_close(1.5 * frame.x_t, z, atol=1e-4, rtol=0)


def test_what_is_given_goes_before_what_a_checkpoint_says(tmp_path: Path) -> None:
    args = {"noise_scale": 1.5, "t_eps": 0.08, "interval_min": 0.2, "interval_max": 0.9}
    file = trained(tmp_path, network(noise_scale=1.5), **args)
    given = load(file, class_start=1, noise_scale=0.5, floor=0.01, guidance_interval=(0, 0.5))
    assert given.model.config.noise_scale == 0.5
    assert (given.floor, given.guidance_interval) == (0.01, (0, 0.5))
    bare = tmp_path / "bare.pt"
    torch.save(state_of(network(noise_scale=1.5)), bare)
    assert load(bare, class_start=1, noise_scale=1.5).model.config.noise_scale == 1.5
    assert load(bare, class_start=1).model.config.noise_scale == 16 / 256


def test_the_name_of_a_model_says_where_its_class_tokens_begin(tmp_path: Path) -> None:
    model = network(depth=9, class_start=8, **READ)
    assert load(trained(tmp_path, model, model="JiT-L/16")).model.config.class_start == 8
    with pytest.raises(InputError, match="9 blocks, which no published JiT has"):
        load(trained(tmp_path, model, model="JiT-XXL/16"))


@pytest.mark.parametrize("value", ["much", -1.0, float("nan"), [1.0]])
def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError, match=r"checkpoint-last\.pth.*noise_scale="):
        load(trained(tmp_path, network(**READ), noise_scale=value), class_start=1)
