"""What every adapter promises, whatever model is behind it.

The properties are those of `asymflow.models.contract`, one test for each and every `Case`; a new
adapter is one more case. Adapters that answer exactly for Gaussian pixels are also held to the
closed form, which is where a wrong convention shows, and all to what the engine makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine
from asymflow.core.adapter import (
    Adapter,
    Context,
    Described,
    Wrapped,
    begun,
    clipped_estimate,
    projected_guidance,
)
from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import CONDITIONAL, FULL, Plan, Request, Step
from asymflow.models import contract, edm
from asymflow.models.asymflux.adapter import adapt as adapt_flux
from asymflow.models.contract import Subject
from asymflow.models.diffusers import networks as adapted
from asymflow.models.diffusers.pipelines import Family, adapt
from asymflow.models.diffusers.served import serve
from asymflow.models.edm.adm import AdmConfig, AdmNetwork
from asymflow.models.edm.networks import SongConfig
from asymflow.models.edm.preconditioning import EdmModel, EDMPrecond
from asymflow.models.embedded.adapter import EmbeddedAdapter
from asymflow.models.embedded.detail import DetailConfig
from asymflow.models.embedded.network import PictureConfig, PictureModel
from asymflow.models.embedded.text import load_tokenizer
from asymflow.models.embedded.transformer import TransformerConfig
from asymflow.models.empirical import EmpiricalAdapter
from asymflow.models.gaussian import GaussianAdapter
from asymflow.models.jit.adapter import JitAdapter
from asymflow.models.jit.network import JitConfig, JitModel
from asymflow.models.minit2i.adapter import adapt as adapt_minit2i
from asymflow.models.minit2i.network import MiniT2IConfig, MiniT2IModel
from asymflow.planning.binding import bound, match
from asymflow.planning.plan_json import plan_from_json, plan_to_json
from tests import miniatures
from tests.helpers import draw

SQUARES = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)
"""alpha^2 of DDPM's linear schedule."""


@dataclass(frozen=True, slots=True)
class Case:
    """One adapter and what it can be asked.

    Attributes:
        inputs: of two pictures that differ.
        guided: whether it can be asked with guidance.
        bad: requests that it has to refuse.
        truth: what it has to answer, for the first inputs.
    """

    adapter: Adapter
    inputs: tuple[Mapping[str, Any], Mapping[str, Any]]
    size: tuple[int, int] = (8, 8)
    guided: bool = True
    bad: tuple[Request, ...] = field(default=())
    truth: GaussianAdapter | None = None

    @property
    def requests(self) -> list[Request]:
        return [Request(inputs, self.size) for inputs in self.inputs]

    def request(self, which: int = 0, seed: int = 0, scale: float | None = None) -> Request:
        scale = (2.5 if self.guided else 1.0) if scale is None else scale
        return Request(self.inputs[which], self.size, seed, scale)


def pixels(labels: int) -> GaussianAdapter:
    return GaussianAdapter(0.5 * draw(0, labels, 3, 8, 8), 0.2 + draw(1, labels, 3, 8, 8).abs())


def gaussian() -> Case:
    this = pixels(2)
    bad = (Request({"label": 7}, (8, 8)), Request({}, (5, 8)))
    return Case(this, ({"label": 1}, {"label": 0}), bad=bad)


def empirical() -> Case:
    this = EmpiricalAdapter(draw(0, 9, 3, 8, 8).clamp(-1, 1), torch.arange(9) % 3)
    bad = (Request({"label": 7}, (8, 8)), Request({}, (5, 8)))
    return Case(this, ({"label": 1}, {"label": 2}), bad=bad)


