"""An accelerated pipeline is the same pipeline: called, watched, stopped, saved as before."""

from __future__ import annotations

import copy
import gc
import inspect
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import asymflow
from asymflow import AsymFlowScheduler
from asymflow.core import engine
from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.core.schedules import plan_of, shifted, uniform
from asymflow.core.types import CONDITIONAL, FULL, LATE, SEQUENTIAL_CFG, Plan, Request, Tier
from asymflow.models.diffusers.families import FAMILIES
from asymflow.models.diffusers.pipelines import Family, adapt
from asymflow.planning import plan_files, verifier

from .conftest import CARRIED, mixed, seeded

diffusers: Any = pytest.importorskip("diffusers")

Make = Callable[..., Any]
Rows = Callable[[Any], list[int]]

HALF = Tier("half", pool_factor=2)


def call_of(told: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        **told,
        "use_resolution_binning": False,
        "guidance_scale": 4.0,
        "generator": seeded(),
        "output_type": "pt",
        **changes,
    }


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


# The same pipeline.


def test_it_is_an_instance_of_the_same_class_with_the_same_parts(unconditional: Make) -> None:
    pipe = unconditional()
    accelerated = asymflow.accelerate(pipe, plan_of(uniform(3)))
    assert isinstance(accelerated, type(pipe))
    assert accelerated is not pipe
    assert inspect.signature(accelerated.__call__) == inspect.signature(pipe.__call__)
    assert accelerated.components == pipe.components
    assert accelerated.unet is pipe.unet
    assert type(pipe.unet) is diffusers.UNet2DModel
    assert accelerated.config == pipe.config


