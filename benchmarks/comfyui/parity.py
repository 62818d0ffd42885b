"""Plans in ComfyUI and in asymflow's own engine: the same pictures of the same network.

The nodes of the pack make the parts, ComfyUI's SamplerCustomAdvanced or KSampler the pictures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asymflow.core import engine
from asymflow.core.adapter import Context
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import CARRIED, CONDITIONAL, FULL, Picture, Plan, Request, Step
from asymflow.planning.plan_files import save_plan
from benchmarks.comfyui import host
from benchmarks.comfyui.host import Host, Noise, Tiny, conditioning

SIZE = (16, 24)
SHIFT = 3.0
TOLERANCE = 1e-5
"""Between states, in parts of the largest number of a picture."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is sampled both ways.

    Attributes:
        ksampler: by KSampler with the node Apply plan, rather than by Load plan.
    """

    name: str
    plan: Plan
    cfg: float = 4.0
    batch: int = 1
    noise_scale: float = 1.0
    denoise: float = 1.0
    masked: bool = False
    ksampler: bool = False


def _mixed() -> Plan:
    """Every kind of step but of lower resolution."""
    times = shifted(9, SHIFT)
    steps = [Step(t, s, FULL, "corrected2") for t, s in pairwise(times)]
    steps[1] = replace(steps[1], solver="multistep3")
    steps[2] = replace(steps[2], solver="damped2", weights=_weights(steps[2], 0.3))
    steps[3] = replace(steps[3], tier=CARRIED, solver="damped2")
    steps[4] = Step(times[4], times[5], reuse=True)
    steps[5] = replace(steps[5], guidance_scale=2.5)
    steps[6] = replace(steps[6], solver="heun")
    steps[7] = replace(steps[7], tier=CONDITIONAL, solver="damped2")
    return Plan("mixed", tuple(steps))


def _weights(step: Step, share: float) -> tuple[float, ...]:
    """Of three estimates, that keep known pictures with their noise."""
    a = step.s / step.t
    new = 1 - step.s - a * (1 - step.t)
    return a, (1 + share) * new, -share / 2 * new, -share / 2 * new


INTERVAL = plan_of(
    shifted(8, SHIFT), solver="corrected2", guidance_interval=(0.1, 0.9), name="interval"
)
GUIDED = plan_of(shifted(8, SHIFT), solver="corrected2", name="guided")
MIXED = _mixed()
CARRIED_ON = Plan("carried on", (*GUIDED.steps[:-1], replace(GUIDED.steps[-1], tier=CARRIED)))

CASES = (
    Case("without guidance", GUIDED, cfg=1.0),
    Case("with guidance", GUIDED),
    Case("guidance interval", INTERVAL),
    Case("batch of 3", INTERVAL, batch=3),
    Case("noise scale 8", INTERVAL, noise_scale=8.0),
    Case("a picture to change, denoise 0.6", INTERVAL, denoise=0.6),
    Case("every kind of step", MIXED),
    Case("every kind of step, noise scale 8, batch of 2", MIXED, noise_scale=8.0, batch=2),
    Case("every kind of step, denoise 0.5", MIXED, denoise=0.5),
    Case("a mask", INTERVAL, masked=True),
    Case("a mask, every kind of step", MIXED, masked=True),
    Case("a mask, guidance carried to the end", CARRIED_ON, masked=True),
    Case("KSampler", INTERVAL, ksampler=True),
    Case("KSampler, batch of 3, every kind of step", MIXED, batch=3, ksampler=True),
    Case("KSampler, denoise 0.6", INTERVAL, denoise=0.6, ksampler=True),
)


@dataclass(frozen=True, slots=True, eq=False)
class TinyAdapter:
    """The tiny network as a model of asymflow."""

    network: Tiny
    noise_scale: float
    prompts: tuple[Tensor, Tensor]
    name: str = "tiny"
    channels: int = 3
    batch: int | None = None

    @property
    def template(self) -> Tensor:
        return torch.empty(0)

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return ()

    def check(self, request: Request) -> None:
        pass

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        cond, null = ({"text": torch.cat([p] * len(requests))} for p in self.prompts)
        return cond, null

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        z = x_t * self.noise_scale
        velocity = self.network(z, t * 1000, context["text"])
        return (z - t.view(-1, 1, 1, 1) * velocity) / self.noise_scale

    def to_state(self, picture: Picture) -> Tensor:
        return (torch.from_numpy(picture).movedim(-1, 0) * 2 - 1) / self.noise_scale

    def to_picture(self, x_0: Tensor) -> Picture:
        return ((x_0 * self.noise_scale + 1) / 2).movedim(0, -1).clamp(0, 1).numpy()


def differences(where: Host, cases: Sequence[Case] = CASES) -> dict[str, float]:
    """Of every possible case: the largest difference, in parts of a picture's largest number."""
    return {
        case.name: difference(where, case)
        for case in cases
        if where.scales_noise or case.noise_scale == 1
    }


