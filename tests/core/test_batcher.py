"""Continuous batching: who shares a call, and what happens to a picture when another one fails."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from asymflow.core import engine, schedules
from asymflow.core.adapter import Context
from asymflow.core.batcher import Batcher, Interrupted, NotFinite
from asymflow.core.types import CONDITIONAL, FULL, Plan, Request, Step, Tier
from asymflow.models.gaussian import GaussianAdapter
from tests.helpers import draw64

SIZE = (8, 8)
HALF = Tier("half", pool_factor=2)
PLANS = (
    schedules.plan_of(schedules.uniform(4), solver="multistep3"),
    schedules.plan_of(schedules.shifted(6, 3.0), solver="corrected2", guidance_interval=(0.3, 0.8)),
    schedules.plan_of(schedules.uniform(3), solver="heun"),
    Plan("tiers", (Step(1.0, 0.7, HALF), Step(0.7, 0.4, CONDITIONAL), Step(0.4, 0.0, FULL))),
)


@dataclass(frozen=True, slots=True, eq=False)
class Watched(GaussianAdapter):
    """Notes the shape of every call, and fails as a test says."""

    shapes: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    fail: Callable[[Tensor, Context], None] = lambda x_t, context: None

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.shapes.append(tuple(x_t.shape))
        self.fail(x_t, context)
        return GaussianAdapter.denoise(self, x_t, t, context)


def watched(**options: Any) -> Watched:
    mean = 0.3 * draw64(0, 4, 3, 8, 8)
    return Watched(mean, 0.5 + 0.2 * draw64(1, 4, 3, 8, 8).tanh(), **options)


def request(seed: int, label: int = 1, **options: Any) -> Request:
    return Request({"label": label}, SIZE, seed, 2.0, **options)


def finished(batcher: Batcher) -> tuple[dict[int, Tensor], dict[int, Exception]]:
    """Results and failures of all pictures."""
    ends: dict[int, Tensor] = {}
    failed: dict[int, Exception] = {}
    while (frame := batcher.tick()) is not None:
        ends |= {m.picture: x for m, x in zip(frame.moves, frame.x_t, strict=True) if m.last}
        failed |= dict(frame.failed)
    assert batcher.pictures == 0
    return ends, failed


def alone(plan: Plan, wanted: Request) -> Tensor:
    return engine.rollout(watched(), plan, [wanted])[0].x_0


@pytest.mark.parametrize("limit", [None, 1, 3, 8])
@pytest.mark.parametrize("buckets", [(), (1, 2, 4, 8, 16)])
def test_pictures_of_unequal_plans_are_those_made_alone(
    limit: int | None, buckets: tuple[int, ...]
) -> None:
    batcher = Batcher(watched(), limit, buckets)
    requests = [request(i, i % 4) for i in range(12)]
    plans = [PLANS[i % 4] for i in range(12)]
    ends: dict[int, Tensor] = {}
    for begin in range(0, 12, 3):  # they come while others are on their way
        part = slice(begin, begin + 3)
        assert batcher.add(plans[part], requests[part]) == list(range(begin, begin + 3))
        for _ in range(2):
            frame = batcher.tick()
            assert frame is not None
            ends |= {m.picture: x for m, x in zip(frame.moves, frame.x_t, strict=True) if m.last}
    rest, failed = finished(batcher)
    assert not failed
    for i, end in (ends | rest).items():
        assert torch.equal(end, alone(plans[i], requests[i]))
    assert len(ends | rest) == 12


def test_calls_are_filled_whatever_the_plans() -> None:
    model = watched()
    batcher = Batcher(model, 8)
    for plan in PLANS[:3]:
        batcher.add([plan] * 8, [request(i) for i in range(8)])
    finished(batcher)
    stages = sum(8 * sum(step.evaluations for step in plan.steps) for plan in PLANS[:3])
    assert len(model.shapes) == stages / 8


def test_a_size_may_have_a_limit_of_its_own() -> None:
    model = watched()
    batcher = Batcher(model, 2, limits={(4, 4): 3})
    batcher.add([PLANS[0]] * 6, [request(i) for i in range(6)])
    batcher.add([PLANS[0]] * 6, [Request({"label": 1}, (4, 4), i) for i in range(6)])
    finished(batcher)
    assert {(rows, side) for rows, _, _, side in model.shapes} == {(2 * 2, 8), (3, 4)}
    assert batcher.limits == {(4, 4): 3}


def test_pictures_of_other_sizes_and_resolutions_ask_apart() -> None:
    model = watched()
    batcher = Batcher(model)
    batcher.add([PLANS[3]] * 2, [request(i) for i in range(2)])
    batcher.add([PLANS[0]], [request(2)])
    batcher.add([PLANS[0]], [Request({"label": 1}, (4, 4), 3)])
    ends, _ = finished(batcher)
    assert {shape[2:] for shape in model.shapes} == {(4, 4), (8, 8)}
    assert len(ends) == 4


def test_nobody_waits_for_ever() -> None:
    """A picture whose size nobody shares, while others always fill a call."""
    batcher = Batcher(watched(), 4)
    batcher.add([PLANS[0]], [Request({"label": 1}, (4, 4), 3)])
    for i in range(40):
        if i % 4 == 0:
            batcher.add([PLANS[0]] * 4, [request(k) for k in range(4)])
        frame = batcher.tick()
        if frame is not None and any(m.picture == 0 and m.last for m in frame.moves):
            break
    else:
        pytest.fail("the lonely picture was not made in 40 calls")


def test_nobody_waits_for_ever_behind_a_backlog() -> None:
    """Where everybody waits long, calls of others are always fuller."""
    batcher = Batcher(watched(), 4)
    batcher.add([PLANS[0]], [Request({"label": 1}, (4, 4), 3)])
    for _ in range(80):
        for seed in range(batcher.pictures, 40):
            batcher.add([PLANS[0]], [request(seed)])
        frame = batcher.tick()
        if frame is not None and any(m.picture == 0 and m.last for m in frame.moves):
            break
    else:
        pytest.fail("the lonely picture was not made in 80 calls")


def test_rows_are_filled_up_to_a_bucket() -> None:
    model = watched()
    batcher = Batcher(model, buckets=(2, 8))
    batcher.add([PLANS[0]] * 3, [request(i) for i in range(3)])
    finished(batcher)
    assert {shape[0] for shape in model.shapes} == {8}  # 3 with guidance are 6 rows
    model.shapes.clear()
    batcher.add([PLANS[0]] * 5, [request(i) for i in range(5)])
    finished(batcher)
    assert {shape[0] for shape in model.shapes} == {10}  # more than the last bucket


def test_a_cancelled_picture_is_not_asked_again() -> None:
    batcher = Batcher(watched())
    batcher.add([PLANS[0]] * 3, [request(i) for i in range(3)])
    batcher.tick()
    batcher.cancel(1)
    ends, failed = finished(batcher)
    assert set(ends) == {0, 2}
    assert not failed
    assert torch.equal(ends[2], alone(PLANS[0], request(2)))


# Failures


def test_one_poisoned_picture_of_32_fails_alone() -> None:
    model = watched()
    model.mean[3, 0, 0, 0] = math.nan
    batcher = Batcher(model, isolated=True)
    requests = [request(i, 3 if i == 17 else 1) for i in range(32)]
    batcher.add([PLANS[i % 3] for i in range(32)], requests)
    ends, failed = finished(batcher)
    assert set(failed) == {17}
    assert isinstance(failed[17], NotFinite)
    assert set(ends) == set(range(32)) - {17}
    for i, end in ends.items():
        assert torch.equal(end, alone(PLANS[i % 3], requests[i]))


def test_one_picture_that_the_network_refuses_fails_alone() -> None:
    def fail(x_t: Tensor, context: Context) -> None:
        if (context["label"] == 3).any():
            raise RuntimeError("label 3")

    batcher = Batcher(watched(fail=fail), isolated=True)
    requests = [request(i, 3 if i == 5 else 1) for i in range(8)]
    batcher.add([PLANS[0]] * 8, requests)
    ends, failed = finished(batcher)
    assert set(failed) == {5}
    assert str(failed[5]) == "label 3"
    assert len(ends) == 7
    for i, end in ends.items():
        assert torch.equal(end, alone(PLANS[0], requests[i]))


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("x")])
def test_calls_that_do_not_fit_into_memory_are_halved(error: Exception) -> None:
    def fail(x_t: Tensor, context: Context) -> None:
        if len(x_t) > 6:
            raise error

    model = watched(fail=fail)
    batcher = Batcher(model, isolated=True)
    requests = [request(i) for i in range(16)]
    batcher.add([PLANS[0]] * 16, requests)
    ends, failed = finished(batcher)
    assert not failed
    for i, end in ends.items():
        assert torch.equal(end, alone(PLANS[0], requests[i]))
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        # 32 rows, and 16 and 8 of the first half: after that it is known what fits.
        assert sum(shape[0] > 6 for shape in model.shapes) <= 7


def test_a_picture_that_does_not_fit_alone_fails() -> None:
    def fail(x_t: Tensor, context: Context) -> None:
        raise MemoryError

    batcher = Batcher(watched(fail=fail), isolated=True)
    batcher.add([PLANS[0]] * 4, [request(i) for i in range(4)])
    ends, failed = finished(batcher)
    assert ends == {}
    assert all(isinstance(error, MemoryError) for error in failed.values())
    assert len(failed) == 4


def test_fatal_errors_leave_the_pictures_where_they_were() -> None:
    broken = [True]

    def fail(x_t: Tensor, context: Context) -> None:
        if broken[0]:
            raise ConnectionError

    batcher = Batcher(watched(fail=fail), isolated=True, fatal=(ConnectionError,))
    batcher.add([PLANS[0]] * 2, [request(i) for i in range(2)])
    with pytest.raises(Interrupted) as caught:
        batcher.tick()
    assert caught.value.pictures == (0, 1)
    assert isinstance(caught.value.__cause__, ConnectionError)
    for _ in range(2):  # alone, until it is known who is not the reason
        with pytest.raises(Interrupted) as caught:
            batcher.tick()
        assert len(caught.value.pictures) == 1
    broken[0] = False
    ends, failed = finished(batcher)
    assert not failed
    assert all(torch.equal(ends[i], alone(PLANS[0], request(i))) for i in range(2))


def test_without_isolation_errors_are_raised_and_nan_is_a_result() -> None:
    def fail(x_t: Tensor, context: Context) -> None:
        raise KeyError("x")

    batcher = Batcher(watched(fail=fail))
    batcher.add([PLANS[0]], [request(0)])
    with pytest.raises(KeyError):
        batcher.tick()
    model = watched()
    model.mean[:] = math.nan
    [end] = engine.rollout(model, PLANS[0], [request(0)])
    assert end.x_0.isnan().all()


# Threads


def test_threads_keep_two_calls_in_flight() -> None:
    met, lock, barrier = [False], threading.Lock(), threading.Barrier(2, timeout=20)

    def meet(x_t: Tensor, context: Context) -> None:
        if not met[0]:
            barrier.wait()  # breaks if no other thread is inside
            met[0] = True

    batcher = Batcher(watched(fail=meet), 2)
    requests = [request(i, i % 4) for i in range(8)]
    batcher.add([PLANS[i % 4] for i in range(8)], requests)
    ends: dict[int, Tensor] = {}

    def work() -> None:
        while batcher.pictures:
            frame = batcher.tick()
            if frame is not None:
                with lock:
                    ends.update(
                        {
                            m.picture: x
                            for m, x in zip(frame.moves, frame.x_t, strict=True)
                            if m.last
                        }
                    )

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert met == [True]
    assert len(ends) == 8
    for i, end in ends.items():
        assert torch.equal(end, alone(PLANS[i % 4], requests[i]))


# Prompts of different length


@dataclass(frozen=True, slots=True, eq=False)
class Prompted(GaussianAdapter):
    """The label is the sum of a prompt's tokens; prompts are as long as they are."""

    lengths: list[int] = field(default_factory=list[int])

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        length = max(len(r.inputs["tokens"]) for r in requests)
        tokens = torch.zeros(len(requests), length, dtype=torch.long)
        for row, r in enumerate(requests):
            own = torch.tensor(r.inputs["tokens"])
            tokens[row, : len(own)] = own
        return {"tokens": tokens}, {"tokens": torch.zeros_like(tokens)}

    def check(self, request: Request) -> None:
        pass

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.lengths.append(context["tokens"].shape[1])
        return GaussianAdapter.denoise(self, x_t, t, {"label": context["tokens"].sum(1)})