@pytest.mark.parametrize(
    "again", [pickled, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"]
)
@pytest.mark.parametrize("kind", ["plan", "original", "scheduler"])
def test_it_can_be_pickled_and_copied(
    unconditional: Make, again: Callable[[Any], Any], kind: str
) -> None:
    """And so can what it returns, for a pool of processes."""
    pipe, plan = unconditional(), plan_of(uniform(3))
    if kind == "scheduler":
        # The pipeline itself turns any scheduler into one of its own when it is made.
        pipe.scheduler = AsymFlowScheduler.from_config(pipe.scheduler.config, plan=plan)
        pipe(generator=seeded())
        pipe.scheduler = again(pipe.scheduler)
        pipe.scheduler.set_timesteps()
        fast = pipe
    else:
        fast = asymflow.accelerate(pipe, plan if kind == "plan" else "original")
        twin = again(fast)
        assert type(twin) is type(fast)
        assert twin.asymflow_plan == fast.asymflow_plan
        first, second = (
            each(generator=seeded(), output_type="pt", num_inference_steps=3)
            for each in (fast, twin)
        )
        assert torch.equal(first.images, second.images)
    output = fast(generator=seeded(), output_type="pt", num_inference_steps=3)
    found = again(output)
    assert type(found) is type(output)
    assert torch.equal(found.images, output.images)


def test_the_pipeline_it_was_made_from_stays_as_it_was(unconditional: Make) -> None:
    pipe, untouched = unconditional(), unconditional()
    accelerated = asymflow.accelerate(pipe, plan_of(uniform(3)))
    accelerated(output_type="np")
    assert type(pipe) is diffusers.DDIMPipeline
    pictures = [
        each(generator=seeded(), num_inference_steps=4, output_type="np").images
        for each in (pipe, untouched)
    ]
    assert np.array_equal(*pictures)


def test_calls_leave_nothing_behind(prx: Make, told: dict[str, Any]) -> None:
    pipe = prx()
    accelerated = asymflow.accelerate(pipe, mixed(FULL, CARRIED, CONDITIONAL))
    before = dict(accelerated.config)
    shape = (3, 3, 16, 16)

    def states() -> int:
        gc.collect()
        tensors = (each for each in gc.get_objects() if issubclass(type(each), Tensor))
        return sum(each.shape == shape for each in tensors)

    many = {key: value.expand(3, -1, -1) for key, value in told.items()}
    assert states() == 0
    accelerated(**call_of(many))
    assert states() == 0
    assert "forward" not in vars(accelerated.transformer)
    assert accelerated.scheduler is pipe.scheduler
    assert dict(accelerated.config) == before


def test_a_callback_that_stops_it_leaves_nothing_behind(prx: Make, told: dict[str, Any]) -> None:
    accelerated = asymflow.accelerate(prx(), mixed(FULL, CARRIED, CONDITIONAL))

    def stop(pipe: Any, step: int, tau: Tensor, tensors: dict[str, Tensor]) -> None:
        raise KeyboardInterrupt

    own = accelerated.scheduler
    with pytest.raises(KeyboardInterrupt):
        accelerated(**call_of(told, callback_on_step_end=stop))
    assert "forward" not in vars(accelerated.transformer)
    assert accelerated.scheduler is own


def test_callbacks_hear_every_step_of_the_plan(prx: Make, told: dict[str, Any]) -> None:
    plan = mixed(FULL, CARRIED, CONDITIONAL, FULL)
    accelerated = asymflow.accelerate(prx(), plan)
    heard: list[tuple[int, float, float]] = []

    def callback(pipe: Any, step: int, tau: Tensor, tensors: dict[str, Tensor]) -> None:
        assert type(pipe) is type(accelerated)
        assert pipe.asymflow_plan is plan
        heard.append((step, float(tau), float(tensors["latents"].std())))

    images = accelerated(**call_of(told, callback_on_step_end=callback)).images
    assert [step for step, _, _ in heard] == [0, 1, 2, 3]
    u = [t / (t + 2 * (1 - t)) for t in plan.times[:-1]]
    assert [tau for _, tau, _ in heard] == pytest.approx([1000 * each for each in u], abs=1e-3)
    assert heard[-1][2] == pytest.approx(float(images.std()))


def test_the_callbacks_of_deepfloyd_too(deepfloyd: Make, told: dict[str, Any]) -> None:
    accelerated = asymflow.accelerate(deepfloyd(), mixed(FULL, CARRIED, CONDITIONAL))
    heard: list[int] = []

    def callback(step: int, tau: Tensor, z: Tensor) -> None:
        heard.append(step)

    accelerated(**told, generator=seeded(), output_type="pt", callback=callback)
    assert heard == [0, 1, 2]


def test_the_progress_bar_has_the_steps_of_the_plan(
    prx: Make, told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    accelerated = asymflow.accelerate(prx(), mixed(FULL, CARRIED, CONDITIONAL))
    accelerated.set_progress_bar_config(disable=False)
    accelerated(**call_of(told, num_inference_steps=50))
    assert "3/3" in capsys.readouterr().err


def test_outputs_have_the_form_that_was_asked_for(unconditional: Make) -> None:
    accelerated = asymflow.accelerate(unconditional(), plan_of(uniform(3)))
    assert accelerated().images[0].size == (8, 8)
    assert accelerated(output_type="np", batch_size=2).images.shape == (2, 8, 8, 3)
    [images] = accelerated(output_type="pt", return_dict=False)
    assert images.shape == (1, 3, 8, 8)


def test_generators_belong_to_pictures(unconditional: Make) -> None:
    accelerated = asymflow.accelerate(unconditional(), plan_of(uniform(4)))
    together = accelerated(batch_size=2, generator=[seeded(5), seeded(6)], output_type="pt").images
    for picture, seed in zip(together, (5, 6), strict=True):
        alone = accelerated(generator=seeded(seed), output_type="pt").images[0]
        assert_close(alone, picture, rtol=0, atol=1e-5)


def test_half_precision_stays_near(unconditional: Make) -> None:
    pipe = unconditional(prediction_type="sample")
    accelerated = asymflow.accelerate(pipe, plan_of(uniform(6)))
    exact = accelerated(generator=seeded(), output_type="pt").images
    rough = accelerated.to(torch.bfloat16)(generator=seeded(), output_type="pt").images
    assert rough.dtype == torch.bfloat16
    assert_close(rough.float(), exact, rtol=0, atol=0.1)


def test_an_accelerated_pipeline_takes_another_plan(unconditional: Make) -> None:
    pipe = unconditional()
    once = asymflow.accelerate(pipe, plan_of(uniform(3)))
    twice = asymflow.accelerate(once, plan_of(uniform(5)))
    direct = asymflow.accelerate(pipe, plan_of(uniform(5)))
    pictures = [each(generator=seeded(), output_type="pt").images for each in (twice, direct, once)]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    assert twice.asymflow_plan is not None
    assert len(twice.asymflow_plan.steps) == 5


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        (Tier("tiled", tiles=8), "tiles of 8 pixels, and pipelines are shown whole pictures only"),
        (LATE, "'late', the fast part of a network, and networks of pipelines are asked as a"),
    ],
)
def test_plans_of_parts_are_refused(unconditional: Make, tier: Tier, words: str) -> None:
    plan = plan_of(uniform(2))
    steps = (plan.steps[0], replace(plan.steps[1], tier=tier))
    with pytest.raises(InputError, match=words):
        asymflow.accelerate(unconditional(), Plan("parts", steps))