def embedded() -> Case:
    torch.manual_seed(0)
    shape = TransformerConfig(width=64, depth=2, head_dim=32, hidden=1024, text_width=32)
    model = PictureModel(PictureConfig(("noto", "twemoji"), shape, rank=8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.text.set_vectors(torch.randn(30522, 32))
    this = EmbeddedAdapter(model.eval().requires_grad_(False), "0" * 64, {}, load_tokenizer(), None)
    bad = (Request({"prompt": "x", "style": "none"}, (32, 32)), Request({}, (33, 32)))
    return Case(this, ({"prompt": "a fox"}, {"prompt": "two cats"}), (32, 32), bad=bad)


def embedded_with_convolutions() -> Case:
    torch.manual_seed(0)
    shape = TransformerConfig(width=64, depth=2, head_dim=32, hidden=128, text_width=32)
    detail = DetailConfig(half=8, quarter=12, gates=True)
    model = PictureModel(PictureConfig(("noto", "twemoji"), shape, detail=detail, skip=0.2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.text.set_vectors(torch.randn(30522, 32))
    this = EmbeddedAdapter(model.eval().requires_grad_(False), "0" * 64, {}, load_tokenizer(), None)
    return Case(this, ({"prompt": "a fox"}, {"prompt": "two cats"}), (32, 32))


def jit() -> Case:
    torch.manual_seed(0)
    shape = JitConfig(size=32, patch=8, width=32, depth=3, heads=2, hidden=64, class_start=1)
    model = JitModel(shape).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():  # it begins with answers of 0
            parameter.add_(0.05 * torch.randn_like(parameter))
    bad = (Request({"label": 0}, (16, 16)), Request({"label": "dog"}, (32, 32)))
    this = JitAdapter(model, "0" * 64, (0.0, 1.0), 0.05)
    return Case(this, ({"label": 1}, {"label": 2}), (32, 32), bad=bad)


def minit2i() -> Case:
    """Words that are numbers, of any length."""
    torch.manual_seed(0)
    model = MiniT2IModel(
        MiniT2IConfig(
            size=8, patch=2, width=32, depth=2, heads=2, head_dim=16, hidden=48, bottleneck=8,
            text_width=12, text_tokens=10,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))

    def prompts(text: str) -> Tensor:
        return draw(len(text), 1, min(len(text), 10), 12)

    bad = (
        Request({"prompt": "x"}, (16, 16)),
        Request({"prompt": 3}, (8, 8)),
        Request({"prompt": "x", "negative": "blurry"}, (8, 8)),
    )
    this = adapt_minit2i(model, prompts)
    return Case(this, ({"prompt": "a fox"}, {"prompt": "two cats"}), bad=bad)


def asymflux() -> Case:
    """FLUX.2's transformer on patches of 4 pixels, and words that are numbers."""
    library: Any = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = library.Flux2Transformer2DModel(
        in_channels=6, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=12, timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    tensors = {
        "proj_buffer": torch.linalg.qr(draw(0, 48, 6)).Q,
        "scale_buffer": torch.tensor(0.8),
        "x_embedder.weight": 0.2 * draw(1, 32, 48),
        "proj_out.weight": 0.2 * draw(2, 48, 32),
    }

    def prompts(texts: Sequence[str]) -> Tensor:
        return torch.stack([draw(len(text), 4, 12) for text in texts])

    bad = (Request({"prompt": "x"}, (16, 18)), Request({"prompt": 3}, (16, 16)))
    this = adapt_flux(model, tensors, prompts, side=16)
    return Case(this, ({"prompt": "a fox"}, {"prompt": "two cats"}), (16, 16), bad=bad)


def network() -> Case:
    """A UNet2DModel of classes and its scheduler."""
    library: Any = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = library.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        num_class_embeds=3,
    )
    this = adapted.adapt(model, library.DDIMScheduler(prediction_type="sample"), null=2)
    bad = (Request({"label": 3}, (8, 8)), Request({"label": 0}, (9, 8)))
    return Case(this, ({"label": 0}, {"label": 1}), bad=bad)


def pipeline() -> Case:
    """A pipeline that guides by embeddings."""
    library: Any = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = library.PRXTransformer2DModel(
        in_channels=3,
        patch_size=4,
        context_in_dim=8,
        hidden_size=32,
        num_heads=2,
        depth=2,
        axes_dim=[8, 8],
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    scheduler = library.FlowMatchEulerDiscreteScheduler()
    pipe = library.PRXPixelPipeline(model.eval(), scheduler, None, None, default_sample_size=8)
    family = Family(network="transformer", normalised=True, floor=0.05, noise="noise_scale")
    first, second = (
        {
            "prompt_embeds": draw(seed, 1, 5, 8),
            "negative_prompt_embeds": draw(9, 1, 5, 8),
            "use_resolution_binning": False,
        }
        for seed in (1, 2)
    )
    bad = (Request(first, (10, 8)), Request({"colour": "red"}, (8, 8)))
    return Case(adapt(pipe, family), (first, second), bad=bad)


def served_prompts() -> Case:
    """A PRXPixelPipeline, asked as all models are."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    this = serve(miniatures.prx_pipeline())
    bad = (Request({"prompt": "a fox"}, (18, 16)), Request({"prompt": "a fox"}, (256, 16)))
    return Case(this, ({"prompt": "a fox"}, {"prompt": "two blue cats"}), (16, 16), bad=bad)


def served_pictures() -> Case:
    """A DDIMPipeline, which is asked with nothing."""
    pytest.importorskip("diffusers")
    this = serve(miniatures.ddim_pipeline())
    bad = (Request({}, (16, 16)), Request({}, (8, 8), guidance_scale=2.0))
    return Case(this, ({}, {}), guided=False, bad=bad)


def denoiser() -> Case:
    """D(x, sigma) of Gaussian pixels."""
    truth = pixels(1)
    mean, variance = truth.mean[0], truth.std[0] ** 2

    def net(x: Tensor, sigma: Tensor) -> Tensor:
        noise = sigma.view(-1, 1, 1, 1) ** 2
        return mean + variance / (variance + noise) * (x - mean)

    this = edm.edm(net, channels=3, size=(8, 8), name="gaussian")
    bad = (Request({"label": 0}, (8, 8)), Request({}, (8, 8), guidance_scale=2.0))
    return Case(this, ({}, {}), guided=False, bad=bad, truth=truth)


def classes() -> Case:
    """D(x, sigma, one_hot) of Gaussian pixels in two classes, and all zeros for none."""
    truth = pixels(3)

    def net(x: Tensor, sigma: Tensor, one_hot: Tensor) -> Tensor:
        # Of the closed form, label 0 is the unconditional one.
        label = torch.where(one_hot.any(1), one_hot.argmax(1) + 1, 0)
        mean, variance = truth.mean[label], truth.std[label] ** 2
        noise = sigma.view(-1, 1, 1, 1) ** 2
        return mean + variance / (variance + noise) * (x - mean)

    this = edm.edm(net, channels=3, classes=2, null=True, size=(8, 8), name="gaussian")
    bad = (Request({"label": 3}, (8, 8)), Request({"label": "dog"}, (8, 8)))
    known = GaussianAdapter(truth.mean[1:2], truth.std[1:2])
    return Case(this, ({"label": 0}, {"label": 1}), bad=bad, truth=known)


def timesteps() -> Case:
    """net(z, tau) that says the noise in Gaussian pixels, and a variance."""
    truth = pixels(1)
    mean, std = truth.mean[0], truth.std[0]
    log_snr = torch.logit(SQUARES) / 2

    def net(z: Tensor, tau: Tensor) -> Tensor:
        at = np.interp(tau.double().numpy(), np.arange(1000), log_snr.numpy())
        lam = torch.from_numpy(at).view(-1, 1, 1, 1)
        alpha, sigma = torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()
        said = sigma * (z - alpha * mean) / (alpha**2 * std**2 + sigma**2)
        return torch.cat([said, said], 1)

    this = edm.guided_diffusion(net, SQUARES, channels=3, size=(8, 8), name="gaussian")
    bad = (Request({"label": 0}, (8, 8)), Request({}, (0, 8)))
    return Case(this, ({}, {}), guided=False, bad=bad, truth=truth)


def song() -> Case:
    """A file of EDM's DDPM++, trained with dropped labels."""
    torch.manual_seed(0)
    shape = SongConfig(
        size=8, classes=3, width=16, widths=(16, 32), embedding=64, noise=16, blocks=1,
        attention=(4,),
    )  # fmt: skip
    state = EdmModel(shape, EDMPrecond()).state_dict()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "song.safetensors"
        save_file(state, path, {"edm": '{"class_name": "EDMPrecond", "label_dropout": 0.1}'})
        this = edm.load(path)
    bad = (Request({"label": 4}, (8, 8)), Request({"label": 0}, (8, 16)))
    return Case(this, ({"label": 1}, {"label": 2}), bad=bad)


def adm() -> Case:
    """A file of guided-diffusion, whose last label stands for none."""
    torch.manual_seed(0)
    shape = AdmConfig(
        size=8, width=32, widths=(32, 64), blocks=1, attention=(1,), classes=4, head_width=16
    )
    state = AdmNetwork(shape).state_dict()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "adm.pt"
        torch.save(state, path)
        this = edm.load_guided_diffusion(
            path, image_size=8, num_head_channels=16, noise_schedule="cosine", null=3
        )
    bad = (Request({"label": 4}, (8, 8)), Request({"label": 0}, (16, 16)))
    return Case(this, ({"label": 1}, {"label": 2}), bad=bad)


GUIDED = (
    gaussian,
    empirical,
    embedded,
    embedded_with_convolutions,
    jit,
    minit2i,
    asymflux,
    network,
    pipeline,
    served_prompts,
    classes,
    song,
    adm,
)
EXACT = (denoiser, classes, timesteps)
CASES = (*GUIDED, served_pictures, denoiser, timesteps)


TOLERANCE = 2e-5
"""Of float32, and of the cube roots of Oklab."""


@pytest.fixture(scope="module", params=CASES, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[], Case]:
    return request.param


@pytest.fixture(scope="module", autouse=True)
def cleaned() -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("diffusers") is not None and find_spec("transformers") is not None:
            miniatures.without_ftfy(patch)
        yield


@pytest.fixture(scope="module")
def case(make: Callable[[], Case]) -> Case:
    return make()


guided = pytest.mark.parametrize("make", GUIDED, indirect=True, ids=lambda make: make.__name__)
exact = pytest.mark.parametrize("make", EXACT, indirect=True, ids=lambda make: make.__name__)


class Counting(Wrapped):
    """Counts the rows that the network is asked for."""

    def __init__(self, inner: Adapter) -> None:
        super().__init__(inner)
        self.rows: list[int] = []

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.rows.append(len(x_t))
        return super().denoise(x_t, t, context)


def state(case: Case, seed: int, count: int = 1) -> Tensor:
    return draw(seed, count, case.adapter.channels, *case.size).to(case.adapter.template)


def full(x: Tensor, t: float) -> Tensor:
    return x.new_full((len(x),), t)


# Contract and convention.


@pytest.mark.parametrize("check", contract.PROPERTIES, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(
    case: Case, make: Callable[[], Case], check: contract.Property
) -> None:
    subject = Subject.of(
        case.adapter,
        case.requests,
        refused=case.bad,
        tolerance=TOLERANCE,
        again=lambda: make().adapter,
    )
    assert subject.guided is case.guided
    found = contract.tried(check, subject)
    assert found.kept, str(found)


def test_plans_can_be_bound_to_every_network(case: Case) -> None:
    adapter = case.adapter
    if isinstance(adapter, GaussianAdapter | EmpiricalAdapter):
        return  # closed forms, which have no weights
    assert isinstance(adapter, Described)
    model = adapter.description
    assert (model.guidance == "cfg") is case.guided
    plan = plan_from_json(plan_to_json(bound(plan_of(shifted(3, 2.0)), model)))
    assert match(plan, model, case.size).level == "exact"
    tuned = replace(model, weights=64 * "f", fingerprint=None)
    assert match(plan, tuned).level == "compatible"
    assert match(plan, replace(model, family="another")).level == "other"
    assert match(plan, replace(model, parameterisation="another")).level == "other"
    if model.settings:
        name = next(iter(model.settings))
        found = match(plan, replace(model, settings={**model.settings, name: "another"}))
        assert found.level == "compatible"
        assert found.line.endswith(f"{name} {model.settings[name]}, and it is another here")


@exact
@torch.inference_mode()
def test_estimates_are_those_of_the_closed_form(case: Case) -> None:
    assert case.truth is not None
    context, _ = case.adapter.encode([case.request()])
    x_t = state(case, 2)
    for t in (0.02, 0.3, 0.7, 0.95, 0.985):
        expected = case.truth.denoise(x_t, full(x_t, t), {"label": torch.tensor([0])})
        found = case.adapter.denoise(x_t, full(x_t, t), context)
        assert_close(found, expected, rtol=0, atol=2e-4)


@exact
@torch.inference_mode()
def test_trajectories_are_those_of_the_closed_form(case: Case) -> None:
    assert case.truth is not None
    errors: list[float] = []
    for steps in (20, 40):
        grid = [0.98 * t for t in shifted(steps, 2.0)]
        *_, last = engine.walk(case.adapter, plan_of(grid), [case.request(scale=1.0)])
        noise = engine.noise(0, last.x_t.shape)
        end = case.truth.solution(0.98 * noise, 0.98, 0.0, torch.tensor([0]))
        errors.append(float((last.x_t - end).square().mean().sqrt()))
    assert errors[1] < 0.02
    assert errors[1] < 0.45 * errors[0]


# Guidance.


@guided
@torch.inference_mode()
def test_guidance_moves_away_from_the_answer_without_the_prompt(case: Case) -> None:
    cond, null = case.adapter.encode([case.request()])
    assert cond.keys() == null.keys()
    assert all(len(value) == 1 for value in (*cond.values(), *null.values()))
    x_t = state(case, 7)
    x_t = begun(case.adapter, engine.noise(2, x_t.shape).to(x_t), 0.7)
    with_, without = (case.adapter.denoise(x_t, full(x_t, 0.7), each) for each in (cond, null))
    assert not torch.allclose(with_, without)
    request = Request(case.inputs[0], case.size, 2, 2.5)
    [frame] = engine.walk(case.adapter, plan_of((0.7, 0.0)), [request])
    added = projected_guidance(case.adapter, with_, 1.5 * (with_ - without))
    assert_close(frame.x_0, clipped_estimate(case.adapter, with_ + added), rtol=1e-4, atol=1e-4)
    plan = Plan("conditional", (Step(0.7, 0.0, CONDITIONAL),))
    [frame] = engine.walk(case.adapter, plan, [request])
    assert_close(frame.x_0, clipped_estimate(case.adapter, with_), rtol=1e-5, atol=1e-5)


def test_only_what_is_guided_costs_two_passes(case: Case) -> None:
    counting = Counting(case.adapter)
    steps = (Step(1.0, 0.6, FULL), Step(0.6, 0.0, CONDITIONAL))
    engine.run(counting, Plan("two", steps), [case.request()])
    assert counting.rows == ([2, 1] if case.guided else [1, 1])
    counting.rows.clear()
    engine.run(counting, Plan("two", steps), [case.request(scale=1.0)])
    assert counting.rows == [1, 1]


# Progress and cancellation.


def test_every_step_is_seen_and_the_rest_can_be_cancelled(case: Case) -> None:
    counting = Counting(case.adapter)
    plan = plan_of(shifted(5, 2.0))
    walk = engine.walk(counting, plan, [case.request()])
    for index in range(2):
        frame = next(walk)
        [move] = frame.moves
        assert (move.index, move.count) == (index, 5)
        assert frame.x_0.shape == (1, case.adapter.channels, *case.size)
    asked = len(counting.rows)
    walk.close()
    assert list(walk) == []
    assert len(counting.rows) == asked == 2
