"""Which plan a MODEL gets before and after ComfyUI has patched its weights in place."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

import torch

from asymflow.core.schedules import plan_of, shifted
from asymflow.planning import binding
from asymflow.planning.shelf import Shelf
from benchmarks.comfyui import host
from benchmarks.comfyui.host import Tiny, conditioning
from benchmarks.comfyui.real import Real

SIZE = (16, 24)
PATCHED = "diffusion_model.prompt"


def found(real: Real) -> dict[str, str]:
    """The levels of a plan that was kept for a model: on it, patched, and again on it."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            return _found(real)
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before


def _found(real: Real) -> dict[str, str]:
    pack = host.load_pack()
    models = sys.modules[f"{pack.__name__}.nodes.models"]
    model = real.patcher(Tiny, {"shift": 3.0, "noise_scale": 1.0})
    plan = plan_of(shifted(4, 3.0), name="best")
    described = models.model_of(model, SIZE).description
    Shelf(described).keep(binding.bound(plan, described), SIZE)

    def level(of: Any) -> str:
        shelf = Shelf(models.model_of(of, SIZE).base)
        kept = shelf.find("best", SIZE)
        assert kept is not None
        return binding.match(kept, models.model_of(of, SIZE).description).level

    patched = model.clone()
    patched.add_patches({PATCHED: (torch.ones_like(Tiny().prompt),)}, 0.5)
    levels = {"itself": level(model), "patched": level(patched)}
    weight = patched.model.state_dict()[PATCHED].clone()
    loaded: list[bool] = []

    def seen(*_: Any) -> None:
        now = patched.model.state_dict()[PATCHED]
        loaded.append(not torch.equal(now, weight))
        levels["itself while patched weights are loaded"] = level(model)
        levels["patched and loaded"] = level(patched)

    latent = {"samples": torch.zeros(1, 3, *SIZE)}
    guider, sampler, sigmas, _ = host.execute(
        pack.LoadPlan,
        model=patched,
        positive=conditioning(0),
        negative=conditioning(1),
        latent_image=latent,
        plan="best",
        cfg=4.0,
        denoise=1.0,
    )
    zeros = latent["samples"]
    guider.sample(zeros, zeros, sampler, sigmas, callback=seen)
    assert all(loaded), "ComfyUI patches weights while it samples"
    return levels


EXPECTED = {
    "itself": "exact",
    "patched": "compatible",
    "itself while patched weights are loaded": "exact",
    "patched and loaded": "compatible",
}