def test_hooks_of_the_network_go_on_working(prx: Make, told: dict[str, Any]) -> None:
    """As those of offloading, which put `forward` behind a function of their own."""
    hooks = pytest.importorskip("diffusers.hooks")
    accelerated = asymflow.accelerate(prx(), mixed(FULL, CARRIED, SEQUENTIAL_CFG))
    seen: list[int] = []

    class Watch(hooks.ModelHook):
        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(len(kwargs["hidden_states"]))
            return args, kwargs

    registry = hooks.HookRegistry.check_if_exists_or_initialize(accelerated.transformer)
    registry.register_hook(Watch(), "watch")
    before = vars(accelerated.transformer)["forward"]
    accelerated(**call_of(told))
    assert seen == [2, 1, 1, 1]
    assert vars(accelerated.transformer)["forward"] is before


# The plan is what is made.


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(uniform(5), solver="heun"),
        plan_of(uniform(5), solver="multistep3"),
        mixed(FULL, FULL, FULL, FULL),
        mixed(CONDITIONAL, FULL, CARRIED, CARRIED, CONDITIONAL),
        mixed(SEQUENTIAL_CFG, CARRIED, FULL),
    ],
    ids=["heun", "multistep3", "corrected", "mixed", "in turn"],
)
def test_it_makes_the_pictures_of_the_engine(prx: Make, told: dict[str, Any], plan: Plan) -> None:
    pipe = prx()
    z = torch.randn(1, 3, 16, 16, generator=seeded()) * pipe.config.noise_scale
    found = asymflow.accelerate(pipe, plan)(**call_of(told)).images
    adapter = adapt(pipe, FAMILIES["PRXPixelPipeline"])
    inputs = {**told, "use_resolution_binning": False}
    request = Request(inputs, (16, 16), 3, guidance_scale=4.0)
    assert torch.equal(engine.noise(3, (1, 3, 16, 16)) * 2, z)
    assert_close(found, verifier.rollout(adapter, plan, [request]), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["DDPMPipeline", "DDIMPipeline", "PRXPixelPipeline"])
def test_the_engine_begins_with_pictures_where_the_pipeline_cannot(
    unconditional: Make, prx: Make, told: dict[str, Any], kind: str
) -> None:
    pipe = prx() if kind == "PRXPixelPipeline" else unconditional(kind, prediction_type="sample")
    inputs: dict[str, Any] = {}
    side, scale = 8, 1.0
    if kind == "PRXPixelPipeline":
        inputs, side, scale = {**told, "use_resolution_binning": False}, 16, 3.0
    image = np.random.default_rng(0).random((side, side, 3), dtype=np.float32)
    mask = np.zeros((side, side), np.float32)
    mask[2:, :5] = 1
    plan = plan_of(shifted(12, 2.0), solver="corrected2")

    def request(**begin: Any) -> Request:
        return Request(inputs, (side, side), 3, scale, image, **begin)

    wanted = [request(strength=0.05), request(strength=0.9), request(mask=mask)]
    near, far, repainted = engine.run(adapt(pipe, FAMILIES[kind]), plan, wanted)
    distances = [np.abs(each.picture - image).mean() for each in (near, far)]
    assert distances[0] < distances[1]
    assert np.array_equal(repainted.picture[mask == 0], image[mask == 0])
    assert np.abs(repainted.picture - image)[mask == 1].mean() > 0.05


