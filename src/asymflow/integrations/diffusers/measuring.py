"""Pictures that are made to measure a pipeline: by itself, or by its network in batches."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from asymflow.core import engine
from asymflow.core.adapter import Adapter
from asymflow.core.types import Plan, Request
from asymflow.integrations.diffusers.original import Baseline
from asymflow.integrations.diffusers.runs import run
from asymflow.models.diffusers.pipelines import (
    Call,
    Family,
    bound,
    capture_call,
    copy_of,
    quiet,
)

TOGETHER = 8
"""Pictures that a plan is run for at a time."""

_ALONE = threading.RLock()


@contextmanager
def measuring(*pipes: Any) -> Generator[None]:
    """While pipelines are measured: one measurement at a time, and networks as they are used.

    Two at once would time each other. Dropout of a network that was left in training would become
    a part of the plan; its modules are put back into training afterwards.
    """
    with _ALONE:
        networks = {part for pipe in pipes for part in pipe.components.values()
                    if isinstance(part, torch.nn.Module)}  # fmt: skip
        training = [part for network in networks for part in network.modules() if part.training]
        for part in training:
            part.training = False
        try:
            yield
        finally:
            for part in training:
                part.training = True


class Sample(Protocol):
    """What a picture is made from; a `Request` is one."""

    @property
    def inputs(self) -> Call:
        """The call of the pipeline."""
        ...

    @property
    def seed(self) -> int:
        """Of the noise."""
        ...


@dataclass(slots=True, eq=False)
class Pictures:
    """Makes pictures with a pipeline, and counts what they cost.

    Attributes:
        forwards: network passes up to now, one for each row.
        seconds: of each of the last pictures, in this stage.
    """

    pipe: Any
    family: Family
    forwards: int = 0
    seconds: list[float] = field(default_factory=list[float])
    _expected: dict[str, int] = field(default_factory=dict[str, int])
    _bar: Any = None

    def planned(self, plan: Plan, samples: Sequence[Sample]) -> Tensor:
        """States x_0 [b, c, h, w] of the pictures of a plan."""
        return self._make(partial(run, self.pipe, type(self.pipe), self.family, plan), samples)

    def rolled(self, _: Adapter, plan: Plan, requests: Sequence[Request]) -> Tensor:
        """As `planned`, in the place of the function `rolled`."""
        return self.planned(plan, requests)

    def original(self, baseline: Baseline, samples: Sequence[Sample]) -> Tensor:
        """Those of the pipeline's own sampler, in as many steps as the calls say."""
        pipe = copy_of(self.pipe, scheduler=baseline.scheduler)
        return self._make(lambda arguments: pipe(**arguments), samples)

    def _make(self, call: Callable[[Mapping[str, Any]], Any], samples: Sequence[Sample]) -> Tensor:
        states: list[Tensor] = []
        self.seconds = []
        for sample in samples:
            began = time.perf_counter()
            generator = torch.Generator().manual_seed(sample.seed)
            given = {**sample.inputs, "generator": generator, "output_type": "pt"}
            made = call(bound(self.pipe, given))
            images: Tensor = made.images.float().cpu()
            self.seconds.append(time.perf_counter() - began)
            states.append(2 * images - 1 if self.family.unit else images)
        return as_pictures(torch.cat(states))

    @contextmanager
    def counting(self, expected: Mapping[str, int]) -> Generator[Any]:
        """Make the pictures with a copy of the pipeline, which is what is yielded.

        It counts the network's passes on the pipeline's progress bar.

        Args:
            expected: passes of the stages of the measurement.
        """
        pipe = self.pipe

        def answer(forward: Callable[..., Any], named: Mapping[str, Any]) -> Tensor:
            rows = len(named[self.family.state])
            self.forwards += rows
            self._bar.update(rows)
            return forward(**{**named, "return_dict": False})[0]

        counted = capture_call(getattr(pipe, self.family.network), answer)
        self.pipe = copy_of(pipe, **{self.family.network: counted}, **quiet(pipe))
        self._expected = dict(expected)
        try:
            with pipe.progress_bar(total=sum(expected.values())) as self._bar:
                yield self.pipe
        finally:
            self.pipe = pipe

    @contextmanager
    def stage(self, name: str, **expected: int) -> Generator[None]:
        """A stage of the measurement. What it really took replaces what was expected of it.

        Args:
            name: of the stage.
            expected: passes of stages that more is known of now.
        """
        before, self.seconds = self.forwards, []
        self._expected |= expected
        self._forecast()
        yield
        self._expected[name] = self.forwards - before
        self._forecast()

    def _forecast(self) -> None:
        self._bar.total = sum(self._expected.values())
        self._bar.refresh()


def rolled(adapter: Adapter, plan: Plan, requests: Sequence[Request]) -> Tensor:
    """States x_0 [b, c, h, w] of the pictures of a plan, by the network alone, many at a time."""
    ends = [
        end.x_0
        for begin in range(0, len(requests), TOGETHER)
        for end in engine.rollout(adapter, plan, requests[begin : begin + TOGETHER])
    ]
    return as_pictures(torch.stack(ends))


def as_pictures(states: Tensor) -> Tensor:
    """States [b, c, h, w] clamped to [-1, 1]; NaN where a picture is not finite."""
    states = states.float().cpu()  # clamping would leave something of what is not finite
    kept = states.flatten(1).isfinite().all(1).view(-1, 1, 1, 1)
    return torch.where(kept, states.clamp(-1, 1), math.nan)
