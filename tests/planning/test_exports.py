"""Plans for other programs: what these make of them, by their formulas written anew here."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine
from asymflow.core.binding import Binding, Requirements
from asymflow.core.errors import InputError
from asymflow.core.flow import coarse_time
from asymflow.core.schedules import plan_of, shifted, uniform
from asymflow.core.statistics import Interval
from asymflow.core.types import (
    CARRIED,
    CONDITIONAL,
    FULL,
    LATE,
    SEQUENTIAL_CFG,
    UNGUIDED,
    Evidence,
    Plan,
    Request,
    Solver,
    Step,
    Tier,
)
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import verifier
from asymflow.planning.exports import Export, export
from asymflow.planning.exports.comfyui import SHIFTS, percent
from asymflow.planning.plan_json import plan_from_json
from tests.helpers import draw

GRID = plan_of(shifted(8, 3.0), solver="euler", name="grid")
MODEL = GaussianAdapter(draw(0, 2, 3, 8, 8) * 0.2, 0.2 + draw(1, 2, 3, 8, 8).abs() * 0.3)


def carried(found: Export) -> dict[str, str]:
    return {line.part: line.carried for line in found.lines}


def comfy(plan: Plan, shift: float | None = 3.0) -> dict[str, Any]:
    return dict(export(plan, "comfyui", shift=shift).data)["nodes"]


def sigmas_of(nodes: dict[str, Any]) -> Tensor:
    """As the node reads its text."""
    text = nodes["ManualSigmas"]["sigmas"]
    return torch.tensor([float(each) for each in re.findall(r"[-+]?(?:\d*\.*\d+)", text)])


def sigma_at(percent: float, shift: float) -> float:
    """The noise of a flow at a percent of its own schedule."""
    if percent <= 0:
        return 1.0
    rest = max(1 - percent, 0.0)
    return shift * rest / (1 + (shift - 1) * rest)


def measured(scale: str) -> Evidence:
    one = Interval(0.1, 0.1, 0.1)
    return Evidence({"guidance_scale": scale}, (1.0,) * 8, 1.0, (), None, one, None, 8)


# --- ComfyUI -----------------------------------------------------------------------------------


@given(
    times=st.lists(st.floats(1e-5, 1), min_size=1, max_size=20, unique=True),
    noise=st.sampled_from([1.0, 2.0, 8.0]),
)
def test_sigmas_are_read_as_they_were(times: list[float], noise: float) -> None:
    times = sorted({float(f"{each:.6g}") for each in times}, reverse=True)
    plan = plan_of((*times, 0.0), solver="euler")
    plan = replace(plan, requires=Requirements(parameterisation="flow", noise_scale=noise))
    wanted = torch.tensor([coarse_time(t, noise) for t in plan.times])
    assert torch.equal(sigmas_of(comfy(plan)), wanted)


@given(
    count=st.integers(2, 40),
    grid=st.floats(0.3, 20),
    shift=st.sampled_from([*SHIFTS.values(), 17.0, 0.5]),
    low=st.floats(0, 1),
    length=st.floats(0, 1),
)
def test_guidance_is_on_where_the_plan_has_it(
    count: int, grid: float, shift: float, low: float, length: float
) -> None:
    plan = plan_of(
        shifted(count, grid), solver="euler", guidance_interval=(low, min(1.0, low + length))
    )
    nodes = comfy(plan, shift)
    for sigma, step in zip(sigmas_of(nodes).tolist(), plan.steps, strict=False):
        scale = 7.0
        for each in nodes["CFGOverride"]:
            if (
                sigma_at(each["end_percent"], shift)
                <= sigma
                <= sigma_at(each["start_percent"], shift)
            ):
                scale = each["cfg"]
        assert scale == (7.0 if step.tier.guided else 1.0)


def test_scales_of_steps_are_overrides_of_their_own() -> None:
    steps = [
        replace(step, guidance_scale=scale)
        for step, scale in zip(GRID.steps, (None, None, 3.0, 3.0, 1.0, None, 2.5, 1.0), strict=True)
    ]
    found = export(replace(GRID, steps=tuple(steps)), "comfyui", shift=2.0)
    overrides = found.data["nodes"]["CFGOverride"]
    assert [each["cfg"] for each in overrides] == [3.0, 1.0, 2.5, 1.0]
    assert carried(found)["guidance scale of steps"] == "yes"
    for sigma, step in zip(sigmas_of(dict(found.data["nodes"])).tolist(), steps, strict=False):
        within = [
            each["cfg"]
            for each in overrides
            if sigma_at(each["end_percent"], 2.0) <= sigma <= sigma_at(each["start_percent"], 2.0)
        ]
        assert within == ([] if step.guidance_scale is None else [step.guidance_scale])
        assert all(round(each["start_percent"], 3) == each["start_percent"] for each in overrides)


def test_a_percent_is_that_of_the_models_schedule() -> None:
    for shift in (1.0, 3.0, 17.0):
        for p in (0.1, 0.5, 0.9):
            assert math.isclose(percent(sigma_at(p, shift), shift), p)


def run_there(sampler: str, sigmas: Tensor, x: Tensor) -> Tensor:
    """The samplers over a denoiser D(x, sigma), as papers have them: in ratios of noise levels."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        t = sigma.double().expand(len(x))
        return MODEL.denoise(x, t, {"label": torch.ones(len(x), dtype=torch.long)})

    last: Tensor | None = None
    for i, (u, v) in enumerate(pairwise(sigmas)):
        x_0 = denoise(x, u)
        slope = (x - x_0) / u
        if sampler == "dpmpp_2m" and last is not None and v > 0:
            r = (sigmas[i - 1] / u).log() / (u / v).log()
            x = v / u * x + (1 - v / u) * (x_0 + (x_0 - last) / (2 * r))
        elif sampler == "heun" and v > 0:
            after = x + slope * (v - u)
            x = x + (slope + (after - denoise(after, v)) / v) / 2 * (v - u)
        else:
            x = x + slope * (v - u)
        last = x_0
    return x