def test_smaller_pictures_are_asked_for_where_a_family_declares_them(
    prx: Make, told: dict[str, Any]
) -> None:
    pipe, plan = prx(), mixed(HALF, FULL)
    with pytest.raises(InputError, match="pooled by 2"):
        asymflow.accelerate(pipe, plan)
    family = replace(FAMILIES["PRXPixelPipeline"], factors=(2,))
    accelerated = asymflow.accelerate(pipe, plan, family=family)
    found = accelerated(**call_of(told)).images
    request = Request({**told, "use_resolution_binning": False}, (16, 16), 3, 4.0)
    expected = verifier.rollout(adapt(pipe, family), plan, [request])
    assert_close(found, expected, rtol=0, atol=2e-5)


def test_passes_that_a_plan_leaves_out_are_not_made(
    prx: Make, told: dict[str, Any], rows: Rows
) -> None:
    accelerated = asymflow.accelerate(
        prx(), mixed(FULL, CONDITIONAL, FULL, CARRIED, SEQUENTIAL_CFG)
    )
    seen = rows(accelerated.transformer)
    accelerated(**call_of(told))
    assert seen == [2, 1, 2, 1, 1, 1]
    seen.clear()
    accelerated(**call_of(told, guidance_scale=1.0))
    assert seen == [1] * 5


@pytest.mark.parametrize("plan", [plan_of(uniform(4)), mixed(FULL, CARRIED, FULL)])
def test_guided_batches_of_prx_are_made(prx: Make, told: dict[str, Any], plan: Plan) -> None:
    """The pipeline itself stops there: it tells two rows their time and asks about four."""
    pipe = prx()
    many = {key: torch.cat([value, value.flip(1)]) for key, value in told.items()}
    with pytest.raises(RuntimeError, match="size"):
        pipe(**call_of(many))
    accelerated = asymflow.accelerate(pipe, plan)
    together = accelerated(**call_of(many, generator=[seeded(5), seeded(6)])).images
    for row, seed in enumerate((5, 6)):
        one = {key: value[row : row + 1] for key, value in many.items()}
        alone = accelerated(**call_of(one, generator=seeded(seed))).images
        assert_close(together[row : row + 1], alone, rtol=0, atol=2e-5)
    assert "forward" not in vars(accelerated.transformer)


@pytest.mark.parametrize("steps", [6, 15])
def test_a_guidance_interval_stays_where_it_is_when_the_grid_changes(
    prx: Make, told: dict[str, Any], rows: Rows, steps: int
) -> None:
    """It is given in t. Fractions of the number of steps would move with the grid."""
    low, high = 0.4, 0.9
    for grid in (uniform(steps), shifted(steps, 5.0)):
        plan = plan_of(grid, guidance_interval=(low, high))
        accelerated = asymflow.accelerate(prx(), plan)
        seen, times = rows(accelerated.transformer), list[float]()

        def callback(
            pipe: Any, step: int, tau: Tensor, tensors: Any, times: list[float] = times
        ) -> None:
            u = float(tau) / 1000
            times.append(2 * u / (2 * u + 1 - u))

        accelerated(**call_of(told, callback_on_step_end=callback))
        assert [2 if low <= t <= high else 1 for t in times] == seen
        assert {1, 2} == set(seen)


