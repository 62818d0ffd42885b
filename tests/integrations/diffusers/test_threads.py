"""Pipelines on shared parts, called at the same time, make what they make one after the other."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

import asymflow
from asymflow import AsymFlowScheduler
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, shifted, uniform
from asymflow.core.types import CONDITIONAL, FULL, SEQUENTIAL_CFG, SOLVERS, Plan
from asymflow.integrations.diffusers import original

from .conftest import CARRIED, measured_with, seeded

diffusers: Any = pytest.importorskip("diffusers")

Make = Callable[..., Any]
T = TypeVar("T")
WAIT = 240.0


@pytest.fixture(autouse=True)
def often() -> Generator[None]:
    """Let threads take turns far more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What all calls return, made at the same time."""
    start = threading.Barrier(len(calls))

    def begin(call: Callable[[], T]) -> T:
        start.wait(WAIT)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(begin, call) for call in calls]
        return [future.result(WAIT) for future in futures]


def a_plan(rng: random.Random) -> Plan:
    grid = shifted(rng.randint(2, 6), rng.choice((1.0, 2.0, 3.0)))
    plan = plan_of(grid, solver=rng.choice(SOLVERS))
    tiers = [
        FULL,
        *rng.choices((FULL, CONDITIONAL, CARRIED, SEQUENTIAL_CFG), k=len(plan.steps) - 1),
    ]
    steps = zip(plan.steps, tiers, strict=True)
    return Plan("random", tuple(replace(step, tier=tier) for step, tier in steps))


def test_one_pipeline_is_called_by_several_threads(unconditional: Make) -> None:
    fast = asymflow.accelerate(unconditional(), plan_of(uniform(6), solver="corrected2"))

    def draw(seed: int) -> Tensor:
        return fast(generator=seeded(seed), output_type="pt").images

    alone = [draw(seed) for seed in range(6)]
    calls = [lambda seed=seed: draw(seed) for seed in range(6)]
    assert all(map(torch.equal, alone, together(calls)))
    assert type(fast.scheduler) is diffusers.DDIMScheduler


@pytest.mark.parametrize("seed", range(3))
def test_many_pipelines_share_a_network_and_a_scheduler(
    deepfloyd: Make, told: dict[str, Any], seed: int
) -> None:
    """Each with a plan and a guidance of its own; one of them is the pipeline as it comes."""
    rng = random.Random(seed)
    pipe = deepfloyd()
    networks, schedulers = dict(vars(pipe.unet)), dict(vars(pipe.scheduler))
    made = [asymflow.accelerate(pipe, a_plan(rng)) for _ in range(4)]
    plain = type(pipe)(**pipe.components, requires_safety_checker=False)
    plain.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    plain.set_progress_bar_config(disable=True)
    calls: list[Callable[[], Tensor]] = []
    for each in (*made, made[0], plain):
        scale, picture = rng.choice((1.0, 2.0, 5.0)), rng.randrange(100)

        def draw(each: Any = each, scale: float = scale, picture: int = picture) -> Tensor:
            call = {**told, "guidance_scale": scale, "num_inference_steps": 5}
            return each(generator=seeded(picture), output_type="pt", **call).images

        calls.append(draw)
    alone = [call() for call in calls]
    assert all(map(torch.equal, alone, together(calls)))
    assert vars(pipe.unet) == networks
    assert {name: vars(pipe.scheduler)[name] for name in schedulers} == schedulers


def test_a_call_is_seen_by_nobody_while_it_lasts(deepfloyd: Make, told: dict[str, Any]) -> None:
    pipe = deepfloyd()
    plain = dict(vars(pipe.unet)), pipe.scheduler
    fast = asymflow.accelerate(pipe, a_plan(random.Random(0)))
    seen: list[bool] = []

    def callback(step: int, tau: Tensor, z: Tensor) -> None:
        for each in (pipe, fast):
            seen.append((vars(each.unet), each.scheduler) == plain)
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fast(**told, generator=seeded(), output_type="pt", callback=callback)
    assert seen == [True] * 4
    assert (vars(pipe.unet), pipe.scheduler) == plain


def test_planning_in_the_background_is_not_noticed(
    unconditional: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured_with(monkeypatch, CALIBRATION=2, FRESH=2, CANDIDATES=4, FINE=6)
    monkeypatch.setattr(original, "ENOUGH", 6)
    pipe = unconditional("DDPMPipeline")
    fast = asymflow.accelerate(pipe, plan_of(uniform(3)))
    pipe.unet.train()

    def draw(each: Any) -> Tensor:
        return each(generator=seeded(), num_inference_steps=3, output_type="pt").images

    alone = [draw(pipe), draw(fast)]
    done = threading.Event()
    planned: list[Plan] = []
    pictures: list[bool] = []

    def plan() -> None:
        try:
            planned.append(asymflow.accelerate(pipe, steps=2).asymflow_plan)
        finally:
            done.set()

    def look() -> None:
        while not done.is_set():
            pictures.extend(map(torch.equal, alone, [draw(pipe), draw(fast)]))

    together([plan, look])
    assert len(planned) == 1
    assert len(pictures) > 2
    assert all(pictures)
    assert pipe.unet.training  # as it was found


@pytest.mark.parametrize("shared", [True, False])
def test_a_scheduler_makes_one_picture_at_a_time(shared: bool) -> None:
    """Of two that begin in two threads, the first is stopped and the second is right."""
    plan = plan_of(uniform(4), solver="corrected2")
    first = AsymFlowScheduler.of(plan, diffusers.DDIMScheduler(clip_sample=False))
    second = first if shared else AsymFlowScheduler.of(plan, first)
    z = torch.randn(1, 3, 4, 4, generator=seeded())

    def make(scheduler: AsymFlowScheduler, steps: slice, state: Tensor) -> Tensor:
        if steps.start == 0:
            scheduler.set_timesteps(4)
        for tau in scheduler.timesteps[steps]:
            state = scheduler.step(state / 2, tau, state, return_dict=False)[0]
        return state

    alone = make(first, slice(0, 4), z)
    half = make(first, slice(0, 2), z)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(make, second, slice(0, 4 if not shared else 2), z).result(WAIT)
        if not shared:
            assert torch.equal(make(first, slice(2, 4), half), alone)
            assert torch.equal(other, alone)
            return
        with pytest.raises(InputError, match=r"another thread.*own"):
            make(first, slice(2, 4), half)
        assert torch.equal(pool.submit(make, first, slice(2, 4), other).result(WAIT), alone)


def test_pictures_that_a_scheduler_makes_by_turns_are_refused() -> None:
    scheduler = AsymFlowScheduler.of(plan_of(uniform(4)), diffusers.DDIMScheduler())
    z = torch.randn(1, 3, 4, 4, generator=seeded())
    first, second, *_ = scheduler.timesteps
    scheduler.step(z, first, z)
    with pytest.raises(InputError, match=r"Timestep 999 is not the one that is due.*each"):
        scheduler.step(z, first, z)
    scheduler.step(z, second, z)
