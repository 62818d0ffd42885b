"""Plans beside what ComfyUI has for few steps: passes, seconds, and how far from the limit.

The model of Fashion-MNIST (`benchmarks.suites.fashion`) as a MODEL of ComfyUI, by its official
sampler, by the nodes OptimalStepsScheduler and CFGOverride of ComfyUI's core, which need no
measuring, and by the fitted plans of `fashion quality` with the node Load plan. A small MiniT2I of
random weights the same way: passes and seconds only, since what it draws means nothing.
GITSScheduler is left out: its noise levels, from 14.6 to 0.03, are of models that are no flows.
"""

from __future__ import annotations

import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asymflow.core import engine
from asymflow.core.adapter import Adapter, CardedAdapter, Context
from asymflow.core.types import Plan, Request
from asymflow.models import minit2i
from asymflow.models.minit2i.network import MiniT2IConfig, MiniT2IModel
from asymflow.planning.plan_files import save_plan
from asymflow.planning.plan_json import plan_from_json
from asymflow.planning.proof import rms
from asymflow.planning.proposals import interval
from benchmarks.comfyui import host
from benchmarks.comfyui.host import Noise
from benchmarks.comfyui.real import Real
from benchmarks.results import TRAINED
from benchmarks.suites.fashion.asking import asked, loaded
from benchmarks.suites.fashion.campaign import LIMIT, Table
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.train import MODELS

SMALL = MiniT2IConfig(
    size=128, patch=16, width=192, depth=6, heads=3, head_dim=64, hidden=512, bottleneck=32,
    text_width=64, text_tokens=32,
)  # fmt: skip
LATE = (0.0, 0.5)
"""Times below which CFGOverride leaves guidance out."""
STEPS = (10, 20)
CHANNELS = 3
FIRST = 9000
"""Seed of the first picture."""