def second_order(times: tuple[float, ...]) -> Plan:
    """DPM-Solver++(2M) on log t, by explicit weights."""
    steps: list[Step] = []
    for i, (t, s) in enumerate(pairwise(times)):
        ahead = math.log(t / s) / math.log(times[i - 1] / t) / 2 if i and s else 0.0
        rest = 1 - s / t
        weights = (s / t, rest * (1 + ahead), -rest * ahead)[: 3 if i else 2]
        steps.append(Step(t, s, weights=weights))
    return Plan("second", tuple(steps))


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_a_sampler_of_the_same_formula_makes_the_same_picture(sampler: str) -> None:
    times = shifted(7, 2.0)
    plan = plan_of(times, solver="heun" if sampler == "heun" else "euler")
    if sampler == "dpmpp_2m":
        plan = second_order(times)
    found = export(plan, "comfyui", shift=1.0)
    nodes = dict(found.data["nodes"])
    assert (nodes["KSamplerSelect"]["sampler_name"], found.lines[1].carried) == (sampler, "yes")
    request = Request({"label": 1}, (8, 8), seed=4)
    [result] = engine.run(MODEL, plan, [request])
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    there = run_there(sampler, sigmas_of(nodes), noise)
    assert_close(MODEL.to_picture(there[0]), result.picture, rtol=0, atol=2e-6)