def difference(where: Host, case: Case) -> float:
    """Of one case."""
    images = [_image(i) for i in range(case.batch)] if case.masked or case.denoise < 1 else None
    eps = torch.stack([engine.noise(i, (3, *SIZE)) for i in range(case.batch)])
    settings = {"shift": SHIFT, "noise_scale": case.noise_scale}
    positive, negative = conditioning(0), conditioning(1)
    with torch.inference_mode():
        model = where.patcher(Tiny, settings)
        latent = _latent(images, case)
        theirs = _sampled(where, case, model, Noise(eps), latent, positive, negative)
        ours = _own(case, images, (positive[0][0], negative[0][0]))
    return float((theirs.cpu() - ours).abs().max() / ours.abs().max())


def _sampled(
    where: Host, case: Case, model: Any, noise: Noise, latent: Any, positive: Any, negative: Any
) -> Tensor:
    pack = host.load_pack()
    with tempfile.TemporaryDirectory() as folder:
        save_plan(case.plan, Path(folder) / "case.json")
        host.files_in(Path(folder))
        if case.ksampler:
            [patched] = host.execute(pack.ApplyPlan, model=model, plan="case.json")
            return where.ksampler(
                patched,
                noise.values,
                positive,
                negative,
                latent["samples"],
                steps=12,
                cfg=case.cfg,
                denoise=case.denoise,
            )
        guider, sampler, sigmas, _ = host.execute(
            pack.LoadPlan,
            model=model,
            positive=positive,
            negative=negative,
            latent_image=latent,
            plan="case.json",
            cfg=case.cfg,
            denoise=case.denoise,
        )
        return where.sample(noise, guider, sampler, sigmas, latent)


def _own(case: Case, images: Sequence[Picture] | None, prompts: tuple[Tensor, Tensor]) -> Tensor:
    adapter = TinyAdapter(Tiny(), case.noise_scale, prompts)
    strength = SHIFT * case.denoise / (1 + (SHIFT - 1) * case.denoise)
    requests = [
        Request(
            {},
            SIZE,
            i,
            case.cfg,
            None if images is None else images[i],
            strength,
            _mask() if case.masked else None,
        )
        for i in range(case.batch)
    ]
    ends = engine.rollout(adapter, case.plan, requests)
    return torch.stack([end.x_0 for end in ends]) * case.noise_scale


def _image(seed: int) -> Picture:
    drawn = np.random.default_rng(seed).random((*SIZE, 3))
    return np.asarray(drawn, np.float32)


def _mask() -> Any:
    mask = np.zeros(SIZE, np.float32)
    mask[4:12, 6:18] = 1
    return mask


def _latent(images: Sequence[Picture] | None, case: Case) -> dict[str, Any]:
    if images is None:
        return {"samples": torch.zeros(case.batch, 3, *SIZE)}
    pixels = torch.stack([torch.from_numpy(image).movedim(-1, 0) for image in images])
    latent: dict[str, Any] = {"samples": pixels * 2 - 1}
    if case.masked:
        latent["noise_mask"] = torch.from_numpy(_mask())[None, None]
    return latent
