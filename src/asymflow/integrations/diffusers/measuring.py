"""Pictures that are made to measure a pipeline: by itself, or by its network in batches."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture: a call of the pipeline, and its seed."""

    call: Call
    seed: int


@dataclass(slots=True, eq=False)
class Pictures:
    """Makes pictures with a pipeline, and counts what they cost."""

    pipe: Any
    family: Family
    forwards: int = 0
    seconds: list[float] = field(default_factory=list[float])

    def planned(self, plan: Plan, samples: Sequence[Sample]) -> Tensor:
        """States x_0 [b, c, h, w] of the pictures of a plan."""
        return self._make(partial(run, self.pipe, type(self.pipe), self.family, plan), samples)

    def original(self, baseline: Baseline, samples: Sequence[Sample]) -> Tensor:
        """Those of the pipeline's own sampler, in as many steps as the samples say."""
        pipe = copy_of(self.pipe, scheduler=baseline.scheduler)
        return self._make(lambda arguments: pipe(**arguments), samples)

    def _make(self, call: Callable[[Mapping[str, Any]], Any], samples: Sequence[Sample]) -> Tensor:
        states: list[Tensor] = []
        self.seconds = []
        for sample in samples:
            began = time.perf_counter()
            generator = torch.Generator().manual_seed(sample.seed)
            given = {**sample.call, "generator": generator, "output_type": "pt"}
            made = call(bound(self.pipe, given))
            images: Tensor = made.images.float().cpu()
            if not images.isfinite().all():  # of which clamping would leave something
                images = torch.full_like(images, math.nan)
            self.seconds.append(time.perf_counter() - began)
            states.append((2 * images - 1 if self.family.unit else images).clamp(-1, 1))
        return torch.cat(states)

    @contextmanager
    def counting(self, total: int) -> Generator[Any]:
        """Make the pictures with a copy of the pipeline, which is what is yielded.

        It counts the network's passes per picture on the pipeline's progress bar.
        """
        pipe = self.pipe

        def answer(forward: Callable[..., Any], named: Mapping[str, Any]) -> Tensor:
            rows = len(named[self.family.state])
            self.forwards += rows
            bar.update(rows)
            return forward(**{**named, "return_dict": False})[0]

        counted = capture_call(getattr(pipe, self.family.network), answer)
        self.pipe = copy_of(pipe, **{self.family.network: counted}, **quiet(pipe))
        try:
            with pipe.progress_bar(total=total) as bar:
                yield self.pipe
        finally:
            self.pipe = pipe


@dataclass(frozen=True, slots=True, eq=False)
class Rollouts:
    """Makes pictures with the network alone, many at a time.

    Attributes:
        adapter: of the network; it should encode requests once.
        size: (height, width).
        guidance_scale: of all pictures.
    """

    adapter: Adapter
    size: tuple[int, int]
    guidance_scale: float

    def planned(self, plan: Plan, samples: Sequence[Sample]) -> Tensor:
        """States x_0 [b, c, h, w] of the pictures of a plan."""
        requests = [
            Request(each.call, self.size, each.seed, self.guidance_scale) for each in samples
        ]
        ends = [
            end.x_0
            for begin in range(0, len(requests), TOGETHER)
            for end in engine.rollout(self.adapter, plan, requests[begin : begin + TOGETHER])
        ]
        # As pictures are: clamping would leave something of what is not finite.
        states = torch.stack(ends).cpu()
        kept = states.flatten(1).isfinite().all(1).view(-1, 1, 1, 1)
        return torch.where(kept, states.clamp(-1, 1), math.nan)