def test_other_formulas_say_how_far_the_nearest_sampler_is() -> None:
    nodes = export(plan_of(shifted(12, 3.0), solver="multistep2"), "comfyui", shift=1.0)
    assert nodes.data["nodes"]["KSamplerSelect"]["sampler_name"] == "dpmpp_2m"
    assert carried(nodes)["solver"] == "in part"
    damped = export(plan_of(shifted(3, 3.0), solver="damped2"), "comfyui", shift=1.0)
    assert damped.data["nodes"]["KSamplerSelect"]["sampler_name"] == "euler"
    assert "after calls 1:" in damped.lines[1].how  # the first and the last one are Euler's
    corrected = export(plan_of(shifted(3, 3.0), solver="corrected2"), "comfyui", shift=1.0)
    assert "after calls 1-2:" in corrected.lines[1].how


@pytest.mark.parametrize("solver", ["corrected2", "multistep3", "damped2", "heun"])
def test_how_far_off_is_what_the_engine_finds(solver: Solver) -> None:
    plan = plan_of(shifted(6, 3.0), solver=solver)
    if solver == "heun":  # which is not ComfyUI's where the noise has another scale
        plan = replace(plan, steps=(*plan.steps[:-1], replace(plan.steps[-1], solver="euler")))
        plan = replace(plan, requires=Requirements(parameterisation="flow", noise_scale=1.0001))
    found = export(plan, "comfyui", shift=1.0)
    name = found.data["nodes"]["KSamplerSelect"]["sampler_name"]
    other = second_order(plan.times) if name == "dpmpp_2m" else plan_of(plan.times, solver="euler")
    far: list[float] = []
    for std in (0.1, 0.3, 1.0):
        model = GaussianAdapter(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), std))
        ends = [
            verifier.rollout(model, each, [Request({}, (4, 4), 1)])[0] for each in (plan, other)
        ]
        far.append(float((ends[1] / ends[0] - 1).abs().max()))
    stated = float(re.findall(r"on normal data ([\d.]+)% off", found.lines[1].how)[0])
    assert stated == pytest.approx(100 * max(far), abs=0.1)


def test_heun_on_other_times_is_not_heun() -> None:
    plan = replace(
        plan_of(shifted(5, 2.0), solver="heun"),
        requires=Requirements(parameterisation="flow", noise_scale=2.0),
    )
    assert carried(export(plan, "comfyui", shift=1.0))["solver"] != "yes"


def test_a_plan_that_switches_needs_the_shift() -> None:
    plan = plan_of(shifted(4, 3.0), guidance_interval=(0.6, 1.0), name="late")
    with pytest.raises(InputError, match=r"'late' switches guidance.*Give --shift: 1 for Chroma1"):
        export(plan, "comfyui")
    with pytest.raises(InputError, match=r"--shift -1.0 is no shift"):
        export(plan, "comfyui", shift=-1.0)
    assert "CFGOverride" not in export(GRID, "comfyui").data["nodes"]  # guided all along
    quiet = replace(plan, evidence=measured(UNGUIDED))
    assert export(quiet, "comfyui").data["nodes"]["CFGGuider"] == {"cfg": 1.0}


# --- what the table says -----------------------------------------------------------------------


def test_every_part_that_is_lost_is_named() -> None:
    tiers = (
        FULL, Tier("half", pool_factor=2), CARRIED, Tier("tiled", tiles=4), SEQUENTIAL_CFG, LATE
    )  # fmt: skip
    steps = [
        Step(t, s, tier, "euler") for (t, s), tier in zip(pairwise(uniform(6)), tiers, strict=True)
    ]
    found = export(Plan("tiers", tuple(steps)), "comfyui", shift=1.0)
    table = {line.part: line.how for line in found.lines if line.carried == "no"}
    assert table == {
        "low resolution": "of steps 1: the whole network is asked there instead, which costs 12 "
        "passes in all",
        "carried estimates": "of steps 2: the whole network is asked there instead, which costs 12 "
        "passes in all",
        "tiles": "of steps 3: the whole network is asked there instead, with the memory that it "
        "takes",
        "late steps": "of steps 5: the whole network is asked there instead, its slow part too",
        "guidance in turn": "of steps 4: saves memory, changes nothing",
    }
    # Carried guidance is guidance: it is not switched off there.
    assert found.data["nodes"]["CFGOverride"] == []


