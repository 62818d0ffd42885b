"""The sampler of a plan in a graph: previews, interruption, passes, and what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.comfyui import host, parity
from benchmarks.comfyui.host import Tiny, conditioning
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.core.types import Plan
from tests.integrations.comfyui import standin
from tests.integrations.comfyui.standin import Patcher, StandIn
from tests.integrations.comfyui.test_load_plan import SIZE, load, module, put

NOISE = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
LATENT = {"samples": torch.zeros(2, 3, *SIZE)}


class Counted(Tiny):
    """Counts its passes of rows."""

    rows = 0

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> Tensor:
        Counted.rows += len(x)
        return super().forward(x, timesteps, context)


@pytest.fixture
def model() -> Patcher:
    Counted.rows = 0
    return Patcher(Counted, {"shift": 3.0})


def parts(pack: Any, model: Any, tmp_path: Path, plan: Plan, **given: Any) -> tuple[Any, ...]:
    return load(pack, model, put(plan, tmp_path), **given)[:3]


def test_previews_come_at_every_step(pack: Any, model: Patcher, tmp_path: Path) -> None:
    plan = parity.MIXED  # has a step that reuses estimates, and one of Heun's
    guider, sampler, sigmas = parts(pack, model, tmp_path, plan)
    seen: list[tuple[int, int, float]] = []

    def preview(step: int, x_0: Tensor, x: Tensor, total: int) -> None:
        assert x_0.shape == x.shape == NOISE.shape
        seen.append((step, total, float(x_0.std())))

    made = guider.sample(NOISE, LATENT["samples"], sampler, sigmas, callback=preview)
    count = len(plan.steps)
    assert [step for step, _, _ in seen] == [0, 1, 2, 4, 5, 6, 7, 8]
    assert {total for _, total, _ in seen} == {count}
    assert made.shape == NOISE.shape


def test_the_passes_are_those_of_the_plan(pack: Any, model: Patcher, tmp_path: Path) -> None:
    for plan, cfg in ((parity.INTERVAL, 4.0), (parity.MIXED, 4.0), (parity.INTERVAL, 1.0)):
        guider, sampler, sigmas = parts(pack, model, tmp_path, plan, cfg=cfg)
        Counted.rows = 0
        guider.sample(NOISE, LATENT["samples"], sampler, sigmas)
        expected = sum(step.passes(guided=cfg != 1) for step in plan.steps)
        asked = Counted.rows // len(NOISE)
        # ComfyUI makes no second pass where guidance is off.
        assert asked == expected
        assert guider.cfg == cfg


def test_interruption_ends_it_at_once(pack: Any, model: Patcher, tmp_path: Path) -> None:
    guider, sampler, sigmas = parts(pack, model, tmp_path, parity.GUIDED)

    def stop(step: int, *_: Any) -> None:
        standin.SEEN.interrupted = step == 2

    Counted.rows = 0
    with pytest.raises(standin.InterruptedByUser):
        guider.sample(NOISE, LATENT["samples"], sampler, sigmas, callback=stop)
    assert Counted.rows == 3 * 2 * len(NOISE)
    assert guider.cfg == 4.0


def test_low_sigmas_continue_a_picture(pack: Any, model: Patcher, tmp_path: Path) -> None:
    guider, sampler, sigmas = parts(pack, model, tmp_path, parity.INTERVAL)
    made = guider.sample(NOISE, LATENT["samples"], sampler, sigmas[3:])
    assert made.isfinite().all()
    assert Counted.rows > 0


@pytest.mark.parametrize("other", ["high", "grid"])
def test_other_sigmas_are_refused(pack: Any, model: Patcher, tmp_path: Path, other: str) -> None:
    guider, sampler, sigmas = parts(pack, model, tmp_path, parity.INTERVAL)
    wrong = sigmas[:4] if other == "high" else torch.linspace(1, 0, len(sigmas))
    with pytest.raises(InputError, match="are not those of plan"):
        guider.sample(NOISE, LATENT["samples"], sampler, wrong)


@pytest.mark.parametrize("part", ["area", "mask"])
def test_parts_of_a_picture_are_refused(
    pack: Any, model: Patcher, tmp_path: Path, part: str
) -> None:
    positive = conditioning(0)
    positive[0][1][part] = torch.ones(1, *SIZE)
    guider, sampler, sigmas = parts(pack, model, tmp_path, parity.GUIDED, positive=positive)
    with pytest.raises(InputError, match="a part of the picture only"):
        guider.sample(NOISE, LATENT["samples"], sampler, sigmas)


def test_other_guiders_decide_by_themselves(pack: Any, model: Patcher, tmp_path: Path) -> None:
    own = standin.OwnGuider(model)
    own.set_conds(conditioning(0), conditioning(1))
    own.set_cfg(4.0)
    guider, sampler, sigmas = parts(pack, model, tmp_path, parity.GUIDED)
    ours = guider.sample(NOISE, LATENT["samples"], sampler, sigmas)
    theirs = own.sample(NOISE, LATENT["samples"], sampler, sigmas)
    torch.testing.assert_close(theirs, ours)
    sampler, sigmas = parts(pack, model, tmp_path, parity.INTERVAL)[1:]
    with pytest.raises(InputError, match="OwnGuider decides by itself"):
        own.sample(NOISE, LATENT["samples"], sampler, sigmas)


def test_what_a_graph_does_to_guidance_is_carried(
    pack: Any, model: Patcher, tmp_path: Path
) -> None:
    """Twice the guidance by a hook is twice the guidance by cfg, in carried steps too."""

    def twice(args: Mapping[str, Any]) -> Tensor:
        return args["denoised"] + (args["denoised"] - args["cond_denoised"])

    plan = Plan("carried", tuple(replace(s, guidance_scale=None) for s in parity.MIXED.steps))
    double = parts(pack, model, tmp_path, plan, cfg=7.0)
    expected = double[0].sample(NOISE, LATENT["samples"], *double[1:])
    model.model_options["sampler_post_cfg_function"] = [twice]
    hooked = parts(pack, model, tmp_path, plan, cfg=4.0)
    made = hooked[0].sample(NOISE, LATENT["samples"], *hooked[1:])
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


def test_differential_masks_and_carried_guidance_are_refused(
    pack: Any, model: Patcher, tmp_path: Path
) -> None:
    model.model_options["denoise_mask_function"] = print
    guider, sampler, sigmas = parts(pack, model, tmp_path, parity.MIXED)
    with pytest.raises(InputError, match="differential diffusion"):
        guider.sample(NOISE, LATENT["samples"], sampler, sigmas)


def test_no_sigmas_change_nothing(pack: Any, model: Patcher, tmp_path: Path) -> None:
    guider, sampler, _ = parts(pack, model, tmp_path, parity.GUIDED)
    made = sampler.sampler_function(guider, NOISE, torch.tensor([1.0]), plan=parity.GUIDED)
    assert made is NOISE


# Apply plan.


def applied(pack: Any, model: Any, plan: str) -> Any:
    [patched] = host.execute(pack.ApplyPlan, model=model, plan=plan)
    return patched


def test_ksampler_makes_the_steps_of_the_plan(
    standing_in: StandIn, pack: Any, model: Patcher, tmp_path: Path
) -> None:
    patched = applied(pack, model, put(parity.INTERVAL, tmp_path))
    seen: Counter[int] = Counter()

    def preview(step: int, x_0: Tensor, x: Tensor, total: int) -> None:
        seen[total] += 1

    texts = conditioning(0), conditioning(1)
    options: dict[str, Any] = {"steps": 20, "cfg": 4.0}
    made = standing_in.ksampler(
        patched, NOISE, *texts, LATENT["samples"], callback=preview, **options
    )
    guider, sampler, sigmas = parts(pack, model, tmp_path, parity.INTERVAL)
    assert torch.equal(made, guider.sample(NOISE, LATENT["samples"], sampler, sigmas))
    count = len(parity.INTERVAL.steps)
    assert seen == {count: count}
    # The model itself stays as it was, and a second plan replaces the first.
    plain = standing_in.ksampler(model, NOISE, *texts, LATENT["samples"], **options)
    assert not torch.equal(made, plain)
    again = applied(pack, patched, put(parity.GUIDED, tmp_path, "other.json"))
    other = standing_in.ksampler(again, NOISE, *texts, LATENT["samples"], **options)
    assert not torch.equal(made, other)


def test_load_plan_goes_before_apply_plan(pack: Any, model: Patcher, tmp_path: Path) -> None:
    patched = applied(pack, model, put(parity.GUIDED, tmp_path, "applied.json"))
    guider, sampler, sigmas = parts(pack, patched, tmp_path, parity.INTERVAL)
    plain = parts(pack, model, tmp_path, parity.INTERVAL)
    assert torch.equal(
        guider.sample(NOISE, LATENT["samples"], sampler, sigmas),
        plain[0].sample(NOISE, LATENT["samples"], *plain[1:]),
    )


def test_a_ksampler_that_ends_early_is_refused(pack: Any, model: Patcher, tmp_path: Path) -> None:
    patched = applied(pack, model, put(parity.GUIDED, tmp_path))
    guider = standin.CFGGuider(patched)
    guider.set_conds(conditioning(0), conditioning(1))
    sampler, sigmas = standin.KSAMPLER(standin.euler), torch.tensor([1.0, 0.5])
    with pytest.raises(InputError, match=r"ends at sigma 0\.5"):
        guider.sample(NOISE, LATENT["samples"], sampler, sigmas)


def test_a_schedule_that_hardly_begins_below_1_begins_there(
    pack: Any, model: Patcher, tmp_path: Path
) -> None:
    begun_at = module(pack, "sampling").begun_at
    assert begun_at(parity.MIXED, 0.9995) is parity.MIXED
    assert begun_at(parity.MIXED, 0.9).times[0] == 0.9
