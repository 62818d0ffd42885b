"""The node Load plan: which plan it finds, what it says of it, and what it refuses."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.comfyui import host
from benchmarks.comfyui.host import Tiny, conditioning

from asymflow.core.binding import Requirements
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.statistics import Interval
from asymflow.core.transforms import rescaled
from asymflow.core.types import CONDITIONAL, Evidence, Plan, Step, Tier
from asymflow.planning.binding import match
from asymflow.planning.plan_files import save_plan
from asymflow.planning.shelf import Shelf
from tests.integrations.comfyui import standin
from tests.integrations.comfyui.standin import Patcher

SIZE = (16, 24)
PLAN = plan_of(shifted(5, 3.0), solver="corrected2", guidance_interval=(0.3, 1.0), name="balanced")

EVIDENCE = Evidence(
    {"guidance_scale": "4"}, (2.0,) * 5, 2.0, (), None, Interval(0.01, 0.0, 0.02), None, 16
)


@pytest.fixture
def model() -> Patcher:
    return Patcher(Tiny, {"shift": 3.0})


def load(pack: Any, model: Any, plan: str = "auto", **given: Any) -> tuple[Any, ...]:
    inputs: dict[str, Any] = {
        "model": model,
        "positive": conditioning(0),
        "negative": conditioning(1),
        "latent_image": {"samples": torch.zeros(1, 3, *SIZE)},
        "plan": plan,
        "cfg": 4.0,
        "denoise": 1.0,
    }
    return tuple(host.execute(pack.LoadPlan, **(inputs | given)))


def describe(pack: Any, model: Any) -> Any:
    return module(pack, "models").model_of(model, SIZE)


def module(pack: Any, name: str) -> Any:
    import sys

    return sys.modules[f"{pack.__name__}.nodes.{name}"]


def keep(pack: Any, model: Any, plan: Plan = PLAN) -> Plan:
    """Put a plan on the shelf of a model, as if it was measured on it."""
    described = describe(pack, model).description
    requires = replace(described.requirements, size=SIZE)
    kept = replace(plan, binding=described.binding, requires=requires)
    Shelf(described).keep(kept, SIZE)
    return kept


def put(plan: Plan, tmp_path: Path, name: str = "mine.json") -> str:
    host.files_in(tmp_path)
    save_plan(plan, tmp_path / name)
    return name


def plan_in(sampler: Any) -> Plan:
    return sampler.extra_options["plan"]


def test_without_a_kept_plan_auto_is_the_default_of_the_kind(pack: Any, model: Patcher) -> None:
    guider, sampler, sigmas, text = load(pack, model)
    plan = plan_in(sampler)
    assert plan.name == "default"
    assert sigmas.tolist() == pytest.approx(plan.times)
    assert sigmas[-1] == 0
    assert 2 <= len(plan.steps) < 30
    assert not plan.steps[-1].tier.guided
    assert guider.cfg == 4.0
    assert set(guider.original_conds) == {"positive", "negative"}
    assert "all models of the kind 'pixeldit'" in text
    # On the grid of the shift that the model has.
    other = plan_in(load(pack, Patcher(Tiny, {"shift": 1.0}))[1])
    assert other.times[1] == pytest.approx(plan.times[1] / (3 - 2 * plan.times[1]))


def test_a_kept_plan_is_found_by_the_weights(
    pack: Any, model: Patcher, caplog: pytest.LogCaptureFixture
) -> None:
    kept = keep(pack, model)
    again = Patcher(Tiny, {"shift": 3.0})
    with caplog.at_level(logging.INFO, "asymflow"):
        _, sampler, _, text = load(pack, again)
    assert plan_in(sampler) == kept
    assert "was measured on this model" in text
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert plan_in(load(pack, again, "balanced")[1]) == kept
    with pytest.raises(InputError, match="No plan 'draft' is kept of this model"):
        load(pack, again, "draft")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_another_precision_are_the_same(pack: Any, dtype: torch.dtype) -> None:
    rounded = Patcher(lambda: Tiny().to(torch.bfloat16).to(torch.float32), {"shift": 3.0})
    kept = keep(pack, rounded)
    half = Patcher(lambda: Tiny().to(torch.bfloat16).to(dtype), {"shift": 3.0})
    assert describe(pack, half).description.weights == describe(pack, rounded).description.weights
    assert plan_in(load(pack, half)[1]) == kept


def test_a_plan_runs_on_a_patched_model_and_one_line_says_so(
    pack: Any, model: Patcher, caplog: pytest.LogCaptureFixture
) -> None:
    kept = keep(pack, model)
    patched = model.clone()
    lora = (torch.ones(3, 1), torch.ones(1, 8), None)
    patched.patches["diffusion_model.prompt"] = [(0.7, ("lora", lora), 1.0, None, None)]
    _, sampler, _, text = load(pack, patched)
    assert plan_in(sampler) == kept
    assert "was made for pixeldit:" in text
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    stronger = model.clone()
    stronger.patches["diffusion_model.prompt"] = [(0.8, ("lora", lora), 1.0, None, None)]
    weights = {describe(pack, each).description.weights for each in (model, patched, stronger)}
    assert len(weights) == 3
    assert describe(pack, patched).base == describe(pack, model).description


def test_a_patched_model_in_another_half_precision_is_not_the_same(pack: Any) -> None:
    kept = keep(pack, Patcher(lambda: Tiny().to(torch.bfloat16), {"shift": 3.0}))
    half = Patcher(lambda: Tiny().to(torch.float16), {"shift": 3.0})
    assert match(kept, describe(pack, half).description).level == "exact"
    half.patches["diffusion_model.prompt"] = [(1.0, ("diff", (torch.ones(3, 8),)), 1.0, None, None)]
    assert match(kept, describe(pack, half).description).level == "compatible"


def test_plans_of_other_weights_come_in_files(pack: Any, model: Patcher, tmp_path: Path) -> None:
    kept = keep(pack, model)
    assert kept.binding is not None
    name = put(replace(kept, binding=replace(kept.binding, weights="0" * 64)), tmp_path)
    assert plan_in(load(pack, model, name)[1]) == kept
    assert name in module(pack, "plans").choices()


def test_a_plan_for_another_kind_of_model_is_refused(
    pack: Any, model: Patcher, tmp_path: Path
) -> None:
    kept = keep(pack, model)
    assert kept.binding is not None
    other = replace(kept, binding=replace(kept.binding, family="hidream-o1"))
    with pytest.raises(InputError, match="was made for hidream-o1"):
        load(pack, model, put(other, tmp_path))
    noisy = replace(kept, requires=Requirements(noise_scale=8.0))
    with pytest.raises(InputError, match=r"needs noise_scale = 8\.0"):
        load(pack, model, put(noisy, tmp_path))


def test_lower_resolution_tiles_and_late_steps_are_refused(
    pack: Any, model: Patcher, tmp_path: Path
) -> None:
    half = Tier("half", pool_factor=2)
    with pytest.raises(InputError, match="this model cannot do that"):
        load(pack, model, put(Plan("low", (Step(1.0, 0.0, half),)), tmp_path))
    tiled = Tier("tiled", tiles=8)
    with pytest.raises(InputError, match="tiles"):
        load(pack, model, put(Plan("tiled", (Step(1.0, 0.0, tiled),)), tmp_path))
    late = Tier("late", late=True)
    with pytest.raises(InputError, match="the fast part of the network only"):
        load(pack, model, put(Plan("late", (Step(1.0, 0.5), Step(0.5, 0.0, late))), tmp_path))


def test_a_plan_of_another_size_or_cfg_says_so(pack: Any, model: Patcher, tmp_path: Path) -> None:
    kept = keep(pack, model, replace(PLAN, evidence=EVIDENCE))
    name = put(kept, tmp_path)
    large = {"samples": torch.zeros(1, 3, 32, 48)}
    assert plan_in(load(pack, model, name)[1]).evidence == EVIDENCE
    _, sampler, _, text = load(pack, model, name, latent_image=large)
    assert plan_in(sampler).evidence is None
    assert "was measured for 24x16, and these are 48x32" in text
    assert "was measured at cfg 4, and this is 3" in load(pack, model, name, cfg=3.0)[3]
    assert plan_in(load(pack, model, "balanced", latent_image=large)[1]).steps == kept.steps


def test_a_plan_moves_with_the_shift_of_the_model(pack: Any, model: Patcher) -> None:
    kept = keep(pack, model)
    shifted_more = model.clone()
    shifted_more.add_object_patch("model_sampling", standin.Sampling({"shift": 6.0}))
    _, sampler, _, text = load(pack, shifted_more, "balanced")
    assert plan_in(sampler).times == pytest.approx(rescaled(kept, 2.0).times)
    assert "shift 3, and it is 6 here" in text


def test_denoise_begins_where_ksampler_does(pack: Any, model: Patcher) -> None:
    sigmas = load(pack, model, denoise=0.5)[2]
    assert float(sigmas[0]) == pytest.approx(0.75)
    assert float(sigmas[-1]) == 0


def test_what_cannot_be_planned_is_refused(pack: Any, model: Patcher) -> None:
    latent = model.clone()
    latent.model = Patcher(Tiny, {}).model
    latent.model.latent_format = standin.LatentFormat(16, 8)
    with pytest.raises(InputError, match="works on latents"):
        load(pack, latent)
    other = model.clone()
    other.add_object_patch("model_sampling", standin.EPS())
    with pytest.raises(InputError, match="no flow from noise"):
        load(pack, other)
    with pytest.raises(InputError, match="distilled to 4 steps"):
        load(pack, Patcher(Tiny, {}, "pid"))
    with pytest.raises(InputError, match="none is connected"):
        load(pack, model, negative=None)
    with pytest.raises(InputError, match="There is no plan file 'gone"):
        load(pack, model, "gone.json")
    assert set(load(pack, model, negative=None, cfg=1.0)[0].original_conds) == {"positive"}


def test_a_damaged_file_is_refused(pack: Any, model: Patcher, tmp_path: Path) -> None:
    host.files_in(tmp_path)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(FileFormatError, match=r"bad\.json"):
        load(pack, model, "bad.json")


def test_the_node_runs_again_when_plans_change(pack: Any, model: Patcher) -> None:
    before = pack.LoadPlan.fingerprint_inputs(plan="auto", model=None)
    assert before == pack.LoadPlan.fingerprint_inputs(plan="auto", model=None)
    keep(pack, model)
    assert before != pack.LoadPlan.fingerprint_inputs(plan="auto", model=None)
    assert before != pack.LoadPlan.fingerprint_inputs(plan="default", model=None)


def test_the_noise_of_models_may_depend_on_the_size(pack: Any, model: Patcher) -> None:
    class BySize(standin.Sampling):
        def noise_scaling(
            self, sigma: Any, noise: Any, latent_image: Any, max_denoise: bool = False
        ) -> Any:
            self.noise_scale = noise.shape[-1] / 8
            return super().noise_scaling(sigma, noise, latent_image)

    sized = model.clone()
    sized.add_object_patch("model_sampling", BySize({"shift": 3.0}))
    model_of = module(pack, "models").model_of
    assert model_of(sized, (16, 24)).description.noise_scale == 3.0
    assert model_of(sized, (16, 16)).description.noise_scale == 2.0


def test_nodes_have_schemas(pack: Any) -> None:
    schemas = [node.define_schema() for node in host.nodes(pack)]
    assert {schema.node_id for schema in schemas} == {
        "AsymflowLoadPlan",
        "AsymflowMeasureModel",
        "AsymflowApplyPlan",
    }
    for schema in schemas:
        assert schema.description
        for port in schema.inputs:
            assert port.id


def test_conditional_only_is_a_step_of_the_default_plan(pack: Any, model: Patcher) -> None:
    plan = plan_in(load(pack, model)[1])
    assert CONDITIONAL in {step.tier for step in plan.steps}