class Network(nn.Module):
    """A model of asymflow as a network of ComfyUI, from state, time and request to a velocity.

    ComfyUI's pixels have three channels: a model of one sees the first, and they stay equal.

    Attributes:
        rows: pictures that it was asked for: network passes.
    """

    def __init__(self, adapter: Adapter, conditions: Sequence[Context]) -> None:
        super().__init__()
        self.adapter, self.conditions, self.dtype = adapter, conditions, torch.float32
        self.rows = 0

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> Tensor:
        self.rows += len(x)
        given = [self.conditions[int(row)] for row in context[:, 0, 0].round().tolist()]
        asked = {name: torch.cat([each[name] for each in given]) for name in given[0]}
        t, seen = timesteps / 1000, x[:, : self.adapter.channels]
        velocity = (seen - self.adapter.denoise(seen, t, asked)) / t.view(-1, 1, 1, 1)
        return velocity.expand_as(x)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model in ComfyUI, with what it is asked for.

    Attributes:
        inner: the model.
        requests: the pictures.
        network: as which ComfyUI sees it; conditions 2k and 2k + 1 are those of picture k.
        model: as a MODEL.
    """

    real: Real
    inner: CardedAdapter
    requests: Sequence[Request]
    network: Network
    model: Any

    @classmethod
    def of(cls, real: Real, inner: CardedAdapter, requests: Sequence[Request]) -> Subject:
        conditions = [each for request in requests for each in inner.encode([request])]
        network = Network(inner, conditions)

        def made(**_: Any) -> Network:
            return network

        model = real.patcher(made, {"shift": 1.0})
        return cls(real, inner, requests, network, model)

    @property
    def latent(self) -> dict[str, Tensor]:
        return {"samples": torch.zeros(1, CHANNELS, *self.requests[0].size)}

    def prompts(self, number: int) -> tuple[Any, Any]:
        """CONDITIONING of picture `number`, and without its prompt."""
        given, null = ([[torch.full((1, 1, 1), 2.0 * number + k), {}]] for k in (0, 1))
        return given, null

    def drawn(self, number: int, guider: Any, sampler: Any, sigmas: Tensor) -> Tensor:
        """x_0 [1, c, h, w] of picture `number` by SamplerCustomAdvanced."""
        channels, request = self.inner.channels, self.requests[number]
        eps = engine.noise(request.seed, (channels, *request.size)).expand(CHANNELS, -1, -1)[None]
        drawn = self.real.sample(Noise(eps), guider, sampler, sigmas, self.latent)
        return drawn[:, :channels]


Way = Callable[[int], Tensor]
"""x_0 [1, c, h, w] of a picture by its number."""


def found(real: Real, pictures: int) -> dict[str, Any]:
    """Rows of both models, each with its passes, seconds, and RMSE where that means something."""
    trained = loaded(MODELS / NETWORKS["jit"].file)
    scale = trained.card.guidance
    wanted = asked(trained, scale, FIRST, pictures)
    table = Table.of(trained, scale, 0, 0)
    files = json.loads((TRAINED / "quality-jit.json").read_text("utf-8"))["files"]
    plans = {
        name: plan_from_json(text) for name, text in files.items() if name.startswith("fitted")
    }
    torch.manual_seed(0)
    untrained = minit2i.adapt(MiniT2IModel(SMALL), _prompt)
    prompt = {"prompt": "a red fox"}
    one = [Request(prompt, untrained.size, FIRST, untrained.card.guidance)]
    return {
        trained.card.title: _rows(
            Subject.of(real, trained, wanted), plans, table.drawn(table.limit(LIMIT), wanted)
        ),
        "MiniT2I of random weights": _rows(
            Subject.of(real, untrained, one), {"default": untrained.default_plan(untrained.size)}
        ),
    }


def _prompt(prompt: str) -> Tensor:
    generator = torch.Generator().manual_seed(len(prompt))
    return torch.randn(1, 8, SMALL.text_width, generator=generator)


@torch.inference_mode()
def _rows(
    subject: Subject, plans: Mapping[str, Plan], limit: Tensor | None = None
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        host.files_in(Path(folder))
        for name, plan in plans.items():
            unbound = Plan(name, plan.steps)  # ComfyUI's MODEL has another identity
            save_plan(unbound, Path(folder) / f"{name}.json")
        ways = {**dict(_by_core(subject)), **{name: _by_plan(subject, name) for name in plans}}
        for way in ways.values():  # the first picture of a process takes longer
            way(0)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        ends: dict[str, list[Tensor]] = {name: [] for name in ways}
        passes: dict[str, int] = {}
        for number in range(len(subject.requests)):
            for name, way in ways.items():  # in turn, so that all meet the same machine
                before, began = subject.network.rows, time.perf_counter()
                ends[name].append(way(number))
                seconds[name].append(time.perf_counter() - began)
                passes[name] = subject.network.rows - before
        for name in ways:
            row: dict[str, Any] = {"sampler": name, "passes": passes[name]}
            row["seconds"] = statistics.median(seconds[name])
            if limit is not None:
                row["rmse"] = float(rms(torch.cat(ends[name]), limit).mean())
            rows.append(row)
    return rows


def _by_plan(subject: Subject, name: str) -> Way:
    pack = host.load_pack()

    def way(number: int) -> Tensor:
        given, null = subject.prompts(number)
        guider, sampler, sigmas, _ = host.execute(
            pack.LoadPlan,
            model=subject.model,
            positive=given,
            negative=null,
            latent_image=subject.latent,
            plan=f"{name}.json",
            cfg=subject.requests[number].guidance_scale,
            denoise=1.0,
        )
        return subject.drawn(number, guider, sampler, sigmas)

    return way


def _by_core(subject: Subject) -> Iterator[tuple[str, Way]]:
    """The official sampler, and the nodes for few steps, by nodes of ComfyUI's core."""
    optimal: Any = importlib.import_module("comfy_extras.nodes_optimalsteps")
    own = subject.inner.own_plan(subject.requests[0].size)
    kind = own.steps[0].solver
    low, high = interval(own)
    early = 1 - high  # share of the noise levels, which are uniform in t
    name = f"official default: {kind}, {len(own.steps)} steps"
    yield name, _sampled(subject, kind, torch.tensor(own.times), early, 1 - low)
    for steps in STEPS:
        [sigmas] = optimal.OptimalStepsScheduler.execute("Chroma", steps, 1.0).result
        for late in LATE:
            until = f", guided above t = {late:g}" if late else ""
            name = f"OptimalSteps of Chroma, euler, {steps} steps{until}"
            yield name, _sampled(subject, "euler", sigmas, early, 1 - late)


def _sampled(subject: Subject, sampler: str, sigmas: Tensor, begin: float, end: float) -> Way:
    """By a sampler of the core, guided between two shares of the noise levels."""
    nodes, samplers = subject.real.nodes, subject.real.samplers
    model = subject.model
    for outside in ((0.0, begin), (end, 1.0)):
        if outside[0] < outside[1]:
            [model] = nodes.CFGOverride.execute(model, 1.0, *outside).result

    def way(number: int) -> Tensor:
        given, null = subject.prompts(number)
        guider = samplers.CFGGuider(model)
        guider.set_conds(given, null)
        guider.set_cfg(subject.requests[number].guidance_scale)
        return subject.drawn(number, guider, samplers.ksampler(sampler), sigmas)

    return way