def test_fitted_weights_reuse_and_rules_are_named() -> None:
    steps = (
        Step(1.0, 0.8, FULL, "euler"),
        Step(0.8, 0.5, solver="euler", reuse=True),
        Step(0.5, 0.3, weights=(0.5, 0.3, 0.2)),
        Step(0.3, 0.0, CONDITIONAL, "euler"),
    )
    found = export(Plan("fitted", steps), "comfyui", shift=1.0)
    assert found.data["nodes"]["ManualSigmas"] == {"sigmas": "1, 0.5, 0.3, 0"}
    assert carried(found) == {
        "times": "yes",
        "solver": "in part",
        "fitted weights": "no",
        "reuse": "in part",
        "guidance on and off": "yes",
    }
    same = export(Plan("reused", (*steps[:2], Step(0.5, 0.0, FULL, "euler"))), "comfyui")
    assert carried(same) == {"times": "yes", "solver": "yes", "reuse": "yes"}


def test_the_interval_of_the_model_itself_is_part_of_the_guidance() -> None:
    """A JiT has no guidance outside of an interval whose ends are outside, too."""
    settings = {"floor": "0.05", "guidance_interval": "0.1 to 0.9", "class_start": "0"}
    plan = plan_of((1.0, 0.95, 0.9, 0.5, 0.1, 0.05, 0.0), solver="euler")
    plan = replace(plan, binding=Binding("jit", settings=settings))
    found = export(plan, "comfyui", shift=1.0)
    [early, late] = found.data["nodes"]["CFGOverride"]
    on = [0.5]
    for sigma in plan.times[:-1]:
        outside = any(
            sigma_at(each["end_percent"], 1.0) <= sigma <= sigma_at(each["start_percent"], 1.0)
            for each in (early, late)
        )
        assert (sigma in on) is not outside
    assert found.lines[-1].how.startswith("floor 0.05: of asymflow's adapter")
    odd = replace(plan, binding=Binding("jit", settings={"guidance_interval": "one to two"}))
    assert export(odd, "comfyui", shift=1.0).data["nodes"]["CFGOverride"] == []


def test_second_estimates_of_heun_are_guided_by_their_own_noise() -> None:
    plan = plan_of(shifted(6, 2.0), solver="heun", guidance_interval=(0.6, 1.0))
    assert carried(export(plan, "comfyui", shift=1.0))["guidance on and off"] == "in part"


# --- diffusers ---------------------------------------------------------------------------------


def test_a_flow_has_timesteps_and_a_scheduler_that_does_not_move_them() -> None:
    found = export(replace(GRID, evidence=measured("5.0")), "diffusers").data
    assert found["scheduler"]["_class_name"] == "FlowMatchEulerDiscreteScheduler"
    assert (found["scheduler"]["shift"], found["call"]["guidance_scale"]) == (1.0, 5.0)
    assert found["timesteps"] == [1000 * t for t in GRID.times[:-1]]
    assert plan_from_json(found["asymflow_scheduler"]["plan"]) == GRID


def test_what_a_scheduler_cannot_do_is_left_to_accelerate() -> None:
    plan = plan_of(shifted(6, 3.0), solver="damped2", guidance_interval=(0.4, 1.0))
    found = export(plan, "diffusers")
    assert found.data["asymflow_scheduler"] is None
    assert found.lines[1].how.endswith("asymflow.accelerate has it")
    full = export(plan_of(shifted(6, 3.0), solver="damped2"), "diffusers")
    assert full.lines[1].how.endswith("AsymFlowScheduler has it")


