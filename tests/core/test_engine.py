"""The engine, with models whose trajectories are known and a count of what they were asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine, schedules, transforms
from asymflow.core.adapter import Adapter, Context
from asymflow.core.errors import InputError
from asymflow.core.estimators import Guided
from asymflow.core.flow import interpolate
from asymflow.core.types import (
    Request,
    Result,
    Solver,
)
from asymflow.models.empirical import EmpiricalAdapter
from asymflow.models.gaussian import GaussianAdapter
from tests.helpers import draw64

SIZE = (8, 8)
PLAN = schedules.plan_of(schedules.shifted(6, 2.0))


def picture(seed: int, size: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((*size, 3), dtype=np.float32)


def request(label: int = 1, size: tuple[int, int] = SIZE, **options: Any) -> Request:
    return Request({"label": label}, size, **options)


@dataclass(frozen=True, slots=True, eq=False)
class Counting(GaussianAdapter):
    """Notes the time and the labels of every network call; label 0 is the unconditional one."""

    calls: list[tuple[float, list[int]]] = field(default_factory=list[tuple[float, list[int]]])

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        assert len(x_t) == len(t) == len(context["label"])
        self.calls.append((float(t[0]), [int(label) for label in context["label"]]))
        return GaussianAdapter.denoise(self, x_t, t, context)

    @property
    def rows(self) -> int:
        return sum(len(labels) for _, labels in self.calls)


@dataclass(frozen=True, slots=True, eq=False)
class Convolving(GaussianAdapter):
    """Float32 kernels that may round differently in batches of different size."""

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_0 = GaussianAdapter.denoise(self, x_t, t, context)
        kernel = draw64(5, 64, 3, 3, 3).to(x_t) / 8
        hidden = torch.nn.functional.conv2d(x_0, kernel, padding=1).tanh()
        return x_0 + torch.nn.functional.conv2d(hidden, kernel.movedim(0, 1), padding=1) / 8


def gaussian() -> Counting:
    """Labels 1 and 2 share the mean of label 0, so that guided trajectories are known."""
    mean = 0.2 * draw64(0, 1, 3, 8, 8).expand(3, -1, -1, -1)
    std = torch.tensor([0.7, 0.4, 0.5], dtype=torch.float64).view(3, 1, 1, 1)
    return Counting(mean, std * (1 + 0.3 * draw64(1, 3, 3, 8, 8).tanh()))


def empirical() -> EmpiricalAdapter:
    return EmpiricalAdapter(draw64(2, 12, 3, 8, 8).clamp(-1, 1), torch.arange(12) % 3)


def convolving() -> Convolving:
    model = gaussian()
    return Convolving(model.mean.float(), model.std.float(), batch=1)


MODELS: dict[str, Callable[[], Adapter]] = {
    "gaussian": gaussian,
    "empirical": empirical,
    "convolving": convolving,
}


def same(a: Result, b: Result) -> bool:
    return np.array_equal(a.picture, b.picture) and (a.forwards, a.plan) == (b.forwards, b.plan)


# Noise


def test_noise_is_a_function_of_the_seed_only() -> None:
    assert torch.equal(engine.noise(7, (3, 8, 8)), engine.noise(7, (3, 8, 8)))
    assert not torch.equal(engine.noise(7, (3, 8, 8)), engine.noise(8, (3, 8, 8)))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    drawn = engine.noise(0, (1, 256, 256))
    assert torch.equal(torch.get_rng_state(), before)
    assert drawn.dtype == torch.float32
    assert drawn.mean().item() == pytest.approx(0, abs=0.02)
    assert drawn.std().item() == pytest.approx(1, abs=0.02)


# The trajectory


def finish(model: Adapter, wanted: list[Request], n: int, solver: Solver) -> Tensor:
    *_, last = engine.walk(model, schedules.plan_of(schedules.uniform(n), solver=solver), wanted)
    return last.x_t


@pytest.mark.parametrize("solver", ["multistep2", "multistep3", "heun"])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_trajectories_are_the_exact_ones(solver: Solver, scale: float) -> None:
    model = gaussian()
    wanted = [request(1, seed=3, guidance_scale=scale), request(2, seed=4, guidance_scale=scale)]
    eps = torch.stack([engine.noise(r.seed, (3, 8, 8)) for r in wanted]).double()
    exact = model.guided_solution(eps, 1.0, 0.0, torch.tensor([1, 2]), scale)
    error = (finish(model, wanted, 200, solver) - exact).abs().max().item()
    assert error < 2e-3
    assert error < (finish(model, wanted, 20, solver) - exact).abs().max().item() / 10


def test_guidance_scale_zero_is_the_unconditional_model() -> None:
    model = gaussian()
    plain = finish(model, [request(0, seed=1)], 8, "heun")
    unguided = finish(model, [request(1, seed=1, guidance_scale=0.0)], 8, "heun")
    assert_close(unguided, plain)


def test_frames_tell_where_the_batch_stands() -> None:
    model = gaussian()
    wanted = [request(seed=1), request(2, seed=2)]
    frames = list(engine.walk(model, PLAN, wanted))
    assert [[move.picture for move in frame.moves] for frame in frames] == [[0, 1]] * 6
    for row in range(2):
        moves = [frame.moves[row] for frame in frames]
        assert [move.index for move in moves] == list(range(6))
        assert {move.count for move in moves} == {6}
        assert tuple(move.step for move in moves) == PLAN.steps
        assert all(move.seconds >= 0 for move in moves)
        assert [move.last for move in moves] == [False] * 5 + [True]
    for before, after in pairwise(frames):
        t = torch.full((2,), after.moves[0].step.t, dtype=torch.float64)
        x_0 = model.denoise(before.x_t, t, {"label": torch.tensor([1, 2])})
        assert torch.equal(after.x_0, x_0)
    assert frames[-1].moves[0].step.s == 0


def test_a_plan_may_begin_below_pure_noise() -> None:
    model = gaussian()
    plan = schedules.plan_of((0.9, 0.5, 0.0))
    first = next(iter(engine.walk(model, plan, [request(seed=5)])))
    eps = engine.noise(5, (3, 8, 8)).double()[None]
    assert_close(first.x_t, (5 / 9) * 0.9 * eps + (1 - 5 / 9) * first.x_0)


def test_closing_a_walk_cancels_the_rest() -> None:
    model = gaussian()
    walk = engine.walk(model, PLAN, [request()])
    whole = list(engine.walk(gaussian(), PLAN, [request()]))
    for index in range(2):
        assert torch.equal(next(walk).x_t, whole[index].x_t)
    walk.close()
    assert len(model.calls) == 2
    assert next(walk, None) is None


def test_nothing_runs_before_the_first_frame_and_inference_mode_stays_inside() -> None:
    model = gaussian()
    walk = engine.walk(model, PLAN, [request()])
    assert model.calls == []
    for frame in walk:
        assert frame.x_t.is_inference()
        assert not torch.is_inference_mode_enabled()


# Batches


@pytest.mark.parametrize("name", MODELS)
def test_a_result_does_not_depend_on_its_neighbours(name: str) -> None:
    model = MODELS[name]()
    mask = np.zeros(SIZE, np.float32)
    mask[2:6, 3:] = 1
    wanted = [
        request(1, seed=1, guidance_scale=3.0),
        request(2, seed=2),
        request(1, (4, 4), seed=1, guidance_scale=3.0),
        request(2, seed=1, guidance_scale=0.5, image=picture(1), strength=0.6),
        request(1, seed=3, guidance_scale=2.0, image=picture(2), mask=mask),
        request(1, seed=4, image=picture(3), mask=mask, strength=0.6),
        request(1, (2, 2), seed=6),
        request(1, seed=1, guidance_scale=3.0),
    ]
    alone = [engine.run(model, PLAN, [one])[0] for one in wanted]
    together = engine.run(model, PLAN, wanted)
    assert [result.request for result in together] == wanted
    assert [result.picture.shape[:2] for result in together] == [one.size for one in wanted]
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    assert all(same(a, b) for a, b in zip(alone, engine.run(model, PLAN, wanted), strict=True))
    assert all(
        same(a, b) for a, b in zip(alone[::-1], engine.run(model, PLAN, wanted[::-1]), strict=True)
    )
    assert same(together[0], together[-1])
    assert not same(together[0], together[1])


def test_results_say_what_they_took() -> None:
    [a, b] = engine.run(gaussian(), PLAN, [request(), request(2, image=picture(1), strength=0.5)])
    assert a.plan == PLAN
    assert b.plan == transforms.truncated(PLAN, 0.5)
    for result in (a, b):
        assert len(result.step_seconds) == len(result.plan.steps)
        assert result.seconds == pytest.approx(sum(result.step_seconds))
        assert result.picture.dtype == np.float32
        assert 0 <= result.picture.min() <= result.picture.max() <= 1


def test_no_requests_no_results() -> None:
    assert engine.run(gaussian(), PLAN, []) == []


@pytest.mark.parametrize("batch", [None, 1, 2, 3, 99])
def test_pictures_per_call_are_limited(batch: int | None) -> None:
    model = replace(gaussian(), batch=batch)
    wanted = [request(seed=seed, guidance_scale=1.0 + (seed % 2)) for seed in range(5)]
    results = engine.run(model, PLAN, wanted)
    free = engine.run(gaussian(), PLAN, wanted)
    assert all(same(a, b) for a, b in zip(results, free, strict=True))
    pictures = [
        sum(label != 0 for label in labels) for _, labels in model.calls[: len(model.calls) // 6]
    ]
    assert sum(pictures) == 5
    assert max(pictures) == min(batch or 5, 5)


# Guidance is paid where it is used


@pytest.mark.parametrize("solver", ["multistep2", "heun"])
@pytest.mark.parametrize("scale", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.3, 0.8)])
def test_forwards_are_counted_as_executed(
    solver: Solver, scale: float, interval: tuple[float, float]
) -> None:
    plan = schedules.plan_of(schedules.uniform(7), solver=solver, guidance_interval=interval)
    model = gaussian()
    [result] = engine.run(model, plan, [request(guidance_scale=scale)])
    assert result.forwards == model.rows == engine.forwards(plan, result.request)
    assert len(model.calls) == sum(step.evaluations for step in plan.steps)


def test_the_unconditional_pass_is_skipped_outside_the_interval() -> None:
    plan = schedules.plan_of(schedules.uniform(10), guidance_interval=(0.25, 0.75))
    model = gaussian()
    engine.run(model, plan, [request(guidance_scale=3.0), request(2)])
    assert len(model.calls) == 10
    for t, labels in model.calls:
        assert labels == ([1, 2, 0] if 0.25 <= t <= 0.75 else [1, 2])


@pytest.mark.parametrize("batch", [None, 2])
def test_guidance_is_per_picture(batch: int | None) -> None:
    model = replace(gaussian(), batch=batch)
    x_t, t = draw64(7, 4, 3, 8, 8), torch.full((4,), 0.5, dtype=torch.float64)
    cond, null = torch.tensor([1, 2, 1, 2]), torch.tensor([0, 1, 2, 1])
    scale = torch.tensor([2.0, 1.0, 3.0, 0.5], dtype=torch.float64)
    guided = Guided.of(model, {"label": cond}, {"label": null}, scale)
    x_0, guidance = guided.denoise(x_t, t, guided=True)
    d_cond = model.denoise(x_t, t, {"label": cond})
    d_null = model.denoise(x_t, t, {"label": null})
    assert_close(x_0, d_null + scale.view(-1, 1, 1, 1) * (d_cond - d_null))
    assert torch.equal(x_0[1], d_cond[1])
    assert_close(x_0 - guidance, d_cond)
    assert torch.equal(guided.denoise(x_t, t, guided=False)[0], d_cond)


def test_a_cut_plan_costs_what_is_left_of_it() -> None:
    model = gaussian()
    wanted = request(guidance_scale=3.0, image=picture(1), strength=0.5)
    [result] = engine.run(model, schedules.plan_of(schedules.uniform(10)), [wanted])
    assert result.forwards == model.rows == 10


# From an image


def test_full_strength_forgets_the_image() -> None:
    model = gaussian()
    [plain, from_image] = engine.run(
        model, PLAN, [request(seed=1), request(seed=1, image=picture(1))]
    )
    assert np.array_equal(plain.picture, from_image.picture)


def test_no_strength_returns_the_image() -> None:
    model, image = gaussian(), picture(1)
    gaps: list[float] = []
    for strength in (0.2, 0.02, 0.002):
        [result] = engine.run(model, PLAN, [request(seed=1, image=image, strength=strength)])
        gaps.append(float(np.abs(result.picture - image).max()))
        assert result.plan.times[0] == strength
    assert gaps[2] < 5e-3
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]


def test_strength_begins_at_the_noised_image() -> None:
    model, image = gaussian(), picture(1)
    wanted = request(seed=9, image=image, strength=0.6)
    first = next(iter(engine.walk(model, PLAN, [wanted])))
    start = interpolate(model.to_state(image), engine.noise(9, (3, 8, 8)).double(), 0.6)[None]
    t = torch.tensor([0.6], dtype=torch.float64)
    assert_close(first.x_0, model.denoise(start, t, {"label": torch.tensor([1])}))


# Inpainting


def test_kept_pixels_are_those_of_the_image_bit_for_bit() -> None:
    image = picture(1)
    mask = np.zeros(SIZE, np.float32)
    mask[2:6, 2:6] = 1
    for model in (gaussian(), empirical(), convolving()):
        [result] = engine.run(
            model, PLAN, [request(seed=1, guidance_scale=2.0, image=image, mask=mask)]
        )
        assert np.array_equal(result.picture[mask == 0], image[mask == 0])
        assert (result.picture[mask == 1] != image[mask == 1]).any(-1).all()


def test_known_pixels_follow_the_noised_image_at_every_step() -> None:
    model, image = gaussian(), picture(1)
    mask = np.zeros(SIZE, np.float32)
    mask[:, 4:] = 1
    x_0, eps = model.to_state(image), engine.noise(2, (3, 8, 8)).double()
    for plan in (PLAN, schedules.plan_of(schedules.uniform(5), solver="heun")):
        for frame in engine.walk(model, plan, [request(seed=2, image=image, mask=mask)]):
            known = interpolate(x_0, eps, frame.moves[0].step.s)
            assert_close(frame.x_t[0, :, :, :4], known[:, :, :4])
            assert torch.equal(frame.x_0[0, :, :, :4], x_0[:, :, :4])


def test_masks_of_ones_and_zeros() -> None:
    model, image = gaussian(), picture(1)
    ones, zeros = np.ones(SIZE, np.float32), np.zeros(SIZE, np.float32)
    [free, painted, kept] = engine.run(
        model,
        PLAN,
        [
            request(seed=1),
            request(seed=1, image=image, mask=ones),
            request(seed=1, image=image, mask=zeros),
        ],
    )
    assert np.array_equal(free.picture, painted.picture)
    assert np.array_equal(kept.picture, image)


def test_soft_masks_blend() -> None:
    model, image = gaussian(), picture(1)
    mask = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (8, 1))
    plan = schedules.plan_of(schedules.uniform(6), solver="euler")
    wanted = request(seed=1, image=image, mask=mask)
    *_, before, last = engine.walk(model, plan, [wanted])
    t = torch.tensor([last.moves[0].step.t], dtype=torch.float64)
    free = model.denoise(before.x_t, t, {"label": torch.tensor([1])})[0]
    blend = torch.lerp(model.to_state(image), free, torch.as_tensor(mask).double())
    assert_close(last.x_t[0], blend)
    [result] = engine.run(model, plan, [wanted])
    np.testing.assert_allclose(result.picture, model.to_picture(blend), atol=1e-6)
    assert np.array_equal(result.picture[:, 0], image[:, 0])


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "Seed -1"),
        ({"seed": 2**63}, "out of range"),
        ({"guidance_scale": float("nan")}, "Guidance scale nan"),
        ({"guidance_scale": float("inf")}, "Guidance scale inf"),
        ({"strength": 0.0, "image": picture(1)}, "Strength 0.0"),
        ({"strength": 1.5, "image": picture(1)}, "Strength 1.5"),
        ({"strength": float("nan"), "image": picture(1)}, "Strength nan"),
        ({"strength": 0.5}, "needs an image"),
        ({"mask": np.ones(SIZE, np.float32)}, "needs an image"),
        ({"image": picture(1, (8, 4))}, r"image has shape \(8, 4, 3\)"),
        ({"image": picture(1)[..., :1]}, r"needs \(8, 8, 3\)"),
        ({"image": picture(1)[..., 0]}, "image has shape"),
        ({"image": picture(1) * 255}, r"image has values outside \[0, 1\]"),
        ({"image": picture(1) * np.float32("nan")}, "image has values outside"),
        ({"image": picture(1), "mask": np.ones((4, 8), np.float32)}, "mask has shape"),
        ({"image": picture(1), "mask": np.full(SIZE, 2, np.float32)}, "mask has values"),
        ({"image": picture(1), "mask": np.full(SIZE, np.nan, np.float32)}, "mask has values"),
        ({"size": (8, 7)}, "cannot be served"),
        ({"size": (0, 8)}, "cannot be served"),
        ({"label": 3}, "Unknown label 3"),
    ],
)
def test_requests_that_cannot_be_served(options: Mapping[str, Any], message: str) -> None:
    model = gaussian()
    refused = request(**options)
    with pytest.raises(InputError, match=message):
        engine.run(model, PLAN, [request(), refused])
    with pytest.raises(InputError, match=message):
        next(engine.walk(model, PLAN, [refused]))
    assert model.calls == []


def test_requests_of_any_size_and_strength_walk_together() -> None:
    model = gaussian()
    wanted = [request(seed=1), request(2, (4, 4)), request(image=picture(1), strength=0.5)]
    ends = {
        move.picture: x_t.clone()
        for frame in engine.walk(model, PLAN, wanted)
        for move, x_t in zip(frame.moves, frame.x_t, strict=True)
    }
    for row, result in enumerate(engine.run(model, PLAN, wanted)):
        [made] = engine.pictures(model, wanted[row : row + 1], ends[row][None])
        assert np.array_equal(made, result.picture)
    assert list(engine.walk(model, PLAN, [])) == []