def test_any_flow_pipeline_by_a_declaration(prx: Make, told: dict[str, Any]) -> None:
    """Here one whose class is unknown, and whose network says a velocity of unit noise."""

    class Unknown(diffusers.PRXPixelPipeline):
        pass

    known = prx()
    pipe = Unknown(known.transformer, known.scheduler, None, None, default_sample_size=16)
    pipe.set_progress_bar_config(disable=True)
    assert asymflow.accelerate(pipe, "original").asymflow_plan is None  # by its base class

    class Stranger(diffusers.DiffusionPipeline):
        """Whatever is asked for, from noise of standard deviation 1."""

        def __init__(self, net: Any, scheduler: Any) -> None:
            super().__init__()
            self.register_modules(net=net, scheduler=scheduler)

        @torch.no_grad()
        def __call__(self, prompt: Tensor, num_inference_steps: int = 10, **others: Any) -> Any:
            assert others == {} or set(others) == {"output_type"}
            z = torch.randn(len(prompt), 3, 16, 16, generator=seeded())
            self.scheduler.set_timesteps(num_inference_steps)
            for tau in self.scheduler.timesteps:
                said = self.net(z, tau[None] / 1000, prompt).sample
                z = self.scheduler.step(said, tau, z).prev_sample
            return diffusers.ImagePipelineOutput(z)

    stranger = Stranger(known.transformer, known.scheduler)
    with pytest.raises(InputError, match=r"Stranger is not known.*family=Family"):
        asymflow.accelerate(stranger, "original")
    family = Family(network="net", normalised=True)
    accelerated = asymflow.accelerate(stranger, "original", family=family)
    prompt = told["prompt_embeds"]
    assert_close(accelerated(prompt).images, stranger(prompt).images, rtol=0, atol=1e-4)

    class Stepless(diffusers.DiffusionPipeline):
        def __init__(self, net: Any, scheduler: Any) -> None:
            super().__init__()
            self.register_modules(net=net, scheduler=scheduler)

        def __call__(self, prompt: Tensor) -> Any:
            return prompt

    with pytest.raises(InputError, match="Stepless cannot be called with num_inference_steps"):
        asymflow.accelerate(Stepless(stranger.net, stranger.scheduler), family=family)
    with pytest.raises(InputError, match="no component 'unet'"):
        asymflow.accelerate(stranger, "original", family=Family(network="unet"))