def test_models_with_discrete_timesteps_have_sigmas_of_their_own() -> None:
    vp = Requirements(parameterisation="eps")
    plan = replace(plan_of((0.9, 0.5, 0.0), solver="euler"), requires=vp)
    found = export(plan, "diffusers")
    assert found.data["scheduler"]["_class_name"] == "EulerDiscreteScheduler"
    assert found.data["sigmas"] == pytest.approx([9.0, 1.0, 0.0])
    beyond = export(replace(GRID, requires=vp), "diffusers")
    assert (beyond.data["sigmas"], beyond.lines[0].carried) == (None, "no")
    for target in ("comfyui", "sglang", "vllm-omni"):
        with pytest.raises(
            InputError, match=r"discrete timesteps, and the pixel models of .* flow"
        ):
            export(plan, target)
    scheduled = Binding("UNet2DModel", 64 * "a", settings={"schedule": "0f1e2d"})
    with pytest.raises(InputError, match="UNet2DModel:aaaaaaaaaaaa with discrete timesteps"):
        export(replace(GRID, binding=scheduled), "comfyui")
    with pytest.raises(InputError, match="noise levels of EDM, and diffusers has no pixel"):
        export(replace(GRID, binding=Binding("edm")), "diffusers")


def test_families_that_divide_their_state_have_their_own_times() -> None:
    twice = Requirements(parameterisation="x_0", noise_scale=2.0)
    for family, wanted in (("jit", 0.5), ("PRXTransformer2DModel", 1 / 3)):
        plan = replace(
            plan_of((1.0, 0.5, 0.0), solver="euler"), requires=twice, binding=Binding(family)
        )
        assert sigmas_of(comfy(plan))[1].item() == pytest.approx(wanted)


# --- servers -----------------------------------------------------------------------------------


def test_sglang_gets_the_fields_of_its_requests() -> None:
    plan = replace(plan_of(shifted(8, 3.0), guidance_interval=(0.5, 1)), evidence=measured("4.0"))
    found = export(plan, "sglang")
    assert found.data["request"] == {
        "num_inference_steps": 8,
        "guidance_scale": 4.0,
        "diffusers_kwargs": {"timesteps": [1000 * t for t in plan.times[:-1]]},
    }
    assert carried(found) == {"times": "in part", "solver": "no", "guidance on and off": "no"}


@given(count=st.integers(1, 30), shift=st.floats(0.5, 17), low=st.floats(0, 0.99))
def test_the_interval_of_vllm_omni_has_the_guided_steps(
    count: int, shift: float, low: float
) -> None:
    plan = plan_of(shifted(count, shift), solver="euler", guidance_interval=(low, 1.0))
    found = export(plan, "vllm-omni")
    request = found.data["request"]
    extra, steps = request["extra_params"], request["num_inference_steps"]
    # Its times run from 0 for noise to 1, evenly before the shift.
    own = [1 - sigma_at(i / steps, extra["timestep_shift"]) for i in range(steps)]
    assert own == pytest.approx([1 - t for t in plan.times[:-1]], abs=1e-6)
    begin, end = extra["cfg_interval"]
    assert [begin <= t <= end for t in own] == [step.tier.guided for step in plan.steps]


def test_times_of_no_shift_say_how_far_the_nearest_is() -> None:
    found = export(plan_of((1.0, 0.9, 0.2, 0.1, 0.0), solver="euler"), "vllm-omni")
    assert re.search(r"nearest shift, [\d.]+: off by up to 0\.\d", found.lines[0].how)
    assert found.data["sampling_params"]["timesteps"] == pytest.approx([1000, 900, 200, 100])


# --- all ---------------------------------------------------------------------------------------


def test_json_is_the_plan() -> None:
    found = export(GRID, "json")
    assert (plan_from_json(dict(found.data)), carried(found)) == (GRID, {"everything": "yes"})


def test_an_unknown_target_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'ComfyUi'. Did you mean 'comfyui'\? Choose one of"):
        export(GRID, "ComfyUi")
    with pytest.raises(InputError, match="--shift 3 is for ComfyUI"):
        export(GRID, "diffusers", shift=3.0)