@dataclass(frozen=True, slots=True, eq=False)
class Collating(Prompted):
    def collate(self, contexts: Sequence[Context]) -> Context:
        length = max(each["tokens"].shape[1] for each in contexts)
        length = next(each for each in (4, 16) if each >= length)
        pad = torch.nn.functional.pad
        rows = [pad(c["tokens"], (0, length - c["tokens"].shape[1])) for c in contexts]
        return {"tokens": torch.cat(rows)}


@pytest.mark.parametrize("kind", [Prompted, Collating])
def test_prompts_of_different_length_share_calls_if_the_adapter_collates(
    kind: type[Prompted],
) -> None:
    inner = watched()
    model = kind(inner.mean, inner.std)
    batcher = Batcher(model)
    prompts = ([1], [1, 1], [0, 1, 0], [1, 0, 1, 0, 1], [2])
    requests = [Request({"tokens": p}, SIZE, i, 2.0) for i, p in enumerate(prompts)]
    for one in requests:
        batcher.add([PLANS[0]], [one])
    ends, _ = finished(batcher)
    steps = len(PLANS[0].steps)
    assert len(model.lengths) == (steps if kind is Collating else 4 * steps)
    for i, prompt in enumerate(prompts):
        assert torch.equal(
            ends[i], alone(PLANS[0], replace(request(i), inputs={"label": sum(prompt)}))
        )