class Letters(torch.nn.Module):
    """A tokenizer and a text encoder in one: a number per letter, and a vector per number."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = torch.nn.Embedding(128, 8)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def tokenize(self, prompts: list[str], max_length: int, **_: Any) -> dict[str, Tensor]:
        rows = [[ord(letter) % 128 for letter in prompt][:max_length] for prompt in prompts]
        ids = torch.tensor([row + [0] * (max_length - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": ids > 0}

    def forward(self, input_ids: Tensor, **_: Any) -> dict[str, Tensor]:
        return {"last_hidden_state": self.vectors(input_ids)}


def test_prompts_are_read_by_the_pipeline_itself(
    prx: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.pipelines.prx import pipeline_prx_pixel

    monkeypatch.setattr(pipeline_prx_pixel, "_basic_clean", str.strip)  # it needs another package
    pipe, letters = prx(), Letters()
    vars(pipe).update(text_encoder=letters, tokenizer=letters.tokenize)
    pipe.register_to_config(prompt_max_tokens=12)
    accelerated = asymflow.accelerate(pipe, mixed(FULL, CARRIED, CONDITIONAL))
    call = {"use_resolution_binning": False, "output_type": "pt"}
    prompts = ["a red fox in the snow", "a bear"]
    found = accelerated(prompts, generator=seeded(), **call).images
    embeddings = accelerated.encode_prompt(prompts, negative_prompt="")
    names = (
        "prompt_embeds",
        "prompt_attention_mask",
        "negative_prompt_embeds",
        "negative_prompt_attention_mask",
    )
    told = dict(zip(names, embeddings, strict=True))
    assert_close(found, accelerated(generator=seeded(), **told, **call).images)
    assert not torch.allclose(found[0], found[1])
    other = accelerated(prompts, negative_prompt="fog", generator=seeded(), **call).images
    assert not torch.allclose(found, other)
    # And so they are where the pipeline is measured.
    adapter = adapt(pipe, FAMILIES["PRXPixelPipeline"])
    inputs = {"prompt": prompts[0], "use_resolution_binning": False}
    cond, null = adapter.encode([Request(inputs, (16, 16), 3, 4.0)])
    assert torch.equal(cond["encoder_hidden_states"], told["prompt_embeds"][:1])
    assert torch.equal(null["attention_mask"], told["negative_prompt_attention_mask"][:1])


# Files.


def test_it_is_saved_as_what_it_was_with_the_plan_beside(
    unconditional: Make, tmp_path: Path
) -> None:
    plan = plan_of(uniform(3), name="mine")
    accelerated = asymflow.accelerate(unconditional(prediction_type="sample"), plan)
    accelerated.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "DDIMPipeline"
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert plan_files.load_plan(tmp_path / "asymflow" / "plan.json") == plan
    loaded = diffusers.DDIMPipeline.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert type(loaded) is diffusers.DDIMPipeline
    loaded.set_progress_bar_config(disable=True)
    again = asymflow.accelerate(loaded, "plan")
    first, second = (
        each(generator=seeded(), output_type="pt").images for each in (accelerated, again)
    )
    assert_close(first, second, rtol=0, atol=1e-5)
    by_path = asymflow.accelerate(loaded, tmp_path / "asymflow" / "plan.json")
    assert by_path.asymflow_plan == plan
    listed = r"'fast' beside this model.*auto, default, original, plan"
    with pytest.raises(InputError, match=listed):
        asymflow.accelerate(loaded, "fast")
    with pytest.raises(FileFormatError, match=r"missing\.json"):
        asymflow.accelerate(loaded, str(tmp_path / "missing.json"))


# Bad input.


def test_latent_pipelines_are_refused_with_a_reason(unconditional: Make) -> None:
    pipe = unconditional()
    vars(pipe)["vae"] = torch.nn.Identity()
    with pytest.raises(InputError, match=r"latents of its vae.*would take an adapter"):
        asymflow.accelerate(pipe)


def test_other_things_are_refused(unconditional: Make, deepfloyd: Make) -> None:
    with pytest.raises(InputError, match="plan=3 is no plan"):
        asymflow.accelerate(unconditional(), 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"begins with a picture.*examples="):
        asymflow.accelerate(deepfloyd(kind="IFSuperResolutionPipeline"))
    with pytest.raises(InputError, match="Linear is no pipeline"):
        asymflow.accelerate(torch.nn.Linear(1, 1))
    pipe = unconditional()
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True
    )
    with pytest.raises(InputError, match="predicts 'flow_prediction', which is not supported"):
        asymflow.accelerate(pipe)
    pipe.scheduler = diffusers.KarrasVeScheduler()
    with pytest.raises(InputError, match="no alphas_cumprod and is no flow-matching"):
        asymflow.accelerate(pipe)


def test_schedules_and_noise_of_the_callers_own_are_refused(
    unconditional: Make, prx: Make, told: dict[str, Any]
) -> None:
    accelerated = asymflow.accelerate(prx(), plan_of(uniform(3)))
    with pytest.raises(InputError, match="timesteps were passed"):
        accelerated(**call_of(told, timesteps=[900, 500]))
    with pytest.raises(InputError, match=r"eta=0\.5 asks for fresh noise"):
        asymflow.accelerate(unconditional(), plan_of(uniform(3)))(eta=0.5)
    with pytest.raises(TypeError, match="colour"):
        accelerated(colour="red")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [
        name for name in sys.modules if name.startswith("asymflow.integrations.diffusers")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(vars(asymflow), "accelerate", raising=False)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtra, match=r"\.\[diffusers\]"):
        _ = asymflow.accelerate
